"""Rates and means of all rows where labels are those of a chosen subset: post-stratification.

Labels often come for rows that somebody chose by the score: the riskiest applications, the alarms
that were looked into, a judge's doubtful answers. The labelled rows then say little of the others,
but within a *stratum*, rows of about the same score and the same decision, labels come whatever
the truth is. So a rate is the sum over strata of (share of all rows) x (rate among its labelled),
as in a stratified survey (Cochran, 1977, chapter 5A). What the score says of rows inside a stratum
is used as well: rates are moved by how much higher the score, recalibrated on the labelled rows,
is among all rows of a stratum than among its labelled (a difference estimator; Saerndal, Swensson
and Wretman, 1992, section 6.3). With every row labelled all of this is the plain rate.

The interval combines Wilson's of each stratum by square-and-add, which is MOVER (Zou and Donner,
2008), with the multinomial noise of the strata's shares. A stratum without a label counts as 0 to
1, so that the interval is as wide as what is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.intervals import Z95, rate

METHOD = "post-stratified-2"
GROUPS = 30  # of scores, at most, on each side of the decision
PER_GROUP = 10  # labels
_GAP = 4.0  # natural logarithm of how unlikely a stretch without labels is, if it is no rule
_STEPS = 32  # halvings of an interval
_AT_ONCE = 1 << 20  # numbers that several ratios of the same cells are found at once from
_NEWTON = 20
_SMOOTH = 4.0  # labels that what the score says is worth, where the variance is taken
_FARTHEST = 60.0  # logits
_TAIL = 0.975
_PRIOR = 3.0, 2.0  # standard deviation of intercept and slope of a recalibration


class Interval(NamedTuple):
    """Value and ends of its 95 % interval, each (C,)."""

    value: Floats
    lower: Floats
    upper: Floats


class Strata(NamedTuple):
    """Rows of C cells by B bins, which are in G strata.

    Attributes:
        rows: All rows, labelled or not, (C, B).
        labelled: Of these, the labelled, (C, B).
        successes: Of these, those that came true, (C, B).
        group: Stratum of each bin, 0 to G - 1, (C, B).
        expected: Chance that a row of the bin comes true, as far as its score says, (C, B).
        size: G.
        logit: Of the score of each bin, (B,).
        doubt: Variances of intercept and slope of the recalibration that `expected` rests on, and
            between them their covariance, (C, 3).
    """

    rows: Floats
    labelled: Floats
    successes: Floats
    group: Ints
    expected: Floats
    size: int
    logit: Floats
    doubt: Floats

    def add(self, values: ArrayLike) -> Floats:
        """Add up values of bins, (C, B) or what broadcasts to it, by stratum: (C, G)."""
        spread = np.broadcast_to(np.asarray(values, np.float64), self.rows.shape)
        return add_by_group(spread, self.group, self.size)

    def weights(self) -> Floats:
        """Return how many rows a labelled row of each bin stands for, (C, B); 0 without labels."""
        each = rate(self.add(self.rows), self.add(self.labelled))
        return np.nan_to_num(np.take_along_axis(each, self.group, axis=1))

    def with_labels_only(self) -> Strata:
        """Leave out the rows of strata without a label."""
        return self._replace(rows=self.rows * (self.weights() > 0))

    def rates(self) -> Floats:
        """Return the rate of each stratum, (C, G); NaN of one without rows.

        It is moved by how much higher the score's is among all rows than among the labelled.
        """
        n, rows = self.add(self.labelled), self.add(self.rows)
        among_all = rate(self.add(self.rows * self.expected), rows)
        among_labelled = rate(self.add(self.labelled * self.expected), n)
        moved = rate(self.add(self.successes), n) + among_all - among_labelled
        return np.where(n > 0, moved, among_all)

    def repeat(self, times: int) -> Strata:
        """Return as many times its cells, one set behind the other."""
        rows, labelled, successes, expected, doubt = (
            np.tile(values, (times, 1))
            for values in (self.rows, self.labelled, self.successes, self.expected, self.doubt)
        )
        group = np.tile(self.group, (times, 1))
        return Strata(rows, labelled, successes, group, expected, self.size, self.logit, doubt)

    def unlabelled_share(self) -> Floats:
        """Return the share of the rows that are in strata without a label, (C,)."""
        return 1 - rate(self.with_labels_only().rows.sum(axis=1), self.rows.sum(axis=1))


def add_by_group(values: Floats, group: Ints, size: int) -> Floats:
    """Add up values of bins, (C, B), by their group: (C, size)."""
    cells = len(values)
    flat = group + size * np.arange(cells)[:, None]
    found = np.bincount(flat.ravel(), values.ravel(), minlength=cells * size)
    return np.asarray(found.reshape(cells, size), np.float64)


def strata_by_answer(rows: Floats, labelled: Floats, successes: Floats) -> Strata:
    """Make each of G answers a stratum, such as a judge's; arrays are (C, G)."""
    group = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    none = np.zeros(rows.shape[1])
    doubt = np.zeros((len(rows), 3))
    # An answer's own rate, not 0 or 1, so that answers that differ tell how noisy their shares are.
    expected = (successes + _SMOOTH / 2) / (labelled + _SMOOTH)
    return Strata(rows, labelled, successes, group, expected, len(none), none, doubt)


