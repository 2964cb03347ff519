"""SQL: names and values spelled in one place, so that nothing is ever spliced unquoted.

For the state database also rows as frames and as JSON lines, and INSERT .. ON CONFLICT: the same on
SQLite and PostgreSQL, so that a backup of one can be restored into the other.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects import postgresql, sqlite

from mlmon_dagster.store.state.schema import METADATA, UtcDateTime

if TYPE_CHECKING:
    import pandas as pd


Value = str | int | float | bool | dt.datetime | None


def quote_identifier(name: str) -> str:
    """Quote a column or table name, whatever characters it has.

    Raises:
        ValueError: If the name is empty or holds a NUL character, which no engine can store.
    """
    if not name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a column")
    return '"' + name.replace('"', '""') + '"'


def literal(value: Value) -> str:
    """Spell a value as a SQL literal; times become UTC ``TIMESTAMPTZ``, None becomes NULL.

    Raises:
        ValueError: If a time is naive, a number is not finite or a text holds a NUL character.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return f"({value})"  # parentheses, since --1 would begin a comment
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} has no SQL literal")
        return f"CAST('{value!r}' AS DOUBLE PRECISION)"
    if isinstance(value, dt.datetime):
        return f"TIMESTAMPTZ '{utc(value):%Y-%m-%d %H:%M:%S.%f}+00'"
    if "\0" in value:
        raise ValueError("a text with a NUL character has no SQL literal")
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[Value]) -> str:
    """Spell the inside of ``IN (...)``; no values at all become NULL, which matches nothing."""
    return ", ".join(literal(value) for value in values) or "NULL"


def utc(moment: dt.datetime) -> dt.datetime:
    """Return a time in UTC.

    Raises:
        ValueError: If it is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"naive time {moment!r}; times in the store are UTC")
    return moment.astimezone(dt.UTC)


Query = sa.Select[Any]  # of whatever columns
Bind = sa.Engine | sa.Connection  # a query of its own, or one inside of a transaction
ResultRow = sa.Row[*tuple[Any, ...]]
Row = Mapping[str, Any]  # of a query, by name
Columns = Mapping[str, NDArray[Any]]  # of a query, all of one length
_CHUNK = 500  # rows per statement; SQLite allows 32,766 values in one
_ROWS_AT_ONCE = 5_000
_OF_NOBODY = {"writer_lock"}  # held by processes of this moment


def between(
    moment: sa.ColumnElement[dt.datetime], start: dt.datetime | None, end: dt.datetime | None
) -> list[sa.ColumnElement[bool]]:
    """Return what a moment at or after one and before another meets; None is no limit."""
    since = [] if start is None else [moment >= start]
    return since if end is None else [*since, moment < end]


@contextmanager
def _connect(bind: Bind) -> Iterator[sa.Connection]:
    if isinstance(bind, sa.Connection):
        yield bind
        return
    with bind.connect() as conn:
        yield conn


def fetch_rows(
    bind: Bind, query: sa.Executable, parameters: Mapping[str, object] | None = None
) -> Sequence[ResultRow]:
    """Run a query and return its rows."""
    with _connect(bind) as conn:
        return conn.execute(query, parameters).all()


def fetch_row(
    bind: Bind, query: sa.Executable, parameters: Mapping[str, object] | None = None
) -> ResultRow | None:
    """Run a query and return its first row; None if there is none."""
    with _connect(bind) as conn:
        return conn.execute(query, parameters).first()


def fetch_values(bind: Bind, query: sa.Executable) -> list[Any]:
    """Run a query of one column and return its values."""
    return [value for (value,) in fetch_rows(bind, query)]


def fetch_value(bind: Bind, query: sa.Executable) -> Any | None:
    """Run a query and return the first column of its first row; None if there is none."""
    row = fetch_row(bind, query)
    return None if row is None else row[0]


def fetch(bind: Bind, query: sa.Executable) -> list[Row]:
    """Run a query and return its rows by column name."""
    with _connect(bind) as conn:
        return [dict(row) for row in conn.execute(query).mappings()]


def read_frame(bind: Bind, query: Query) -> pd.DataFrame:
    """Run a query and return its rows.

    Returns:
        Texts as ``object``, times as ``datetime64[us, UTC]``, numbers as int64 or float64 (NaN
        for NULL). The dtypes do not depend on the rows, so no rows at all have them too.
    """
    return make_frame(read_columns(bind, query))


def read_columns(
    bind: Bind, query: Query, parameters: Mapping[str, object] | None = None
) -> Columns:
    """Run a query and return its columns, in the types of `make_frame`."""
    with _connect(bind) as conn, conn.execute(query, parameters) as result:
        # The driver's own values: to have each time parsed would take most of a large result.
        rows = result.cursor.fetchall() if result.cursor else []
    columns = list(query.selected_columns)
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return {c.name: _values(c.type, v) for c, v in zip(columns, values, strict=True)}


def _values(type_: sa.types.TypeEngine[Any], values: Sequence[Any]) -> NDArray[Any]:
    if isinstance(type_, UtcDateTime):
        # SQLite's are texts as `UtcDateTime` writes them, with a Z that numpy does not know.
        times = [
            v and (v[:-1] if isinstance(v, str) else utc(v).replace(tzinfo=None)) for v in values
        ]
        return np.array(times, "datetime64[us]")
    if isinstance(type_, sa.Float):
        return np.array(values, "float64")
    if isinstance(type_, sa.Boolean):
        return np.array(values, "bool")
    if isinstance(type_, sa.Integer):
        return np.array(values, "float64" if None in values else "int64")
    return make_texts(values)


def make_texts(values: Sequence[object]) -> NDArray[np.object_]:
    """Return texts, or what else it may be, as they are."""
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts


def make_frame(columns: Columns) -> pd.DataFrame:
    """Return columns as a frame: times of UTC as such, texts as ``object``."""
    import pandas as pd

    times = pd.DatetimeTZDtype("us", "UTC")
    return pd.DataFrame(
        {
            name: pd.DatetimeIndex(values, dtype=times)
            if values.dtype.kind == "M"
            else pd.Index(values, dtype="object")
            if values.dtype.kind == "O"
            else values
            for name, values in columns.items()
        }
    )


def insert(conn: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return the dialect's INSERT, which has ``on_conflict_do_update`` and ``.excluded``."""
    return _insert(conn.dialect.name, table)


