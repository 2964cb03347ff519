"""Slices of a baseline as windows of about one size are compared with them, and tested.

A distance takes arrays of one shape, but columns differ in their bins. So windows are grouped by
their number of bins, whichever columns they are of: nothing is padded, and a call for thirty
columns costs little more than one for a single column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints, Positions, stack_fields
from mlmon_dagster.metrics.binnings import (
    DriftBins,
    drift_bins,
    is_ordered,
    label_counts,
    merge_bins,
    score_groups,
)
from mlmon_dagster.metrics.drift.between_windows import (
    Independence,
    OwnWindows,
    Persistence,
    Strays,
    larger_of_windows,
    persistence_of_counts,
)
from mlmon_dagster.metrics.drift.distances import chi_square, ks
from mlmon_dagster.metrics.drift.null_distribution import (
    DISTANCES,
    POWER,
    KsNull,
    Moments,
    NullTables,
    gamma_tail,
    grid_size,
    plan_at,
)
from mlmon_dagster.metrics.drift.smooth_distances import (
    SHAPES,
    Shape,
    ShapeNull,
    Spread,
    WidthByPlace,
)
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import ALL

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
    groups: tuple[tuple[Positions, NDArray[np.int64 | np.float64], Ints], ...]

    def each(self, function: Callable[..., Floats]) -> Floats:
        """Apply a function of rows per bin, of windows and of baselines, to all pairs: (P,)."""
        found = np.full(len(self.baselines), np.nan)
        for rows, current, pooled in self.groups:
            found[rows] = function(current, pooled)
        return found

    def take(self, places: Positions) -> Pairs:
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

    def moments(
        self, metric: str, numbers: Ints, n: Floats | Ints, *, of_values: bool = False
    ) -> Moments:
        """Moments of a distance of windows of n rows from baselines, (P,) each.

        With `of_values` each value that rows share counts as one row, on both sides.
        """
        null = self._of_values if of_values else self._of_rows
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
        self.own = OwnWindows(self._describe, partial(self.merged.moments, "chi_square"))
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

    def rows(self, baselines: Ints) -> tuple[Ints, Ints, Flags]:
        """Return the rows of baselines, those in rare bins, and whether any bin is rare, (P,)."""
        found = np.array([self._rows[i] for i in baselines.tolist()], dtype=np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2] > 0

    def _describe(self, number: int) -> tuple[Floats, Ints, Persistence]:
        mine = self._windows[number]
        distances = chi_square(mine, self.merged.bins(number) - mine)
        return distances, mine.sum(axis=1), self._persistence[number]


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
    p = gamma_tail(value, common.merged.moments("chi_square", baselines, rows, of_values=True))
    needed = np.flatnonzero(independence.needs_windows(n))
    if not len(needed):
        return p
    value = np.where(n > 0, pairs.each(chi_square), 0.0)
    moments = common.merged.moments("chi_square", baselines, n)
    return larger_of_windows(p, common.own, baselines, value, moments, needed)


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


FINE = ("ks", *SHAPES)  # distances on fine bins; the last one for distances of values only


@dataclass(frozen=True)
class _Slice:
    """A slice of a column: its rows per bin (B,), and windows that are enough to judge by, (W, B).

    Attributes:
        independence: How many of its rows count as one.
        persistence: Of its windows in time.
        by_place: Of each distance what of it is a mere move of these windows, (W,); none where
            they do not differ in place.
        ordered: Whether its bins are intervals of numbers.
    """

    pooled: Ints
    windows: Ints
    independence: Independence
    persistence: Persistence
    by_place: Mapping[str, Floats]
    ordered: bool


class _Merge(NamedTuple):
    """A slice, its windows in merged bins, (W, B), and the size of windows these are made for."""

    of: _Slice
    windows: Ints
    size: int


class References:
    """Slices of columns, with bins merged for windows of about one size; numbered as asked for.

    Args:
        metrics: The distances wanted.
        min_rows: Fewest rows of a baseline's window that counts.
        fine: Knows of the slice `all` of ordered columns whether its windows differ in place.
    """

    def __init__(
        self,
        metrics: tuple[str, ...],
        min_rows: int,
        fine: FineReferences | None = None,
    ) -> None:
        self._fine = fine
        self.merged = MergedBaselines(metrics)
        self.common = CommonBins()
        self.has_common = "chi_square" in metrics
        self._min_rows = min_rows
        self._numbers: dict[tuple[str, int], int] = {}
        self._slices: list[_Slice] = []
        self._plans: dict[tuple[int, int], tuple[int, int]] = {}
        self._merges: list[_Merge] = []
        self.own = {metric: self._own_windows(metric, False) for metric in metrics}
        self.beyond_place = {metric: self._own_windows(metric, True) for metric in metrics}

    def slices(self, column: ColumnBaseline, which: Ints) -> Ints:
        """Return the numbers of slices of a column, (C,)."""
        return np.array([self._slice(column, i) for i in which.tolist()], dtype=np.int64)

    def independence(self, slices: Ints) -> Independence:
        """Return how many rows count as one, in the slice of each of P windows."""
        some, place = np.unique(slices, return_inverse=True)
        each = [self._slices[i].independence for i in some.tolist()]
        found: Independence = stack_fields(each, place)
        return found

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

    def _own_windows(self, metric: str, beyond_place: bool) -> OwnWindows:
        """Return the own windows of merged baselines; maybe less what a mere move makes."""

        def describe(number: int) -> tuple[Floats, Ints, Persistence]:
            mine = self._merges[number]
            distances = self._own_distance(metric, number, beyond_place)
            return distances, mine.windows.sum(axis=1), mine.of.persistence

        return OwnWindows(describe, partial(self.merged.moments, metric))

    def _slice(self, column: ColumnBaseline, which: int) -> int:
        key = column.name, which
        if key not in self._numbers:
            self._numbers[key] = len(self._slices)
            rows = column.pool.rows(which)
            counts = column.bins.counts[rows]
            by_place: dict[str, Floats] = {}
            kept = enough(counts, self._min_rows)
            windows, starts = counts[kept], column.starts(rows[kept])
            independence = Independence.fit(windows, ordered=column.ordered)
            fine = column.bins.fine
            if self._fine is not None and which == column.whole and fine is not None and len(kept):
                by_place = self._fine.by_place(column, fine[rows[kept]], independence)
            found = _Slice(
                column.pooled[which],
                windows,
                independence,
                persistence_of_counts(windows, starts, ordered=column.ordered),
                by_place,
                column.ordered,
            )
            self._slices.append(found)
        return self._numbers[key]

    def _plan(self, number: int, node: int) -> tuple[int, int]:
        if (number, node) not in self._plans:
            self._plans[number, node] = self._add(self._slices[number], node)
        return self._plans[number, node]

    def _add(self, mine: _Slice, node: int) -> tuple[int, int]:
        pooled, ordered = mine.pooled, mine.ordered
        size = round(float(grid_size(node)))  # not of these windows: others may be with them
        shown = plan_at(pooled, node, ordered=ordered)
        tested = plan_at(pooled, mine.independence.plan_node(node, ordered), ordered=ordered)
        number = self._merge(mine, shown, size)
        is_same = np.array_equal(shown, tested)
        return number, number if is_same else self._merge(mine, tested, size)

    def _merge(self, mine: _Slice, labels: Ints, size: int) -> int:
        by = mine.independence.rows_per_value
        number = self.merged.add(labels, mine.pooled, by)
        self._merges.append(_Merge(mine, self.merged.merge(mine.windows, number), size))
        if self.has_common:
            self.common.add(
                labels, mine.pooled, mine.windows, size, mine.independence, mine.persistence
            )
        return number

    def by_place(self, metric: str, column: ColumnBaseline, fine: Ints) -> Floats:
        """Return what of a distance is a mere move of windows, (C, F), of a column's whole: (C,).

        0 where the baseline's windows do not differ in place.
        """
        mine = self._slices[self._slice(column, column.whole)]
        if metric not in mine.by_place or self._fine is None:
            return np.zeros(len(fine))
        return self._fine.by_place(column, fine, mine.independence)[metric]

    def _own_distance(self, metric: str, number: int, beyond_place: bool) -> Floats:
        of, windows, size = self._merges[number]
        grown = windows * _growth(windows.sum(axis=1), size, windows.shape[1])
        rest = self.merged.bins(number) - windows
        found: Floats = DISTANCES[metric](grown, rest) ** POWER[metric]
        by_place = of.by_place.get(metric) if beyond_place else None
        return found if by_place is None else np.maximum(found - by_place, 0.0)


class _FineColumn(NamedTuple):
    """The fine bins of a column.

    Attributes:
        pooled: Rows of the baseline per fine bin, (F,).
        windows: Those of its windows that are enough to judge by, (W, F).
        shape: Scores of the bins.
        nulls: Distance -> how it is distributed without change. smooth: that of `smooth`.
        spread: Whether the windows stray by `smooth`.
        persistence: Of the windows in time.
        places: Their places and widths; None without windows.
    """

    pooled: Ints
    windows: Ints
    shape: Shape
    nulls: Mapping[str, KsNull | ShapeNull]
    smooth: ShapeNull
    spread: Spread
    persistence: Persistence
    places: _Places | None

    def distance(self, metric: str, fine: Ints, baseline: Ints) -> Floats:
        """Return the distances of rows per fine bin, (P, F), from those of a baseline."""
        formulas = {"ks": ks, "smooth": self.shape.smooth, "area": self.shape.area}
        return formulas[metric](fine, baseline)


class FineReferences:
    """The fine bins of columns, by name, and distances on them; numbered as asked for."""

    def __init__(self, seed: int, min_rows: int) -> None:
        self.own = {
            metric: OwnWindows(partial(self._describe, metric), partial(self._moments, metric))
            for metric in ("ks", "area")
        }
        self._seed, self._min_rows = seed, min_rows
        self._numbers: dict[str, int] = {}
        self._columns: list[_FineColumn] = []

    def number(self, column: ColumnBaseline) -> int:
        """Return the number of a column with fine bins."""
        if column.name not in self._numbers:
            fine = column.bins.fine
            assert fine is not None
            self._numbers[column.name] = len(self._columns)
            rows = column.pool.rows(column.whole)
            self._columns.append(self._look_at(fine[rows], column.starts(rows)))
        return self._numbers[column.name]

    def _look_at(self, windows: Ints, starts: pd.Series) -> _FineColumn:
        pooled, kept = windows.sum(axis=0), enough(windows, self._min_rows)
        shape, windows, starts = Shape(pooled), windows[kept], starts.iloc[kept]
        smooth, area = shape.nulls()
        coarse = merge_bins(windows, score_groups(pooled))
        return _FineColumn(
            pooled,
            windows,
            shape,
            {"ks": KsNull.fit(pooled, self._seed), "smooth": smooth, "area": area},
            smooth,
            shape.spread(windows, pooled),
            persistence_of_counts(coarse, starts, ordered=True),
            _Places(shape, windows, starts) if len(windows) else None,
        )

    def _describe(self, metric: str, number: int) -> tuple[Floats, Ints, Persistence]:
        mine = self._columns[number]
        distances = mine.distance(metric, mine.windows, mine.pooled - mine.windows)
        return distances ** POWER[metric], mine.windows.sum(axis=1), mine.persistence

    def _moments(self, metric: str, numbers: Ints, n: Ints) -> Moments:
        # Column by column: a power of one number is rounded otherwise than one of many.
        found = np.zeros((len(Moments._fields), len(n)))
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            found[:, mine] = self._columns[number].nulls[metric].moments(n[mine])
        return Moments(*found)

    def spread_p(self, numbers: Ints, distances: Floats, n: Ints) -> tuple[Floats, Flags]:
        """Return the chance of ``smooth`` distances, (P,), by how well own windows know the spread.

        Returns:
            p-values, and whether the own windows of each stray too far for these, (P,).
        """
        p, is_wider = np.zeros(len(distances)), np.zeros(len(distances), dtype=bool)
        for number in np.unique(numbers).tolist():
            mine, column = numbers == number, self._columns[number]
            p[mine] = column.spread.p_value(distances[mine] / column.smooth.s(n[mine]))
            is_wider[mine] = column.spread.is_wider
        return p, is_wider

    def by_place(
        self, column: ColumnBaseline, fine: Ints, independence: Independence
    ) -> dict[str, Floats]:
        """Return of each distance what a mere move of windows, (C, F), makes, to its power: (C,).

        Nothing where the column's own windows do not differ in place, or are too few to tell.
        """
        mine = self._columns[self.number(column)]
        differs = mine.spread.is_wider or bool(independence.is_shared)
        if not differs or mine.places is None:
            return {}
        return {m: mine.shape.by_place(f, fine) ** POWER[m] for m, f in DISTANCES.items()}

    def stray_p(self, number: int, fine: Ints, starts: pd.Series, growth: Floats | float) -> Floats:
        """Return the chance of a place or width as far from those of a column's own windows.

        Args:
            number: Of the column.
            fine: Rows per fine bin of P windows, (P, F).
            starts: Their starts.
            growth: As of `Strays`.

        Returns:
            (P,), of both together (Bonferroni); NaN without own windows.
        """
        places = self._columns[number].places
        if places is None:
            return np.full(len(fine), np.nan)
        return places.p_value(fine, starts, growth)

    def distances(self, metric: str, number: int, fine: Ints) -> Floats:
        """Return the distances of windows' rows per fine bin, (P, F), from a column."""
        mine = self._columns[number]
        return mine.distance(metric, fine, mine.pooled)

    def null(self, metric: str, numbers: Ints) -> KsNull | ShapeNull:
        """Return the null distributions of columns side by side."""
        some, place = np.unique(numbers, return_inverse=True)
        nulls = [self._columns[i].nulls[metric] for i in some.tolist()]
        found: KsNull | ShapeNull = stack_fields(nulls, place)
        return found