def strata_by_score(
    rows: Floats, labelled: Floats, successes: Floats, scores: Floats, most: int = GROUPS
) -> Strata:
    """Group the bins of a score such that every stratum has enough labels.

    On each side of the decision as many strata of equally many labels as there are
    `PER_GROUP` labels for, at most `most`. A stretch of bins without any label is a stratum of its
    own where that is no chance, such as below a cut: if its stratum's labels were spread over the
    stratum's rows, all would miss it with a chance below exp(-4) / n, n being all labels.

    Args:
        rows: All rows by side of the decision and ascending bin, (C, D, S).
        labelled: Of these, the labelled.
        successes: Of these, the positives.
        scores: A typical score of each bin, (S,).
        most: Strata of a side.
    """
    cells, sides, bins = rows.shape
    flat = (cells * sides, bins)
    group = group_bins(rows.reshape(flat), labelled.reshape(flat), most).reshape(rows.shape)
    group = group + (most + 1) * np.arange(sides)[None, :, None]
    logit = np.log(scores) - np.log1p(-scores)
    expected, doubt = recalibrate(labelled.sum(axis=1), successes.sum(axis=1), logit)
    expected = np.broadcast_to(expected[:, None], rows.shape)
    size = sides * (most + 1)
    whole = (cells, sides * bins)
    return Strata(
        rows.reshape(whole), labelled.reshape(whole), successes.reshape(whole),
        group.reshape(whole), expected.reshape(whole), size, np.tile(logit, sides), doubt,
    )  # fmt: skip


