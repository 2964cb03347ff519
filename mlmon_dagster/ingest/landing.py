"""Landing files: which are new and complete, in folders and buckets, and private copies of them.

A file is never judged by name or time alone: the listing only leaves out a file whose path, size,
modification time and mark are all as they were; content decides the rest. The mark is what a
writer does not choose: the file's number and the moment of its last change on this machine, or an
object's ETag and version. It changes when a file is replaced, however its times are set.

Files beside the landing files that no source matches are read by nobody, so somebody says so: those
in the folders that a glob begins with, all that is below them, and data files one folder up; never
those of the project folder itself, which is for people.

An object of a bucket is there as a whole or not at all, so that nothing has to settle.

A landing file is copied to a private folder and hashed; only the copy is ever parsed. The file is
opened once and never changed, so nobody can swap its bytes between the check and the use. Copies
are named by content, never by the landing name.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from mlmon_dagster.errors import ConfigError, MlmonError, SchemaError
from mlmon_dagster.ingest.formats.known import ending_of
from mlmon_dagster.ingest.report import file_message, names
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import path_problem
from mlmon_dagster.spec.scalars import printable
from mlmon_dagster.spec.sources import STREAMS, FileSource, Source, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.clocks import Clock, measure_age, read_machine_clock
from mlmon_dagster.store.places.location import Location, hash_file
from mlmon_dagster.store.places.objects import ChangedError, ObjectPlace, fetch, listed
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.tables.kept_rows import KeptRows, Mask

_FOLDER_MARKER = "_SUCCESS"
_WILD = re.compile(r"[*?[]")
_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
_MARKER = ".done"
_BLOCK = 1 << 20
Look = tuple[int, int, str]  # size, mtime_ns, mark


def list_landing(
    project: Path,
    source: FileSource,
    stream: Stream,
    known: Mapping[str, Look],
    storage_options: Mapping[str, str] | None = None,
    written_by: dt.datetime | None = None,
    clock: Clock = read_machine_clock,
) -> Listing:
    """List the files of a stream's glob that are not known.

    Args:
        project: The folder that a relative glob begins in; nothing outside it is read, and of an
            absolute glob nothing outside the folder before its first wildcard.
        source: The stream's source.
        stream: The stream's name.
        known: (size, mtime_ns, mark) by name of the files that need no second look.
        storage_options: How to reach object storage, if that is where the source is.
        written_by: When whatever writes the files last said that it was done; what has not changed
            since is complete.
        clock: What ages are counted by. A file that changed ahead of it was written under a clock
            that has been put back since, and has settled.

    Raises:
        ConfigError: If the glob climbs with ``..``.
        StoreError: If object storage cannot be listed.
    """
    if "://" in source.path:
        return _list_objects(source, stream, known, storage_options or {}, written_by, clock)
    if not source.path or ".." in PurePosixPath(source.path).parts:
        raise ConfigError(
            f"source path {source.path!r} leaves its folder. Write a path below the project, such "
            "as landing/predictions/*.parquet, or one from / on."
        )
    is_outside = source.path.startswith("/")
    root = _find_fixed_folder(source.path) if is_outside else project.resolve()
    home = root.resolve()
    pattern = PurePosixPath(source.path).relative_to(root) if is_outside else source.path
    found: list[Candidate] = []
    skipped: list[tuple[str, str]] = []
    unreadable: dict[Path, str] = {}
    inside: dict[Path, bool] = {}
    now = clock()
    for path in _match_glob(root, str(pattern), unreadable):
        name = _name_path(path, root, source)
        try:
            problem, info = _inspect(home, path, inside)
        except OSError as error:
            unreadable[path] = error.strerror or str(error)
            continue
        if problem or info is None:
            skipped.append((name, problem))
        elif known.get(name) != (info.st_size, info.st_mtime_ns, mark_of(info)):
            found.append(_make_candidate(stream, path, name, info, _nanoseconds(written_by), now))
    names = {_name_path(path, root, source): why for path, why in unreadable.items()}
    return _sort_out(found, source.settle.total_seconds(), tuple(skipped), tuple(names.items()))


def _name_path(path: Path, root: Path, source: FileSource) -> str:
    """Return what a file is called: its path below the project, or all of it as it is declared."""
    is_outside = source.path.startswith("/")
    return printable(path.as_posix() if is_outside else path.relative_to(root).as_posix())


def _sort_out(
    found: Sequence[Candidate],
    settle: float,
    skipped: tuple[tuple[str, str], ...] = (),
    unreadable: tuple[tuple[str, str], ...] = (),
) -> Listing:
    """Tell files that are complete from those that may still be written to, oldest first."""
    ready, waiting = list[Candidate](), list[Candidate]()
    for candidate in sorted(found, key=lambda c: (c.mtime_ns, c.name)):
        is_settled = candidate.has_marker or candidate.age >= settle
        (ready if is_settled else waiting).append(candidate)
    return Listing(tuple(ready), tuple(waiting), skipped, unreadable)


def _match_glob(root: Path, pattern: str, unreadable: dict[Path, str]) -> Iterator[Path]:
    """Yield what a glob matches, in the order of names, and note what cannot be looked into."""
    parts = PurePosixPath(pattern).parts
    for path in sorted(set(_walk(root, parts, unreadable))):
        below = path.relative_to(root).parts
        if is_unfinished(path.name):
            continue
        if any(part.startswith(".") for part in below[:-1]):
            continue
        yield path


def _walk(folder: Path, parts: Sequence[str], unreadable: dict[Path, str]) -> Iterator[Path]:
    """Yield what matches parts of a glob; `Path.glob` passes over what it may not look into."""
    if not parts:
        yield folder
        return
    first, *rest = parts
    try:
        if first != "**" and not _WILD.search(first):
            if rest or _exists(folder / first):
                yield from _walk(folder / first, rest, unreadable)
            return
        with os.scandir(folder) as found:
            entries = [(entry.name, entry.is_dir(), entry.is_symlink()) for entry in found]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        unreadable[folder] = error.strerror or str(error)
        return
    if first == "**":
        yield from _walk(folder, rest, unreadable)
    for name, is_folder, is_link in entries:
        if first == "**" and is_folder and not is_link:
            yield from _walk(folder / name, parts, unreadable)
        elif first != "**" and (is_folder or not rest) and fnmatchcase(name, first):
            yield from _walk(folder / name, rest, unreadable)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _inspect(root: Path, path: Path, inside: dict[Path, bool]) -> tuple[str, os.stat_result | None]:
    folder = path.parent
    try:
        info = path.lstat()
        if folder not in inside:  # resolved once a look: it takes longer than all the rest
            inside[folder] = folder.resolve().is_relative_to(root)
    except (FileNotFoundError, NotADirectoryError):
        return "it vanished while the folder was listed", None
    if stat.S_ISLNK(info.st_mode):
        return "it is a symbolic link; links are not followed", None
    if not inside[folder]:
        return "it lies outside the project folder", None
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file", None
    return "", info


def _nanoseconds(moment: dt.datetime | None) -> int:
    return round(moment.timestamp() * 1e9) if moment else -1


def _make_candidate(
    stream: Stream,
    path: Path,
    name: str,
    info: os.stat_result,
    written_by_ns: int,
    now: dt.datetime,
) -> Candidate:
    # A file moved in from a machine with a fast clock is as old as its arrival here.
    changed_ns = min(info.st_mtime_ns, info.st_ctime_ns)
    age = _count_age(changed_ns, now)
    is_written = max(info.st_mtime_ns, info.st_ctime_ns) <= written_by_ns
    marked = is_written or _has_marker(path, info.st_mtime_ns)
    return Candidate(stream, path, name, info.st_size, info.st_mtime_ns, age, marked, mark_of(info))


def _count_age(changed_ns: int, now: dt.datetime) -> float:
    """Return the seconds since a change; very many if it lies in the future."""
    return measure_age(dt.datetime.fromtimestamp(changed_ns / 1e9, dt.UTC), now).total_seconds()


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


def _list_objects(
    source: FileSource,
    stream: Stream,
    known: Mapping[str, Look],
    storage_options: Mapping[str, str],
    written_by: dt.datetime | None = None,
    clock: Clock = read_machine_clock,
) -> Listing:
    """List the objects of a stream's glob that are not known.

    Everything below the last folder without a wildcard is listed, a thousand objects a request.

    Args:
        source: The stream's source; its ``settle`` counts only if it is declared.
        stream: The stream's name.
        known: (size, mtime_ns, mark) by name of the objects that need no second look.
        storage_options: How to reach the storage.
        written_by: What has not changed since is complete.
        clock: What ages are counted by.

    Raises:
        ConfigError: If the glob names no bucket.
        StoreError: If the bucket cannot be listed.
    """
    if problem := path_problem(source.path):
        raise ConfigError(f"source path: {problem}.")
    folder, pattern = _split(source.path)
    place = ObjectPlace(folder, storage_options)
    settle = source.settle.total_seconds() if "settle" in source.model_fields_set else 0.0
    written_by_ns = _nanoseconds(written_by)
    candidates: list[Candidate] = []
    now = clock()
    for found in listed(place):
        name, mark = printable(f"{folder}/{found.key}"), f"{found.etag}.{found.version}"
        if known.get(name) == (found.size, found.mtime_ns, mark) or _is_hidden(found.key):
            continue
        if name_matches(found.key, pattern):
            age, is_marked = _count_age(found.mtime_ns, now), found.mtime_ns <= written_by_ns
            candidates.append(Candidate(
                stream, place / found.key, name, found.size, found.mtime_ns, age,
                not settle or is_marked, mark, found.etag,
            ))  # fmt: skip
    return _sort_out(candidates, settle)


def listed_folder(url: str) -> str:
    """Return the URL below which a glob's objects are listed."""
    return _split(url)[0]


