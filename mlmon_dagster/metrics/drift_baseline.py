"""What of drift depends on the baseline alone: computed once, and used for every window.

Merging of bins, moments without change, and the distances of the baseline's own windows are kept
as they are asked for. They are functions of the baseline: a result does not depend on what was
asked before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import MIN_WINDOWS, rows_per_value
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.bins import DriftBins, drift_bins, is_ordered, merge_plan, score_groups
from mlmon_dagster.metrics.distances import ks
from mlmon_dagster.metrics.merged_baselines import MergedBaselines
from mlmon_dagster.metrics.null import DISTANCES, POWER, KsNull, NullModel, grid_size
from mlmon_dagster.metrics.own_windows import OwnWindows
from mlmon_dagster.metrics.rare_bins import CommonBins
from mlmon_dagster.metrics.slice_index import SliceIndex, SlicePool
from mlmon_dagster.metrics.statistics import ALL, ColumnStatistics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
WHOLE = f"{ALL}\0{ALL}"


class DriftBaseline:
    """The columns of a baseline, as drift compares windows with them.

    Args:
        columns: Column -> statistics, whose cells are the baseline's windows; not to be changed.
        seed: Seed of the draws behind the mean of ks; the other distances draw nothing.
        min_rows: Fewest rows of a window, and of the baseline, for a value.
    """

    def __init__(
        self, columns: Mapping[str, ColumnStatistics], *, seed: int, min_rows: int = 30
    ) -> None:
        self.seed, self.min_rows = seed, min_rows
        self.whole = References(tuple(DISTANCES), min_rows)
        self.tested = References(("psi",), min_rows)
        self.untested = References(("psi",), None)
        self.ks = KsReferences(seed, min_rows)
        self._stats = dict(columns)
        self._columns: dict[str, ColumnBaseline] = {}
        self._pools: dict[int, SlicePool] = {}

    def column(self, name: str) -> ColumnBaseline:
        """Return one column."""
        if name not in self._columns:
            stats = self._stats[name]
            key = id(stats.cells)  # of a frame that is held
            if key not in self._pools:
                self._pools[key] = SlicePool(SliceIndex(stats.cells))
            self._columns[name] = ColumnBaseline(name, stats, self._pools[key])
        return self._columns[name]


class ColumnBaseline:
    """One column of a baseline.

    Attributes:
        stats: Its statistics, W cells.
        pool: Its slices.
        ordered: Whether its bins are intervals of numbers.
        bins: Rows per drift bin of its cells, (W, B).
        pooled: Rows per drift bin of each slice, (S + 1, B). total: their sums, (S + 1,).
        n_valued: Rows with a value of the whole, 0 for columns without an order.
    """

    def __init__(self, name: str, stats: ColumnStatistics, pool: SlicePool) -> None:
        self.name, self.stats, self.pool = name, stats, pool
        self.ordered = is_ordered(stats.binning)
        self.whole = int(pool.numbers([WHOLE])[0])
        self._groups: Ints | None = None
        if stats.binning.kind == "score":
            whole = label_counts(stats.counts[pool.rows(self.whole)])
            self._groups = score_groups(whole.sum(axis=(0, 2)))
        self.bins = self.drift_bins(stats)
        self.pooled = pool.pool(self.bins.counts)
        self.total = self.pooled.sum(axis=1)
        fine = self.bins.fine
        self.n_valued = 0 if fine is None else int(fine[pool.rows(self.whole)].sum())

    def drift_bins(self, stats: ColumnStatistics) -> DriftBins:
        """Collapse the codes of windows into the bins of this baseline."""
        return drift_bins(stats, self._groups)


class References:
    """Slices of columns with bins merged for windows of about one size; numbered as asked for.

    Args:
        metrics: The distances wanted.
        min_rows: Fewest rows of a baseline's window that counts; None if none is to count.
    """

    def __init__(self, metrics: tuple[str, ...], min_rows: int | None) -> None:
        self.merged = MergedBaselines(metrics)
        self.common = CommonBins()
        self.is_tested = min_rows is not None
        self._min_rows = min_rows
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._windows: list[Ints] = []
        self._sizes: list[int] = []
        self._own = {metric: OwnWindows(rows_per_value) for metric in metrics}

    def numbers(self, column: ColumnBaseline, slices: Ints, nodes: Ints) -> Ints:
        """Return the numbers of slices of a column for windows of grid sizes `nodes`, (C,)."""
        keys = zip(slices.tolist(), nodes.tolist(), strict=True)
        return np.array([self._number(column, *key) for key in keys], dtype=np.int64)

    def windows(self, numbers: Ints) -> Ints:
        """Return how many windows of its own each has that are enough to judge by."""
        if not self.is_tested:
            return np.zeros(len(numbers), np.int64)
        return np.array([len(self._windows[i]) for i in numbers.tolist()], dtype=np.int64)

    def own(self, metric: str) -> OwnWindows:
        """Return the distances of the baselines' own windows, of all that have a number."""
        own = self._own[metric]
        new = range(len(own), len(self._windows))
        own.extend(
            [self._own_distance(metric, number) for number in new],
            [self._windows[number].sum(axis=1) for number in new],
            partial(self.merged.null.moments, metric),
        )
        return own

    def _number(self, column: ColumnBaseline, which: int, node: int) -> int:
        key = column.name, which, node
        if key not in self._numbers:
            self._numbers[key] = self._add(column, which, node)
        return self._numbers[key]

    def _add(self, column: ColumnBaseline, which: int, node: int) -> int:
        pooled, size = column.pooled[which], float(grid_size(node))
        if self._min_rows is None:
            labels = merge_plan(pooled, size, ordered=column.ordered)
            return self.merged.add(labels, pooled)
        labels = NullModel(pooled, column.ordered).plan(node)
        windows = enough_windows(column.bins.counts[column.pool.rows(which)], self._min_rows)
        number = self.merged.add(labels, pooled)
        self._windows.append(self.merged.merge(windows, number))
        self._sizes.append(round(size))  # not of these windows: others may be with them
        if "chi_square" in self._own:
            self.common.add(labels, pooled, windows, round(size))
        return number

    def _own_distance(self, metric: str, number: int) -> Floats:
        windows, pooled = self._windows[number], self.merged.bins(number)
        grown = windows * _growth(windows.sum(axis=1), self._sizes[number], windows.shape[1])
        found: Floats = DISTANCES[metric](grown, pooled - windows) ** POWER[metric]
        return found


