"""Drift of one column: how far each window is from the baseline, and whether that is chance."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import MIN_WINDOWS, between_window_p
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.bins import DriftBins, drift_bins, is_ordered, merge_bins, score_groups
from mlmon_dagster.metrics.distances import ks, smoothed_shares
from mlmon_dagster.metrics.frames import concat_frames, metric_frame
from mlmon_dagster.metrics.null import (
    DISTANCES,
    POWER,
    ROOT,
    KsNull,
    NullModel,
    gamma_tail,
    grid_floor,
    grid_size,
)
from mlmon_dagster.metrics.statistics import ALL, ColumnStatistics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
VERSION = "1"
_DRAWS_ALL, _DRAWS_SLICE = 2000, 400


def drift_metrics(
    stats: ColumnStatistics, baseline: ColumnStatistics, *, seed: int, min_rows: int = 30
) -> pd.DataFrame:
    """Distances of every window from the baseline, with the chance of them without a change.

    Cells of slice `all` get psi, jensen_shannon, chi_square and, for ordered columns, ks; other
    cells get psi. A cell is compared with the baseline's cells of the same slice.

    Args:
        stats: One column (numeric, categorical, score or confusion) over C cells.
        baseline: The same column; its cells are the baseline's windows.
        seed: Seed of the Monte Carlo draws.
        min_rows: Fewest rows of a window, and of the baseline, for a value.

    Returns:
        MetricFrame. `value`: the distance less its mean without change at this n, so 0 means
        "no more than sampling" and negative values occur. `lower`, `upper` (psi): 95 % interval
        for independent rows. `p_value`: row-level (gamma tail on Monte Carlo moments, Kolmogorov's
        for ks) and, if the slice has at least 14 baseline windows, the larger of that and the
        between-window p; `method_version` ends in `rows` or `windows` accordingly. `reason` of
        a NaN: few_rows, no_baseline (slice not in the baseline), few_baseline_rows, all_null (ks of
        a window without values; the other distances see nulls as a bin).

    Raises:
        ValueError: If the two sides have different binnings.
    """
    if stats.binning.binning_id != baseline.binning.binning_id:
        raise ValueError(
            f"Column {stats.binning.column!r}: window and baseline have different bins "
            f"({stats.binning.binning_id} and {baseline.binning.binning_id}). "
            "Profile the windows again with the baseline's bins."
        )
    seed = (seed + zlib.crc32(stats.binning.column.encode())) % 2**32
    context = _Context(stats, baseline, seed, min_rows)
    keys = stats.cells["slice_key"].astype(str) + "\0" + stats.cells["slice_value"].astype(str)
    frames = [
        _slice_drift(context, np.asarray(rows)) for rows in keys.groupby(keys).indices.values()
    ]
    return concat_frames(frames)


class _Context:
    """What all slices of one call share."""

    def __init__(
        self, stats: ColumnStatistics, baseline: ColumnStatistics, seed: int, min_rows: int
    ) -> None:
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
    """Rows of one slice: window bins (C, B), baseline window bins (W, B), and their fine bins."""

    current: DriftBins
    windows: DriftBins
    pooled: Ints


def _slice_rows(cells: pd.DataFrame, key: object, value: object) -> NDArray[np.intp]:
    """Rows of a slice: of model version `all` if the frame has that, else of all versions."""
    mine = (cells["slice_key"] == key) & (cells["slice_value"] == value)
    whole = mine & (cells["model_version"] == ALL)
    return np.flatnonzero((whole if whole.any() else mine).to_numpy())


def _slice_drift(context: _Context, rows: NDArray[np.intp]) -> pd.DataFrame:
    cells = context.cells.iloc[rows].reset_index(drop=True)
    key, value = cells.loc[0, "slice_key"], cells.loc[0, "slice_value"]
    whole = bool(key == ALL)
    base = _slice_rows(context.baseline_cells, key, value)
    side = _Side(
        _take(context.current, rows),
        _take(context.reference, base),
        context.reference.counts[base].sum(axis=0),
    )
    n = side.current.counts.sum(axis=1)
    total = int(side.pooled.sum())
    reason = np.where(n < context.min_rows, "few_rows", "")
    if total < context.min_rows:
        absent = "no_baseline" if total == 0 else "few_baseline_rows"
        reason = np.where(reason == "", absent, reason)
    usable = np.flatnonzero(reason == "")
    null = NullModel(
        side.pooled, context.ordered, context.seed, _DRAWS_ALL if whole else _DRAWS_SLICE
    )
    results = _binned_distances(side, null, usable, n, context.min_rows, whole)
    frames = [
        _frame(context, cells, metric, result, n, total, reason)
        for metric, result in results.items()
    ]
    if whole and side.current.fine is not None:
        frames.append(_ks_frame(context, cells, side, reason))
    return concat_frames(frames)


def _take(bins: DriftBins, rows: NDArray[np.intp]) -> DriftBins:
    return DriftBins(bins.counts[rows], None if bins.fine is None else bins.fine[rows])


class _Result:
    """Effect, p-value and interval half-width of C cells; NaN until computed."""

    def __init__(self, size: int) -> None:
        self.effect = np.full(size, np.nan)
        self.p = np.full(size, np.nan)
        self.half_width = np.full(size, np.nan)
        self.windows = False


def _binned_distances(
    side: _Side,
    null: NullModel,
    usable: NDArray[np.intp],
    n: Ints,
    min_rows: int,
    whole: bool,
) -> dict[str, _Result]:
    """Compute psi (and the others for the whole), batching the cells of about equal size."""
    metrics = tuple(DISTANCES) if whole else ("psi",)
    results = {metric: _Result(len(n)) for metric in metrics}
    windows = _enough_windows(side.windows.counts, min_rows)
    nodes = grid_floor(n[usable])
    for node in np.unique(nodes):
        plan, rows = null.plan(int(node)), usable[nodes == node]
        current = merge_bins(side.current.counts[rows], plan)
        pooled = merge_bins(side.pooled, plan)
        reference = merge_bins(windows, plan)
        size = round(float(grid_size(node)))  # not of these windows: others may be with them
        for metric, result in results.items():
            _fill(result, rows, metric, null, plan, size, current, pooled, reference)
    return results


def _enough_windows(counts: Ints, min_rows: int) -> Ints:
    kept: Ints = counts[counts.sum(axis=1) >= min_rows]
    return kept if len(kept) >= MIN_WINDOWS else kept[:0]


def _fill(
    result: _Result,
    rows: NDArray[np.intp],
    metric: str,
    null: NullModel,
    plan: Ints,
    size: int,
    current: Ints,
    pooled: Ints,
    windows: Ints,
) -> None:
    distance, power = DISTANCES[metric], POWER[metric]
    raw = distance(current, pooled)
    moments = null.moments(metric, plan, current.sum(axis=1))
    result.effect[rows] = raw - moments.bias
    p = gamma_tail(raw**power, moments)
    if len(windows):
        result.windows = True
        sizes = windows.sum(axis=1)
        grown = windows * _growth(sizes, size, windows.shape[1])
        own = distance(grown, pooled - windows) ** power
        own_null = null.moments(metric, plan, sizes)
        p = np.maximum(p, between_window_p(raw**power, moments, own, own_null, root=ROOT[metric]))
    result.p[rows] = p
    if metric == "psi":
        result.half_width[rows] = 1.96 * np.sqrt(moments.sd**2 + _psi_variance(current, pooled))


def _growth(sizes: Ints, n: int, bins: int) -> Floats:
    """Factor by which baseline windows are blown up, so that they are smoothed like n rows.

    Where all rows of a window share few values, its bins stay empty at any size, and the distance
    depends on how small the smoothing leaves them. Not for windows of under 5 rows a bin, whose
    empty bins are chance.
    """
    factor = np.where(sizes >= 5 * bins, np.maximum(n / sizes, 1.0), 1.0)
    return factor[:, None]


def _psi_variance(current: Ints, pooled: Ints) -> Floats:
    """First-order variance of psi, rows of both sides being independent (delta method)."""
    p, q = smoothed_shares(current), smoothed_shares(pooled)
    by_p = np.log(p / q) + 1 - q / p
    by_q = -np.log(p / q) + 1 - p / q
    spread_p = (p * by_p**2).sum(axis=-1) - (p * by_p).sum(axis=-1) ** 2
    spread_q = (q * by_q**2).sum(axis=-1) - (q * by_q).sum(axis=-1) ** 2
    variance: Floats = spread_p / current.sum(axis=-1) + spread_q / pooled.sum()
    return np.maximum(variance, 0)


def _ks_frame(
    context: _Context, cells: pd.DataFrame, side: _Side, reason: NDArray[np.str_]
) -> pd.DataFrame:
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
    result = _Result(len(n))
    if len(rows):
        null = KsNull.fit(pooled, context.seed)
        raw = ks(current[rows], pooled)
        moments = null.moments(n[rows])
        result.effect[rows] = raw - moments.bias
        p = null.p_value(raw, n[rows])
        windows = _enough_windows(windows, context.min_rows)
        if len(windows):
            result.windows = True
            own = ks(windows, pooled - windows) ** 2
            own_null = null.moments(windows.sum(axis=1))
            p = np.maximum(p, between_window_p(raw**2, moments, own, own_null, root=ROOT["ks"]))
        result.p[rows] = p
    return _frame(context, cells, "ks", result, n, total, reason)


def _frame(
    context: _Context,
    cells: pd.DataFrame,
    metric: str,
    result: _Result,
    n: Ints,
    total: int,
    reason: NDArray[np.str_],
) -> pd.DataFrame:
    return metric_frame(
        cells,
        column_name=context.column,
        metric=metric,
        value=result.effect,
        lower=result.effect - result.half_width,
        upper=result.effect + result.half_width,
        n=n,
        n_baseline=total,
        p_value=result.p,
        reason=reason,
        method_version=f"{metric}-{VERSION}:{'windows' if result.windows else 'rows'}",
    )
