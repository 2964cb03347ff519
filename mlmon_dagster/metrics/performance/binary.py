"""Realized performance of a binary classifier, from score bins and confusion counts.

Shares of counts (accuracy, precision, recall, specificity) are by definition and have Wilson's
interval; the Brier score is the mean squared error of the score (Brier, 1950), log loss minus the
mean logarithm of the chance given to what came true (Good, 1952).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, score_midpoints
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, difference_interval, rate, wilson
from mlmon_dagster.metrics.late_truth.rectified import METHOD, Interval, add_by_group
from mlmon_dagster.metrics.means import mean_rows
from mlmon_dagster.metrics.performance.class_tables import balanced_accuracy, estimate, mcc
from mlmon_dagster.metrics.performance.roc import (
    MIN_RARER,
    SCORE_ORDER,
    RocAuc,
    Weighed,
    by_chunks,
    by_node,
    count_from_top,
    logit_interval,
    roc_auc,
)
from mlmon_dagster.metrics.performance.weighted_back import (
    DECIDED,
    UNLABELLED_SCORES,
    WORTHS,
    Classes,
    PartlyLabelled,
    area_counts,
    areas_known,
    by_decision,
    by_score,
    centre_areas,
    decision_metrics,
    leave_out_exempt,
    score_metrics,
    weigh_back,
    with_rows,
)
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.names import TABLE

CALIBRATION_GROUPS = 10
MIN_CALIBRATION_ROWS = 50
_CHUNK = 128
_LOSSES = {  # between which ends a mean lies
    "brier": (0.0, 1.0),
    "log_loss": (0.0, np.inf),
    "calibration_gap": (-1.0, 1.0),
}


def performance_metrics(
    score: ColumnStatistics | None,
    confusion: ColumnStatistics | None,
    losses: Mapping[str, ColumnStatistics] | None = None,
    *,
    top_share: float = 0.1,
    metrics: Collection[str] = METRICS,
) -> pd.DataFrame:
    """Every metric of realized performance of a binary classifier, per cell.

    Args:
        score: Score bins by actual, over C cells; None if the model logs no score.
        confusion: Predictions by actual, over its own C' cells; None if it logs no prediction.
        losses: The loss columns ``:log_loss``, ``:brier``, ``:calibration_gap`` over the same
            cells, whose means are measured. ``:score_order`` of the cells whose areas are to be
            those of the rows; of others they come from the score's bins, within the bound that is
            part of their interval. Outputs of rows that ground truth never comes for (`EXEMPT`)
            count in predicted_rate alone.
        top_share: Share of the rows that counts as the top for lift.
        metrics: Which are wanted; areas and gaps of others are not computed.

    Returns:
        MetricFrame, column `:table`, `n` = rows with an actual (all rows for predicted_rate).
        From the score: roc_auc, pr_auc, ks_separation, lift, brier, log_loss, calibration_error,
        calibration_gap.
        From the confusion counts, at the model's own decision: precision, recall, specificity, f1,
        accuracy, balanced_accuracy, mcc, predicted_rate. From either: actual_rate.
        `reason` of a NaN: no_actuals, no_rows, single_class,
        few_of_rarer_class (under 10; areas, ks_separation; under `weighted_back.FEWEST` of labels
        of a chosen part, lift), few_rows (calibration_error and lift
        under 50), no_predicted_positives (precision), no_actual_positives (recall, lift),
        no_actual_negatives (specificity), no_positives (f1: neither predicted nor actual).
        `unsure` of a value, without an interval: few_of_rarer_class, where labels are a chosen part
        and tell as much as fewer than `weighted_back.FEWEST` rows of the rarer class.
    """
    predicted, losses = confusion, losses or {}
    outputs_of = {"score": score, "prediction": confusion}
    named = {name: stats for name, stats in outputs_of.items() if stats is not None}
    expected = leave_out_exempt({**losses, **named})
    score, confusion = (expected[n] if n in named else None for n in outputs_of)
    measured = []
    if score is not None:
        measured += _score_metrics(score, losses, top_share, metrics)
    by_scores = {name for name in metrics if METRICS[name].needs == ("score",)}
    if score is not None:
        by_scores.add("actual_rate")
    if predicted is not None and confusion is not None and not by_scores.issuperset(metrics):
        found = _confusion_metrics(predicted, with_actual_rate=score is None)
        for part in by_decision(confusion, score, expected.get(DECIDED)):
            found = weigh_back(found, part, decision_metrics(part))
        measured += found
    return stack_rows([rows for rows in measured if rows.metric in metrics])


def _score_metrics(
    score: ColumnStatistics,
    losses: Mapping[str, ColumnStatistics],
    top_share: float,
    metrics: Collection[str],
) -> list[MetricRows]:
    """Measure the labelled rows; where they may be a chosen subset, weigh them back to all."""
    found, part = _of_labelled(score, losses, metrics), by_score(score)
    if part is not None:
        plain = {
            str(rows.metric): np.asarray(rows.value, np.float64)[part.places]
            for rows in found
            if rows.metric in WORTHS
        }
        values = score_metrics(part, plain)
        values["calibration_error"] = _weighted_calibration_error(part)
        found = weigh_back(found, part, values)
    return [*_areas(score, losses.get(SCORE_ORDER), part, top_share, metrics), *found]


def _of_labelled(
    score: ColumnStatistics, losses: Mapping[str, ColumnStatistics], metrics: Collection[str]
) -> list[MetricRows]:
    cells = score.cells
    counts = label_counts(score.counts)
    negatives, positives = counts[:, :, 1], counts[:, :, 2]
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    n = n_neg + n_pos
    middles = score_midpoints(score.binning)
    found = [
        mean_rows(metric, losses[f":{metric}"], low=low, high=high)
        for metric, (low, high) in _LOSSES.items()
        if f":{metric}" in losses
    ]
    if "calibration_error" in metrics:
        found.append(_calibration_rows(cells, negatives, positives, middles, n))
    no_actuals = np.where(n == 0, "no_actuals", "")
    return [*found, _rate_rows(cells, "actual_rate", n_pos, n, no_actuals)]


def _areas(
    score: ColumnStatistics,
    order: ColumnStatistics | None,
    part: PartlyLabelled | None,
    top_share: float,
    wanted: Collection[str],
) -> list[MetricRows]:
    """Areas and separation of classes, of all rows that labels speak for.

    Areas come from the order of the scores where that is known, of the whole; else, and where
    labelled rows are weighed, from the bins.
    """
    cells, counts = score.cells, label_counts(score.counts)
    negatives, positives = counts[:, :, 1], counts[:, :, 2]
    n_neg, n_pos = negatives.sum(axis=1), positives.sum(axis=1)
    n = n_neg + n_pos
    reason = _of_classes(n_neg, n_pos)
    few = np.select(
        [n == 0, n_pos == 0, n < MIN_CALIBRATION_ROWS],
        ["no_actuals", "no_actual_positives", "few_rows"],
        "",
    ).astype(object)
    place, ordered = _ordered(cells, order)
    is_weighed = np.zeros(len(cells), bool)
    classes: Classes = (negatives, positives)
    shares: Classes = classes
    if part is not None:
        is_weighed[part.places] = True
        weighed = area_counts(score, part.places)
        classes = with_rows(classes, part, weighed.each)
        shares = with_rows(shares, part, (weighed.negatives, weighed.positives))
        bare = part.places[~areas_known(part)]
        for why in (reason, few):
            why[bare] = np.where(why[bare] == "", UNLABELLED_SCORES, why[bare])
        rare = part.places[part.has_few_of_rarer()]
        few[rare] = np.where(few[rare] == "", "few_of_rarer_class", few[rare])
    metrics = []
    for metric, area, version, counted in (
        ("roc_auc", roc_auc, "delong-2", classes),
        ("pr_auc", average_precision, "influence-2", shares),
    ):
        if metric not in wanted:
            continue
        result = np.array(area(*counted))
        if part is not None and metric == "roc_auc":
            result = np.array(centre_areas(RocAuc(*result), score, part.places))
        for cell, rows in zip(place, ordered, strict=True):
            if not is_weighed[cell]:
                result[:, cell] = np.array(area(*rows))[:, 0]
        metrics.append((metric, result, reason, version))
    if "ks_separation" in wanted:
        separation = np.array(ks_separation(*classes))
        metrics.append(("ks_separation", separation, reason, "newcombe-1"))
    if "lift" in wanted:
        lifted = np.array(lift(shares[0], shares[1], top_share))
        metrics.append(("lift", lifted, few, f"wilson-1@{top_share:g}"))
    return [
        table_rows(
            cells, metric, np.where(why == "", result[0], np.nan), result[1], result[2], n, why,
            np.where(is_weighed, METHOD + "".join(version.partition("@")[1:]), version).tolist(),
        )
        for metric, result, why, version in metrics
    ]  # fmt: skip


def _ordered(
    cells: pd.DataFrame, order: ColumnStatistics | None
) -> tuple[list[int], list[tuple[Ints, Ints]]]:
    """Return the cells whose labelled scores' order is known, and their rows per class and node."""
    if order is None:
        return [], []
    own, known = (
        zip(*(frame[key].tolist() for key in CELL_KEYS), strict=True)
        for frame in (cells, order.cells)
    )
    place = {key: at for at, key in enumerate(own)}
    kept = [(place[key], i) for i, key in enumerate(known) if key in place]
    counts = [by_node(order.order[i]) for _, i in kept]
    return [at for at, _ in kept], [(neg[None], pos[None]) for neg, pos in counts]