def _split(url: str) -> tuple[str, str]:
    """Divide a glob into the folder that is listed and the pattern of the names below it."""
    scheme, _, rest = url.partition("://")
    bucket, *parts = rest.split("/")
    n_fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    return f"{scheme}://{'/'.join([bucket, *parts[:n_fixed]])}", "/".join(parts[n_fixed:])


def name_matches(key: str, pattern: str) -> bool:
    """Say whether a glob fits a key; wildcards stay within a folder, ``**`` is any folders."""
    return _parts_match(key.split("/"), pattern.split("/"))


def _parts_match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Compare folder by folder; ``**`` stands for any number of them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_parts_match(parts[n:], pattern[1:]) for n in range(len(parts) + 1))
    is_same = bool(parts) and fnmatchcase(parts[0], pattern[0])
    return is_same and _parts_match(parts[1:], pattern[1:])


def _is_hidden(key: str) -> bool:
    *folders, name = key.split("/")
    return not name or is_unfinished(name) or any(f.startswith((".", "_")) for f in folders)


@dataclass(frozen=True)
class Candidate:
    """A landing file that is not known yet.

    Attributes:
        path: Absolute path, or the place of an object.
        name: Path below the project folder, or from / on, printable; of an object the URL.
        mtime_ns: When it last changed, as its writer says.
        mark: What else tells it from the file that was there before, see the module.
        age: Seconds since its last change, by the machine's clock.
        has_marker: The producer says that it is complete.
    """

    stream: Stream
    path: Path | Location
    name: str
    size: int
    mtime_ns: int
    age: float
    has_marker: bool
    mark: str = ""
    etag: str = ""

    @property
    def look(self) -> Look:
        """What a listing tells of a file: another one has another of these."""
        return self.size, self.mtime_ns, self.mark


