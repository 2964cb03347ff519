"""Distances, shifts and deltas beside those that are always computed; on demand.

They describe a change. Whether it is real is for the significance of psi, of the same column and
window, to say: a change of the bins that psi counts, nulls included, is what most of them see.
Distances and shifts of values have that of ``area`` (see `smooth_distances`), which is made for
these. Shifts in standard deviations of the baseline are those of Glass (1976); deltas are by
definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import representatives, score_midpoints
from mlmon_dagster.metrics.drift.distances import (
    cramers_v,
    hellinger,
    kl,
    l_infinity,
    smoothed_shares,
    total_variation,
    wasserstein,
)
from mlmon_dagster.metrics.drift.null_distribution import between_sizes, grid_floor, grid_size
from mlmon_dagster.metrics.drift.values import DriftResult
from mlmon_dagster.metrics.statistics import ColumnStatistics, select

_DRAWS = 200
_LARGEST = float(np.finfo(np.float64).max)

OF_BINS: dict[str, Callable[[ArrayLike, ArrayLike], Floats]] = {
    "hellinger": hellinger,
    "total_variation": total_variation,
    "l_infinity": l_infinity,
    "kl": kl,
    "cramers_v": cramers_v,
}
OF_VALUES = ("wasserstein", "wasserstein_scaled", "mean_shift", "median_shift", "p90_shift")
DELTAS = ("null_rate_delta", "zero_rate_delta", "unseen_rate_delta", "distinct_delta")
FURTHER = (*OF_BINS, *OF_VALUES, *DELTAS)


def further_results(
    names: Sequence[str],
    stats: ColumnStatistics,
    baseline: ColumnStatistics,
    bins: tuple[Ints, Ints],
    known: DriftResult,
    of_values: Floats,
    seed: int,
) -> list[DriftResult]:
    """Compute further distances of C cells from one baseline.

    Args:
        names: Some of `FURTHER`.
        stats: The column; the cells are those of `known`.
        baseline: The baseline's windows of the same slice.
        bins: Rows per drift bin: of the cells (C, B) and of the whole baseline (B,).
        known: The psi of these cells, whose p-values and reasons are taken over.
        of_values: The p-values of distances and shifts of values, (C,).
        seed: Of the draws behind the mean of a distance without change.

    Returns:
        One result per name. Distances have their mean without change at that n taken off, shifts
        and deltas are signed differences. NaN with reason `not_ordered`, `no_own_bins` or
        `constant_baseline` where a name means nothing for the column, and `all_null` without
        values.
    """
    current = select(stats, known.cases.rows)
    results = []
    for name in names:
        result = DriftResult(name, known.cases, known.method)
        rows = np.flatnonzero(known.reason == "")
        if len(rows):
            if name in OF_BINS:
                value, reason = _of_bins(OF_BINS[name], bins[0][rows], bins[1], seed), ""
            elif name in OF_VALUES:
                value, reason = _of_values(name, select(current, rows), baseline, seed)
            else:
                value, reason = _delta(name, select(current, rows), baseline)
            result.effect[rows] = value
            p = of_values if name in OF_VALUES else known.p
            result.p[rows] = np.where(np.isnan(value), np.nan, p[rows])
            why = np.where(np.isnan(value), reason or "all_null", "")
            result.reason = known.reason.astype(object)
            result.reason[rows] = why
        results.append(result)
    return results


def _of_bins(
    distance: Callable[[ArrayLike, ArrayLike], Floats], current: Ints, pooled: Ints, seed: int
) -> Floats:
    n = current.sum(axis=1).astype(np.float64)
    return distance(current, pooled) - _mean_without_change(distance, n, pooled, seed)


def _mean_without_change(
    distance: Callable[[ArrayLike, ArrayLike], Floats], n: Floats, pooled: Ints, seed: int
) -> Floats:
    """Return the mean distance of windows of n rows drawn from the baseline, (C,)."""
    below = grid_floor(n)
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
    return between_sizes(n, below, low, high)[:, 0]


def positions_of(stats: ColumnStatistics) -> tuple[Floats, Ints] | None:
    """Return where the values of the ordered bins lie, and their counts; None without an order."""
    if stats.binning.kind == "numeric":
        return representatives(stats.binning), stats.counts
    if stats.binning.kind == "score":
        counts = stats.counts.reshape(len(stats), -1, 3).sum(axis=2)
        return score_midpoints(stats.binning), counts
    return None


def _of_values(
    name: str, current: ColumnStatistics, baseline: ColumnStatistics, seed: int
) -> tuple[Floats, str]:
    undefined = np.full(len(current), np.nan)
    mine, theirs = positions_of(current), positions_of(baseline)
    if mine is None or theirs is None:
        return undefined, "not_ordered"
    positions, counts = mine
    pooled: Ints = theirs[1].sum(axis=0)
    n = counts.sum(axis=1).astype(np.float64)
    centre, spread = _mean_and_spread(positions, pooled)
    if not spread > 0 and name != "wasserstein":
        return undefined, "constant_baseline"
    value = undefined.copy()
    some = np.flatnonzero(n > 0)
    if not len(some) or not pooled.sum():
        return value, "all_null"
    if name.startswith("wasserstein"):
        value[some] = _wasserstein(positions, counts[some], pooled, seed)
    elif name == "mean_shift":
        shares = counts[some] / n[some, None]
        value[some] = _exact_means(current, some, shares @ positions) - _exact_mean(
            baseline, centre
        )
    else:
        level = 0.5 if name == "median_shift" else 0.9
        value[some] = quantiles(positions, counts[some], level) - quantiles(
            positions, pooled[None], level
        )
    if name != "wasserstein":
        with np.errstate(over="ignore"):
            value = np.clip(value / spread, -_LARGEST, _LARGEST)
    return value, "all_null"


def _wasserstein(positions: Floats, counts: Ints, pooled: Ints, seed: int) -> Floats:
    # In a unit in which the draws' sum is a number; of a power of two, so that it changes no digit.
    unit = 2.0 ** (int(np.frexp(np.abs(positions).max())[1]) - 1)
    positions = positions / unit

    def distance(a: ArrayLike, b: ArrayLike) -> Floats:
        return wasserstein(a, b, positions)

    used = pooled > 0
    mean = _mean_without_change(
        lambda a, b: wasserstein(a, b, positions[used]),
        counts.sum(axis=1).astype(np.float64),
        pooled[used],
        seed,
    )
    found: Floats = unit * (distance(counts, pooled) - mean)
    return found


def _mean_and_spread(positions: Floats, counts: Ints) -> tuple[float, float]:
    total = counts.sum()
    if total == 0:
        return 0.0, 0.0
    share = counts / total
    mean = float(share @ positions)
    away = positions - mean
    unit = max(float(np.abs(away).max()), 1e-300)  # the square of 1e300 is no number
    return mean, unit * float(np.sqrt(share @ (away / unit) ** 2))


def _exact_means(stats: ColumnStatistics, rows: NDArray[np.intp], binned: Floats) -> Floats:
    """Return means from the exact sums where there are such; of a score its sums are losses.

    Where the sum is beyond all numbers the largest value stands for the mean, which is below it.
    """
    if stats.binning.kind != "numeric":
        return binned
    n = stats.counts[rows].sum(axis=1)
    means: Floats = stats.total[rows] / n + stats.binning.centre
    ends = np.clip(means, stats.minimum[rows], stats.maximum[rows])
    means = np.where(np.isinf(means), ends, means)
    return np.where(np.isnan(means), binned, means)


def _exact_mean(stats: ColumnStatistics, binned: float) -> float:
    if stats.binning.kind != "numeric":
        return binned
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(stats.total.sum() / stats.counts.sum() + stats.binning.centre)
    return mean if np.isfinite(mean) else binned


def quantiles(positions: Floats, counts: Ints, level: float) -> Floats:
    """Return the position that a share of the rows does not exceed, (C,)."""
    cumulative = np.cumsum(counts, axis=1)
    reached = cumulative >= level * cumulative[:, -1:]
    found: Floats = positions[np.argmax(reached, axis=1)]
    return found


def _delta(name: str, current: ColumnStatistics, baseline: ColumnStatistics) -> tuple[Floats, str]:
    counts, pooled, binning = current.counts, baseline.counts.sum(axis=0), current.binning
    n, total = current.n.astype(np.float64), float(baseline.n.sum())
    if name == "null_rate_delta":
        return 1 - counts.sum(axis=1) / n - (1 - pooled.sum() / total), ""
    if name == "unseen_rate_delta" and binning.kind == "categorical":
        return counts[:, -1] / n - pooled[-1] / total, ""
    own = len(binning.categories) if binning.kind == "categorical" else len(binning.values)
    if name == "distinct_delta" and own:
        present = (counts[:, :own] > 0).sum(axis=1) - float((pooled[:own] > 0).sum())
        return present.astype(np.float64), ""
    if name == "zero_rate_delta" and 0.0 in binning.values:
        code = binning.values.index(0.0)
        return counts[:, code] / n - pooled[code] / total, ""
    return np.full(len(current), np.nan), "no_own_bins"
