"""Weights that make the baseline's rows look like a window's: covariate shift from bins alone.

The ratio of the two densities is taken as a product of one factor per group of every column that
has really changed, found by raking (iterative proportional fitting). So the window's side needs
its stored bins and no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.calibration_curve import MIN_BLOCKS, Curves, isotonic_curve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SWEEPS = 6
MIN_GROUP = 20  # rows of the baseline, below which a group has no weight of its own
MOST_UNCOVERED = 0.05  # share of the window where the baseline has next to no rows
MIN_SHARE = 0.1  # effective rows of the baseline, as a share
MIN_EFFECTIVE = 500
_SIGNIFICANT = 0.001
_LARGEST = 50.0  # no row counts for more than so many


class Margin(NamedTuple):
    """One column, in groups of bins.

    Attributes:
        groups: Group of every baseline row, (n,).
        counts: Rows of the window per group, (K,); those in no group of the baseline's left out.
        uncovered: Share of the window's rows in groups where the baseline has next to none.
    """

    groups: Ints
    counts: Floats
    uncovered: float


class Weights(NamedTuple):
    """Weight per baseline row with mean 1, and why they cannot be used, if so.

    Attributes:
        values: (n,).
        effective: (sum w)^2 / sum w^2 rows, as good as so many unweighted ones.
        reason: ``no_shift``, ``outside_baseline`` (the window has rows where the baseline has
            none), ``few_effective_rows``; empty if the weights are fit for use.
    """

    values: Floats
    effective: float
    reason: str


def rake(margins: Sequence[Margin], size: int) -> Weights:
    """Weigh the baseline's rows so that its columns have the window's shares.

    Columns whose change is chance are left alone, and of the others as much of the change is
    taken as is more than chance (James and Stein's factor), so that a small window does not add
    noise.

    Args:
        margins: The columns.
        size: Rows of the baseline.
    """
    flat = np.ones(size)
    moved = []
    for margin in margins:
        base = np.bincount(margin.groups, minlength=len(margin.counts)).astype(np.float64)
        share = _moved(base, margin.counts)
        if share > 0:
            moved.append((margin, _target(base, margin.counts, share)))
    if not moved:
        return Weights(flat, float(size), "no_shift")
    if max(margin.uncovered for margin, _ in moved) > MOST_UNCOVERED:
        return Weights(flat, float(size), "outside_baseline")
    least = max(MIN_EFFECTIVE, MIN_SHARE * size)
    weights = flat
    for _ in range(SWEEPS):
        for margin, target in moved:
            held = np.bincount(margin.groups, weights, minlength=len(target))
            factor = np.divide(target * size, held, out=np.ones_like(held), where=held > 0)
            weights = weights * factor[margin.groups]
        weights = np.minimum(weights / weights.mean(), _LARGEST)
        effective = float(weights.sum() ** 2 / (weights**2).sum())
        if effective < least / 2:
            break  # it only falls from here on
    if effective < least:
        return Weights(flat, effective, "few_effective_rows")
    return Weights(weights, effective, "")


def _moved(base: Floats, window: Floats) -> float:
    """Return how much of a column's change is more than chance, 0 if it may be nothing but that."""
    used = (base >= 1) & (base + window > 0)
    b, w = base[used], window[used]
    degrees = len(b) - 1
    if degrees < 1 or w.sum() < 1:
        return 0.0
    total_b, total_w = b.sum(), w.sum()
    # Chi-square of two samples.
    ratio = np.sqrt(total_w / total_b)
    chi2 = float(((w / ratio - b * ratio) ** 2 / (b + w)).sum())
    if special.chdtrc(degrees, chi2) > _SIGNIFICANT:
        return 0.0
    return max(0.0, 1 - degrees / chi2)


def _target(base: Floats, window: Floats, share: float) -> Floats:
    before = base / base.sum()
    after = np.where(base > 0, window, 0)
    after = after / after.sum() if after.sum() > 0 else before
    return np.asarray(before + share * (after - before))


def weighted_curves(
    bins: Ints, is_positive: NDArray[np.bool_], blocks: Ints, weights: Floats, size: int
) -> Curves:
    """Return P(positive) per bin of weighted rows, with a jackknife over ten blocks of windows.

    Args:
        bins: Score bin of every row, (n,).
        is_positive: Its actual.
        blocks: Block of its window, 0 to 9.
        weights: Its weight.
        size: Number of bins.
    """
    flat = (blocks * 2 + is_positive) * size + bins
    counts = np.bincount(flat, weights, minlength=MIN_BLOCKS * 2 * size)
    by_block = counts.reshape(MIN_BLOCKS, 2, size)
    total = by_block.sum(axis=0)
    rest = total - by_block
    replicates = np.array([isotonic_curve(pos, neg) for neg, pos in rest])
    return Curves(isotonic_curve(total[1], total[0]), replicates, (MIN_BLOCKS - 1) / MIN_BLOCKS)
