"""Which slices a change of a metric comes from: an exact split into mix and within effects.

Every metric here is a ratio of two sums over rows, and so over the values of a slice key, which
cut the rows into disjoint parts. Part i has numerator k_i and denominator m_i in the window, k'_i
and m'_i in the baseline; its value is r_i = k_i / m_i and its weight w_i = m_i / sum of m.

- within_i = (w_i + w'_i) / 2 * (r_i - r'_i): the part itself got better or worse;
- mix_i = (w_i - w'_i) * ((r_i + r'_i) / 2 - (R + R') / 2): the part became more or less common,
  and it is better or worse than the whole.

Summed over the parts they are R - R', with nothing left over and no part that comes first: the two
sides change places by changing the sign (Kitagawa, 1955). A part that exists on one side only has
no value of its own to compare; it counts with the same value on both sides, so all its effect is
mix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.metric_registry import OUTCOME_MEANS

# Metrics that are the mean of a loss column.
LOSS_OF = {
    "brier": ":brier", "log_loss": ":log_loss", "top_k_accuracy": ":top_k", "me": ":error",
    "mae": ":absolute_error", "mape": ":percentage_error", "smape": ":symmetric_error",
    "quantile_loss": ":quantile_loss", "ndcg": ":ndcg", "mrr": ":reciprocal_rank",
    "map": ":average_precision", "hit_rate": ":hit",
}  # fmt: skip
OUTCOME = ":outcome/"  # begins the name of the loss column of an outcome
_RIGHT = ("accuracy", "micro_precision", "micro_recall", "micro_f1")
Counts = NDArray[np.int64]
Parts = tuple[Floats, Floats]


class Decomposition(NamedTuple):
    """The change of a ratio from the baseline, by part.

    Attributes:
        value: R, the ratio of all parts together in the window; NaN if its denominator is 0. One
            number, or shape (...) with leading axes, as all below have them too.
        baseline_value: R' of the baseline.
        mix: Shape (S,); all NaN if R or R' is.
        within: Shape (S,); ``mix.sum() + within.sum()`` is ``value - baseline_value``.
        weight: Share of the window's denominator, shape (S,).
        baseline_weight: Share of the baseline's, shape (S,).
    """

    value: Floats
    baseline_value: Floats
    mix: Floats
    within: Floats
    weight: Floats
    baseline_weight: Floats


def decompose(
    numerator: ArrayLike,
    denominator: ArrayLike,
    baseline_numerator: ArrayLike,
    baseline_denominator: ArrayLike,
) -> Decomposition:
    """Split the change of a ratio of sums over S parts exactly.

    Args:
        numerator: Of each part in the window, shape (S,), or (..., S) with any leading axes.
        denominator: Of each part in the window, not negative; 0 where the part is absent.
        baseline_numerator: As ``numerator``, of the baseline.
        baseline_denominator: As ``denominator``, of the baseline.

    Returns:
        See `Decomposition`. A part absent on both sides has no effect. Without parts, or with a
        denominator of 0 altogether, there is no change to explain and every effect is NaN.

    Example:
        Two carriers with accuracies .9 and .5; only the second one's share grew.

        >>> found = decompose([45, 25], [50, 50], [72, 10], [80, 20])
        >>> round(found.value - found.baseline_value, 3)
        -0.12
        >>> found.mix.round(3).tolist(), found.within.round(3).tolist()
        ([-0.042, -0.078], [0.0, 0.0])
    """
    k, m = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    k0 = np.asarray(baseline_numerator, np.float64)
    m0 = np.asarray(baseline_denominator, np.float64)
    total, total0 = m.sum(axis=-1, keepdims=True), m0.sum(axis=-1, keepdims=True)
    weight, weight0 = rate(*np.broadcast_arrays(m, total)), rate(*np.broadcast_arrays(m0, total0))
    value = rate(k.sum(axis=-1, keepdims=True), total)
    value0 = rate(k0.sum(axis=-1, keepdims=True), total0)
    own, own0 = rate(k, m), rate(k0, m0)
    own, own0 = np.where(m > 0, own, own0), np.where(m0 > 0, own0, own)
    middle = (value + value0) / 2
    mix = (weight - weight0) * (np.nan_to_num((own + own0) / 2) - middle)
    within = (weight + weight0) / 2 * np.nan_to_num(own - own0)
    within = np.where(np.isnan(middle), np.nan, within)
    return Decomposition(value[..., 0], value0[..., 0], mix, within, weight, weight0)


def ratio_parts(
    metric: str,
    score: ColumnStatistics | None,
    confusion: ColumnStatistics | None,
    losses: Mapping[str, ColumnStatistics] | None = None,
) -> Parts | None:
    """Return numerator and denominator of a metric per cell.

    F1 is 2 TP / (2 TP + FP + FN), so a slice weighs as much as it has predicted and actual
    positives; for precision and recall it weighs by predicted and by actual positives.

    Args:
        metric: accuracy, precision, recall, specificity, f1, actual_rate, predicted_rate, brier,
            log_loss; of several classes accuracy; and every mean of a loss column.
        score: Score bins by actual, C cells; None if the model logs no score.
        confusion: Predictions by actual, C cells; None if the model logs no prediction.
        losses: Loss columns by name; what else it holds is left alone.

    Returns:
        Two arrays (C,); None if the metric is no ratio of sums (roc_auc, calibration_error) or
        what it is made from was not logged.
    """
    losses = losses or {}
    if confusion is not None and confusion.binning.kind == "classes" and metric in _RIGHT:
        table, _ = class_counts(confusion.binning, confusion.counts)
        return _floats(np.trace(table, axis1=1, axis2=2)), _floats(table.sum(axis=(1, 2)))
    if metric == "wape" and ":actual_size" in losses:
        return _sum(losses[":absolute_error"]), _sum(losses[":actual_size"])
    of_all, _, outcome = metric.partition("/")
    loss = f"{OUTCOME}{outcome}" if of_all in OUTCOME_MEANS else LOSS_OF.get(metric, "")
    if (stats := losses.get(loss)) is not None:
        return _sum(stats), _floats(stats.counts.sum(axis=1))
    if confusion is None and score is None:
        return None
    return _binary_parts(metric, score, confusion)


def _sum(stats: ColumnStatistics) -> Floats:
    found: Floats = stats.total + stats.binning.centre * stats.counts.sum(axis=1)
    return found


def _binary_parts(
    metric: str, score: ColumnStatistics | None, confusion: ColumnStatistics | None
) -> Parts | None:
    if confusion is not None and confusion.binning.kind != "confusion":
        return None
    if metric in _FROM_CONFUSION and confusion is not None:
        return _FROM_CONFUSION[metric](label_counts(confusion.counts))
    if metric in _FROM_SCORE and score is not None:
        counts = label_counts(score.counts)
        negatives, positives = counts[:, :, 1].sum(axis=1), counts[:, :, 2].sum(axis=1)
        return _FROM_SCORE[metric](score, positives), _floats(negatives + positives)
    if metric == "actual_rate" and confusion is not None:
        counts = label_counts(confusion.counts)
        return _floats(counts[:, :, 2].sum(axis=1)), _floats(counts[:, :, 1:].sum(axis=(1, 2)))
    return None


def _floats(counts: Counts) -> Floats:
    return counts.astype(np.float64)


def _outcomes(counts: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    """Return TN, FP, FN, TP per cell."""
    return tuple(  # type: ignore[return-value]
        _floats(counts[:, predicted, state]) for state in (1, 2) for predicted in (0, 1)
    )


def _accuracy(counts: Counts) -> Parts:
    tn, fp, fn, tp = _outcomes(counts)
    return tp + tn, tn + fp + fn + tp


def _precision(counts: Counts) -> Parts:
    _, fp, _, tp = _outcomes(counts)
    return tp, tp + fp


def _recall(counts: Counts) -> Parts:
    _, _, fn, tp = _outcomes(counts)
    return tp, tp + fn


def _specificity(counts: Counts) -> Parts:
    tn, fp, _, _ = _outcomes(counts)
    return tn, tn + fp


def _f1(counts: Counts) -> Parts:
    _, fp, fn, tp = _outcomes(counts)
    return 2 * tp, 2 * tp + fp + fn


def _predicted_rate(counts: Counts) -> Parts:
    return _floats(counts[:, 1].sum(axis=1)), _floats(counts.sum(axis=(1, 2)))


_FROM_CONFUSION: dict[str, Callable[[Counts], Parts]] = {
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "specificity": _specificity,
    "f1": _f1,
    "predicted_rate": _predicted_rate,
}
_FROM_SCORE: dict[str, Callable[[ColumnStatistics, Counts], Floats]] = {
    "actual_rate": lambda _score, positives: _floats(positives),
    "brier": lambda score, _positives: score.total_sq,
    "log_loss": lambda score, _positives: score.total,
}
