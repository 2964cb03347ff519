"""Centre and scale that a few odd values do not move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EFFICIENCY = 0.8  # of both below; what robustness costs in degrees of freedom


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
