"""Every metric ever computed: recomputation adds a version, readers see the newest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import schema
from mlmon_dagster.store.bulk import write_frame
from mlmon_dagster.store.frames import read_frame

if TYPE_CHECKING:
    import pandas as pd

_TABLE = schema.metric
_VERSIONS = ("baseline_id", "method_version", "data_version")
_IDENTITY = tuple(key for key in schema.METRIC_KEYS if key not in _VERSIONS)


def append(engine: sa.Engine, frame: pd.DataFrame) -> int:
    """Store metrics; rows whose primary key exists are overwritten, so repeating is harmless.

    Args:
        engine: The state database.
        frame: Columns of the table ``metric``; absent ones get the table's defaults. Required:
            model, dataset, window_start, window_end (UTC), granularity, metric, method_version,
            data_version, computed_at. Not-a-number and infinite values are stored as NULL.

    Returns:
        The number of rows written.

    Raises:
        StoreError: If a column is unknown or missing, or a key is null.
    """
    unknown = sorted(set(frame.columns) - set(_TABLE.c.keys()))
    required = {c.name for c in _TABLE.c if not c.nullable and c.server_default is None}
    required |= {"model", "dataset", "granularity", "metric", "method_version", "data_version"}
    missing = sorted(required - set(frame.columns))
    if unknown or missing:
        raise StoreError(f"Metrics have unknown columns {unknown} and lack the columns {missing}.")
    with engine.begin() as conn:
        return write_frame(conn, _TABLE, frame)


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

    A metric's identity is model, model_version, dataset, window_start, granularity, slice,
    column and name; of several versions (of the data, the method, the baseline) the one that
    was computed last is returned.

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
        The columns of the table ``metric``, ordered by window, slice, column and name.
    """
    chosen: dict[str, Any] = {
        "metric": metric,
        "column_name": column,
        "slice_key": slice_key,
        "slice_value": slice_value,
        "dataset": dataset,
        "model_version": model_version,
        "granularity": granularity,
        "baseline_id": baseline_id,
    }
    conditions = [_TABLE.c.model == model]
    for name, value in chosen.items():
        if isinstance(value, str):
            conditions.append(_TABLE.c[name] == value)
        elif value is not None:
            conditions.append(_TABLE.c[name].in_(list(value)))
    if start is not None:
        conditions.append(_TABLE.c.window_start >= start)
    if end is not None:
        conditions.append(_TABLE.c.window_start < end)
    if as_of is not None:
        conditions.append(_TABLE.c.computed_at <= as_of)
    rank = sa.func.row_number().over(
        partition_by=[_TABLE.c[name] for name in _IDENTITY],
        order_by=[_TABLE.c.computed_at.desc(), *(_TABLE.c[name] for name in _VERSIONS)],
    )
    ranked = sa.select(_TABLE, rank.label("newest_first")).where(*conditions).subquery()
    query = (
        sa.select(*(ranked.c[c.name] for c in _TABLE.c))
        .where(ranked.c.newest_first == 1)
        .order_by(*(ranked.c[n] for n in ("window_start", "slice_key", "slice_value")))
        .order_by(*(ranked.c[n] for n in ("column_name", "metric", "dataset", "model_version")))
    )
    return read_frame(engine, query)
