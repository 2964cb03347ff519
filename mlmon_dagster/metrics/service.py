"""Service metrics: volume, latency quantiles and error rate; and whether rows are unusually few.

Quantiles have the interval between order statistics (see `intervals`), the error rate Wilson's
(1927).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import quantile_ranks, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

QUANTILES = {"p50_latency_ms": 0.5, "p95_latency_ms": 0.95, "p99_latency_ms": 0.99}
MIN_WINDOWS = 14
_MIN_ALIKE = 2
_MAD, _Z80 = 1.4826, 1.2816


def service_metrics(
    latency: ColumnStatistics | None, status: ColumnStatistics | None
) -> pd.DataFrame:
    """Volume, latency and errors per cell.

    Args:
        latency: Log-spaced latency bins over C cells; None if latency is not logged.
        status: Counts of ok and error over C' cells; None if status is not logged.

    Returns:
        MetricFrame, column `:table`: n (rows, from either); p50/p95/p99_latency_ms in
        milliseconds, relative error of the bins at most 1 %, with order-statistic intervals;
        error_rate (0 to 1, of rows with a status) with Wilson's. `reason` of a NaN: no_rows,
        no_latency, no_status, few_rows (a p95 of under 20 rows is only the maximum, p99: 100).
    """
    metrics = []
    source = latency if latency is not None else status
    if source is not None:
        metrics.append(
            MetricRows(
                source.cells,
                column_name=TABLE,
                metric="n",
                value=source.n.astype(np.float64),
                n=source.n,
                method_version="count-1",
            )
        )
    if latency is not None:
        metrics += [latency_quantile(latency, name, q) for name, q in QUANTILES.items()]
    if status is not None:
        metrics.append(_error_rows(status))
    return stack_rows(metrics)


def latency_quantile(
    latency: ColumnStatistics, metric: str, q: float, column: str = TABLE
) -> MetricRows:
    """Return a quantile of times in log-spaced bins, with the interval between order statistics."""
    n = latency.counts.sum(axis=1)
    fewest = round(1 / (1 - q))
    reason = np.select(
        [latency.n == 0, n == 0, n < fewest], ["no_rows", "no_latency", "few_rows"], ""
    )
    middles = latency_representatives(latency.binning)
    cumulative = np.cumsum(latency.counts, axis=1)

    def at(rank: Ints) -> Floats:
        place = (cumulative < rank[:, None]).sum(axis=1)
        value: Floats = middles[np.minimum(place, len(middles) - 1)]
        return np.clip(value, latency.minimum, latency.maximum)

    low, high = quantile_ranks(q, n)
    return MetricRows(
        latency.cells,
        column_name=column,
        metric=metric,
        value=np.where(reason == "", at(np.ceil(q * n).astype(np.int64)), np.nan),
        lower=at(low),
        upper=at(high),
        n=n,
        reason=reason,
        method_version="log-bins-1",
    )


def _error_rows(status: ColumnStatistics) -> MetricRows:
    n, errors = status.counts.sum(axis=1), status.counts[:, 1]
    lower, upper = wilson(errors, n)
    return MetricRows(
        status.cells,
        column_name=TABLE,
        metric="error_rate",
        value=rate(errors, n),
        lower=lower,
        upper=upper,
        n=n,
        reason=np.where(status.n == 0, "no_rows", "no_status"),
        method_version="wilson-1",
    )


@dataclass(frozen=True)
class Volume:
    """A window's rows against those of earlier windows.

    Attributes:
        usual: Median of the windows in the same place of the week; of all if there are too few.
        drop: Missing share of the usual, 1 - n / usual; negative if there are more.
        z: How many usual deviations the logarithm of n lies below; larger is stranger.
        drops: The drop of each earlier window against the others, (W,).
    """

    usual: float
    drop: float
    z: float
    drops: Floats


def volume_drop(n: int, place: int, places: Ints, sizes: Ints, covered: float = 1.0) -> Volume:
    """Compare a window's rows with those of earlier windows.

    The spread is that of log(size / usual size of its place) over the earlier windows, each against
    the others, since of three windows one is always the usual one. It is robust (the larger of 1.48
    MAD and the 80th percentile / 1.28, so that an incident of some days does not hide itself) and
    never less than counting noise. So traffic that varies 100 times from day to day has no unusual
    day, and steady traffic has one at a small drop; how large a drop matters is for the caller to
    say. 1.48 MAD of a normal law is its standard deviation (Hampel, 1974), as is its quantile of
    80 % of magnitudes / 1.28; the logarithm of a Poisson count of mean m strays by 1 / sqrt(m).

    Args:
        n: Rows of the window, 0 or more.
        place: Its place in the week, such as the weekday.
        places: Places of the earlier windows, (W,), with rows each.
        sizes: Their rows, (W,), at least 1.
        covered: Share of the window that rows were taken in for, above 0, at most 1.

    Raises:
        ValueError: If there are no earlier windows.

    Example:
        >>> week = np.tile(np.arange(7), 4)
        >>> found = volume_drop(30, 3, week, np.full(28, 100))
        >>> round(found.usual), round(found.drop, 2), found.z > 4
        (100, 0.7, True)
    """
    if not len(sizes):
        raise ValueError("no earlier windows to compare with")
    logs = np.log(sizes + 0.5)
    others = ~np.eye(len(logs), dtype=bool) if len(logs) > 1 else np.ones((1, 1), dtype=bool)
    usual = np.array(
        [_usual(int(p), places[o], logs[o], 1) for p, o in zip(places, others, strict=True)]
    )
    mine = _usual(place, places, logs, _MIN_ALIKE) + float(np.log(covered))
    strayed = np.abs(logs - usual)
    spread = max(
        _MAD * float(np.median(strayed)),
        float(np.quantile(strayed, 0.8)) / _Z80,
        float(np.exp(-mine / 2)),  # of a Poisson count, relative to its mean
    )
    size = max(float(np.exp(mine)) - 0.5, 0.5)
    z = (mine - float(np.log(n + 0.5))) / spread
    return Volume(size, 1 - n / size, z, 1 - np.exp(logs - usual))


def is_passing(drops: Floats, limit: float, most: int = 4) -> bool:
    """Say whether a low volume is the kind that comes and goes in a day or a few, as holidays do.

    It is if every window since the last usual one is low, too, and the earlier windows have fewer
    than ``most`` such stretches. What hovers about the limit is not, nor what is low every other
    day: that is one lasting condition.

    Args:
        drops: Missing share of the usual of the earlier windows, in order, (W,).
        limit: From which share on a volume is low; usual is what misses less than half of it.
        most: Stretches of low windows among the earlier ones and this one.

    Example:
        >>> good_friday = np.array([0.0, 0.0, 0.9, 0.1, 0.0])
        >>> is_passing(good_friday, 0.5), is_passing(np.append(good_friday, 0.4), 0.5)
        (True, False)
    """
    is_off = drops > limit / 2
    since = int(np.flatnonzero(~is_off)[-1]) + 1 if not is_off.all() else 0
    starts = np.diff(is_off[:since].astype(np.int8), prepend=0) == 1
    return bool((drops[since:] > limit).all() and starts.sum() < most)


def _usual(place: int, places: Ints, logs: Floats, at_least: int) -> float:
    alike = logs[places == place]
    return float(np.median(alike if len(alike) >= at_least else logs))
