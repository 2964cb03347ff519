"""Baselines with their bins merged, and windows put side by side with them, many at once.

A distance takes arrays of one shape, but columns differ in their bins. So windows are grouped by
their number of bins, whichever columns they are of: nothing is padded, and a call for thirty
columns costs little more than one for a single column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.between_windows import OwnWindows, Persistence, larger_of_windows
from mlmon_dagster.metrics.drift.distances import chi_square
from mlmon_dagster.metrics.drift.null_distribution import Moments, NullTables, gamma_tail
from mlmon_dagster.metrics.drift.shared_values import Independence

LEFT_OUT = -1


@dataclass(frozen=True)
class Pairs:
    """Windows, each with the baseline that it is compared with.

    Attributes:
        baselines: Number of each window's baseline, (P,).
        n: Rows of each window, (P,).
        groups: Per number of bins B: which windows, their rows per bin (G, B), and those of their
            baselines (G, B).
    """

    baselines: Ints
    n: Floats
    groups: tuple[tuple[NDArray[np.intp], NDArray[np.int64 | np.float64], Ints], ...]

    def each(self, function: Callable[..., Floats]) -> Floats:
        """Apply a function of rows per bin, of windows and of baselines, to all pairs: (P,)."""
        found = np.full(len(self.baselines), np.nan)
        for rows, current, pooled in self.groups:
            found[rows] = function(current, pooled)
        return found

    def take(self, places: NDArray[np.intp]) -> Pairs:
        """Return some of the pairs."""
        new = np.full(len(self.baselines), -1)
        new[places] = np.arange(len(places))
        groups = []
        for rows, current, pooled in self.groups:
            kept = new[rows] >= 0
            groups.append((new[rows[kept]], current[kept], pooled[kept]))
        return Pairs(self.baselines[places], self.n[places], tuple(groups))

    def thinned(self, independence: Independence) -> Pairs:
        """Scale both sides down to their independent rows."""
        n, by = independence.rows(self.n), np.asarray(independence.rows_per_value)
        factor = n / np.maximum(self.n, 1)
        groups = tuple(
            (rows, current * factor[rows, None], thinned(pooled, by[rows, None]))
            for rows, current, pooled in self.groups
        )
        return replace(self, n=n, groups=groups)


def thinned(counts: Ints, rows_per_value: float | Floats) -> Ints:
    """Return the rows of a baseline's bins if each value that rows share counts as one row."""
    return np.round(counts / rows_per_value).astype(np.int64)


class MergedBaselines:
    """Baselines of merged bins and their null moments, numbered as they are added.

    Args:
        metrics: The distances that null moments are wanted of.
    """

    def __init__(self, metrics: tuple[str, ...]) -> None:
        self._null = NullTables(metrics)
        self._labels: list[Ints] = []
        self._bins: list[Ints] = []
        self._of_rows: list[int] = []
        self._of_values: list[int] = []

    def add(self, labels: Ints, counts: Ints, rows_per_value: float | Floats = 1.0) -> int:
        """Add a baseline.

        Args:
            labels: New bin of each old one, (B,), without gaps; `LEFT_OUT` for none.
            counts: Its rows per old bin, (B,).
            rows_per_value: How many rows count as one.
        """
        kept = labels != LEFT_OUT
        bins = np.bincount(labels[kept], counts[kept]).astype(np.int64)  # exact below 2**53
        self._labels.append(labels)
        self._bins.append(bins)
        self._of_rows.append(self._null.add(bins))
        self._of_values.append(self._null.add(thinned(bins, rows_per_value)))
        return len(self._bins) - 1

    def moments(self, metric: str, numbers: Ints, n: Floats | Ints) -> Moments:
        """Moments of a distance of windows of n rows from baselines, (P,) each."""
        return self._moments(metric, self._of_rows, numbers, n)

    def moments_of_values(self, metric: str, numbers: Ints, n: Floats) -> Moments:
        """Moments if each value that rows share counts as one row, on both sides."""
        return self._moments(metric, self._of_values, numbers, n)

    def _moments(
        self, metric: str, null: Sequence[int], numbers: Ints, n: Floats | Ints
    ) -> Moments:
        mine = np.array([null[i] for i in numbers.tolist()], dtype=np.int64)
        return self._null.moments(metric, mine, n)

    def bins(self, number: int) -> Ints:
        """Return the rows per merged bin of a baseline."""
        return self._bins[number]

    def merge(self, counts: Ints, number: int) -> Ints:
        """Merge the bins of windows (W, B) like those of a baseline."""
        flat = self._merged([counts], np.full(len(counts), number))
        return flat.reshape(len(counts), len(self._bins[number]))

    def pairs(self, blocks: Sequence[tuple[Ints, Ints]]) -> Pairs:
        """Put windows side by side with their baselines.

        Args:
            blocks: Per column the windows' rows per old bin, (C, B), and the numbers of their
                baselines, (C,).
        """
        baselines = np.concatenate([numbers for _, numbers in blocks])
        flat = self._merged([counts for counts, _ in blocks], baselines)
        sizes = self.sizes(baselines)
        starts = np.cumsum(sizes) - sizes
        groups, n = [], np.zeros(len(baselines))
        for size in np.unique(sizes).tolist():
            rows = np.flatnonzero(sizes == size)
            current = flat[starts[rows, None] + np.arange(size)]
            some, place = np.unique(baselines[rows], return_inverse=True)
            pooled = np.stack([self._bins[i] for i in some.tolist()])[place]
            n[rows] = current.sum(axis=1)
            groups.append((rows, current, pooled))
        return Pairs(baselines, n, tuple(groups))

    def sizes(self, numbers: Ints) -> Ints:
        """Return the number of merged bins of baselines."""
        return np.array([len(self._bins[i]) for i in numbers.tolist()], dtype=np.int64)

    def _merged(self, counts: Sequence[Ints], numbers: Ints) -> Ints:
        """Return the merged rows of P windows one after another, each with its own bins.

        Args:
            counts: Rows per old bin, of windows that have as many of them, P in all.
            numbers: Of their baselines, (P,).
        """
        if not len(numbers):
            return np.zeros(0, np.int64)
        found = [self._labels[i] for i in numbers.tolist()]
        labels, sizes = np.concatenate(found), self.sizes(numbers)
        ends = np.cumsum(sizes)
        at = labels + np.repeat(ends - sizes, [len(mine) for mine in found])
        at[labels == LEFT_OUT] = ends[-1]
        flat = np.bincount(at, np.concatenate([part.ravel() for part in counts]), ends[-1] + 1)
        return flat[:-1].astype(np.int64)


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
    """Return the chance of so many rows in rare bins, the baseline's share being uncertain.

    Beta-binomial: the share's law after the baseline is Beta(seen + 1/2, rest + 1/2), by the prior
    of Jeffreys (1946), and the window's rows are binomial given it.
    """
    rows = independence.rows(n)
    found, rows = np.ceil(current * (rows / np.maximum(n, 1))), np.ceil(rows)
    tail, some = np.ones(len(found)), np.flatnonzero(found > 0)
    if len(some):
        from scipy import stats  # a second of the processor, and most windows have none

        a, b = seen[some] + 0.5, (total - seen)[some] + 0.5
        tail[some] = stats.betabinom.sf(found[some] - 1, rows[some], a, b)
    return tail
