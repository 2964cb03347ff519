"""Distances between two distributions, each declared where its formula is.

A distance is a function below one of the decorators, which say what it takes; nothing else has to
be changed to add one. `always` and `of_bins` take *counts*, not shares, with the bins on the last
axis, and broadcast over the leading axes: ``current`` (..., B) against ``baseline`` (B,) or
(..., B) gives the shape (...). Rows without a value are expected as a bin of their own. A side
without rows gives NaN.

Smoothing (psi, jensen_shannon): both sides become (count + 1/2) / (n + B/2), so an empty bin has a
small share that depends on n and no distance is infinite. ks and chi_square need no smoothing. The
half row is the prior of Krichevsky and Trofimov (1981).

Shifts of values are in standard deviations of the baseline, as those of Glass (1976).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import representatives, score_midpoints
from mlmon_dagster.metrics.statistics import ColumnStatistics

F = TypeVar("F")
OfBins = Callable[[ArrayLike, ArrayLike], Floats]


class Ordered(NamedTuple):
    """A column whose bins have an order, over C cells with values, beside a baseline's windows.

    Attributes:
        current, baseline: Its statistics.
        positions: Where the values of the bins lie, ascending, (B,).
        counts: Rows of the cells per bin, (C, B).
        pooled: Rows of the baseline per bin, (B,).
        expected: Gives the mean of a distance of bins without change, at the sizes of the cells.
    """

    current: ColumnStatistics
    baseline: ColumnStatistics
    positions: Floats
    counts: Ints
    pooled: Ints
    expected: Callable[[OfBins, Ints], Floats]


ALWAYS: dict[str, OfBins] = {}
OF_BINS: dict[str, OfBins] = {}
OF_VALUES: dict[str, Callable[[Ordered], Floats]] = {}


def _declaring(table: dict[str, F]) -> Callable[[str, str], Callable[[F], F]]:
    def declare(name: str, _words: str) -> Callable[[F], F]:
        def add(formula: F) -> F:
            table[name] = formula
            return formula

        return add

    return declare


# `spec.monitors` reads the lines that these stand in as text: the name, and what people call it.
always, of_bins = _declaring(ALWAYS), _declaring(OF_BINS)
of_values = _declaring(OF_VALUES)


def smoothed_shares(counts: ArrayLike) -> Floats:
    """Turn counts into shares that are never zero.

    Args:
        counts: Rows per bin, shape (..., B).

    Returns:
        (count + 1/2) / (n + B/2), shape (..., B); every row sums to 1. NaN where n is 0.

    Example:
        >>> smoothed_shares([0, 1, 2]).round(4).tolist()
        [0.1111, 0.3333, 0.5556]
    """
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    shares: Floats = (values + 0.5) / (total + values.shape[-1] / 2)
    return np.where(total > 0, shares, np.nan)


@always("psi", "PSI")
def psi(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Population stability index: sum of (p - q) ln(p / q) over smoothed shares.

    Symmetric, >= 0, unbounded; 0 when both sides have equal shares and sizes. With few rows it is
    far above 0 without any change: about (B - 1) (1/n + 1/N) (Yurdakul and Naranjo, 2020), which
    stands beside it. It is the divergence J of Jeffreys (1946): of smoothed shares, scipy's
    ``entropy(p, q) + entropy(q, p)``.

    Example:
        By hand, with shares .9/.1 against .5/.5: .4 ln 1.8 + (-.4) ln .2 = .8789.

        >>> float(psi([900_000, 100_000], [500_000, 500_000]).round(4))
        0.8789
    """
    p, q = smoothed_shares(current), smoothed_shares(baseline)
    result: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return result


def psi_variance(p: Floats, q: Floats, n: ArrayLike, total: ArrayLike) -> Floats:
    """First-order variance of psi, the rows of both sides being independent (delta method).

    The derivative of (p - q) ln(p / q) by p is ln(p / q) + 1 - q / p, and by q likewise; its
    variance under multinomial shares is E[d^2] - E[d]^2, a row, on either side.

    Args:
        p: Smoothed shares of the window, (..., B); 0 in bins that are padding.
        q: Smoothed shares of the baseline, likewise.
        n: Rows of the window, (...).
        total: Rows of the baseline, (...).

    Returns:
        At least 0, shape (...). 0 where both sides are equal: there the second order rules.
    """
    used = (p > 0) & (q > 0)
    p, q = np.where(used, p, 1.0), np.where(used, q, 1.0)
    log = np.log(p / q)
    by_p, by_q = log + 1 - q / p, -log + 1 - p / q
    mine, other = np.where(used, p, 0.0), np.where(used, q, 0.0)
    spread_p = (mine * by_p**2).sum(axis=-1) - (mine * by_p).sum(axis=-1) ** 2
    spread_q = (other * by_q**2).sum(axis=-1) - (other * by_q).sum(axis=-1) ** 2
    variance: Floats = spread_p / n + spread_q / total
    return np.maximum(variance, 0)


