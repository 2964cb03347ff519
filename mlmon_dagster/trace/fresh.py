"""What a model fitted anew is worth on rows that came after what it was fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.versions import Comparison, area_under, paired_area, paired_means
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import BINARY, REGRESSION


@dataclass(frozen=True)
class Fresh:
    """A model fitted anew beside the one in service, on the same rows.

    Attributes:
        metric: What they are compared by: ``roc_auc``, ``accuracy`` or ``mae``.
        served, fresh: Its value of either.
        comparison: The difference, more being better, between windows; None if there are too few
            rows of a class.
        taught: The period that the fresh model was fitted on.
        n_taught: Its rows with ground truth, known before the period in question began.
    """

    metric: str
    served: float
    fresh: float
    comparison: Comparison | None
    taught: str
    n_taught: int


def fresh_beside_served(
    spec: ModelSpec, fitted: object, rows: pd.DataFrame, taught: str, n_taught: int
) -> Fresh:
    """Compare a model fitted anew with the one in service, row by row.

    Args:
        spec: The model; of any task but ranking.
        fitted: Something with ``predict_proba`` (binary models) or ``predict``, or a function, that
            takes the features.
        rows: The features, ``actual``, ``window_start``, and what was served: ``score``,
            ``prediction``; all with ground truth.
        taught: What the period that it was fitted on is called.
        n_taught: Its rows.

    Raises:
        ValueError: If it does not return a number a row.
    """
    windows = np.asarray(rows["window_start"].astype("int64"))
    outputs = _outputs(fitted, rows[list(spec.features)], is_binary=spec.task == BINARY)
    if spec.task == BINARY and spec.columns.score is not None:
        positive = rows["actual"].astype(int).to_numpy()
        served, scores = rows["score"].astype(float).to_numpy(np.float64), _numbers(outputs)
        known = np.isfinite(served) & np.isfinite(scores)
        served, scores, positive = served[known], scores[known], positive[known]
        found = paired_area(served, scores, positive, windows[known])
        one, other = area_under(served, positive), area_under(scores, positive)
        return Fresh("roc_auc", one, other, found, taught, n_taught)
    if spec.task == REGRESSION:
        came = rows["actual"].astype(float).to_numpy(np.float64)
        served = rows["prediction"].astype(float).to_numpy(np.float64)
        off, new_off = np.abs(served - came), np.abs(_numbers(outputs) - came)
        known = np.isfinite(off) & np.isfinite(new_off)
        found = paired_means(-off[known], -new_off[known], windows[known])
        one, other = float(off[known].mean()), float(new_off[known].mean())
        return Fresh("mae", one, other, found, taught, n_taught)
    decided = outputs if spec.task != BINARY else (_numbers(outputs) >= 0.5).astype(int)
    right, new_right = (
        (pd.Series(side, rows.index).astype(str) == rows["actual"].astype(str)).to_numpy(float)
        for side in (rows["prediction"].to_numpy(), decided)
    )
    found = paired_means(right, new_right, windows)
    one, other = float(right.mean()), float(new_right.mean())
    return Fresh("accuracy", one, other, found, taught, n_taught)


def _outputs(fitted: object, features: pd.DataFrame, *, is_binary: bool) -> np.ndarray:
    ask = getattr(fitted, "predict_proba", None) if is_binary else None
    ask = ask or getattr(fitted, "predict", None) or fitted
    if not callable(ask):
        raise ValueError(
            f"expected predict_proba, predict or a function, not {type(fitted).__name__}"
        )
    found = np.asarray(ask(features))
    if found.ndim == 2 and found.shape[1] == 2:
        found = found[:, 1]  # of the classes 0 and 1
    if found.shape != (len(features),):
        raise ValueError(f"expected a number for each of {len(features):,} rows, not {found.shape}")
    return found


def _numbers(outputs: np.ndarray) -> Floats:
    return np.asarray(outputs, np.float64)
