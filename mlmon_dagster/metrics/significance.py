"""Whether a window's binned distance is chance: all that is compared with what, for one metric."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import between_window_p, reference_distances
from mlmon_dagster.metrics.bins import merge_bins
from mlmon_dagster.metrics.design_effect import FEWEST_VALUES, Independence
from mlmon_dagster.metrics.moments import Moments
from mlmon_dagster.metrics.null import DISTANCES, POWER, ROOT, NullModel, gamma_tail
from mlmon_dagster.metrics.rare_bins import chi_square_p

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Merged:
    """Windows and their baseline over the same merged bins.

    Attributes:
        plan: New bin of each bin, (B,).
        current: Rows per merged bin of C windows, (C, B').
        pooled: Of the baseline, (B',).
        windows: Of the baseline's windows, (W, B'); none if there are too few.
    """

    def __init__(self, plan: Ints, current: Ints, pooled: Ints, windows: Ints) -> None:
        self.plan = plan
        self.current, self.pooled, self.windows = (
            merge_bins(counts, plan) for counts in (current, pooled, windows)
        )


class Comparison:
    """One distance of C windows of about `size` rows, and of the baseline's windows.

    Everything but `raw` is on the scale distance ** POWER.
    """

    def __init__(self, metric: str, bins: Merged, null: NullModel, size: int) -> None:
        self.metric, self.bins, self.null, self.size = metric, bins, null, size
        self.power = POWER[metric]

    @cached_property
    def raw(self) -> Floats:
        """Distances of the windows, (C,)."""
        return DISTANCES[self.metric](self.bins.current, self.bins.pooled)

    @cached_property
    def moments(self) -> Moments:
        """Their moments without change, (C,)."""
        n = self.bins.current.sum(axis=1)
        return self.null.moments(self.metric, self.bins.plan, n)

    @cached_property
    def own(self) -> Floats:
        """Distances of the baseline's windows, each from the rest, (W,)."""
        windows = self.bins.windows
        grown = windows * _growth(windows.sum(axis=1), self.size, windows.shape[1])
        distance: Floats = DISTANCES[self.metric](grown, self.bins.pooled - windows)
        return distance**self.power

    @cached_property
    def own_moments(self) -> Moments:
        """Their moments without change, (W,)."""
        n = self.bins.windows.sum(axis=1)
        return self.null.moments(self.metric, self.bins.plan, n)

    def p_value(self, independence: Independence) -> Floats:
        """Return p-values (C,): the largest of those by values and by windows."""
        bins = self.bins
        if self.metric == "chi_square":
            return chi_square_p(
                bins.current, bins.pooled, bins.windows, self.size, self.null.ordered, independence
            )
        value = self.raw**self.power
        p = gamma_tail(value / independence.rows_per_value, self.moments)
        needed = independence.needs_windows(bins.current.sum(axis=1))
        if len(bins.windows) and needed.any():
            root = ROOT[self.metric]
            between = between_window_p(value, self.moments, self.own, self.own_moments, root=root)
            p = np.where(needed, np.maximum(p, between), p)
        if independence.is_shared:
            p = np.maximum(p, self._of_values(independence))
        return np.maximum(p, self._rank()) if independence.is_coarse else p

    def _rank(self) -> Floats:
        """Return the share of the baseline's windows as far off, the judged one counted in."""
        references = reference_distances(self.moments, self.own, self.own_moments)
        beyond = (references >= (self.raw**self.power)[:, None]).sum(axis=-1)
        rank: Floats = (1 + beyond) / (1 + references.shape[-1])
        return rank

    def _of_values(self, independence: Independence) -> Floats:
        """Return the chance of the distance if each value that rows share counts as one row.

        0, so no objection, of windows of too few values for that.
        """
        rows = independence.rows(self.bins.current.sum(axis=1))
        thinned = independence.thinned(self.bins.current)
        pooled = np.round(self.bins.pooled / independence.rows_per_value).astype(np.int64)
        value = DISTANCES[self.metric](thinned, pooled) ** self.power
        null = NullModel(pooled, self.null.ordered, (self.metric,))
        moments = null.moments(self.metric, np.arange(len(pooled)), rows)
        return np.where(rows >= FEWEST_VALUES, gamma_tail(value, moments), 0.0)


def either(first: Floats, second: Floats) -> Floats:
    """Return p-values of two tests taken together (Bonferroni); the first's where one is missing.

    Example:
        >>> either(np.array([0.04, 0.9, 0.3]), np.array([0.01, 0.8, np.nan])).tolist()
        [0.02, 1.0, 0.3]
    """
    both = np.minimum(2 * np.fmin(first, second), 1.0)
    return np.where(np.isnan(first) | np.isnan(second), first, both)


def _growth(sizes: Ints, n: int, bins: int) -> Floats:
    """Factor by which baseline windows are blown up, so that they are smoothed like n rows.

    Where all rows of a window share few values, its bins stay empty at any size, and the distance
    depends on how small the smoothing leaves them. Not for windows of under 5 rows a bin, whose
    empty bins are chance.
    """
    factor = np.where(sizes >= 5 * bins, np.maximum(n / sizes, 1.0), 1.0)
    return factor[:, None]
