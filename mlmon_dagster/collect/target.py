"""Where the events of a stream are written: a folder that the spec's glob looks into."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import STREAMS, Stream
from mlmon_dagster.landing_file import ENDING, clear_leftovers, make_folder
from mlmon_dagster.spec import FileSource, ModelSpec

PREFIX = "collect-"
_EXAMPLE = f"{PREFIX}0{ENDING}"
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Target:
    """Where a stream's files go, and what ingest would refuse as too large.

    Attributes:
        folder: Absolute path.
        below: The folder below the project, as the manifest names it.
    """

    model: str
    stream: Stream
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
    if source.format not in ("auto", "jsonl"):
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
