"""What the codes of a binning stand for: edges, representative values and regrouped counts.

Layout of the codes ``0 .. size-1``, per kind:

========== ==================================================================================
numeric    ``coarse * fine + sub``; both exact: the first code whose upper edge is >= the value
categorical own code per category, then ``other``, then ``unseen``
score      ``logit_bin * 3 + state``, state 0 unlabelled, 1 negative, 2 positive
confusion  ``predicted * 3 + state``
classes    ``predicted * (K + 3) + state`` of K classes; predicted K is no class; state 0
           unlabelled, i + 1 actual class i, K + 1 no class but equal to the prediction, K + 2 no
           class and another than predicted
loss       0: one bin
latency    equal steps of ln(ms) between ``low`` and ``high``, clipped to the outer bins
status     0 ok, 1 error
========== ==================================================================================

Steps of one factor g, as in DDSketch (Masson, Rim and Lee, 2019), keep every latency within
sqrt(g) - 1 of the geometric middle of its bin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.statistics import Binning

LABEL_STATES = 3  # unlabelled, negative, positive
_LARGEST = 8e307  # less than half of the largest number

Counts = NDArray[np.int64]


def upper_edges(binning: Binning) -> Floats:
    """Return the upper edge of every numeric code, ascending, the last one infinite.

    A value has the code ``searchsorted(upper_edges(binning), value, side="left")``. A coarse bin
    that is one value wide has all its sub-bins' edges equal; the first of them gets the rows.

    Returns:
        Shape (size,), in the units of the column.
    """
    ends = np.array([binning.low, *binning.edges, max(binning.high, *binning.edges, binning.low)])
    share = np.arange(1, binning.fine + 1) / binning.fine
    left, right = ends[:-1, None], ends[1:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        inner: Floats = left * (1 - share) + right * share
    # Rounding must not carry an edge past the coarse bin: the coarse edges are exact.
    inner = np.clip(inner, np.minimum(left, right), right)
    inner[:, -1] = ends[1:]
    edges: Floats = np.maximum.accumulate(inner.ravel())
    edges[-1] = np.inf
    return edges


def representatives(binning: Binning) -> Floats:
    """Return one typical value per numeric code: the value itself or the middle of the bin.

    Returns:
        Shape (size,), ascending, finite: the open outer bins end at the baseline's range. A
        column without baseline values has the single representative 0. At most 8e307 in magnitude,
        so that the difference of two is a number.
    """
    if binning.values:
        return np.clip(binning.values, -_LARGEST, _LARGEST)
    upper = upper_edges(binning)
    upper[-1] = max(binning.high, binning.low, *upper[:-1])
    lower = np.minimum(np.concatenate([[binning.low], upper[:-1]]), upper)
    middle: Floats = np.clip(lower / 2 + upper / 2, -_LARGEST, _LARGEST)
    return middle


def coarse_counts(binning: Binning, counts: Counts) -> Counts:
    """Add up the sub-bins: counts of the exact quantile bins.

    Args:
        binning: A numeric binning.
        counts: Shape (C, size).

    Returns:
        Shape (C, size // fine); row sums are unchanged.
    """
    bins = counts.shape[1] // binning.fine
    sums: Counts = counts.reshape(len(counts), bins, binning.fine).sum(axis=2, dtype=np.int64)
    return sums


def label_counts(counts: Counts) -> Counts:
    """Split score or confusion counts by label state.

    Args:
        counts: Shape (C, size) of a ``score`` or ``confusion`` binning.

    Returns:
        Shape (C, bins, 3): the last axis is unlabelled, negative, positive; bins are ascending
        scores, or predicted 0 and 1.
    """
    return counts.reshape(len(counts), counts.shape[1] // LABEL_STATES, LABEL_STATES)


def class_counts(binning: Binning, counts: Counts) -> tuple[Counts, Counts]:
    """Split class counts into a confusion matrix and the rows without an actual.

    Returns:
        Shapes (C, K + 2, K + 2), predicted x actual, and (C, K + 1), predicted. The last but one
        class is what is no class of the model; where prediction and actual are two such names that
        differ, the actual is in the very last one, so that the diagonal holds the right decisions.
        No prediction is in the last class.
    """
    k = len(binning.categories)
    split = counts.reshape(len(counts), k + 1, k + 3)
    matrix = np.zeros((len(counts), k + 2, k + 2), np.int64)
    matrix[:, : k + 1] = split[:, :, 1:]
    return matrix, split[:, :, 0]


def score_midpoints(binning: Binning) -> Floats:
    """Return a typical score per bin (middle in logit space), shape (bins,), within (0, 1)."""
    return _scores(binning, 0.5)


def lowest_scores(binning: Binning) -> Floats:
    """Return the lowest score of each bin, shape (bins,); that of the first is 0."""
    found = _scores(binning, 0.0)
    found[0] = 0.0
    return found


def _scores(binning: Binning, way: float) -> Floats:
    """Return the score at a part of the way through each bin, in logit space."""
    bins = binning.size // LABEL_STATES
    step = (binning.high - binning.low) / bins
    logit = binning.low + step * (np.arange(bins) + way)
    return np.asarray(1 / (1 + np.exp(-logit)))


def latency_representatives(binning: Binning) -> Floats:
    """Return a latency per bin in ms that is within 1 % of every value in it.

    Returns:
        Shape (size,), the geometric middles. The outer bins also hold what is below ``low`` and
        above ``high``; a cell's own minimum and maximum say more about those.
    """
    middle = (np.arange(binning.size) + 0.5) * latency_step(binning)
    return np.asarray(binning.low * np.exp(middle))


def latency_step(binning: Binning) -> float:
    """Return the width of a latency bin on the scale of natural logarithms."""
    return float(np.log(binning.high / binning.low) / binning.size)
