"""Means over all predictions of what is known of a chosen subset, from counts by score group.

A loss or an outcome has no small number of values, so the profile counts it by *group*, a stretch
of the output, and bin of the value: a column of kind ``by_output``. Groups are put together until
each stratum has `rectified.PER_GROUP` labelled rows. A mean is the sum over strata of (share of all
rows) x (mean among its labelled rows), as in `rectified`; inside a stratum it is moved by how much
further along the output all rows are than the labelled, times the slope of the value over the
groups (a difference estimator; Saerndal, Swensson and Wretman, 1992, section 6.3). With every row
labelled it is the plain mean.

Its error adds the variance inside the strata, the noise of the strata's shares and that of the
slope; its degrees of freedom are Satterthwaite's (1946). A stratum without labels counts as the
smallest to the largest value that was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.frames import MetricRows
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.late_truth.rectified import (
    GROUPS,
    Interval,
    Strata,
    add_by_group,
    group_bins,
    mean,
    recalibrate,
)
from mlmon_dagster.metrics.performance.weighted_back import COMPLETE, replace_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics

STATES = 2  # of a row that has no value: without ground truth, and with it
BY_OUTPUT = ":by_output/"  # begins the names of columns that are counted by group of the output
OUTCOME = ":outcome/"  # begins the name of the loss column of an outcome
_APART = 0.01  # share of the rows with a value that may have no output
_RIDGE = 2.0  # rows that the prior of a slope, which is 0, is worth
_USUAL = 10.0  # rows that the usual spread is worth
_OF_SPREAD = 0.75  # skewness beside relative error, of a least spread
_UNSURE = 0.4  # of what the line moves a mean by
_NEWTON = 12
# Skewness of the law over that of a sample: few rows that stand for many hardly show a rare loss.
_OF_LAW = 2.3
_OF_LOG = 1.5  # skewness beside relative error that the logarithm takes care of
_MOST_SKEW = 1.5  # that an interval follows


class ByOutput(NamedTuple):
    """The partly labelled cells of a column of kind ``by_output``; P of them, G groups, B values.

    Attributes:
        places: Which cells they are, ascending, (P,).
        rows: All rows by group, (P, G).
        without: Of these, rows with ground truth and without a value, (P, G).
        counts: Rows by group and value, (P, G, B).
        values: A typical value of each bin, ascending, (B,).
    """

    places: Ints
    rows: Floats
    without: Floats
    counts: Floats
    values: Floats

    @property
    def labelled(self) -> Floats:
        """Return the rows with ground truth by group, (P, G)."""
        return np.asarray(self.counts.sum(axis=2) + self.without)

    def is_positive(self, worth: Floats) -> Flags:
        """Say in which cells no value of a row is worth less than 0, (P,)."""
        return np.asarray(np.where(self.counts.sum(axis=1) > 0, worth, 0.0).min(axis=1) >= 0)

    def seen(self) -> tuple[Ints, Ints]:
        """Return the bins of the smallest and the largest value in each cell, (P,)."""
        is_seen = np.asarray(self.counts.sum(axis=1) > 0)
        first = is_seen.argmax(axis=1)
        return first, len(self.values) - 1 - is_seen[:, ::-1].argmax(axis=1)

    def skewness(self, worth: Floats) -> Floats:
        """Return the skewness of the weighed mean of worths, (P,), as if groups were alike."""
        weights = _strata(self).weights
        n = self.counts.sum(axis=2)
        size, squares, cubes = ((weights**k * n).sum(axis=1) for k in (1, 2, 3))
        weighed = (weights[:, :, None] * self.counts).sum(axis=1)
        away = worth[None, :] - rate(weighed @ worth, size)[:, None]
        two, three = (rate((weighed * away**k).sum(axis=1), size) for k in (2, 3))
        return np.nan_to_num(rate(three, two**1.5) * rate(cubes, squares**1.5))


class MeanOfAll(NamedTuple):
    """A mean over all rows, each (P,).

    Attributes:
        value: The mean; NaN without values.
        error: Its standard error.
        freedom: Degrees of freedom of the error.
        down: How much lower it may be for what strata without labels hide.
        up: How much higher.
    """

    value: Floats
    error: Floats
    freedom: Floats
    down: Floats
    up: Floats


def value_edges(values: Floats) -> Floats:
    """Return the inner edges of the bins of values: half-way, (B - 1,)."""
    return np.asarray((values[1:] + values[:-1]) / 2, np.float64)


def partly_labelled(stats: ColumnStatistics) -> ByOutput | None:
    """Return the partly labelled cells of a ``by_output`` column; None if there are none."""
    values = np.array(stats.binning.values, np.float64)
    n_groups = len(stats.binning.edges) + 1
    counts = stats.counts.reshape(len(stats), n_groups, STATES + len(values))
    labelled = counts[:, :, 1:].sum(axis=(1, 2))
    is_partly: Flags = (labelled > 0) & (labelled < COMPLETE * counts.sum(axis=(1, 2)))
    places = np.flatnonzero(is_partly)
    if not len(places):
        return None
    mine = counts[places].astype(np.float64)
    return ByOutput(places, mine.sum(axis=2), mine[:, :, 1], mine[:, :, STATES:], values)


class _Strata(NamedTuple):
    """Which stratum each group is in, (P, G), and its rows, (P, H)."""

    group: Ints
    rows: Floats
    labelled: Floats
    weights: Floats  # rows that a labelled row of each group stands for, (P, G); 0 without labels

    def add(self, values: Floats) -> Floats:
        """Add up values of groups by stratum, (P, H)."""
        return add_by_group(values, self.group, GROUPS + 1)


def _strata(found: ByOutput) -> _Strata:
    group = group_bins(found.rows, found.labelled, GROUPS)
    rows, labelled = (add_by_group(x, group, GROUPS + 1) for x in (found.rows, found.labelled))
    weights = np.take_along_axis(np.nan_to_num(rate(rows, labelled)), group, axis=1)
    return _Strata(group, rows, labelled, weights)


def mean_of_all(
    found: ByOutput,
    worth: Floats,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    grows: bool = False,
    least_spread: float = 0.0,
) -> MeanOfAll:
    """Return the mean over all rows of what a value is worth, of those that have or would have one.

    Args:
        found: Partly labelled cells.
        worth: Of a row of each value, (B,), such as the values' squares.
        low: Smallest possible worth.
        high: Largest possible worth.
        grows: Whether values grow in proportion to something, so that their logarithm is a line.
        least_spread: Least variance of a stratum over the square of its mean, as far as it goes
            into what is usual: 2 of the squares of normal errors, which few rows hardly show.
    """
    strata = _strata(found)
    n, labelled = strata.labelled, found.labelled
    total = found.rows.sum(axis=1)
    spoken = np.where(n > 0, rate(strata.rows, total[:, None]), 0.0)  # share that labels speak for

    def by_stratum(values: Floats) -> Floats:
        return np.nan_to_num(rate(strata.add(values), n))

    valued = found.counts.sum(axis=2)
    with_value = (spoken * by_stratum(valued)).sum(axis=1)  # share of the rows that have one
    sums, squares = found.counts @ worth, found.counts @ worth**2
    line = _line(found, sums, squares, found.is_positive(worth) & grows)
    spread = _line(found, squares, squares, np.ones(len(total), bool)).mean
    ahead = np.nan_to_num(rate(strata.add(found.rows * line.mean), strata.rows))
    missed = by_stratum(sums - labelled * line.mean)  # mean residual of each stratum
    value = rate((spoken * (missed + ahead)).sum(axis=1), with_value)

    # Of a row what it is off the mean; of one without a value nothing.
    m = np.nan_to_num(value)[:, None]
    off, off_squares = sums - m * valued, squares - 2 * m * sums + m**2 * valued
    inside = by_stratum(off)
    counted = np.maximum(by_stratum(off_squares) - inside**2, 0) * n
    # Of few rows the spread is what it is usually beside the mean: it is large where that is.
    ahead_squares = by_stratum(labelled * spread)
    pooled = rate(counted.sum(axis=1), (n * ahead_squares).sum(axis=1))
    usual = np.nan_to_num(pooled)[:, None] * ahead_squares
    usual = np.maximum(usual, least_spread * by_stratum(labelled * line.mean) ** 2)
    freedom = np.maximum(n - 1, 1)
    variance = (counted + _USUAL * usual) / (freedom + _USUAL)
    each = spoken**2 * variance / np.maximum(n, 1)
    centred = np.take_along_axis(missed, strata.group, axis=1) + line.mean - m
    between = rate((found.rows * centred**2).sum(axis=1), total) / total
    steep = (spoken * (np.nan_to_num(rate(strata.add(found.rows * line.steep), strata.rows))
                       - by_stratum(labelled * line.steep))).sum(axis=1)  # fmt: skip
    by_spread = np.nan_to_num(pooled) * (labelled * spread * line.lever**2).sum(axis=1)
    doubt = np.maximum(line.doubt, by_spread)
    by_line = (spoken * (ahead - by_stratum(labelled * line.mean))).sum(axis=1)
    noise = each.sum(axis=1) + between + steep**2 * doubt + (_UNSURE * by_line) ** 2
    few = rate(noise**2, (each**2 / freedom).sum(axis=1))

    seen = [worth[places] for places in found.seen()]
    bare = 1 - spoken.sum(axis=1)
    least = np.minimum(*seen) if low == -np.inf else low
    most = np.maximum(*seen) if high == np.inf else high
    return MeanOfAll(
        value,
        rate(np.sqrt(noise), with_value),
        np.nan_to_num(few, nan=1.0),
        bare * np.maximum(value - least, 0),
        bare * np.maximum(most - value, 0),
    )


class _Line(NamedTuple):
    """What the output lets expect of a row of each group, (P, G).

    Attributes:
        mean: Of its worth.
        steep: How the mean hangs on the slope.
        lever: How the slope hangs on a row.
        doubt: Variance of the slope as far as residuals tell, (P,).
    """

    mean: Floats
    steep: Floats
    lever: Floats
    doubt: Floats


def _line(found: ByOutput, sums: Floats, squares: Floats, is_curved: Flags) -> _Line:
    """Fit a line over the normal ranks of all rows; where it is curved, (P,), of the logarithm.

    Errors of a model are about in proportion to what it says, and squares to its square: a straight
    line would miss what is rare and large. The prior of the slope is worth `_RIDGE` rows.
    """
    n = found.labelled
    x = _normal_ranks(found.rows)
    x = x - rate((n * x).sum(axis=1), n.sum(axis=1))[:, None]
    line = _straight_line(n, x, sums, squares)
    places = np.flatnonzero(is_curved & (sums.sum(axis=1) > 0))
    if len(places):
        curved = _curved_line(n[places], x[places], sums[places], squares[places])
        for straight, mine in zip(line, curved, strict=True):
            straight[places] = mine
    return line


def _straight_line(n: Floats, x: Floats, sums: Floats, squares: Floats) -> _Line:
    first = rate(sums.sum(axis=1), n.sum(axis=1))[:, None]
    spread_x = (n * x**2).sum(axis=1)
    slope = rate((sums * x).sum(axis=1), spread_x + _RIDGE)
    left = squares - 2 * sums * first + n * first**2
    variance = rate(left.sum(axis=1), n.sum(axis=1))
    lever = x / (spread_x + _RIDGE)[:, None]
    return _Line(first + slope[:, None] * x, x.copy(), lever, rate(variance, spread_x + _RIDGE))


def _curved_line(n: Floats, x: Floats, sums: Floats, squares: Floats) -> _Line:
    first = rate(sums.sum(axis=1), n.sum(axis=1))[:, None]
    a, b = np.log(first), np.zeros_like(first)
    for _ in range(_NEWTON):
        fit = np.exp(np.clip(a + b * x, np.log(first) - 7, np.log(first) + 7))
        error, weight = sums - n * fit, n * fit
        da, db = error.sum(axis=1, keepdims=True), (error * x).sum(axis=1, keepdims=True)
        db = db - _RIDGE * first * b
        aa, ab, bb = (
            (weight * x**k).sum(axis=1, keepdims=True) + (_RIDGE * first if k == 2 else 0)
            for k in range(3)
        )
        scale = np.maximum(aa * bb - ab**2, 1e-12 * aa * bb)
        a = a + np.clip((bb * da - ab * db) / scale, -1, 1)
        b = b + np.clip((aa * db - ab * da) / scale, -1, 1)
    fit = np.exp(np.clip(a + b * x, np.log(first) - 7, np.log(first) + 7))
    left = squares - 2 * sums * fit + n * fit**2
    # A row's score is (worth - mean) x: the sandwich of a fit whose variance is not its mean.
    meat = (left * x**2).sum(axis=1)
    bread = (n * fit * x**2).sum(axis=1) + _RIDGE * first[:, 0]
    return _Line(fit, fit * x, x / bread[:, None], rate(meat, bread**2))


def _normal_ranks(rows: Floats) -> Floats:
    """Return the normal quantile of each group's middle row among all, (P, G)."""
    total = np.maximum(rows.sum(axis=1, keepdims=True), 1)
    middle = (np.cumsum(rows, axis=1) - rows / 2) / total
    return np.asarray(special.ndtri(np.clip(middle, 1e-4, 1 - 1e-4)), np.float64)


