"""New versions of a Delta table become batches; see `polling`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest.polling import Polled, poll, stage_rows, wanted_names
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import DeltaSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.delta_source import DeltaSourceTable, Rows, open_delta
from mlmon_dagster.store.sources import Position


def poll_delta(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: DeltaSource,
    project: Path,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage the rows of a Delta table's new versions, and note them."""

    def read(position: Position, folder: Path) -> Polled:
        table = _opened(source, project, store.storage_options)
        after = table.position
        if {**position, **after} == dict(position):
            return Polled(position, ())
        wanted, required = wanted_names(spec, stream)
        table.check_columns(wanted, required)
        try:
            rows, told = table.rows_after(position, wanted)
            batches = [
                stage_rows(folder, part, label)
                for label, part in _regrouped(rows, source.batch_rows)
            ]
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            raise StoreError(f"{source.label} cannot be read: {said[:300]}") from error
        return Polled(after, batches, told)

    identity = f"delta/{source.delta}"
    return poll(store, spec, stream, source.label, identity, f"delta:{source.delta}", read, now)


def check_delta(
    spec: ModelSpec,
    stream: Stream,
    source: DeltaSource,
    project: Path,
    storage_options: Mapping[str, str],
) -> str:
    """Open a source's table and say what was found.

    Raises:
        ConfigError: If there is no such table, or it lacks a column.
        StoreError: If it cannot be read.
    """
    table = _opened(source, project, storage_options)
    n_columns = table.check_columns(*wanted_names(spec, stream))
    return f"{source.label}, version {table.position['version']}, {n_columns} columns"


def _opened(
    source: DeltaSource, project: Path, storage_options: Mapping[str, str]
) -> DeltaSourceTable:
    is_remote = "://" in source.delta
    uri = source.delta if is_remote else str(project / source.delta)
    return open_delta(uri, storage_options if is_remote else {}, source.label)


def _regrouped(rows: Rows, size: int) -> Iterator[tuple[str, pa.Table]]:
    """Put rows of a version together, or cut them, into batches of at most so many rows."""
    label, waiting = "", list[pa.Table]()
    for version, part in rows:
        if waiting and (version != label or sum(len(t) for t in waiting) + len(part) > size):
            yield label, pa.concat_tables(waiting, promote_options="permissive")
            waiting = []
        label = version
        while len(part) > size:
            yield label, part.slice(0, size)
            part = part.slice(size)
        waiting += [part] if len(part) else []
    if waiting:
        yield label, pa.concat_tables(waiting, promote_options="permissive")
