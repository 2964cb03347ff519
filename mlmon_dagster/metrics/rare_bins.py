"""The chance of a chi-square distance where some bins are almost empty in the baseline.

A single row in a bin that the baseline lacks adds as much to chi-square as a large change of a
common bin, so that one test over all bins has to be blind to both. Common and rare bins are
tested apart: the former by the distance, the latter by how many rows they hold together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import between_window_p
from mlmon_dagster.metrics.distances import chi_square
from mlmon_dagster.metrics.null import NullModel, gamma_tail
from mlmon_dagster.metrics.robust import biweight

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RARE = 1.0  # rows that a window expects


def chi_square_p(current: Ints, pooled: Ints, windows: Ints, size: int, ordered: bool) -> Floats:
    """Return p-values of windows against a baseline, over bins merged for about `size` rows.

    Args:
        current: Rows per bin of C windows, (C, B).
        pooled: Rows per bin of the baseline, (B,).
        windows: Rows per bin of the baseline's windows, (W, B); none if there are too few.
        size: Rows that decide which bins are rare: those that expect fewer than 1 of them.
        ordered: Whether the bins are intervals of numbers.

    Returns:
        (C,): twice the smaller p-value of the two tests, at most 1. Where baseline windows show
        that rows share values, so many rows of rare bins count as one.
    """
    common = pooled * (size / max(int(pooled.sum()), 1)) >= _RARE
    main, shared = _of_common(current[:, common], pooled[common], windows[:, common], ordered)
    if common.all():
        return main
    rare = _of_rare(current, pooled, common, shared)
    p: Floats = np.minimum(2 * np.minimum(main, rare), 1.0)
    return p


def _of_common(current: Ints, pooled: Ints, windows: Ints, ordered: bool) -> tuple[Floats, float]:
    """Return the p-values over common bins, and how many rows share a value."""
    n = current.sum(axis=1)
    if len(pooled) < 2:
        return np.ones(len(current)), 1.0
    null, same = NullModel(pooled, ordered, ("chi_square",)), np.arange(len(pooled))
    moments = null.moments("chi_square", same, n)
    value = np.where(n > 0, chi_square(current, pooled), 0.0)
    p, shared = gamma_tail(value, moments), 1.0
    sizes = windows.sum(axis=1)
    windows, sizes = windows[sizes > 0], sizes[sizes > 0]
    if len(windows):
        own = chi_square(windows, pooled - windows)
        own_null = null.moments("chi_square", same, sizes)
        between = between_window_p(value, moments, own, own_null)
        p = np.maximum(p, between)
        shared = max(float(biweight(own / np.maximum(own_null.mean, 1e-300))[0]), 1.0)
    return p, shared


def _of_rare(current: Ints, pooled: Ints, common: NDArray[np.bool_], shared: float) -> Floats:
    """Return the chance of so many rows in rare bins, the baseline's share being uncertain."""
    from scipy import stats

    n, total, seen = current.sum(axis=1), int(pooled.sum()), int(pooled[~common].sum())
    found = np.ceil(current[:, ~common].sum(axis=1) / round(shared))
    tail = stats.betabinom.sf(found - 1, n, seen + 0.5, total - seen + 0.5)
    return np.where(found > 0, tail, 1.0)
