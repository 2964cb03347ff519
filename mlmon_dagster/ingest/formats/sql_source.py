"""New rows of a table become batches: Parquet files in the staging folder, known by their content.

One look reads everything that is new in one transaction of the source, and stages it. Then one
transaction of the state database notes the batches, like landing files that were copied, and the
position after them. Until all of them are settled, that position is only pending: should the staged
copies be lost, as with the machine they were on, the rows are read again from the sure one.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats.read_jsonl import NESTED
from mlmon_dagster.ingest.landing import find_staged, staging_folder
from mlmon_dagster.ingest.raw import text_array, with_aliases
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.row_hash import columns_to_read
from mlmon_dagster.spec import ModelSpec, SqlSource
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import Store, sources
from mlmon_dagster.store.sources import (
    Lookback,
    Position,
    SourceCursor,
    SourceTable,
    find_table,
    source_connection,
    stream_rows,
    take_snapshot,
)
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.manifest import UNFINISHED

Variables = Callable[[str], str | None]
_PLAIN = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    dt.date: pa.date32(),
}


@dataclass(frozen=True)
class _Batch:
    sha256: str
    size: int
    label: str


class _Scan(Protocol):
    label: str
    position: Position

    def rows(self) -> Iterator[list[Sequence[object]]]: ...


@dataclass
class _Transactions:
    """A scan by transaction."""

    conn: sa.Connection
    source: SqlSource
    table: SourceTable
    before: Position
    label: str = ""

    def rows(self) -> Iterator[list[Sequence[object]]]:
        snapshot = take_snapshot(self.conn, self.source, self.table, self.before)
        self.position, self.label = snapshot.position, snapshot.label
        if snapshot.where is not None:
            query = sa.select(*self.table.selected).select_from(self.table.clause)
            yield from map(list, stream_rows(self.conn, query.where(snapshot.where)))


def poll_table(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: SqlSource,
    variables: Variables,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage what is new in a table, and note it; the ingest's lock must be held.

    Returns:
        A report of a look that failed; nothing is lost then, since the position stays.
    """
    try:
        cursor = sources.load_cursor(store.state, spec.model, stream)
        identity = f"{source.url_env}/{source.sql}/{source.cursor.kind}/{source.cursor.column}"
        position = _sure(store, spec, stream, cursor)
        if position is None:
            return []
        if position.get("source") != identity:
            position = {}
        after, batches = _read(store, spec, stream, source, _url(source, variables), position)
        after = {**after, "source": identity}
        reached("source.staged")
        _note(store, spec, stream, source, position, after, batches, now)
        reached("source.noted")
    except (ConfigError, StoreError) as error:
        return [
            FileReport(stream, source.label, "failed", reason="source_failed", message=str(error))
        ]
    return []


def check_source(spec: ModelSpec, stream: Stream, source: SqlSource, variables: Variables) -> str:
    """Connect to the database of a source and look its table up.

    Returns:
        What was found, in words.

    Raises:
        ConfigError: If the variable, table, a column or the cursor is wrong.
        StoreError: If the database cannot be reached.
    """
    with source_connection(_url(source, variables), source.url_env) as conn:
        table = find_table(conn, source, *_names(spec, stream))
        if source.cursor.kind == "xmin":
            take_snapshot(conn, source, table, {})
        return f"{source.label}, {conn.dialect.name}, {len(table.selected)} columns"


def _url(source: SqlSource, variables: Variables) -> str:
    url = variables(source.url_env)
    if not url:
        raise ConfigError(
            f"{source.url_env} is not set; it must hold the URL of the database with the table "
            f"{source.sql}, for every process that ingests."
        )
    return url


def _names(spec: ModelSpec, stream: Stream) -> tuple[list[str], list[str]]:
    columns = with_aliases(columns_to_read(columns_of(spec, stream), spec))
    wanted = list(dict.fromkeys(column.source for column in columns))
    return wanted, [column.source for column in columns if column.must_exist]


