"""Changes of place and width, which many bins dilute: two distances on normal scores.

A baseline's ordered bins are put into up to 60 groups of about as many rows, and a group's score is
the normal quantile of its middle rank (van der Waerden), so that neither a heavy tail nor the unit
counts. ``smooth`` is Neyman's smooth statistic of order two: the squared length of the difference
in the means of two standardised, uncorrelated scores, one for place and one for width (Neyman,
1937; van der Waerden, 1952). ``area`` is the area between the cumulative shares over the scores: of
a normal column Wasserstein's distance in standard deviations. Both are of rows with a value, so no
null bin is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import merge_bins, score_groups
from mlmon_dagster.metrics.drift.null_distribution import Moments, gamma_tail
from mlmon_dagster.metrics.intervals import EFFICIENCY, Z90, biweight

Distance = Callable[[Floats, Floats], Floats]
SHAPES = ("smooth", "area")
_GROUPS = 60
_FURTHEST = 3.0  # score: one row must not count as many
_LEAST = 1e-9  # share of a score's variance that is rounding
_TILTS = np.linspace(-4, 4, 81)
_QUANTILES = (np.arange(200) + 0.5) / 200


@dataclass(frozen=True)
class ShapeNull:
    """A distance without change: gamma laws, whose moments depend on s = 1/n + 1/N.

    Attributes:
        mean: Of the distance / s ** power. variance: of the same.
        excess: What the variance has more, / (1/n ** 3 + 1/N ** 3), by the scores' fourth moment.
        power: Of s.
        noise: Spread of the law's inner part / its standard deviation, see `Moments`.
        n_baseline: Rows with a value of the baseline, N.
    """

    mean: float | Floats
    variance: float | Floats
    excess: float | Floats
    power: float | Floats
    noise: float | Floats
    n_baseline: float | Floats

    def moments(self, n: ArrayLike) -> Moments:
        """Moments for windows of n rows with a value."""
        size = np.maximum(np.asarray(n, dtype=np.float64), 1)
        total = np.maximum(self.n_baseline, 1)
        s = self.s(n)
        mean = self.mean * s**self.power
        variance = self.variance * s ** (2 * self.power)
        sd = np.sqrt(np.maximum(variance + self.excess * (size**-3 + total**-3.0), 0))
        return Moments(mean, mean, sd, np.zeros_like(mean), self.noise * sd)

    def s(self, n: ArrayLike) -> Floats:
        """Return 1/n + 1/N."""
        size = np.maximum(np.asarray(n, dtype=np.float64), 1)
        found: Floats = 1 / size + 1 / np.maximum(self.n_baseline, 1)
        return found

    def p_value(self, distance: ArrayLike, n: ArrayLike) -> Floats:
        """Chance of at least this distance; 1 where there is only one group."""
        return gamma_tail(distance, self.moments(n))


@dataclass(frozen=True)
class Spread:
    """Whether a baseline's own windows stray by ``smooth`` as independent rows do.

    Attributes:
        kinds: Number of scores.
        freedom: Degrees of freedom with which the spread is known; 0 without windows.
        is_wider: Whether they lie further apart than 19 of 20 sets of such windows: days differ.
    """

    kinds: int
    freedom: float
    is_wider: bool

    @classmethod
    def fit(cls, strayed: Floats, kinds: int) -> Spread:
        """Measure it by the distances / s of W windows, each from the rest.

        Their mean without change is `kinds`, their cube roots are about normal (Wilson and
        Hilferty, 1931), and of these the robust centre counts, so that a bad day does not.
        """
        if not kinds or not len(strayed):
            return cls(kinds, 0.0, is_wider=False)
        freedom = EFFICIENCY * kinds * (len(strayed) - 1)
        centre = float(biweight(np.cbrt(strayed / kinds))[0])
        found = (centre / (1 - 2 / (9 * kinds))) ** 3
        return cls(kinds, freedom, is_wider=found > 1 + Z90 * np.sqrt(2 / freedom))

    def p_value(self, strayed: Floats) -> Floats:
        """Chance of at least these distances / s by Snedecor's F, as few windows know the spread.

        0, so no objection, without windows.
        """
        if not self.freedom:
            return np.zeros_like(strayed)
        p: Floats = special.fdtrc(self.kinds, self.freedom, strayed / self.kinds)
        return p


class WidthByPlace:
    """How the width of a baseline's windows goes with their place: a parabola.

    Days narrower than all of them together are the further out the wider in scores.

    Args:
        place: Places of W windows, (W,).
        width: Their widths.
    """

    def __init__(self, place: Floats, width: Floats) -> None:
        terms = _parabola(place)
        self._inverse = np.linalg.pinv(terms.T @ terms)
        self._by_place = self._inverse @ (terms.T @ width)

    def beside(self, place: Floats, width: Floats) -> Floats:
        """Return the widths of windows beside what goes with their place, (C,)."""
        found: Floats = width - _parabola(place) @ self._by_place
        return found

    def uncertainty(self, place: Floats) -> Floats:
        """Return how badly that is known at these places, in units of a window's variance, (C,)."""
        terms = _parabola(place)
        found: Floats = ((terms @ self._inverse) * terms).sum(axis=1)
        return found