class _Places:
    """Place and width of a column's own windows, and the chance of others as far off.

    Args:
        shape: Of the baseline.
        windows: Rows per fine bin, (W, F).
        starts: Their starts.
    """

    def __init__(self, shape: Shape, windows: Ints, starts: pd.Series) -> None:
        self._shape = shape
        scores, noise = shape.place_and_width(windows).T, _score_noise(windows)
        self._strays = [Strays(values, noise, starts) for values in scores[:1]]
        if len(scores) > 1:
            self._by_place = WidthByPlace(*scores)
            self._strays.append(Strays(self._by_place.beside(*scores), noise, starts))

    def p_value(self, fine: Ints, starts: pd.Series, growth: Floats | float) -> Floats:
        """Do what `FineReferences.stray_p` says, of one column."""
        scores, noise = self._shape.place_and_width(fine).T, _score_noise(fine)
        found = [own.p_value(scores[0], noise, starts, growth) for own in self._strays[:1]]
        for own in self._strays[1:]:
            width = self._by_place.beside(*scores)
            unsure = growth * (1 + self._by_place.uncertainty(scores[0]))
            found.append(own.p_value(width, noise, starts, unsure))
        if not found:
            return np.ones(len(fine))
        both: Floats = np.minimum(np.min(found, axis=0) * len(found), 1.0)
        return both


