"""The shape in which every metric is handed on: one row per cell, column and metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import Ints
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.statistics import CELL_KEYS
from mlmon_dagster.spec.names import TABLE

Texts = str | Sequence[str]


class MetricSample(TypedDict):
    """One row of a MetricFrame: a metric's value in one window; see `MetricRows`."""

    window_start: pd.Timestamp
    dataset: str
    model_version: str
    slice_key: str
    slice_value: str
    column_name: str
    metric: str
    value: float
    lower: float
    upper: float
    n: int
    n_baseline: int
    p_value: float
    by_chance: float
    reason: str
    method_version: str


METRIC_COLUMNS = tuple(MetricSample.__annotations__)


class BaselineSample(MetricSample, total=False):
    """A metric of the baseline, with how its windows lie if there are enough, see `clusters`."""

    usual: float
    usual_error: float
    spread: float
    row_error: float
    n_windows: float


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of any frame one by one, by its columns."""
    names = [str(name) for name in frame.columns]
    columns = [frame[name].tolist() for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def samples(frame: pd.DataFrame) -> list[MetricSample]:
    """Return the rows of a MetricFrame one by one."""
    return cast("list[MetricSample]", records(frame))


class MetricRows(NamedTuple):
    """One metric of C cells, before it is stacked into a MetricFrame; a frame each costs far more.

    Attributes:
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
        by_chance: Mean of the value without a change, NaN of what is no distance.
        reason: Why the value is NaN; kept only on rows where it is.
        unsure: Why a value is not to be judged, as it can have no interval; else empty.
    """

    cells: pd.DataFrame
    column_name: Texts
    metric: Texts
    value: ArrayLike
    n: ArrayLike
    method_version: Texts
    lower: ArrayLike = np.nan
    upper: ArrayLike = np.nan
    n_baseline: ArrayLike = 0
    p_value: ArrayLike = np.nan
    by_chance: ArrayLike = np.nan
    reason: ArrayLike = ""
    unsure: ArrayLike = ""


def table_rows(
    cells: pd.DataFrame,
    metric: str,
    value: ArrayLike,
    lower: ArrayLike,
    upper: ArrayLike,
    n: ArrayLike,
    reason: ArrayLike,
    method_version: Texts,
    column_name: str = TABLE,
) -> MetricRows:
    """Return one metric of the whole model; arguments as `MetricRows`."""
    return MetricRows(
        cells, column_name, metric, value, n, method_version, lower, upper, reason=reason
    )


def share_rows(
    cells: pd.DataFrame,
    column_name: str,
    metric: str,
    count: ArrayLike,
    of: ArrayLike,
    *,
    n: ArrayLike | None = None,
    reason: ArrayLike = "no_rows",
    method_version: str = "wilson-1",
) -> MetricRows:
    """Return a share with Wilson's interval; other arguments as `MetricRows`.

    Args:
        cells: Frame of C rows.
        column_name: What it is about.
        metric: Its name.
        count: Rows that have the property, (C,).
        of: All rows, (C,).
        n: Rows that are said; by default all.
        reason: Why the value is NaN.
        method_version: How it was computed.
    """
    shown, (lower, upper) = of if n is None else n, wilson(count, of)
    return MetricRows(
        cells, column_name, metric, rate(count, of), shown, method_version, lower, upper,
        reason=reason,
    )  # fmt: skip


def stack_rows(rows: Sequence[MetricRows]) -> pd.DataFrame:
    """Put metrics one below the other.

    Args:
        rows: Each of its own cells; those that share the cells' frame are stacked fastest.

    Returns:
        MetricFrame: the columns ``METRIC_COLUMNS``, one row per metric and cell; only the columns
        without any.
    """
    rows = [one for one in rows if len(one.cells)]
    if not rows:
        return pd.DataFrame(columns=list(METRIC_COLUMNS))
    sizes = np.array([len(one.cells) for one in rows])
    columns = _stack_cells([one.cells for one in rows])
    value = _stack([one.value for one in rows], sizes, np.float64)
    undefined = np.isnan(value)
    columns["column_name"] = _stack([one.column_name for one in rows], sizes, object)
    columns["metric"] = _stack([one.metric for one in rows], sizes, object)
    columns["value"] = value
    for name in ("lower", "upper", "p_value", "by_chance"):
        beside = _stack([getattr(one, name) for one in rows], sizes, np.float64)
        columns[name] = np.where(undefined, np.nan, beside)
    columns["n"] = _stack([one.n for one in rows], sizes, np.int64)
    columns["n_baseline"] = _stack([one.n_baseline for one in rows], sizes, np.int64)
    reason = _stack([one.reason for one in rows], sizes, object)
    unsure = _stack([one.unsure for one in rows], sizes, object)
    columns["reason"] = np.where(undefined, reason, unsure)
    columns["method_version"] = _stack([one.method_version for one in rows], sizes, object)
    return pd.DataFrame({name: columns[name] for name in METRIC_COLUMNS})


def concat_frames(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Stack MetricFrames; without any, an empty one."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return pd.DataFrame(columns=list(METRIC_COLUMNS))
    if len(filled) == 1:
        return filled[0].reset_index(drop=True)
    return pd.concat(filled, ignore_index=True)


def joined_cells(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, Ints]:
    """Put frames of cells below each other, the same one only once.

    Returns:
        All cells, and where those of each of `frames`, of which there is at least one, begin.
    """
    distinct = {id(frame): frame for frame in frames}
    starts = dict(zip(distinct, np.cumsum([0, *map(len, distinct.values())]), strict=False))
    cells = pd.concat(distinct.values()) if len(distinct) > 1 else frames[0]
    return cells, np.array([starts[id(frame)] for frame in frames], dtype=np.int64)


def _stack_cells(frames: Sequence[pd.DataFrame]) -> dict[str, object]:
    cells, starts = joined_cells(frames)
    places = np.concatenate([s + np.arange(len(f)) for s, f in zip(starts, frames, strict=True)])
    return {key: cells[key].array.take(places) for key in CELL_KEYS}


def _stack(parts: Sequence[ArrayLike], sizes: Ints, dtype: type) -> np.ndarray:
    stacked = np.empty(sizes.sum(), dtype)
    end = 0
    for part, size in zip(parts, sizes.tolist(), strict=True):
        begin, end = end, end + size
        stacked[begin:end] = part
    return stacked
