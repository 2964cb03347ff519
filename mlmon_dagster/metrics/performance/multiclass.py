"""Realized performance of a classifier of several classes.

From the table of predicted by actual class (see `class_tables`), and from each class's score
against the rest: the areas' macro and weighted means are those of Provost and Domingos (2000).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.late_truth.means_by_output import BY_OUTPUT, Worth, weigh_back
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.metrics.means import mean_rows
from mlmon_dagster.metrics.performance.class_tables import (
    Metric,
    averaged,
    balanced_accuracy,
    estimate,
    mcc,
)
from mlmon_dagster.metrics.performance.roc import MIN_RARER, roc_auc
from mlmon_dagster.metrics.performance.weighted_back import (
    COMPLETE,
    UNLABELLED_SCORES,
    Classes,
    area_counts,
    areas_known,
    by_score,
    centre_areas,
    leave_out_exempt,
    replace_rows,
    score_metrics,
    with_rows,
)
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import TABLE

CLASS = "class:"
GAP = ":calibration_gap"  # score less what came true; of a class with its score's column after it
_DELTA: dict[str, Metric] = {
    f"{weighting}_{of}": averaged(of, weighting)
    for weighting in ("macro", "weighted")
    for of in ("precision", "recall", "f1")
}
_MICRO = ("micro_precision", "micro_recall", "micro_f1")
_OF_RIGHT = ("accuracy", *_MICRO)
RIGHT = ":right"  # whether the decision came true


def multiclass_metrics(profiles: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """Every metric of realized performance, per cell, and per class for some.

    Args:
        profiles: `prediction` (kind classes), one-vs-rest score bins and loss columns; what a model
            does not log may be missing.

    Returns:
        MetricFrame, n = rows with an actual. Column `:table` for the model, ``class:<name>`` for
        precision, recall, f1, roc_auc and calibration_gap of one class. What is none of the
        model's classes is one class more, on either side: it counts as an error unless predicted
        and actual are the same name, and in the averages as a class. `reason` of a NaN: no_actuals,
        single_class and few_of_rarer_class (roc_auc), no_predicted_positives, no_actual_positives,
        no_positives.
    """
    profiles = leave_out_exempt(profiles)
    metrics: list[MetricRows] = []
    if "prediction" in profiles:
        metrics += _from_table(profiles["prediction"])
    for metric, high in (("log_loss", np.inf), ("brier", 2.0)):
        if f":{metric}" in profiles:
            rows = mean_rows(metric, profiles[f":{metric}"], high=high)
            by_output = profiles.get(f"{BY_OUTPUT}:{metric}")
            metrics.append(weigh_back(rows, by_output, Worth(high=high)))
    if ":top_k" in profiles:
        rows = mean_rows("top_k_accuracy", profiles[":top_k"], scale="share")
        metrics.append(weigh_back(rows, profiles.get(f"{BY_OUTPUT}:top_k"), Worth()))
    is_right = profiles.get(f"{BY_OUTPUT}{RIGHT}")
    metrics = [
        weigh_back(rows, is_right, Worth()) if rows.metric in _OF_RIGHT else rows
        for rows in metrics
    ]
    scores = [s for s in profiles.values() if s.binning.kind == "score" and s.binning.categories]
    if scores:
        metrics += _areas(scores)
    metrics += _gaps(profiles, scores)
    return stack_rows(metrics)


def _gaps(
    profiles: Mapping[str, ColumnStatistics], scores: list[ColumnStatistics]
) -> list[MetricRows]:
    """Mean score of each class less its share; of the whole that of the class furthest off."""
    each = [
        _gap(score, profiles[f"{GAP}/{score.binning.column}"])._replace(
            column_name=CLASS + score.binning.categories[0]
        )
        for score in scores
        if f"{GAP}/{score.binning.column}" in profiles
    ]
    if not each:
        return []
    values = np.array([rows.value for rows in each])
    furthest = np.argmax(np.abs(np.nan_to_num(values)), axis=0), np.arange(values.shape[1])
    ends = [np.array([getattr(r, name) for r in each])[furthest] for name in ("lower", "upper")]
    one = each[0]
    return [
        *each,
        one._replace(value=values[furthest], lower=ends[0], upper=ends[1], column_name=TABLE),
    ]


def _gap(score: ColumnStatistics, gap: ColumnStatistics) -> MetricRows:
    """Mean score of a class less its share, of all rows where labels are of some."""
    rows = mean_rows("calibration_gap", gap, low=-1.0, high=1.0)
    part = by_score(score)
    if part is None:
        return rows
    plain = {"calibration_gap": np.asarray(rows.value, np.float64)[part.places]}
    return replace_rows(rows, part.places, score_metrics(part, plain)["calibration_gap"])


def _from_table(stats: ColumnStatistics) -> list[MetricRows]:
    """Measure the table of decision by actual, weighed by decision where labels are of some."""
    cells, (counted, unlabelled) = stats.cells, class_counts(stats.binning, stats.counts)
    n = counted.sum(axis=(1, 2))
    reason = np.where(n == 0, "no_actuals", "")
    table, is_weighed = _weighed(counted, unlabelled)
    size, right = table.sum(axis=(1, 2)), np.trace(table, axis1=1, axis2=2)
    metrics = [
        share_rows(cells, TABLE, metric, right, size, n=n, reason=reason)
        for metric in ("accuracy", *_MICRO)
    ]
    merged = _one_unseen(table)
    for metric, of in (*_DELTA.items(), ("balanced_accuracy", balanced_accuracy)):
        metrics.append(table_rows(cells, metric, *estimate(merged, of), n, reason, "delta-1"))
    metrics.append(table_rows(cells, "mcc", *estimate(merged, mcc, "fisher"), n, reason, "delta-1"))
    unseen = table[:, :, -2:].sum(axis=(1, 2))
    metrics.append(share_rows(cells, TABLE, "unseen_class_rate", unseen, size, n=n, reason=reason))
    metrics += _per_class(cells, stats.binning.categories, table, n, reason)
    return [
        rows._replace(method_version=np.where(is_weighed, METHOD, rows.method_version).tolist())
        for rows in metrics
    ]


def _weighed(table: Ints, unlabelled: Ints) -> tuple[Floats, Flags]:
    """Let the labelled rows of each decision stand for all of them, where labels are of some.

    Args:
        table: Labelled rows, decision x actual, (C, K + 2, K + 2).
        unlabelled: Rows without an actual, by decision, (C, K + 1).

    Returns:
        The table in as many rows as tell as much (Kish, 1965), and which cells are weighed.
    """
    labelled = table.sum(axis=2).astype(np.float64)
    rows = labelled.copy()
    rows[:, : unlabelled.shape[1]] += unlabelled
    n = labelled.sum(axis=1)
    is_weighed = (n > 0) & (n < COMPLETE * rows.sum(axis=1))
    weight = np.where(is_weighed[:, None], np.nan_to_num(rate(rows, labelled)), 1.0)
    effective = rate((labelled * weight).sum(axis=1), (labelled * weight**2).sum(axis=1))
    weight *= np.where(is_weighed, np.nan_to_num(effective), 1.0)[:, None]
    return np.asarray(table * weight[:, :, None], np.float64), np.asarray(is_weighed)


def _one_unseen(table: Floats) -> Floats:
    """Make all unseen actuals one class, but for pairs of two different unseen names."""
    merged = table.copy()
    merged[:, :-2, -2] += merged[:, :-2, -1]
    merged[:, :-2, -1] = 0
    return merged


def _per_class(
    cells: pd.DataFrame, classes: tuple[str, ...], table: Floats, n: Ints, reason: NDArray[np.str_]
) -> list[MetricRows]:
    predicted, actual = table.sum(axis=2), table.sum(axis=1)
    metrics: list[MetricRows] = []
    for k, label in enumerate(classes):
        counts = table[:, k, k], predicted[:, k], actual[:, k]
        metrics += measure_class(cells, label, counts, n, reason)
    return metrics


def measure_class(
    cells: pd.DataFrame,
    label: str,
    counts: tuple[Floats, Floats, Floats],
    n: Ints,
    reason: NDArray[np.str_],
) -> Iterator[MetricRows]:
    """Measure precision, recall and F1 of one class, with Wilson's interval.

    F1 is 2 J / (1 + J) of J, the share of right rows among those that are predicted or actual.

    Args:
        cells: Frame of C rows.
        label: The class.
        counts: Rows that are both predicted and actual, predicted, and actual, each (C,).
        n: Rows with an actual.
        reason: Why nothing has a value, or "".
    """
    right, predicted, actual = counts
    for metric, of, empty in (
        ("precision", predicted, "no_predicted_positives"),
        ("recall", actual, "no_actual_positives"),
        ("f1", predicted + actual - right, "no_positives"),
    ):
        share, (low, high) = rate(right, of), wilson(right, of)
        if metric == "f1":
            share, low, high = (2 * x / (1 + x) for x in (share, low, high))
        why = np.where(reason == "", np.where(of == 0, empty, ""), reason)
        yield table_rows(cells, metric, share, low, high, n, why, "wilson-1", CLASS + label)


def _areas(scores: list[ColumnStatistics]) -> list[MetricRows]:
    """One-vs-rest areas and their averages over the classes that have enough rows of both kinds.

    The interval of an average takes the areas as fully correlated, so it is rather too wide.
    """
    found, sizes, metrics = [], [], []
    for stats in scores:
        counts = label_counts(stats.counts)
        classes: Classes = (counts[:, :, 1], counts[:, :, 2])
        method = np.full(len(stats), "delong-1", object)
        part = by_score(stats)
        bare = np.zeros(len(stats), bool)
        if part is not None:
            classes = with_rows(classes, part, area_counts(stats, part.places).each)
            method[part.places] = METHOD
            bare[part.places] = ~areas_known(part)
        area = roc_auc(*classes)
        if part is not None:
            area = centre_areas(area, stats, part.places)
        n_neg, n_pos = counts[:, :, 1].sum(axis=1), counts[:, :, 2].sum(axis=1)
        rarer = np.minimum(n_neg, n_pos)
        why = np.select(
            [n_neg + n_pos == 0, rarer == 0, rarer < MIN_RARER, bare],
            ["no_actuals", "single_class", "few_of_rarer_class", UNLABELLED_SCORES],
            "",
        )
        value = np.where(why == "", area.value, np.nan)
        name = CLASS + stats.binning.categories[0]
        metrics.append(
            table_rows(stats.cells, "roc_auc", value, area.lower, area.upper, n_neg + n_pos, why,
                        method.tolist(), name)
        )  # fmt: skip
        found.append(np.array([value, area.lower, area.upper]))
        sizes.append((np.asarray(classes[1], np.float64).sum(axis=1), n_neg + n_pos))
    areas = np.array(found)  # (K, 3, C)
    known = ~np.isnan(areas[:, 0])
    n = np.max([size[1] for size in sizes], axis=0)
    reason = np.select([n == 0, ~known.any(axis=0)], ["no_actuals", "few_of_rarer_class"], "")
    is_bare = (why == UNLABELLED_SCORES) & ~known.any(axis=0)
    reason = np.where(is_bare, UNLABELLED_SCORES, reason)
    positives = np.array([size[0] for size in sizes])
    mean_method = np.where(method == METHOD, METHOD, "delong-mean-1").tolist()
    for metric, each in (
        ("macro_roc_auc", np.ones_like(positives)),
        ("weighted_roc_auc", positives),
    ):
        weight = np.where(known, each, 0)
        total = weight.sum(axis=0)
        value, low, high = (
            rate((weight * np.nan_to_num(areas[:, i])).sum(axis=0), total) for i in range(3)
        )
        metrics.append(
            table_rows(scores[0].cells, metric, value, low, high, n, reason, mean_method)
        )
    return metrics
