"""Slices of a baseline as windows of about one size are compared with them, and tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import MIN_WINDOWS
from mlmon_dagster.metrics.bins import merge_plan
from mlmon_dagster.metrics.column_baseline import ColumnBaseline
from mlmon_dagster.metrics.design_effect import Independence
from mlmon_dagster.metrics.distances import ks
from mlmon_dagster.metrics.merged_baselines import MergedBaselines
from mlmon_dagster.metrics.null import DISTANCES, POWER, KsNull, grid_size, plan_at
from mlmon_dagster.metrics.own_windows import OwnWindows
from mlmon_dagster.metrics.rare_bins import CommonBins
from mlmon_dagster.metrics.shape import SHAPES, Shape, ShapeNull, Spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
FINE = ("ks", *SHAPES)  # distances on fine bins; the last one for distances of values only


@dataclass(frozen=True)
class _Slice:
    """A slice of a column: its rows per bin (B,), and windows that are enough to judge by, (W, B).

    Attributes:
        independence: How many of its rows count as one.
        ordered: Whether its bins are intervals of numbers.
    """

    pooled: Ints
    windows: Ints
    independence: Independence
    ordered: bool


class References:
    """Slices of columns, with bins merged for windows of about one size; numbered as asked for.

    Args:
        metrics: The distances wanted.
        min_rows: Fewest rows of a baseline's window that counts; None if none is to be tested.
    """

    def __init__(self, metrics: tuple[str, ...], min_rows: int | None) -> None:
        self.merged = MergedBaselines(metrics)
        self.common = CommonBins()
        self.is_tested = min_rows is not None
        self.has_common = "chi_square" in metrics
        self._min_rows = min_rows
        self._numbers: dict[tuple[str, int], int] = {}
        self._slices: list[_Slice] = []
        self._plans: dict[tuple[int, int], tuple[int, int]] = {}
        self._windows: list[Ints] = []
        self._sizes: list[int] = []
        self._own = {metric: OwnWindows() for metric in metrics}

    def slices(self, column: ColumnBaseline, which: Ints) -> Ints:
        """Return the numbers of slices of a column, (C,)."""
        return np.array([self._slice(column, i) for i in which.tolist()], dtype=np.int64)

    def independence(self, slices: Ints) -> Independence:
        """Return how many rows count as one, in the slice of each of P windows."""
        some, place = np.unique(slices, return_inverse=True)
        return Independence.stack([self._slices[i].independence for i in some.tolist()], place)

    def windows(self, slices: Ints) -> Ints:
        """Return how many windows of its own each has that are enough to judge by, (P,)."""
        return np.array([len(self._slices[i].windows) for i in slices.tolist()], dtype=np.int64)

    def plans(self, slices: Ints, nodes: Ints) -> tuple[Ints, Ints]:
        """Return the numbers among `merged` of slices for windows of grid sizes `nodes`.

        Returns:
            By which an effect is shown, and by which it is tested, (P,) each; often the same.
        """
        keys = zip(slices.tolist(), nodes.tolist(), strict=True)
        found = np.array([self._plan(*key) for key in keys], dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def own(self, metric: str, numbers: Ints) -> OwnWindows:
        """Return the distances of the own windows of merged baselines, of these at least."""
        own = self._own[metric]
        new = own.missing(numbers)
        own.extend(
            new,
            [self._own_distance(metric, number) for number in new],
            [self._windows[number].sum(axis=1) for number in new],
            partial(self.merged.moments, metric),
        )
        return own

    def _slice(self, column: ColumnBaseline, which: int) -> int:
        key = column.name, which
        if key not in self._numbers:
            self._numbers[key] = len(self._slices)
            windows = column.bins.counts[column.pool.rows(which)]
            windows = windows[:0] if self._min_rows is None else enough(windows, self._min_rows)
            independence = Independence.fit(windows, ordered=column.ordered)
            found = _Slice(column.pooled[which], windows, independence, column.ordered)
            self._slices.append(found)
        return self._numbers[key]

    def _plan(self, number: int, node: int) -> tuple[int, int]:
        if (number, node) not in self._plans:
            self._plans[number, node] = self._add(self._slices[number], node)
        return self._plans[number, node]

    def _add(self, mine: _Slice, node: int) -> tuple[int, int]:
        pooled, ordered, rows = mine.pooled, mine.ordered, float(grid_size(node))
        size = round(rows)  # not of these windows: others may be with them
        if not self.is_tested:
            return (self._merge(mine, merge_plan(pooled, rows, ordered=ordered), size),) * 2
        shown = plan_at(pooled, node, ordered=ordered)
        tested = plan_at(pooled, mine.independence.plan_node(node, ordered), ordered=ordered)
        number = self._merge(mine, shown, size)
        is_same = np.array_equal(shown, tested)
        return number, number if is_same else self._merge(mine, tested, size)

    def _merge(self, mine: _Slice, labels: Ints, size: int) -> int:
        by = mine.independence.rows_per_value
        number = self.merged.add(labels, mine.pooled, by)
        self._windows.append(self.merged.merge(mine.windows, number))
        self._sizes.append(size)
        if self.has_common:
            self.common.add(labels, mine.pooled, mine.windows, size, mine.independence)
        return number

    def _own_distance(self, metric: str, number: int) -> Floats:
        windows, pooled = self._windows[number], self.merged.bins(number)
        grown = windows * _growth(windows.sum(axis=1), self._sizes[number], windows.shape[1])
        found: Floats = DISTANCES[metric](grown, pooled - windows) ** POWER[metric]
        return found


class FineReferences:
    """The fine bins of columns, by name, and distances on them; numbered as asked for."""

    def __init__(self, seed: int, min_rows: int) -> None:
        self.own = {metric: OwnWindows() for metric in ("ks", "area")}
        self._seed, self._min_rows = seed, min_rows
        self._numbers: dict[str, int] = {}
        self._pooled: list[Ints] = []
        self._distances: list[dict[str, Callable[[Ints, Ints], Floats]]] = []
        self._nulls: list[dict[str, KsNull | ShapeNull]] = []
        self._spreads: list[Spread] = []

    def number(self, column: ColumnBaseline) -> int:
        """Return the number of a column with fine bins."""
        if column.name not in self._numbers:
            fine = column.bins.fine
            assert fine is not None
            self._numbers[column.name] = len(self._nulls)
            self._add(fine[column.pool.rows(column.whole)])
        return self._numbers[column.name]

    def _add(self, windows: Ints) -> None:
        pooled, number = windows.sum(axis=0), len(self._nulls)
        shape = Shape(pooled)
        self._pooled.append(pooled)
        self._distances.append({"ks": ks, "smooth": shape.smooth, "area": shape.area})
        self._nulls.append({"ks": KsNull.fit(pooled, self._seed), **shape.nulls()})
        windows = enough(windows, self._min_rows)
        self._spreads.append(shape.spread(windows, pooled))
        for metric, own in self.own.items():
            distances = self._distances[-1][metric](windows, pooled - windows) ** POWER[metric]
            own.add(number, distances, self._nulls[-1][metric].moments(windows.sum(axis=1)))

    def spread_p(self, numbers: Ints, distances: Floats, n: Ints) -> tuple[Floats, Flags]:
        """Return the chance of ``smooth`` distances, (P,), by how well own windows know the spread.

        Returns:
            p-values, and whether the own windows of each stray too far for these, (P,).
        """
        p, is_wider = np.zeros(len(distances)), np.zeros(len(distances), dtype=bool)
        for number in np.unique(numbers).tolist():
            mine, spread = numbers == number, self._spreads[number]
            null = self._nulls[number]["smooth"]
            assert isinstance(null, ShapeNull)
            p[mine] = spread.p_value(distances[mine] / null.s(n[mine]))
            is_wider[mine] = spread.is_wider
        return p, is_wider

    def distances(self, metric: str, number: int, fine: Ints) -> Floats:
        """Return the distances of windows' rows per fine bin, (P, F), from a column."""
        return self._distances[number][metric](fine, self._pooled[number])

    def null(self, metric: str, numbers: Ints) -> KsNull | ShapeNull:
        """Return the null distributions of columns side by side."""
        some, place = np.unique(numbers, return_inverse=True)
        nulls = [self._nulls[i][metric] for i in some.tolist()]
        kind: Any = type(nulls[0])
        found: KsNull | ShapeNull = kind.stack(nulls, place)
        return found


def enough(windows: Ints, min_rows: int) -> Ints:
    """Return the windows with at least `min_rows` rows; none if they are too few to judge by."""
    kept: Ints = windows[windows.sum(axis=1) >= min_rows]
    return kept if len(kept) >= MIN_WINDOWS else kept[:0]


def _growth(sizes: Ints, n: int, bins: int) -> Floats:
    """Factor by which baseline windows are blown up, so that they are smoothed like n rows.

    Where all rows of a window share few values, its bins stay empty at any size, and the distance
    depends on how small the smoothing leaves them. Not for windows of under 5 rows a bin, whose
    empty bins are chance.
    """
    factor = np.where(sizes >= 5 * bins, np.maximum(n / sizes, 1.0), 1.0)
    return factor[:, None]