@dataclass(frozen=True)
class Listing:
    """What a landing folder holds beyond the known files, oldest first.

    Attributes:
        ready: Complete files.
        waiting: Files that may still be written to.
        skipped: Names and why they are never read: symbolic links, pipes, folders.
        unreadable: Names of folders and files that this user cannot look into, and why.
    """

    ready: tuple[Candidate, ...] = ()
    waiting: tuple[Candidate, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=())
    unreadable: tuple[tuple[str, str], ...] = field(default=())


def is_unfinished(name: str) -> bool:
    """Say whether a file's name means that it is hidden, a marker, or still written to."""
    return name.endswith((*_UNFINISHED, _MARKER)) or name.startswith((".", "_"))


def find_unreadable(project: Path, source: FileSource, known: Mapping[str, Look]) -> list[str]:
    """Return the folders and new files of a local source that cannot be read, and why."""
    listing = list_landing(project, source, "predictions", known)
    found = dict(listing.unreadable)
    for candidate in (*listing.ready, *listing.waiting):
        if not os.access(str(candidate.path), os.R_OK, effective_ids=True):
            found[candidate.name] = os.strerror(errno.EACCES)
    return [f"{name} ({why})" for name, why in found.items()]


def hash_landed(project: Path, sources: Iterable[Source | None]) -> set[str]:
    """Return the content hashes of the landing files of some sources that are on this machine."""
    found = set()
    for source in sources:
        if isinstance(source, FileSource) and "://" not in source.path:
            listing = list_landing(project, source, "predictions", {})
            for candidate in (*listing.ready, *listing.waiting):
                assert isinstance(candidate.path, Path)
                found.add(hash_file(candidate.path))
    return found


