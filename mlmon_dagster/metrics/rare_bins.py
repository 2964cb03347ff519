"""The chance of a chi-square distance where some bins are almost empty in the baseline.

A single row in a bin that the baseline lacks adds as much to chi-square as a large change of a
common bin, so that one test over all bins has to be blind to both. Common and rare bins are
tested apart: the former by the distance, the latter by how many rows they hold together.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import between_window_p
from mlmon_dagster.metrics.distances import chi_square
from mlmon_dagster.metrics.merged_baselines import LEFT_OUT, MergedBaselines, Pairs
from mlmon_dagster.metrics.moments import Moments
from mlmon_dagster.metrics.null import gamma_tail
from mlmon_dagster.metrics.own_windows import OwnWindows
from mlmon_dagster.metrics.robust import biweight

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_RARE = 1.0  # rows that a window expects


def _rows_per_value(own: Floats, null: Moments) -> float:
    return max(float(biweight(own / np.maximum(null.mean, 1e-300))[0]), 1.0)


class CommonBins:
    """The bins of baselines that a window expects at least one row of; the others are rare."""

    def __init__(self) -> None:
        self.merged = MergedBaselines(("chi_square",))
        self._own = OwnWindows(_rows_per_value)
        self._windows: list[Ints] = []
        self._rows: list[tuple[int, int, bool]] = []

    def add(self, labels: Ints, counts: Ints, windows: Ints, size: int) -> None:
        """Add a baseline.

        Args:
            labels: Merged bin of each bin, (B,).
            counts: Its rows per bin, (B,).
            windows: Rows per bin of its windows, (W, B); none if there are too few.
            size: Rows that decide which merged bins are rare: those that expect fewer than 1.
        """
        bins, total = np.bincount(labels, counts), int(counts.sum())
        common = bins * (size / max(total, 1)) >= _RARE
        number = self.merged.add(np.where(common, np.cumsum(common) - 1, LEFT_OUT)[labels], counts)
        kept = self.merged.merge(windows, number)
        self._windows.append(kept[kept.sum(axis=1) > 0] if common.sum() > 1 else kept[:0])
        seen = total - int(self.merged.bins(number).sum())
        self._rows.append((total, seen, not common.all()))

    def rows(self, baselines: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Return the rows of baselines, those in rare bins, and whether any bin is rare, (P,)."""
        found = np.array([self._rows[i] for i in baselines.tolist()], dtype=np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2] > 0

    def own(self) -> OwnWindows:
        """Return the distances of the baselines' own windows over common bins."""
        new = range(len(self._own), len(self._windows))
        windows = [self._windows[number] for number in new]
        self._own.extend(
            [
                chi_square(mine, self.merged.bins(number) - mine)
                for number, mine in zip(new, windows, strict=True)
            ],
            [mine.sum(axis=1) for mine in windows],
            partial(self.merged.null.moments, "chi_square"),
        )
        return self._own


def chi_square_p(common: CommonBins, pairs: Pairs, n: Floats) -> Floats:
    """Return p-values of windows of n rows against their baselines.

    Args:
        common: The baselines.
        pairs: Windows and baselines, of common bins.
        n: Rows of the windows in all bins, (P,).

    Returns:
        (P,): twice the smaller p-value of the two tests, at most 1; that of the common bins where
        none is rare. Where baseline windows show that rows share values, so many rows of rare bins
        count as one.
    """
    p = _of_common(common, pairs)
    total, seen, has_rare = common.rows(pairs.baselines)
    shared = common.own().shared(pairs.baselines)
    some = np.flatnonzero(has_rare)
    rare = _of_rare((n - pairs.n)[some], n[some], seen[some], total[some], shared[some])
    p[some] = np.minimum(2 * np.minimum(p[some], rare), 1.0)
    return p


def _of_common(common: CommonBins, pairs: Pairs) -> Floats:
    """Return the p-values over common bins, 1 where there are fewer than two."""
    p = np.ones(len(pairs.baselines))
    some = np.flatnonzero(common.merged.sizes(pairs.baselines) > 1)
    value = np.where(pairs.n > 0, pairs.each(chi_square), 0.0)[some]
    baselines = pairs.baselines[some]
    moments = common.merged.null.moments("chi_square", baselines, pairs.n[some])
    p[some] = gamma_tail(value, moments)
    for rows, own, own_null in common.own().beside(baselines):
        between = between_window_p(value[rows], moments.take(rows), own, own_null)
        p[some[rows]] = np.maximum(p[some[rows]], between)
    return p


def _of_rare(current: Floats, n: Floats, seen: Ints, total: Ints, shared: Floats) -> Floats:
    """Return the chance of so many rows in rare bins, the baseline's share being uncertain."""
    from scipy import stats

    found = np.ceil(current / np.round(shared))
    tail, some = np.ones(len(found)), np.flatnonzero(found > 0)
    if len(some):
        a, b = seen[some] + 0.5, (total - seen)[some] + 0.5
        tail[some] = stats.betabinom.sf(found[some] - 1, n[some].astype(np.int64), a, b)
    return tail
