"""Every metric ever computed: recomputation adds a version, readers see the newest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.sql.visitors import replacement_traverse

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.schema import UtcDateTime
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.state.statements import frame_of, read_frame

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TABLE = schema.metric
_VERSIONS = ("baseline_id", "method_version", "data_version")
_COMPUTED_TOGETHER = ("dataset", "window_start", "granularity", "metric")
_IDENTITY = tuple(key for key in schema.METRIC_KEYS if key not in _VERSIONS)
_HISTORY = schema.metric
_GROUP = ["model", "dataset", "window_start", "granularity", "metric"]
_VERSION = ["baseline_id", "method_version", "data_version"]
_SAID = ("value", "lower", "upper", "n", "n_baseline", "baseline_kind", "p_value",
         "actual_coverage", "maturity", "reason", "window_end")  # fmt: skip
_CHUNK = 50_000  # rows that are held as Python objects at a time


def append(engine: sa.Engine, frame: pd.DataFrame) -> int:
    """Store metrics; repeating is harmless, and nothing that was ever read is lost.

    A row that says again what the newest one of its window says is left out. One that differs
    replaces the row of the same key, which moves to ``metric_history`` for looking back.

    Args:
        engine: The state database.
        frame: Columns of the table ``metric`` but not ``sequence``; absent ones get the table's
            defaults. Required: model, dataset, window_start, window_end (UTC), granularity,
            metric, method_version, data_version, computed_at. Not-a-number and infinite values
            are stored as NULL.

    Returns:
        The number of rows given, each of which is now the newest of its kind.

    Raises:
        StoreError: If a column is unknown or missing, or a key is null.
    """
    unknown = sorted(set(frame.columns) - (set(_TABLE.c.keys()) - {"sequence"}))
    required = {c.name for c in _TABLE.c if not c.nullable and c.server_default is None}
    required |= {"model", "dataset", "granularity", "metric", "method_version", "data_version"}
    missing = sorted(required - set(frame.columns))
    if unknown or missing:
        raise StoreError(f"Metrics have unknown columns {unknown} and lack the columns {missing}.")
    if frame.empty:
        return 0
    with engine.begin() as conn:
        changed = keep_history(conn, frame)
        if len(changed):
            changed = changed.assign(sequence=_next_sequence(conn, changed))
            write_frame(conn, _TABLE, changed)
    return len(frame)


def _next_sequence(conn: sa.Connection, frame: pd.DataFrame) -> int:
    """Return a number above those of other versions that were not computed before this one.

    The clock is injected and may stand still between two computations; without this, which of
    the two is the newest would be a matter of chance.
    """
    c = _TABLE.c
    query = (
        sa.select(c.model, c.window_start, c.metric, *(c[name] for name in _VERSIONS))
        .add_columns(sa.func.max(c.sequence))
        .where(c.model.in_(frame["model"].unique().tolist()))
        .where(c.window_start.between(*_bounds(frame["window_start"])))
        .where(c.computed_at >= _bounds(frame["computed_at"])[0])
        .group_by(c.model, c.window_start, c.metric, *(c[name] for name in _VERSIONS))
    )
    others = conn.execute(query).all()
    if not others:
        return 0
    baseline = frame["baseline_id"] if "baseline_id" in frame else ["none"] * len(frame)
    written = frame.assign(baseline_id=baseline)
    measured = set(written[["model", "window_start", "metric"]].itertuples(index=False, name=None))
    ours = set(
        written[["model", "window_start", "metric", *_VERSIONS]].itertuples(index=False, name=None)
    )
    taken = [row[-1] for row in others if row[:3] in measured and row[:-1] not in ours]
    return max(taken, default=-1) + 1


def _bounds(times: pd.Series[Any]) -> tuple[datetime, datetime]:
    return times.min().to_pydatetime(), times.max().to_pydatetime()


def newest(
    engine: sa.Engine,
    model: str,
    *,
    metric: str | Sequence[str] | None = None,
    column: str | Sequence[str] | None = None,
    slice_key: str | None = None,
    slice_value: str | None = None,
    dataset: str | None = None,
    model_version: str | None = None,
    granularity: str | None = None,
    baseline_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
) -> pd.DataFrame:
    """Return the newest version of each metric.

    Of a window's data versions the one computed last counts: a slice or column that it no
    longer has is gone. Of several versions of the method or the baseline, again the last.

    Args:
        engine: The state database.
        model: The model's name.
        metric: One name or several; all by default.
        column: One ``column_name`` or several; all by default.
        slice_key: All slices by default; ``all`` for the whole.
        slice_value: As ``slice_key``.
        dataset: All by default.
        model_version: All by default; the value ``all`` is the metric over all versions.
        granularity: All by default.
        baseline_id: Only metrics against this baseline.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
        as_of: Only what was computed at or before this time.

    Returns:
        The columns of the table ``metric`` except ``sequence``, ordered by window, slice,
        column and name.
    """
    c = _TABLE.c
    wide = [c.model == model]
    for name, value in (("metric", metric), ("dataset", dataset), ("granularity", granularity)):
        wide += _chosen(name, value)
    if start is not None:
        wide.append(c.window_start >= start)
    if end is not None:
        wide.append(c.window_start < end)
    if as_of is not None:
        wide.append(c.computed_at <= as_of)
    narrow = _chosen("column_name", column) + _chosen("model_version", model_version)
    narrow += _chosen("slice_key", slice_key) + _chosen("slice_value", slice_value)
    narrow += _chosen("baseline_id", baseline_id)
    if as_of is None:
        return read_frame(engine, _newest_rows(_TABLE, wide, narrow))
    # Conditions go into both tables, so that each reads by its key.
    history = schema.metric_history
    then = sa.union_all(
        sa.select(_TABLE).where(*wide),
        sa.select(history).where(*(_moved(condition, history) for condition in wide)),
    ).subquery()
    return read_frame(engine, _newest_rows(then, [], [_moved(n, then) for n in narrow]))


def window_starts(
    engine: sa.Engine, model: str, start: datetime | None = None, end: datetime | None = None
) -> list[datetime]:
    """Return the starts of a model's windows that have metrics, oldest first.

    Args:
        engine: The state database.
        model: The model's name.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
    """
    moment = _TABLE.c.window_start
    query = sa.select(moment).distinct().where(_TABLE.c.model == model).order_by(moment)
    if start is not None:
        query = query.where(moment >= start)
    if end is not None:
        query = query.where(moment < end)
    with engine.connect() as conn:
        return list(conn.scalars(query))


def _moved(condition: sa.ColumnElement[bool], other: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return a condition on the table of metrics as one on another table with its columns."""

    def replace(element: Any, **_: object) -> Any:
        is_mine = isinstance(element, sa.Column) and element.table is _TABLE
        return other.c[element.name] if is_mine else None

    moved: sa.ColumnElement[bool] = replacement_traverse(condition, {}, replace)
    return moved


