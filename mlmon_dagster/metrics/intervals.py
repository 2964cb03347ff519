"""95 % intervals of shares and quantiles, vectorised; chance of a part; false discoveries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import Floats, Ints

Ends = tuple[Floats, Floats]
Z95 = 1.959963984540054
Z90 = 1.6448536269514722  # also the one-sided 95 % quantile


def wilson(count: ArrayLike, n: ArrayLike) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share; inside [0, 1] and of use at 0 and n too (Wilson, 1927).

    Args:
        count: Rows that have the property.
        n: All rows.

    Returns:
        Lower and upper end; NaN where n is 0.

    Example:
        >>> lower, upper = wilson(0, 30)
        >>> round(float(lower), 4), round(float(upper), 4)
        (0.0, 0.1135)
    """
    k, size = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = k / size
        centre = (share + Z95**2 / (2 * size)) / (1 + Z95**2 / size)
        half = Z95 * np.sqrt(share * (1 - share) / size + Z95**2 / (4 * size**2))
        half /= 1 + Z95**2 / size
    lower, upper = np.maximum(centre - half, 0), np.minimum(centre + half, 1)
    # rounding must not push the ends inside 0 and 1 where nothing or everything was counted
    return np.where(k == 0, 0 * lower, lower), np.where(k == size, 1 + 0 * upper, upper)


def difference_interval(
    share: ArrayLike, ends: Ends, other: ArrayLike, other_ends: Ends
) -> tuple[Floats, Floats, Floats]:
    """Return the difference of two shares and its interval (Newcombe, 1998, method 10).

    Args:
        share: Of one sample.
        ends: Its 95 % interval.
        other: Share of the other sample, which is taken off.
        other_ends: Its 95 % interval.
    """
    one, two = np.asarray(share, np.float64), np.asarray(other, np.float64)
    difference = one - two
    down = np.hypot(one - ends[0], other_ends[1] - two)
    up = np.hypot(ends[1] - one, two - other_ends[0])
    return difference, difference - down, difference + up


def rate(count: ArrayLike, n: ArrayLike) -> Floats:
    """Divide, with NaN where n is 0."""
    k, size = np.asarray(count, dtype=np.float64), np.asarray(n, dtype=np.float64)
    return np.where(size > 0, k / np.where(size > 0, size, 1), np.nan)


def chance_in_part(count: int, size: int, total: int, n: int) -> float:
    """Return how likely as many marked rows, or more, lie in a part of the rows that lots choose.

    The upper tail of the hypergeometric distribution (Fisher's exact test, one-sided, 1935).

    Args:
        count: Marked rows of the part.
        size: Rows of the part, 1 to n.
        total: Marked rows of all.
        n: All rows.

    Returns:
        0 to 1; 1.0 where no row, or every row, is marked.

    Example:
        >>> round(chance_in_part(2, 2, 2, 4), 4)
        0.1667
    """
    marked = np.arange(max(count, size + total - n), min(size, total) + 1)
    logs = _log_choose(total, marked) + _log_choose(n - total, size - marked)
    return min(float(np.exp(logs - _log_choose(n, size)).sum()), 1.0)


def _log_choose(n: int, k: Ints | int) -> Floats:
    found: Floats = -np.log1p(n) - special.betaln(np.subtract(n, k) + 1, np.add(k, 1))
    return found


def quantile_ranks(q: float, n: ArrayLike) -> tuple[Ints, Ints]:
    """Ranks (1 to n) of the order statistics between which the q-quantile lies with 95 %.

    How many of n values lie below the q-quantile is binomial (Thompson, 1936).

    Example:
        >>> [int(rank) for rank in quantile_ranks(0.5, 100)]
        [40, 61]
    """
    size = np.asarray(n, dtype=np.int64)
    low = _least_likely(0.025, size, q)
    high = _least_likely(0.975, size, q) + 1
    return (
        np.clip(np.nan_to_num(low), 1, np.maximum(size, 1)).astype(np.int64),
        np.clip(np.nan_to_num(high), 1, np.maximum(size, 1)).astype(np.int64),
    )


def _least_likely(chance: float, n: Ints, q: float) -> Floats:
    """Return the least count that no more than it has at least a chance, of a binomial (n, q).

    Not by scipy.stats, which takes a second to import: as much as all else of most processes.
    """
    near = np.ceil(special.bdtrik(chance, n, q))
    below = np.maximum(near - 1, 0)
    return np.where(special.bdtr(below, n, q) >= chance, below, near)


EFFICIENCY = 0.8  # of both below; what robustness costs in degrees of freedom


def biweight(values: Floats) -> tuple[Floats, Floats]:
    """Tukey's biweight centre and scale over the last axis.

    Robust, yet nearly as efficient as mean and standard deviation (Mosteller and Tukey, 1977; with
    6 and 9 median deviations as in Beers, Flynn and Gebhardt, 1990). The scale is 0 if more than
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


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that calling those <= q real gives a false-discovery rate of at most q.

    Args:
        p_values: One family; NaN for what was not tested, which does not count.

    Returns:
        Adjusted values in the same order, NaN where untested.

    Example:
        >>> [round(p, 4) for p in benjamini_hochberg([0.01, 0.04, 0.03])]
        [0.03, 0.04, 0.04]
    """
    p = np.array(p_values, dtype=np.float64)
    tested = ~np.isnan(p)
    if tested.any():
        # Not by scipy.stats, which takes a second to import: as much as all else of a process.
        order = np.argsort(p[tested])[::-1]  # the largest first, as the least of a tail is taken
        n = len(order)
        scaled = np.minimum.accumulate(p[tested][order] * (n / np.arange(n, 0, -1)))
        p[np.flatnonzero(tested)[order]] = np.clip(scaled, 0, 1)
    return [float(value) for value in p]
