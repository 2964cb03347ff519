"""How many of the findings of one family of tests may be chance (Benjamini and Hochberg, 1995)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that calling those <= q real gives a false-discovery rate of at most q.

    Args:
        p_values: One family; NaN for what was not tested, which does not count.

    Returns:
        Adjusted values in the same order, NaN where untested.

    Example:
        >>> [round(p, 4) for p in benjamini_hochberg([0.01, 0.04, 0.03])]
        [0.03, 0.04, 0.04]
    """
    p = np.array(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    if tested.any():
        # Not by scipy.stats, which takes a second to import: as much as all else of a process.
        order = np.argsort(p[tested])[::-1]  # the largest first, as the least of a tail is taken
        n = len(order)
        scaled = np.minimum.accumulate(p[tested][order] * (n / np.arange(n, 0, -1)))
        p[np.flatnonzero(tested)[order]] = np.clip(scaled, 0, 1)
    return [float(value) for value in p]
