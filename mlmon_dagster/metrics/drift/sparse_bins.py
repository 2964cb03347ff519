"""The chance of a chi-square distance where some bins are almost empty in the baseline.

A single row in a bin that the baseline lacks adds as much to chi-square as a large change of a
common bin, so that one test over all bins has to be blind to both. Common and rare bins are
tested apart: the former by the distance, the latter by how many rows they hold together.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.autocorrelation import Persistence
from mlmon_dagster.metrics.drift.between_windows import OwnWindows, larger_of_windows
from mlmon_dagster.metrics.drift.distances import chi_square
from mlmon_dagster.metrics.drift.merged_bins import LEFT_OUT, MergedBaselines, Pairs
from mlmon_dagster.metrics.drift.null_distribution import gamma_tail
from mlmon_dagster.metrics.drift.shared_values import Independence

_RARE = 1.0  # rows that a window expects
_LEAST_LEVEL = 0.1  # share of the level for rare bins


class CommonBins:
    """The bins of baselines that a window expects at least one value of; the others are rare."""

    def __init__(self) -> None:
        self.merged = MergedBaselines(("chi_square",))
        self._own = OwnWindows()
        self._windows: list[Ints] = []
        self._persistence: list[Persistence] = []
        self._rows: list[tuple[int, int, bool]] = []

    def add(
        self,
        labels: Ints,
        counts: Ints,
        windows: Ints,
        size: int,
        independence: Independence,
        persistence: Persistence,
    ) -> None:
        """Add a baseline.

        Args:
            labels: Merged bin of each bin, (B,).
            counts: Its rows per bin, (B,).
            windows: Rows per bin of its windows, (W, B); none if there are too few.
            size: Rows that decide which merged bins are rare: those that expect fewer than 1 value
                of them.
            independence: How many rows share a value: so many of them count as one.
            persistence: Of its windows in time.
        """
        self._persistence.append(persistence)
        bins, total = np.bincount(labels, counts), int(counts.sum())
        expected = float(independence.rows(np.asarray(size)))
        common = bins * (expected / max(total, 1)) >= _RARE
        kept_labels = np.where(common, np.cumsum(common) - 1, LEFT_OUT)[labels]
        number = self.merged.add(kept_labels, counts, independence.rows_per_value)
        kept = self.merged.merge(windows, number)
        self._windows.append(kept[kept.sum(axis=1) > 0] if common.sum() > 1 else kept[:0])
        seen = total - int(self.merged.bins(number).sum())
        self._rows.append((total, seen, not common.all()))

    def rows(self, baselines: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Return the rows of baselines, those in rare bins, and whether any bin is rare, (P,)."""
        found = np.array([self._rows[i] for i in baselines.tolist()], dtype=np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2] > 0

    def own(self, baselines: Ints) -> OwnWindows:
        """Return the distances of the own windows over common bins, of these at least."""
        new = self._own.missing(baselines)
        windows = [self._windows[number] for number in new]
        self._own.extend(
            new,
            [
                chi_square(mine, self.merged.bins(number) - mine)
                for number, mine in zip(new, windows, strict=True)
            ],
            [mine.sum(axis=1) for mine in windows],
            [self._persistence[number] for number in new],
            partial(self.merged.moments, "chi_square"),
        )
        return self._own


def chi_square_p(common: CommonBins, pairs: Pairs, n: Floats, independence: Independence) -> Floats:
    """Return p-values of windows of n rows against their baselines.

    Args:
        common: The baselines.
        pairs: Windows and baselines, of common bins.
        n: Rows of the windows in all bins, (P,).
        independence: Of each window's baseline, (P,).

    Returns:
        (P,): of both tests together (Bonferroni), at most 1; that of the common bins where none is
        rare. Of the level rare bins get a tenth, and as much more as they hold of the baseline, at
        most half: hardly a row is expected there, and a few are far out.
    """
    p = np.ones(len(n))
    some = np.flatnonzero(common.merged.sizes(pairs.baselines) > 1)
    if len(some):
        p[some] = _of_common(common, pairs.take(some), independence.take(some))
    total, seen, has_rare = common.rows(pairs.baselines)
    some = np.flatnonzero(has_rare)
    mine = independence.take(some)
    rare = _of_rare((n - pairs.n)[some], n[some], seen[some], total[some], mine)
    weight = np.minimum(_LEAST_LEVEL + seen[some] / np.maximum(total[some], 1), 0.5)
    p[some] = np.minimum(np.minimum(p[some] / (1 - weight), rare / weight), 1.0)
    return p


def _of_common(common: CommonBins, pairs: Pairs, independence: Independence) -> Floats:
    """Return the p-values over common bins, of which there are at least two."""
    baselines, n = pairs.baselines, pairs.n
    fewer = pairs.thinned(independence)
    value = np.where(n > 0, fewer.each(chi_square), 0.0)
    rows = np.maximum(fewer.n, 1.0)
    p = gamma_tail(value, common.merged.moments_of_values("chi_square", baselines, rows))
    needed = np.flatnonzero(independence.needs_windows(n))
    if not len(needed):
        return p
    value = np.where(n > 0, pairs.each(chi_square), 0.0)
    moments = common.merged.moments("chi_square", baselines, n)
    own = common.own(baselines[needed])
    return larger_of_windows(p, own, baselines, value, moments, needed)


def _of_rare(
    current: Floats, n: Floats, seen: Ints, total: Ints, independence: Independence
) -> Floats:
    """Return the chance of so many rows in rare bins, the baseline's share being uncertain."""
    from scipy import stats

    rows = independence.rows(n)
    found, rows = np.ceil(current * (rows / np.maximum(n, 1))), np.ceil(rows)
    tail, some = np.ones(len(found)), np.flatnonzero(found > 0)
    if len(some):
        a, b = seen[some] + 0.5, (total - seen)[some] + 0.5
        tail[some] = stats.betabinom.sf(found[some] - 1, rows[some], a, b)
    return tail