@always("jensen_shannon", "Jensen-Shannon distance")
def jensen_shannon(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Jensen-Shannon *distance* in base 2: the square root of the divergence.

    Symmetric, between 0 (equal) and 1 (no bin in common, up to the smoothing). Of smoothed shares
    it is scipy's ``jensenshannon(p, q, base=2)``; of plain ones that is less, where rows are few.
    The divergence is Lin's (1991); that its root is a distance, Endres and Schindelin (2003).

    Example:
        By hand, .9/.1 against .5/.5 with the middle .7/.3: the divergence is
        (.9 log2(.9/.7) + .1 log2(.1/.3) + .5 log2(.5/.7) + .5 log2(.5/.3)) / 2 = .1468.

        >>> float((jensen_shannon([900_000, 100_000], [500_000, 500_000]) ** 2).round(4))
        0.1468
    """
    p, q = smoothed_shares(current), smoothed_shares(baseline)
    middle = (p + q) / 2
    divergence = (p * np.log2(p / middle) + q * np.log2(q / middle)).sum(axis=-1) / 2
    result: Floats = np.sqrt(np.maximum(divergence, 0))
    return result


@always("ks", "KS distance")
def ks(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Kolmogorov-Smirnov distance of two ordered histograms: the largest gap of the two CDFs.

    That of two samples is Smirnov's (1939). Between 0 and 1, over rows with a value only (give no
    null bin). The gap is looked at on bin edges, so it is at most the rows' own, which is scipy's
    ``ks_2samp``, and short of it by at most the largest bin's share; equal where every value has a
    bin of its own.

    Example:
        >>> float(ks([1, 1, 0, 0], [0, 0, 1, 1]))
        1.0
        >>> float(ks([3, 1], [1, 3]))
        0.5
    """
    gap = np.abs(_cumulative_share(current) - _cumulative_share(baseline))
    result: Floats = gap.max(axis=-1)
    return result


@always("chi_square", "Chi-square distance")
def chi_square(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Two-sample chi-square distance: Pearson's statistic times (1/n + 1/N).

    The statistic is that of Pearson (1911). The scaling makes it an effect size: sum of (p - q)^2 /
    pooled share, >= 0, near psi for small changes, and not growing with n. Both sides are samples
    (a contingency table, not a goodness of fit), so a category that the baseline lacks is no
    division by zero. Bins empty on both sides count nothing.

    Example:
        Shares .6/.4 against .5/.5, 10 rows each, pooled .55/.45: .01/.55 + .01/.45 = .0404.

        >>> float(chi_square([6, 4], [5, 5]).round(4))
        0.0404
    """
    a = np.asarray(current, dtype=np.float64)
    b = np.asarray(baseline, dtype=np.float64)
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = (a + b) / (n + m)
        terms = np.where(pooled > 0, (a / n - b / m) ** 2 / np.where(pooled > 0, pooled, 1), 0.0)
    result: Floats = terms.sum(axis=-1)
    return np.where((n[..., 0] > 0) & (m[..., 0] > 0), result, np.nan)


@of_bins("hellinger", "Hellinger distance")
def hellinger(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Hellinger distance of smoothed shares: sqrt(sum of (sqrt p - sqrt q)^2 / 2), 0 to 1.

    After Hellinger (1909), as in Gibbs and Su (2002).
    """
    p, q = smoothed_shares(current), smoothed_shares(baseline)
    result: Floats = np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=-1) / 2)
    return result


