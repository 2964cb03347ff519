"""Average precision from tied score bins, with an interval from its influence function."""

from __future__ import annotations

import numpy as np
from scipy import special

from mlmon_dagster.metrics.roc import Floats, Ints, RocAuc, by_chunks

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
