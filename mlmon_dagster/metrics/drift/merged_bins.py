"""Baselines with their bins merged, and windows put side by side with them, many at once.

A distance takes arrays of one shape, but columns differ in their bins. So windows are grouped by
their number of bins, whichever columns they are of: nothing is padded, and a call for thirty
columns costs little more than one for a single column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.null_distribution import NullTables
from mlmon_dagster.metrics.drift.null_moments import Moments
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