def find_gone(store: Store, spec: ModelSpec, project: Path) -> list[manifest.FileRow]:
    """Return the files that were read and whose content cannot be read again from where it was.

    Of tables and topics nobody knows whether they still have what they had.
    """
    gone: list[manifest.FileRow] = []
    for stream in STREAMS:
        source = spec.source.of(stream)
        there = set[str]()
        if isinstance(source, FileSource):
            there = _find_contents(store, spec, stream, source, project)
        gone += [
            row
            for row in manifest.load_files(store.state, spec.model, stream)
            if row["sha256"] not in there and not row["sha256"].startswith(manifest.IN_PLACE)
        ]
    return gone


def _find_contents(
    store: Store, spec: ModelSpec, stream: Stream, source: FileSource, project: Path
) -> set[str]:
    """Return the content hashes of landing files; what looks as it did is not read for it."""
    seen = manifest.load_paths(store.state, spec.model, stream)
    listing = list_landing(project, source, stream, {}, store.storage_options)
    found = set()
    for candidate in (*listing.ready, *listing.waiting):
        known = seen.get(candidate.name)
        if known is not None and known.look == candidate.look:
            found.add(known.sha256)
        elif isinstance(candidate.path, Path):
            found.add(hash_file(candidate.path))
    return found


class UnreadableError(Exception):
    """The landing file is there, and this user or machine cannot read it; the text says why."""


class StillChangingError(Exception):
    """The landing file changed or vanished while it was read; it is looked at again later."""


@dataclass(frozen=True)
class Again:
    """The refused rows of a file that was taken in otherwise, to be read again.

    Attributes:
        kept: The rows.
        moment: When that was begun; their times may not lie ahead of it.
        arrived: When the file was taken in.
    """

    kept: KeptRows
    moment: dt.datetime
    arrived: dt.datetime

    def about(self, name: str, n_rows: int) -> list[Any] | None:
        """Return what is known of each row; None if the rows are not the same ones any more."""
        rows = self.kept.rows
        return rows[name].to_pylist() if rows.num_rows == n_rows else None

    def row_numbers(self) -> list[int]:
        """Return the numbers of the rows in the landing file."""
        found: list[int] = self.kept.rows["row"].to_pylist()
        return found


