"""Drift that no single column shows: which pair of columns no longer hangs together as it did.

Compared are the correlations of the columns' normal scores (`joint`), pair by pair. Much in common
with a PCA's reconstruction error, whose every value follows from the same sums, but a change of one
pair is not diluted by all others, and the answer names the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.arrays import Flags, Floats
from mlmon_dagster.metrics.drift.between_windows import MIN_WINDOWS
from mlmon_dagster.metrics.drift.joint_sums import JointMoments, joint_moments
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.statistics import ALL, TABLE, ColumnStatistics, select
from mlmon_dagster.spec.multivariate import CHANGE, SHIFT

NAMED = 3  # pairs of a window that are named
_MOST_R = 0.99  # where Fisher's transform ends
_LEAST_NOISE = 0.5  # of a transformed correlation; 1 for normal scores
_MOVED, _SPREAD = 0.5, 2.0  # a column's own change from which its pairs say nothing
_ROWS_PER_KURTOSIS, _LEAST_ROWS = 10.0, 100.0
_ALPHA = 0.01  # at which the pair that changed for sure is chosen
_VERSION = "correlation-1"


class _Pairs(NamedTuple):
    """What the baseline knows of its P pairs, (P,) each.

    Attributes:
        i, j: The columns.
        r: Correlation. z: Fisher's transform of it. noise: n times the variance of z.
        peaked: Product of the two kurtoses.
        excess: What the spread of z between windows adds to `noise`, as a factor; 0 if nothing.
    """

    i: NDArray[np.intp]
    j: NDArray[np.intp]
    r: Floats
    z: Floats
    noise: Floats
    peaked: Floats
    excess: Floats


@dataclass(frozen=True)
class _Reference:
    """The baseline: its rows, its pairs, how they scatter between windows."""

    n: float
    mean: Floats
    variance: Floats
    pairs: _Pairs
    freedom: float
    rows_share: float  # mean of 1 / n of its windows; 0 if there are too few of them
    windows: int


def multivariate_metrics(
    stats: ColumnStatistics, baseline: ColumnStatistics, *, min_rows: int = 30
) -> pd.DataFrame:
    """Compare the correlations of every window with the baseline's.

    A pair counts in a window if both its columns are there much as in the baseline: mean within
    half a standard deviation, variance between half and twice; else that is the news, and drift of
    the column tells it. Very rare values need more rows (n at least 5 times the product of the
    kurtoses, so that some rows have both). Of the P pairs that count, the one is chosen whose
    change is largest for sure: |change| - its noise at the level .01 / P.

    Args:
        stats: `:joint` over C cells.
        baseline: The same; its cells are the baseline's windows.
        min_rows: Fewest rows of a window, and of the baseline, for a value.

    Returns:
        MetricFrame of the cells of slice `all`. `correlation_shift` of the column `:table`: the
        chosen pair's |r - r of the baseline|, less what the largest of P unchanged pairs has at
        the median, so 0 means "no more than sampling". `lower`, `upper`: 95 % for that pair.
        `p_value`: of Fisher's transform, times P (Bonferroni); noise from the baseline's fourth
        moments and, with at least 14 baseline windows, also from how far the pair's correlation
        strays between them (moderated towards all pairs' as in Smyth 2004, Student tail).
        `method_version` ends in `rows` or `windows` accordingly. `correlation_change` of the
        column ``a x b``: r - r of the baseline of the three pairs that changed most for sure;
        ``|b|`` is how far b is from its middle.
        `reason` of a NaN: few_rows, no_baseline, few_baseline_rows, no_pairs (fewer than two
        columns that vary and have not moved by themselves).

    Raises:
        ValueError: If the two sides have different scores.
    """
    if stats.binning.binning_id != baseline.binning.binning_id:
        raise ValueError(
            "Window and baseline score their values differently. Profile the windows again."
        )
    cells = select(stats, (stats.cells["slice_key"] == ALL).to_numpy())
    then = select(baseline, (baseline.cells["slice_key"] == ALL).to_numpy())
    if len(cells) == 0:
        return stack_rows([])
    names = stats.binning.categories
    n = cells.counts[:, 0]
    total = int(then.counts[:, 0].sum())
    reason = np.select(
        [n < min_rows, total == 0, total < min_rows],
        ["few_rows", "no_baseline", "few_baseline_rows"],
        "",
    ).astype(object)
    reference = _reference(then, min_rows)
    now = joint_moments(cells.counts, len(names))
    found = _compare(now, reference)
    reason[(reason == "") & (found.pairs == 0)] = "no_pairs"
    usable = reason == ""
    version = f"{_VERSION}:{'windows' if reference.rows_share else 'rows'}"
    whole = MetricRows(
        cells.cells,
        column_name=TABLE,
        metric=SHIFT,
        value=np.where(usable, found.value, np.nan),
        lower=found.value - found.half_width,
        upper=found.value + found.half_width,
        n=n,
        n_baseline=total,
        p_value=found.p,
        reason=reason,
        method_version=version,
    )
    named = _changes(cells, names, reference, found, usable, version)
    return stack_rows([whole, *named])


def _reference(then: ColumnStatistics, min_rows: int) -> _Reference:
    columns = np.array(then.binning.tail)
    k = len(columns)
    pooled = joint_moments(then.counts.sum(axis=0, keepdims=True), k)
    i, j = np.triu_indices(k, 1)
    i, j = i[columns[i] != columns[j]], j[columns[i] != columns[j]]
    r, noise = pooled.correlation[0, i, j], pooled.noise[0, i, j]
    z = _fisher(r)
    with np.errstate(invalid="ignore"):
        noise = np.maximum(noise / (1 - np.minimum(np.abs(r), _MOST_R) ** 2) ** 2, _LEAST_NOISE)
    pairs = _Pairs(i, j, r, z, noise, pooled.kurtosis[0, i] * pooled.kurtosis[0, j], noise * 0)
    freedom, share = np.inf, 0.0
    enough = then.counts[then.counts[:, 0] >= min_rows]
    if len(enough) >= MIN_WINDOWS and len(i):
        windows = joint_moments(enough, k)
        spread, freedom = _spread(windows, pairs)
        pairs = pairs._replace(excess=np.maximum(spread - 1, 0.0))
        share = float((1 / windows.n).mean())
    n = float(pooled.n[0])
    return _Reference(n, pooled.mean[0], pooled.variance[0], pairs, freedom, share, len(enough))


def _spread(windows: JointMoments, pairs: _Pairs) -> tuple[Floats, float]:
    """Return the variance of z between windows over that of independent rows, and its freedom.

    Moderated: a variance from few windows is drawn towards that of all pairs, the more so the more
    alike they are (Smyth 2004, Linear models and empirical Bayes methods, section 6).
    """
    z = _fisher(windows.correlation[:, pairs.i, pairs.j])
    away = (z - pairs.z) * np.sqrt(windows.n[:, None] / pairs.noise)
    n = np.isfinite(away).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(n >= MIN_WINDOWS, np.nansum(away**2, axis=0) / (n - 1), np.nan)
    half = (len(windows.n) - 1) / 2
    known = np.maximum(ratio[np.isfinite(ratio)], 1e-3)
    if not len(known):
        return ratio, np.inf
    logs = np.log(known) - special.digamma(half) + np.log(half)
    beyond = float(logs.var()) - float(special.polygamma(1, half))
    prior = _inverse_trigamma(beyond) if beyond > 1e-6 else 1e6
    centre = np.exp(logs.mean() + special.digamma(prior) - np.log(prior))
    moderated = (prior * max(float(centre), 1.0) + half * ratio) / (prior + half)
    return moderated, 2 * (prior + half)


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value by Newton's method; it converges from any side."""
    x = 0.5 + 1 / value
    for _ in range(50):
        gamma = float(special.polygamma(1, x))
        step = gamma * (1 - gamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return x


def _fisher(r: Floats) -> Floats:
    return np.arctanh(np.clip(r, -_MOST_R, _MOST_R))


class _Found(NamedTuple):
    """Of C cells: the changes (C, P), NaN where a pair does not count, and the chosen pair's."""

    change: Floats
    sure: Floats
    error: Floats
    pairs: NDArray[np.int64]
    value: Floats
    half_width: Floats
    p: Floats


def _compare(now: JointMoments, reference: _Reference) -> _Found:
    pairs = reference.pairs
    r = now.correlation[:, pairs.i, pairs.j]
    alike = _alike(now, reference)
    counts = alike[:, pairs.i] & alike[:, pairs.j] & np.isfinite(r) & np.isfinite(pairs.r)
    alone = now.n[:, None] / (1 + pairs.excess)  # rows that tell something of their own
    counts &= alone >= np.maximum(_ROWS_PER_KURTOSIS * pairs.peaked, _LEAST_ROWS)
    number = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = 1 / now.n[:, None] + 1 / max(reference.n, 1.0)
        shared = np.maximum(reference.rows_share, 1 / now.n[:, None])
        shared = shared * (1 + 1 / max(reference.windows, 1))
        error = np.sqrt(pairs.noise * (own + pairs.excess * shared))
        t = np.abs(_fisher(r) - pairs.z) / error
        tail = 2 * special.stdtr(min(reference.freedom, 1e9), -t)
        p = np.where(counts, np.minimum(tail * number[:, None], 1.0), np.nan)
        many = np.maximum(number, 1)[:, None]
        needed = -special.stdtrit(min(reference.freedom, 1e9), _ALPHA / many / 2)
        usual = special.ndtri((1 + 0.5 ** (1 / many)) / 2)
        error_r = error * (1 - np.minimum(np.abs(pairs.r), _MOST_R) ** 2)
        change = np.where(counts, r - pairs.r, np.nan)
        sure = np.where(counts, np.abs(change) - needed * error_r, -np.inf)
    if not len(pairs.i):
        none = np.full(len(now.n), np.nan)
        return _Found(change, sure, error_r, number, none, none, none)
    best = (np.arange(len(now.n)), sure.argmax(axis=1))
    value = np.abs(change[best]) - usual[:, 0] * error_r[best]
    return _Found(change, sure, error_r, number, value, 1.96 * error_r[best], p[best])


def _alike(now: JointMoments, reference: _Reference) -> Flags:
    """Say which columns are much as in the baseline, (C, k)."""
    spread = np.sqrt(reference.variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.abs(now.mean - reference.mean) > _MOVED * spread
        ratio = now.variance / reference.variance
        found: Flags = ~moved & (ratio >= 1 / _SPREAD) & (ratio <= _SPREAD)
    return found


def _changes(
    cells: ColumnStatistics,
    names: tuple[str, ...],
    reference: _Reference,
    found: _Found,
    usable: Flags,
    version: str,
) -> list[MetricRows]:
    """Return the pairs of each usable cell that changed most for sure, in the order of places."""
    pairs, metrics = reference.pairs, []
    order = np.argsort(-found.sure, axis=1, kind="stable")[:, :NAMED]
    titles = np.array([f"{names[i]} x {names[j]}" for i, j in zip(pairs.i, pairs.j, strict=True)])
    for best in order.T:
        rows = np.flatnonzero(usable & np.isfinite(found.sure[np.arange(len(best)), best]))
        chosen = rows, best[rows]
        change, half = found.change[chosen], 1.96 * found.error[chosen]
        metrics.append(
            MetricRows(
                cells.cells.iloc[rows],
                column_name=titles[best[rows]].tolist(),
                metric=CHANGE,
                value=change,
                lower=change - half,
                upper=change + half,
                n=cells.counts[rows, 0],
                n_baseline=int(reference.n),
                method_version=version,
            )
        )
    return metrics
