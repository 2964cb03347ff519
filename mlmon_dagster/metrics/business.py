"""What came of the predictions: outcomes by name, and what the decisions were worth.

The expected value is the mean over rows of the declared value of their cell of the table of
decision by actual, as in cost-sensitive learning (Elkan, 2001).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmon_dagster.metrics.arrays import Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import quantile_ranks, rate, wilson
from mlmon_dagster.metrics.performance.loss_means import Mean, mean_of, t_factor
from mlmon_dagster.metrics.statistics import ColumnStatistics

QUANTILES = {"median": 0.5, "p95": 0.95}
HEAVY_TAIL = "heavy_tail"
_TOP = 0.01  # of the rows, whose share of the sum says how heavy the tail is
_FEWEST, _FEWEST_OF_TAIL = 10, 20  # rows that are not 0
_UNREAD = 5  # largest rows, whose size says nothing of the tail that they are from
# How far an interval reaches for a skewness: least, more the fewer rows and the heavier the tail.
_REACH, _OF_FEW, _OF_HEAVY = 2.5, 30.0, 40.0
_HEAVY, _NO_MEAN = 0.4, 0.8  # extreme value index


@dataclass(frozen=True)
class Outcome:
    """What is counted of one outcome.

    Attributes:
        value: It as a loss column, over C cells.
        gain: Of an amount, the values from 0 up in logarithmic bins; None of a rate.
        debit: The sizes of those below 0; None of a rate.
        called: How its metrics' names end: ``outcome`` if more of it is better, else ``cost``.
    """

    value: ColumnStatistics
    gain: ColumnStatistics | None
    debit: ColumnStatistics | None
    called: Literal["outcome", "cost"] = "outcome"


def business_metrics(
    outcomes: Mapping[str, Outcome],
    confusion: ColumnStatistics | None,
    costs: Mapping[str, float] | None,
) -> pd.DataFrame:
    """What came of the predictions, and what decisions were worth, per cell.

    Args:
        outcomes: Name -> what is counted of it.
        confusion: Predictions by actual of a binary classifier, over C' cells; None without.
        costs: Cost of a row by what was predicted and came true (tp, fp, fn, tn), in any unit, a
            gain below 0; without it no expected_value.

    Returns:
        MetricFrame. Of each outcome, whose name is the column: mean (see `skewed_mean_interval`; of
        a rate Wilson's), total, which has no interval since all known rows are counted,
        median and p95 within 1 %, with the interval between order statistics,
        outcome_top_share and outcome_coverage; n = rows with one. Of `:table` expected_value in the
        unit of the costs, n = rows with an actual, with Student's interval. `reason` of a NaN:
        no_outcomes, few_rows (a p95 of under 20 rows), no_actuals; of a mean without an interval
        few_rows (under ten that are not 0) or heavy_tail (hardly a mean exists).
    """
    metrics = [rows for name, outcome in outcomes.items() for rows in _of(name, outcome)]
    if confusion is not None and costs is not None:
        metrics.append(_expected_value(confusion, costs))
    return stack_rows(metrics)


def _of(name: str, outcome: Outcome) -> Iterator[MetricRows]:
    value, called = outcome.value, outcome.called
    mean = mean_of(value)
    n, cells = mean.n, value.cells
    reason = np.where(n == 0, "no_outcomes", "")

    def rows(metric: str, values: Floats, lower: ArrayLike, upper: ArrayLike, how: str,
             why: ArrayLike = reason, counted: Ints = n) -> MetricRows:  # fmt: skip
        return table_rows(cells, metric, values, lower, upper, counted, why, how, name)

    total = np.where(n == 0, np.nan, value.total + value.binning.centre * n)
    if outcome.gain is None or outcome.debit is None:
        lower, upper = wilson(np.clip(total, 0, n), n)
        yield rows(f"mean_{called}", mean.value, lower, upper, "wilson-1")
    else:
        sizes = _Sizes.of(outcome.gain, outcome.debit)
        beside = sizes.rows_beside_zero()
        tail = sizes.tail(beside)
        lower, upper = skewed_mean_interval(mean, sizes.skewness(mean), tail, beside)
        unsure = np.select([beside < _FEWEST, tail > _NO_MEAN], ["few_rows", HEAVY_TAIL], "")
        lower, upper = (np.where(unsure == "", end, np.nan) for end in (lower, upper))
        given = rows(f"mean_{called}", mean.value, lower, upper, "skewed-mean-3")
        yield given._replace(unsure=unsure)
        for quantile, q in QUANTILES.items():
            few = np.where(n < round(1 / (1 - q)), "few_rows", "")
            why = np.where(n == 0, "no_outcomes", few)
            low, high = quantile_ranks(q, n)
            at = np.where(why == "", sizes.at(np.ceil(q * n).astype(np.int64)), np.nan)
            yield rows(f"{quantile}_{called}", at, sizes.at(low), sizes.at(high), "log-bins-1", why)
        yield rows("outcome_top_share", sizes.top_share(n), np.nan, np.nan, "log-bins-1")
    yield rows(f"total_{called}", total, np.nan, np.nan, "sum-1")
    lower, upper = wilson(n, value.n)
    empty = np.where(value.n == 0, "no_rows", "")
    yield rows("outcome_coverage", rate(n, value.n), lower, upper, "wilson-1", empty, value.n)


class _Sizes(NamedTuple):
    """Values of one outcome in ascending bins: a typical value (B,), and rows per cell (C, B)."""

    values: Floats
    counts: Ints

    @classmethod
    def of(cls, gain: ColumnStatistics, debit: ColumnStatistics) -> _Sizes:
        used = [np.flatnonzero(side.counts.any(axis=0)) for side in (debit, gain)]
        typical = [latency_representatives(side.binning) for side in (debit, gain)]
        typical[1][0] = 0.0  # the lowest bin holds what is as good as nothing
        down, up = used[0][::-1], used[1]
        values = np.concatenate([-typical[0][down], typical[1][up]])
        return cls(values, np.hstack([debit.counts[:, down], gain.counts[:, up]]))

    def at(self, rank: Ints) -> Floats:
        """Return the values of these ranks, (C,)."""
        if not len(self.values):
            return np.full(len(rank), np.nan)
        place = (np.cumsum(self.counts, axis=1) < rank[:, None]).sum(axis=1)
        found: Floats = self.values[np.minimum(place, len(self.values) - 1)]
        return found

    def skewness(self, mean: Mean) -> Floats:
        """Return the third central moment over the cube of the deviation; 0 without spread."""
        spread = mean.error * np.sqrt(mean.n)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            away = (self.values - mean.value[:, None]) / spread[:, None]
            cubes = rate(np.nansum(self.counts * away**3, axis=1), mean.n)
        return np.where(spread > 0, np.nan_to_num(cubes), 0.0)

    def rows_beside_zero(self) -> Ints:
        """Return how many rows are not 0, (C,)."""
        return np.asarray(self.counts[:, self.values != 0].sum(axis=1), np.int64)

    def tail(self, n: Ints) -> Floats:
        """Return the extreme value index of the sizes of the n rows that are not 0, (C,).

        Hill's estimate (1975) of the largest third, at least 20 rows, carried on to none by that of
        half as many (the generalised jackknife of Gomes, Martins and Neves, 2000), since what is no
        power law grows thinner further out. At most two standard errors more than the moment
        estimate of the largest tenth (Dekkers, Einmahl and de Haan, 1989): where two kinds of rows
        meet, sizes grow fast at one place, in a heavy tail everywhere. Where there is no variance
        it is over .5, no mean from 1 on. 0 under 20 rows, and of a price list, of which this says
        nothing.
        """
        largest = np.argsort(-np.abs(self.values), kind="stable")
        largest = largest[self.values[largest] != 0]
        if not len(largest):
            return np.zeros(len(n))
        rows = _Largest(np.log(np.abs(self.values[largest])), self.counts[:, largest])
        third, tenth = np.maximum(n // 3, _FEWEST_OF_TAIL), np.maximum(n // 10, _FEWEST)
        k, few = np.minimum(n // 2, third), np.minimum(n // 2, tenth)
        listed = rows.is_listed(k) | rows.is_listed(k // 2)
        slope = 2 * rows.hill(k // 2) - rows.hill(k)
        found = np.fmin(slope, rows.moments(few) + 2 / np.sqrt(np.maximum(few, 1)))
        return np.where((n >= _FEWEST_OF_TAIL) & ~listed, found, 0.0)

    def top_share(self, n: Ints) -> Floats:
        """Return what the largest hundredth of the rows, in size, holds of all."""
        order = np.argsort(-np.abs(self.values), kind="stable")
        sizes, counts = np.abs(self.values[order]), self.counts[:, order]
        first = np.ceil(_TOP * n)[:, None]
        before = np.cumsum(counts, axis=1) - counts
        taken = np.clip(first - before, 0, counts)
        return rate((taken * sizes).sum(axis=1), (counts * sizes).sum(axis=1))


class _Largest(NamedTuple):
    """Logarithms of B sizes that descend, and rows of each per cell, (C, B); k, (C,), are asked."""

    sizes: Floats
    counts: Ints

    def hill(self, k: Ints) -> Floats:
        """Return Hill's estimate of the k largest.

        The five largest (a third, if that is fewer) count as the last one of them (as in
        Bhattacharya, Kallitsis and Stoev, 2019): else windows that happened to draw no large row
        would be those that seem to have a thin tail, and have an interval just where it misses.
        """
        unread = np.clip(k // 3, 1, _UNREAD)
        sizes = np.minimum(self.sizes, self.sizes[self._place(unread)][:, None])
        beyond = sizes - self.sizes[self._place(k + 1)][:, None]
        return rate((self._taken(k) * beyond).sum(axis=1), k - unread + 1)

    def moments(self, k: Ints) -> Floats:
        """Return the moment estimate of the k largest; NaN where they are all alike."""
        beyond = self.sizes - self.sizes[self._place(k + 1)][:, None]
        first, second = (rate((self._taken(k) * beyond**power).sum(axis=1), k) for power in (1, 2))
        spread = 1 - rate(first**2, second)
        return first + 1 - 0.5 / np.where(spread > 0, spread, np.nan)

    def is_listed(self, k: Ints) -> Flags:
        """Return whether over a quarter of the k largest equal the first row below them."""
        below = self._place(k + 1)[:, None]
        return np.take_along_axis(self._taken(k), below, axis=1)[:, 0] > k / 4

    def _place(self, rank: Ints) -> Ints:
        before = (np.cumsum(self.counts, axis=1) < rank[:, None]).sum(axis=1)
        return np.asarray(np.minimum(before, len(self.sizes) - 1), np.int64)

    def _taken(self, k: Ints) -> Ints:
        before = np.cumsum(self.counts, axis=1) - self.counts
        return np.asarray(np.clip(k[:, None] - before, 0, self.counts), np.int64)


def skewed_mean_interval(
    mean: Mean, skewness: Floats, tail: Floats, beside: Ints
) -> tuple[Floats, Floats]:
    """Return a 95 % interval of a mean of skewed values.

    On the side where rows crowd, the end of Hall's transformation of Student's interval (1992) for
    the skewness seen. On the other side, that of the long tail, the first term of the expansion
    that this inverts (Johnson, 1978), for 2.5 times the skewness and more: a sample's is less than
    its law's and bound by the root of the rows, most so of few rows and of a heavy tail, and what
    has not been drawn yet is what is missing. The factors are fitted to simulated laws; how often
    the interval holds the mean of those and of others: docs/business.md.

    Args:
        mean: Of C cells.
        skewness: Of the values, (C,).
        tail: Their extreme value index, (C,).
        beside: Rows that are not 0, (C,).

    Returns:
        Lower ends and upper ends.
    """
    t, root = t_factor(mean.n), np.sqrt(np.maximum(mean.n, 1))
    skew = np.abs(skewness) / root
    more = np.fmax(_OF_FEW / np.maximum(beside, 1), _OF_HEAVY * (tail - _HEAVY))
    long = t + (_REACH + more) * (2 * t**2 + 1) / 6 * skew
    a = np.maximum(skew / 3, 1e-9)
    short = (np.cbrt(1 + 3 * a * (t - a / 2)) - 1) / a
    down, up = np.where(skewness > 0, (short, long), (long, short))
    return mean.value - down * mean.error, mean.value + up * mean.error


def _expected_value(confusion: ColumnStatistics, costs: Mapping[str, float]) -> MetricRows:
    """Mean value of a row: minus its cost."""
    counts = label_counts(confusion.counts)
    by_case = {
        "tn": counts[:, 0, 1],
        "fp": counts[:, 1, 1],
        "fn": counts[:, 0, 2],
        "tp": counts[:, 1, 2],
    }
    n = np.sum(list(by_case.values()), axis=0)
    total = sum((-costs[name] * count for name, count in by_case.items()), np.zeros(len(n)))
    squares = sum((costs[name] ** 2 * count for name, count in by_case.items()), np.zeros(len(n)))
    value = rate(total, n)
    variance = rate(np.maximum(squares - value * total, 0), n - 1)
    half = t_factor(n) * np.sqrt(rate(variance, n))
    reason = np.where(n == 0, "no_actuals", "")
    version = "mean-1@" + ",".join(f"{name}={cost:g}" for name, cost in sorted(costs.items()))
    return table_rows(
        confusion.cells, "expected_value", value, value - half, value + half, n, reason, version
    )
