"""What the codes of a binning stand for: edges, representative values and regrouped counts.

Layout of the codes ``0 .. size-1``, per kind:

========== ==================================================================================
numeric    ``coarse * fine + sub``; both exact: the first code whose upper edge is >= the value;
           the first and last coarse bin hold what lies outside the baseline's range, if `has_ends`
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

Drift is measured on fewer bins than there are codes (`drift_bins`), merged further for small
windows (`merge_plan`): five expected rows a bin is the rule of Cochran (1954).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics

LABEL_STATES = 3  # unlabelled, negative, positive
_LARGEST = 8e307  # less than half of the largest number


def just_below(value: float) -> float:
    """Return the largest number below a value that every engine reads and compares as such.

    Next to 0 that is no subnormal one, which some engines take for 0.
    """
    below = math.nextafter(value, -math.inf)
    return below if abs(below) >= sys.float_info.min else -sys.float_info.min


def has_ends(binning: Binning) -> bool:
    """Say whether what lies outside the baseline's range has coarse bins of its own."""
    edges = binning.edges
    if binning.kind != "numeric" or len(edges) < 2:
        return False
    return edges[0] < binning.low and edges[-1] >= binning.high


def joined_bins(binning: Binning) -> Ints:
    """Number the coarse bins with those outside the baseline's range joined to the ones inside.

    Rows beyond a long tail are the tail's, as rare as its end. Beside a heap, a value that many
    rows share, they are values that cannot be, and their bin stays alone; so it does where every
    value has a bin.

    Args:
        binning: A numeric binning.

    Returns:
        Bin of each coarse bin, int64, non-decreasing from 0 without gaps.
    """
    edges, bins = binning.edges, binning.size // binning.fine
    if binning.values or not has_ends(binning) or bins < 3:
        return np.arange(bins, dtype=np.int64)
    is_joined = np.zeros(bins, np.bool_)
    is_joined[1] = edges[1] != binning.low
    is_joined[-1] = edges[-2] != just_below(binning.high)
    return np.cumsum(~is_joined).astype(np.int64) - 1


def round_edges(binning: Binning) -> tuple[float, ...]:
    """Return the edges that people would cut numbers at: not at the ends, nor just below a heap."""
    edges = [e for e in binning.edges if binning.low <= e < binning.high]
    below = {just_below(edge) for edge in (*edges, binning.high)}
    return tuple(edge for edge in edges if edge not in below)


def round_bins(binning: Binning) -> Ints:
    """Return which of the bins between the `round_edges` each coarse bin is in."""
    if binning.values:
        return np.arange(binning.size, dtype=np.int64)
    return np.searchsorted(round_edges(binning), [*binning.edges, np.inf]).astype(np.int64)


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
    is_one = left == [[just_below(edge)] for edge in ends[1:].tolist()]
    inner = np.where(is_one, right, np.clip(inner, np.minimum(left, right), right))
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
    is_one = lower == [just_below(edge) for edge in upper.tolist()]
    middle: Floats = np.where(is_one, upper, lower / 2 + upper / 2)
    # Half of the smallest numbers is rounded to 0.
    ascending: Floats = np.maximum.accumulate(np.clip(middle, -_LARGEST, _LARGEST))
    return ascending


def coarse_counts(binning: Binning, counts: Ints) -> Ints:
    """Add up the sub-bins: counts of the exact quantile bins.

    Args:
        binning: A numeric binning.
        counts: Shape (C, size).

    Returns:
        Shape (C, size // fine); row sums are unchanged.
    """
    bins = counts.shape[1] // binning.fine
    sums: Ints = counts.reshape(len(counts), bins, binning.fine).sum(axis=2, dtype=np.int64)
    return sums