def interval(
    found: ByOutput,
    of_all: MeanOfAll,
    worth: Floats,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    least_spread: float = 0.0,
) -> Interval:
    """Return a mean over all rows with its 95 % interval.

    Student's at the error's degrees of freedom; of what has no negative values on a logarithmic
    scale, its upper end moved by the first term of Johnson's expansion (1978) for the skewness that
    the logarithm leaves. Strata without labels are added by square-and-add.

    Args:
        found: Partly labelled cells.
        of_all: What `mean_of_all` said of them.
        worth: See there.
        low: Smallest possible mean.
        high: Largest possible mean.
        least_spread: See `mean_of_all`; such values leave a skewness that few rows hardly show.
    """
    t = special.stdtrit(np.maximum(of_all.freedom, 1), 0.975)
    is_positive = found.is_positive(worth)
    relative = np.nan_to_num(rate(of_all.error, of_all.value))
    relative = np.where(is_positive, np.minimum(relative, 2.0), 0.0)
    skew = np.clip(_OF_LAW * found.skewness(worth) - _OF_LOG * relative, 0, _MOST_SKEW)
    skew = np.maximum(skew, _OF_SPREAD * least_spread * relative)
    farther = t + (2 * t**2 + 1) / 6 * skew
    ratio = np.exp(-t * relative), np.exp(farther * relative)
    lower, upper = (
        np.where(is_positive, of_all.value * times, of_all.value + side * t * of_all.error)
        for side, times in zip((-1, 1), ratio, strict=True)
    )
    down = np.sqrt((of_all.value - lower) ** 2 + of_all.down**2)
    up = np.sqrt((upper - of_all.value) ** 2 + of_all.up**2)
    ends = of_all.value, of_all.value - down, of_all.value + up
    return Interval(*(np.clip(x, low, high) for x in ends))