def group_bins(rows: Floats, labelled: Floats, most: int) -> Ints:
    """Put bins together into at most so many strata that have `PER_GROUP` labels each.

    Args:
        rows: All rows by ascending bin, (C, S).
        labelled: Of these, the labelled.
        most: Strata.

    Returns:
        The stratum of each bin, (C, S); `most` for those that no label speaks for.
    """
    n = labelled.sum(axis=1, keepdims=True)
    strata = np.clip(n // PER_GROUP, 1, most)
    middle = np.cumsum(labelled, axis=1) - labelled / 2
    group = np.clip(rate(middle * strata, n), 0, strata - 1)
    found = np.nan_to_num(group, nan=most).astype(np.int64)
    is_bare = labelled == 0
    stretch = np.cumsum(~is_bare, axis=1)  # which stretch between two labelled bins a bin is in
    cell = np.arange(len(rows))[:, None]
    held = _add_up(np.where(is_bare, rows, 0.0), stretch + (rows.shape[1] + 1) * cell)
    place = found + (most + 1) * cell
    share = np.minimum(rate(held, _add_up(rows, place)), 1 - 1e-12)
    surprise = -_add_up(labelled, place) * np.log1p(-np.nan_to_num(share))
    is_rule = surprise > _GAP + np.log(np.maximum(n, 1))
    return np.where(is_bare & is_rule, most, found)


def _add_up(values: Floats, places: Ints) -> Floats:
    """Return of every bin the sum over the bins that have the same place."""
    return np.asarray(np.bincount(places.ravel(), values.ravel())[places], np.float64)


def recalibrate(
    labelled: Floats, successes: Floats, x: Floats, slope: float = 1.0
) -> tuple[Floats, Floats]:
    """Return the chance of success by bin: a logistic curve of the score's logit, (C, S).

    Of few labels it stays near the score itself: intercept and slope have a normal prior around 0
    and 1 (Platt, 1999, without the prior). Only differences of it inside a stratum are used, and
    its level where no label speaks.

    Args:
        labelled: Rows with a label, (C, S).
        successes: Of these, the positives.
        x: Logit of the score of each bin, (S,), or whatever else it hangs on.
        slope: What the slope is near, of few labels.

    Returns:
        Chances (C, S), and of intercept and slope the variance of the former, the covariance and
        the variance of the latter, (C, 3).
    """
    a, b = np.zeros((len(labelled), 1)), np.full((len(labelled), 1), slope)
    prior_a, prior_b = _PRIOR[0] ** -2, _PRIOR[1] ** -2
    for _ in range(_NEWTON):
        p = 1 / (1 + np.exp(-np.clip(a + b * x, -30, 30)))
        error, weight = successes - labelled * p, labelled * p * (1 - p)
        da = error.sum(axis=1, keepdims=True) - prior_a * a
        db = (error * x).sum(axis=1, keepdims=True) - prior_b * (b - slope)
        aa = weight.sum(axis=1, keepdims=True) + prior_a
        ab = (weight * x).sum(axis=1, keepdims=True)
        bb = (weight * x**2).sum(axis=1, keepdims=True) + prior_b
        scale = aa * bb - ab**2
        a = a + np.clip((bb * da - ab * db) / scale, -1, 1)
        b = b + np.clip((aa * db - ab * da) / scale, -0.5, 0.5)
    return 1 / (1 + np.exp(-np.clip(a + b * x, -30, 30))), np.hstack([bb, -ab, aa]) / scale


# Of a row of each bin that comes true, and of one that does not.
Worth = tuple[ArrayLike, ArrayLike]
WHOLE: Worth = (1.0, 1.0)  # every row counts as one


class _Rates(NamedTuple):
    """Of each stratum, (C, G).

    Attributes:
        rows: All of its rows.
        labelled: Of these, the labelled.
        rate: Its rate, moved by what the score says of the rest, maybe beyond 0 and 1; of no label
            what the score lets expect.
        logit: Of the rate that its variance is taken at, between `rate` and what the score says.
    """

    rows: Floats
    labelled: Floats
    rate: Floats
    logit: Floats

    @property
    def freedom(self) -> Floats:
        """Return what the variance of each stratum is divided by, (C, G)."""
        one_lost = (self.labelled > 0).sum(axis=1, keepdims=True) > 1
        return np.asarray(np.maximum(self.labelled - one_lost, 1))


def _rates(strata: Strata) -> _Rates:
    n, rows = strata.add(strata.labelled), strata.add(strata.rows)
    among_all = np.nan_to_num(rate(strata.add(strata.rows * strata.expected), rows))
    moved = np.nan_to_num(strata.rates())
    smooth = (n * np.clip(moved, 0, 1) + _SMOOTH * among_all) / (n + _SMOOTH)
    smooth = np.clip(smooth, 1e-9, 1 - 1e-9)
    return _Rates(rows, n, moved, np.log(smooth) - np.log1p(-smooth))


class _Mean(NamedTuple):
    """A mean over all rows, (C,).

    Attributes:
        value: The mean.
        slope: How much of it hangs on the rate of each stratum, (C, G).
        spread: The same, where rows of a stratum differ in what hangs on them; at least `slope`.
        by_bin: What the score lets expect of a row of each bin, (C, B).
        learnt: How it hangs on intercept and slope of the recalibration, two of (C,).
    """

    value: Floats
    slope: Floats
    spread: Floats
    by_bin: Floats
    learnt: tuple[Floats, Floats]


def _mean(strata: Strata, rates: _Rates, worth: Worth) -> _Mean:
    success, failure = (np.asarray(side, np.float64) for side in worth)
    difference = np.broadcast_to(success - failure, strata.rows.shape)
    by_bin = failure + difference * strata.expected
    total = strata.rows.sum(axis=1)
    missed = strata.add(difference * (strata.successes - strata.labelled * strata.expected))
    missed = np.nan_to_num(rates.rows * rate(missed, rates.labelled)).sum(axis=1)
    value = rate((strata.rows * by_bin).sum(axis=1) + missed, total)
    sums, squares = (strata.add(strata.rows * difference**k) for k in (1, 2))
    slope, spread = (np.nan_to_num(rate(x, total[:, None]))
                     for x in (sums, np.sqrt(squares * rates.rows)))  # fmt: skip
    steep = difference * strata.expected * (1 - strata.expected)
    share = np.where(rates.labelled > 0, rate(rates.rows, total[:, None]), 0.0)
    by_intercept, by_slope = (
        (share * np.nan_to_num(
            rate(strata.add(strata.rows * x), rates.rows)
            - rate(strata.add(strata.labelled * x), rates.labelled))).sum(axis=1)
        for x in (steep, steep * strata.logit)
    )  # fmt: skip
    spread = np.maximum(spread, np.abs(slope))
    return _Mean(value, slope, spread, by_bin, (by_intercept, by_slope))


def mean(strata: Strata, worth: Worth, low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> Interval:
    """Mean over all rows of what a row is worth by whether it comes true; (1, 0) is their rate.

    Args:
        strata: Of C cells.
        worth: Of a row of each bin that comes true, (B,) or (C, B), and of one that does not.
        low: Smallest possible mean.
        high: Largest possible mean.

    Returns:
        NaN of cells without a label.
    """
    return ratio(strata, worth, WHOLE, low, high)


class Asked(NamedTuple):
    """A ratio that is asked for, see `ratio`; a mean if nothing is below."""

    above: Worth
    below: Worth = WHOLE
    low: float = 0.0
    high: float = 1.0


def ratios(strata: Strata, asked: Sequence[Asked]) -> list[Interval]:
    """Return several ratios of the same cells, as `ratio` does one by one.

    Few cells take numpy as long as many, so they are found together, as if of so many more cells.
    """
    cells, times = len(strata.rows), len(asked)
    if strata.rows.size * times > _AT_ONCE:
        return [ratio(strata, *one) for one in asked]

    def stacked(worths: Iterable[Worth]) -> Worth:
        of_true, of_false = zip(*worths, strict=True)
        return repeated(of_true), repeated(of_false)

    def repeated(values: Iterable[ArrayLike]) -> Floats:
        return np.concatenate([np.broadcast_to(x, strata.rows.shape) for x in values])

    low, high = (np.repeat([getattr(one, end) for one in asked], cells) for end in ("low", "high"))
    above, below = (stacked(getattr(one, part) for one in asked) for part in ("above", "below"))
    found = ratio(strata.repeat(times), above, below, low, high)
    each = [np.split(values, times) for values in found]
    return [Interval(*ends) for ends in zip(*each, strict=True)]


def ratio(
    strata: Strata, above: Worth, below: Worth, low: ArrayLike = 0.0, high: ArrayLike = 1.0
) -> Interval:
    """Ratio of two means over all rows: recall is decided positives by all positives.

    The interval is the score's (Wilson, 1927; of one stratum it is Wilson's): the values r at which
    ``above - r below`` is not farther from 0 than its error there, the strata's rates being moved
    on a logit scale in the direction in which they move it fastest, so that no rate is 0 or 1.
    The value is without `_ratio_bias`.

    Args:
        strata: Of C cells.
        above: Worth of a row of each bin, (B,) or (C, B), that comes true, and of one that does
            not.
        below: The same of what is divided by.
        low: Smallest possible ratio, one for all or (C,).
        high: Largest possible ratio, likewise.

    Returns:
        NaN of cells without a label, and where the mean below is 0.
    """
    rates = _rates(strata)
    a, b = _mean(strata, rates, above), _mean(strata, rates, below)
    total = strata.rows.sum(axis=1)
    moments = _moment(strata, a, a), _moment(strata, a, b), _moment(strata, b, b)
    value = np.where(rates.labelled.sum(axis=1) > 0, rate(a.value, b.value), np.nan)
    has_labels = rates.labelled > 0
    value = value - _ratio_bias(rates, a, b, value)
    at = np.nan_to_num(value)
    slope = np.where(has_labels, a.slope - at[:, None] * b.slope, 0.0)
    freedom = rates.freedom
    way = slope / freedom
    way = way / np.maximum(np.abs(way).max(axis=1, keepdims=True), 1e-300)
    extra = np.where(has_labels, a.spread**2 - a.slope**2, 0.0)
    reach = Z95 * _lengthen(slope**2 + extra, rates)

    def moved(delta: Floats) -> tuple[Floats, Floats]:
        """Return the ratio if the rates are moved, (2, C), and how far from what was found."""
        p = 1 / (1 + np.exp(-np.clip(rates.logit + delta[..., None] * way, -35, 35)))
        change = np.where(has_labels, p - rates.rate, 0.0)
        r = rate(a.value + (a.slope * change).sum(axis=2), b.value + (b.slope * change).sum(axis=2))
        weight = (a.slope - r[..., None] * b.slope) ** 2 + extra
        variance = np.where(has_labels, weight * p * (1 - p) / freedom, 0.0)
        noise = np.maximum(moments[0] - 2 * r * moments[1] + r**2 * moments[2], 0) / total
        i, j = (x - r * y for x, y in zip(a.learnt, b.learnt, strict=True))
        noise = noise + (np.stack([i**2, 2 * i * j, j**2], axis=2) * strata.doubt).sum(axis=2)
        half = reach * np.sqrt(variance.sum(axis=2) + noise)
        return r, np.abs(a.value - r * b.value) - half

    far = np.repeat([[-_FARTHEST], [_FARTHEST]], len(at), axis=1)
    near = np.zeros_like(far)
    for _ in range(_STEPS):
        middle = (near + far) / 2
        is_out = moved(middle)[1] > 0
        near, far = np.where(is_out, near, middle), np.where(is_out, middle, far)
    ends = moved(far)[0]
    lower, upper = np.fmin(ends[0], at), np.fmax(ends[1], at)
    lower, upper = _with_gaps(rates, a, b, at, lower, upper)
    found = (np.clip(x, low, high) for x in (value, lower, upper))
    return Interval(*(np.where(np.isfinite(value), x, np.nan) for x in found))


def _ratio_bias(rates: _Rates, a: _Mean, b: _Mean, value: Floats) -> Floats:
    """Return by how much a ratio is too high since what is divided by varies too, (C,).

    The second term of its expansion (Cochran, 1977, section 6.8): 0 where labels come at random,
    and much where few labels stand for most of what is divided by, as of recall.
    """
    p = 1 / (1 + np.exp(-rates.logit))
    variance = np.where(rates.labelled > 0, p * (1 - p) / rates.freedom, 0.0)
    shared = ((value[:, None] * b.slope - a.slope) * b.slope * variance).sum(axis=1)
    return rate(shared, b.value**2)


def _lengthen(weight: Floats, rates: _Rates) -> Floats:
    """Return how much longer an interval is since few labels stand for many rows, (C,).

    The variance is known as well as that of so many labels of one stratum as Satterthwaite's (1946)
    degrees of freedom are. The quantile of Student's t there is set against that of all labels, so
    that it is 1 where strata are alike, as they are where labels are chosen at random.

    Args:
        weight: What the variance of each stratum's rate counts for, (C, G).
        rates: The strata.
    """
    p = 1 / (1 + np.exp(-rates.logit))
    freedom = np.where(rates.labelled > 0, rates.freedom, 0.0)
    variance = np.nan_to_num(rate(weight * p * (1 - p), freedom))
    alike = rate(variance.sum(axis=1) ** 2, np.nan_to_num(rate(variance**2, freedom)).sum(axis=1))
    few, all_labels = (
        special.stdtrit(np.maximum(np.nan_to_num(x, nan=1.0), 1.0), _TAIL)
        for x in (alike, freedom.sum(axis=1))
    )
    return np.asarray(np.maximum(few / all_labels, 1.0))


def correlate(strata: Strata, one: Asked, other: Asked) -> Floats:
    """Correlation of the errors of two ratios, (C,), by the delta method.

    A rate that is higher than it was found among decided positives makes both recall and
    specificity higher, so that they err together. A stratum without a label counts as 0 to 1.

    Args:
        strata: Of C cells.
        one: A ratio.
        other: The other one.

    Returns:
        -1 to 1; 0 where a ratio has no value or no error.
    """
    rates = _rates(strata)
    p = 1 / (1 + np.exp(-rates.logit))
    unknown = (np.maximum(p, 1 - p) / Z95) ** 2
    variance = np.where(rates.labelled > 0, p * (1 - p) / rates.freedom, unknown)
    share = rate(strata.rows, strata.rows.sum(axis=1, keepdims=True))
    parts = []
    for asked in (one, other):
        a, b = _mean(strata, rates, asked.above), _mean(strata, rates, asked.below)
        r = np.nan_to_num(rate(a.value, b.value))
        by_bin = a.by_bin - r[:, None] * b.by_bin
        by_bin = by_bin - (share * by_bin).sum(axis=1, keepdims=True)
        learnt = [x - r * y for x, y in zip(a.learnt, b.learnt, strict=True)]
        parts.append((a.slope - r[:, None] * b.slope, by_bin, learnt))

    def covariance(i: int, j: int) -> Floats:
        (first, by_bin, (x, y)), (second, by_other, (u, v)) = parts[i], parts[j]
        found = (first * second * variance).sum(axis=1)
        found = found + rate((share * by_bin * by_other).sum(axis=1), strata.rows.sum(axis=1))
        doubt = np.stack([x * u, x * v + y * u, y * v], axis=1) * strata.doubt
        return np.asarray(found + doubt.sum(axis=1))

    together = rate(covariance(0, 1), np.sqrt(covariance(0, 0) * covariance(1, 1)))
    return np.clip(np.nan_to_num(together), -1, 1)


def _with_gaps(
    rates: _Rates, a: _Mean, b: _Mean, value: Floats, lower: Floats, upper: Floats
) -> tuple[Floats, Floats]:
    """Widen the ends by strata without a label, whose rates may be 0 to 1 (square-and-add)."""
    is_gap = (rates.labelled == 0) & (rates.rows > 0)
    if not is_gap.any():
        return lower, upper
    p = rates.rate

    most = np.where(is_gap, np.abs(a.slope) + np.abs(value)[:, None] * np.abs(b.slope), 0.0)
    scale = np.where(b.value > 0, b.value, np.inf)

    def end(side: int, known: Floats) -> Floats:
        mine = b.value * (known - value)
        near, far = known, known + side * 2 * most.sum(axis=1) / scale
        for _ in range(_STEPS):
            r = (near + far) / 2
            slope = np.where(is_gap, a.slope - r[:, None] * b.slope, 0.0)
            reach = np.where(side * slope > 0, 1 - p, p)
            half = np.sqrt(mine**2 + ((slope * reach) ** 2).sum(axis=1))
            is_out = np.abs(a.value - r * b.value) > half
            near, far = np.where(is_out, near, r), np.where(is_out, r, far)
        return np.asarray(far)

    return end(-1, lower), end(1, upper)


def _moment(strata: Strata, one: _Mean, other: _Mean) -> Floats:
    """Return the covariance, among all rows, of what the score lets expect of two means."""
    total = strata.rows.sum(axis=1)
    both, first, second = (
        rate((strata.rows * by_bin).sum(axis=1), total)
        for by_bin in (one.by_bin * other.by_bin, one.by_bin, other.by_bin)
    )
    return np.asarray(both - first * second)
