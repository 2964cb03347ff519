"""Where the events of a stream land: a folder that the spec's glob looks into, and group commit.

Group commit: requests that arrive together share one landing file and its way to the disk. A
request is answered once its rows are durable. While one file is on its way, the requests that come
wait for the next; so the more come, the more share a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.landing_file import ENDING, clear_leftovers, make_folder, publish
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.evaluations import FORMAT
from mlmon_dagster.spec.sources import STREAMS, FileSource, Stream
from mlmon_dagster.spec.spans import landing_folder

PREFIX = "collect-"
_EXAMPLE = f"{PREFIX}0{ENDING}"
_WILD = re.compile(r"[*?\[]")
_LARGE = 1 << 20  # bytes; such a request has a file of its own
_MOST_ROWS, _MOST_BYTES = 100_000, 8 << 20  # that share a file


@dataclass(frozen=True)
class Target:
    """Where a stream's files go, and what ingest would refuse as too large.

    Attributes:
        folder: Absolute path.
        below: The folder below the project, as the manifest names it.
    """

    model: str
    stream: Stream | Literal["spans"]
    folder: Path
    below: str
    max_rows: int
    max_bytes: int


def targets_of(
    specs: list[ModelSpec], project: Path
) -> tuple[dict[tuple[str, Stream], Target], list[str]]:
    """Find the streams whose landing files ingest finds and reads.

    Returns:
        The target of each, and for every other stream why it is none and what mends that.
    """
    found: dict[tuple[str, Stream], Target] = {}
    problems = []
    for spec in specs:
        for stream in STREAMS:
            source = getattr(spec.source, stream)
            if not isinstance(source, FileSource):
                if source is not None:
                    problems.append(
                        f"models/{spec.model}.yaml: source.{stream} is read from a database."
                    )
                continue
            try:
                found[spec.model, stream] = _target(spec.model, stream, source, project.resolve())
            except ConfigError as error:
                problems.append(str(error))
    return found, problems


def span_targets(specs: list[ModelSpec], project: Path) -> dict[str, Target]:
    """Return model -> where its spans and log records go, of the models that declare them."""
    return {
        spec.model: Target(
            spec.model,
            "spans",
            project.resolve() / landing_folder(spec.model),
            landing_folder(spec.model).as_posix(),
            _MOST_ROWS,
            _MOST_BYTES,
        )
        for spec in specs
        if spec.spans is not None
    }


def prepare(targets: Iterable[Target]) -> None:
    """Make the landing folders, and clear what killed processes left there.

    Raises:
        ConfigError: If a folder cannot be written to.
    """
    for target in targets:
        try:
            make_folder(target.folder)
            clear_leftovers(target.folder)
            probe = target.folder / f".{PREFIX}probe.{os.getpid()}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"The landing folder {target.folder} cannot be written to: {error.strerror}. "
                "Give the user of this process the right to, or change the path in "
                f"models/{target.model}.yaml."
            ) from error


def _target(model: str, stream: Stream, source: FileSource, project: Path) -> Target:
    key = f"models/{model}.yaml: source.{stream}.path is {source.path!r}"
    if "://" in source.path:
        raise ConfigError(f"{key}; events are collected into a folder of this machine only.")
    parts = PurePosixPath(source.path).parts
    folder = PurePosixPath(*(_plain(part) for part in parts[:-1] if part != "**"))
    if not parts or not fnmatchcase(_EXAMPLE, parts[-1]) or not _fits(folder, parts[:-1]):
        better = PurePosixPath(*parts[:-1], "*") if parts else PurePosixPath("landing/*")
        raise ConfigError(
            f"{key}, which does not find the files that are collected ({_EXAMPLE}). "
            f"Write '{better}' or '{better.with_name(f'*{ENDING}')}'."
        )
    if source.format not in ("auto", "jsonl", FORMAT):
        raise ConfigError(
            f"models/{model}.yaml: source.{stream}.format is {source.format!r}; collected files "
            "are JSON Lines. Leave it out, or write 'jsonl'."
        )
    return Target(
        model, stream, project / folder, folder.as_posix(), source.max_rows, source.max_bytes
    )


def _plain(part: str) -> str:
    return "collect" if _WILD.search(part) else part


def _fits(folder: PurePosixPath, parts: tuple[str, ...]) -> bool:
    wanted = [part for part in parts if part != "**"]
    return all(fnmatchcase(name, part) for name, part in zip(folder.parts, wanted, strict=True))


@dataclass
class _Waiting:
    target: Target
    lines: Sequence[bytes]
    n_bytes: int
    done: Future[str] = field(default_factory=Future)


class Committer:
    """Writes accepted rows to landing files, in a thread of its own.

    Args:
        linger: Seconds to wait for company after a request came.
    """

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mlmon-collect", daemon=True)
        self.n_files = 0
        self._thread.start()

    def submit(self, target: Target, lines: Sequence[bytes]) -> Future[str]:
        """Hand over rows; the result is the file's name, once it is durable.

        The same rows handed over alone have the same name, and are not written twice.
        """
        item = _Waiting(target, lines, sum(map(len, lines)))
        self._waiting.put(item)
        return item.done

    def close(self) -> None:
        """Write what waits and stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            items = [self._waiting.get()]
            deadline = time.monotonic() + self._linger
            while items[-1] is not None:
                with contextlib.suppress(queue.Empty):
                    items.append(self._waiting.get(timeout=max(deadline - time.monotonic(), 0)))
                    continue
                break
            is_open = items[-1] is not None
            for group in _groups([item for item in items if item is not None]):
                self._commit(group)

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            name = self._write(group[0].target, [line for item in group for line in item.lines])
        except Exception as error:
            for item in group:
                item.done.set_exception(error)
        else:
            for item in group:
                item.done.set_result(name)

    def _write(self, target: Target, lines: Sequence[bytes]) -> str:
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line)
        name = f"{PREFIX}{digest.hexdigest()}{ENDING}"
        # It was durable before it had its name.
        if not (target.folder / name).exists():
            publish(target.folder, name, lines)
            self.n_files += 1
        return name


def _groups(items: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Yield the items that go into one file, within the limits of their target."""
    open_groups: dict[Target, list[_Waiting]] = {}
    for item in items:
        if item.n_bytes >= _LARGE:
            yield [item]
            continue
        group = open_groups.setdefault(item.target, [])
        together = [*group, item]
        if group and (
            sum(i.n_bytes for i in together) > min(item.target.max_bytes, _MOST_BYTES)
            or sum(len(i.lines) for i in together) > min(item.target.max_rows, _MOST_ROWS)
        ):
            yield open_groups.pop(item.target)
            open_groups[item.target] = [item]
        else:
            group.append(item)
    yield from chain(open_groups.values())
