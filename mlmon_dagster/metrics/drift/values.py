"""Values and p-values of windows beside their baselines, for all columns of a call together.

Of two tests taken together the smaller p counts twice (Bonferroni; Dunn, 1961). The other formulas
are those of `distances`, `null_distribution` and `between_windows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Flags, Floats, Ints, Positions
from mlmon_dagster.metrics.drift.between_windows import (
    FEWEST_VALUES,
    Independence,
    larger_of_windows,
    reference_distances,
    usual_limits,
)
from mlmon_dagster.metrics.drift.distances import psi_variance, smoothed_shares
from mlmon_dagster.metrics.drift.null_distribution import (
    DISTANCES,
    POWER,
    ROOT,
    Moments,
    gamma_tail,
)
from mlmon_dagster.metrics.drift.references import FineReferences, Pairs, References, chi_square_p
from mlmon_dagster.metrics.frames import MetricRows, joined_cells, stack_rows
from mlmon_dagster.spec.metric_registry import AUTO


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


def fill_binned(result: DriftResult, rows: Positions, sides: Sides, *, limits: bool) -> None:
    """Fill in a distance of merged bins.

    Args:
        result: Of one of `DISTANCES`.
        rows: Which of its cases have a value, (P,).
        sides: These cases.
        limits: Whether the largest usual effect is wanted.
    """
    metric, references = result.metric, sides.references
    by_place = sides.by_place.get(metric)
    shown = Distances(metric, references, sides.shown, by_place)
    result.value[rows], result.by_chance[rows] = shown.raw, shown.moments.bias
    if metric == "psi":
        variance = sides.shown.each(_psi_variance)
        result.half_width[rows] = 1.96 * np.sqrt(shown.moments.sd**2 + variance)
    if not references.is_tested:
        return
    if metric == "chi_square" and sides.common is not None:
        n = sides.tested.n
        result.p[rows] = chi_square_p(references.common, sides.common, n, sides.independence)
    else:
        is_same = sides.tested is sides.shown
        tested = shown if is_same else Distances(metric, references, sides.tested, by_place)
        result.p[rows] = tested.p_value(sides.independence)
    if limits:
        result.limit[rows] = shown.limits()


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
    *,
    limits: bool,
) -> None:
    """Fill in a distance of fine bins; `smooth` has no p where the baseline's windows stray by it.

    Args:
        result: Of one of `FINE`.
        rows: Which of its cases have a value, (P,).
        references: Their baselines.
        columns: Numbers of their columns there, (P,).
        raw: Their distances, (P,).
        independence: Of each one's baseline, (P,).
        limits: Whether the largest usual effect is wanted.
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
    if limits:
        result.limit[rows] = usual_limits(own, columns, moments, POWER[metric])


VERSION = "5"


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
        method: What the p-values rest on: rows, windows, or untested, (P,).
        value: The distance. by_chance: its mean without change. p: p-value. half_width: of the
            95 % interval. limit: the largest usual distance beyond chance. Each (P,), NaN until
            computed.
    """

    def __init__(self, metric: str, cases: Cases, method: NDArray[np.str_]) -> None:
        self.metric, self.cases, self.method = metric, cases, method
        self.reason = cases.reason
        self.value = np.full(len(cases.rows), np.nan)
        self.by_chance = np.full(len(cases.rows), np.nan)
        self.p = np.full(len(cases.rows), np.nan)
        self.half_width = np.full(len(cases.rows), np.nan)
        self.limit = np.full(len(cases.rows), np.nan)

    def as_limit(self) -> DriftResult:
        """Return how far beyond chance is unusual among the baseline's windows, as a metric."""
        windows = np.full(len(self.method), "windows")
        found = DriftResult(f"{self.metric}{AUTO}", self.cases, windows)
        found.value = self.limit
        few = np.isnan(self.limit) & (self.reason == "")
        found.reason = np.where(few, "few_baseline_windows", self.reason)
        return found

    def take(self, places: Positions | Flags) -> DriftResult:
        """Return the p-values and reasons of some of the cases."""
        found = DriftResult(self.metric, self.cases.take(places), self.method[places])
        found.reason, found.p = self.reason[places], self.p[places]
        return found


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
