"""Whether a metric's level over some windows is another than over the windows of a baseline.

For what has no better side and should stay where it was: how far predictions are above what came
true. One window says little of it, as the rows of a day share more than they show; several windows
in a row say much. So the mean of the newest windows is compared with the mean of the baseline's,
and the spread between windows is the baseline's own, with its autocorrelation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.clusters import FEWEST_WINDOWS
from mlmon_dagster.metrics.intervals import Z95

_MOST_CORRELATED = 0.95
_LEAST = 1e-30  # variance of a window whose values are all equal


class UsualLevel(NamedTuple):
    """How a metric is in the windows of a baseline.

    Attributes:
        mean: Of the windows, by their precision.
        spread: Standard deviation of what windows share, beyond their rows.
        correlation: Of what two windows in a row share, 0 to .95.
        row: Standard error of a window of one row; of n rows it is that over the root of n.
        error: Standard error of the mean.
        freedom: Degrees of freedom of the spread.
        windows: How many there are.
    """

    mean: float
    spread: float
    correlation: float
    row: float
    error: float
    freedom: float
    windows: int


class LevelShift(NamedTuple):
    """How far the newest windows are above the usual level.

    Attributes:
        value: Mean of the newest windows, by their precision.
        shift: That less the usual mean.
        margin: Half of the 95 % interval of the shift.
        p_value: Two-sided chance of so large a shift without any.
    """

    value: float
    shift: float
    margin: float
    p_value: float


def usual_level(
    value: ArrayLike, lower: ArrayLike, upper: ArrayLike, n: ArrayLike
) -> UsualLevel | None:
    """Describe the windows of a baseline, in the order of time.

    The spread is that of DerSimonian and Laird (1986), with a window's error by its rows taken as
    that of all windows' rows, since an error estimated from few rows depends on the value.

    Args:
        value: Of W windows; those without a value or an interval are left out.
        lower: Lower ends of their 95 % intervals by rows.
        upper: Upper ends.
        n: Their rows.

    Returns:
        None with fewer than eight windows.

    Example:
        >>> found = usual_level([0.0, 0.02] * 5, [-0.02, 0.0] * 5, [0.02, 0.04] * 5, [500] * 10)
        >>> round(found.mean, 3), round(found.spread, 3), found.windows
        (0.01, 0.003, 10)
    """
    values, low, high, rows = (np.asarray(x, np.float64) for x in (value, lower, upper, n))
    known = np.isfinite(values) & np.isfinite(high - low) & (rows > 0)
    values, low, high, rows = (x[known] for x in (values, low, high, rows))
    size = len(values)
    if size < FEWEST_WINDOWS:
        return None
    row_variance = float((((high - low) / (2 * Z95)) ** 2 * rows).mean())
    errors = np.maximum(row_variance / rows, _LEAST)
    fixed = 1 / errors
    centre = fixed @ values / fixed.sum()
    excess = fixed @ (values - centre) ** 2 - (size - 1)
    between = max(excess / (fixed.sum() - (fixed**2).sum() / fixed.sum()), 0.0)
    weights = 1 / (between + errors)
    mean = float(weights @ values / weights.sum())
    correlation = _correlation(values - mean, between, float(between + errors.mean()))
    inflated = _inflation(correlation, size)
    error = np.sqrt(between * inflated / size + 1 / fixed.sum())
    freedom = max(size / inflated - 1, 2.0)
    return UsualLevel(
        mean, float(np.sqrt(between)), correlation, float(np.sqrt(row_variance)), float(error),
        float(freedom), size,
    )  # fmt: skip


def _correlation(away: Floats, between: float, variance: float) -> float:
    """Return the lag-1 correlation of what windows share.

    Of the windows' values it is estimated, what the estimate lacks is added, and no more than one
    standard error of it is none; the errors of rows only dilute it.
    """
    size = len(away)
    products = float((away[1:] * away[:-1]).mean()) / variance
    diluted = products + (1 + 3 * products) / size
    if between <= 0 or diluted <= size**-0.5:
        return 0.0
    return min(diluted * variance / between, _MOST_CORRELATED)


def _inflation(correlation: float, size: int) -> float:
    """Return the variance of the mean of so many windows in a row over that of independent ones."""
    lags = np.arange(1, size)
    return float(1 + 2 * ((1 - lags / size) * correlation**lags).sum())


def level_shift(value: ArrayLike, n: ArrayLike, usual: UsualLevel) -> LevelShift:
    """Compare the newest windows with what is usual.

    Args:
        value: Of at least one window.
        n: Their rows, at least one each.
        usual: What `usual_level` said of the baseline.

    Returns:
        Student's interval and test at the degrees of freedom of the baseline's spread.

    Example:
        >>> usual = UsualLevel(0.0, 0.01, 0.0, 0.4, 0.003, 40.0, 41)
        >>> found = level_shift([0.05, 0.03], [1000, 1000], usual)
        >>> round(found.shift, 3), round(found.margin, 3), round(found.p_value, 4)
        (0.04, 0.024, 0.0016)
    """
    values, rows = np.asarray(value, np.float64), np.asarray(n, np.float64)
    errors = usual.row**2 / rows
    weights = 1 / np.maximum(usual.spread**2 + errors, _LEAST)
    weights = weights / weights.sum()
    shared = usual.spread**2 * (weights**2).sum() * _inflation(usual.correlation, len(values))
    error = float(np.sqrt(shared + (weights**2 * errors).sum() + usual.error**2))
    mean = float(weights @ values)
    shift = mean - usual.mean
    margin = float(special.stdtrit(usual.freedom, 0.975)) * error
    if error > 0:
        p_value = 2 * float(special.stdtr(usual.freedom, -abs(shift) / error))
    else:
        p_value = 1.0 if shift == 0 else 0.0
    return LevelShift(mean, shift, margin, p_value)
