"""Service metrics: volume, latency quantiles and error rate; and whether a volume is unusual.

Quantiles have the interval between order statistics (see `intervals`), the error rate Wilson's
(1927).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import difference_interval, quantile_ranks, rate, wilson
from mlmon_dagster.metrics.means import mean_interval, mean_of
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

QUANTILES = {"p50_latency_ms": 0.5, "p95_latency_ms": 0.95, "p99_latency_ms": 0.99}
_MIN_ALIKE = 2
_TWICE, _OFF = 2.0, 1.5  # times the usual: in each odd stretch once, and all the time
_OFTEN, _MOST = 0.2, 4  # share of windows, and stretches, from which on what is odd is the rule
_BY_ROWS = 0.002


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
        rows = source.n.astype(np.float64)
        metrics.append(MetricRows(source.cells, TABLE, "n", rows, source.n, "count-1"))
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

    low, high = map(at, quantile_ranks(q, n))
    value = np.where(reason == "", at(np.ceil(q * n).astype(np.int64)), np.nan)
    return table_rows(latency.cells, metric, value, low, high, n, reason, "log-bins-1", column)


def _error_rows(status: ColumnStatistics) -> MetricRows:
    n, errors = status.counts.sum(axis=1), status.counts[:, 1]
    reason = np.where(status.n == 0, "no_rows", "no_status")
    return share_rows(status.cells, TABLE, "error_rate", errors, n, reason=reason)


@dataclass(frozen=True)
class Volume:
    """A window's rows beside those of earlier windows.

    Windows about as far off as twice, or half, the usual are no part of it, so that neither a
    holiday nor an incident of some days hides the next one; unless they are a fifth of the windows,
    or come in four stretches. Hours are compared with the same hour of other days.

    Attributes:
        n: Rows of the window, 0 or more.
        place: Its place in the week, such as the weekday.
        places: Places of the earlier windows, (W,), in order, with rows each.
        sizes: Their rows, (W,), at least 1.
        week: Windows of a week; 1 where it has one, or part of one.
        covered: Share of the window that rows were taken in for, above 0, at most 1.

    Example:
        >>> week = np.tile(np.arange(7), 4)
        >>> found = Volume(30, 3, week, np.full(28, 100))
        >>> round(found.usual), round(found.change, 2), found.chance < 1e-4
        (100, -0.7, True)
    """

    n: int
    place: int
    places: Ints
    sizes: Ints
    week: int = 7
    covered: float = 1.0

    @property
    def usual(self) -> float:
        """Median of the windows in the same place of the week; of all if there are too few."""
        return max(float(np.exp(self._expected)) - 0.5, 0.5)

    @property
    def change(self) -> float:
        """What is added to the usual, as a share of it; negative if there are fewer rows."""
        return self.n / self.usual - 1

    @cached_property
    def changes(self) -> Floats:
        """The change of each earlier window against the others, (W,)."""
        logs = np.log(self.sizes + 0.5)
        others = ~np.eye(len(logs), dtype=bool) if len(logs) > 1 else np.ones((1, 1), dtype=bool)
        usual = [
            _usual(int(place), self.places[other], logs[other], 1)
            for place, other in zip(self.places, others, strict=True)
        ]
        return np.asarray(np.expm1(logs - usual), np.float64)

    @property
    def alike(self) -> Ints:
        """Sizes of the windows in the same place that are as usual; none if there are too few."""
        mine = self._is_compared
        is_alike = (self.places[mine] == self.place) & ~_find_odd(self.changes[mine])
        sizes: Ints = self.sizes[mine][is_alike]
        return sizes if len(sizes) >= _MIN_ALIKE else sizes[:0]

    @property
    def is_known(self) -> bool:
        """Whether there are enough windows to say what is unusual."""
        return int(self._is_compared.sum()) >= MIN_WINDOWS

    @cached_property
    def chance(self) -> float:
        """Chance of a window so far from the usual, on its side; see `windows.law`."""
        from mlmon_dagster.metrics.windows.law import fit, to_scale

        mine, a_day = self._is_compared, max(self.week // 7, 1)
        sizes, changes = self.sizes[mine], self.changes[mine]
        means = np.append((sizes + 0.5) / (1 + changes), np.exp(self._expected) / self.covered)
        seen = np.append(sizes, self.n / self.covered)
        values, _ = to_scale(seen, seen, 1, "count")
        usual, noise = to_scale(means, means, 1, "count")
        noise[-1] /= self.covered
        by_rows = float(special.ndtr(-abs(values[-1] - usual[-1]) / np.sqrt(noise[-1])))
        if by_rows > _BY_ROWS:  # whatever else varies
            return by_rows
        season = min(self.week, 7)
        days = np.append(self.places[mine], self.place) // a_day
        at = np.append(0, np.cumsum((np.diff(days) - 1) % season + 1))
        kept = np.flatnonzero(~_find_odd(changes))
        law = fit(values[kept], noise[kept], at[kept], period=season, is_moving=True)
        found = law.judge(values[-1:], noise[-1:], at[-1:])
        return float(min(found.above[0, 0], found.below[0, 0]))

    @property
    def _expected(self) -> float:
        logs = np.log(self.sizes + 0.5)
        return _usual(self.place, self.places, logs, _MIN_ALIKE) + float(np.log(self.covered))

    @property
    def _is_compared(self) -> Flags:
        a_day = max(self.week // 7, 1)
        return np.asarray(self.places % a_day == self.place % a_day)


def _find_odd(changes: Floats) -> Flags:
    away = np.abs(np.log1p(changes))
    is_off = away > np.log(_OFF)
    stretch = np.cumsum(np.diff(is_off, prepend=False))
    furthest = np.zeros(len(away) + 1)
    np.maximum.at(furthest, stretch, away)
    is_odd = is_off & (furthest[stretch] > np.log(_TWICE))
    is_rule = is_odd.mean() > _OFTEN or _count_stretches(is_odd) >= _MOST
    return np.zeros_like(is_odd) if is_rule else is_odd


def _count_stretches(is_off: Flags) -> int:
    return int((np.diff(is_off.astype(np.int8), prepend=0) == 1).sum())


def is_passing(shares: Floats, limit: float) -> bool:
    """Say whether an unusual volume comes and goes in a day or a few, as holidays do.

    It is if every window since the last usual one is unusual, too, and the earlier windows have
    fewer than four such stretches. What hovers about the limit is not, nor what is low every other
    day: that is one lasting condition.

    Args:
        shares: Of the usual, what the earlier windows miss, or have beyond it, in order, (W,).
        limit: From which share on a volume is unusual; usual is what is off by less than half.

    Example:
        >>> good_friday = np.array([0.0, 0.0, 0.9, 0.1, 0.0])
        >>> is_passing(good_friday, 0.5), is_passing(np.append(good_friday, 0.4), 0.5)
        (True, False)
    """
    is_off = shares > limit / 2
    since = int(np.flatnonzero(~is_off)[-1]) + 1 if not is_off.all() else 0
    return bool((shares[since:] > limit).all()) and _count_stretches(is_off[:since]) < _MOST


def _usual(place: int, places: Ints, logs: Floats, at_least: int) -> float:
    alike = logs[places == place]
    return float(np.median(alike if len(alike) >= at_least else logs))


STAGE_QUANTILES = {"p50_stage_ms": 0.5, "p95_stage_ms": 0.95, "p99_stage_ms": 0.99}
CALL_QUANTILES = {"p50_stage_calls": 0.5, "p95_stage_calls": 0.95}
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


class Stage(NamedTuple):
    """What is counted of a stage, of the requests that have it.

    Attributes:
        times, calls: Log-spaced bins of its time, and of how often it was called.
        errors, timeouts: 1 for a request in which it failed, or timed out, else 0.
    """

    times: ColumnStatistics
    calls: ColumnStatistics
    errors: ColumnStatistics
    timeouts: ColumnStatistics


def stage_metrics(stages: Mapping[str, Stage], *, unbiased: bool) -> pd.DataFrame:
    """Time, calls and endings of each stage.

    Args:
        stages: Column of its time -> what is counted.
        unbiased: Whether spans are those of all requests, or of requests chosen by chance.

    Returns:
        MetricFrame, one column per stage: p50/p95/p99_stage_ms, at most 1 % off;
        p50/p95_stage_calls in a request, exact below 50; stage_error_rate and stage_timeout_rate.
        All are NaN with the reason sampled where spans are not unbiased.
    """
    rows = []
    for column, stage in stages.items():
        rows += [
            latency_quantile(stage.times, name, q, column) for name, q in STAGE_QUANTILES.items()
        ]
        for name, q in CALL_QUANTILES.items():
            found = latency_quantile(stage.calls, name, q, column)
            value, lower, upper = map(np.rint, (found.value, found.lower, found.upper))
            rows.append(found._replace(value=value, lower=lower, upper=upper))
        endings = {"stage_error_rate": stage.errors, "stage_timeout_rate": stage.timeouts}
        for name, bad in endings.items():
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


def cost_metrics(costs: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """What requests cost.

    Args:
        costs: Column -> statistics of what a request costs; a request without a price is a null.

    Returns:
        MetricFrame, one column each: mean_cost of the requests that have one, with Student's
        interval, and sum_cost of them, both in the unit of the prices; NaN with the reason no_cost
        where none has.
    """
    rows = []
    for column, mine in costs.items():
        mean = mean_of(mine)
        reason = np.where(mean.n == 0, "no_cost", "")
        low, high = mean_interval(mean, -np.inf, np.inf)
        one = table_rows(
            mine.cells, "mean_cost", mean.value, low, high, mean.n, reason, "mean-2", column
        )
        total = table_rows(
            mine.cells, "sum_cost", mean.value * mean.n, np.nan, np.nan, mean.n, reason, "sum-1",
            column,
        )  # fmt: skip
        rows += [one, total]
    return stack_rows(rows)


def _unless_sampled(frame: pd.DataFrame, *, unbiased: bool) -> pd.DataFrame:
    if unbiased or not len(frame):
        return frame
    return frame.assign(value=np.nan, lower=np.nan, upper=np.nan, reason=SAMPLED)
