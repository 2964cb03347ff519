"""Whether a distance is chance: by rows, by the values that rows share, and by windows."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.drift.between_windows import (
    larger_of_windows,
    reference_distances,
    usual_limits,
)
from mlmon_dagster.metrics.drift.merged_bins import Pairs
from mlmon_dagster.metrics.drift.null_distribution import (
    DISTANCES,
    POWER,
    ROOT,
    Moments,
    gamma_tail,
)
from mlmon_dagster.metrics.drift.references import References
from mlmon_dagster.metrics.drift.shared_values import FEWEST_VALUES, Independence


class Distances:
    """One distance of P windows from their baselines, whose bins are merged.

    Everything but `raw` is on the scale distance ** POWER.
    """

    def __init__(
        self, metric: str, references: References, pairs: Pairs, by_place: Floats | None = None
    ) -> None:
        self.metric, self.references, self.pairs = metric, references, pairs
        self._by_place = np.zeros(len(pairs.baselines)) if by_place is None else by_place

    @cached_property
    def raw(self) -> Floats:
        """The distances, (P,)."""
        return self.pairs.each(DISTANCES[self.metric])

    @cached_property
    def value(self) -> Floats:
        """The distances, (P,)."""
        powered: Floats = self.raw ** POWER[self.metric]
        return powered

    @cached_property
    def moments(self) -> Moments:
        """Their moments without change, (P,)."""
        return self.references.merged.moments(self.metric, self.pairs.baselines, self.pairs.n)

    def limits(self) -> Floats:
        """Return the largest usual effects, (P,); NaN where a baseline has too few windows."""
        baselines = self.pairs.baselines
        own = self.references.own(self.metric, baselines)
        return usual_limits(own, baselines, self.moments, POWER[self.metric])

    def p_value(self, independence: Independence) -> Floats:
        """Return p-values (P,): the largest of those by rows, by values, and by windows.

        Args:
            independence: Of each window's baseline, (P,).
        """
        beyond = np.maximum(self.value - self._by_place, 0.0)
        p = gamma_tail(beyond / independence.rows_per_value, self.moments)
        needed = np.flatnonzero(independence.needs_windows(self.pairs.n))
        baselines = self.pairs.baselines
        own = self.references.own(self.metric, baselines[needed], beyond_place=True)
        root = ROOT[self.metric]
        p = larger_of_windows(p, own, baselines, beyond, self.moments, needed, root=root)
        of_values = self._of_values(independence)
        return np.maximum(np.maximum(p, of_values), self._rank(independence))

    def _of_values(self, independence: Independence) -> Floats:
        """Return the chance of the distance if each value that rows share counts as one row.

        0, so no objection, where rows share none, and of windows of too few values for that.
        """
        found = np.zeros(len(self.value))
        is_enough = independence.rows(self.pairs.n) >= FEWEST_VALUES
        some = np.flatnonzero(is_enough & independence.is_shared)
        if len(some):
            pairs = self.pairs.take(some).thinned(independence.take(some))
            value = pairs.each(DISTANCES[self.metric]) ** POWER[self.metric]
            value = np.maximum(value - self._by_place[some], 0.0)
            merged = self.references.merged
            null = merged.moments_of_values(self.metric, pairs.baselines, pairs.n)
            found[some] = gamma_tail(value, null)
        return found

    def _rank(self, independence: Independence) -> Floats:
        """Return the share of the baseline's windows as far off, the judged one counted in.

        0 unless a window holds so few values that distances are few, too.
        """
        found = np.zeros(len(self.value))
        coarse = np.flatnonzero(np.broadcast_to(independence.is_coarse, found.shape))
        baselines = self.pairs.baselines[coarse]
        own = self.references.own(self.metric, baselines)
        for rows, distances, null, persistence in own.beside(baselines):
            mine = coarse[rows]
            moments = self.moments.take(mine)
            references = reference_distances(moments, distances, null, persistence)
            beyond = (references >= self.value[mine, None]).sum(axis=-1)
            found[mine] = (1 + beyond) / (1 + references.shape[-1])
        return found


def either(first: Floats, second: Floats) -> Floats:
    """Return p-values of two tests taken together (Bonferroni); the first's where one is missing.

    Example:
        >>> either(np.array([0.04, 0.9, 0.3]), np.array([0.01, 0.8, np.nan])).tolist()
        [0.02, 1.0, 0.3]
    """
    both = np.minimum(2 * np.fmin(first, second), 1.0)
    return np.where(np.isnan(first) | np.isnan(second), first, both)