def label_counts(counts: Ints) -> Ints:
    """Split score or confusion counts by label state.

    Args:
        counts: Shape (C, size) of a ``score`` or ``confusion`` binning.

    Returns:
        Shape (C, bins, 3): the last axis is unlabelled, negative, positive; bins are ascending
        scores, or predicted 0 and 1.
    """
    return counts.reshape(len(counts), counts.shape[1] // LABEL_STATES, LABEL_STATES)


def class_counts(binning: Binning, counts: Ints) -> tuple[Ints, Ints]:
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


MIN_EXPECTED = 5.0
SCORE_GROUPS = 20


@dataclass(frozen=True)
class DriftBins:
    """Counts of a column in the shape that distances take.

    Attributes:
        counts: int64 (C, B): the coarse bins, then one bin of rows without a value.
        fine: int64 (C, F), rows with a value by ordered fine bin; None if the column has no order.
    """

    counts: Ints
    fine: Ints | None


def drift_bins(stats: ColumnStatistics, groups: Ints | None = None) -> DriftBins:
    """Collapse a column's codes into drift bins.

    Args:
        stats: A numeric, categorical, score or confusion column over C cells.
        groups: For scores: the group of each logit bin (from `score_groups` of the baseline).

    Returns:
        Numeric: quantile bins, see `joined_bins`. Categorical: one bin per baseline category, then
        one of `other` and `unseen`. Score: the groups. Confusion: predicted 0 and 1. Then the bin
        of nulls.

    Raises:
        ValueError: If drift is not defined for the kind of column.
    """
    binning, counts = stats.binning, stats.counts
    missing = (stats.n - counts.sum(axis=1))[:, None]
    fine: Ints | None = None
    if binning.kind == "numeric":
        fine = counts
        coarse = merge_bins(coarse_counts(binning, counts), joined_bins(binning))
    elif binning.kind == "categorical":
        known = len(binning.categories)
        coarse = np.column_stack([counts[:, :known], counts[:, known:].sum(axis=1)])
    elif binning.kind == "score":
        fine = label_counts(counts).sum(axis=2)
        if groups is None:
            groups = score_groups(fine.sum(axis=0))
        coarse = merge_bins(fine, groups)
    elif binning.kind == "confusion":
        coarse = label_counts(counts).sum(axis=2)
    else:
        raise ValueError(f"drift of a column of kind {binning.kind!r} is not defined")
    return DriftBins(np.column_stack([coarse, missing]).astype(np.int64), fine)


def is_ordered(binning: Binning) -> bool:
    """Say whether neighbouring bins may be merged (numbers), or only pooled (categories)."""
    return binning.kind in ("numeric", "score")


def score_groups(counts: Ints, size: int = SCORE_GROUPS) -> Ints:
    """Group ordered fine bins into at most `size` groups of about equal mass.

    Args:
        counts: Rows of the baseline per fine bin, shape (F,).
        size: Wanted number of groups.

    Returns:
        Group of each fine bin, int64 (F,), non-decreasing from 0. All 0 without rows.

    Example:
        >>> score_groups(np.array([1, 1, 1, 1]), size=2).tolist()
        [0, 0, 1, 1]
    """
    total = counts.sum()
    if total == 0:
        return np.zeros(len(counts), dtype=np.int64)
    middle = (np.cumsum(counts) - counts / 2) / total
    wanted = np.minimum((middle * size).astype(np.int64), size - 1)
    return np.unique(wanted, return_inverse=True)[1].astype(np.int64)


def merge_plan(baseline: Ints, n: float, *, ordered: bool) -> Ints:
    """Decide which bins to merge so that a window of n rows expects at least 5 rows in each.

    The last bin (nulls) always stays alone: a null that the baseline never had must be seen. For
    the same reason ordered bins without any baseline row (values beyond its range) are one bin of
    their own; the others join their right neighbour. Of categories the rare ones join the last but
    one bin, the pool of `other` and `unseen`, which is kept however small it is.

    Args:
        baseline: Rows of the baseline per bin, shape (B,), nulls last.
        n: Rows of the window.
        ordered: Whether the bins are intervals of numbers.

    Returns:
        New bin of each old bin, int64 (B,), 0 to B' - 1 without gaps.

    Example:
        >>> merge_plan(np.array([25, 25, 25, 25, 0]), 20, ordered=True).tolist()
        [0, 1, 2, 3, 4]
        >>> merge_plan(np.array([25, 25, 25, 25, 0]), 10, ordered=True).tolist()
        [0, 0, 1, 1, 2]
        >>> merge_plan(np.array([0, 50, 50, 0, 0]), 20, ordered=True).tolist()
        [2, 0, 1, 2, 3]
        >>> merge_plan(np.array([50, 45, 4, 1, 0]), 20, ordered=False).tolist()
        [0, 1, 2, 2, 3]
    """
    expected = np.asarray(baseline[:-1] * (n / max(int(baseline.sum()), 1)), dtype=np.float64)
    labels = _merge_neighbours(expected) if ordered else _pool_rare(expected)
    return np.append(labels, labels.max() + 1)


def merge_bins(counts: Ints, labels: Ints) -> Ints:
    """Sum the columns of counts (..., B) with equal labels; the result is (..., max label + 1)."""
    merged = np.zeros((*counts.shape[:-1], int(labels.max()) + 1), dtype=np.int64)
    if np.all(np.diff(labels) >= 0):
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        return np.add.reduceat(counts, starts, axis=-1).astype(np.int64)
    for old, new in enumerate(labels):
        merged[..., new] += counts[..., old]
    return merged


def _merge_neighbours(expected: Floats) -> Ints:
    labels = np.zeros(len(expected), dtype=np.int64)
    label, mass = 0, 0.0
    seen = np.flatnonzero(expected > 0)
    for i in seen:
        labels[i] = label
        mass += expected[i]
        if mass >= MIN_EXPECTED:
            label, mass = label + 1, 0.0
    if mass < MIN_EXPECTED / 2:  # so little joins the last full bin: it may be half of all rows
        label -= 1
    labels = np.minimum(labels, max(label, 0))
    labels[expected == 0] = labels[seen].max() + 1 if len(seen) else 0
    return labels


def _pool_rare(expected: Floats) -> Ints:
    kept = expected >= MIN_EXPECTED
    kept[-1] = False
    labels = np.full(len(expected), int(kept.sum()), dtype=np.int64)
    labels[kept] = np.arange(int(kept.sum()))
    return labels
