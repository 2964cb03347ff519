"""What a drift distance looks like when nothing has changed: its null distribution.

The moments are those of `moments`, for windows drawn from the baseline's distribution and compared
with the baseline as it is: the exact statistic, with its merging, smoothing and the baseline's own
size, at the window's size. They are computed at sizes on a geometric grid and interpolated in 1/n,
in which they are nearly linear, so that a year of windows costs a few evaluations; the grid is
fixed, so a window's result does not depend on which other windows are computed with it.

A tail is that of a gamma law with three moments, as Pearson (1959) has it for noncentral
chi-square. Counts are beta-binomial, the baseline's own uncertainty included (Jeffreys' prior,
1946).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints, Positions
from mlmon_dagster.metrics.binnings import merge_plan
from mlmon_dagster.metrics.drift.distances import chi_square, jensen_shannon, psi
from mlmon_dagster.metrics.intervals import biweight

DISTANCES: dict[str, Callable[[ArrayLike, ArrayLike], Floats]] = {
    "psi": psi,
    "jensen_shannon": jensen_shannon,
    "chi_square": chi_square,
}
# The distance to this power behaves like a sum of squares, so a gamma tail fits it.
POWER = {
    "psi": 1.0, "jensen_shannon": 2.0, "chi_square": 1.0, "ks": 2.0, "area": 1.0,
}  # fmt: skip
# Power under which the references between windows are about normal, and no lighter in the tail.
ROOT = {
    "psi": 1 / 3, "jensen_shannon": 1 / 3, "chi_square": 1 / 6, "ks": 1 / 6, "area": 1 / 3,
}  # fmt: skip
_GRID_STEP = 0.5  # in powers of two
_GRID_START = 4.0
_BRIDGES = 500
_NODES = 128  # more than there are grid sizes of 64 bits
_PAD = 8


class NullTables:
    """Null moments of many baselines at grid sizes, computed when first asked for and kept.

    Args:
        metrics: The distances wanted, of `DISTANCES`.
    """

    def __init__(self, metrics: tuple[str, ...] = tuple(DISTANCES)) -> None:
        self.metrics = metrics
        self._bins: list[Ints] = []
        self._numbers: dict[bytes, int] = {}
        self._keys = np.zeros(0, np.int64)  # baseline and node, ascending
        self._values = np.zeros((0, len(metrics), len(Moments._fields)))

    def add(self, bins: Ints) -> int:
        """Add a baseline's rows per merged bin, (B,); return its number, the same of the same."""
        number = self._numbers.setdefault(bins.tobytes(), len(self._bins))
        if number == len(self._bins):
            self._bins.append(bins)
        return number

    def moments(self, metric: str, baselines: Ints, n: ArrayLike) -> Moments:
        """Moments of a distance of windows of n rows from the baselines of these numbers.

        Both broadcast; what is returned for one pair does not depend on the others.
        """
        sizes = np.maximum(np.asarray(n, dtype=np.float64), 1.0)
        below = grid_floor(sizes)
        keys = baselines * _NODES + below
        self._compute(np.unique(np.concatenate([keys.ravel(), keys.ravel() + 1])))
        which = self.metrics.index(metric)
        first = self._values[np.searchsorted(self._keys, keys), which]
        second = self._values[np.searchsorted(self._keys, keys + 1), which]
        found = between_sizes(sizes, below, first, second)
        return Moments(*(found[..., i] for i in range(found.shape[-1])))

    def _compute(self, keys: Ints) -> None:
        at = np.searchsorted(self._keys, keys)
        known = at < len(self._keys)
        known[known] = self._keys[at[known]] == keys[known]
        new = keys[~known]
        if not len(new):
            return
        baselines, nodes = np.divmod(new, _NODES)
        bins = np.array([len(self._bins[i]) for i in baselines.tolist()])
        widths = -(-bins // _PAD) * _PAD  # padded alike whichever others are asked for
        values = np.empty((len(new), *self._values.shape[1:]))
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            padded = np.zeros((len(rows), width), np.int64)
            for row, i in enumerate(rows.tolist()):
                padded[row, : bins[i]] = self._bins[baselines[i]]
            values[rows] = null_moments(padded, bins[rows], grid_size(nodes[rows]), self.metrics)
        places = at[~known]
        self._keys = np.insert(self._keys, places, new)
        self._values = np.insert(self._values, places, values, axis=0)


def plan_at(counts: Ints, node: int, *, ordered: bool) -> Ints:
    """Merging of a baseline's bins for windows of grid size number `node` (see `grid_floor`).

    A baseline smaller than the window decides: of a bin with few rows there it knows little.

    Args:
        counts: Rows of the baseline per drift bin, (B,), nulls last.
        node: Number of the grid size.
        ordered: Whether the bins are intervals of numbers.
    """
    size = min(float(grid_size(node)), float(counts.sum()))
    return merge_plan(counts, size, ordered=ordered)


def between_sizes(n: Floats, below: Ints, first: Floats, second: Floats) -> Floats:
    """Interpolate in 1/n between values at the grid sizes `below` and the one after it.

    Args:
        n: Sizes (...).
        below: `grid_floor` of the sizes (...).
        first: Values (..., M) at that grid size.
        second: Values (..., M) at the next grid size.
    """
    x, low, high = 1 / n, 1 / grid_size(below), 1 / grid_size(below + 1)
    weight = np.clip((x - high) / (low - high), 0, 1)[..., None]
    blend: Floats = second + weight * (first - second)
    return blend


def grid_floor(n: ArrayLike) -> Ints:
    """Number of the largest grid size that is at most n (0 below the smallest)."""
    steps = np.floor(np.log2(np.maximum(np.asarray(n, dtype=np.float64), 1) / _GRID_START) / 0.5)
    return np.maximum(steps, 0).astype(np.int64)


def grid_size(node: ArrayLike) -> Floats:
    """Rows of grid size number `node`: 4, 5.7, 8, 11.3, ..."""
    size: Floats = _GRID_START * 2 ** (_GRID_STEP * np.asarray(node, dtype=np.float64))
    return size


def gamma_tail(value: ArrayLike, moments: Moments) -> Floats:
    """Chance of at least `value` under a shifted gamma with the given three moments.

    The skewness is at least that of an unshifted gamma (2 sd / mean), so that a noisy estimate
    never gives a tail lighter than chi-square's. Where sd is 0: 1 up to the mean, 0 above it.
    """
    y = np.asarray(value, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.maximum(moments.skew, 2 * moments.sd / np.maximum(moments.mean, 1e-300))
        shape = 4 / skew**2
        z = (y - moments.mean) / moments.sd
        tail = special.gammaincc(shape, np.maximum(shape + z * np.sqrt(shape), 0))
    degenerate = np.where(y <= moments.mean * (1 + 1e-9), 1.0, 0.0)
    result: Floats = np.where(moments.sd > 0, tail, degenerate)
    return np.where(np.isnan(y), np.nan, result)


@dataclass(frozen=True)
class KsNull:
    """Null distribution of the KS distance on the baseline's fine bins, of one or of P baselines.

    Without change, the distance times sqrt(n N / (n + N)) is the largest excursion of a Brownian
    bridge looked at on the bin edges (Doob, 1949); that is drawn once and serves every n.

    Attributes:
        bias, mean, sd, skew, noise: Moments of the excursion, see `Moments`.
        n_baseline: Rows with a value of the baseline, N.
    """

    bias: float | Floats
    mean: float | Floats
    sd: float | Floats
    skew: float | Floats
    noise: float | Floats
    n_baseline: float | Floats

    @classmethod
    def fit(cls, baseline: Ints, seed: int) -> KsNull:
        """Draw bridges at the baseline's cumulative shares, `baseline` being (F,) fine counts."""
        share = baseline[baseline > 0] / max(int(baseline.sum()), 1)
        steps = _normals(seed, 1 << max(len(share) - 1, 0).bit_length())[:, : len(share)]
        walk = steps * np.sqrt(share)
        np.cumsum(walk, axis=1, out=walk)
        walk -= np.cumsum(share) * walk[:, -1:]
        bridge = np.maximum(walk.max(axis=1, initial=0.0), -walk.min(axis=1, initial=0.0))
        return cls(*_moments_of(bridge, POWER["ks"]), float(baseline.sum()))

    def moments(self, n: ArrayLike) -> Moments:
        """Moments for windows of n rows with a value (correction for small n: Stephens, 1970)."""
        scale = self._scale(n)
        square = scale**2
        skew = np.broadcast_to(self.skew, square.shape)
        return Moments(
            self.bias / scale, self.mean / square, self.sd / square, skew, self.noise / square
        )

    def p_value(self, distance: ArrayLike, n: ArrayLike) -> Floats:
        """Kolmogorov's tail; too large, so never a false alarm, when values are tied."""
        p: Floats = special.kolmogorov(np.asarray(distance) * self._scale(n))
        return p

    def _scale(self, n: ArrayLike) -> Floats:
        size = np.maximum(np.asarray(n, dtype=np.float64), 1)
        root = np.sqrt(size * self.n_baseline / (size + np.maximum(self.n_baseline, 1)))
        scale: Floats = root + 0.12 + 0.11 / np.maximum(root, 1e-9)
        return scale


@lru_cache(maxsize=4)
def _normals(seed: int, width: int) -> Floats:
    """Return the normal draws that all columns share, (_BRIDGES, width)."""
    draws = np.random.default_rng([seed, width]).standard_normal((_BRIDGES, width))
    draws.setflags(write=False)
    return draws


def _moments_of(distance: Floats, power: float) -> tuple[float, float, float, float, float]:
    y = distance**power
    mean, sd = float(y.mean()), float(y.std())
    skew = float(((y - mean) ** 3).mean() / sd**3) if sd > 0 else 0.0
    # The spread that the baseline's windows are measured by: half of a skewed law's 68 % is less.
    return float(distance.mean()), mean, sd, skew, float(biweight(y)[1])


POINTS = 40
_RARE = 4.0  # expected rows of bins that no merging made larger: outside, unseen and nulls
_RAREST = 5e-4  # a jump rarer than this would make the whole tail useless
_REACH = 6.5  # standard deviations to either side that the quadrature covers
_ROUNDING = 1e-7  # a spread this small beside the mean is the computer's
_BATCH = 100_000  # points of all bins computed at once: bounds the memory


class Moments(NamedTuple):
    """Moments of a distance without change, each of the shape of the asked sizes.

    Attributes:
        bias: Mean of the distance itself: what it shows when nothing has changed.
        mean: Mean of distance ** POWER. sd: its standard deviation. skew: its skewness.
        noise: Half the distance between its 16 % and 84 % quantiles: a spread that rare jumps (one
            null where the baseline has none) do not swell.
    """

    bias: Floats
    mean: Floats
    sd: Floats
    skew: Floats
    noise: Floats

    def take(self, rows: Positions) -> Moments:
        """Return those of some of the sizes."""
        return Moments(*(part[rows] for part in self))


class Counts(NamedTuple):
    """What one bin of a window can hold: (G, B, K) possible counts and their chances.

    Attributes:
        x: Possible counts. weight: their chances, summing to 1 over K.
        n: Rows of the window (G, 1, 1). baseline: rows of the baseline per bin (G, B, 1).
        bins: Number of bins (G, 1, 1).
    """

    x: Floats
    weight: Floats
    n: Floats
    baseline: Floats
    bins: Floats


def psi_terms(c: Counts) -> Floats:
    """Return what each bin adds to psi, (G, B, K)."""
    p = (c.x + 0.5) / (c.n + c.bins / 2)
    q = (c.baseline + 0.5) / (c.baseline.sum(axis=1, keepdims=True) + c.bins / 2)
    terms: Floats = (p - q) * (np.log(p) - np.log(q))
    return terms


def jensen_shannon_terms(c: Counts) -> Floats:
    """Return what each bin adds to the squared Jensen-Shannon distance, (G, B, K)."""
    p = (c.x + 0.5) / (c.n + c.bins / 2)
    q = (c.baseline + 0.5) / (c.baseline.sum(axis=1, keepdims=True) + c.bins / 2)
    log_middle = np.log2((p + q) / 2)
    terms: Floats = (p * (np.log2(p) - log_middle) + q * (np.log2(q) - log_middle)) / 2
    return terms


def chi_square_terms(c: Counts) -> Floats:
    """Return what each bin adds to the chi-square distance, (G, B, K)."""
    total = c.baseline.sum(axis=1, keepdims=True)
    both = c.x + c.baseline
    pooled = np.where(both > 0, both, 1.0) / (c.n + total)
    terms: Floats = (c.x / c.n - c.baseline / total) ** 2 / pooled
    return terms


TERMS: dict[str, Callable[[Counts], Floats]] = {
    "psi": psi_terms,
    "jensen_shannon": jensen_shannon_terms,
    "chi_square": chi_square_terms,
}


def null_moments(baseline: Ints, bins: Ints, n: Floats, metrics: tuple[str, ...]) -> Floats:
    """Moments of distances of windows drawn from the baseline, for G baselines and sizes.

    Args:
        baseline: Rows of the baseline per bin, (G, B); bins from `bins` on are padding.
        bins: Number of bins of each, (G,), at least 2.
        n: Rows of the window, (G,), at least 1.
        metrics: Names, of `TERMS`.

    Returns:
        The fields of `Moments` for every metric, shape (G, len(metrics), 5).
    """
    size = max(_BATCH // (baseline.shape[1] * POINTS), 1)
    parts = [
        _batch(baseline[i : i + size], bins[i : i + size], n[i : i + size], metrics)
        for i in range(0, len(n), size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(metrics), 5))


def _batch(baseline: Ints, bins: Ints, n: Floats, metrics: tuple[str, ...]) -> Floats:
    present = np.arange(baseline.shape[1]) < bins[:, None]
    alpha = np.where(present, baseline + 0.5, 0.5)
    whole = np.where(present, alpha, 0.0).sum(axis=1, keepdims=True)
    share = np.where(present, alpha / whole, 0.0)
    rare = present & (n[:, None] * share < _RARE)
    x, weight = _counts(alpha, whole, n[:, None], rare)
    counts = Counts(
        x,
        weight,
        n[:, None, None],
        baseline[..., None].astype(np.float64),
        bins[:, None, None].astype(np.float64),
    )
    first, second = _polynomials(x, weight)
    odds = share / np.maximum(1 - share, 1e-12)
    found = []
    for metric in metrics:
        terms = np.where(present[..., None], TERMS[metric](counts), 0.0)
        mean = (terms * weight).sum(axis=-1)
        centred = terms - mean[..., None]
        weighted = centred * weight
        bin_moments = _Bins(
            mean,
            (weighted * centred).sum(axis=-1),
            (weighted * centred**2).sum(axis=-1),
            (weighted * first).sum(axis=-1),
            (weighted * second).sum(axis=-1),
            odds,
        )
        found.append(_combine(bin_moments, rare, _jump_spread(terms, weight, rare), metric))
    return np.stack(found, axis=1)


def _counts(alpha: Floats, whole: Floats, n: Floats, rare: Flags) -> tuple[Floats, ...]:
    """Return points and weights of beta-binomial counts, each (G, B, K).

    Few possible counts are all taken. Many are integrated over: on even steps where they are
    about normal, on steps even in the square root where they reach down to 0.
    """
    share = alpha / whole
    mean = n * share
    growth = (whole + n) / (whole + 1)  # how much the baseline's own uncertainty adds
    sd = np.sqrt(mean * np.maximum(1 - share, 0) * growth)
    low = np.floor(np.maximum(mean - _REACH * sd, 0))
    reach = np.where(mean < 50, 12 * growth, 0)  # a long tail of small counts
    high = np.minimum(np.ceil(mean + _REACH * sd + reach), n)
    k = np.arange(POINTS, dtype=np.float64)
    low, width = low[..., None], (high - low)[..., None]
    t = (k + 0.5) / POINTS
    root = np.maximum((width + 0.5) * t**2 - 0.5, 0.0)
    even = low + width * k / (POINTS - 1)
    few = width < POINTS
    x = np.where(few, np.minimum(low + k, n[..., None]), np.where(low > 0, even, root))
    step = np.where(few | (low > 0), 1.0, t)
    step = np.where(few & (low + k > n[..., None]), 0.0, step)
    a, rest = alpha[..., None], (whole - alpha)[..., None]
    left = n[..., None] - x
    log = special.gammaln(x + a) - special.gammaln(x + 1)
    log += special.gammaln(left + np.maximum(rest, 0.5)) - special.gammaln(left + 1)
    weight = np.exp(log - log.max(axis=-1, keepdims=True)) * step
    weight /= weight.sum(axis=-1, keepdims=True)
    beyond = 1 - np.cumsum(weight, axis=-1)
    highest = np.argmax(beyond <= _RAREST, axis=-1)[..., None]
    capped = np.minimum(x, np.take_along_axis(x, highest, axis=-1))
    return np.where(rare[..., None], capped, x), weight


def _polynomials(x: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return the orthonormal polynomials of degree 1 and 2 of each bin's count, (G, B, K)."""
    centred = x - (x * weight).sum(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2 * weight).sum(axis=-1, keepdims=True))
    first = centred / np.where(scale > 0, scale, 1.0)
    square = first**2
    skew = (square * first * weight).sum(axis=-1, keepdims=True)
    norm = (square**2 * weight).sum(axis=-1, keepdims=True) - 1 - skew**2
    second = (square - skew * first - 1) / np.sqrt(np.where(norm > 1e-9, norm, np.inf))
    return first, second


class _Bins(NamedTuple):
    """Moments of what each bin adds to a distance, (G, B).

    Attributes:
        mean, variance, third: Cumulants.
        linear, square: Coefficients of the first and second orthonormal polynomial.
        odds: Share of the bin over the share of all others.
    """

    mean: Floats
    variance: Floats
    third: Floats
    linear: Floats
    square: Floats
    odds: Floats


def _combine(b: _Bins, rare: Flags, jumps: Floats, metric: str) -> Floats:
    mean = b.mean.sum(axis=-1)
    variance, third = _cumulants(b)
    variance = np.where(variance > (_ROUNDING * mean) ** 2, variance, 0.0)
    sd = np.sqrt(variance)
    core = _Bins(*(np.where(rare, 0.0, part) for part in b))
    core_variance, core_third = _cumulants(core)
    noise = np.sqrt((_gamma_spread(core_variance, core_third)) ** 2 + jumps)
    bias = mean
    if metric == "jensen_shannon":
        bias = _mean_root(mean, core_variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(sd > 0, third / sd**3, 0.0)
    return np.stack([bias, mean, sd, skew, noise], axis=-1)


def _cumulants(b: _Bins) -> tuple[Floats, Floats]:
    """Return variance and third cumulant of the sum over bins, (G,) each.

    Two bins correlate by -sqrt(odds odds'), their polynomials of degree 2 by its square. The third
    cumulant's common part is that of the quadratic form of normals with these correlations: its
    k-th cumulant is 2^(k-1) (k-1)! tr((A V)^k) (Mathai and Provost, 1992).
    """
    root = np.sqrt(b.odds)

    def total(values: Floats) -> Floats:
        result: Floats = values.sum(axis=-1)
        return result

    linear = total(b.linear * root)
    variance = total(b.variance) - linear**2 + total(b.linear**2 * b.odds)
    variance += total(b.square * b.odds) ** 2 - total((b.square * b.odds) ** 2)
    a = b.square / np.sqrt(2)
    own = a * (1 + b.odds)
    one, two = total(a * b.odds), total(a * b.odds * own)
    three = total(a * b.odds * own**2)
    third = total(b.third) + 8 * (total(own**3) - 3 * three + 3 * two * one - one**3 - total(a**3))
    shifted = b.linear * (1 + b.odds) - root * linear[:, None]
    third += 6 * (total(a * shifted**2) - total(a * b.linear**2))
    return np.maximum(variance, 0.0), third


def _gamma_spread(variance: Floats, third: Floats) -> Floats:
    """Return half the distance of the 16 % and 84 % quantiles of a gamma with these cumulants."""
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.where(variance > 0, third / variance**1.5, 0.0)
    shape = 4 / np.clip(skew, 0.05, 4.0) ** 2
    span = special.gammaincinv(shape, 0.84) - special.gammaincinv(shape, 0.16)
    spread: Floats = np.sqrt(variance / shape) * span / 2
    return spread


def _jump_spread(terms: Floats, weight: Floats, rare: Flags) -> Floats:
    """Return the summed squares of half the 16-84 % distance of the rare bins, (G,)."""
    group, column = np.nonzero(rare)
    mine, chance = terms[group, column], weight[group, column]
    order = np.argsort(mine, axis=-1)
    mine = np.take_along_axis(mine, order, axis=-1)
    reached = np.cumsum(np.take_along_axis(chance, order, axis=-1), axis=-1)
    low, high = (
        np.take_along_axis(mine, np.argmax(reached >= level, axis=-1)[:, None], axis=-1)[:, 0]
        for level in (0.16, 0.84)
    )
    squares = np.bincount(group, ((high - low) / 2) ** 2, minlength=len(rare))
    return np.asarray(squares, dtype=np.float64)


def _mean_root(mean: Floats, variance: Floats) -> Floats:
    """Return the mean of the square root of a gamma with this mean and variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = np.clip(np.where(variance > 0, mean**2 / variance, 1e6), 1e-3, 1e6)
    ratio = np.exp(special.gammaln(shape + 0.5) - special.gammaln(shape)) / np.sqrt(shape)
    return np.asarray(np.sqrt(mean) * ratio, dtype=np.float64)
