"""Means with intervals: of losses, of rows or ranked groups, and of skewed values.

Intervals of means are Student's (1908), those of skewed values follow Johnson (1978).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import latency_representatives
from mlmon_dagster.metrics.frames import MetricRows, table_rows
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics


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


PRODUCT = ":product"  # ends the name of one sum times another, for the error of their ratio
_FEWEST_EFFECTIVE = 10  # rows or groups: fewer say little of how far a ratio strays


def measure_ratio(
    part: ColumnStatistics, whole: ColumnStatistics, product: ColumnStatistics
) -> tuple[Floats, Floats]:
    """Return a ratio of sums, and the sum of squares of what part is above ratio x whole, (C,).

    NaN where the whole is 0.
    """
    ratio = rate(part.total, whole.total)
    with np.errstate(invalid="ignore", over="ignore"):
        squares = part.total_sq - 2 * ratio * product.total + ratio**2 * whole.total_sq
    return ratio, np.maximum(squares, 0)


def ratio_rows(
    metric: str,
    part: ColumnStatistics,
    whole: ColumnStatistics,
    product: ColumnStatistics,
    method_version: str,
) -> MetricRows:
    """Return a ratio of sums over rows or groups, with the interval of a ratio estimator.

    The differences part - ratio whole have mean 0 (Cochran, 1977, 6.4); of n groups that
    are all alike the error is 0, and the interval Wilson's way wide (see `mean_interval`).

    Args:
        metric: Its name.
        part: A sum of each group, C cells.
        whole: What it is a share of.
        product: Both multiplied.
        method_version: How they were counted.

    Returns:
        n = rows or groups. `reason` of a NaN: no_actuals, few_rows (under ten effective ones).
    """
    n = whole.counts.sum(axis=1)
    ratio, squares = measure_ratio(part, whole, product)
    with np.errstate(invalid="ignore", over="ignore"):
        error = rate(np.sqrt(squares * rate(n, n - 1)), whole.total)
        effective = rate(whole.total**2, whole.total_sq)
    few = np.where(whole.total > 0, effective < _FEWEST_EFFECTIVE, n > 0)
    reason = np.where(n == 0, "no_actuals", np.where(few, "few_rows", ""))
    lower, upper = mean_interval(Mean(ratio, error, n), 0.0, 1.0)
    value = np.where(reason == "", ratio, np.nan)
    return table_rows(part.cells, metric, value, lower, upper, n, reason, method_version)


_TOP = 0.01  # of the rows, whose share of the sum says how heavy the tail is
FEWEST_BESIDE_ZERO = 10  # rows that are not 0
_HALF_A_BIN = 0.01  # of a value
_UNREAD = 5  # largest rows, whose size says nothing of the tail that they are from
_NEAR_END = 20  # rows from the end, to which from the unread ones the tail is read once more
# Fitted to simulated laws: how many times the skewness of a law is that of its rows; how far an
# interval reaches for what was not drawn, for each mean excess of the tail; how the shape of all
# sizes speaks for its index; and how high that is taken.
OF_LAW, _OF_TAIL, _OF_SHAPE = 1.45, 1.4, 0.25
_UNSURE, _WAY, _HEAVIEST = 8.0, 0.9, 0.96


class Sizes(NamedTuple):
    """Values of one outcome in ascending bins: a typical value (B,), and rows per cell (C, B)."""

    values: Floats
    counts: Ints

    @classmethod
    def of(cls, gain: ColumnStatistics, debit: ColumnStatistics) -> Sizes:
        """Put the sizes of values below 0 and from 0 up into one ascending order."""
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

    def skewness(self) -> tuple[Floats, Floats]:
        """Return the third moments above and below the mean over the cube of the deviation, (C,).

        Their difference is the skewness. 0 of what spreads by less than half a bin, which bins say
        nothing of.
        """
        n = self.counts.sum(axis=1)
        mean = rate((self.counts * self.values).sum(axis=1), n)
        away = self.values - mean[:, None]
        spread = np.sqrt(rate((self.counts * away**2).sum(axis=1), n))
        has_spread = spread > _HALF_A_BIN * np.abs(mean)
        cubes = self.counts * (away / np.where(has_spread, spread, np.inf)[:, None]) ** 3
        above, below = np.maximum(cubes, 0).sum(axis=1), np.maximum(-cubes, 0).sum(axis=1)
        return rate(above, n), rate(below, n)

    def rows_beside_zero(self) -> Ints:
        """Return how many rows are not 0, (C,)."""
        return np.asarray(self.counts[:, self.values != 0].sum(axis=1), np.int64)

    def tail(self, n: Ints) -> Tail:
        """Return how the sizes of the n rows that are not 0 go on beyond the largest, (C,).

        The index is the geometric mean of two readings, Hill's (1975) of the largest tenth and the
        slope from the 5th largest to the 20th, which is that of the very end: of a power law they
        are the same, of thousands of rows of a log-normal law the second is less. Times what the
        shape of all sizes says, which few rows tell (see `_Largest.shape`). 0 of a price list or a
        cap, of which this says nothing: over a quarter of the largest rows at one size, or all of
        the largest five.
        """
        largest = np.argsort(-np.abs(self.values), kind="stable")
        largest = largest[self.values[largest] != 0]
        if not len(largest):
            return Tail(np.zeros(len(n)), np.ones(len(n)))
        rows = _Largest(np.log(np.abs(self.values[largest])), self.counts[:, largest])
        third, tenth = np.maximum(n // 3, 3), np.maximum(n // 10, 3)
        first, unread, near = (rows.at(np.minimum(k, n)) for k in (1, _UNREAD, _NEAR_END))
        end = (unread - near) / np.log(_NEAR_END / _UNREAD)
        found = np.sqrt(np.maximum(rows.hill(tenth), 0.05) * np.maximum(end, 0.05))
        index = found * np.exp(_OF_SHAPE * rows.shape(third))
        listed = rows.is_listed(third) | rows.is_listed(tenth) | (first == unread)
        has_tail = (n >= FEWEST_BESIDE_ZERO) & ~listed
        missed = np.exp(unread + np.minimum(index, 1) * np.log(_UNREAD) - first)
        return Tail(np.where(has_tail, index, 0.0), np.where(has_tail, missed, 1.0))

    def top_share(self, n: Ints) -> Floats:
        """Return what the largest hundredth of the rows, in size, holds of all."""
        order = np.argsort(-np.abs(self.values), kind="stable")
        sizes, counts = np.abs(self.values[order]), self.counts[:, order]
        first = np.ceil(_TOP * n)[:, None]
        before = np.cumsum(counts, axis=1) - counts
        taken = np.clip(first - before, 0, counts)
        return rate((taken * sizes).sum(axis=1), (counts * sizes).sum(axis=1))


class Tail(NamedTuple):
    """How sizes go on beyond the largest row, each (C,).

    Attributes:
        heavy: Extreme value index of their law, 0 if they end there.
        missed: How many times the largest row is what the 5th largest lets expect of it. A window
            that happens to have drawn no large row has a small error, and reaches the farther.
    """

    heavy: Floats
    missed: Floats


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
        beyond = self._read(k) - self.at(k + 1)[:, None]
        return rate((self._taken(k) * beyond).sum(axis=1), k - unread + 1)

    def shape(self, k: Ints) -> Floats:
        """Return how the logarithms of all sizes lie, the largest unread as in `hill`, -2 to .5.

        Kurtosis less the square of the skewness (Pearson, 1916: at least 1), plus the skewness,
        less 3: of a law 0 if it is log-normal or Weibull, a gamma -.1 to 0, but 1.2 of a
        log-logistic, 2.2 of a Frechet and 4 of a Pareto law. Of the rows it is less.
        """
        n = self.counts.sum(axis=1)
        sizes = self._read(k)
        away = sizes - rate((self.counts * sizes).sum(axis=1), n)[:, None]
        two, three, four = (rate((self.counts * away**p).sum(axis=1), n) for p in (2, 3, 4))
        two = np.maximum(two, 1e-12)
        skewness = three / two**1.5
        return np.clip(four / two**2 - skewness**2 + skewness - 3, -2.0, 0.5)

    def at(self, rank: Ints) -> Floats:
        """Return the logarithm of the rank-th largest."""
        found: Floats = self.sizes[self._place(rank)]
        return found

    def is_listed(self, k: Ints) -> Flags:
        """Return whether over a quarter of the k largest equal the first row below them."""
        below = self._place(k + 1)[:, None]
        return np.take_along_axis(self._taken(k), below, axis=1)[:, 0] > k / 4

    def _read(self, k: Ints) -> Floats:
        """Return all sizes, (C, B), none above that of the last unread of k."""
        last = self.at(np.clip(k // 3, 1, _UNREAD))
        return np.minimum(self.sizes, last[:, None])

    def _place(self, rank: Ints) -> Ints:
        before = (np.cumsum(self.counts, axis=1) < rank[:, None]).sum(axis=1)
        return np.asarray(np.minimum(before, len(self.sizes) - 1), np.int64)

    def _taken(self, k: Ints) -> Ints:
        before = np.cumsum(self.counts, axis=1) - self.counts
        return np.asarray(np.clip(k[:, None] - before, 0, self.counts), np.int64)


def skewed_mean_interval(
    mean: Mean, above: Floats, below: Floats, tail: Tail, beside: Ints
) -> tuple[Floats, Floats]:
    """Return a 95 % interval of a mean of skewed values.

    Student's quantile t, moved by the first term of the expansion that Johnson (1978) inverts,
    (2 t^2 + 1) / 6 root n times a skewness: to each side that of the values there, less that of
    the other side, each as many times as the law's exceeds that of its rows; inwards as Hall's
    transformation (1992) goes. Outwards besides by what the rows did not draw. That is in
    proportion to x / (1 - x), the mean excess of a tail of index x over its threshold (generalised
    Pareto law), x being as high as the rows let it be, and to the largest row that the fifth
    lets expect, not to the largest that happened to be drawn. No window is refused for its tail:
    those left would be the ones that drew no large row, and miss. The factors are fitted to
    simulated laws; how often the interval holds the mean of those and of others: docs/business.md.

    Args:
        mean: Of C cells.
        above: Third moment of the values above the mean, of those below it, (C,).
        below: See `above`.
        tail: How their sizes go on beyond the largest.
        beside: Rows that are not 0, (C,).

    Returns:
        Lower ends and upper ends.
    """
    t, root = t_factor(mean.n), np.sqrt(np.maximum(mean.n, 1))
    sure = tail.heavy
    unsure = np.fmin(
        sure * (1 + _UNSURE / np.sqrt(np.maximum(beside, 1))), sure + _WAY * (1 - sure)
    )
    index = np.clip(unsure, 0.0, _HEAVIEST)
    unseen = _OF_TAIL * index / (1 - index) * tail.missed

    def reach(far: Floats, near: Floats) -> Floats:
        skew = ((OF_LAW + unseen) * far - OF_LAW * near) / root
        a = np.maximum(-skew / 3, 1e-9)
        inwards = (np.cbrt(1 + 3 * a * (t - a / 2)) - 1) / a
        outwards: Floats = t + (2 * t**2 + 1) / 6 * skew
        return np.where(skew > 0, outwards, inwards)

    down, up = reach(below, above), reach(above, below)
    return mean.value - down * mean.error, mean.value + up * mean.error
