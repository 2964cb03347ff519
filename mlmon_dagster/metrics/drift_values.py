"""Values and p-values of windows beside their baselines, for all columns of a call together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.design_effect import Independence
from mlmon_dagster.metrics.distances import psi_variance, smoothed_shares
from mlmon_dagster.metrics.drift_references import FineReferences, References
from mlmon_dagster.metrics.drift_results import DriftResult
from mlmon_dagster.metrics.merged_baselines import Pairs
from mlmon_dagster.metrics.null import POWER, ROOT
from mlmon_dagster.metrics.own_windows import larger_of_windows, usual_limits
from mlmon_dagster.metrics.rare_bins import chi_square_p
from mlmon_dagster.metrics.significance import Distances

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Positions = NDArray[np.intp]


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
    result.effect[rows] = shown.raw - shown.moments.bias
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
    result.effect[rows] = raw - moments.bias
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
