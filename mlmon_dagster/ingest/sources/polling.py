"""What is read from a position on becomes batches: files in staging, known by their content.

One look reads everything that is new in a source, and stages it. Then one transaction of the state
database notes the batches, like landing files that were copied, and the position after them. Until
all of them are settled, that position is only pending: should the staged copies be lost, as with
the machine they were on, the rows are read again from the sure one.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.landing import find_staged, staging_folder
from mlmon_dagster.ingest.queue import PollSource
from mlmon_dagster.ingest.raw import columns_to_read, with_aliases
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import did_you_mean
from mlmon_dagster.spec.sources import PolledSource, Stream
from mlmon_dagster.store import Store, sources
from mlmon_dagster.store.places.location import hash_file
from mlmon_dagster.store.sources import Position, SourceCursor
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.manifest import UNFINISHED
from mlmon_dagster.store.state.writing import reached


@dataclass(frozen=True)
class Batch:
    """Rows of a source that are staged.

    Attributes:
        sha256: Of the copy's content.
        size: Of the copy, in bytes.
        label: Where in the source they are from, as part of a path.
        ending: Of the copy's name.
    """

    sha256: str
    size: int
    label: str
    ending: str


@dataclass(frozen=True)
class Polled:
    """What a look at a source brought.

    Attributes:
        after: The position after it.
        batches: The rows between the two positions.
        notice: What a person has to know of it; "" if nothing.
    """

    after: Position
    batches: Sequence[Batch]
    notice: str = ""


Variables = Callable[[str], str | None]  # of the environment, by name
Read = Callable[[Position, Path], Polled]  # from a position, into the staging folder


@dataclass(frozen=True)
class Surroundings:
    """What sources are reached with.

    Attributes:
        project: The folder that paths are relative to.
        variables: Looks up the environment variables that hold addresses.
        storage_options: How to reach object storage.
    """

    project: Path
    variables: Variables
    storage_options: Mapping[str, str] = field(default_factory=dict)


def _no_variables(_name: str) -> None:
    """Know no variable."""


def readers(variables: Variables = _no_variables) -> PollSource:
    """Return what stages what is new in the sources that are no folders of files.

    Args:
        variables: Looks up the environment variables that hold the addresses of sources.
    """
    return partial(_poll, variables)


def _poll(
    variables: Variables,
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: PolledSource,
    project: Path,
    now: dt.datetime,
) -> list[FileReport]:
    around = Surroundings(project, variables, store.storage_options)
    found: list[FileReport] = _load(source).poll_source(store, spec, stream, source, around, now)
    return found


def check_source(
    spec: ModelSpec, stream: Stream, source: PolledSource, around: Surroundings
) -> str:
    """Connect to a source and say what was found.

    Raises:
        ConfigError: If there is no such table or topic, or it lacks a column.
        StoreError: If it cannot be reached or read.
    """
    return str(_load(source).check_source(spec, stream, source, around))


def _load(source: PolledSource) -> ModuleType:
    """Return the module beside this one that is called as the source's kind in the spec."""
    return import_module(f"mlmon_dagster.ingest.sources.{source.kind}")


def needed(variables: Variables, name: str, what: str) -> str:
    """Return an environment variable that a source cannot do without.

    Raises:
        ConfigError: If it is not set; ``what`` says what it must hold.
    """
    value = variables(name)
    if not value:
        raise ConfigError(
            f"{name} is not set; it must hold {what}, for every process that ingests."
        )
    return value


def check_present(
    label: str, present: Sequence[str], wanted: Sequence[str], required: Sequence[str]
) -> int:
    """Return how many of the wanted columns a table has.

    Raises:
        ConfigError: If it lacks a required one, with the nearest name that it has.
    """
    for name in required:
        if name not in present:
            hint = did_you_mean(name, present) or "."
            raise ConfigError(
                f"{label} has no column '{name}'{hint} Present: {', '.join(sorted(present)[:40])}."
            )
    return sum(name in present for name in wanted)


