"""How far the scores of a binary model set the classes apart: KS separation and lift."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.intervals import rate, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