def _parabola(place: Floats) -> Floats:
    return np.column_stack([np.ones(len(place)), place, place**2])


class Shape:
    """The scores of one baseline.

    Args:
        baseline: Its rows per ordered bin, (F,).
    """

    def __init__(self, baseline: Ints) -> None:
        self._groups = score_groups(baseline, _GROUPS)
        counts = merge_bins(baseline, self._groups).astype(np.float64)
        self._n = int(counts.sum())
        share = counts / max(self._n, 1)
        ranks = np.clip(np.cumsum(share) - share / 2, 1e-12, 1 - 1e-12)
        scores = np.clip(special.ndtri(ranks), -_FURTHEST, _FURTHEST)
        self._steps = np.diff(scores)
        self._scores, self._fourth = _standardised(scores, share)
        self._baseline, self._share = baseline, share
        self._inner = np.cumsum(share)[:-1]
        self._moved = _moved(self._scores, share)

    def scores(self, counts: Ints) -> Floats:
        """Return the means of the scores of rows per fine bin, (C, F): (C, at most 2)."""
        found: Floats = self._shares(counts) @ self._scores.T
        return found

    def place_and_width(self, counts: Ints) -> Floats:
        """Return the scores of rows per fine bin, (C, F), with widths beside those of a mere move.

        What moves far gets another mean of the second score, too: the square of the first.
        """
        found = self.scores(counts)
        if found.shape[1] > 1:
            found[:, 1] -= np.interp(found[:, 0], *(self._moved @ self._scores.T).T)
        return found

    def by_place(self, distance: Distance, counts: Ints) -> Floats:
        """Return the distance that a mere move to the place of windows, (C, F), makes: (C,).

        Such a move is a tilt: rows are weighted by exp(t x score), of a normal column a shift. Of
        all laws with that mean it is the nearest, and what a window is further off than that comes
        on top (Csiszar, 1975, exactly so for the Kullback-Leibler divergence).
        """
        if not len(self._scores):
            return np.zeros(len(counts))
        size = max(self._n, 1)
        made = distance(self._moved * size, np.broadcast_to(self._share, self._moved.shape) * size)
        places = self._moved @ self._scores[0]
        found: Floats = np.interp(self.scores(counts)[:, 0], places, made)
        return found

    def smooth(self, current: Ints, baseline: Ints) -> Floats:
        """Squared length of the scores' difference in means, of rows (C, F) from (F,) or (C, F)."""
        gap = self.scores(current) - self.scores(baseline)
        found: Floats = (gap**2).sum(axis=-1)
        return found

    def area(self, current: Ints, baseline: Ints) -> Floats:
        """Area between the cumulative shares over the scores, likewise."""
        gap = np.cumsum(self._shares(current) - self._shares(baseline), axis=-1)[..., :-1]
        found: Floats = np.abs(gap) @ self._steps
        return found

    def spread(self, windows: Ints, baseline: Ints) -> Spread:
        """Measure how far the baseline's windows, (W, F), lie from the rest of it, (F,)."""
        n = windows.sum(axis=1)
        s = 1 / np.maximum(n, 1) + 1 / np.maximum(baseline.sum() - n, 1)
        return Spread.fit(self.smooth(windows, baseline - windows) / s, len(self._scores))

    def nulls(self) -> tuple[ShapeNull, ShapeNull]:
        """Return how ``smooth`` and ``area`` are distributed without change.

        Two means of standardised scores: the sum of their squares has mean 2 and variance 4 in
        units of s, and by their fourth moment a little more. The area is that under the magnitude
        of a Brownian bridge, whose mean and variance are those of correlated half-normal variables:
        of two of correlation r, E |x y| = 2 / pi (sqrt(1 - r^2) + r arcsin r) (Nabeya, 1951).
        """
        kinds = len(self._scores)
        mean, variance = _bridge_area(self._inner, self._steps)
        excess = self._fourth - kinds**2 - 2 * kinds if kinds else 0.0
        shape = mean**2 / variance if variance > 0 else 1.0
        n = float(self._n)
        return (
            ShapeNull(kinds, 2.0 * kinds, excess, 1.0, _inner_spread(kinds / 2), n),
            ShapeNull(mean, variance, 0.0, 0.5, _inner_spread(shape), n),
        )

    def _shares(self, counts: Ints) -> Floats:
        if counts is self._baseline:
            return self._share
        merged = merge_bins(counts, self._groups).astype(np.float64)
        found: Floats = merged / np.maximum(merged.sum(axis=-1, keepdims=True), 1)
        return found


