"""Drift that no single column shows: which pair of columns no longer hangs together as it did.

Compared are the correlations of the columns' normal scores (`joint`), pair by pair. Much in common
with a PCA's reconstruction error, whose every value follows from the same sums, but a change of one
pair is not diluted by all others, and the answer names the pair. Normal scores are van der
Waerden's (1952), and correlations are compared by Fisher's z (1921).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats, Ints, Positions
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics, select_whole
from mlmon_dagster.spec.monitors import CORRELATION_CHANGE, CORRELATION_SHIFT
from mlmon_dagster.spec.names import TABLE

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

    i: Positions
    j: Positions
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
    cells = select_whole(stats)
    then = select_whole(baseline)
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
    ends = found.value - found.half_width, found.value + found.half_width
    value = np.where(usable, found.value, np.nan)
    whole = MetricRows(
        cells.cells, TABLE, CORRELATION_SHIFT, value, n, version, *ends, total, found.p,
        reason=reason,
    )  # fmt: skip
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
    pairs: Ints
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
                cells.cells.iloc[rows], titles[best[rows]].tolist(), CORRELATION_CHANGE, change,
                cells.counts[rows, 0], version, change - half, change + half, int(reference.n),
            )
        )  # fmt: skip
    return metrics


JOINT = ":joint"
UNIT = 8  # scores are eighths of a standard deviation
MOST = 3 * UNIT  # and end at three of them: what lies further out weighs no more
_BLOCK = 50_000  # products small enough for one thread of the linear algebra


def normal_scores(counts: Ints) -> NDArray[np.int8]:
    """Return the score of every bin of an ordered column: the normal quantile of its middle rank.

    Args:
        counts: Rows of the baseline per bin, (B,), in the order of the values.

    Returns:
        Whole eighths of a standard deviation from -24 to 24, (B,), of mean 0 and spread 1 over the
        baseline's rows but for rounding. All 0 without rows, and for a constant.
    """
    ranks = _middle_ranks(counts)
    return standard_scores(special.ndtri(np.clip(ranks, 1e-4, 1 - 1e-4)), counts)


def folded_scores(counts: Ints) -> NDArray[np.int8]:
    """Return the normal score of every bin's distance from the median, in ranks; as above.

    For bins that lie alike on both sides it has no correlation with the normal score.
    """
    # To six digits, so that bins on the two sides that are equally far out are alike.
    distance = np.round(np.abs(_middle_ranks(counts) - 0.5), 6)
    _, place = np.unique(distance, return_inverse=True)
    by_place = np.bincount(place, counts).astype(np.int64)
    scores: NDArray[np.int8] = normal_scores(by_place)[place]
    return scores


def _middle_ranks(counts: Ints) -> Floats:
    ranks: Floats = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
    return ranks


def standard_scores(values: Floats, counts: Ints) -> NDArray[np.int8]:
    """Return values, one per bin, as scores: less their mean, in eighths of their spread."""
    total = max(counts.sum(), 1)
    centred = values - (values @ counts) / total
    spread = np.sqrt((centred**2 @ counts) / total)
    if not spread > 1e-9:
        return np.zeros(len(counts), np.int8)
    scores: NDArray[np.int8] = np.clip(np.rint(centred / spread * UNIT), -MOST, MOST).astype(
        np.int8
    )
    return scores


def size_of(columns: int) -> int:
    """Return how many sums there are of so many columns."""
    return 2 * columns * columns + 2 * columns + 1


def joint_sums(scores: NDArray[np.int8]) -> Ints:
    """Add up the products of the scores of n rows.

    Args:
        scores: Shape (n, k); a null is 0, the baseline's mean.

    Returns:
        Rows; sums of z_i; of z_i z_j and of z_i^2 z_j^2 for i <= j; of z_i^3 z_j for all i, j: one
        array of `size_of` (k) whole numbers.
    """
    n, k = scores.shape
    if k == 0:
        return np.array([n], np.int64)
    # In blocks of few rows: many threads for one small product cost more than they save.
    step = max(_BLOCK // (k * k), 1)
    padded = np.zeros((-(-n // step), step, k))
    padded.reshape(-1, k)[:n] = scores
    turned = padded.transpose(0, 2, 1)
    square = padded * padded
    upper = np.triu_indices(k)
    products = (turned @ padded).sum(axis=0)
    squares = (square.transpose(0, 2, 1) @ square).sum(axis=0)
    cubes = ((square * padded).transpose(0, 2, 1) @ padded).sum(axis=0)
    return np.concatenate(
        [[n], padded.sum(axis=(0, 1)), products[upper], squares[upper], cubes.ravel()]
    ).astype(np.int64)


@dataclass(frozen=True)
class JointMoments:
    """Moments of k columns over C cells, in standard deviations of the baseline.

    Attributes:
        n: Rows, (C,).
        mean: (C, k). variance: (C, k).
        correlation: (C, k, k), NaN where a column is constant.
        noise: n times the variance of each correlation for independent rows, (C, k, k), from the
            fourth moments about 0: right where the means are near 0, as in the baseline.
        kurtosis: Fourth moment over the square of the second, both about 0, (C, k).
    """

    n: Floats
    mean: Floats
    variance: Floats
    correlation: Floats
    noise: Floats
    kurtosis: Floats


def joint_moments(sums: Ints, columns: int) -> JointMoments:
    """Return the moments that `joint_sums` of C cells, (C, size), hold.

    The variance of a correlation is that of its influence function,
    z_i z_j - r (z_i^2 + z_j^2) / 2, for standardised z.
    """
    k = columns
    upper = np.triu_indices(k)
    ends = np.cumsum([1, k, len(upper[0]), len(upper[0])])
    n, first, product, square, cube = np.split(sums.astype(np.float64), ends, axis=1)
    n = n[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = n[:, None]
        mean = first / rows / UNIT
        second = _full(product / rows, upper, k) / UNIT**2
        covariance = second - mean[:, :, None] * mean[:, None, :]
        variance = np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0)
        scale = np.sqrt(variance)
        r = covariance / (scale[:, :, None] * scale[:, None, :])
        raw = np.sqrt(np.diagonal(second, axis1=1, axis2=2))
        a, b = raw[:, :, None], raw[:, None, :]
        both = _full(square / rows, upper, k) / UNIT**4 / (a * b) ** 2
        third = cube.reshape(-1, k, k) / rows[:, None] / UNIT**4 / (a**3 * b)
        fourth = np.diagonal(both, axis1=1, axis2=2)
        ends_of = fourth[:, :, None] + fourth[:, None, :] + 2 * both
        noise = both + r**2 / 4 * ends_of - r * (third + third.transpose(0, 2, 1))
    return JointMoments(n, mean, variance, np.clip(r, -1, 1), noise, fourth)


def _full(values: Floats, upper: tuple[Positions, Positions], k: int) -> Floats:
    """Return symmetric matrices from their upper triangles, (C, k, k)."""
    found = np.zeros((len(values), k, k))
    found[:, upper[0], upper[1]] = values
    found[:, upper[1], upper[0]] = values
    return found