def _of_classes(n_neg: Ints, n_pos: Ints) -> NDArray[np.str_]:
    rarer = np.minimum(n_neg, n_pos)
    return np.select(
        [n_neg + n_pos == 0, rarer == 0, rarer < MIN_RARER],
        ["no_actuals", "single_class", "few_of_rarer_class"],
        "",
    )


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
    value, lower, upper = _error_interval(value, bias, most, spread)
    value = np.where(reason == "", value, np.nan)
    return table_rows(cells, "calibration_error", value, lower, upper, n, reason, "ece10-2")


def _calibration_error(
    negatives: Ints, positives: Ints, middles: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Expected calibration error over 10 groups of equal mass, the cell's own.

    The mean of |mean score - share of positives|, weighted by rows (Naeini, Cooper and Hauskrecht,
    2015; with equal mass as in Nixon et al., 2019). It is biased upwards: a
    perfectly calibrated model shows about `most`, the third result; the fourth is its spread. The
    second is what is taken off: all of that on average for a calibrated model, and less the
    further a group's gap is above its own sampling noise, as a real gap has no such bias. The mean
    of |z| of a normal gap of that noise is sqrt(2 / pi) times it.
    """
    rows = (negatives + positives).astype(np.float64)
    total = np.maximum(rows.sum(axis=1), 1)
    middle = (np.cumsum(rows, axis=1) - rows / 2) / total[:, None]
    groups = np.minimum((middle * CALIBRATION_GROUPS).astype(np.int64), CALIBRATION_GROUPS - 1)
    expected, came_true, variance = (
        add_by_group(values, groups, CALIBRATION_GROUPS)
        for values in (
            rows * middles,
            positives.astype(np.float64),
            rows * (middles * (1 - middles)),
        )
    )
    gap, noise = expected - came_true, np.sqrt(variance)
    return _add_gaps(gap / total[:, None], noise / total[:, None])


def _add_gaps(gap: Floats, noise: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Add up the gaps of groups whose sampling noise is known, see `_calibration_error`."""
    most = np.sqrt(2 / np.pi) * noise.sum(axis=1)
    # The mean of exp(-z^2 / 4) over |z| of a standard normal is sqrt(2 / 3).
    faded = np.exp(-((rate(gap, noise)) ** 2) / 4) * np.sqrt(3 / np.pi)
    bias = (noise * np.nan_to_num(faded)).sum(axis=1)
    return np.abs(gap).sum(axis=1), bias, most, np.sqrt((noise**2).sum(axis=1))


def _weighted_calibration_error(part: PartlyLabelled) -> Interval:
    """Calibration error whose groups weigh as much as they hold of all rows with labels."""
    gap, noise = part.gaps()
    return _error_interval(*_add_gaps(gap, noise))


def _error_interval(value: Floats, bias: Floats, most: Floats, spread: Floats) -> Interval:
    return Interval(
        np.maximum(value - bias, 0),
        np.maximum(value - most - Z95 * spread, 0),
        np.minimum(value + Z95 * spread, 1),
    )


def _confusion_metrics(confusion: ColumnStatistics, *, with_actual_rate: bool) -> list[MetricRows]:
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
    reason = np.where(reason == "", np.where(of == 0, empty, ""), reason)
    return share_rows(cells, TABLE, metric, count, of, n=n, reason=reason)


def _f1_rows(
    cells: pd.DataFrame, tp: Ints, union: Ints, n: Ints, reason: NDArray[np.str_]
) -> MetricRows:
    """F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), a plain share: Wilson's ends of J, mapped.

    F1 is van Rijsbergen's (1979), J Jaccard's (1912). Given the number of rows that are predicted
    or actual positives, TP is binomial, so the interval is as good as Wilson's; no delta method is
    needed.
    """
    lower, upper = wilson(tp, union)
    share = rate(tp, union)
    reason = np.where(reason == "", np.where(union == 0, "no_positives", ""), reason)
    value, low, high = (2 * x / (1 + x) for x in (share, lower, upper))
    return table_rows(cells, "f1", value, low, high, n, reason, "wilson-1")


_FLOOR = 0.3  # share of the binomial variance that is the least


def average_precision(negatives: Weighed, positives: Weighed) -> RocAuc:
    """Sum of (R_i - R_i-1) * P_i over the thresholds from the highest score down, as scikit-learn.

    Rows of one bin share a threshold. `bound`: the largest distance from the value that any order
    of the rows inside the bins would give. The interval is Student's at the positives' degrees of
    freedom, on a logit scale, with the variance of the influence function, times p / (p - 2) of p
    positives for what their own choice hides; at least 30 % of the binomial one, as for a perfect
    ranking the former is 0. The influence of a row on a sum of rank functionals, of which this is
    one, is its own term plus what it adds to those of all others; the logit interval is that of
    Boyd, Eng and Page (2013).

    Args:
        negatives: Rows with actual 0 per score bin, ascending scores, shape (C, S).
        positives: Rows with actual 1, shape (C, S).

    Returns:
        Area, ends of the 95 % interval and bound, each (C,); NaN without positives.

    Example:
        >>> found = average_precision(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
        >>> round(float(found.value[0]), 4)  # 1/2 * 1/1 + 1/2 * 2/3
        0.8333
    """
    return by_chunks(_chunk, _interval, negatives, positives)


def _interval(area: Floats, variance: Floats, bound: Floats, p: Floats) -> RocAuc:
    with np.errstate(invalid="ignore", divide="ignore"):
        shrunk = (area * p + 0.5) / (p + 1)
        spread = np.sqrt(np.maximum(variance, _FLOOR * shrunk * (1 - shrunk) / p))
    return logit_interval(area, shrunk, spread, p, bound)


def _chunk(negatives: Weighed, positives: Weighed) -> tuple[Floats, Floats, Floats, Floats]:
    neg, pos = negatives.astype(np.float64), positives.astype(np.float64)
    tp, fp = count_from_top(pos), count_from_top(neg)
    p = pos.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
        area = np.einsum("cs,cs->c", pos, precision) / p
        # How a row changes the precision at every threshold up to its own score.
        share = np.where(tp + fp > 0, pos / (tp + fp), 0)
        right, seen = np.cumsum(share, axis=1), np.cumsum(share * precision, axis=1)
        of_pos = precision - area[:, None] + right - seen
        squares = np.einsum("cs,cs,cs->c", pos, of_pos, of_pos)
        squares += np.einsum("cs,cs,cs->c", neg, seen, seen)
        variance = squares / p / np.maximum(p - 2, 1)
    return area, variance, _bound(neg, pos, tp, fp, p, area), p


def _bound(neg: Floats, pos: Floats, tp: Floats, fp: Floats, p: Floats, area: Floats) -> Floats:
    """Best and worst order in every bin: positives first, or last, in closed form."""
    before_tp, before_fp = tp - pos, fp - neg
    ends = []
    for false in (before_fp, fp):
        start = before_tp + false
        lost = false * _harmonic(start, pos)
        with np.errstate(invalid="ignore", divide="ignore"):
            ends.append((pos - lost).sum(axis=1) / p)
    found: Floats = np.maximum(np.abs(ends[0] - area), np.abs(ends[1] - area))
    return found


def _harmonic(start: Floats, terms: Floats) -> Floats:
    """Return the sums of 1 / (start + 1), 1 / (start + 2) and so on; one term is the usual case."""
    found: Floats = np.where(terms > 0, 1 / (start + 1), 0.0)
    several = terms > 1
    first, end = start[several] + 1, (start + terms)[several] + 1
    found[several] = special.digamma(end) - special.digamma(first)
    return found


class Separation(NamedTuple):
    """Value, 95 % interval and the most that the bins can hide, each (C,)."""

    value: Floats
    lower: Floats
    upper: Floats
    bound: Floats


def ks_separation(negatives: Weighed, positives: Weighed) -> Separation:
    """Largest distance of the two classes' distributions of scores, over the bins' edges.

    The true distance is at most `bound` larger: the largest share that one class has in a bin. The
    interval is Newcombe's (1998) of the two shares at the threshold found; as that threshold was
    chosen, it is a little high for classes that hardly differ.

    Args:
        negatives: Rows with actual 0 per score bin, ascending, shape (C, S).
        positives: Rows with actual 1, shape (C, S).

    Returns:
        NaN unless both classes are there.
    """
    n, p = negatives.sum(axis=1), positives.sum(axis=1)
    below_n, below_p = np.cumsum(negatives, axis=1), np.cumsum(positives, axis=1)
    apart = np.abs(rate(below_n, n[:, None]) - rate(below_p, p[:, None]))
    cells = np.arange(len(n))
    place = np.argmax(np.nan_to_num(apart), axis=1)
    k_n, k_p = below_n[cells, place], below_p[cells, place]
    value, lower, upper = _difference(rate(k_n, n), wilson(k_n, n), rate(k_p, p), wilson(k_p, p))
    shares = np.maximum(rate(negatives, n[:, None]), rate(positives, p[:, None]))
    bound = np.nan_to_num(shares).max(axis=1, initial=0)
    return Separation(value, lower, np.minimum(upper + bound, 1), bound)


def _difference(
    a: Floats, of_a: tuple[Floats, Floats], b: Floats, of_b: tuple[Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    change, lower, upper = difference_interval(a, of_a, b, of_b)
    flip = change < 0
    return (
        np.abs(change),
        np.maximum(np.where(flip, -upper, lower), 0),
        np.where(flip, -lower, upper),
    )


def lift(negatives: Weighed, positives: Weighed, share: float) -> Separation:
    """Share of positives among the rows with the highest scores / share of positives in all.

    The bin in which the cut falls gives the fraction of its rows that is needed, as if its scores
    were tied and drawn from at random. The interval is Wilson's of the positives found. Gain and
    lift as by definition: what share of the positives the top holds, over its share of the rows.

    Args:
        negatives: Rows with actual 0 per score bin, ascending, shape (C, S).
        positives: Rows with actual 1, shape (C, S).
        share: Share of the rows that counts as the top, 0 to 1.

    Returns:
        1 for scores that say nothing, at most 1 / share; NaN without positives. `bound`: what the
        order of the rows in the cut bin could change.
    """
    rows = (negatives + positives)[:, ::-1].astype(np.float64)
    pos = positives[:, ::-1].astype(np.float64)
    wanted = share * rows.sum(axis=1)
    before = np.cumsum(rows, axis=1) - rows
    taken = np.clip(wanted[:, None] - before, 0, rows)
    found = (pos * rate(taken, rows).clip(0, 1, out=None)).sum(axis=1, where=rows > 0)
    p = pos.sum(axis=1)
    lower, upper = wilson(found, p)
    cut = (taken > 0) & (taken < rows)
    most = np.minimum(pos, taken) - pos * np.nan_to_num(rate(taken, rows))
    least = pos * np.nan_to_num(rate(taken, rows)) - np.maximum(taken - (rows - pos), 0)
    doubt = rate(np.where(cut, np.maximum(most, least), 0).sum(axis=1), p) / share
    top = 1 / share
    value = rate(found, p) * top
    lower = np.maximum(lower * top - doubt, 0)
    return Separation(value, lower, np.minimum(upper * top + doubt, top), doubt)