def share_strata(found: ByOutput) -> Strata:
    """Return the rows of values that are 0 or 1, the groups standing for the bins of a score."""
    labelled = found.counts.sum(axis=2)
    # Of rows without ground truth as many have a value as of the labelled rows of the stratum.
    strata = _strata(found)
    has_value = rate(strata.add(labelled), strata.labelled)
    rows = found.rows * np.nan_to_num(np.take_along_axis(has_value, strata.group, axis=1), nan=1.0)
    successes = found.counts[:, :, -1]
    x = _normal_ranks(found.rows)
    expected, doubt = recalibrate(labelled, successes, x, slope=0.0)
    return Strata(rows, labelled, successes, strata.group, expected, GROUPS + 1, x, doubt)


class Worth(NamedTuple):
    """What a mean is of, and how it is shown.

    Attributes:
        low, high: Smallest and largest possible value of the metric.
        of: What a row of each value is worth, from the values, (B,).
        is_root: Whether the metric is the root of the mean.
        grows: See `mean_of_all`.
        least_spread: See there.
    """

    low: float = 0.0
    high: float = np.inf
    of: Callable[[Floats], Floats] = lambda values: values
    is_root: bool = False
    grows: bool = False
    least_spread: float = 0.0


def weigh_back(rows: MetricRows, stats: ColumnStatistics | None, worth: Worth) -> MetricRows:
    """Return a mean of labelled rows with the values of all rows where labels are of some.

    What bins say of the labelled rows is off by a little, which is taken off. Cells whose rows
    have no output, more than 1 % of those with a value, stay as they are.

    Args:
        rows: The mean over the labelled rows of C cells, exact.
        stats: The same by group of the output; None without.
        worth: What is counted.
    """
    found = None if stats is None else partly_labelled(stats)
    if found is None:
        return rows
    plain = np.asarray(rows.value, np.float64)[found.places]
    valued = found.counts.sum(axis=(1, 2))
    n = np.broadcast_to(np.asarray(rows.n), len(rows.cells))[found.places]
    if tuple(found.values) == (0.0, 1.0):
        ends = mean(share_strata(found), (1.0, 0.0))
    else:
        each = worth.of(found.values)
        ends = _corrected(found, each, worth, plain**2 if worth.is_root else plain)
        if worth.is_root:
            ends = Interval(*map(np.sqrt, ends))
    agrees = np.abs(n - valued) <= _APART * n
    return replace_rows(rows, found.places[agrees], Interval(*(end[agrees] for end in ends)))


def _corrected(found: ByOutput, each: Floats, worth: Worth, plain: Floats) -> Interval:
    """Return a mean and its ends, the labelled rows' exact mean put in the place of their bins'."""
    low, high = (x**2 if worth.is_root else x for x in (worth.low, worth.high))
    of_all = mean_of_all(found, each, low, high, grows=worth.grows, least_spread=worth.least_spread)
    ends = interval(found, of_all, each, low, high, least_spread=worth.least_spread)
    binned = rate(found.counts.sum(axis=1) @ each, found.counts.sum(axis=(1, 2)))
    factor = np.nan_to_num(rate(plain, binned), nan=1.0)
    is_positive = found.is_positive(each)
    moved = (np.where(is_positive, end * factor, end + plain - binned) for end in ends)
    return Interval(*(np.clip(end, low, high) for end in moved))
