"""What a drift distance looks like when nothing has changed: its null distribution.

The moments are those of `moments`, for windows drawn from the baseline's distribution and compared
with the baseline as it is: the exact statistic, with its merging, smoothing and the baseline's own
size, at the window's size. They are computed at sizes on a geometric grid and interpolated in 1/n,
in which they are nearly linear, so that a year of windows costs a few evaluations; the grid is
fixed, so a window's result does not depend on which other windows are computed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.distances import chi_square, jensen_shannon, psi
from mlmon_dagster.metrics.drift.drift_bins import merge_plan
from mlmon_dagster.metrics.drift.null_moments import Moments, null_moments
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
    """Null distribution of the KS distance on the baseline's fine bins.

    Without change, the distance times sqrt(n N / (n + N)) is the largest excursion of a Brownian
    bridge looked at on the bin edges; that is drawn once and serves every n.
    """

    bridge: Moments
    n_baseline: float | Floats | Ints

    @classmethod
    def fit(cls, baseline: Ints, seed: int) -> KsNull:
        """Draw bridges at the baseline's cumulative shares, `baseline` being (F,) fine counts."""
        share = baseline[baseline > 0] / max(int(baseline.sum()), 1)
        steps = _normals(seed, 1 << max(len(share) - 1, 0).bit_length())[:, : len(share)]
        steps = steps * np.sqrt(share)
        walk = np.cumsum(steps, axis=1)
        bridge = np.abs(walk - np.cumsum(share) * walk[:, -1:]).max(axis=1, initial=0.0)
        return cls(Moments(*map(np.asarray, _moments_of(bridge, POWER["ks"]))), int(baseline.sum()))

    @classmethod
    def stack(cls, nulls: Sequence[KsNull], place: Ints) -> KsNull:
        """Put those of K baselines side by side, in the order of `place`, (P,)."""
        bridges = np.array([null.bridge for null in nulls])[place]
        return cls(Moments(*bridges.T), np.array([null.n_baseline for null in nulls])[place])

    def moments(self, n: ArrayLike) -> Moments:
        """Moments for windows of n rows with a value (Stephens' correction for small n)."""
        scale = self._scale(n, self.n_baseline)
        b = self.bridge
        square = scale**2
        return Moments(b.bias / scale, b.mean / square, b.sd / square, b.skew, b.noise / square)

    def p_value(self, distance: ArrayLike, n: ArrayLike) -> Floats:
        """Kolmogorov's tail; too large, so never a false alarm, when values are tied."""
        p: Floats = special.kolmogorov(np.asarray(distance) * self._scale(n, self.n_baseline))
        return p

    @staticmethod
    def _scale(n: ArrayLike, n_baseline: float | Floats | Ints) -> Floats:
        size = np.maximum(np.asarray(n, dtype=np.float64), 1)
        root = np.sqrt(size * n_baseline / (size + np.maximum(n_baseline, 1)))
        scale: Floats = root + 0.12 + 0.11 / np.maximum(root, 1e-9)
        return scale


@lru_cache(maxsize=4)
def _normals(seed: int, width: int) -> Floats:
    """Return the normal draws that all columns share, (_BRIDGES, width)."""
    draws = np.random.default_rng([seed, width]).standard_normal((_BRIDGES, width))
    draws.setflags(write=False)
    return draws


def _moments_of(distance: Floats, power: float) -> tuple[float, ...]:
    y = distance**power
    mean, sd = float(y.mean()), float(y.std())
    skew = float(((y - mean) ** 3).mean() / sd**3) if sd > 0 else 0.0
    # The spread that the baseline's windows are measured by: half of a skewed law's 68 % is less.
    return float(distance.mean()), mean, sd, skew, float(biweight(y)[1])
