"""Realized performance of a binary classifier, from score bins and confusion counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, score_midpoints
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.performance.class_tables import balanced_accuracy, estimate, mcc
from mlmon_dagster.metrics.performance.label_coverage import coverage_bias, early_actual_gap
from mlmon_dagster.metrics.performance.loss_means import mean_rows, t_factor
from mlmon_dagster.metrics.performance.roc import MIN_RARER, roc_auc
from mlmon_dagster.metrics.performance.score_curves import average_precision, ks_separation, lift
from mlmon_dagster.metrics.performance.score_order import SCORE_ORDER, by_node
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics

CALIBRATION_GROUPS = 10
MIN_CALIBRATION_ROWS = 50
_CHUNK = 128


def performance_metrics(
    score: ColumnStatistics | None,
    confusion: ColumnStatistics | None,
    losses: Mapping[str, ColumnStatistics] | None = None,
    *,
    top_share: float = 0.1,
    costs: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every metric of realized performance of a binary classifier, per cell.

    Args:
        score: Score bins by actual, over C cells; None if the model logs no score.
        confusion: Predictions by actual, over its own C' cells; None if it logs no prediction.
        losses: The loss columns ``:log_loss``, ``:brier``, ``:calibration_gap``, ``:early_loss``
            and ``:late_loss`` over the same cells, for exact intervals; without the first two they
            come from the score's bins. ``:score_order`` of the cells whose areas are to be those
            of the rows; of others they come from the score's bins, within the bound that is part
            of their interval.
        top_share: Share of the rows that counts as the top for lift.
        costs: Cost of a row by outcome (tp, fp, fn, tn); without it no expected_value.

    Returns:
        MetricFrame, column `:table`, `n` = rows with an actual (all rows for predicted_rate).
        From the score: roc_auc, pr_auc, ks_separation, lift, brier, log_loss, calibration_error,
        calibration_gap.
        From the confusion counts, at the model's own decision: precision, recall, specificity, f1,
        accuracy, balanced_accuracy, mcc, expected_value, predicted_rate. From either: actual_rate,
        actual_coverage_bias. `reason` of a NaN: no_actuals, no_rows, single_class,
        few_of_rarer_class (under 10; areas, ks_separation), few_rows (calibration_error and lift
        under 50), no_predicted_positives (precision), no_actual_positives (recall, lift),
        no_actual_negatives (specificity), no_positives (f1: neither predicted nor actual).
    """
    losses = losses or {}
    metrics = []
    if score is not None:
        metrics += _score_metrics(score, losses, top_share)
    if confusion is not None:
        metrics += _confusion_metrics(confusion, costs, with_actual_rate=score is None)
    either = score if score is not None else confusion
    if either is not None:
        counts = label_counts(either.counts)
        outputs = [(counts[:, :, 0], counts[:, :, 1:].sum(axis=2))]
        metrics.append(coverage_bias(either.cells, outputs))
    if ":early_loss" in losses:
        metrics.append(early_actual_gap(losses[":early_loss"], losses[":late_loss"]))
    return stack_rows(metrics)


def _score_metrics(
    score: ColumnStatistics, losses: Mapping[str, ColumnStatistics], top_share: float
) -> list[MetricRows]:
    cells = score.cells
    counts = label_counts(score.counts)
    negatives, positives = counts[:, :, 1], counts[:, :, 2]
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    n = n_neg + n_pos
    middles = score_midpoints(score.binning)
    no_actuals = np.where(n == 0, "no_actuals", "")
    return [
        *_area_frames(cells, negatives, positives, losses.get(SCORE_ORDER)),
        *_separation_frames(cells, negatives, positives, top_share),
        mean_rows("brier", losses[":brier"], high=1.0)
        if ":brier" in losses
        else _loss_rows(cells, "brier", score.total_sq, n, *_losses(middles, "brier"), counts),
        mean_rows("log_loss", losses[":log_loss"])
        if ":log_loss" in losses
        else _loss_rows(cells, "log_loss", score.total, n, *_losses(middles, "log_loss"), counts),
        _calibration_rows(cells, negatives, positives, middles, n),
        *(
            [mean_rows("calibration_gap", losses[":calibration_gap"], low=-1.0, high=1.0)]
            if ":calibration_gap" in losses
            else []
        ),
        _rate_rows(cells, "actual_rate", n_pos, n, no_actuals),
    ]


