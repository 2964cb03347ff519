"""The shape in which every metric is handed on: one row per cell, column and metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmon_dagster.metrics.statistics import CELL_KEYS, TABLE

METRIC_COLUMNS = (
    *CELL_KEYS,
    "column_name",
    "metric",
    "value",
    "lower",
    "upper",
    "n",
    "n_baseline",
    "p_value",
    "reason",
    "method_version",
)


def metric_frame(
    cells: pd.DataFrame,
    *,
    column_name: str | Sequence[str],
    metric: str | Sequence[str],
    value: ArrayLike,
    n: ArrayLike,
    method_version: str | Sequence[str],
    lower: ArrayLike = np.nan,
    upper: ArrayLike = np.nan,
    n_baseline: ArrayLike = 0,
    p_value: ArrayLike = np.nan,
    reason: ArrayLike = "",
) -> pd.DataFrame:
    """Put one metric of C cells into a MetricFrame.

    Args:
        cells: Frame of C rows with the columns ``CELL_KEYS``.
        column_name: Column that the metric is about, or ``:table``; or one per cell.
        metric: Name of the metric, or one per cell.
        value: Floats (C,), NaN where it is undefined.
        n: Rows that the value rests on, (C,).
        method_version: How it was computed; another text is another metric version in the store.
        lower: Lower end of the 95 % interval, NaN if none.
        upper: Upper end of the 95 % interval, NaN if none.
        n_baseline: Rows of the baseline.
        p_value: Chance of a value at least this far without a change, NaN if not tested.
        reason: Why the value is NaN; kept only on rows where it is.

    Returns:
        Frame with the columns ``METRIC_COLUMNS`` and C rows.
    """
    size = len(cells)
    undefined = np.isnan(np.broadcast_to(np.asarray(value, dtype=np.float64), size))
    columns: dict[str, object] = {key: cells[key].array for key in CELL_KEYS}
    columns |= {"column_name": column_name, "metric": metric}
    for name, data in (("value", value), ("lower", lower), ("upper", upper)):
        columns[name] = _floats(data, size, undefined)
    columns["n"] = np.broadcast_to(np.asarray(n, dtype=np.int64), size)
    columns["n_baseline"] = np.broadcast_to(np.asarray(n_baseline, dtype=np.int64), size)
    columns["p_value"] = _floats(p_value, size, undefined)
    columns["reason"] = np.where(undefined, np.asarray(reason, dtype=object), "")
    columns["method_version"] = method_version
    return pd.DataFrame(columns, columns=list(METRIC_COLUMNS), index=range(size))


def table_frame(
    cells: pd.DataFrame,
    metric: str,
    value: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    n: ArrayLike,
    reason: ArrayLike,
    method_version: str,
    column_name: str = TABLE,
) -> pd.DataFrame:
    """Return a MetricFrame of one metric of the whole model; arguments as `metric_frame`."""
    return metric_frame(
        cells,
        column_name=column_name,
        metric=metric,
        value=value,
        lower=lower,
        upper=upper,
        n=n,
        reason=reason,
        method_version=method_version,
    )


def concat_frames(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Stack MetricFrames; without any, an empty one."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(METRIC_COLUMNS))
    return pd.concat(filled, ignore_index=True)


def _floats(data: ArrayLike, size: int, undefined: np.ndarray) -> np.ndarray:
    return np.where(undefined, np.nan, np.broadcast_to(np.asarray(data, dtype=np.float64), size))
