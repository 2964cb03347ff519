"""Performance of a multiclass model without ground truth, from one-vs-rest score bins.

Every class's score has its own curve, and so has the score of the class decided for, whose
"positive" is that the decision was right. See `estimated.binary` for what that rests on, and its
source; one class against the rest as in Zadrozny and Elkan (2002). Of the rows decided for one
class there is a curve, too: expected hits, beside the rows that were decided for it and those that
are expected to be of it, give its precision, recall and F1. One score of several does not say what
the others are, so that its curve moves with their law: under a shift the curves come from weighted
rows, see `metrics.reweighting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Flags, Floats
from mlmon_dagster.metrics.estimated.calibration import (
    MIN_BASELINE_RARER,
    MIN_ROWS,
    Curves,
    HeldOut,
    Scored,
    Table,
    aligned,
    correct_by,
    crossed,
    expected_table,
    hold_out,
    labelled,
    learn_curves,
    less,
    per_cell,
    realized,
    sampling_variances,
    scored,
    t_of,
    values_of,
    widen_by,
)
from mlmon_dagster.metrics.estimated.reweighting import Weighing
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.roc import MIN_RARER
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.tasks import estimated, residual

Profiles = Mapping[str, ColumnStatistics]
CONFIDENCE = ":confidence"  # the score of the class that was decided for
DECIDED_FOR = f"{CONFIDENCE}/"  # before a class's score: of the rows that were decided for it
PLAIN, WEIGHTED = "ovr-cbpe-5", "iw-ovr-cbpe-6"
_OF_SCORES = ("macro_roc_auc", "brier", "log_loss")
_OF_DECISIONS = ("macro_precision", "macro_recall", "macro_f1")


@dataclass(frozen=True)
class ClassCalibration:
    """What a baseline says about the scores of several classes.

    Attributes:
        curves: Score -> P(positive) per bin; the classes' scores, ``:confidence``, and of every
            class that of the rows decided for it.
        held_out: Metric -> how far the baseline's own windows are from their estimates.
        n: Labelled rows of the baseline.
        reason: Why nothing can be estimated; empty if something can.
    """

    curves: Mapping[str, Curves]
    held_out: Mapping[str, HeldOut]
    n: int
    reason: str


def calibrate_classes(
    baseline: Profiles, halves: Profiles, labels: Sequence[str], seed: int
) -> ClassCalibration:
    """Learn from a baseline what its classes' scores mean.

    Args:
        baseline: The classes' score columns, ``:confidence`` and those of the rows decided for each
            class, by window.
        halves: The same of a random half of its rows.
        labels: The classes' score columns.
        seed: Of the replicates, where there are too few windows for a jackknife.

    Returns:
        With a `reason` where the baseline has fewer than 20 right or 20 wrong decisions.
    """
    names = [*labels, CONFIDENCE, *(f"{DECIDED_FOR}{name}" for name in labels)]
    base = {name: scored(baseline[name], None) for name in names}
    half = {n: aligned(scored(halves[n], None), base[n]) for n in names if n in halves}
    curves = {
        name: learn_curves(one.rows[:, :, 2], one.rows[:, :, 1], seed) for name, one in base.items()
    }
    known = base[CONFIDENCE].rows.sum(axis=(0, 1))[1:]
    reason = "few_baseline_rows" if min(known) < MIN_BASELINE_RARER else ""
    reason = reason if known.sum() > 0 else "baseline_no_actuals"
    held_out = _hold_out(base, half) if not reason and len(half) == len(base) else {}
    return ClassCalibration(curves, held_out, int(known.sum()), reason)


def estimated_classes(
    windows: Profiles,
    calibration: ClassCalibration,
    weighings: Mapping[int, Weighing] | None = None,
) -> pd.DataFrame:
    """Estimate accuracy, macro ROC AUC, F1, precision, recall, Brier score and log loss.

    They are compared with the truth, too. Accuracy has the curve of the decisions, F1, precision
    and recall those of the decisions for each class and of the classes, and the others those of the
    classes, and so each asks the held-out rows of its own scores which of two curves is better.

    Args:
        windows: The classes' score columns and ``:confidence`` over C cells.
        calibration: Of the baseline.
        weighings: Cell -> the baseline's rows weighted like it, where it has shifted.

    Returns:
        MetricFrame of ``estimated_<metric>`` and ``<metric>_residual``, column `:table`; intervals
        as `estimated_performance`, with the classes' actuals taken as independent and then
        widened to what the baseline's own windows show. `reason` of a NaN: no_rows (of a residual
        no_actuals), few_rows (under 30), few_of_rarer_class (of areas no class with 10 expected
        rows of either kind; of F1, precision and recall a class with fewer than 10),
        few_baseline_rows (under 20 right or wrong decisions), baseline_no_actuals.
    """
    names = list(calibration.curves)
    counts = {name: scored(windows[name], None) for name in names}
    found = {} if calibration.reason or not weighings else weighings
    metrics = []
    for scores, mine in group_scores(names):
        cells = [i for i in sorted(found) if found[i].is_better(scores)]
        is_weighted = np.isin(np.arange(len(counts[CONFIDENCE].cells)), cells)
        plain = {name: counts[name].part(~is_weighted) for name in scores}
        metrics += _compared(plain, calibration.curves, calibration, mine, PLAIN)
        if cells:
            own = {name: per_cell([found[i].curves[name] for i in cells]) for name in scores}
            weighted = {name: counts[name].part(is_weighted) for name in scores}
            metrics += _compared(weighted, own, calibration, mine, WEIGHTED)
    return stack_rows(metrics).assign(n_baseline=calibration.n)


def group_scores(names: Iterable[str]) -> list[tuple[list[str], Sequence[str]]]:
    """Return the scores that metrics are made of, and these metrics."""
    known = list(names)
    classes = [name for name in known if not name.startswith(CONFIDENCE)]
    decided = [name for name in known if name.startswith(DECIDED_FOR)]
    return [
        ([CONFIDENCE], ("accuracy",)),
        (classes, _OF_SCORES),
        (classes + decided, _OF_DECISIONS),
    ]


def _compared(
    counts: Mapping[str, Scored],
    curves: Mapping[str, Curves],
    calibration: ClassCalibration,
    names: Sequence[str],
    method: str,
) -> list[MetricRows]:
    cells = next(iter(counts.values())).cells
    metrics = []
    for is_residual in (False, True):
        rows = {k: _rows(one, is_residual) for k, one in counts.items()}
        found = _expected(rows, counts, {name: curves[name].curve for name in counts})
        truth = _combined({k: realized(one) for k, one in counts.items()}, counts)
        guess = {
            metric: value - correct_by(calibration.held_out, metric)
            for metric, value in _combined(found, counts).items()
        }
        size = next(iter(rows.values())).sum(axis=1)
        learning = _learning(rows, counts, curves, names)
        t = t_of(next(iter(curves.values())))
        for metric in names:
            wide = widen_by(calibration.held_out, metric)
            sampling = Z95**2 * wide * _variance(found, rows, counts, metric)
            half_width = np.sqrt(sampling + t**2 * learning[metric])
            shown = guess[metric] - truth[metric] if is_residual else guess[metric]
            why = _why(shown, size, is_residual, calibration.reason)
            value = np.where(why == "", shown, np.nan)
            ends = value - half_width, value + half_width
            if not is_residual:
                info = METRICS[metric]
                value = np.clip(value, info.low, info.high)
                ends = np.maximum(ends[0], info.low), np.minimum(ends[1], info.high)
            name = residual(metric) if is_residual else estimated(metric)
            metrics.append(table_rows(cells, name, value, *ends, size, why, method))
    return metrics


def _rows(counts: Scored, is_labelled: bool) -> Floats:
    return labelled(counts.rows) if is_labelled else np.asarray(counts.rows.sum(axis=2))


def _expected(
    rows: Mapping[str, Floats], counts: Mapping[str, Scored], curves: Mapping[str, Floats]
) -> dict[str, Table]:
    return {name: expected_table(rows[name], None, curves[name]) for name in counts}


def _combined(tables: Mapping[str, Table], counts: Mapping[str, Scored]) -> dict[str, Floats]:
    """From tables of the classes, or that of the decisions, to the metrics of the model."""
    if any(name.startswith(DECIDED_FOR) for name in tables):
        return _average_decisions(tables)
    values = {name: values_of(table, counts[name].middles) for name, table in tables.items()}
    if CONFIDENCE in tables:
        return {"accuracy": values[CONFIDENCE]["actual_rate"]}
    ranked = np.array([one["roc_auc"] for one in values.values()])
    known = np.array([_is_ranked(table) for table in tables.values()]) & np.isfinite(ranked)
    n_known = known.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = np.where(known, ranked, 0).sum(axis=0) / n_known
        losses = [
            -(table.positives @ np.log(counts[n].middles))
            / (table.positives + table.negatives).sum(axis=1)
            for n, table in tables.items()
        ]
    return {
        "macro_roc_auc": np.where(n_known > 0, area, np.nan),
        "brier": np.sum([one["brier"] for one in values.values()], axis=0),
        "log_loss": np.sum(losses, axis=0),
    }


class _Hits(NamedTuple):
    """Rows of K classes in C cells, (K, C): decided right, decided, of the class."""

    right: Floats
    decided: Floats
    actual: Floats


def _count_hits(tables: Mapping[str, Table]) -> _Hits:
    classes = [name for name in tables if not name.startswith(DECIDED_FOR)]
    of_decided = [tables[f"{DECIDED_FOR}{name}"] for name in classes]
    return _Hits(
        np.array([table.positives.sum(axis=1) for table in of_decided]),
        np.array([(table.positives + table.negatives).sum(axis=1) for table in of_decided]),
        np.array([tables[name].positives.sum(axis=1) for name in classes]),
    )


def _average_decisions(tables: Mapping[str, Table]) -> dict[str, Floats]:
    """Return the means over the classes; NaN where one of them has too few rows."""
    right, decided, actual = _count_hits(tables)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = {
            "macro_precision": np.where(decided > 0, right / decided, 0.0),
            "macro_recall": right / actual,
            "macro_f1": 2 * right / (decided + actual),
        }
    is_known = (actual >= MIN_RARER).all(axis=0)
    return {name: np.where(is_known, value.mean(axis=0), np.nan) for name, value in each.items()}


def _decision_variance(
    tables: Mapping[str, Table], rows: Mapping[str, Floats], metric: str
) -> Floats:
    """Variance of a mean over the classes if the rows' actuals were independent, by its slopes."""
    right, decided, actual = _count_hits(tables)
    classes = [name for name in tables if not name.startswith(DECIDED_FOR)]

    def spread(name: str) -> Floats:
        table = tables[name]
        safe = np.maximum(rows[name], 1)
        return np.asarray((table.positives * table.negatives / safe).sum(axis=1))

    yes = np.array([spread(f"{DECIDED_FOR}{name}") for name in classes])
    no = np.maximum(np.array([spread(name) for name in classes]) - yes, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        if metric == "macro_precision":
            on, off = np.where(decided > 0, 1 / decided, 0.0), np.zeros_like(decided)
        elif metric == "macro_recall":
            on, off = (1 - right / actual) / actual, -right / actual**2
        else:
            f1, both = 2 * right / (decided + actual), decided + actual
            on, off = (2 - f1) / both, -f1 / both
        return np.asarray((yes * on**2 + no * off**2).sum(axis=0) / len(classes) ** 2)


def _is_ranked(table: Table) -> Flags:
    rarer = np.minimum(table.positives.sum(axis=1), table.negatives.sum(axis=1))
    return np.asarray(rarer >= MIN_RARER)


def _variance(
    tables: Mapping[str, Table],
    rows: Mapping[str, Floats],
    counts: Mapping[str, Scored],
    metric: str,
) -> Floats:
    """Variance of the realized value if the classes' actuals were independent.

    Of the Brier score the slopes ``1 - 2 score`` are moved to have mean 0 over the classes, which
    changes nothing, since a row has one actual, and multiplied by k / (k - 1): exact for two
    classes, and for equal chances of k.
    """
    if metric in _OF_DECISIONS:
        return _decision_variance(tables, rows, metric)
    parts, known = [], []
    k = len(tables)
    for name, table in tables.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.where(rows[name] > 0, table.positives * table.negatives / rows[name], 0)
            found = sampling_variances(table, spread, None, counts[name].middles)
            total, middles = rows[name].sum(axis=1), counts[name].middles
            if metric == "log_loss":
                parts.append(spread @ np.log(middles) ** 2 / total**2)
            elif metric == "brier":
                parts.append(spread @ (2 / k - 2 * middles) ** 2 / total**2 * k / (k - 1))
            else:
                parts.append(found[{"accuracy": "actual_rate", "macro_roc_auc": "roc_auc"}.get(
                    metric, metric)])  # fmt: skip
        known.append(_is_ranked(table))
    if metric != "macro_roc_auc":
        return np.asarray(np.sum(parts, axis=0))
    used = np.array(known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(used, parts, 0).sum(axis=0) / used.sum(axis=0) ** 2)


def _learning(
    rows: Mapping[str, Floats],
    counts: Mapping[str, Scored],
    curves: Mapping[str, Curves],
    names: Sequence[str],
) -> dict[str, Floats]:
    """Variance from the baseline's chance: the same windows are left out of every class."""
    some = curves[next(iter(counts))]
    replicated = []
    for i in range(len(some.replicates)):
        one = {n: curves[n].replicates[min(i, len(curves[n].replicates) - 1)] for n in counts}
        replicated.append(_combined(_expected(rows, counts, one), counts))
    return {m: some.variance(np.array([found[m] for found in replicated])) for m in names}


def _hold_out(base: Mapping[str, Scored], half: Mapping[str, Scored]) -> dict[str, HeldOut]:
    """Return how far truth and estimate are apart in the baseline's windows."""
    tables = {
        name: crossed(whole, half[name], less(whole, half[name]))[0] for name, whole in base.items()
    }
    found = {}
    for scores, _ in group_scores(base):
        expected = {name: tables[name] for name in scores}
        rows = {name: _rows(base[name], True) for name in scores}
        guess = _combined(expected, base)
        truth = _combined({name: realized(base[name]) for name in scores}, base)
        n, cells = rows[scores[0]].sum(axis=1), base[scores[0]].cells
        for metric, value in guess.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                variance = _variance(expected, rows, base, metric)
            found[metric] = hold_out(cells, value - truth[metric], variance, n, n >= MIN_ROWS)
    return found


def _why(value: Floats, size: Floats, is_residual: bool, reason: str) -> NDArray[np.str_]:
    if reason:
        return np.full(len(value), reason)
    return np.select(
        [size <= 0, size < MIN_ROWS, np.isnan(value)],
        ["no_actuals" if is_residual else "no_rows", "few_rows", "few_of_rarer_class"],
        "",
    )
