"""Service metrics: volume, latency quantiles and error rate; and whether rows are unusually few.

Quantiles have the interval between order statistics (see `intervals`), the error rate Wilson's
(1927).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows
from mlmon_dagster.metrics.intervals import difference_interval, quantile_ranks, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

QUANTILES = {"p50_latency_ms": 0.5, "p95_latency_ms": 0.95, "p99_latency_ms": 0.99}
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
    reason = np.where(status.n == 0, "no_rows", "no_status")
    return share_rows(status.cells, TABLE, "error_rate", errors, n, reason=reason)


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


STAGE_QUANTILES = {"p50_stage_ms": 0.5, "p95_stage_ms": 0.95, "p99_stage_ms": 0.99}
TOKEN_QUANTILES = {"p50_tokens": 0.5, "p95_tokens": 0.95}
SAMPLED = "sampled"


def coverage_metrics(
    traced: ColumnStatistics,
    latency: tuple[ColumnStatistics, ColumnStatistics] | None,
    status: tuple[ColumnStatistics, ColumnStatistics] | None,
    told: Mapping[str, ColumnStatistics] | None = None,
) -> pd.DataFrame:
    """Share of requests that have spans, and how those differ from all.

    Args:
        traced: 1 for a request with spans, else 0, over C cells.
        latency: Of all requests and of those with spans, of the same cells; None if not logged.
        status: The same of ok and error.
        told: Column -> 1 for a request whose spans tell it, else 0, of the same cells.

    Returns:
        MetricFrame: span_coverage (Wilson's interval), of each column as well; of `:table` alone
        span_error_bias, the coverage of failed requests less that of the others; and
        span_latency_bias, the largest distance of the two distributions of latency (0 to 1), which
        is 0 where every request has spans.
    """
    rows = []
    for column, stats in {TABLE: traced, **(told or {})}.items():
        n, total = stats.n, np.rint(stats.total).astype(np.int64)
        rows.append(share_rows(stats.cells, column, "span_coverage", total, n))
    if status is not None:
        every, mine = (side.counts for side in status)
        share = rate(mine, every)
        low, high = wilson(mine, every)
        gap, below, above = difference_interval(
            share[:, 1], (low[:, 1], high[:, 1]), share[:, 0], (low[:, 0], high[:, 0])
        )
        rows.append(
            MetricRows(traced.cells, TABLE, "span_error_bias", gap, every.sum(axis=1),
                       "newcombe-1", below, above, reason="one_status")
        )  # fmt: skip
    if latency is not None:
        sides = [np.cumsum(side.counts, axis=1).astype(np.float64) for side in latency]
        sizes = [side[:, -1] for side in sides]
        none = (sizes[0] == 0) | (sizes[1] == 0)
        shares: list[Floats] = [
            side / np.maximum(size, 1)[:, None] for side, size in zip(sides, sizes, strict=True)
        ]
        far = np.abs(shares[0] - shares[1]).max(axis=1)
        rows.append(
            MetricRows(traced.cells, TABLE, "span_latency_bias", np.where(none, np.nan, far),
                       sizes[1].astype(np.int64), "ks-bins-1",
                       reason="no_spans")
        )  # fmt: skip
    return stack_rows(rows)


def stage_metrics(
    stages: Mapping[str, tuple[ColumnStatistics, ColumnStatistics, ColumnStatistics]],
    *,
    unbiased: bool,
) -> pd.DataFrame:
    """Time and endings of each stage.

    Args:
        stages: Column -> log-spaced bins of its time, and of requests that have it 1 for an error,
            and 1 for a timeout, else 0.
        unbiased: Whether spans are those of all requests, or of requests chosen by chance.

    Returns:
        MetricFrame, one column per stage: p50/p95/p99_stage_ms, at most 1 % off, and
        stage_error_rate and stage_timeout_rate. All are NaN with the reason sampled where spans
        are not unbiased.
    """
    rows = []
    for column, (times, errors, timeouts) in stages.items():
        rows += [latency_quantile(times, name, q, column) for name, q in STAGE_QUANTILES.items()]
        for name, bad in (("stage_error_rate", errors), ("stage_timeout_rate", timeouts)):
            n, k = bad.counts.sum(axis=1), np.rint(bad.total).astype(np.int64)
            rows.append(share_rows(bad.cells, column, name, k, n, reason="no_spans"))
    return _unless_sampled(stack_rows(rows), unbiased=unbiased)


def token_metrics(tokens: Mapping[str, ColumnStatistics], *, unbiased: bool) -> pd.DataFrame:
    """Tokens of requests to and from a language model.

    Args:
        tokens: Column -> log-spaced bins of a request's tokens.
        unbiased: Whether spans are those of all requests, or of requests chosen by chance.

    Returns:
        MetricFrame, one column each of input and output: p50_tokens and p95_tokens, at most 1 %
        off, and sum_tokens of the requests that have spans. All are NaN with the reason sampled
        where spans are not unbiased.
    """
    rows = []
    for column, mine in tokens.items():
        rows += [latency_quantile(mine, name, q, column) for name, q in TOKEN_QUANTILES.items()]
        n = mine.counts.sum(axis=1)
        total = np.where(n > 0, mine.total, np.nan)
        rows.append(
            MetricRows(mine.cells, column, "sum_tokens", total, n, "sum-1", reason="no_spans")
        )
    return _unless_sampled(stack_rows(rows), unbiased=unbiased)


def _unless_sampled(frame: pd.DataFrame, *, unbiased: bool) -> pd.DataFrame:
    if unbiased or not len(frame):
        return frame
    return frame.assign(value=np.nan, lower=np.nan, upper=np.nan, reason=SAMPLED)
