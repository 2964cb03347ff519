"""Simulated multiclass models and regressions: what `benchmarks.estimate_matrix` compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.scored_worlds import SCORE_BINS, SPAN, Size, counted, in_half, shaped
from mlmon_dagster.metrics.estimated.multiclass import (
    CONFIDENCE,
    DECIDED_FOR,
    calibrate_classes,
    estimated_classes,
)
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles.estimates import LossRows

Floats = NDArray[np.float64]
CLASSES = ("a", "b", "c")


class Found(NamedTuple):
    """Estimates and residuals of the windows of one baseline, and the baseline's own values."""

    frame: pd.DataFrame
    constant: dict[str, float]


def _starts(windows: int) -> pd.DatetimeIndex:
    return pd.date_range("2024-01-01", periods=windows, freq="D", tz="UTC").as_unit("us")


def _profile(score: Floats, actual: Floats) -> ColumnStatistics:
    counts = counted(score, actual)
    rows = counts.rows.astype(np.int64).reshape(len(score), -1)
    zero, none = np.zeros(len(score), np.int64), np.full(len(score), np.nan)
    binning = Binning("score", "score", SCORE_BINS * 3, "score", low=-SPAN, high=SPAN)
    return ColumnStatistics(
        binning, counts.cells, rows, rows.sum(axis=1), zero, zero, zero, zero, none, none,
        none, none,
    )  # fmt: skip


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0))


def draw_classes(
    rng: np.random.Generator, windows: int, rows: int, shift: float, day: float = 0.0
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Draw scores, actuals, (3, windows, rows), and inputs, see `draw_class_chances`."""
    score, chances, x = draw_class_chances(rng, windows, rows, shift, day)
    return score, classes_come(rng, chances), x


def draw_class_chances(
    rng: np.random.Generator, windows: int, rows: int, shift: float, day: float = 0.0
) -> tuple[Floats, Floats, Floats]:
    """Draw scores, (3, windows, rows), chances and inputs of a model that is too sure of itself.

    Args:
        rng: Draws.
        windows: Windows.
        rows: Rows of each.
        shift: Of the two inputs.
        day: Standard deviation of what the rows of a window share: of the inputs, and of every
            class's logit beyond them.
    """
    shared = rng.normal(0, day, (5, windows, 1)) if day else np.zeros((5, 1, 1))
    x = rng.normal(shift, 1, (2, windows, rows)) + shared[:2]
    logits = np.stack([0.4 + 1.2 * x[0], x[1] - 0.5 * x[0], -0.8 * x[1]])
    return _softmax(1.3 * logits), _softmax(logits + shared[2:]), x


def classes_come(rng: np.random.Generator, chances: Floats) -> NDArray[np.bool_]:
    """Draw which class is true by its chances, (3, windows, rows)."""
    actual = (rng.random(chances.shape[1:]) > np.cumsum(chances, axis=0)[:2]).sum(axis=0)
    return np.asarray(np.arange(3)[:, None, None] == actual)


def class_profiles(score: Floats, actual: NDArray[np.bool_]) -> dict[str, ColumnStatistics]:
    """Count scores by bin and actual, as profiles do, see `one_by_one`."""
    return {name: _profile(*one) for name, one in one_by_one(score, actual).items()}


def one_by_one(score: Floats, actual: NDArray[np.bool_]) -> dict[str, tuple[Floats, Floats]]:
    """Return every class's score and whether it was so, and the same of the class decided for.

    The latter of all rows, and of those decided for each class.
    """
    found = {name: (score[i], actual[i].astype(float)) for i, name in enumerate(CLASSES)}
    decided = score.argmax(axis=0)[None]
    of_decided = [np.take_along_axis(part, decided, axis=0)[0] for part in (score, actual)]
    found[CONFIDENCE] = of_decided[0], of_decided[1].astype(float)
    return found | {
        f"{DECIDED_FOR}{name}": (np.where(decided[0] == i, *parts), found[name][1])
        for i, name in enumerate(CLASSES)
        for parts in [(found[name][0], np.nan)]
    }


def multiclass(rng: np.random.Generator, shifts: Sequence[float], size: Size) -> list[Found]:
    """Estimate the windows of every shift from one baseline of three classes."""
    score, actual, _ = draw_classes(rng, size.baseline, size.rows, 0.0)
    base = class_profiles(score, actual)
    kept = in_half(score[0].size).reshape(score[0].shape)
    halves = class_profiles(np.where(kept, score, np.nan), actual)
    decided = np.take_along_axis(actual, score.argmax(axis=0)[None], axis=0)
    brier = float(((score - actual) ** 2).sum(axis=0).mean())
    constant = {"accuracy": float(decided.mean()), "brier": brier}
    learnt = calibrate_classes(base, halves, CLASSES, 1)
    drawn = [draw_classes(rng, size.windows, size.rows, shift)[:2] for shift in shifts]
    return [Found(estimated_classes(class_profiles(*one), learnt), constant) for one in drawn]


def draw_errors(
    rng: np.random.Generator,
    windows: int,
    rows: int,
    shift: float,
    day: float = 0.0,
    shape: str = "continuous",
) -> LossRows:
    """Draw rows whose noise grows with an input, of a model that is a little off.

    Args:
        rng: Draws.
        windows: Windows.
        rows: Rows of each.
        shift: Of the two inputs.
        day: Standard deviation of what the rows of a window share: of the inputs, and of the
            logarithm of the noise.
        shape: Of the predictions, see `SHAPES`.
    """
    return draw_noise(rng, windows, rows, shift, day, shape).drawn(rng)


class Noise(NamedTuple):
    """Rows of a regression before their actuals come: by how much these will stray.

    Attributes:
        rows: What is known of the rows; their `error` is that of a row without noise.
        scale: Standard deviation of a row's noise.
    """

    rows: LossRows
    scale: Floats

    def drawn(self, rng: np.random.Generator) -> LossRows:
        """Draw the errors."""
        return replace(
            self.rows, error=self.rows.error - self.scale * rng.normal(size=len(self.scale))
        )


def draw_noise(
    rng: np.random.Generator, windows: int, rows: int, shift: float, day: float, shape: str
) -> Noise:
    """Draw the rows of `draw_errors` without their noise."""
    n = windows * rows
    shared = np.zeros((n, 3))
    if day:
        shared = np.repeat(rng.normal(0, day, (windows, 3)), rows, axis=0)
    x = rng.normal(shift, 1, (n, 2)) + shared[:, :2]
    predicted = 1.8 * x[:, 0] + 0.3 * x[:, 1]
    if shape != "continuous":
        predicted = 12 * shaped(predicted / 12 + 0.5, shape) - 6
    keys = pd.DataFrame(
        {"window_start": _starts(windows).repeat(rows), "dataset": f"shift {shift:g}"}
    )
    error = predicted - 2 * x[:, 0] - np.sin(2 * x[:, 1])
    known = LossRows(np.column_stack([predicted, x]), error, in_half(n), keys)
    return Noise(known, np.exp(0.4 * x[:, 0] + shared[:, 2]))
