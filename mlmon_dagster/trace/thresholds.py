"""What another threshold would have done, from the counts of score bins alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.trace.splits import Rates, rates_of

FEWEST_WINDOWS = 4  # of which half choose a threshold and half measure it


@dataclass(frozen=True)
class Threshold:
    """Another threshold for the decisions of a binary model.

    Attributes:
        now: Lowest score that was decided positive.
        better: The threshold that would have been better.
        value: The metric as it was, at `now`.
        would_be: The metric at the other threshold, in windows that did not choose it.
        gain: How much more that is than the same windows have at `now`.
    """

    now: float
    better: float
    value: float
    would_be: float
    gain: float


def better_threshold(
    metric: Rates, counts: ArrayLike, scores: ArrayLike, now: float
) -> Threshold | None:
    """Find the threshold that would have served some windows best, and say what it is worth.

    It is chosen on every other window and measured on the others, and the other way round, so that
    the gain is not that of hindsight.

    Args:
        metric: Of base rate, recall and false alarms; higher is better.
        counts: Negatives and positives per window and ascending score bin, (W, 2, B).
        scores: Lowest score of each bin, (B,).
        now: The threshold in use: scores from it on are decided positive.

    Returns:
        The mean of both directions; None with fewer than `FEWEST_WINDOWS`, or where the metric is
        not defined.
    """
    every, low = np.asarray(counts, np.float64), np.asarray(scores, np.float64)
    if len(every) < FEWEST_WINDOWS:
        return None
    place = int(np.searchsorted(low, now, side="left"))
    sides = every[::2].sum(axis=0), every[1::2].sum(axis=0)
    chosen, gains, values = [], [], []
    for choosing, measuring in (sides, sides[::-1]):
        best = _best(metric(rates_of(_tables(choosing))))
        if best is None:
            return None
        there = metric(rates_of(_tables(measuring)))
        at = min(place, len(there) - 1)
        chosen.append(best)
        values.append(there[best])
        gains.append(there[best] - there[at])
    whole = metric(rates_of(_tables(every.sum(axis=0))))
    together = _best(whole)
    found = Threshold(
        now,
        float(np.append(low, 1.0)[together if together is not None else chosen[0]]),
        float(whole[min(place, len(whole) - 1)]),
        float(np.mean(values)),
        float(np.mean(gains)),
    )
    return found if np.isfinite([found.value, found.would_be, found.gain]).all() else None


def _best(values: Floats) -> int | None:
    known = np.flatnonzero(np.isfinite(values))
    return int(known[np.argmax(values[known])]) if len(known) else None


def _tables(counts: Floats) -> Floats:
    """Return predicted x actual at each threshold, the bins from it on decided positive.

    Args:
        counts: (2, B).

    Returns:
        (B + 1, 2, 2); at the last one nothing is decided positive.
    """
    above = np.concatenate([counts[:, ::-1].cumsum(axis=1)[:, ::-1], np.zeros((2, 1))], axis=1)
    below = counts.sum(axis=1, keepdims=True) - above
    return np.moveaxis(np.stack([below, above]), -1, 0)
