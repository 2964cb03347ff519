"""Means of losses with intervals, of rows or ranked groups.

Intervals of means are Student's (1908). What a ranked group loses is computed row by row in SQL:
NDCG (Jarvelin and Kekalainen, 2002), the reciprocal rank (Voorhees, 1999), average precision and
hits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics

_COLUMNS: dict[str, tuple[str, Scale]] = {
    "ndcg": (":ndcg", "mean"),
    "mrr": (":reciprocal_rank", "mean"),
    "map": (":average_precision", "mean"),
    "hit_rate": (":hit", "share"),
}


class Mean(NamedTuple):
    """Mean, its standard error and the number of values, each (C,); NaN without values.

    The standard error is NaN for fewer than two values.
    """

    value: Floats
    error: Floats
    n: Ints


def mean_of(stats: ColumnStatistics) -> Mean:
    """Return the mean of a column's values; of 1 and 3 it is 2 with a standard error of 1."""
    n = stats.counts.sum(axis=1)
    centred = rate(stats.total, n)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = np.maximum(stats.total_sq - centred * stats.total, 0)
        error = np.sqrt(rate(squares, n - 1) / np.maximum(n, 1))
    return Mean(stats.binning.centre + centred, error, n)


def t_factor(n: ArrayLike) -> Floats:
    """Return Student's 97.5 % quantile at n - 1 degrees of freedom; NaN below 2 rows."""
    degrees = np.asarray(n, np.float64) - 1
    return np.where(degrees > 0, special.stdtrit(np.maximum(degrees, 1), 0.975), np.nan)


def mean_interval(mean: Mean, low: float, high: float) -> tuple[Floats, Floats]:
    """Student's interval of a mean, cut to the range of the metric.

    Where all values are equal, and the range is finite, the ends are as far towards the ends of
    the range as Wilson's interval goes where everything was counted.
    """
    half = t_factor(mean.n) * mean.error
    lower, upper = np.clip(mean.value - half, low, high), np.clip(mean.value + half, low, high)
    if np.isfinite(low) and np.isfinite(high):
        share = Z95**2 / (mean.n + Z95**2)
        flat = (mean.n > 0) & ~(mean.error > 0)
        lower = np.where(flat, mean.value - (mean.value - low) * share, lower)
        upper = np.where(flat, mean.value + (high - mean.value) * share, upper)
    return lower, upper


def positive_interval(value: Floats, error: Floats, n: Ints) -> tuple[Floats, Floats]:
    """Student's interval on a logarithmic scale, for what is positive and skewed.

    By the delta method: the standard error of ln x is that of x over x.

    Args:
        value: Estimates (C,); at 0 the ends are NaN.
        error: Their standard errors.
        n: Rows.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        factor = np.exp(t_factor(n) * error / value)
        return np.where(value > 0, value / factor, np.nan), np.where(
            value > 0, value * factor, np.nan
        )


Scale = Literal["mean", "share"]


def mean_rows(
    metric: str,
    stats: ColumnStatistics,
    *,
    scale: Scale = "mean",
    low: float = 0.0,
    high: float = np.inf,
    empty: str = "no_actuals",
) -> MetricRows:
    """Return the mean of a loss column.

    Args:
        metric: Name of the metric.
        stats: The loss column, C cells.
        scale: ``share`` for losses that are 0 or 1, whose interval is Wilson's.
        low: Smallest possible mean.
        high: Largest possible mean.
        empty: Reason where there are no values.
    """
    mean = mean_of(stats)
    if scale == "share":
        lower, upper = wilson(np.clip(stats.total, 0, mean.n), mean.n)
    else:
        lower, upper = mean_interval(mean, low, high)
    reason = np.where(mean.n == 0, empty, "")
    version = "wilson-1" if scale == "share" else "mean-2"
    return table_rows(stats.cells, metric, mean.value, lower, upper, mean.n, reason, version)


def ranking_metrics(profiles: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """NDCG, mean reciprocal rank, mean average precision and hit rate, per cell.

    Rows of one group are not independent, so n counts groups, and the interval is Student's over
    them (Wilson's for the hit rate).

    Args:
        profiles: The loss columns of the groups.

    Returns:
        MetricFrame, column `:table`; `reason` of a NaN: no_actuals (no group has any).
    """
    return stack_rows(
        [
            mean_rows(metric, profiles[column], high=1.0, scale=scale)
            for metric, (column, scale) in _COLUMNS.items()
            if column in profiles
        ]
    )
