"""The chance of a chi-square distance where some bins are almost empty in the baseline.

A single row in a bin that the baseline lacks adds as much to chi-square as a large change of a
common bin, so that one test over all bins has to be blind to both. Common and rare bins are
tested apart: the former by the distance, the latter by how many rows they hold together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import between_window_p
from mlmon_dagster.metrics.design_effect import Independence
from mlmon_dagster.metrics.distances import chi_square
from mlmon_dagster.metrics.null import NullModel, gamma_tail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RARE = 1.0  # rows that a window expects


def chi_square_p(
    current: Ints,
    pooled: Ints,
    windows: Ints,
    size: int,
    ordered: bool,
    independence: Independence,
) -> Floats:
    """Return p-values of windows against a baseline, over bins merged for about `size` rows.

    Args:
        current: Rows per bin of C windows, (C, B).
        pooled: Rows per bin of the baseline, (B,).
        windows: Rows per bin of the baseline's windows, (W, B); none if there are too few.
        size: Rows that decide which bins are rare: those that expect fewer than 1 value of them.
        ordered: Whether the bins are intervals of numbers.
        independence: How many rows share a value: so many of them count as one.

    Returns:
        (C,): twice the smaller p-value of the two tests, at most 1.
    """
    expected = float(independence.rows(np.asarray(size)))
    common = pooled * (expected / max(int(pooled.sum()), 1)) >= _RARE
    main = _of_common(current[:, common], pooled[common], windows[:, common], ordered, independence)
    if common.all():
        return main
    rare = _of_rare(current, pooled, common, independence)
    p: Floats = np.minimum(2 * np.minimum(main, rare), 1.0)
    return p


def _of_common(
    current: Ints, pooled: Ints, windows: Ints, ordered: bool, independence: Independence
) -> Floats:
    """Return the p-values over common bins."""
    n = current.sum(axis=1)
    if len(pooled) < 2:
        return np.ones(len(current))
    same = np.arange(len(pooled))
    rows = np.maximum(independence.rows(n), 1.0)
    fewer = np.round(pooled / independence.rows_per_value).astype(np.int64)
    moments = NullModel(fewer, ordered, ("chi_square",)).moments("chi_square", same, rows)
    value = np.where(n > 0, chi_square(independence.thinned(current), fewer), 0.0)
    p = gamma_tail(value, moments)
    sizes = windows.sum(axis=1)
    windows, sizes = windows[sizes > 0], sizes[sizes > 0]
    needed = independence.needs_windows(n)
    if len(windows) and needed.any():
        null = NullModel(pooled, ordered, ("chi_square",))
        value = np.where(n > 0, chi_square(current, pooled), 0.0)
        own = chi_square(windows, pooled - windows)
        own_null = null.moments("chi_square", same, sizes)
        between = between_window_p(value, null.moments("chi_square", same, n), own, own_null)
        p = np.where(needed, np.maximum(p, between), p)
    return p


def _of_rare(
    current: Ints, pooled: Ints, common: NDArray[np.bool_], independence: Independence
) -> Floats:
    """Return the chance of so many rows in rare bins, the baseline's share being uncertain."""
    from scipy import stats

    n = np.ceil(independence.rows(current.sum(axis=1)))
    total, seen = int(pooled.sum()), int(pooled[~common].sum())
    found = np.ceil(independence.thinned(current)[:, ~common].sum(axis=1))
    tail = stats.betabinom.sf(found - 1, n, seen + 0.5, total - seen + 0.5)
    return np.where(found > 0, tail, 1.0)