@of_bins("total_variation", "Total variation")
def total_variation(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Half the sum of |p - q| of plain shares, 0 to 1: the share of rows that would have to move.

    As in Gibbs and Su (2002).

    Example:
        >>> float(total_variation([9, 1], [5, 5]).round(4))
        0.4
    """
    result: Floats = np.abs(_shares(current) - _shares(baseline)).sum(axis=-1) / 2
    return result


@of_bins("l_infinity", "Largest change of a bin")
def l_infinity(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Largest |p - q| of any bin, plain shares, 0 to 1: the norm, by definition."""
    result: Floats = np.abs(_shares(current) - _shares(baseline)).max(axis=-1)
    return result


@of_bins("kl", "KL divergence")
def kl(current: ArrayLike, baseline: ArrayLike) -> Floats:
    """Kullback-Leibler divergence of the window from the baseline, sum of p ln(p / q), in nats.

    Of smoothed shares, so never infinite; >= 0; not symmetric (Kullback and Leibler, 1951).
    """
    p, q = smoothed_shares(current), smoothed_shares(baseline)
    result: Floats = (p * np.log(p / q)).sum(axis=-1)
    return result


def wasserstein(current: ArrayLike, baseline: ArrayLike, positions: ArrayLike) -> Floats:
    """Area between the cumulative shares of values at ascending positions, in their unit.

    That this area is Wasserstein's distance: Vallender (1974). That of the rows, scipy's
    ``wasserstein_distance``, where every value has a bin of its own. Else each row is moved to its
    bin's middle, so it is off by at most half the mean width of the bins of both sides' rows, which
    in a long tail is much; rows beyond the baseline's range count at its ends.

    Example:
        >>> float(wasserstein([4, 0], [0, 4], [1.0, 3.5]))
        2.5
    """
    gap = np.abs(_cumulative_share(current) - _cumulative_share(baseline))[..., :-1]
    with np.errstate(over="ignore", invalid="ignore"):
        result: Floats = (gap * np.diff(np.asarray(positions, dtype=np.float64))).sum(axis=-1)
    return result


def _shares(counts: ArrayLike) -> Floats:
    values = np.asarray(counts, dtype=np.float64)
    total = values.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = values / total
    return np.where(total > 0, share, np.nan)


def _cumulative_share(counts: ArrayLike) -> Floats:
    cumulative = np.cumsum(np.asarray(counts, dtype=np.float64), axis=-1)
    total = cumulative[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = cumulative / total
    return np.where(total > 0, share, np.nan)


def positions_of(stats: ColumnStatistics) -> tuple[Floats, Ints] | None:
    """Return where the values of the ordered bins lie, and their counts; None without an order."""
    if stats.binning.kind == "numeric":
        return representatives(stats.binning), stats.counts
    if stats.binning.kind == "score":
        counts = stats.counts.reshape(len(stats), -1, 3).sum(axis=2)
        return score_midpoints(stats.binning), counts
    return None


def quantiles(positions: Floats, counts: Ints, level: float) -> Floats:
    """Return the position that a share of the rows does not exceed, (C,)."""
    cumulative = np.cumsum(counts, axis=1)
    reached = cumulative >= level * cumulative[:, -1:]
    found: Floats = positions[np.argmax(reached, axis=1)]
    return found


def mean_and_spread(positions: Floats, counts: Ints) -> tuple[float, float]:
    """Return mean and standard deviation of rows at positions; 0 without rows."""
    total = counts.sum()
    if total == 0:
        return 0.0, 0.0
    share = counts / total
    mean = float(share @ positions)
    away = positions - mean
    unit = max(float(np.abs(away).max()), 1e-300)  # the square of 1e300 is no number
    return mean, unit * float(np.sqrt(share @ (away / unit) ** 2))


def _exact_means(stats: ColumnStatistics, binned: Floats) -> Floats:
    """Return means from the exact sums where there are such; of a score its sums are losses.

    Where the sum is beyond all numbers the largest value stands for the mean, which is below it.
    """
    if stats.binning.kind != "numeric":
        return binned
    means: Floats = stats.total / stats.counts.sum(axis=1) + stats.binning.centre
    ends = np.clip(means, stats.minimum, stats.maximum)
    means = np.where(np.isinf(means), ends, means)
    return np.where(np.isnan(means), binned, means)


def _exact_mean(stats: ColumnStatistics, binned: float) -> float:
    if stats.binning.kind != "numeric":
        return binned
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(stats.total.sum() / stats.counts.sum() + stats.binning.centre)
    return mean if np.isfinite(mean) else binned


@of_values("wasserstein", "Wasserstein distance")
def wasserstein_of_values(of: Ordered) -> Floats:
    """Wasserstein distance in the unit of the column, see `wasserstein`."""
    unit = _power_of_two(of.positions)
    found: Floats = unit * wasserstein(of.counts, of.pooled, of.positions / unit)
    return found


of_values("wasserstein_scaled", "Wasserstein distance (in standard deviations)")(
    wasserstein_of_values
)


def wasserstein_by_chance(of: Ordered) -> Floats:
    """Mean of that without change, (C,)."""
    unit, used = _power_of_two(of.positions), of.pooled > 0
    positions = of.positions[used] / unit
    mean = of.expected(lambda a, b: wasserstein(a, b, positions), of.pooled[used])
    return unit * mean


BY_CHANCE = dict.fromkeys(("wasserstein", "wasserstein_scaled"), wasserstein_by_chance)


def _power_of_two(positions: Floats) -> float:
    """Return a unit in which sums of positions are numbers; it changes no digit."""
    return 2.0 ** (int(np.frexp(np.abs(positions).max())[1]) - 1)


@of_values("mean_shift", "Shift of the mean (in standard deviations)")
def mean_shift(of: Ordered) -> Floats:
    """Difference of the means, from exact sums where there are such."""
    shares = of.counts / of.counts.sum(axis=1)[:, None]
    then = mean_and_spread(of.positions, of.pooled)[0]
    return _exact_means(of.current, shares @ of.positions) - _exact_mean(of.baseline, then)


FURTHER = (*OF_BINS, *OF_VALUES)