class KsReferences:
    """The fine bins of columns, by name; numbered as asked for."""

    def __init__(self, seed: int, min_rows: int) -> None:
        self.own = OwnWindows()
        self._seed, self._min_rows = seed, min_rows
        self._numbers: dict[str, int] = {}
        self._pooled: list[Ints] = []
        self._null: list[KsNull] = []

    def number(self, column: ColumnBaseline) -> int:
        """Return the number of a column with fine bins."""
        if column.name not in self._numbers:
            fine = column.bins.fine
            assert fine is not None
            windows = fine[column.pool.rows(column.whole)]
            pooled = windows.sum(axis=0)
            self._numbers[column.name] = len(self._null)
            self._pooled.append(pooled)
            self._null.append(KsNull.fit(pooled, self._seed))
            windows = enough_windows(windows, self._min_rows)
            null = self._null[-1].moments(windows.sum(axis=1))
            self.own.add(ks(windows, pooled - windows) ** POWER["ks"], null)
        return self._numbers[column.name]

    def pooled(self, number: int) -> Ints:
        """Return the rows per fine bin of the whole baseline, (F,)."""
        return self._pooled[number]

    def null(self, numbers: Ints) -> KsNull:
        """Return the null distributions of columns side by side."""
        some, place = np.unique(numbers, return_inverse=True)
        return KsNull.stack([self._null[i] for i in some.tolist()], place)


def enough_windows(counts: Ints, min_rows: int) -> Ints:
    """Return the windows with at least `min_rows` rows; none if they are too few to judge by."""
    kept: Ints = counts[counts.sum(axis=1) >= min_rows]
    return kept if len(kept) >= MIN_WINDOWS else kept[:0]


def _growth(sizes: Ints, n: int, bins: int) -> Floats:
    """Factor by which baseline windows are blown up, so that they are smoothed like n rows.

    Where all rows of a window share few values, its bins stay empty at any size, and the distance
    depends on how small the smoothing leaves them. Not for windows of under 5 rows a bin, whose
    empty bins are chance.
    """
    factor = np.where(sizes >= 5 * bins, np.maximum(n / sizes, 1.0), 1.0)
    return factor[:, None]