@dataclass(frozen=True)
class Staged:
    """A private copy of a landing file.

    Attributes:
        path: The copy, or None if the file was too large to copy.
        name: The landing file's name, for messages.
        has_marker: The producer said that it is complete.
        age: Seconds since the landing file's last change.
        mark: Tells the landing file from one that replaces it; empty if it was not looked at now.
        again: Its refused rows, if only these are read; the copy holds no others.
    """

    stream: Stream
    name: str
    path: Path | None
    sha256: str
    size: int
    mtime_ns: int
    age: float = float("inf")
    has_marker: bool = False
    mark: str = ""
    again: Again | None = None

    @property
    def log_id(self) -> str:
        """By which the log knows its rows; each reading of refused rows has one of its own."""
        if self.again is None:
            return self.sha256
        return f"{self.sha256}.{round(self.again.moment.timestamp() * 1_000_000)}"

    def passed_over(self, n_rows: int) -> Mask:
        """Return which rows of the copy are only there because they share a line."""
        refused = self.again.about("is_refused", n_rows) if self.again else None
        return ~np.array(refused, dtype=bool) if refused else np.zeros(n_rows, dtype=bool)

    def row_numbers(self, n_rows: int) -> np.ndarray:
        """Return the number of each row of the copy in the landing file."""
        numbers = self.again.about("row", n_rows) if self.again else None
        return np.arange(n_rows) if numbers is None else np.array(numbers, dtype=np.int64)

    @property
    def order(self) -> tuple[int, str, str]:
        """Its place in the order of arrival of files that are taken in together: oldest first."""
        return self.mtime_ns, self.name, self.sha256

    def discard(self) -> None:
        """Delete the copy."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def is_final(self, patience: float) -> bool:
        """Say whether nobody is likely to complete the file: it is marked, or old enough."""
        return self.has_marker or self.age >= patience


def stage(candidate: Candidate, folder: Path, max_bytes: int) -> Staged:
    """Copy a landing file, or object, into ``folder`` as ``<sha256><ending>``.

    A file above ``max_bytes`` is hashed and not copied.

    Raises:
        StillChangingError: If the file changed, vanished or stopped being a regular file.
        UnreadableError: If it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"incoming-{os.getpid()}"
    if isinstance(candidate.path, Path):
        copy, sha256 = _copy_file(candidate, candidate.path, incoming, max_bytes)
    else:
        copy = candidate.size <= max_bytes
        sha256 = _download(candidate, candidate.path, incoming if copy else None)
    path = None
    if copy:
        path = folder / f"{sha256}{ending_of(candidate.name)}"
        incoming.replace(path)
    return Staged(
        candidate.stream, candidate.name, path, sha256, candidate.size, candidate.mtime_ns,
        candidate.age, candidate.has_marker, candidate.mark,
    )  # fmt: skip


def _download(candidate: Candidate, place: Location, target: Path | None) -> str:
    try:
        sha256 = fetch(place, target, candidate.etag)
    except ChangedError as error:
        raise StillChangingError(str(error)) from error
    if target is not None and target.stat().st_size != candidate.size:
        raise StillChangingError(f"{candidate.name}: changed while it was read")
    return sha256


def _copy_file(
    candidate: Candidate, path: Path, incoming: Path, max_bytes: int
) -> tuple[bool, str]:
    """Copy a file unless it is too large; return whether it was copied, and its hash."""
    try:
        with _open_landing(path) as landing:
            before = os.fstat(landing)
            copy = before.st_size <= max_bytes
            sha256 = _copy_blocks(landing, incoming if copy else None)
            after = os.fstat(landing)
    except (OSError, UnreadableError):
        incoming.unlink(missing_ok=True)
        raise
    if _version(before) != _version(after) or _version(after) != candidate.look:
        incoming.unlink(missing_ok=True)
        raise StillChangingError(f"{candidate.name}: changed while it was read")
    return copy, sha256


def find_staged(folder: Path, sha256: str) -> Path | None:
    """Return the intact copy of a content that an interrupted run left behind, or None."""
    for path in folder.glob(f"{sha256}.*"):
        if hash_file(path) == sha256:
            return path
        path.unlink()
    return None


def staging_folder(store: Store, model: str, stream: Stream) -> Path:
    """Return the private folder of a stream's copies, on this machine."""
    return store.folder / "staging" / model / stream


def clear_staging(folder: Path, keep: Collection[str]) -> None:
    """Delete what earlier processes left, save the copies of the contents to keep.

    The writer lock must be held.
    """
    for path in folder.glob("*"):
        if path.name.split(".")[0] not in keep:
            path.unlink(missing_ok=True)


def clear_incoming(folder: Path) -> None:
    """Delete unfinished copies and unpacked files; the writer lock must be held."""
    for path in folder.glob("incoming-*"):
        path.unlink(missing_ok=True)


def too_large(staged: Staged, max_bytes: int) -> SchemaError:
    """Return the error of a file above the size limit."""
    found = f"{staged.size:,} bytes are more than max_bytes = {max_bytes:,}."
    return SchemaError("too_large", file_message(staged.name, "too_large", found))