def _score_noise(fine: Ints) -> Floats:
    """Return the variance of a mean of standardised scores of independent rows, (C,)."""
    found: Floats = 1 / np.maximum(fine.sum(axis=1), 1)
    return found


def enough(windows: Ints, min_rows: int) -> Positions:
    """Return which windows have at least `min_rows` rows; none if those are too few to judge by."""
    kept = np.flatnonzero(windows.sum(axis=1) >= min_rows)
    return kept if len(kept) >= MIN_WINDOWS else kept[:0]


def _growth(sizes: Ints, n: int, bins: int) -> Floats:
    """Factor by which baseline windows are blown up, so that they are smoothed like n rows.

    Where all rows of a window share few values, its bins stay empty at any size, and the distance
    depends on how small the smoothing leaves them. Not for windows of under 5 rows a bin, whose
    empty bins are chance.
    """
    factor = np.where(sizes >= 5 * bins, np.maximum(n / sizes, 1.0), 1.0)
    return factor[:, None]


WHOLE = f"{ALL}\0{ALL}"


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

    def starts(self, cells: Positions) -> pd.Series:
        """Return the starts of the windows of some of its cells."""
        return self.stats.cells["window_start"].iloc[cells]

    def drift_bins(self, stats: ColumnStatistics) -> DriftBins:
        """Collapse the codes of windows into the bins of this baseline."""
        return drift_bins(stats, self._groups)