def _area_frames(
    cells: pd.DataFrame, negatives: Ints, positives: Ints, order: ColumnStatistics | None
) -> list[MetricRows]:
    """Areas from the order of the scores where that is known, of the whole; else from the bins."""
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    reason = _of_classes(n_neg, n_pos)
    place, ordered = _ordered(cells, order)
    metrics = []
    for metric, area, version in (
        ("roc_auc", roc_auc, "delong-2"),
        ("pr_auc", average_precision, "influence-2"),
    ):
        result = np.array(area(negatives, positives))
        for cell, counts in zip(place, ordered, strict=True):
            result[:, cell] = np.array(area(*counts))[:, 0]
        value = np.where(reason == "", result[0], np.nan)
        metrics.append(
            table_rows(cells, metric, value, result[1], result[2], n_neg + n_pos, reason, version)
        )
    return metrics


def _ordered(
    cells: pd.DataFrame, order: ColumnStatistics | None
) -> tuple[list[int], list[tuple[Ints, Ints]]]:
    """Return the cells whose labelled scores' order is known, and their rows per class and node."""
    if order is None:
        return [], []
    known = pd.MultiIndex.from_frame(order.cells[list(CELL_KEYS)])
    place = pd.MultiIndex.from_frame(cells[list(CELL_KEYS)]).get_indexer(known)
    counts = [by_node(scores) for scores in order.order]
    kept = [i for i, at in enumerate(place.tolist()) if at >= 0]
    return [int(place[i]) for i in kept], [(counts[i][0][None], counts[i][1][None]) for i in kept]


def _of_classes(n_neg: Ints, n_pos: Ints) -> NDArray[np.str_]:
    rarer = np.minimum(n_neg, n_pos)
    return np.select(
        [n_neg + n_pos == 0, rarer == 0, rarer < MIN_RARER],
        ["no_actuals", "single_class", "few_of_rarer_class"],
        "",
    )


def _separation_frames(
    cells: pd.DataFrame, negatives: Ints, positives: Ints, top_share: float
) -> list[MetricRows]:
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    n = n_neg + n_pos
    few = np.select(
        [n == 0, n_pos == 0, n < MIN_CALIBRATION_ROWS],
        ["no_actuals", "no_actual_positives", "few_rows"],
        "",
    )
    metrics = []
    for metric, result, reason, version in (
        ("ks_separation", ks_separation(negatives, positives), _of_classes(n_neg, n_pos),
         "newcombe-1"),
        ("lift", lift(negatives, positives, top_share), few, f"wilson-1@{top_share:g}"),
    ):  # fmt: skip
        value = np.where(reason == "", result.value, np.nan)
        metrics.append(
            table_rows(cells, metric, value, result.lower, result.upper, n, reason, version)
        )
    return metrics


def _losses(middles: Floats, metric: str) -> tuple[Floats, Floats]:
    """Loss of a negative and of a positive in each score bin, for the spread of the loss."""
    if metric == "brier":
        return middles**2, (1 - middles) ** 2
    return -np.log1p(-middles), -np.log(middles)


def _loss_rows(
    cells: pd.DataFrame,
    metric: str,
    total: Floats,
    n: Ints,
    of_negative: Floats,
    of_positive: Floats,
    counts: Ints,
) -> MetricRows:
    """Mean of a loss: exact from its sum; its standard error from the bins."""
    value = rate(total, n)
    first = counts[:, :, 1] @ of_negative + counts[:, :, 2] @ of_positive
    second = counts[:, :, 1] @ of_negative**2 + counts[:, :, 2] @ of_positive**2
    variance = rate(np.maximum(second - rate(first, n) * first, 0), n - 1)
    half = Z95 * np.sqrt(rate(variance, n))
    reason = np.where(n == 0, "no_actuals", "")
    lower, upper = np.maximum(value - half, 0), value + half
    return table_rows(cells, metric, value, lower, upper, n, reason, "mean-1")


def _calibration_rows(
    cells: pd.DataFrame, negatives: Ints, positives: Ints, middles: Floats, n: Ints
) -> MetricRows:
    parts = [
        _calibration_error(negatives[i : i + _CHUNK], positives[i : i + _CHUNK], middles)
        for i in range(0, len(cells), _CHUNK)
    ]
    value, bias, most, spread = (
        (np.concatenate(column) for column in zip(*parts, strict=True))
        if parts
        else [np.empty(0)] * 4
    )
    reason = np.select([n == 0, n < MIN_CALIBRATION_ROWS], ["no_actuals", "few_rows"], "")
    lower = np.maximum(value - most - Z95 * spread, 0)
    upper = np.minimum(value + Z95 * spread, 1)
    value = np.where(reason == "", np.maximum(value - bias, 0), np.nan)
    return table_rows(cells, "calibration_error", value, lower, upper, n, reason, "ece10-2")


