"""Drift of columns: how far each window is from the baseline, and whether that is chance.

Of two tests taken together the smaller p counts twice (Bonferroni; Dunn, 1961). The other formulas
are those of `distances`, `null_distribution` and `between_windows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Flags, Floats, Ints, Positions
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.drift.between_windows import (
    FEWEST_VALUES,
    Independence,
    larger_of_windows,
    reference_distances,
)
from mlmon_dagster.metrics.drift.distances import (
    BY_CHANCE,
    OF_BINS,
    OF_VALUES,
    OfBins,
    Ordered,
    mean_and_spread,
    positions_of,
    psi_variance,
    smoothed_shares,
)
from mlmon_dagster.metrics.drift.null_distribution import (
    DISTANCES,
    POWER,
    ROOT,
    Moments,
    between_sizes,
    gamma_tail,
    grid_floor,
    grid_size,
)
from mlmon_dagster.metrics.drift.references import (
    FINE,
    ColumnBaseline,
    DriftBaseline,
    FineReferences,
    MergedBaselines,
    Pairs,
    References,
    SliceIndex,
    chi_square_p,
)
from mlmon_dagster.metrics.frames import MetricRows, concat_frames, joined_cells, stack_rows
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, select

VERSION = "5"
_DRAWS = 200  # windows without change, behind the mean of a distance
_LARGEST = float(np.finfo(np.float64).max)
_IN_UNITS = "wasserstein"  # of the column; what else compares values is in standard deviations
_AT_ONCE = 2_000_000  # numbers of all columns computed with together: bounds the memory


def columns_drift(
    columns: Mapping[str, ColumnStatistics],
    baseline: DriftBaseline,
    *,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """Distances of every window from the baseline, with the chance of them without a change.

    Cells of slice `all` get psi, jensen_shannon, chi_square and, for ordered columns, ks; other
    cells get psi. A cell is compared with the baseline's cells of the same slice. No result
    depends on which other windows or columns are computed with it, nor on earlier calls.

    Args:
        columns: Columns (numeric, categorical, score or confusion), each over cells of its own;
            looked at once where columns share the frame.
        baseline: Has the same columns.
        further: Distances and shifts beside those, of `distances.FURTHER`; slice `all`.

    Returns:
        MetricFrame. `value`: the distance as `distances` has it. `by_chance`: its mean without
        change at this n; what `value` is beyond that is judged, and may be negative. `lower`,
        `upper` (psi): 95 % interval for independent rows. `p_value`: row-level (gamma tail on the
        moments without change, Kolmogorov's for ks) and, if the slice has at least 14 baseline
        windows, the largest of that, the same with rows that share a value counted once, and the
        between-window p; of ordered columns at slice `all`, psi and jensen_shannon take twice the
        smaller of their own and that of ks, which sees shifts that many bins dilute.
        `method_version` ends in `rows` or `windows` accordingly. `reason` of a NaN: few_rows,
        no_baseline (slice not in the baseline), few_baseline_rows, few_independent_rows (too many
        rows share values, see `design_effect`), all_null (ks of a window without values; the other
        distances see nulls as a bin).

    Raises:
        ValueError: If the two sides have different binnings.
    """
    results = [
        result
        for some in _batches(_prepare(columns, baseline))
        for result in Comparison(some, baseline).results(further)
    ]
    if not results:
        return concat_frames([])
    names = [stats.binning.column for stats in columns.values()]
    return results_frame(names, [stats.cells for stats in columns.values()], results)


def _prepare(columns: Mapping[str, ColumnStatistics], baseline: DriftBaseline) -> list[Column]:
    """Look at the cells, once for all columns that share their frames."""
    indices: dict[int, SliceIndex] = {}
    slices: dict[tuple[int, int], Ints] = {}
    found = []
    for number, (name, stats) in enumerate(columns.items()):
        known = baseline.column(name)
        _refuse_other_bins(stats.binning, known.stats.binning)
        frame = id(stats.cells)
        if frame not in indices:
            indices[frame] = SliceIndex(stats.cells)
        both = frame, id(known.pool)
        if both not in slices:
            slices[both] = known.pool.numbers(indices[frame].names)
        found.append(Column(number, stats, known, indices[frame], slices[both]))
    return found


def _refuse_other_bins(mine: Binning, other: Binning) -> None:
    if mine.binning_id != other.binning_id:
        raise ValueError(
            f"Column {mine.column!r}: window and baseline have different bins "
            f"({mine.binning_id} and {other.binning_id}). "
            "Profile the windows again with the baseline's bins."
        )


def _batches(columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Split columns so that not too many numbers are held at once."""
    batch: list[Column] = []
    held = 0
    for column in columns:
        size = len(column.stats) * sum(column.baseline.bins.counts.shape)
        if batch and held + size > _AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(column)
        held += size
    if batch:
        yield batch


@dataclass(frozen=True)
class Cases:
    """Cells of columns to be compared with their baselines.

    Attributes:
        columns: Number of each case's column, (P,).
        rows: Positions of the cells, (P,).
        n: Rows of each cell. total: rows of its baseline.
        reason: Why it has no value, else empty.
    """

    columns: Ints
    rows: Positions
    n: Ints
    total: Ints
    reason: NDArray[np.str_]

    def take(self, places: Positions | Flags) -> Cases:
        """Return some of the cases."""
        return Cases(*(getattr(self, field.name)[places] for field in fields(self)))


class DriftResult:
    """One distance of P cases.

    Attributes:
        metric: Name of the distance.
        cases: What is compared.
        reason: Why a case has no value, else empty, (P,).
        method: What the p-values rest on: rows or windows, (P,).
        value: The distance. by_chance: its mean without change. p: p-value. half_width: of the
            95 % interval. Each (P,), NaN until computed.
    """

    def __init__(self, metric: str, cases: Cases, method: NDArray[np.str_]) -> None:
        self.metric, self.cases, self.method = metric, cases, method
        self.reason = cases.reason
        self.value, self.by_chance, self.p, self.half_width = (
            np.full(len(cases.rows), np.nan) for _ in range(4)
        )

    def take(self, places: Positions | Flags) -> DriftResult:
        """Return the p-values and reasons of some of the cases."""
        found = DriftResult(self.metric, self.cases.take(places), self.method[places])
        found.reason, found.p = self.reason[places], self.p[places]
        return found


@dataclass(frozen=True)
class Column:
    """One column of a call, with its baseline.

    Attributes:
        number: Among the call's columns.
        stats: Its statistics, C cells. baseline: those of the baseline.
        cells: Positions of the cells by slice.
        slices: Number of each cell's slice in the baseline, (C,).
    """

    number: int
    stats: ColumnStatistics
    baseline: ColumnBaseline
    cells: SliceIndex
    slices: Ints


class Comparison:
    """Some columns beside their baselines."""

    def __init__(self, columns: Sequence[Column], baseline: DriftBaseline) -> None:
        self._columns, self._baseline = columns, baseline
        self._bins = [column.baseline.drift_bins(column.stats) for column in columns]

    def results(self, further: Sequence[str]) -> list[DriftResult]:
        """Compute everything, in the order in which a column's results stand in the frame."""
        found = []
        whole = [column.cells.whole for column in self._columns]
        if any(map(len, whole)):
            found = self._binned(whole, self._baseline.whole, tuple(DISTANCES))
            metrics = FINE if set(further) & set(OF_VALUES) else FINE[:-1]
            known, fine = found[0], self._fine(found[0], metrics)
            _see_shape(found, fine)
            found += [fine["ks"]] if fine else []
            found += self._further(further, known, fine.get("area")) if further else []
        slices = [column.cells.slices for column in self._columns]
        if any(map(len, slices)):
            found += self._binned(slices, self._baseline.sliced, ("psi",))
        return found

    def _binned(
        self, rows: Sequence[Positions], references: References, metrics: tuple[str, ...]
    ) -> list[DriftResult]:
        """Return the distances of merged bins of some cells of every column."""
        counts = [bins.counts[mine] for bins, mine in zip(self._bins, rows, strict=True)]
        n = np.concatenate([mine.sum(axis=1) for mine in counts])
        which = [column.slices[mine] for column, mine in zip(self._columns, rows, strict=True)]
        total = [c.baseline.total[mine] for c, mine in zip(self._columns, which, strict=True)]
        cases = self._cases(rows, n, np.concatenate(total))
        slices = self._slices(which, cases.reason == "", references)
        cases = _refuse_few_values(cases, slices, references)
        method = np.full(len(n), "rows", dtype="<U8")
        usable = cases.reason == ""
        places = np.flatnonzero(usable)
        method[places[references.windows(slices[places]) > 0]] = "windows"
        results = [DriftResult(metric, cases, method) for metric in metrics]
        if len(places):
            kept = [mine[keep] for mine, keep in zip(counts, _split(usable, counts), strict=True)]
            is_whole = references is self._baseline.whole
            by_place = self._by_place(rows, usable, metrics) if is_whole else {}
            sides = _sides(references, kept, slices[places], grid_floor(n[places]), by_place)
            for result in results:
                fill_binned(result, places, sides)
        return results

    def _by_place(
        self, rows: Sequence[Positions], usable: Flags, metrics: Sequence[str]
    ) -> dict[str, Floats]:
        """Return what of each distance is a mere move of the usable cells, (P,)."""
        found: dict[str, list[Floats]] = {metric: [] for metric in metrics}
        parts = zip(self._columns, self._bins, rows, _split(usable, rows), strict=True)
        for column, bins, mine, keep in parts:
            cells = mine[keep]
            for metric, values in found.items():
                values.append(
                    np.zeros(len(cells))
                    if bins.fine is None
                    else self._baseline.whole.by_place(metric, column.baseline, bins.fine[cells])
                )
        return {metric: np.concatenate(values) for metric, values in found.items()}

    def _slices(self, which: Sequence[Ints], usable: Flags, references: References) -> Ints:
        """Return the numbers of the cells' slices among the references, -1 where not usable."""
        found = []
        for column, mine, keep in zip(self._columns, which, _split(usable, which), strict=True):
            numbers = np.full(len(mine), -1, dtype=np.int64)
            numbers[keep] = references.slices(column.baseline, mine[keep])
            found.append(numbers)
        return np.concatenate(found)

    def _cases(self, rows: Sequence[Positions], n: Ints, total: Ints) -> Cases:
        numbers = np.array([column.number for column in self._columns], dtype=np.int64)
        reason = np.select(
            [n < self._baseline.min_rows, total == 0, total < self._baseline.min_rows],
            ["few_rows", "no_baseline", "few_baseline_rows"],
            "",
        )
        columns = np.repeat(numbers, [len(mine) for mine in rows])
        return Cases(columns, np.concatenate(rows), n, total, reason)

    def _fine(self, known: DriftResult, metrics: Sequence[str]) -> dict[str, DriftResult]:
        """Return the distances on the fine bins of the ordered columns; `known` is psi of all."""
        ordered = [
            (column, bins.fine[column.cells.whole])
            for column, bins in zip(self._columns, self._bins, strict=True)
            if bins.fine is not None
        ]
        if not ordered:
            return {}
        cases, references = self._fine_cases(known.cases, ordered), self._baseline.fine
        kept = _split(cases.reason == "", [fine for _, fine in ordered])
        numbers, slices = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        among = [np.zeros(0)]
        raw: dict[str, list[Floats]] = {metric: [] for metric in metrics}
        for (column, fine), keep in zip(ordered, kept, strict=True):
            if keep.any():
                number, own = references.number(column.baseline), column.baseline
                numbers.append(np.full(int(keep.sum()), number))
                slices.append(self._baseline.whole.slices(own, np.full(keep.sum(), own.whole)))
                starts = column.stats.cells["window_start"].iloc[column.cells.whole[keep]]
                n = fine[keep].sum(axis=1)
                growth = self._baseline.whole.independence(slices[-1]).growth(n)
                among.append(references.stray_p(number, fine[keep], starts, growth))
                for metric, found in raw.items():
                    found.append(references.distances(metric, number, fine[keep]))
        places, mine = np.flatnonzero(cases.reason == ""), np.concatenate(numbers)
        method = np.full(len(cases.n), "rows", dtype="<U8")
        results = {metric: DriftResult(metric, cases, method) for metric in metrics}
        if len(places):
            method[places[references.own["ks"].sizes(mine) > 0]] = "windows"
            independence = self._baseline.whole.independence(np.concatenate(slices))
            for metric, result in results.items():
                distances = np.concatenate(raw[metric])
                fill_fine(result, places, references, mine, distances, independence)
            smooth = results["smooth"]
            smooth.p[places] = np.where(
                np.isnan(smooth.p[places]), np.concatenate(among), smooth.p[places]
            )
        return results

    def _fine_cases(self, cases: Cases, ordered: Sequence[tuple[Column, Ints]]) -> Cases:
        """Count the rows with a value only, which is what these distances see."""
        kept = cases.take(np.isin(cases.columns, [column.number for column, _ in ordered]))
        n = np.concatenate([fine.sum(axis=1) for _, fine in ordered])
        valued = [column.baseline.n_valued for column, _ in ordered]
        total = np.repeat(np.array(valued, np.int64), [len(fine) for _, fine in ordered])
        reason, least = kept.reason, self._baseline.min_rows
        for is_so, why in (
            (n == 0, "all_null"),
            (n < least, "few_rows"),
            (total < least, "few_baseline_rows"),
        ):
            reason = np.where((reason == "") & is_so, why, reason)
        return Cases(kept.columns, kept.rows, n, total, reason)

    def _further(
        self, names: Sequence[str], known: DriftResult, area: DriftResult | None
    ) -> list[DriftResult]:
        found = []
        for column, bins in zip(self._columns, self._bins, strict=True):
            mine = known.take(known.cases.columns == column.number)
            of_values = mine.p
            if area is not None and bins.fine is not None:
                alone = area.p[area.cases.columns == column.number]
                of_values = np.where(np.isnan(alone), mine.p, alone)
            if len(mine.p):
                counts, seed = bins.counts[column.cells.whole], self._baseline.seed
                found += _further_results(names, column, counts, mine, of_values, seed)
        return found


def _further_results(
    names: Sequence[str],
    column: Column,
    counts: Ints,
    known: DriftResult,
    of_values: Floats,
    seed: int,
) -> list[DriftResult]:
    """Compute distances and shifts that were asked for besides.

    They describe a change. Whether it is real is for the significance of psi, of the same column
    and window, to say: a change of the bins that psi counts, nulls included, is what most of them
    see. Those of values have that of ``area`` (see `smooth_distances`), which is made for these.

    Args:
        names: Some of `distances.FURTHER`.
        column: The column; the cells are those of `known`.
        counts: Rows of the cells per drift bin, (C, B).
        known: The psi of these cells, whose p-values and reasons are taken over.
        of_values: The p-values of distances and shifts of values, (C,).
        seed: Of the draws behind the mean of a distance without change.

    Returns:
        One result per name. Shifts are signed, and chance gives none. NaN with reason
        `not_ordered` or `constant_baseline` where a name means nothing for the column, and
        `all_null` without values.
    """
    rows = np.flatnonzero(known.reason == "")
    current = select(select(column.stats, known.cases.rows), rows)
    own = column.baseline
    then = select(own.stats, own.pool.rows(own.whole))
    results = []
    for name in names:
        result = DriftResult(name, known.cases, known.method)
        if len(rows):
            value, reason = np.full(len(rows), np.nan), "all_null"
            by_chance = value
            if name in OF_BINS:
                pooled, distance = own.pooled[own.whole], OF_BINS[name]
                value = distance(counts[rows], pooled)
                by_chance = _mean_without_change(distance, counts[rows].sum(axis=1), pooled, seed)
            else:
                value, by_chance, reason = _of_values(name, current, then, seed)
            result.value[rows], result.by_chance[rows] = value, by_chance
            p = of_values if name in OF_VALUES else known.p
            result.p[rows] = np.where(np.isnan(value), np.nan, p[rows])
            result.reason = known.reason.astype(object)
            result.reason[rows] = np.where(np.isnan(value), reason, "")
        results.append(result)
    return results


def _of_values(
    name: str, current: ColumnStatistics, baseline: ColumnStatistics, seed: int
) -> tuple[Floats, Floats, str]:
    """Return values, those that chance gives, and the reason of a NaN."""
    value, by_chance = np.full((2, len(current)), np.nan)
    mine, theirs = positions_of(current), positions_of(baseline)
    if mine is None or theirs is None:
        return value, by_chance, "not_ordered"
    positions, pooled = mine[0], theirs[1].sum(axis=0)
    spread = mean_and_spread(positions, pooled)[1]
    if not spread > 0 and name != _IN_UNITS:
        return value, by_chance, "constant_baseline"
    n = mine[1].sum(axis=1)
    some = np.flatnonzero(n > 0)
    if not len(some) or not pooled.sum():
        return value, by_chance, "all_null"

    def expected(distance: OfBins, bins: Ints) -> Floats:
        return _mean_without_change(distance, n[some], bins, seed)

    valued = select(current, some)
    ordered = Ordered(valued, baseline, positions, mine[1][some], pooled, expected)
    for numbers, formula in ((value, OF_VALUES[name]), (by_chance, BY_CHANCE.get(name))):
        if formula is not None:
            with np.errstate(over="ignore"):
                scaled = formula(ordered) / (1.0 if name == _IN_UNITS else spread)
            numbers[some] = np.clip(scaled, -_LARGEST, _LARGEST)
    return value, by_chance, "all_null"


def _mean_without_change(distance: OfBins, n: Ints, pooled: Ints, seed: int) -> Floats:
    """Return the mean distance of windows of n rows drawn from the baseline, (C,)."""
    sizes = n.astype(np.float64)
    below = grid_floor(sizes)
    nodes = np.unique(np.concatenate([below, below + 1]))
    shares = smoothed_shares(pooled)
    # Each size has draws of its own, so that a window is told the same whatever is beside it.
    means = [
        distance(
            np.random.default_rng([seed, node]).multinomial(round(float(size)), shares, _DRAWS),
            pooled,
        ).mean()
        for node, size in zip(nodes.tolist(), grid_size(nodes), strict=True)
    ]
    table = np.array(means)[:, None]
    low, high = table[np.searchsorted(nodes, below)], table[np.searchsorted(nodes, below + 1)]
    return between_sizes(sizes, below, low, high)[:, 0]


def _see_shape(binned: Sequence[DriftResult], fine: Mapping[str, DriftResult]) -> None:
    """Let psi and jensen_shannon see changes of place and width, of ordered columns.

    By `smooth`, place and width among the baseline's windows; else by ks.
    """
    if not fine:
        return
    smooth, ks = fine["smooth"], fine["ks"]
    p = np.where(np.isnan(smooth.p), ks.p, smooth.p)
    ordered = np.flatnonzero(np.isin(binned[0].cases.columns, ks.cases.columns))
    for result in binned:
        if result.metric in ("psi", "jensen_shannon"):
            result.p[ordered] = either(result.p[ordered], p)


def _refuse_few_values(cases: Cases, slices: Ints, references: References) -> Cases:
    """Give no value to windows of too few independent rows."""
    places = np.flatnonzero(cases.reason == "")
    if not len(places):
        return cases
    few = references.independence(slices[places]).too_few(cases.n[places])
    reason = cases.reason.astype(object)
    reason[places[few]] = "few_independent_rows"
    return replace(cases, reason=reason.astype(str))


def _sides(
    references: References,
    counts: Sequence[Ints],
    slices: Ints,
    nodes: Ints,
    by_place: Mapping[str, Floats],
) -> Sides:
    """Put the windows of all columns beside their baselines.

    Args:
        references: The baselines.
        counts: Per column the windows' rows per bin, P windows in all.
        slices: Numbers of their slices, (P,).
        nodes: Numbers of their grid sizes, (P,).
        by_place: What of each distance is a mere move, (P,).
    """

    def pairs(merged: MergedBaselines, numbers: Ints) -> Pairs:
        return merged.pairs(list(zip(counts, _split(numbers, counts), strict=True)))

    numbers, finer = references.plans(slices, nodes)
    shown = tested = pairs(references.merged, numbers)
    if not np.array_equal(numbers, finer):
        tested = pairs(references.merged, finer)
    common = pairs(references.common.merged, finer) if references.has_common else None
    return Sides(references, shown, tested, common, references.independence(slices), by_place)


def _split(values: np.ndarray, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cut values of all columns into those of each."""
    return np.split(values, np.cumsum([len(part) for part in parts])[:-1])


@dataclass(frozen=True)
class Sides:
    """P windows beside their baselines, whose bins are merged.

    Attributes:
        references: The baselines.
        shown: Merged as an effect is shown.
        tested: Merged as it is tested; the same object if no window differs.
        common: Of those the common bins; None where chi_square is not wanted.
        independence: Of each window's baseline, (P,).
        by_place: What of each distance is a mere move, to its power, (P,); see `Shape.by_place`.
    """

    references: References
    shown: Pairs
    tested: Pairs
    common: Pairs | None
    independence: Independence
    by_place: Mapping[str, Floats]


def fill_binned(result: DriftResult, rows: Positions, sides: Sides) -> None:
    """Fill in a distance of merged bins.

    Args:
        result: Of one of `DISTANCES`.
        rows: Which of its cases have a value, (P,).
        sides: These cases.
    """
    metric, references = result.metric, sides.references
    by_place = sides.by_place.get(metric)
    shown = Distances(metric, references, sides.shown, by_place)
    result.value[rows], result.by_chance[rows] = shown.raw, shown.moments.bias
    if metric == "psi":
        variance = sides.shown.each(_psi_variance)
        result.half_width[rows] = 1.96 * np.sqrt(shown.moments.sd**2 + variance)
    if metric == "chi_square" and sides.common is not None:
        n = sides.tested.n
        result.p[rows] = chi_square_p(references.common, sides.common, n, sides.independence)
    else:
        is_same = sides.tested is sides.shown
        tested = shown if is_same else Distances(metric, references, sides.tested, by_place)
        result.p[rows] = tested.p_value(sides.independence)


def _psi_variance(current: NDArray[np.generic], pooled: Ints) -> Floats:
    shares = smoothed_shares(current), smoothed_shares(pooled)
    return psi_variance(*shares, np.sum(current, axis=1), pooled.sum(axis=1))


def fill_fine(
    result: DriftResult,
    rows: Positions,
    references: FineReferences,
    columns: Ints,
    raw: Floats,
    independence: Independence,
) -> None:
    """Fill in a distance of fine bins; `smooth` has no p where the baseline's windows stray by it.

    Args:
        result: Of one of `FINE`.
        rows: Which of its cases have a value, (P,).
        references: Their baselines.
        columns: Numbers of their columns there, (P,).
        raw: Their distances, (P,).
        independence: Of each one's baseline, (P,).
    """
    metric, n = result.metric, result.cases.n[rows]
    null = references.null(metric, columns)
    moments = null.moments(n)
    result.value[rows], result.by_chance[rows] = raw, moments.bias
    fewer = replace(null, n_baseline=np.round(null.n_baseline / independence.rows_per_value))
    p = fewer.p_value(raw, independence.rows(n))
    if metric == "smooth":
        by_spread, is_wider = references.spread_p(columns, raw, n)
        strays = is_wider | independence.is_shared
        result.p[rows] = np.where(strays, np.nan, np.maximum(p, by_spread))
        return
    own, value = references.own[metric], raw ** POWER[metric]
    always = np.arange(len(raw))  # days that differ only in their mean hardly show in other bins
    result.p[rows] = larger_of_windows(p, own, columns, value, moments, always, root=ROOT[metric])


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

    def p_value(self, independence: Independence) -> Floats:
        """Return p-values (P,): the largest of those by rows, by values, and by windows.

        Args:
            independence: Of each window's baseline, (P,).
        """
        beyond = np.maximum(self.value - self._by_place, 0.0)
        p = gamma_tail(beyond / independence.rows_per_value, self.moments)
        needed = np.flatnonzero(independence.needs_windows(self.pairs.n))
        own, root = self.references.beyond_place[self.metric], ROOT[self.metric]
        baselines = self.pairs.baselines
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
            moments = self.references.merged.moments
            null = moments(self.metric, pairs.baselines, pairs.n, of_values=True)
            found[some] = gamma_tail(value, null)
        return found

    def _rank(self, independence: Independence) -> Floats:
        """Return the share of the baseline's windows as far off, the judged one counted in.

        0 unless a window holds so few values that distances are few, too.
        """
        found = np.zeros(len(self.value))
        coarse = np.flatnonzero(np.broadcast_to(independence.is_coarse, found.shape))
        own = self.references.own[self.metric]
        for rows, distances, null, persistence in own.beside(self.pairs.baselines[coarse]):
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


def results_frame(
    names: Sequence[str], frames: Sequence[pd.DataFrame], results: Sequence[DriftResult]
) -> pd.DataFrame:
    """Put the results of all columns into one MetricFrame; a frame a column costs far more.

    Args:
        names: Of the columns.
        frames: The cells of each column, which the cases' rows are positions in.
        results: At least one; of each column they stand in this order.
    """
    sizes = [len(result.value) for result in results]
    columns = np.concatenate([result.cases.columns for result in results])
    order = np.argsort(columns, kind="stable")
    cells, offsets = joined_cells(frames)
    rows = np.concatenate([result.cases.rows for result in results]) + offsets[columns]
    value = np.concatenate([result.value for result in results])
    lower = value - np.concatenate([result.half_width for result in results])
    metrics = [r.metric for r, size in zip(results, sizes, strict=True) for _ in range(size)]
    methods = np.concatenate([result.method for result in results]).tolist()
    versions = [f"{m}-{VERSION}:{method}" for m, method in zip(metrics, methods, strict=True)]
    reasons = np.concatenate([result.reason.astype(object) for result in results])
    places, of_case = order.tolist(), columns.tolist()
    found = MetricRows(
        cells.take(rows[order]),
        column_name=[names[of_case[i]] for i in places],
        metric=[metrics[i] for i in places],
        value=value[order],
        lower=lower[order],
        upper=(value + (value - lower))[order],  # as the store writes it, to the last bit
        n=np.concatenate([result.cases.n for result in results])[order],
        n_baseline=np.concatenate([result.cases.total for result in results])[order],
        p_value=np.concatenate([result.p for result in results])[order],
        by_chance=np.concatenate([result.by_chance for result in results])[order],
        reason=reasons[order],
        method_version=[versions[i] for i in places],
    )
    return stack_rows([found])


def with_outputs(profiles: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Return the columns with `prediction` and `actual` as categories, where there are decisions.

    Of a classifier's decisions, counted by actual. An actual counts once it has come. What a
    regression predicts is numeric already, and so is its actual, which counts likewise.
    """
    found = dict(profiles)
    if "actual" in found:
        numeric = found["actual"]
        n = numeric.counts.sum(axis=1)
        found["actual"] = replace(numeric, n=n, n_null=np.zeros_like(n))
    decisions = profiles.get("prediction")
    if decisions is None or decisions.binning.kind not in ("confusion", "classes"):
        return found
    if decisions.binning.kind == "confusion":
        split = label_counts(decisions.counts)
        names: tuple[str, ...] = ("0", "1")
        predicted, actual = split.sum(axis=2), split[:, :, 1:].sum(axis=1)
    else:
        matrix, unlabelled = class_counts(decisions.binning, decisions.counts)
        names = decisions.binning.categories
        known = len(names)
        by_prediction = matrix[:, : known + 1].sum(axis=2) + unlabelled
        predicted = by_prediction
        actual = np.column_stack(
            [matrix[:, :, :known].sum(axis=1), matrix[:, :, known:].sum(axis=(1, 2))]
        )
    found["prediction"] = _as_categories(decisions, "prediction", names, predicted, decisions.n)
    found["actual"] = _as_categories(decisions, "actual", names, actual, actual.sum(axis=1))
    return found


def _as_categories(
    decisions: ColumnStatistics, column: str, names: tuple[str, ...], counts: Ints, n: Ints
) -> ColumnStatistics:
    """Return counts (C, K) or (C, K + 1), the last of what is no class, as a categorical column."""
    size = len(names) + 2
    padded = np.zeros((len(counts), size), np.int64)
    padded[:, : len(names)] = counts[:, : len(names)]
    padded[:, size - 1] = counts[:, len(names) :].sum(axis=1)
    binning_id = f"{decisions.binning.binning_id}:{column}"
    binning = Binning(column, "categorical", size, binning_id, categories=names)
    none = np.zeros_like(n)
    return replace(
        decisions,
        binning=binning,
        counts=padded,
        n=n,
        n_null=n - padded.sum(axis=1),
        n_nan=none,
        n_inf=none,
        unseen=[],
    )