class SliceIndex:
    """The slices of one frame of cells.

    Args:
        cells: Frame of C rows with the columns ``CELL_KEYS``.

    Attributes:
        cells: That frame.
        names: One text per cell that names its slice.
        whole: Positions of the cells of slice ``all``. slices: of the others.
    """

    def __init__(self, cells: pd.DataFrame) -> None:
        self.cells = cells
        keys, values = cells["slice_key"].tolist(), cells["slice_value"].tolist()
        self.names = [f"{key}\0{value}" for key, value in zip(keys, values, strict=True)]
        is_whole = np.array([key == ALL for key in keys], dtype=bool)
        self.whole, self.slices = np.flatnonzero(is_whole), np.flatnonzero(~is_whole)


class SlicePool:
    """A baseline's cells by slice: of model version ``all`` where a slice has that, else of all.

    Slices have numbers 0 to S - 1; number S stands for every slice that the baseline lacks.

    Args:
        index: Of the baseline's cells.
    """

    def __init__(self, index: SliceIndex) -> None:
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(index.names))}
        of_cell = self.numbers(index.names)
        whole = np.array([v == ALL for v in index.cells["model_version"].tolist()], dtype=bool)
        has_whole = np.zeros(len(self._numbers) + 1, dtype=bool)
        has_whole[of_cell[whole]] = True
        kept = np.flatnonzero(whole | ~has_whole[of_cell])
        self._order = kept[np.argsort(of_cell[kept], kind="stable")]
        ends = np.arange(len(self._numbers) + 2)
        self._starts = np.searchsorted(of_cell[self._order], ends)

    def numbers(self, names: list[str]) -> Ints:
        """Return the number of each slice by its name."""
        missing = len(self._numbers)
        return np.array([self._numbers.get(name, missing) for name in names], dtype=np.int64)

    def rows(self, number: int) -> Positions:
        """Return the positions of a slice's cells, ascending; none of number S."""
        return self._order[self._starts[number] : self._starts[number + 1]]

    def pool(self, counts: Ints) -> Ints:
        """Sum the cells (C, B) of every slice: rows per bin, (S + 1, B), the last row 0."""
        pooled = np.zeros((len(self._numbers) + 1, counts.shape[1]), dtype=np.int64)
        if len(self._order):
            pooled[:-1] = np.add.reduceat(counts[self._order], self._starts[:-2], axis=0)
        return pooled


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
        self.fine = FineReferences(seed, min_rows)
        self.whole = References(tuple(DISTANCES), min_rows, self.fine)
        self.sliced = References(("psi",), min_rows)
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
