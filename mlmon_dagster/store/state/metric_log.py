"""Every metric ever computed: recomputation adds a version, readers see the newest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.sql.visitors import replacement_traverse

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.bulk import write_frame
from mlmon_dagster.store.state.frames import read_frame
from mlmon_dagster.store.state.metric_history import keep_history

if TYPE_CHECKING:
    import pandas as pd

_TABLE = schema.metric
_VERSIONS = ("baseline_id", "method_version", "data_version")
_COMPUTED_TOGETHER = ("dataset", "window_start", "granularity", "metric")
_IDENTITY = tuple(key for key in schema.METRIC_KEYS if key not in _VERSIONS)


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
) -> sa.Select[Any]:
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
