"""P(positive | score) learnt from labelled score bins, and how unsure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from mlmon_dagster.metrics.arrays import Floats

MIN_BLOCKS = 10
_REDRAWN = 40


def isotonic_curve(positives: Floats, negatives: Floats) -> Floats:
    """Share of positives per score bin, never falling with the score (pool adjacent violators).

    Args:
        positives: Rows with actual 1 per bin, ascending scores, shape (S,); may be weighted.
        negatives: Rows with actual 0.

    Returns:
        Shape (S,), inside (0, 1): a pooled share of 0 or 1 is moved in by half a row of the whole.
        Bins without rows lie on the line between their neighbours. NaN without any rows.

    Example:
        >>> isotonic_curve(np.array([1.0, 0.0, 9.0]), np.array([9.0, 10.0, 1.0])).round(3).tolist()
        [0.05, 0.05, 0.9]
    """
    rows = positives + negatives
    filled = np.flatnonzero(rows > 0)
    if not len(filled):
        return np.full(len(rows), np.nan)
    fitted = optimize.isotonic_regression(positives[filled] / rows[filled], weights=rows[filled]).x
    least = 0.5 / (rows.sum() + 1)
    curve = np.interp(np.arange(len(rows)), filled, fitted)
    return np.asarray(np.clip(curve, least, 1 - least), np.float64)


class Curves(NamedTuple):
    """A curve and replicates of it.

    Attributes:
        curve: P(positive) per bin, (S,).
        replicates: The same from other samples of the baseline, (R, S).
        scale: The variance of anything computed from the curve is ``scale`` times the sum of the
            squared deviations of its replicates from their mean.
    """

    curve: Floats
    replicates: Floats
    scale: float

    def variance(self, replicated: Floats) -> Floats:
        """Return the variance of what was computed once per replicate, (R, C) -> (C,)."""
        away = replicated - replicated.mean(axis=0)
        return np.asarray(self.scale * (away**2).sum(axis=0))


def per_cell(curves: Sequence[Curves]) -> Curves:
    """Put the curves of C cells side by side: curve (C, S), replicates (R, C, S).

    Args:
        curves: At least one, all with as many replicates.
    """
    replicates = np.stack([one.replicates for one in curves], axis=1)
    return Curves(np.array([one.curve for one in curves]), replicates, curves[0].scale)


def learn_curves(positives: Floats, negatives: Floats, seed: int) -> Curves:
    """Learn the curve from the windows of a baseline.

    With ten windows or more the replicates leave out every tenth window in turn (a jackknife over
    blocks), so that rows which are alike within a window count for what they are worth. With
    fewer, rows are drawn again, as if they were independent.

    Args:
        positives: Rows with actual 1 per window and bin, (W, S).
        negatives: Rows with actual 0.
        seed: Of the drawing.
    """
    all_pos, all_neg = positives.sum(axis=0), negatives.sum(axis=0)
    curve = isotonic_curve(all_pos, all_neg)
    filled = np.flatnonzero((positives + negatives).sum(axis=1) > 0)
    if len(filled) >= MIN_BLOCKS:
        parts = [filled[block::MIN_BLOCKS] for block in range(MIN_BLOCKS)]
        replicates = [
            isotonic_curve(all_pos - positives[part].sum(axis=0),
                           all_neg - negatives[part].sum(axis=0))
            for part in parts
        ]  # fmt: skip
        return Curves(curve, np.array(replicates), (MIN_BLOCKS - 1) / MIN_BLOCKS)
    total = int(all_pos.sum() + all_neg.sum())
    if total == 0:
        return Curves(curve, curve[None], 1.0)
    shares = np.concatenate([all_pos, all_neg])
    drawn = np.random.default_rng(seed).multinomial(total, shares / shares.sum(), size=_REDRAWN)
    size = len(curve)
    redrawn = [isotonic_curve(row[:size] * 1.0, row[size:] * 1.0) for row in drawn]
    return Curves(curve, np.array(redrawn), 1 / (_REDRAWN - 1))


def t_of(curves: Curves) -> float:
    """Return Student's 97.5 % quantile at the replicates' degrees of freedom."""
    return float(special.stdtrit(max(len(curves.replicates) - 1, 1), 0.975))