def _calibration_error(
    negatives: Ints, positives: Ints, middles: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Expected calibration error over 10 groups of equal mass, the cell's own.

    The mean of |mean score - share of positives|, weighted by rows. It is biased upwards: a
    perfectly calibrated model shows about `most`, the third result; the fourth is its spread. The
    second is what is taken off: all of that on average for a calibrated model, and less the
    further a group's gap is above its own sampling noise, as a real gap has no such bias.
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
    most = np.sqrt(2 / np.pi) * noise.sum(axis=1) / total
    # The mean of exp(-z^2 / 4) over |z| of a standard normal is sqrt(2 / 3).
    faded = np.exp(-((rate(gap, noise)) ** 2) / 4) * np.sqrt(3 / np.pi)
    bias = (noise * np.nan_to_num(faded)).sum(axis=1) / total
    spread = np.sqrt((noise**2).sum(axis=1)) / total
    return np.abs(gap).sum(axis=1) / total, bias, most, spread


def _confusion_metrics(
    confusion: ColumnStatistics, costs: Mapping[str, float] | None, *, with_actual_rate: bool
) -> list[MetricRows]:
    cells = confusion.cells
    counts = label_counts(confusion.counts)
    tn, tp = counts[:, 0, 1], counts[:, 1, 2]
    fn, fp = counts[:, 0, 2], counts[:, 1, 1]
    n = tn + tp + fn + fp
    no_actuals = np.where(n == 0, "no_actuals", "")
    predicted, rows = counts[:, 1].sum(axis=1), counts.sum(axis=(1, 2))
    metrics = [
        _rate_rows(cells, "precision", tp, tp + fp, no_actuals, "no_predicted_positives", n),
        _rate_rows(cells, "recall", tp, tp + fn, no_actuals, "no_actual_positives", n),
        _rate_rows(cells, "specificity", tn, tn + fp, no_actuals, "no_actual_negatives", n),
        _f1_rows(cells, tp, tp + fp + fn, n, no_actuals),
        _rate_rows(cells, "accuracy", tp + tn, n, no_actuals),
        _rate_rows(cells, "predicted_rate", predicted, rows, np.where(rows == 0, "no_rows", "")),
    ]
    table = np.stack([np.stack([tn, fn], 1), np.stack([fp, tp], 1)], 1)  # predicted x actual
    balanced, correlation = estimate(table, balanced_accuracy), estimate(table, mcc, "fisher")
    for metric, found in (("balanced_accuracy", balanced), ("mcc", correlation)):
        metrics.append(table_rows(cells, metric, *found, n, no_actuals, "delta-1"))
    if costs is not None:
        metrics.append(_value_rows(cells, {"tn": tn, "fp": fp, "fn": fn, "tp": tp}, costs, n))
    if with_actual_rate:
        metrics.append(_rate_rows(cells, "actual_rate", tp + fn, n, no_actuals))
    return metrics


def _rate_rows(
    cells: pd.DataFrame,
    metric: str,
    count: Ints,
    of: Ints,
    reason: NDArray[np.str_],
    empty: str = "no_rows",
    n: Ints | None = None,
) -> MetricRows:
    lower, upper = wilson(count, of)
    reason = np.where(reason == "", np.where(of == 0, empty, ""), reason)
    shown = of if n is None else n
    return table_rows(cells, metric, rate(count, of), lower, upper, shown, reason, "wilson-1")


def _f1_rows(
    cells: pd.DataFrame, tp: Ints, union: Ints, n: Ints, reason: NDArray[np.str_]
) -> MetricRows:
    """F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), a plain share: Wilson's ends of J, mapped.

    Given the number of rows that are predicted or actual positives, TP is binomial, so the interval
    is as good as Wilson's; no delta method is needed.
    """
    lower, upper = wilson(tp, union)
    share = rate(tp, union)
    reason = np.where(reason == "", np.where(union == 0, "no_positives", ""), reason)
    value, low, high = (2 * x / (1 + x) for x in (share, lower, upper))
    return table_rows(cells, "f1", value, low, high, n, reason, "wilson-1")


def _value_rows(
    cells: pd.DataFrame, counts: Mapping[str, Ints], costs: Mapping[str, float], n: Ints
) -> MetricRows:
    """Mean value of a row: minus its cost."""
    total = sum((-costs[name] * count for name, count in counts.items()), np.zeros(len(n)))
    squares = sum((costs[name] ** 2 * count for name, count in counts.items()), np.zeros(len(n)))
    value = rate(total, n)
    variance = rate(np.maximum(squares - value * total, 0), n - 1)
    half = t_factor(n) * np.sqrt(rate(variance, n))
    reason = np.where(n == 0, "no_actuals", "")
    version = "mean-1@" + ",".join(f"{name}={cost:g}" for name, cost in sorted(costs.items()))
    return table_rows(
        cells, "expected_value", value, value - half, value + half, n, reason, version
    )
