"""Estimated against realized performance: `python -m benchmarks estimate`.

Simulated shifts of what is known to the model, with the law of the actuals unchanged; then the
flights, where it does change.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.estimated_calibration import Scored

Floats = NDArray[np.float64]
SCORE_BINS = 1024
SPAN = 14.0


def middles() -> Floats:
    """Return the middle of every score bin."""
    step = 2 * SPAN / SCORE_BINS
    return np.asarray(1 / (1 + np.exp(-(-SPAN + step * (np.arange(SCORE_BINS) + 0.5)))))


def bin_of(score: Floats) -> NDArray[np.int64]:
    """Return the score bin of every score."""
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

    everything = np.ones(score.shape, bool)
    return Scored(cells, table(everything), table(score >= threshold), middles())
