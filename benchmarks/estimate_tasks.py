"""Simulated multiclass models and regressions: what `benchmarks.estimate` compares for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.coverage import Size
from benchmarks.scored_worlds import SCORE_BINS, SPAN, counted, in_half
from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE, estimated_classes
from mlmon_dagster.metrics.estimated.regression import estimated_losses
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles.measure.regression_estimates import LossRows, learn_losses

Floats = NDArray[np.float64]
CLASSES = ("a", "b", "c")
TASK_CASES = {"no shift": 0.0, "inputs +.5": 0.5}


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


def _classes(
    rng: np.random.Generator, windows: int, rows: int, shift: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Draw scores and actuals, (3, windows, rows), of a model that is too sure of itself."""
    x = rng.normal(shift, 1, (2, windows, rows))
    logits = np.stack([0.4 + 1.2 * x[0], x[1] - 0.5 * x[0], -0.8 * x[1]])
    actual = (rng.random((windows, rows)) > np.cumsum(_softmax(logits), axis=0)[:2]).sum(axis=0)
    return _softmax(1.3 * logits), np.arange(3)[:, None, None] == actual


def _class_profiles(score: Floats, actual: NDArray[np.bool_]) -> dict[str, ColumnStatistics]:
    found = {name: _profile(score[i], actual[i].astype(float)) for i, name in enumerate(CLASSES)}
    decided = score.argmax(axis=0)[None]
    of_decided = [np.take_along_axis(part, decided, axis=0)[0] for part in (score, actual)]
    return found | {CONFIDENCE: _profile(of_decided[0], of_decided[1].astype(float))}


def multiclass(rng: np.random.Generator, shifts: Sequence[float], size: Size) -> list[Found]:
    """Estimate the windows of every shift from one baseline of three classes."""
    score, actual = _classes(rng, size.baseline, size.rows, 0.0)
    base = _class_profiles(score, actual)
    kept = in_half(score[0].size).reshape(score[0].shape)
    halves = _class_profiles(np.where(kept, score, np.nan), actual)
    decided = np.take_along_axis(actual, score.argmax(axis=0)[None], axis=0)
    brier = float(((score - actual) ** 2).sum(axis=0).mean())
    constant = {"accuracy": float(decided.mean()), "brier": brier}
    return [
        Found(
            estimated_classes(
                _class_profiles(*_classes(rng, size.windows, size.rows, shift)),
                base, halves, CLASSES, 1,
            ),
            constant,
        )
        for shift in shifts
    ]  # fmt: skip


def _errors(rng: np.random.Generator, windows: int, rows: int, shift: float) -> LossRows:
    """Draw rows whose noise grows with an input, of a model that is a little off."""
    n = windows * rows
    x = rng.normal(shift, 1, (n, 2))
    actual = 2 * x[:, 0] + np.sin(2 * x[:, 1]) + np.exp(0.4 * x[:, 0]) * rng.normal(size=n)
    predicted = 1.8 * x[:, 0] + 0.3 * x[:, 1]
    keys = pd.DataFrame(
        {"window_start": np.repeat(_starts(windows), rows), "dataset": f"shift {shift:g}"}
    )
    return LossRows(np.column_stack([predicted, x]), predicted - actual, in_half(n), keys)


def regression(rng: np.random.Generator, shifts: Sequence[float], size: Size) -> list[Found]:
    """Estimate the windows of every shift from one baseline of a regression."""
    known = _errors(rng, size.baseline, size.rows, 0.0)
    drawn = [_errors(rng, size.windows, size.rows, shift) for shift in shifts]
    mine = LossRows(
        np.concatenate([part.inputs for part in drawn]),
        np.concatenate([part.error for part in drawn]),
        np.concatenate([part.is_first for part in drawn]),
        pd.concat([part.keys for part in drawn], ignore_index=True),
    )
    frame = estimated_losses(*learn_losses(known, mine))
    constant = {
        "mae": float(np.abs(known.error).mean()),
        "rmse": float((known.error**2).mean() ** 0.5),
    }
    names = [f"shift {shift:g}" for shift in shifts]
    return [Found(frame[frame["dataset"] == name], constant) for name in names]
