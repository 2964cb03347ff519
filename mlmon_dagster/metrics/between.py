"""Is a window further from the baseline than the baseline's own windows are from each other?

Rows of a window are rarely independent: 24 hourly temperatures shared by 40 flights each are
24 values, not 960, and a test that counts rows rejects in every unchanged window. The
baseline's windows show how far an unchanged window strays; a change is real when it is extreme
among them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.moments import Moments

MIN_WINDOWS = 14
_EFFICIENCY = 0.8  # of the biweight scale; what it costs in degrees of freedom
_Z90 = 1.2815515655446004
_COMMON = 0.05  # what this share of the baseline's windows reaches is not extreme
Floats = NDArray[np.float64]


def between_window_p(
    value: Floats,
    null: Moments,
    baseline: Floats,
    baseline_null: Moments,
    *,
    root: float = 1 / 3,
) -> Floats:
    """P-value of windows against the spread between baseline windows.

    All values are on the scale distance ** POWER (see `null`). A baseline window's excess over its
    own sampling mean is carried to a window of n rows: multiplied by mean(n) / mean(n_w) if that is
    above 1 (fewer rows, larger excess, as with clusters of fixed size), and with the part of its
    spread that is only the sampling noise of n_w rows replaced by that of n rows. The roots
    of these references are about normal; their biweight centre and scale give a Student tail.

    Args:
        value: Distances of C windows.
        null: Moments without change at the windows' sizes, (C,).
        baseline: Distances of W baseline windows, each against the pooled rest.
        baseline_null: Moments at the baseline windows' sizes, (W,).
        root: Power that makes the references about normal: a cube root for sums of squares.

    Returns:
        p-values (C,). 1 for everything if the references have no spread and the value is not above
        them, 0 above. At least the share of references as far away, when that is above 5 %: a
        season or weekday that the baseline has seen is no drift.
    """
    reference = reference_distances(null, baseline, baseline_null)
    roots = reference**root
    centre, scale = biweight(roots)
    upper = (np.quantile(roots, 0.9, axis=-1) - np.median(roots, axis=-1)) / _Z90
    scale = np.maximum(scale, upper)  # day effects make the upper half wider than the lower
    windows = reference.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = value**root - centre
        t = beyond / (scale * np.sqrt(1 + 1 / windows))
    tail = special.stdtr(_EFFICIENCY * (windows - 1), -t)
    tail = np.where(scale > 0, tail, np.where(beyond > 0, 0.0, 1.0))
    share = (reference >= value[..., None]).mean(axis=-1)
    p: Floats = np.where(share > _COMMON, np.maximum(tail, share), tail)
    return np.where(np.isnan(value), np.nan, p)


def reference_distances(null: Moments, baseline: Floats, baseline_null: Moments) -> Floats:
    """What the W baseline windows' distances would be at the sizes of C windows, shape (C, W).

    None is lower than sampling alone would make it (two spreads below the mean, and not below 0).
    """
    mean = null.mean[..., None]
    growth = np.maximum(1.0, mean / np.maximum(baseline_null.mean, 1e-300))
    excess = (baseline - baseline_null.mean) * growth
    centre, scale = biweight(excess)
    noise = ((baseline_null.noise * growth) ** 2).mean(axis=-1)
    real = np.maximum(scale**2 - noise, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink = np.where(scale > 0, np.sqrt((real + null.noise**2) / scale**2), 1.0)
    moved: Floats = mean + centre[..., None] + (excess - centre[..., None]) * shrink[..., None]
    return np.maximum(moved, np.maximum(mean - 2 * null.noise[..., None], 0.0))


def biweight(values: Floats) -> tuple[Floats, Floats]:
    """Tukey's biweight centre and scale over the last axis.

    Robust, yet nearly as efficient as mean and standard deviation. The scale is 0 if more than
    half of the values are equal.

    Example:
        >>> centre, scale = biweight(np.array([1.0, 2.0, 3.0, 4.0, 1000.0]))
        >>> bool(2 < centre < 3.5), bool(scale < 3)
        (True, True)
    """
    median = np.median(values, axis=-1, keepdims=True)
    deviation = values - median
    mad = np.median(np.abs(deviation), axis=-1, keepdims=True)
    safe = np.where(mad > 0, mad, 1.0)
    near = np.abs(deviation / (6 * safe)) < 1
    weight = np.where(near, (1 - (deviation / (6 * safe)) ** 2) ** 2, 0.0)
    centre = median + (weight * deviation).sum(axis=-1, keepdims=True) / weight.sum(
        axis=-1, keepdims=True
    )
    u = deviation / (9 * safe)
    inside = np.abs(u) < 1
    above = np.where(inside, deviation**2 * (1 - u**2) ** 4, 0.0).sum(axis=-1)
    below = np.where(inside, (1 - u**2) * (1 - 5 * u**2), 0.0).sum(axis=-1)
    scale = np.sqrt(values.shape[-1] * above) / np.abs(below)
    flat = mad[..., 0] == 0
    return np.where(flat, median[..., 0], centre[..., 0]), np.where(flat, 0.0, scale)
