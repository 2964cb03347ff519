"""Average precision from tied score bins, with an interval from its influence function."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.performance.roc import RocAuc, by_chunks

_FLOOR = 0.3  # share of the binomial variance that is the least


def average_precision(negatives: Ints, positives: Ints) -> RocAuc:
    """Sum of (R_i - R_i-1) * P_i over the thresholds from the highest score down, as scikit-learn.

    Rows of one bin share a threshold. `bound`: the largest distance from the value that any order
    of the rows inside the bins would give. The interval is Student's at the positives' degrees of
    freedom, on a logit scale, with the variance of the influence function, times p / (p - 2) of p
    positives for what their own choice hides; at least 30 % of the binomial one, as for a perfect
    ranking the former is 0.

    Args:
        negatives: Rows with actual 0 per score bin, ascending scores, shape (C, S).
        positives: Rows with actual 1, shape (C, S).

    Returns:
        Area, ends of the 95 % interval and bound, each (C,); NaN without positives.

    Example:
        >>> found = average_precision(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
        >>> round(float(found.value[0]), 4)  # 1/2 * 1/1 + 1/2 * 2/3
        0.8333
    """
    return by_chunks(_chunk, _interval, negatives, positives)


def _interval(area: Floats, variance: Floats, bound: Floats, p: Floats) -> RocAuc:
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = (area * p + 0.5) / (p + 1)
        spread = np.sqrt(np.maximum(variance, _FLOOR * shrunk * (1 - shrunk) / p))
        t = special.stdtrit(np.maximum(p - 1, 1), 0.975)
        centre, half = special.logit(shrunk), t * spread / (shrunk * (1 - shrunk))
    lower = np.minimum(np.maximum(special.expit(centre - half) - bound, 0), area)
    upper = np.maximum(np.minimum(special.expit(centre + half) + bound, 1), area)
    return RocAuc(area, lower, upper, bound)


def _chunk(negatives: Ints, positives: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    neg, pos = negatives.astype(np.float64), positives.astype(np.float64)
    tp, fp = _from_top(pos), _from_top(neg)
    p = pos.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
        area = np.einsum("cs,cs->c", pos, precision) / p
        # How a row changes the precision at every threshold up to its own score.
        share = np.where(tp + fp > 0, pos / (tp + fp), 0)
        right, seen = np.cumsum(share, axis=1), np.cumsum(share * precision, axis=1)
        of_pos = precision - area[:, None] + right - seen
        squares = np.einsum("cs,cs,cs->c", pos, of_pos, of_pos)
        squares += np.einsum("cs,cs,cs->c", neg, seen, seen)
        variance = squares / p / np.maximum(p - 2, 1)
    return area, variance, _bound(neg, pos, tp, fp, p, area), p


def _from_top(counts: Floats) -> Floats:
    found: Floats = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return found


def _bound(neg: Floats, pos: Floats, tp: Floats, fp: Floats, p: Floats, area: Floats) -> Floats:
    """Best and worst order in every bin: positives first, or last, in closed form."""
    before_tp, before_fp = tp - pos, fp - neg
    ends = []
    for false in (before_fp, fp):
        start = before_tp + false
        lost = false * _harmonic(start, pos)
        with np.errstate(invalid="ignore", divide="ignore"):
            ends.append((pos - lost).sum(axis=1) / p)
    found: Floats = np.maximum(np.abs(ends[0] - area), np.abs(ends[1] - area))
    return found


def _harmonic(start: Floats, terms: Floats) -> Floats:
    """Return the sums of 1 / (start + 1), 1 / (start + 2) and so on; one term is the usual case."""
    found: Floats = np.where(terms > 0, 1 / (start + 1), 0.0)
    several = terms > 1
    first, end = start[several] + 1, (start + terms)[several] + 1
    found[several] = special.digamma(end) - special.digamma(first)
    return found


class Separation(NamedTuple):
    """Value, 95 % interval and the most that the bins can hide, each (C,)."""

    value: Floats
    lower: Floats
    upper: Floats
    bound: Floats


def ks_separation(negatives: Ints, positives: Ints) -> Separation:
    """Largest distance of the two classes' distributions of scores, over the bins' edges.

    The true distance is at most `bound` larger: the largest share that one class has in a bin. The
    interval is Newcombe's of the two shares at the threshold found; as that threshold was chosen,
    it is a little high for classes that hardly differ.

    Args:
        negatives: Rows with actual 0 per score bin, ascending, shape (C, S).
        positives: Rows with actual 1, shape (C, S).

    Returns:
        NaN unless both classes are there.
    """
    n, p = negatives.sum(axis=1), positives.sum(axis=1)
    below_n, below_p = np.cumsum(negatives, axis=1), np.cumsum(positives, axis=1)
    apart = np.abs(rate(below_n, n[:, None]) - rate(below_p, p[:, None]))
    cells = np.arange(len(n))
    place = np.argmax(np.nan_to_num(apart), axis=1)
    k_n, k_p = below_n[cells, place], below_p[cells, place]
    value, lower, upper = _difference(rate(k_n, n), wilson(k_n, n), rate(k_p, p), wilson(k_p, p))
    shares = np.maximum(rate(negatives, n[:, None]), rate(positives, p[:, None]))
    bound = np.nan_to_num(shares).max(axis=1, initial=0)
    return Separation(value, lower, np.minimum(upper + bound, 1), bound)


def _difference(
    a: Floats, of_a: tuple[Floats, Floats], b: Floats, of_b: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    down = np.hypot(a - of_a[0], of_b[1] - b)
    up = np.hypot(of_a[1] - a, b - of_b[0])
    change = a - b
    lower, upper = change - down, change + up
    flip = change < 0
    return (
        np.abs(change),
        np.maximum(np.where(flip, -upper, lower), 0),
        np.where(flip, -lower, upper),
    )


def lift(negatives: Ints, positives: Ints, share: float) -> Separation:
    """Share of positives among the rows with the highest scores / share of positives in all.

    The bin in which the cut falls gives the fraction of its rows that is needed, as if its scores
    were tied and drawn from at random. The interval is Wilson's of the positives found.

    Args:
        negatives: Rows with actual 0 per score bin, ascending, shape (C, S).
        positives: Rows with actual 1, shape (C, S).
        share: Share of the rows that counts as the top, 0 to 1.

    Returns:
        1 for scores that say nothing, at most 1 / share; NaN without positives. `bound`: what the
        order of the rows in the cut bin could change.
    """
    rows = (negatives + positives)[:, ::-1].astype(np.float64)
    pos = positives[:, ::-1].astype(np.float64)
    wanted = share * rows.sum(axis=1)
    before = np.cumsum(rows, axis=1) - rows
    taken = np.clip(wanted[:, None] - before, 0, rows)
    found = (pos * rate(taken, rows).clip(0, 1, out=None)).sum(axis=1, where=rows > 0)
    p = pos.sum(axis=1)
    lower, upper = wilson(found, p)
    cut = (taken > 0) & (taken < rows)
    most = np.minimum(pos, taken) - pos * np.nan_to_num(rate(taken, rows))
    least = pos * np.nan_to_num(rate(taken, rows)) - np.maximum(taken - (rows - pos), 0)
    doubt = rate(np.where(cut, np.maximum(most, least), 0).sum(axis=1), p) / share
    top = 1 / share
    value = rate(found, p) * top
    lower = np.maximum(lower * top - doubt, 0)
    return Separation(value, lower, np.minimum(upper * top + doubt, top), doubt)