def poll(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    label: str,
    identity: str,
    name: str,
    read: Read,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage what is new in a source, and note it; the ingest's lock must be held.

    Args:
        store: Where to.
        spec: The model.
        stream: What the source holds.
        label: What people call the source.
        identity: What another source has another one of: it is read from its beginning.
        name: What the names of its batches begin with.
        read: Reads on from a position.
        now: The present moment.

    Returns:
        A report of a look that failed; nothing is lost then, since the position stays. And one of
        a look that found something which people should know.
    """
    try:
        cursor = sources.load_cursor(store.state, spec.model, stream)
        stored = _find_sure(store, spec, stream, cursor)
        if stored is None:
            return []
        position, untold = sources.split_notice(stored)
        if position.get("source") != identity:
            position = {}
        found = read(position, staging_folder(store, spec.model, stream))
        reached("source.staged")
        # What was found is noted with the position: a look that is killed leaves it to the next.
        notice = " ".join(dict.fromkeys(filter(None, (untold, found.notice))))
        after = sources.with_notice({**found.after, "source": identity}, notice)
        if found.batches or SourceCursor(after) != cursor:
            before = sources.with_notice(position, untold)
            _note_batches(store, spec, stream, name, before, after, found.batches, now)
        reached("source.noted")
    except (ConfigError, StoreError) as error:
        return [FileReport(stream, label, "failed", reason="source_failed", message=str(error))]
    if notice:
        return [FileReport(stream, label, "skipped", message=f"{label}: {notice}")]
    return []


def wanted_names(spec: ModelSpec, stream: Stream) -> tuple[list[str], list[str]]:
    """Return the columns of a stream's source that are read, and those that must exist."""
    columns = with_aliases(columns_to_read(columns_of(spec, stream), spec))
    wanted = list(dict.fromkeys(column.source for column in columns))
    return wanted, [column.source for column in columns if column.must_exist]


def id_names(spec: ModelSpec, stream: Stream) -> tuple[str, ...]:
    """Return the columns of a stream's source that identify a row."""
    found = (c.source for c in columns_of(spec, stream) if c.name == "prediction_id")
    return spec.columns.id_parts or tuple(found)


def stage_rows(folder: Path, rows: pa.Table, label: str) -> Batch:
    """Keep rows as a Parquet file in the staging folder, durable before it is known."""

    def write(file: BinaryIO) -> None:
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)

    return _stage(folder, label, ".parquet", write)


def stage_lines(folder: Path, lines: Iterable[bytes], label: str) -> Batch:
    """Keep JSON objects, one a line, likewise."""
    return _stage(folder, label, ".jsonl", lambda f: f.writelines(x + b"\n" for x in lines))


def _stage(folder: Path, label: str, ending: str, write: Callable[[BinaryIO], None]) -> Batch:
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"incoming-{os.getpid()}{ending}"
    with incoming.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    sha256, size = hash_file(incoming), incoming.stat().st_size
    incoming.replace(folder / f"{sha256}{ending}")
    return Batch(sha256, size, label, ending)


def _find_sure(
    store: Store, spec: ModelSpec, stream: Stream, cursor: SourceCursor
) -> Position | None:
    """Return the position to read on from; None while batches are still on their way."""
    if cursor.pending is None:
        return cursor.position
    open_rows = manifest.load_files(
        store.state, spec.model, stream, status=UNFINISHED, shas=list(cursor.batches)
    )
    unsettled = [row["sha256"] for row in open_rows]
    if not unsettled:
        return cursor.pending
    folder = staging_folder(store, spec.model, stream)
    lost = [sha for sha in unsettled if find_staged(folder, sha) is None]
    if lost and set(lost) - store.event_log(spec).committed(stream, lost):
        return cursor.position
    return None


def _note_batches(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    name: str,
    before: Position,
    after: Position,
    batches: Sequence[Batch],
    now: dt.datetime,
) -> None:
    rows = [
        {
            "model": spec.model,
            "stream": stream,
            "sha256": batch.sha256,
            "path": f"{name}/{batch.label}/{number}{batch.ending}",
            "size_bytes": batch.size,
            "mtime_ns": int(now.timestamp() * 1_000_000) * 1_000,
            "status": "discovered",
            "first_seen": now,
        }
        for number, batch in enumerate(batches, 1)
    ]
    shas = [batch.sha256 for batch in batches]
    with store.state.begin() as conn:
        manifest.note_discovered(conn, rows)
        sources.save_cursor(
            conn, spec.model, stream, before if shas else after, now,
            pending=after if shas else None, batches=shas,
        )  # fmt: skip
