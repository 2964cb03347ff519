"""Find the landing files of a stream that are new and complete.

A file is never judged by name or time alone: the listing only leaves out a file whose path, size,
modification time and mark are all as they were; content decides the rest. The mark is what a writer
does not choose: the file's number and the moment of its last change on this machine, or an
object's ETag and version. It changes when a file is replaced, however its times are set.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.landing.candidate import (
    _MARKER,
    Candidate,
    Listing,
    Look,
    is_unfinished,
    oldest_first,
)
from mlmon_dagster.spec import FileSource
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.sources import Stream

_FOLDER_MARKER = "_SUCCESS"


def list_landing(
    project: Path,
    source: FileSource,
    stream: Stream,
    known: Mapping[str, Look],
    storage_options: Mapping[str, str] | None = None,
) -> Listing:
    """List the files of a stream's glob that are not known.

    Args:
        project: The folder that the glob is relative to; nothing outside it is read.
        source: The stream's source.
        stream: The stream's name.
        known: (size, mtime_ns, mark) by name of the files that need no second look.
        storage_options: How to reach object storage, if that is where the source is.

    Raises:
        ConfigError: If the glob is absolute or climbs out of the project folder.
        StoreError: If object storage cannot be listed.
    """
    if "://" in source.path:
        from mlmon_dagster.ingest.landing.discover_objects import list_objects

        return list_objects(source, stream, known, storage_options or {})
    root = project.resolve()
    ready: list[Candidate] = []
    waiting: list[Candidate] = []
    skipped: list[tuple[str, str]] = []
    inside: dict[Path, bool] = {}
    for path in _matches(root, source.path):
        name = printable(path.relative_to(root).as_posix())
        problem, info = _inspect(root, path, inside)
        if problem or info is None:
            skipped.append((name, problem))
        elif known.get(name) != (info.st_size, info.st_mtime_ns, mark_of(info)):
            candidate = _candidate(stream, path, name, info)
            settled = candidate.has_marker or candidate.age >= source.settle.total_seconds()
            (ready if settled else waiting).append(candidate)
    return Listing(oldest_first(ready), oldest_first(waiting), tuple(skipped))


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    parts = PurePosixPath(pattern).parts
    if PurePosixPath(pattern).is_absolute() or ".." in parts or not parts:
        raise ConfigError(
            f"source path {pattern!r} leaves the project folder. "
            "Write a path relative to it, such as landing/predictions/*.parquet."
        )
    for path in sorted(root.glob(pattern)):
        below = path.relative_to(root).parts
        if is_unfinished(path.name):
            continue
        if any(part.startswith(".") for part in below[:-1]):
            continue
        yield path


def _inspect(root: Path, path: Path, inside: dict[Path, bool]) -> tuple[str, os.stat_result | None]:
    folder = path.parent
    try:
        info = path.lstat()
        if folder not in inside:  # resolved once a look: it takes longer than all the rest
            inside[folder] = folder.resolve().is_relative_to(root)
    except OSError:
        return "it vanished while the folder was listed", None
    if stat.S_ISLNK(info.st_mode):
        return "it is a symbolic link; links are not followed", None
    if not inside[folder]:
        return "it lies outside the project folder", None
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file", None
    return "", info


def _candidate(stream: Stream, path: Path, name: str, info: os.stat_result) -> Candidate:
    # A file moved in from a machine with a fast clock is as old as its arrival here.
    changed_ns = min(info.st_mtime_ns, info.st_ctime_ns)
    age = time.time() - changed_ns / 1e9
    marked = _has_marker(path, info.st_mtime_ns)
    return Candidate(stream, path, name, info.st_size, info.st_mtime_ns, age, marked, mark_of(info))


def mark_of(info: os.stat_result) -> str:
    """Return what tells a file from another one of the same size and modification time."""
    return f"{info.st_ino}.{info.st_ctime_ns}"


def _has_marker(path: Path, mtime_ns: int) -> bool:
    # A marker older than the file belongs to what the file was before.
    for marker in (path.with_name(path.name + _MARKER), path.with_name(_FOLDER_MARKER)):
        try:
            info = marker.lstat()
        except OSError:
            continue
        if stat.S_ISREG(info.st_mode) and info.st_mtime_ns >= mtime_ns:
            return True
    return False