def _moved(scores: Floats, share: Floats) -> Floats:
    """Return the baseline's shares moved by tilts, (T, G), from far below to far above."""
    first = scores[0] if len(scores) else np.zeros(len(share))
    most = np.where(_TILTS > 0, first.max(), first.min())[:, None]
    weight = share * np.exp(_TILTS[:, None] * (first - most))
    found: Floats = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
    return found


def _standardised(scores: Floats, share: Floats) -> tuple[Floats, float]:
    """Return uncorrelated scores of mean 0 and variance 1, (at most 2, G), and E |scores| ** 4."""
    found: list[Floats] = []
    for power in (1, 2):
        score = scores**power
        score = score - share @ score
        size = share @ score**2
        for other in found:
            score = score - (share @ (score * other)) * other
        left = share @ score**2
        if left > _LEAST * (size + _LEAST):
            found.append(score / np.sqrt(left))
    both = np.array(found).reshape(len(found), len(scores))
    return both, float(share @ (both**2).sum(axis=0) ** 2)


def _bridge_area(inner: Floats, steps: Floats) -> tuple[float, float]:
    """Mean and variance of the area under |Brownian bridge|, looked at at the shares `inner`."""
    sd = np.sqrt(np.maximum(inner * (1 - inner), 0))
    weight = sd * steps
    kept = weight > 0
    inner, sd, weight = inner[kept], sd[kept], weight[kept]
    covariance = np.minimum.outer(inner, inner) - np.outer(inner, inner)
    rho = np.clip(covariance / np.outer(sd, sd), -1, 1)
    product = np.sqrt(1 - rho**2) + rho * np.arcsin(rho)  # E |x y| of half-normal pairs, / (2 / pi)
    mean = np.sqrt(2 / np.pi) * weight.sum()
    return float(mean), float(2 / np.pi * (weight @ product @ weight) - mean**2)


def _inner_spread(shape: float) -> float:
    """Biweight scale of a gamma law / its standard deviation."""
    if shape <= 0:
        return 0.0
    law = np.asarray(special.gammaincinv(shape, _QUANTILES), dtype=np.float64)
    return float(biweight(law)[1] / np.sqrt(shape))
