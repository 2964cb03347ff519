"""Writing data frames into the state database, fast: a year of metrics is 300,000 rows."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state.column_types import UtcDateTime
from mlmon_dagster.store.state.sql import quote_identifier

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_CHUNK = 50_000  # rows that are held as Python objects at a time


def write_frame(conn: sa.Connection, table: sa.Table, frame: pd.DataFrame) -> int:
    """Insert the rows of a frame; rows whose primary key exists are overwritten.

    Of several rows of the frame with one key, the last wins. Floats that are not finite become
    NULL.

    Args:
        conn: A write transaction.
        table: The table.
        frame: Some of the table's columns, among them those without a default.

    Returns:
        The number of rows written.

    Raises:
        StoreError: If a value that must not be null is null, or a time is naive.
    """
    keys = [c.name for c in table.primary_key if c.name in frame.columns]
    frame = frame.drop_duplicates(keys, keep="last")
    if frame.empty:
        return 0
    write = _copy if conn.dialect.name == "postgresql" else _executemany
    for start in range(0, len(frame), _CHUNK):
        write(conn, table, to_arrow(frame.iloc[start : start + _CHUNK], table))
    return len(frame)


def to_arrow(frame: pd.DataFrame, table: sa.Table) -> pa.Table:
    """Convert a frame to the table's types; see ``write_frame``."""
    import pyarrow as pa

    arrays = {}
    for name in frame.columns:
        column = table.c[str(name)]
        try:
            arrays[str(name)] = _array(frame[name], column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
            raise StoreError(f"Column {name!r} for table {table.name!r}: {error}") from error
        if arrays[str(name)].null_count and not column.nullable:
            raise StoreError(f"Column {name!r} for table {table.name!r} must not be null.")
    return pa.table(arrays)


def _array(series: pd.Series[Any], type_: sa.types.TypeEngine[Any]) -> pa.Array:
    import pandas as pd
    import pyarrow as pa

    if isinstance(type_, UtcDateTime):
        times = pd.to_datetime(series)
        if times.dt.tz is None and times.notna().any():
            raise StoreError("times must be timezone-aware; pass UTC")
        times = times.dt.tz_convert("UTC") if times.dt.tz is not None else times
        return pa.array(times, pa.timestamp("us", tz="UTC"), from_pandas=True, safe=False)
    if isinstance(type_, sa.Float):
        values = series.to_numpy(dtype="float64", na_value=np.nan)
        return pa.array(values, mask=~np.isfinite(values))
    if isinstance(type_, sa.Boolean):
        return pa.array(series, pa.bool_(), from_pandas=True)
    if isinstance(type_, sa.Integer):
        return pa.array(series, pa.int64(), from_pandas=True)
    return pa.array(series, pa.string(), from_pandas=True)


def _on_conflict(table: sa.Table, names: list[str]) -> str:
    keys = [c.name for c in table.primary_key]
    changed = [name for name in names if name not in keys]
    target = ", ".join(map(quote_identifier, keys))
    if not changed:
        return f"ON CONFLICT ({target}) DO NOTHING"
    changes = ", ".join(f"{quote_identifier(n)} = excluded.{quote_identifier(n)}" for n in changed)
    return f"ON CONFLICT ({target}) DO UPDATE SET {changes}"


def _executemany(conn: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = rows.column_names
    columns = [
        # The format of UtcDateTime on SQLite; seconds of a microsecond time have six decimals.
        pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ").to_pylist()
        if pa.types.is_timestamp(column.type)
        else column.to_pylist()
        for column in rows.columns
    ]
    listed = ", ".join(map(quote_identifier, names))
    marks = ", ".join("?" * len(names))
    conn.exec_driver_sql(
        f"INSERT INTO {quote_identifier(table.name)} ({listed}) VALUES ({marks}) "
        + _on_conflict(table, names),
        list(zip(*columns, strict=True)),
    )


def _copy(conn: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    """COPY into a temporary table and insert from there: COPY itself knows no ON CONFLICT."""
    from pyarrow import csv

    text = io.BytesIO()
    csv.write_csv(rows, text, csv.WriteOptions(include_header=False, quoting_style="needed"))
    text.seek(0)
    listed = ", ".join(map(quote_identifier, rows.column_names))
    name = quote_identifier(table.name)
    staged = quote_identifier(f"staged_{table.name}")
    conn.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {staged} ON COMMIT DROP AS SELECT {listed} FROM {name} LIMIT 0"
    )
    cursor = conn.connection.cursor()
    cursor.copy_expert(f"COPY {staged} ({listed}) FROM STDIN WITH (FORMAT csv)", text)
    cursor.close()
    conn.exec_driver_sql(
        f"INSERT INTO {name} ({listed}) SELECT {listed} FROM {staged} "
        + _on_conflict(table, rows.column_names)
    )
    conn.exec_driver_sql(f"DROP TABLE {staged}")
