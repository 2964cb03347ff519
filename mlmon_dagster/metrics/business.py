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
_FEWEST_OF_TAIL = 10  # rows
_THIN, _HEAVY, _NO_MEAN = 0.2, 0.4, 0.8  # extreme value index, as far as few rows tell it
_DOMINATED = 0.15  # skewness over the root of the rows; with a third moment it goes to 0


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
        heavy_tail.
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
        lower, upper, unsure = skewed_mean_interval(mean, sizes.skewness(mean), sizes.tail())
        yield rows(f"mean_{called}", mean.value, lower, upper, "skewed-mean-2")._replace(
            unsure=np.where(unsure, HEAVY_TAIL, "")
        )
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

    def tail(self) -> Floats:
        """Return the extreme value index of the sizes of rows that are not 0; see `_index_of`.

        The lesser one of the largest tenth and of the largest twentieth, at least ten rows: where
        two kinds of rows meet, sizes grow fast at one place, in a heavy tail everywhere. 0 under
        20 rows.
        """
        largest = np.argsort(-np.abs(self.values), kind="stable")
        largest = largest[self.values[largest] != 0]
        counts, n = self.counts[:, largest], self.counts[:, largest].sum(axis=1)
        sizes = np.log(np.abs(self.values[largest]))
        least = np.minimum(_FEWEST_OF_TAIL, n // 2)
        found = [_index_of(sizes, counts, np.maximum(n // part, least)) for part in (10, 20)]
        return np.where(n >= 2 * _FEWEST_OF_TAIL, np.minimum(*found), 0.0)

    def top_share(self, n: Ints) -> Floats:
        """Return what the largest hundredth of the rows, in size, holds of all."""
        order = np.argsort(-np.abs(self.values), kind="stable")
        sizes, counts = np.abs(self.values[order]), self.counts[:, order]
        first = np.ceil(_TOP * n)[:, None]
        before = np.cumsum(counts, axis=1) - counts
        taken = np.clip(first - before, 0, counts)
        return rate((taken * sizes).sum(axis=1), (counts * sizes).sum(axis=1))


def _index_of(sizes: Floats, counts: Ints, k: Ints) -> Floats:
    """Return the moment estimate of the extreme value index (Dekkers, Einmahl, de Haan, 1989).

    Over .5 there is no variance, from 1 on no mean. 0 where a quarter of the tail equals the first
    row below it, as on a price list, of which this says nothing.

    Args:
        sizes: Logarithms of B descending sizes.
        counts: Rows of each, (C, B).
        k: Rows of the tail, (C,), fewer than there are.
    """
    if not len(sizes):
        return np.zeros(len(k))
    upto = np.cumsum(counts, axis=1)
    taken = np.clip(k[:, None] - (upto - counts), 0, counts)
    next_one = np.minimum((upto < (k + 1)[:, None]).sum(axis=1), len(sizes) - 1)
    beyond = sizes - sizes[next_one][:, None]
    first, second = (rate((taken * beyond**power).sum(axis=1), k) for power in (1, 2))
    tied = np.take_along_axis(taken, next_one[:, None], axis=1)[:, 0] > k / 4
    spread = 1 - rate(first**2, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((spread > 0) & ~tied, first + 1 - 0.5 / spread, 0.0)


def skewed_mean_interval(
    mean: Mean, skewness: Floats, tail: Floats
) -> tuple[Floats, Floats, Flags]:
    """Return a 95 % interval of a mean of skewed values, and where none can be trusted.

    The ends of Student's interval and those of Hall's transformation of it (1992) for the
    skewness seen and up to 1.25 times that, whichever are furthest out; up to twice where the tail
    is heavy. For a sample's skewness is less than its law's, and is bound by the root of the rows:
    what has not been drawn yet is what is missing. How often that holds: docs/business.md.

    Where the tail index says that hardly a mean exists, and single rows weigh so much that the
    skewness does not fade with the rows, as where there is a variance, no interval holds.

    Args:
        mean: Of C cells.
        skewness: Of the values, (C,).
        tail: Their extreme value index, (C,).

    Returns:
        Lower ends, upper ends (both NaN where they cannot be trusted), and where they cannot.
    """
    t, root = t_factor(mean.n), np.sqrt(np.maximum(mean.n, 1))
    most = 1.25 + 0.75 * np.clip((tail - _THIN) / (_HEAVY - _THIN), 0, 1)
    down, up = t, -t
    for part in (0.0, 1 / 3, 2 / 3, 1.0):  # what is more skewed is not always wider
        a = (1 + (most - 1) * part) * skewness / 3 / root
        flat = np.abs(a) < 1e-9
        a = np.where(flat, 1.0, a)
        ends = (np.where(flat, x, (np.cbrt(1 + 3 * a * (x - a / 2)) - 1) / a) for x in (t, -t))
        down, up = np.fmax(down, next(ends)), np.fmin(up, next(ends))
    unsure = (tail > _NO_MEAN) & (np.abs(skewness) > _DOMINATED * root)
    lower, upper = mean.value - down * mean.error, mean.value - up * mean.error
    return np.where(unsure, np.nan, lower), np.where(unsure, np.nan, upper), unsure


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