def _sure(store: Store, spec: ModelSpec, stream: Stream, cursor: SourceCursor) -> Position | None:
    """Return the position to read on from; None while batches are still on their way."""
    if cursor.pending is None:
        return cursor.position
    open_rows = manifest.file_rows(
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


def _read(
    store: Store, spec: ModelSpec, stream: Stream, source: SqlSource, url: str, position: Position
) -> tuple[Position, list[_Batch]]:
    folder = staging_folder(store, spec.model, stream)
    with source_connection(url, source.url_env) as conn:
        table = find_table(conn, source, *_names(spec, stream))
        kind = _Transactions if source.cursor.kind == "xmin" else Lookback
        scan: _Scan = kind(conn, source, table, position)
        names = [str(column.key) for column in table.selected]
        batches = [
            _stage(folder, names, rows, scan.label)
            for rows in _regrouped(scan.rows(), source.batch_rows)
        ]
        return scan.position, batches


def _regrouped(
    lists: Iterator[list[Sequence[object]]], size: int
) -> Iterator[list[Sequence[object]]]:
    waiting: list[Sequence[object]] = []
    for rows in lists:
        waiting += rows
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _stage(
    folder: Path, names: Sequence[str], rows: Sequence[Sequence[object]], label: str
) -> _Batch:
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"incoming-{os.getpid()}.parquet"
    columns = [cells_of([row[i] for row in rows]) for i in range(len(names))]
    with incoming.open("wb") as file:
        table = pa.Table.from_arrays(columns, names=list(names))
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        file.flush()
        os.fsync(file.fileno())
    with incoming.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = incoming.stat().st_size
    incoming.replace(folder / f"{sha256}.parquet")
    return _Batch(sha256, size, label)


def _note(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: SqlSource,
    before: Position,
    after: Position,
    batches: Sequence[_Batch],
    now: dt.datetime,
) -> None:
    rows = [
        {
            "model": spec.model,
            "stream": stream,
            "sha256": batch.sha256,
            "path": f"sql:{source.sql}/{batch.label}/{number}.parquet",
            "size_bytes": batch.size,
            "mtime_ns": int(now.timestamp() * 1_000_000) * 1_000,
            "status": "discovered",
            "first_seen": now,
        }
        for number, batch in enumerate(batches, 1)
    ]
    with store.state.begin() as conn:
        manifest.discover(conn, rows)
        shas = [batch.sha256 for batch in batches]
        if shas:
            sources.save_cursor(
                conn, spec.model, stream, before, now, pending=after, batches=shas
            )  # fmt: skip
        else:
            sources.save_cursor(conn, spec.model, stream, after, now)


def cells_of(values: Sequence[object]) -> pa.Array:
    """Return the values of one column as an array of one type.

    Whole numbers, floats, text, booleans, dates and times keep their type if all values have it;
    anything else becomes text, with all its digits. What is no value of a table, such as a JSON
    object, becomes text that no type accepts, so that its row is refused.
    """
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        (kind,) = kinds
        array = _uniform(list(values), kind)
        if array is not None:
            return array
    return text_array([_text(value) for value in values])


def _uniform(values: list[Any], kind: type) -> pa.Array | None:
    try:
        if kind is dt.datetime:
            return _times(values)
        return pa.array(values, _PLAIN[kind]) if kind in _PLAIN else None
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError):
        return None


def _times(values: list[dt.datetime | None]) -> pa.Array | None:
    aware = {value.tzinfo is not None for value in values if value is not None}
    if aware == {True}:
        in_utc = [None if v is None else v.astimezone(dt.UTC) for v in values]
        return pa.array(in_utc, pa.timestamp("us", "UTC"))
    return pa.array(values, pa.timestamp("us")) if aware == {False} else None


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, int | float | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value))
    return NESTED


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return NESTED
