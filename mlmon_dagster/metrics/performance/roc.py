"""ROC curves: their area with DeLong's variance, their points, and labelled scores in order.

Scores are so finely told apart that areas are those of the rows. A score's *node* is a place in a
binary tree over the logit scale: at depth d it is 2**d + its place among 2**d equal steps, so that
halving a node gives the one above it. How deep a cell's nodes are depends on its labelled rows
alone: two scores share a node rarely where rows are few, and where rows are many a pair of them
weighs little. Adding cells up moves their nodes to the depth of the sum, so profiles of parts, in
any order, add up to the profile of the whole.

A code is ``2 * node``, plus 1 where the actual is positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.intervals import rate, wilson

Weighed = Ints | Floats  # rows, or how many they stand for
MIN_RARER = 10
_FLOOR = 0.3  # share of Hanley and McNeil's variance that is the least
_CHUNK = 128  # cells whose arrays stay in the processor's cache
SCORE_ORDER = ":score_order"
DEEPEST, SHALLOWEST = 22, 16
_FEW = 8_192  # labelled rows up to which nodes are as deep as they get


class RocAuc(NamedTuple):
    """Area, 95 % interval and the largest error that the bins can cause, each (C,).

    NaN unless both classes are present. `lower` and `upper` include `bound`.
    """

    value: Floats
    lower: Floats
    upper: Floats
    bound: Floats


def roc_auc(negatives: Weighed, positives: Weighed) -> RocAuc:
    """Chance that a random positive scores above a random negative, ties counting half.

    The interval is that of DeLong, DeLong and Clarke-Pearson (1988) on a logit scale, with
    Student's t at the degrees of freedom of the rarer class. The variance is at least 30 % of
    Hanley and McNeil's: for areas near 1 and few rows DeLong's is too small, and 0 for a perfect
    ranking. Simulated coverage is .94 to .97 with 20 or more of the rarer class and areas up to .9,
    and .93 to .99 elsewhere. Scores inside one bin are taken as tied; the true area is within
    `bound` = half the share of pairs that meet in a bin.

    Args:
        negatives: Rows with actual 0 per score bin, ascending scores, shape (C, S).
        positives: Rows with actual 1, shape (C, S).

    Example:
        >>> round(float(roc_auc(np.array([[2, 1, 0]]), np.array([[0, 1, 2]])).value[0]), 4)
        0.9444
    """
    return by_chunks(_chunk, _interval, negatives, positives)


def by_chunks(
    chunk: Callable[[Weighed, Weighed], tuple[Floats, ...]],
    finish: Callable[..., RocAuc],
    negatives: Weighed,
    positives: Weighed,
) -> RocAuc:
    """Measure the curves of many cells, a few at a time, so that no large matrix is made.

    Args:
        chunk: Measures some cells.
        finish: Makes the result of the measurements of all.
        negatives: Rows with actual 0 per score bin, shape (C, S).
        positives: Rows with actual 1, shape (C, S).
    """
    parts = [
        chunk(negatives[i : i + _CHUNK], positives[i : i + _CHUNK])
        for i in range(0, len(negatives), _CHUNK)
    ]
    if not parts:
        empty = np.empty(0)
        return RocAuc(empty, empty, empty, empty)
    return finish(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chunk(negatives: Weighed, positives: Weighed) -> tuple[Floats, ...]:
    """Return area, DeLong variance, binning bound and the class sizes of some cells."""
    neg, pos = negatives.astype(np.float64), positives.astype(np.float64)
    n, p = neg.sum(axis=1), pos.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (np.cumsum(neg, axis=1) - neg / 2) / n[:, None]
        above = 1 - (np.cumsum(pos, axis=1) - pos / 2) / p[:, None]
        area = np.einsum("cs,cs->c", pos, below) / p
        by_pos = np.einsum("cs,cs,cs->c", pos, below, below) - p * area**2
        by_neg = np.einsum("cs,cs,cs->c", neg, above, above) - n * area**2
        variance = np.maximum(by_pos, 0) / (p - 1) / p + np.maximum(by_neg, 0) / (n - 1) / n
        bound = 0.5 * np.einsum("cs,cs->c", pos, neg) / (p * n)
    return area, variance, bound, n, p


def _interval(area: Floats, variance: Floats, bound: Floats, n: Floats, p: Floats) -> RocAuc:
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = (area * n * p + 0.5) / (n * p + 1)
        spread = np.sqrt(np.maximum(variance, _FLOOR * _hanley_mcneil(shrunk, n, p)))
    return logit_interval(area, shrunk, spread, np.minimum(n, p), bound)


def logit_interval(
    area: Floats, shrunk: Floats, spread: Floats, rows: Floats, bound: Floats
) -> RocAuc:
    """Return an area with Student's interval on a logit scale.

    Args:
        area: Of C cells.
        shrunk: The area a little nearer to a half, so that its logit is a number.
        spread: Standard error.
        rows: The error's degrees of freedom and one.
        bound: The largest error that bins can cause, by which the interval is longer.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        t = special.stdtrit(np.maximum(rows - 1, 1), 0.975)
        centre, half = special.logit(shrunk), t * spread / (shrunk * (1 - shrunk))
    lower = np.minimum(np.maximum(special.expit(centre - half) - bound, 0), area)
    upper = np.maximum(np.minimum(special.expit(centre + half) + bound, 1), area)
    return RocAuc(area, lower, upper, bound)


def count_from_top(counts: Floats) -> Floats:
    """Return the rows in each bin and all above it, (C, S)."""
    found: Floats = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return found