def _chosen(name: str, value: str | Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    if value is None:
        return []
    column = _TABLE.c[name]
    return [column == value if isinstance(value, str) else column.in_(list(value))]


def _newest_rows(
    table: sa.FromClause, wide: list[sa.ColumnElement[bool]], narrow: list[sa.ColumnElement[bool]]
) -> sa.Select[object]:
    """Pick the last data version under the wide conditions, and rows of it under all."""
    c = table.c
    versions = (
        sa.select(
            *(c[name] for name in _COMPUTED_TOGETHER),
            c.data_version,
            sa.func.row_number()
            .over(
                partition_by=[c[name] for name in _COMPUTED_TOGETHER],
                order_by=[
                    sa.func.max(c.computed_at).desc(),
                    sa.func.max(c.sequence).desc(),
                    c.data_version,
                ],
            )
            .label("newest_first"),
        )
        .where(*wide)
        .group_by(*(c[name] for name in _COMPUTED_TOGETHER), c.data_version)
        .subquery()
    )
    rank = sa.func.row_number().over(
        partition_by=[c[name] for name in _IDENTITY],
        order_by=[c.computed_at.desc(), c.sequence.desc(), *(c[name] for name in _VERSIONS)],
    )
    same = [versions.c[name] == c[name] for name in (*_COMPUTED_TOGETHER, "data_version")]
    ranked = (
        sa.select(table, rank.label("newest_first"))
        .join(versions, sa.and_(*same, versions.c.newest_first == 1))
        .where(*wide, *narrow)
        .subquery()
    )
    return (
        sa.select(*(ranked.c[column.name] for column in c if column.name != "sequence"))
        .where(ranked.c.newest_first == 1)
        .order_by(*(ranked.c[n] for n in ("window_start", "slice_key", "slice_value")))
        .order_by(*(ranked.c[n] for n in ("column_name", "metric", "dataset", "model_version")))
    )


def keep_history(conn: sa.Connection, frame: pd.DataFrame) -> pd.DataFrame:
    """Copy the rows that a frame is about to replace to the history.

    Args:
        conn: The transaction that goes on to write the frame.
        frame: Metrics, as given to `metric_log.append`.

    Returns:
        The rows to write: those that say the same as the newest row of their window are left
        out, so that its time stays that of the first computation.
    """
    stored = _stored(conn, frame)
    if stored.empty:
        return frame
    keys = list(schema.METRIC_KEYS)
    full = _with_defaults(frame).drop_duplicates(keys, keep="last")
    pairs = full.merge(stored, on=keys, how="left", suffixes=("", "_before"), indicator=True)
    known = (pairs["_merge"] == "both").to_numpy()
    same = known & pairs["is_newest"].eq(True).to_numpy()
    for name in _SAID:
        a, b = pairs[name], pairs[f"{name}_before"]
        if a.dtype.kind == "f" or b.dtype.kind == "f":
            x, y = (
                a.to_numpy(dtype=float, na_value=np.nan),
                b.to_numpy(dtype=float, na_value=np.nan),
            )
            x, y = (np.where(np.isfinite(v), v, np.nan) for v in (x, y))
            same &= (x == y) | (np.isnan(x) & np.isnan(y))
        else:
            same &= (a == b).to_numpy()
    moment = (pairs["computed_at"] != pairs["computed_at_before"]).to_numpy()
    replaced = pairs.loc[known & ~same & moment, keys]
    if len(replaced):
        rows = stored.merge(replaced, on=keys).drop(columns="is_newest")
        write_frame(conn, schema.metric_history, rows)
    return frame.drop_duplicates([k for k in keys if k in frame], keep="last")[~same]


def _stored(conn: sa.Connection, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the stored rows of the frame's windows and data versions."""
    c = _HISTORY.c
    first, last = frame["window_start"].min(), frame["window_start"].max()
    here = [
        c.model.in_(frame["model"].unique().tolist()),
        c.window_start.between(first.to_pydatetime(), last.to_pydatetime()),
        c.metric.in_(frame["metric"].unique().tolist()),
    ]
    versions = frame["data_version"].unique().tolist()
    query = sa.select(_HISTORY).where(*here, c.data_version.in_(versions))
    stored = frame_of(conn, query)
    if stored.empty:
        return stored
    ranked = frame_of(
        conn,
        sa.select(
            *(c[name] for name in (*_GROUP, *_VERSION)),
            sa.func.max(c.computed_at, type_=c.computed_at.type).label("computed_at"),
            sa.func.max(c.sequence, type_=c.sequence.type).label("sequence"),
        )
        .where(*here)
        .group_by(*(c[name] for name in (*_GROUP, *_VERSION))),
    ).sort_values(["computed_at", "sequence"])
    newest = ranked.drop_duplicates(_GROUP, keep="last")[[*_GROUP, *_VERSION]]
    return stored.merge(newest.assign(is_newest=True), on=[*_GROUP, *_VERSION], how="left")


def _with_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with all columns, absent ones as the database would fill them."""
    missing: dict[str, Any] = {}
    for column in _HISTORY.c:
        if column.name not in frame.columns and column.name != "sequence":
            default = column.server_default
            value = default.arg if isinstance(default, sa.DefaultClause) else None
            is_count = isinstance(column.type, sa.BigInteger)
            missing[column.name] = (
                float("nan") if value is None else int(str(value)) if is_count else str(value)
            )
    times = {n: frame[n].dt.as_unit("us") for n in ("window_start", "window_end", "computed_at")}
    return frame.assign(**missing, **times)


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