def _insert(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def insert_or_ignore(
    conn: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]
) -> int:
    """Insert the rows that break no unique constraint; return how many they were.

    All rows must have the same keys.
    """
    if conn.dialect.name == "sqlite":
        # One compiled statement for all rows; PostgreSQL's driver cannot count that way.
        statement = insert(conn, table).on_conflict_do_nothing()
        listed = [dict(row) for row in rows]
        return conn.execute(statement, listed).rowcount if listed else 0
    inserted = 0
    for start in range(0, len(rows), _CHUNK):
        chunk = [dict(row) for row in rows[start : start + _CHUNK]]
        statement = insert(conn, table).values(chunk).on_conflict_do_nothing()
        inserted += conn.execute(statement).rowcount
    return inserted


def upsert(conn: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows; where the primary key exists, the given columns are overwritten.

    All rows must have the same keys.
    """
    if rows:
        conn.execute(_upsert(conn.dialect.name, table, *rows[0]), [dict(row) for row in rows])


@cache
def _upsert(dialect: str, table: sa.Table, *names: str) -> postgresql.Insert | sqlite.Insert:
    statement = _insert(dialect, table)
    keys = {column.name for column in table.primary_key}
    changed = {name: statement.excluded[name] for name in names if name not in keys}
    if not changed:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=sorted(keys), set_=changed)


def exported_tables() -> list[sa.Table]:
    """Return the tables that are kept, in a fixed order."""
    return [METADATA.tables[name] for name in sorted(METADATA.tables) if name not in _OF_NOBODY]


def export_rows(conn: sa.Connection, table: sa.Table, path: Path) -> int:
    """Write the rows of a table to a file; return how many."""
    query = sa.select(table)
    if "id" in table.c:
        query = query.order_by(table.c.id)
    n_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for row in conn.execution_options(yield_per=_ROWS_AT_ONCE).execute(query).mappings():
            file.write(json.dumps(dict(row), default=_encode_value, sort_keys=True) + "\n")
            n_rows += 1
    return n_rows


def import_rows(conn: sa.Connection, table: sa.Table, path: Path) -> None:
    """Insert the rows of a file that are not there yet."""
    times = {column.name for column in table.c if isinstance(column.type, UtcDateTime)}
    for chunk in _chunks(path):
        rows = [
            {
                name: dt.datetime.fromisoformat(value) if name in times and value else value
                for name, value in row.items()
            }
            for row in chunk
        ]
        insert_or_ignore(conn, table, rows)
    _move_counter(conn, table)


def _chunks(path: Path) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            chunk.append(json.loads(line))
            if len(chunk) == _ROWS_AT_ONCE:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _move_counter(conn: sa.Connection, table: sa.Table) -> None:
    """Let the ids that PostgreSQL gives out go on behind those that were inserted."""
    if conn.dialect.name != "postgresql" or not _is_counted(table):
        return
    conn.execute(
        sa.text(
            f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "
            f"GREATEST((SELECT MAX(id) FROM {table.name}), 1))"
        )
    )


def _is_counted(table: sa.Table) -> bool:
    return "id" in table.c and isinstance(table.c.id.type, sa.Integer)


def _encode_value(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(f"{type(value)} in the state database")
