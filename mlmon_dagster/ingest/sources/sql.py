"""New rows of a database's table become batches, read in one transaction; see `polling`."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.ingest.formats.read_jsonl import NESTED
from mlmon_dagster.ingest.raw import text_array
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.sources.polling import (
    Polled,
    Surroundings,
    id_names,
    needed,
    poll,
    stage_rows,
    wanted_names,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import SqlSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import (
    Position,
    RangeScan,
    Snapshot,
    SourceTable,
    find_table,
    source_connection,
    stream_rows,
    take_snapshot,
)

_PLAIN = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    dt.date: pa.date32(),
}


def poll_source(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: SqlSource,
    around: Surroundings,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage what is new in a table, and note it."""

    def read(position: Position, folder: Path) -> Polled:
        with source_connection(_url(source, around), source.url_env) as conn:
            table = _find_table(conn, spec, stream, source)
            scan: RangeScan | Snapshot
            rows: Iterator[list[Sequence[object]]] = iter(())
            if source.cursor.kind == "xmin":
                scan = take_snapshot(conn, source, table, position)
                if scan.where is not None:
                    query = sa.select(*table.selected).select_from(table.clause)
                    rows = map(list, stream_rows(conn, query.where(scan.where)))
            else:
                scan = RangeScan(conn, source, table, position)
                rows = scan.rows()
            names = [str(column.key) for column in table.selected]
            batches = [
                stage_rows(folder, as_table(names, part), scan.label)
                for part in _regrouped(rows, source.batch_rows)
            ]
            return Polled(scan.position, batches, scan.notice)

    identity = f"{source.url_env}/{source.sql}/{source.cursor.kind}/{source.cursor.column}"
    return poll(store, spec, stream, source.label, identity, f"sql:{source.sql}", read, now)


def _find_table(
    conn: sa.Connection, spec: ModelSpec, stream: Stream, source: SqlSource
) -> SourceTable:
    wanted, required = wanted_names(spec, stream)
    return find_table(conn, source, wanted, required, id_names(spec, stream))


def as_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> pa.Table:
    """Return rows of a result as a table, see `cells_of`."""
    columns = [cells_of([row[i] for row in rows]) for i in range(len(names))]
    return pa.Table.from_arrays(columns, names=list(names))


def check_source(spec: ModelSpec, stream: Stream, source: SqlSource, around: Surroundings) -> str:
    """Connect to the database of a source and look its table up.

    Returns:
        What was found, in words.

    Raises:
        ConfigError: If the variable, table, a column or the cursor is wrong.
        StoreError: If the database cannot be reached.
    """
    with source_connection(_url(source, around), source.url_env) as conn:
        table = _find_table(conn, spec, stream, source)
        if source.cursor.kind == "xmin":
            take_snapshot(conn, source, table, {})
        # A user may see a table that they may not read.
        conn.execute(sa.select(*table.selected).select_from(table.clause).limit(1)).first()
        return f"{source.label}, {conn.dialect.name}, {len(table.selected)} columns"


def _url(source: SqlSource, around: Surroundings) -> str:
    what = f"the URL of the database with the table {source.sql}"
    return needed(around.variables, source.url_env, what)


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
