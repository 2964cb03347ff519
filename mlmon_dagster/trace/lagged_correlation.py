"""Did a metric of the model and one of the business move together, at once or some windows later?

Levels of two series that trend are nearly always correlated (Yule, 1926; Granger and Newbold,
1974). So changes from window to window are compared, less what is usual of their place in the
week, and chance is what all circular shifts of one series against the other give: shifts keep how
each depends on its own past, and the largest of all lags is compared with the largest of all lags,
which pays for having looked at several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import Floats

FEWEST = 40  # windows with both
MOST_LAG = 7
_WEEK = 7


@dataclass(frozen=True)
class Together:
    """How two series moved.

    Attributes:
        lag: Windows by which the second came after the first, where they agree most.
        correlation: Of their changes there.
        p_value: Chance of one as large at any lag, had they nothing to do with each other.
        n: Windows. most: The largest lag looked at.
    """

    lag: int
    correlation: float
    p_value: float
    n: int
    most: int = MOST_LAG


def correlate_changes(first: ArrayLike, second: ArrayLike, place: int = _WEEK) -> Together | None:
    """Compare the changes of two series of the same windows, oldest first.

    Args:
        first: One value a window, NaN where there is none.
        second: As ``first``; looked at in the same window and up to `MOST_LAG` later ones.
        place: Windows after which the week begins anew.

    Returns:
        None with fewer than `FEWEST` windows, or where one of them never changes.
    """
    one, other = (_changes(np.asarray(values, np.float64), place) for values in (first, second))
    n = int((np.isfinite(one) & np.isfinite(other)).sum())
    if n < FEWEST or not (_spread(one) and _spread(other)):
        return None
    shifts = [0, *range(MOST_LAG + 1, len(one) - MOST_LAG)]
    shifted = np.stack([np.roll(other, shift) for shift in shifts])
    found = np.stack([_correlations(one, shifted, lag) for lag in range(MOST_LAG + 1)])
    best = int(np.argmax(np.abs(found[:, 0])))
    largest = np.abs(found).max(axis=0)
    larger = int((largest[1:] >= largest[0]).sum())
    return Together(best, float(found[best, 0]), (1 + larger) / len(shifts), n)


def _changes(values: Floats, place: int) -> Floats:
    changes = np.diff(values)
    for start in range(min(place, len(changes))):
        mine = changes[start::place]
        if np.isfinite(mine).sum() > 1:
            changes[start::place] = mine - np.nanmean(mine)
    return changes


def _spread(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(known.std() > 0)


def _correlations(one: Floats, others: Floats, lag: int) -> Floats:
    """Correlate a series with each of others, (S, W), a lag later; 0 of what does not vary."""
    a, b = one[None, : len(one) - lag], others[:, lag:]
    known = np.isfinite(a) & np.isfinite(b)
    n = np.maximum(known.sum(axis=1, keepdims=True), 1)
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
    a = np.where(known, a - a.sum(axis=1, keepdims=True) / n, 0.0)
    b = np.where(known, b - b.sum(axis=1, keepdims=True) / n, 0.0)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found: Floats = np.divide((a * b).sum(axis=1), size, out=np.zeros(len(others)), where=size > 0)
    return found
