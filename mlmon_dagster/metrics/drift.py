"""Drift of one column: how far each window is from the baseline, and whether that is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import MIN_WINDOWS, between_window_p, usual_limit
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.bins import DriftBins, drift_bins, is_ordered, score_groups
from mlmon_dagster.metrics.design_effect import Independence
from mlmon_dagster.metrics.distances import ks, psi_variance, smoothed_shares
from mlmon_dagster.metrics.drift_results import DriftResult, results_frame
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.further_drift import further_results
from mlmon_dagster.metrics.null import (
    DISTANCES,
    ROOT,
    KsNull,
    NullModel,
    grid_floor,
    grid_size,
)
from mlmon_dagster.metrics.significance import Comparison, Merged, either
from mlmon_dagster.metrics.slice_drift import pool_slices, slice_effects, slice_names
from mlmon_dagster.metrics.statistics import ALL, ColumnStatistics, select

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def drift_metrics(
    stats: ColumnStatistics,
    baseline: ColumnStatistics,
    *,
    seed: int,
    min_rows: int = 30,
    test_slices: bool = False,
    further: Sequence[str] = (),
    limits: bool = False,
) -> pd.DataFrame:
    """Distances of every window from the baseline, with the chance of them without a change.

    Cells of slice `all` get psi, jensen_shannon, chi_square and, for ordered columns, ks; other
    cells get psi. A cell is compared with the baseline's cells of the same slice.

    Args:
        stats: One column (numeric, categorical, score or confusion) over C cells.
        baseline: The same column; its cells are the baseline's windows.
        seed: Seed of the draws behind the mean of ks; the other distances draw nothing.
        min_rows: Fewest rows of a window, and of the baseline, for a value.
        limits: Whether to add what is usual among the baseline's windows, as `<metric>_auto`.
        further: Distances, shifts and deltas beside those, of `further_drift.FURTHER`; slice `all`.
        test_slices: Whether the cells of slices get a p-value too, which costs far more.

    Returns:
        MetricFrame. `value`: the distance less its mean without change at this n, so 0 means
        "no more than sampling" and negative values occur. `lower`, `upper` (psi): 95 % interval
        for independent rows. `p_value`: row-level (gamma tail on the moments without change,
        Kolmogorov's for ks) and, if the slice has at least 14 baseline windows, the largest of
        that, the same with rows that share a value counted once, and the between-window p; of
        ordered columns at slice `all`, psi and jensen_shannon take twice the smaller of their own
        and that of ks, which sees shifts that many bins dilute. `method_version` ends in `rows` or
        `windows` accordingly, and in `untested` for cells of slices without `test_slices`, which
        have no p. `reason` of a NaN: few_rows, no_baseline (slice not in the baseline),
        few_baseline_rows, few_independent_rows (too many rows share values, see
        `design_effect`), all_null (ks of a window without values; the other distances see nulls as
        a bin).

    Raises:
        ValueError: If the two sides have different binnings.
    """
    if stats.binning.binning_id != baseline.binning.binning_id:
        raise ValueError(
            f"Column {stats.binning.column!r}: window and baseline have different bins "
            f"({stats.binning.binning_id} and {baseline.binning.binning_id}). "
            "Profile the windows again with the baseline's bins."
        )
    context = _Context(stats, baseline, seed, min_rows, tuple(further), limits)
    whole = (stats.cells["slice_key"] == ALL).to_numpy()
    results = _slice_drift(context, np.flatnonzero(whole), ALL, ALL) if whole.any() else []
    slices = np.flatnonzero(~whole)
    if test_slices:
        names = slice_names(stats.cells.iloc[slices])
        for positions in names.groupby(names.to_numpy()).indices.values():
            rows = slices[positions]
            key, value = (stats.cells[name].iloc[rows[0]] for name in ("slice_key", "slice_value"))
            results += _slice_drift(context, rows, key, value)
    elif len(slices):
        results.append(_untested_slices(context, slices))
    return results_frame(context.column, context.cells, results) if results else concat_frames([])


class _Context:
    """What all slices of one call share."""

    def __init__(
        self,
        stats: ColumnStatistics,
        baseline: ColumnStatistics,
        seed: int,
        min_rows: int,
        further: tuple[str, ...],
        limits: bool,
    ) -> None:
        self.stats, self.baseline = stats, baseline
        self.further, self.limits = further, limits
        self.column = stats.binning.column
        self.cells = stats.cells
        self.seed, self.min_rows = seed, min_rows
        self.ordered = is_ordered(stats.binning)
        groups: Ints | None = None
        if stats.binning.kind == "score":
            whole = baseline.counts[_slice_rows(baseline.cells, ALL, ALL)]
            groups = score_groups(label_counts(whole).sum(axis=(0, 2)))
        self.current = drift_bins(stats, groups)
        self.reference = drift_bins(baseline, groups)
        self.baseline_cells = baseline.cells


@dataclass(frozen=True)
class _Side:
    """One slice: its cells, window bins (C, B), baseline window bins (W, B), and their sum (B,)."""

    rows: NDArray[np.intp]
    current: DriftBins
    windows: DriftBins
    pooled: Ints


def _slice_rows(cells: pd.DataFrame, key: object, value: object) -> NDArray[np.intp]:
    """Rows of a slice: of model version `all` if the frame has that, else of all versions."""
    mine = (cells["slice_key"] == key) & (cells["slice_value"] == value)
    whole = mine & (cells["model_version"] == ALL)
    return np.flatnonzero((whole if whole.any() else mine).to_numpy())


def _slice_drift(
    context: _Context, rows: NDArray[np.intp], key: object, value: object
) -> list[DriftResult]:
    whole = bool(key == ALL)
    base = _slice_rows(context.baseline_cells, key, value)
    side = _Side(
        rows,
        _take(context.current, rows),
        _take(context.reference, base),
        context.reference.counts[base].sum(axis=0),
    )
    n, total = side.current.counts.sum(axis=1), int(side.pooled.sum())
    reason = _reasons(n, np.full(len(n), total), context.min_rows)
    windows = _enough_windows(side.windows.counts, context.min_rows)
    independence = Independence.fit(windows, ordered=context.ordered)
    reason = np.where((reason == "") & independence.too_few(n), "few_independent_rows", reason)
    metrics = tuple(DISTANCES) if whole else ("psi",)
    results = {metric: DriftResult(metric, rows, n, total, reason) for metric in metrics}
    null = NullModel(side.pooled, context.ordered, metrics)
    _binned_distances(results, side, null, windows, independence)
    found = list(results.values())
    if whole and side.current.fine is not None:
        shape = _ks(context, side, reason, independence)
        for metric in ("psi", "jensen_shannon"):
            results[metric].p = either(results[metric].p, shape.p)
        found.append(shape)
    if whole and context.limits:
        found += [result.as_limit() for result in found]
    if whole and context.further:
        bins, then = (side.current.counts, side.pooled), select(context.baseline, base)
        known = results["psi"]
        found += further_results(context.further, context.stats, then, bins, known, context.seed)
    return found


def _untested_slices(context: _Context, rows: NDArray[np.intp]) -> DriftResult:
    """Psi of the cells of slices with its interval, without a p-value."""
    owner, names = pd.factorize(slice_names(context.cells.iloc[rows]))
    pooled = pool_slices(context.baseline_cells, context.reference.counts, np.asarray(names))
    current = context.current.counts[rows]
    n, total = current.sum(axis=1), pooled.sum(axis=1)[owner]
    reason = _reasons(n, total, context.min_rows)
    result = DriftResult("psi", rows, n, total, reason, "untested")
    usable = reason == ""
    result.effect[usable], result.half_width[usable] = slice_effects(
        current[usable], pooled, owner[usable], ordered=context.ordered
    )
    return result


def _reasons(n: Ints, total: Ints, min_rows: int) -> NDArray[np.str_]:
    """Say why a cell of n rows has no value against a baseline of `total`; empty if it has."""
    return np.select(
        [n < min_rows, total == 0, total < min_rows],
        ["few_rows", "no_baseline", "few_baseline_rows"],
        "",
    )


def _take(bins: DriftBins, rows: NDArray[np.intp]) -> DriftBins:
    return DriftBins(bins.counts[rows], None if bins.fine is None else bins.fine[rows])


def _binned_distances(
    results: dict[str, DriftResult],
    side: _Side,
    null: NullModel,
    windows: Ints,
    independence: Independence,
) -> None:
    """Fill in the distances of the null model, batching the cells of about equal size."""
    psi = results["psi"]
    usable = np.flatnonzero(psi.reason == "")
    nodes = grid_floor(psi.n[usable])
    for node in np.unique(nodes):
        rows = usable[nodes == node]
        size = round(float(grid_size(node)))  # not of these windows: others may be with them
        plan, finer = (
            null.plan(int(node)),
            null.plan(independence.plan_node(int(node), null.ordered)),
        )
        bins = Merged(plan, side.current.counts[rows], side.pooled, windows)
        other = bins
        if not np.array_equal(plan, finer):
            other = Merged(finer, side.current.counts[rows], side.pooled, windows)
        for result in results.values():
            shown = Comparison(result.metric, bins, null, size)
            tested = shown if other is bins else Comparison(result.metric, other, null, size)
            _fill(result, rows, shown)
            result.p[rows] = tested.p_value(independence)


def _enough_windows(counts: Ints, min_rows: int) -> Ints:
    kept: Ints = counts[counts.sum(axis=1) >= min_rows]
    return kept if len(kept) >= MIN_WINDOWS else kept[:0]


def _fill(result: DriftResult, rows: NDArray[np.intp], found: Comparison) -> None:
    moments, bins = found.moments, found.bins
    result.effect[rows] = found.raw - moments.bias
    if len(bins.windows):
        result.method = "windows"
        result.limit[rows] = usual_limit(moments, found.own, found.own_moments, found.power)
    if result.metric == "psi":
        shares = smoothed_shares(bins.current), smoothed_shares(bins.pooled)
        variance = psi_variance(*shares, bins.current.sum(axis=1), bins.pooled.sum())
        result.half_width[rows] = 1.96 * np.sqrt(moments.sd**2 + variance)


def _ks(
    context: _Context, side: _Side, reason: NDArray[np.str_], independence: Independence
) -> DriftResult:
    current, windows = side.current.fine, side.windows.fine
    assert current is not None
    assert windows is not None
    pooled = windows.sum(axis=0)
    n, total = current.sum(axis=1), int(pooled.sum())
    reason = np.where((reason == "") & (n == 0), "all_null", reason)
    reason = np.where((reason == "") & (n < context.min_rows), "few_rows", reason)
    if total < context.min_rows:
        reason = np.where(reason == "", "few_baseline_rows", reason)
    rows = np.flatnonzero(reason == "")
    result = DriftResult("ks", side.rows, n, total, reason)
    if len(rows):
        null = KsNull.fit(pooled, context.seed)
        raw = ks(current[rows], pooled)
        moments = null.moments(n[rows])
        result.effect[rows] = raw - moments.bias
        fewer = replace(null, n_baseline=round(total / independence.rows_per_value))
        p = fewer.p_value(raw, independence.rows(n[rows]))
        windows = _enough_windows(windows, context.min_rows)
        if len(windows):
            result.method = "windows"
            own = ks(windows, pooled - windows) ** 2
            own_null = null.moments(windows.sum(axis=1))
            # always: days that differ only in their mean hardly show in the other bins
            p = np.maximum(p, between_window_p(raw**2, moments, own, own_null, root=ROOT["ks"]))
            result.limit[rows] = usual_limit(moments, own, own_null, 2.0)
        result.p[rows] = p
    return result