def _hanley_mcneil(area: Floats, n: Floats, p: Floats) -> Floats:
    """Variance of the area if both classes' scores were exponential (Hanley and McNeil, 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance: Floats = (area * (1 - area) + (p - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (
        n * p
    )
    return np.maximum(variance, 0)


class ScoreOrder(NamedTuple):
    """Labelled rows of one cell by code; both of shape (K,), codes ascending, no zeros."""

    codes: Ints
    rows: Ints


NO_SCORES = ScoreOrder(np.empty(0, np.int64), np.empty(0, np.int64))


def depth_of(labelled: int) -> int:
    """Return the depth of the nodes of a cell; every doubling of its rows takes one off.

    Example:
        >>> [depth_of(n) for n in (0, 8_192, 8_193, 100_000, 10_000_000)]
        [22, 22, 21, 18, 16]
    """
    doublings = (max(labelled - 1, 0) // _FEW).bit_length()
    return max(DEEPEST - doublings, SHALLOWEST)


def add_up(parts: Sequence[ScoreOrder]) -> ScoreOrder:
    """Add cells up, at the depth of the sum; one cell alone is moved to its depth.

    Example:
        >>> both = add_up([ScoreOrder(np.array([2 * 2**22]), np.array([5_000]))] * 2)
        >>> both.codes.tolist() == [2 * 2**21], both.rows.tolist()
        (True, [10000])
    """
    filled = [part for part in parts if len(part.codes)]
    if not filled:
        return NO_SCORES
    rows = np.concatenate([part.rows for part in filled])
    depth = depth_of(int(rows.sum()))
    codes = np.concatenate([_lifted(part.codes, depth) for part in filled])
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return ScoreOrder(codes[starts], np.add.reduceat(rows[order], starts))


def _lifted(codes: Ints, depth: int) -> Ints:
    above = int(codes[0] >> 1).bit_length() - 1 - depth
    return (codes >> (above + 1)) << 1 | (codes & 1) if above > 0 else codes


def by_node(order: ScoreOrder) -> tuple[Ints, Ints]:
    """Return negatives and positives per node that has rows, ascending scores, each (K,)."""
    is_new = np.diff(order.codes >> 1, prepend=-1) != 0
    counts = np.zeros((2, int(is_new.sum())), np.int64)
    counts[order.codes & 1, np.cumsum(is_new) - 1] = order.rows
    return counts[0], counts[1]


class OperatingPoints(NamedTuple):
    """What decisions at T thresholds would be, the highest threshold first, each (T,).

    Attributes:
        flagged: Share of the rows that score as high; the first is 0, the last 1.
        recall: Of the positives, the share that does; also called true positive rate.
        false_alarms: Of the negatives, the share that does; false positive rate.
        precision: Of the rows that score as high, the share that is positive; NaN at the first.
    """

    flagged: Floats
    recall: Floats
    false_alarms: Floats
    precision: Floats


def operating_points(negatives: Ints, positives: Ints) -> OperatingPoints:
    """Return what deciding for the highest scores would give, a bin of scores more at a time.

    ``false_alarms`` against ``recall`` is the ROC curve, whose area between straight lines is that
    of `roc_auc`; ``recall`` against ``precision`` the precision-recall curve (Fawcett, 2006).
    Scores inside one bin are taken as tied.

    Args:
        negatives: Rows with actual 0 per score bin, ascending scores, shape (S,).
        positives: Rows with actual 1, shape (S,).

    Returns:
        S + 1 points; rates of a class that has no rows are NaN.

    Example:
        >>> found = operating_points(np.array([3, 1]), np.array([1, 3]))
        >>> found.recall.tolist(), found.false_alarms.tolist(), found.precision.tolist()
        ([0.0, 0.75, 1.0], [0.0, 0.25, 1.0], [nan, 0.75, 0.5])
    """
    false, true = (np.append(0, np.cumsum(side[::-1])) for side in (negatives, positives))
    return OperatingPoints(
        rate(false + true, false[-1] + true[-1]),
        rate(true, true[-1]),
        rate(false, false[-1]),
        rate(true, false + true),
    )


def thinned(points: OperatingPoints, most: int) -> Ints:
    """Choose points that draw the same curves: about equal steps along the ROC curve, and the ends.

    Args:
        points: Of one classifier, both classes present.
        most: How many at most, 2 or more.

    Returns:
        Their places, ascending.
    """
    along = points.recall + points.false_alarms
    wanted = np.linspace(0, 2, most)
    return np.unique(np.searchsorted(along, wanted - 1e-12).clip(0, len(along) - 1))


class ClassQuality(NamedTuple):
    """How right decisions were, class by class, each (K,) or with its ends (K, 2).

    Attributes:
        actual: Rows that are of the class, its support.
        predicted: Rows that were decided for it.
        precision: Of those decided for it, the share that is of it; NaN where there are none.
        recall: Of those that are of it, the share decided for it; NaN where there are none.
        f1: The harmonic mean of both; NaN where the class is neither predicted nor actual.
        precision_ends: Wilson's 95 % interval.
        recall_ends: As well.
    """

    actual: Ints
    predicted: Ints
    precision: Floats
    recall: Floats
    f1: Floats
    precision_ends: Floats
    recall_ends: Floats


def class_quality(table: Ints) -> ClassQuality:
    """Return the quality of each class of a table of decisions.

    Args:
        table: Predicted x actual, (K, K).

    Example:
        >>> found = class_quality(np.array([[8, 2], [0, 0]]))
        >>> found.precision.tolist(), found.recall.tolist(), found.actual.tolist()
        ([0.8, nan], [1.0, 0.0], [8, 2])
    """
    right, predicted, actual = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    return ClassQuality(
        actual,
        predicted,
        rate(right, predicted),
        rate(right, actual),
        rate(2 * right, predicted + actual),
        np.column_stack(wilson(right, predicted)),
        np.column_stack(wilson(right, actual)),
    )
