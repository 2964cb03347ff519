"""From codes to the bins that drift is measured on, and their merging for small windows.

Five expected rows a bin is the rule of Cochran (1954).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.binnings import coarse_counts, label_counts
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics

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
        Numeric: quantile bins. Categorical: one bin per baseline category, then one of `other` and
        `unseen`. Score: the groups. Confusion: predicted 0 and 1. Then the bin of nulls.

    Raises:
        ValueError: If drift is not defined for the kind of column.
    """
    binning, counts = stats.binning, stats.counts
    missing = (stats.n - counts.sum(axis=1))[:, None]
    fine: Ints | None = None
    if binning.kind == "numeric":
        fine = counts
        coarse = coarse_counts(binning, counts)
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


def merge_bins(counts: NDArray[np.int64], labels: Ints) -> Ints:
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
