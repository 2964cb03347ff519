"""Is a window further from the baseline than the baseline's own windows are from each other?

Rows of a window are rarely independent: 24 hourly temperatures shared by 40 flights each are
24 values, not 960, and a test that counts rows rejects in every unchanged window. The
baseline's windows show how far an unchanged window strays; a change is real when it is extreme
among them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.autocorrelation import Persistence, Season, correlation
from mlmon_dagster.metrics.intervals import Z90
from mlmon_dagster.metrics.moments import Moments
from mlmon_dagster.metrics.robust import EFFICIENCY, biweight

MIN_WINDOWS = 14
_UPPER = (0.9, 0.95)
_USUAL, _LEAST_LIMIT = 4.0, 0.01
_LEAST = 0.25  # of the mean without change
_COMMON = 0.05  # what this share of the baseline's windows reaches is not extreme
Floats = NDArray[np.float64]


def between_window_p(
    value: Floats,
    null: Moments,
    baseline: Floats,
    baseline_null: Moments,
    *,
    persistence: Persistence,
    root: float = 1 / 3,
) -> Floats:
    """P-value of windows against the spread between baseline windows.

    All values are on the scale distance ** POWER (see `null`). A baseline window's excess over its
    own sampling mean is carried to a window of n rows: multiplied by mean(n) / mean(n_w) if that is
    above 1 (fewer rows, larger excess, as with clusters of fixed size), and with the part of its
    spread that is only the sampling noise of n_w rows replaced by that of n rows. The roots
    of these references are about normal; their biweight centre and scale give a Student tail.
    Where the baseline's windows hang together in time, references are further away and know less
    (see `Persistence`).

    Args:
        value: Distances of C windows.
        null: Moments without change at the windows' sizes, (C,).
        baseline: Distances of W baseline windows, each against the pooled rest.
        baseline_null: Moments at the baseline windows' sizes, (W,).
        persistence: Of each window's baseline, (C,).
        root: Power that makes the references about normal: a cube root for sums of squares.

    Returns:
        p-values (C,). 1 for everything if the references have no spread and the value is not above
        them, 0 above. At least the share of references as far away, when that is above 5 %: a
        season or weekday that the baseline has seen is no drift.
    """
    reference = reference_distances(null, baseline, baseline_null, persistence)
    roots = reference**root
    centre, scale = biweight(roots)
    windows = reference.shape[-1]
    for quantile in _UPPER:  # day effects make the upper half wider than the lower
        level = min(quantile, (windows - 2) / (windows - 1))  # never the one window furthest off
        spread = np.quantile(roots, level, axis=-1) - np.median(roots, axis=-1)
        scale = np.maximum(scale, spread / special.ndtri(level))
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = value**root - centre
        t = beyond / (scale * np.sqrt(1 + 1 / windows))
    tail = special.stdtr(freedom_of(np.minimum(persistence.effective, windows)), -t)
    tail = np.where(scale > 0, tail, np.where(beyond > 0, 0.0, 1.0))
    share = (reference >= value[..., None]).mean(axis=-1)
    p: Floats = np.where(share > _COMMON, np.maximum(tail, share), tail)
    return np.where(np.isnan(value), np.nan, p)


def freedom_of(windows: Floats | float) -> Floats:
    """Return the degrees of freedom with which so many independent windows know a spread."""
    return np.maximum(EFFICIENCY * (np.asarray(windows, dtype=np.float64) - 1), 1.0)


def usual_limit(
    null: Moments, baseline: Floats, baseline_null: Moments, persistence: Persistence, power: float
) -> Floats:
    """Return the largest usual effect at the sizes of C windows, (C,).

    Four robust spreads (of the median absolute deviation) above the median of the baseline's own
    windows, their mean without change taken off; at least 0.01.
    """
    reference = reference_distances(null, baseline, baseline_null, persistence)
    effect = reference ** (1 / power) - null.bias[..., None]
    median = np.median(effect, axis=-1)
    spread = 1.4826 * np.median(np.abs(effect - median[..., None]), axis=-1)
    return np.maximum(median + _USUAL * spread, _LEAST_LIMIT)


def reference_distances(
    null: Moments, baseline: Floats, baseline_null: Moments, persistence: Persistence
) -> Floats:
    """What the W baseline windows' distances would be at the sizes of C windows, shape (C, W).

    Baseline windows count as further apart than rows alone make them, and as more spread, only by
    what 19 of 20 sets of independent windows would not show: windows of 50 rows say little about
    windows of 5,000, and less than that would hide every change of those. What they are apart is
    widened to what later windows will be.

    None is lower than sampling alone would make it (two spreads below the mean, and not below a
    quarter of it: near 0 their roots would be far from all others).
    """
    mean = null.mean[..., None]
    growth = np.maximum(1.0, mean / np.maximum(baseline_null.mean, 1e-300))
    excess = (baseline - baseline_null.mean) * growth
    centre, scale = biweight(excess)
    noise = ((baseline_null.noise * growth) ** 2).mean(axis=-1)
    # What so few windows show by chance is no spread and no distance of their own.
    freedom = freedom_of(baseline.shape[-1])
    # Each of these against the rest, of which it is no part.
    widening = np.asarray(persistence.widening) * (1 - 1 / baseline.shape[-1]) ** 2
    real = np.maximum(scale**2 - noise * (1 + Z90 * np.sqrt(2 / freedom)), 0.0)
    chance = Z90 * np.sqrt(noise / freedom)
    shown = np.sign(centre) * np.maximum(np.abs(centre) - chance, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink = np.where(scale > 0, np.sqrt((real * widening**2 + null.noise**2) / scale**2), 1.0)
    moved: Floats = (
        mean + (shown * widening)[..., None] + (excess - centre[..., None]) * shrink[..., None]
    )
    return np.maximum(moved, np.maximum(mean - 2 * null.noise[..., None], _LEAST * mean))


class Strays:
    """How far a value of a baseline's windows strays, such as a mean, by their season and order.

    Args:
        values: Of W windows, (W,), finite.
        noise: Their variances by sampling alone, (W,).
        starts: Their starts.
    """

    def __init__(self, values: Floats, noise: Floats, starts: pd.Series) -> None:
        self._season = Season.fit(starts)
        places = self._season.of(starts)
        self._course = self._season.course(values[:, None], places)[:, 0]
        strays = values - self._course[places]
        self._centre, self._scale = (float(part) for part in biweight(strays))
        self._strays = np.abs(strays - self._centre)
        for quantile in _UPPER:  # what strays seldom, but far
            level = min(quantile, (len(strays) - 2) / (len(strays) - 1))
            far = float(np.quantile(self._strays, level)) / special.ndtri((1 + level) / 2)
            self._scale = max(self._scale, far)
        self._between = max(self._scale**2 - float(np.median(noise)), 0.0)
        coefficient = correlation(strays[:, None], noise, starts)
        self._persistence = Persistence.of(coefficient, starts, places)

    def p_value(
        self, values: Floats, noise: Floats, starts: pd.Series, growth: Floats | float = 1.0
    ) -> Floats:
        """Return the chance of values as far from the usual of their place in the season, (C,).

        Args:
            values: Of C windows.
            noise: Their variances by sampling alone.
            starts: Their starts.
            growth: How much larger the variances of such windows are, at least 1.

        Returns:
            Two-sided, by Student's law. Where the baseline's values are all the same: 1 for that
            value, else 0. NaN for values that are not finite.
        """
        away = np.abs(values - self._course[self._season.of(starts)] - self._centre)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            variance = np.fmax(self._between + noise, self._scale**2) * growth
            spread = np.sqrt(variance * self._persistence.widening)
            p = 2 * special.stdtr(freedom_of(self._persistence.effective), -away / spread)
        p = np.where(spread > 0, p, np.where(away == 0, 1.0, 0.0))
        return np.where(np.isfinite(values) & np.isfinite(spread), p, np.nan)
