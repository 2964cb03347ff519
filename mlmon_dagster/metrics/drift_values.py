"""Values and p-values of windows beside their baselines, for all columns of a call together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.between import between_window_p, usual_limit
from mlmon_dagster.metrics.distances import psi_variance, smoothed_shares
from mlmon_dagster.metrics.drift_baseline import KsReferences, References
from mlmon_dagster.metrics.drift_results import DriftResult
from mlmon_dagster.metrics.merged_baselines import Pairs
from mlmon_dagster.metrics.moments import Moments
from mlmon_dagster.metrics.null import DISTANCES, POWER, ROOT, gamma_tail
from mlmon_dagster.metrics.own_windows import OwnWindows
from mlmon_dagster.metrics.rare_bins import chi_square_p

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Positions = NDArray[np.intp]


def fill_binned(
    result: DriftResult,
    rows: Positions,
    references: References,
    pairs: Pairs,
    common: Pairs | None,
    *,
    limits: bool,
) -> None:
    """Fill in a distance of merged bins.

    Args:
        result: Of one of `DISTANCES`.
        rows: Which of its cases have a value, (P,).
        references: Their baselines.
        pairs: Windows and baselines, of merged bins, (P,).
        common: The same of common bins, for chi_square.
        limits: Whether the largest usual effect is wanted.
    """
    metric = result.metric
    raw = pairs.each(DISTANCES[metric])
    moments = references.merged.null.moments(metric, pairs.baselines, pairs.n)
    result.effect[rows] = raw - moments.bias
    if metric == "psi":
        variance = pairs.each(_psi_variance)
        result.half_width[rows] = 1.96 * np.sqrt(moments.sd**2 + variance)
    if not references.is_tested:
        return
    if common is not None and metric == "chi_square":
        result.p[rows] = chi_square_p(references.common, common, pairs.n)
    else:
        result.p[rows] = _binned_p(metric, references, pairs, raw, moments)
    if limits:
        own = references.own(metric)
        result.limit[rows] = _limits(own, pairs.baselines, moments, POWER[metric])


def _binned_p(
    metric: str, references: References, pairs: Pairs, raw: Floats, moments: Moments
) -> Floats:
    """Return p-values by rows and, where baselines have windows, by these, (P,)."""
    distance, power = DISTANCES[metric], POWER[metric]
    p, own = gamma_tail(raw**power, moments), references.own(metric)
    shared = own.shared(pairs.baselines)
    if (shared > 1).any():
        fewer = references.merged.null.moments(metric, pairs.baselines, pairs.n / shared)
        spread = pairs.divided(shared).each(distance)  # with the smoothing of so many rows
        p = np.maximum(p, gamma_tail(spread**power, fewer))
    return _between(p, own, pairs.baselines, raw**power, moments, ROOT[metric])


def _between(
    p: Floats, own: OwnWindows, baselines: Ints, value: Floats, moments: Moments, root: float
) -> Floats:
    """Return the larger of p and the p-value between windows, where baselines have windows."""
    found = p.copy()
    for rows, distances, null in own.beside(baselines):
        between = between_window_p(value[rows], moments.take(rows), distances, null, root=root)
        found[rows] = np.maximum(p[rows], between)
    return found


def _limits(own: OwnWindows, baselines: Ints, moments: Moments, power: float) -> Floats:
    found = np.full(len(baselines), np.nan)
    for rows, distances, null in own.beside(baselines):
        found[rows] = usual_limit(moments.take(rows), distances, null, power)
    return found


def _psi_variance(current: NDArray[np.generic], pooled: Ints) -> Floats:
    shares = smoothed_shares(current), smoothed_shares(pooled)
    return psi_variance(*shares, np.sum(current, axis=1), pooled.sum(axis=1))


def fill_ks(
    result: DriftResult,
    rows: Positions,
    references: KsReferences,
    columns: Ints,
    raw: Floats,
    *,
    limits: bool,
) -> None:
    """Fill in the KS distance.

    Args:
        result: Of ks.
        rows: Which of its cases have a value, (P,).
        references: Their baselines.
        columns: Numbers of their columns there, (P,).
        raw: Their distances, (P,).
        limits: Whether the largest usual effect is wanted.
    """
    null, n = references.null(columns), result.cases.n[rows]
    moments = null.moments(n)
    result.effect[rows] = raw - moments.bias
    p = null.p_value(raw, n)
    value = raw ** POWER["ks"]
    result.p[rows] = _between(p, references.own, columns, value, moments, ROOT["ks"])
    if limits:
        result.limit[rows] = _limits(references.own, columns, moments, POWER["ks"])
