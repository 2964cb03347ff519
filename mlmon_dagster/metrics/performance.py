"""Realized performance of a binary classifier, from score bins and confusion counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import label_counts, score_midpoints
from mlmon_dagster.metrics.frames import concat_frames, metric_frame
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.roc import MIN_RARER, roc_auc
from mlmon_dagster.metrics.statistics import TABLE, ColumnStatistics

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CALIBRATION_GROUPS = 10
MIN_CALIBRATION_ROWS = 50
_CHUNK = 128


def performance_metrics(
    score: ColumnStatistics | None, confusion: ColumnStatistics | None
) -> pd.DataFrame:
    """Every metric of realized performance, per cell.

    Args:
        score: Score bins by actual, over C cells; None if the model logs no score.
        confusion: Predictions by actual, over its own C' cells; None if it logs no prediction.

    Returns:
        MetricFrame, column `:table`, `n` = rows with an actual (all rows for predicted_rate).
        From the score: roc_auc, brier, log_loss, calibration_error. From the confusion counts, at
        the model's own decision: precision, recall, f1, accuracy, predicted_rate. From either:
        actual_rate. `reason` of a NaN: no_actuals, no_rows, single_class, few_of_rarer_class
        (under 10), few_rows (calibration_error under 50), no_predicted_positives (precision),
        no_actual_positives (recall), no_positives (f1: neither predicted nor actual).
    """
    frames = []
    if score is not None:
        frames += _score_metrics(score)
    if confusion is not None:
        frames += _confusion_metrics(confusion, with_actual_rate=score is None)
    return concat_frames(frames)


def _score_metrics(score: ColumnStatistics) -> list[pd.DataFrame]:
    cells = score.cells
    counts = label_counts(score.counts)
    negatives, positives = counts[:, :, 1], counts[:, :, 2]
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    n = n_neg + n_pos
    middles = score_midpoints(score.binning)
    no_actuals = np.where(n == 0, "no_actuals", "")
    return [
        _roc_frame(cells, negatives, positives, n_neg, n_pos),
        _loss_frame(cells, "brier", score.total_sq, n, *_losses(middles, "brier"), counts),
        _loss_frame(cells, "log_loss", score.total, n, *_losses(middles, "log_loss"), counts),
        _calibration_frame(cells, negatives, positives, middles, n),
        _rate_frame(cells, "actual_rate", n_pos, n, no_actuals),
    ]


def _roc_frame(
    cells: pd.DataFrame, negatives: Ints, positives: Ints, n_neg: Ints, n_pos: Ints
) -> pd.DataFrame:
    result = roc_auc(negatives, positives)
    rarer = np.minimum(n_neg, n_pos)
    reason = np.select(
        [n_neg + n_pos == 0, rarer == 0, rarer < MIN_RARER],
        ["no_actuals", "single_class", "few_of_rarer_class"],
        "",
    )
    value = np.where(reason == "", result.value, np.nan)
    return _frame(
        cells, "roc_auc", value, result.lower, result.upper, n_neg + n_pos, reason, "delong-1"
    )


def _losses(middles: Floats, metric: str) -> tuple[Floats, Floats]:
    """Loss of a negative and of a positive in each score bin, for the spread of the loss."""
    if metric == "brier":
        return middles**2, (1 - middles) ** 2
    return -np.log1p(-middles), -np.log(middles)


def _loss_frame(
    cells: pd.DataFrame,
    metric: str,
    total: Floats,
    n: Ints,
    of_negative: Floats,
    of_positive: Floats,
    counts: Ints,
) -> pd.DataFrame:
    """Mean of a loss: exact from its sum; its standard error from the bins."""
    value = rate(total, n)
    first = counts[:, :, 1] @ of_negative + counts[:, :, 2] @ of_positive
    second = counts[:, :, 1] @ of_negative**2 + counts[:, :, 2] @ of_positive**2
    variance = rate(np.maximum(second - rate(first, n) * first, 0), n - 1)
    half = Z95 * np.sqrt(rate(variance, n))
    reason = np.where(n == 0, "no_actuals", "")
    lower, upper = np.maximum(value - half, 0), value + half
    return _frame(cells, metric, value, lower, upper, n, reason, "mean-1")


def _calibration_frame(
    cells: pd.DataFrame, negatives: Ints, positives: Ints, middles: Floats, n: Ints
) -> pd.DataFrame:
    parts = [
        _calibration_error(negatives[i : i + _CHUNK], positives[i : i + _CHUNK], middles)
        for i in range(0, len(cells), _CHUNK)
    ]
    value, bias, spread = (
        (np.concatenate(column) for column in zip(*parts, strict=True))
        if parts
        else (np.empty(0), np.empty(0), np.empty(0))
    )
    reason = np.select([n == 0, n < MIN_CALIBRATION_ROWS], ["no_actuals", "few_rows"], "")
    value = np.where(reason == "", value, np.nan)
    lower = np.maximum(value - bias - Z95 * spread, 0)
    upper = value + Z95 * spread
    return _frame(cells, "calibration_error", value, lower, upper, n, reason, "ece10-1")


def _calibration_error(
    negatives: Ints, positives: Ints, middles: Floats
) -> tuple[Floats, Floats, Floats]:
    """Expected calibration error over 10 groups of equal mass, the cell's own.

    The mean of |mean score - share of positives|, weighted by rows. It is biased upwards: a
    perfectly calibrated model shows about `bias`, the second result; the third is its spread.
    """
    rows = (negatives + positives).astype(np.float64)
    total = np.maximum(rows.sum(axis=1), 1)
    middle = (np.cumsum(rows, axis=1) - rows / 2) / total[:, None]
    groups = np.minimum((middle * CALIBRATION_GROUPS).astype(np.int64), CALIBRATION_GROUPS - 1)
    cells = len(rows)
    flat = (groups + CALIBRATION_GROUPS * np.arange(cells)[:, None]).ravel()

    def by_group(values: Floats) -> Floats:
        summed = np.bincount(flat, values.ravel(), minlength=cells * CALIBRATION_GROUPS)
        return summed.astype(np.float64).reshape(cells, CALIBRATION_GROUPS)

    gap = by_group(rows * middles) - by_group(positives.astype(np.float64))
    noise = np.sqrt(by_group(rows * (middles * (1 - middles))))
    bias = np.sqrt(2 / np.pi) * noise.sum(axis=1) / total
    spread = np.sqrt((noise**2).sum(axis=1)) / total
    return np.abs(gap).sum(axis=1) / total, bias, spread


def _confusion_metrics(
    confusion: ColumnStatistics, *, with_actual_rate: bool
) -> list[pd.DataFrame]:
    cells = confusion.cells
    counts = label_counts(confusion.counts)
    tn, tp = counts[:, 0, 1], counts[:, 1, 2]
    fn, fp = counts[:, 0, 2], counts[:, 1, 1]
    n = tn + tp + fn + fp
    no_actuals = np.where(n == 0, "no_actuals", "")
    predicted, rows = counts[:, 1].sum(axis=1), counts.sum(axis=(1, 2))
    frames = [
        _rate_frame(cells, "precision", tp, tp + fp, no_actuals, "no_predicted_positives", n),
        _rate_frame(cells, "recall", tp, tp + fn, no_actuals, "no_actual_positives", n),
        _f1_frame(cells, tp, tp + fp + fn, n, no_actuals),
        _rate_frame(cells, "accuracy", tp + tn, n, no_actuals),
        _rate_frame(cells, "predicted_rate", predicted, rows, np.where(rows == 0, "no_rows", "")),
    ]
    if with_actual_rate:
        frames.append(_rate_frame(cells, "actual_rate", tp + fn, n, no_actuals))
    return frames


def _rate_frame(
    cells: pd.DataFrame,
    metric: str,
    count: Ints,
    of: Ints,
    reason: NDArray[np.str_],
    empty: str = "no_rows",
    n: Ints | None = None,
) -> pd.DataFrame:
    lower, upper = wilson(count, of)
    reason = np.where(reason == "", np.where(of == 0, empty, ""), reason)
    shown = of if n is None else n
    return _frame(cells, metric, rate(count, of), lower, upper, shown, reason, "wilson-1")


def _f1_frame(
    cells: pd.DataFrame, tp: Ints, union: Ints, n: Ints, reason: NDArray[np.str_]
) -> pd.DataFrame:
    """F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), a plain share: Wilson's ends of J, mapped.

    Given the number of rows that are predicted or actual positives, TP is binomial, so the interval
    is as good as Wilson's; no delta method is needed.
    """
    lower, upper = wilson(tp, union)
    share = rate(tp, union)
    reason = np.where(reason == "", np.where(union == 0, "no_positives", ""), reason)
    value, low, high = (2 * x / (1 + x) for x in (share, lower, upper))
    return _frame(cells, "f1", value, low, high, n, reason, "wilson-1")


def _frame(
    cells: pd.DataFrame,
    metric: str,
    value: Floats,
    lower: Floats,
    upper: Floats,
    n: Ints,
    reason: NDArray[np.str_],
    method_version: str,
) -> pd.DataFrame:
    return metric_frame(
        cells,
        column_name=TABLE,
        metric=metric,
        value=value,
        lower=lower,
        upper=upper,
        n=n,
        reason=reason,
        method_version=method_version,
    )
