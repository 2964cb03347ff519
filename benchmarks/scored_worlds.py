"""Simulated scores and actuals, counted by score bin as profiles count them."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.estimated.calibration import Scored
from mlmon_dagster.metrics.intervals import Z95, wilson

Floats = NDArray[np.float64]
Drawn = tuple[Floats, Floats, dict[str, Floats]]
SCORE_BINS = 1024
SPAN = 14.0


def middles() -> Floats:
    """Return the middle of every score bin."""
    step = 2 * SPAN / SCORE_BINS
    return np.asarray(1 / (1 + np.exp(-(-SPAN + step * (np.arange(SCORE_BINS) + 0.5)))))


def bin_of(score: Floats) -> NDArray[np.int64]:
    """Return the score bin of every score."""
    score = np.where(np.isfinite(score), score, 0.5)  # of no row; not counted
    logit = np.log(score / (1 - score))
    place = np.floor((logit + SPAN) * SCORE_BINS / (2 * SPAN))
    return np.clip(place, 0, SCORE_BINS - 1).astype(np.int64)


def counted(score: Floats, actual: Floats, threshold: float = 0.5) -> Scored:
    """Count rows by score bin and actual.

    Args:
        score: Scores, (windows, rows).
        actual: 1, 0, or NaN where unknown.
        threshold: Of the decision.
    """
    windows = len(score)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=windows, freq="D", tz="UTC"),
            "dataset": "production", "model_version": "all", "slice_key": "all",
            "slice_value": "all",
        }
    )  # fmt: skip
    state = np.where(np.isnan(actual), 0, np.where(actual > 0, 2, 1)).astype(np.int64)
    flat = (np.arange(windows)[:, None] * SCORE_BINS + bin_of(score)) * 3 + state

    def table(chosen: NDArray[np.bool_]) -> Floats:
        found = np.bincount(flat[chosen], minlength=windows * SCORE_BINS * 3)
        return found.reshape(windows, SCORE_BINS, 3).astype(np.float64)

    known = np.isfinite(score)
    return Scored(cells, table(known), table(known & (score >= threshold)), middles())


def logistic(x: Floats | float) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(x))))


def world(
    rng: np.random.Generator, windows: int, rows: int, *, shift: float = 0.0, concept: float = 0.0
) -> tuple[Floats, Floats]:
    """Draw scores and actuals of a model that sees its input with noise and is miscalibrated.

    Args:
        rng: Draws.
        windows: Windows.
        rows: Rows of each.
        shift: Of the input's mean.
        concept: How much less the input means than it did, 0 to 1.
    """
    x = rng.normal(shift, 1, (windows, rows))
    actual = rng.random(x.shape) < logistic(-1.0 + 1.3 * (1 - concept) * x)
    seen = x + rng.normal(0, 0.1, x.shape)
    return logistic(-0.8 + 1.6 * seen), actual.astype(np.float64)


def draw(
    rng: np.random.Generator,
    size: int,
    rows: int,
    seen: float,
    unseen: float,
    day: float = 0.0,
) -> Drawn:
    """Draw scores, actuals and inputs, (size, rows), see `draw_chances`."""
    score, chance, inputs = draw_chances(rng, size, rows, seen, unseen, day)
    return score, came_true(rng, chance), inputs


def draw_chances(
    rng: np.random.Generator,
    size: int,
    rows: int,
    seen: float,
    unseen: float,
    day: float = 0.0,
) -> Drawn:
    """Draw scores, chances of being positive and inputs, (size, rows).

    Args:
        rng: Draws.
        size: Windows.
        rows: Rows of each.
        seen: Shift of the input that the score holds.
        unseen: Shift of the one that only the actuals know of.
        day: Standard deviation of what the rows of a window share: of both inputs, and of the
            log odds beyond them.
    """
    shared = rng.normal(0, day, (3, size, 1)) if day else np.zeros((3, 1, 1))
    x = rng.normal(seen, 1, (size, rows)) + shared[0]
    z = rng.normal(unseen, 1, (size, rows)) + shared[1]
    chance = logistic(-1 + 1.3 * x + 0.8 * z + shared[2])
    return logistic(-0.8 + 1.6 * x), chance, {"x": x, "z": z}


def came_true(rng: np.random.Generator, chance: Floats) -> Floats:
    """Draw actuals by their chances."""
    return (rng.random(chance.shape) < chance).astype(np.float64)


def mixture(
    rng: np.random.Generator, windows: int, rows: int, share: float = 0.5
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Draw scores that say the truth, most near 0 or 1, their actuals, and an input beside them.

    Args:
        rng: Draws.
        windows: Windows.
        rows: Rows of each.
        share: Of the high scores.
    """
    size = (windows, rows)
    high = rng.random(size) < share
    score = np.where(high, rng.beta(60, 2, size), rng.beta(2, 30, size))
    actual = (rng.random(size) < score).astype(np.float64)
    return score, actual, {"x": np.log(score / (1 - score)) + rng.normal(0, 0.3, size)}


SHAPES = ("continuous", "3 decimals", "2 decimals", "1 decimal", "64 values", "16 values",
          "constant in part")  # fmt: skip


def shaped(score: Floats, shape: str) -> Floats:
    """Give scores the ties that models give them; see `SHAPES`."""
    kept = np.clip(score, 1e-6, 1 - 1e-6)
    if shape == "continuous":
        return kept
    if shape == "constant in part":
        return np.where(kept < 0.3, 0.2, kept)
    number = int(shape.split()[0])
    if shape.endswith("values"):
        return np.asarray((np.floor(kept * number) + 0.5) / number)
    return np.clip(np.round(kept, number), 1e-6, 1 - 1e-6)


def halved(score: Floats, actual: Floats, threshold: float) -> Scored:
    """Count one half of the rows, by a hash of their place."""
    kept = np.where(in_half(score.size).reshape(score.shape), score, np.nan)
    return counted(kept, actual, threshold)


@functools.cache
def in_half(size: int) -> NDArray[np.bool_]:
    """Say of every place whether its hash is in the first half."""
    return np.array([hashlib.md5(str(i).encode()).digest()[0] < 128 for i in range(size)])


class Size(NamedTuple):
    """How much is drawn: baselines, windows of each, its own windows, rows of a window."""

    baselines: int
    windows: int
    baseline: int
    rows: int


def coverage(
    held: pd.Series[float], baseline: pd.Series[int], again: int = 1
) -> tuple[float, float, float]:
    """Return the share of windows whose band holds the truth, with Wilson's 95 % interval.

    Windows of one baseline share its errors, so that they count for fewer: as many as give the
    shares of the baselines the spread that they have. That spread is known from so many baselines
    only, so windows count for fewer again, by the square of Student's quantile over the normal one.

    Args:
        held: Whether the band held, per window and draw of its actuals.
        baseline: Of each.
        again: Draws of one window's actuals. If all or none held, they count as one.
    """
    share, n = float(held.mean()), len(held)
    shares = held.groupby(baseline).mean()
    effect = 1.0 if 0 < share < 1 else float(again)
    if len(shares) > 1 and 0 < share < 1:
        independent = share * (1 - share) * len(shares) / n
        effect = max(1.0, float(shares.var()) / independent)
        effect *= float(special.stdtrit(len(shares) - 1, 0.975) / Z95) ** 2
    low, high = wilson(share * n / effect, n / effect)
    return share, float(low), float(high)
