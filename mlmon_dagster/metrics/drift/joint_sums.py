"""How columns hang together, as sums: every value a score, every pair of scores a product.

A value's score is fixed by the baseline, a small whole number, so that the sums below are exact,
whatever the order of the rows, and merge like all other statistics. They give every correlation,
and how uncertain it is, of any window or merge of windows. A number has two scores: where it ranks
(`normal_scores`), and how far from the middle (`folded_scores`), which shows what is bent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.arrays import Floats, Ints

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


def _full(values: Floats, upper: tuple[NDArray[np.intp], NDArray[np.intp]], k: int) -> Floats:
    """Return symmetric matrices from their upper triangles, (C, k, k)."""
    found = np.zeros((len(values), k, k))
    found[:, upper[0], upper[1]] = values
    found[:, upper[1], upper[0]] = values
    return found