@contextmanager
def _open_landing(path: Path) -> Iterator[int]:
    # O_NONBLOCK: a pipe put in the file's place after the listing must not block us.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise StillChangingError(f"{path.name}: {error.strerror}") from error
        raise UnreadableError(error.strerror) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StillChangingError(f"{path.name}: not a regular file any more")
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_blocks(landing: int, target: Path | None) -> str:
    digest = hashlib.sha256()
    with open(os.devnull if target is None else target, "wb") as copy:  # noqa: PTH123
        while block := _read_block(landing):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _read_block(landing: int) -> bytes:
    try:
        return os.read(landing, _BLOCK)
    except OSError as error:
        raise UnreadableError(error.strerror) from error


def _version(info: os.stat_result) -> Look:
    return info.st_size, info.st_mtime_ns, mark_of(info)


MAX_LOOKED_AT: Final = 50_000  # entries of folders; beyond it there is no such list


def stray_files(
    store: Store, project: Path, specs: Sequence[ModelSpec], every: Sequence[ModelSpec]
) -> list[str]:
    """Return the files beside the landing files of some models that no source matches.

    Args:
        store: The store; files that were read before are left out, whatever the globs are now.
        project: The folder that globs are relative to.
        specs: The models whose folders are looked at.
        every: All models, whose globs count.
    """
    globs = [source.path for _, source in _list_sources([*every, *specs])]
    found: dict[str, None] = {}
    for _, source in _list_sources(specs):
        if "://" in source.path:
            near = _walk_objects(source.path, store.storage_options)
        else:
            near = _walk_beside(project, source.path)
        found.update((n, None) for n in near if not any(name_matches(n, g) for g in globs))
    if not found:
        return []
    known = {
        path
        for spec in every
        for stream in STREAMS
        for path in manifest.load_paths(store.state, spec.model, stream)
    }
    return sorted(name for name in map(printable, found) if name not in known)


def told_of(strays: Sequence[str], specs: Sequence[ModelSpec]) -> str:
    """Say which files are not read, and what would be; empty if there are none."""
    if not strays:
        return ""
    read = "; ".join(
        f"{stream} of {spec.model} from {source.path}"
        for spec in specs
        for stream, source in _list_sources([spec])
    )
    noun = "file is" if len(strays) == 1 else "files are"
    found = f"{len(strays):,} {noun} not read, since no source matches: {names(strays)}."
    return f"{found} Read are {read}."


def _list_sources(specs: Sequence[ModelSpec]) -> Iterator[tuple[str, FileSource]]:
    for spec in specs:
        for stream in STREAMS:
            source = getattr(spec.source, stream)
            if isinstance(source, FileSource):
                yield stream, source


def _walk_beside(project: Path, pattern: str) -> Iterator[str]:
    """Yield files in and below the folder of a glob, and data files beside that folder."""
    is_outside = pattern.startswith("/")
    folder = project / _find_fixed_folder(pattern)
    try:
        if folder in (project, Path("/")) or not folder.is_dir():
            return
    except OSError:
        return  # the ingest itself says what is wrong
    left = MAX_LOOKED_AT
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        left -= len(files)
        if left < 0:
            return
        for name in files:
            if not is_unfinished(name):
                path = Path(place) / name
                yield (path if is_outside else path.relative_to(project)).as_posix()
    # What else is beside a folder outside the project is nothing to this project.
    if folder.parent != project and not is_outside:
        for path in _list_entries(folder.parent):
            if ending_of(path.name) != ".bin" and not is_unfinished(path.name) and path.is_file():
                yield path.relative_to(project).as_posix()


def _list_entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # the ingest itself says what is wrong


def _find_fixed_folder(pattern: str) -> Path:
    """Return the folder that a glob begins with."""
    folders = PurePosixPath(pattern).parts[:-1]
    n_fixed = next((i for i, part in enumerate(folders) if set(part) & set("*?[")), len(folders))
    return Path(*folders[:n_fixed])


def _walk_objects(url: str, options: Mapping[str, str]) -> Iterator[str]:
    folder = listed_folder(url)
    try:
        for number, found in enumerate(listed(ObjectPlace(folder, options))):
            *above, name = found.key.split("/")
            hidden = any(part.startswith((".", "_")) for part in above)
            if number >= MAX_LOOKED_AT:
                return
            if name and not hidden and not is_unfinished(name):
                yield f"{folder}/{found.key}"
    except MlmonError:
        return  # the ingest itself says what is wrong
