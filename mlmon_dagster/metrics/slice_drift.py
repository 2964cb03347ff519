"""How far the slices of one column are from their own baseline, all slices at once, without a test.

Slices explain an alarm; only the whole window raises one. For that the bias-corrected psi and its
interval do, which one vectorised computation gives for all slices of a column.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.bins import merge_bins, merge_plan
from mlmon_dagster.metrics.distances import psi_variance
from mlmon_dagster.metrics.moments import Counts, null_moments, psi_terms
from mlmon_dagster.metrics.null import between_sizes, grid_floor, grid_size
from mlmon_dagster.metrics.statistics import ALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def slice_names(cells: pd.DataFrame) -> pd.Series:
    """Return one text per cell that names its slice."""
    return cells["slice_key"].astype(str) + "\0" + cells["slice_value"].astype(str)


def pool_slices(cells: pd.DataFrame, counts: Ints, names: NDArray[np.object_]) -> Ints:
    """Sum the baseline's cells of each named slice.

    Args:
        cells: The baseline's cells.
        counts: Their rows per bin, (W, B).
        names: Slices as `slice_names` writes them, (S,).

    Returns:
        Rows per bin, (S, B): of model version `all` where the slice has that, else of all
        versions; 0 for a slice that the baseline lacks.
    """
    code = pd.Index(names).get_indexer(pd.Index(slice_names(cells)))
    whole = (cells["model_version"] == ALL).to_numpy()
    has_whole = np.zeros(len(names) + 1, dtype=bool)
    has_whole[code[whole]] = True
    kept = np.flatnonzero((code >= 0) & (whole | ~has_whole[code]))
    pooled = np.zeros((len(names), counts.shape[1]), dtype=np.int64)
    np.add.at(pooled, code[kept], counts[kept])
    return pooled


def slice_effects(
    current: Ints, baselines: Ints, owner: Ints, *, ordered: bool
) -> tuple[Floats, Floats]:
    """Bias-corrected psi of windows of slices, and the half-width of its 95 % interval.

    Args:
        current: Rows per bin of C cells, (C, B), each with at least one row.
        baselines: Rows per bin of S slices of the baseline, (S, B), each with at least one row.
        owner: Slice of each cell, (C,).
        ordered: Whether the bins are intervals of numbers.

    Returns:
        Two arrays (C,). Cells of a slice with about the same number of rows share their merging.
    """
    if not len(current):
        return np.zeros(0), np.zeros(0)
    n = current.sum(axis=1).astype(np.float64)
    below = grid_floor(n)
    pairs, pair = np.unique(np.column_stack([owner, below]), axis=0, return_inverse=True)
    pair = pair.ravel()
    merged, references = np.zeros_like(current), np.zeros((len(pairs), current.shape[1]), np.int64)
    bins = np.zeros(len(pairs), dtype=np.int64)
    for i, (which, node) in enumerate(pairs.tolist()):
        plan = merge_plan(baselines[which], float(grid_size(node)), ordered=ordered)
        bins[i] = size = int(plan.max()) + 1
        rows = pair == i
        merged[rows, :size] = merge_bins(current[rows], plan)
        references[i, :size] = merge_bins(baselines[which], plan)
    widest = int(bins.max())
    merged, references = merged[:, :widest], references[:, :widest]
    low, high = (
        null_moments(references, bins, grid_size(pairs[:, 1] + step), ("psi",))[:, 0]
        for step in (0, 1)
    )
    moments = between_sizes(n, below, low[pair], high[pair])
    value, variance = _psi(merged, references[pair], bins[pair])
    return value - moments[:, 0], 1.96 * np.sqrt(moments[:, 2] ** 2 + variance)


def _psi(current: Ints, baseline: Ints, bins: Ints) -> tuple[Floats, Floats]:
    """Return psi and its first-order variance of padded bins, (C,) each."""
    n, total = current.sum(axis=1), baseline.sum(axis=1)
    size = bins[:, None].astype(np.float64)
    counts = Counts(
        current[..., None].astype(np.float64),
        np.ones(1),
        n[:, None, None].astype(np.float64),
        baseline[..., None].astype(np.float64),
        size[..., None],
    )
    present = np.arange(current.shape[1]) < size
    value: Floats = np.where(present, psi_terms(counts)[..., 0], 0.0).sum(axis=1)
    p = np.where(present, (current + 0.5) / (n[:, None] + size / 2), 0.0)
    q = np.where(present, (baseline + 0.5) / (total[:, None] + size / 2), 0.0)
    return value, psi_variance(p, q, n, total)
