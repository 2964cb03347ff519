"""Oracles of multiclass, regression and ranking metrics, from a window's rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from mlmon_dagster.spec.tasks import BETWEEN, NO_LABELS
from tests.metrics.oracles import (
    CLASSES,
    HUGE,
    MAX_WEIGHT,
    QUANTILE,
    TOP_K,
    Expected,
    Floats,
    Oracle,
    Within,
    area,
    labelled,
    scarce,
)

SCORES = [f"score:{name.replace(' ', '%20')}" for name in CLASSES]


def _named(rows: pd.DataFrame) -> tuple[Any, Any]:
    """Return decisions and actuals; what is no class is one more, two such that differ are two."""
    predicted, actual = labelled(rows, "prediction")
    known = [np.isin(names.astype(str), CLASSES) for names in (predicted, actual)]
    differ = ~known[0] & ~known[1] & (predicted != actual)
    return (
        np.where(known[0], predicted, "?").astype(str),
        np.where(known[1], actual, np.where(differ, "??", "?")).astype(str),
    )


def of_decisions(metric: Callable[[Any, Any], float]) -> Oracle:
    def oracle(rows: pd.DataFrame) -> Expected:
        predicted, actual = _named(rows)
        return float(metric(actual, predicted)) if len(actual) else "no_actuals"

    return oracle


def averaged(which: int, average: str) -> Oracle:
    def metric(actual: Any, predicted: Any) -> float:
        found = sk.precision_recall_fscore_support(
            actual, predicted, average=average, zero_division=0
        )
        return float(found[which])

    return of_decisions(metric)


def _mcc(actual: Any, predicted: Any) -> float:
    return sk.matthews_corrcoef(actual, predicted) if len(set(actual)) > 1 else 0.0


def _balanced(actual: Any, predicted: Any) -> float:
    return float(np.mean([(predicted[actual == k] == k).mean() for k in np.unique(actual)]))


def _scored(rows: pd.DataFrame) -> tuple[Floats, Any, Floats]:
    """Return scores, actuals and the actual's probability, where all scores are known."""
    known = rows[rows["actual"].notna() & rows[SCORES].notna().all(axis=1)]
    scores, actual = known[SCORES].to_numpy(float), known["actual"].to_numpy()
    given = (scores * (actual[:, None] == np.array(CLASSES))).sum(axis=1)
    return scores, actual, given


def of_scores(loss: Callable[[Floats, Any, Floats], Floats]) -> Oracle:
    def oracle(rows: pd.DataFrame) -> Expected:
        found = _scored(rows)
        return float(loss(*found).mean()) if len(found[1]) else "no_actuals"

    return oracle


def _top_k(scores: Floats, actual: Any, given: Floats) -> Floats:
    above = (scores > given[:, None]).sum(axis=1)
    return ((above < TOP_K) & np.isin(actual.astype(str), CLASSES)).astype(float)


def class_gap(rows: pd.DataFrame) -> Expected:
    """The gap of the class whose mean score is furthest from its share."""
    gaps = []
    for name, column in zip(CLASSES, SCORES, strict=True):
        score, actual = labelled(rows, column)
        gaps.append((score.astype(float) - (actual == name)).mean() if len(actual) else np.nan)
    if np.isnan(gaps).all():
        return "no_actuals"
    return float(gaps[int(np.argmax(np.abs(np.nan_to_num(gaps))))])


def mean_area(weighted: bool) -> Oracle:
    def oracle(rows: pd.DataFrame) -> Expected:
        found, weights, labels = [], [], 0
        for name, column in zip(CLASSES, SCORES, strict=True):
            score, actual = labelled(rows, column)
            labels = max(labels, len(actual))
            if not scarce(actual == name):
                found.append(area(score.astype(float), actual == name))
                weights.append((actual == name).sum() if weighted else 1)
        if not found:
            return "few_of_rarer_class" if labels else "no_actuals"
        value, bound = np.average(np.array(found), axis=0, weights=weights)
        return Within(float(value), float(bound))

    return oracle


MULTICLASS: dict[str, Oracle] = {
    "accuracy": of_decisions(sk.accuracy_score),
    "balanced_accuracy": of_decisions(_balanced),
    "mcc": of_decisions(_mcc),
    "calibration_gap": class_gap,
    "brier": of_scores(lambda s, a, g: (s**2).sum(axis=1) - 2 * g + 1),
    "log_loss": of_scores(lambda s, a, g: -np.log(np.maximum(g, 1e-15))),
    "top_k_accuracy": of_scores(_top_k),
    "macro_roc_auc": mean_area(False),
    "weighted_roc_auc": mean_area(True),
    "unseen_class_rate": of_decisions(lambda a, p: float(np.mean([x[0] == "?" for x in a]))),
    **{
        f"{average}_{name}": averaged(i, average)
        for average in ("macro", "micro", "weighted")
        for i, name in enumerate(("precision", "recall", "f1"))
    },
}


def _pairs(rows: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return prediction, actual and error of the rows that have finite ones."""
    values = rows[["prediction", "actual"]].to_numpy(float)
    values = values[np.isfinite(values).all(axis=1)]
    with np.errstate(over="ignore"):
        error = np.clip(values[:, 0] - values[:, 1], -HUGE, HUGE)
    return values[:, 0], values[:, 1], error


def of_errors(metric: Callable[[Floats, Floats], Expected]) -> Oracle:
    """Return a metric of errors and actuals, clipped as documented."""

    def oracle(rows: pd.DataFrame) -> Expected:
        _, actual, error = _pairs(rows)
        return metric(error, np.clip(actual, -HUGE, HUGE)) if len(error) else "no_actuals"

    return oracle


def _percentage(rows: pd.DataFrame) -> Expected:
    prediction, actual, _ = _pairs(rows)
    kept = actual / 2 != 0
    if not kept.any():
        return "zero_actuals" if len(actual) else "no_actuals"
    gaps = np.abs(prediction[kept] / 2 - actual[kept] / 2)
    return float(np.minimum(gaps / np.abs(actual[kept] / 2), HUGE).mean())


def _symmetric(rows: pd.DataFrame) -> Expected:
    prediction, actual, _ = _pairs(rows)
    half = np.abs(prediction / 2) + np.abs(actual / 2)
    shares = np.abs(prediction / 2 - actual / 2) / np.where(half > 0, half, 1)
    return float(2 * shares.mean()) if len(actual) else "no_actuals"


def _bias(error: Floats, actual: Floats) -> Expected:
    size = np.abs(error).mean()
    return float(np.clip(error.mean() / size, -1, 1)) if size > 1e-300 else 0.0


def _wape(error: Floats, actual: Floats) -> Expected:
    size = np.abs(actual).sum()
    return float(np.abs(error).sum() / size) if size > 1e-300 else "zero_actuals"


def _r2(error: Floats, actual: Floats) -> Expected:
    if len(error) < 10:
        return "few_rows"
    if np.ptp(actual) <= 1e-6 * np.abs(actual).max():
        return "constant_actuals"
    scale = np.abs(actual).max()
    spread = (actual - actual.mean()) / scale
    return float(1 - ((error / scale) ** 2).sum() / (spread**2).sum())


def _size_quantile(level: float) -> Oracle:
    """Within 1 % of the row's own absolute error."""

    def metric(error: Floats, actual: Floats) -> Expected:
        exact = float(np.quantile(np.abs(error), level, method="inverted_cdf"))
        return Within(exact, 0.0101 * exact)

    return of_errors(metric)


def _quantile_loss(error: Floats, actual: Floats) -> Expected:
    return float(np.maximum(-QUANTILE * error, (1 - QUANTILE) * error).mean())


REGRESSION: dict[str, Oracle] = {
    "me": of_errors(lambda e, a: float(e.mean())),
    "bias": of_errors(_bias),
    "mae": of_errors(lambda e, a: float(np.abs(e).mean())),
    "rmse": of_errors(lambda e, a: float(np.sqrt((e**2).mean()))),
    "mape": _percentage,
    "smape": _symmetric,
    "wape": of_errors(_wape),
    "median_absolute_error": _size_quantile(0.5),
    "p90_absolute_error": _size_quantile(0.9),
    "quantile_loss": of_errors(_quantile_loss),
    "r2": of_errors(_r2),
}


def by_group(value: Callable[[Floats, int], float]) -> Oracle:
    """Return the mean over the groups with an actual; relevances in order of rank."""

    def oracle(rows: pd.DataFrame) -> Expected:
        found = []
        for _, group in rows[rows["group"].notna()].groupby("group"):
            actual = group["actual"].to_numpy(float)
            if not np.isfinite(actual).any():
                continue
            order = np.argsort(group["rank"].to_numpy(float), kind="stable")
            gain = np.clip(np.where(np.isfinite(actual), actual, 0), 0, HUGE)[order]
            found.append(value(gain, TOP_K) if (gain > 0).any() else 0.0)
        return float(np.mean(found)) if found else "no_actuals"

    return oracle


def _ndcg(gain: Floats, k: int) -> float:
    discount = 1 / np.log2(np.arange(2, len(gain) + 2))
    return float((gain * discount)[:k].sum() / (-np.sort(-gain) * discount)[:k].sum())


def _average_precision(gain: Floats, k: int) -> float:
    hits = gain > 0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits)[:k].sum() / min(k, hits.sum()))


def weighted(value: Callable[[Any, int], Floats] | None) -> Oracle:
    """Return a mean over the relevant rows, by 1 / the chance that they were examined.

    Args:
        value: Of places from 1, and k; None for precision, a mean over groups.
    """

    def oracle(rows: pd.DataFrame) -> Expected:
        parts, wholes, precisions = [], [], []
        for _, group in rows[rows["group"].notna()].groupby("group"):
            group = group.sort_values("rank", kind="stable")
            actual, seen = (group[name].to_numpy(float) for name in ("actual", "examined"))
            weight = np.where(seen > 0, 1 / np.maximum(seen, 1 / MAX_WEIGHT), np.nan)
            if not (np.isfinite(actual) & np.isfinite(weight)).any():
                continue
            place = np.arange(1, len(group) + 1)
            relevant = np.where(np.nan_to_num(actual, posinf=0, neginf=0) > 0, weight, 0.0)
            relevant = np.nan_to_num(relevant)
            n_seen = np.isfinite(weight[:TOP_K]).sum()
            precisions.append(relevant[:TOP_K].sum() / n_seen if n_seen else np.nan)
            parts.append((relevant * value(place, TOP_K)).sum() if value else 0.0)
            wholes.append(relevant.sum())
        if not wholes:
            return "no_actuals"
        if value is None:
            return float(np.nanmean(precisions))
        if not sum(wholes) or sum(wholes) ** 2 / np.square(wholes).sum() < 10:
            return "few_rows"
        return float(sum(parts) / sum(wholes))

    return oracle


RANKING: dict[str, Oracle] = {
    "precision_at_k": by_group(lambda gain, k: float((gain[:k] > 0).mean())),
    "recall_at_k": by_group(lambda gain, k: float((gain[:k] > 0).sum() / (gain > 0).sum())),
    "ipw_precision_at_k": weighted(None),
    "ipw_recall_at_k": weighted(lambda place, k: (place <= k) * 1.0),
    "ipw_mrr": weighted(lambda place, k: 1 / place),
    "ipw_dcg": weighted(lambda place, k: (place <= k) / np.log2(place + 1)),
    "ndcg": by_group(_ndcg),
    "mrr": by_group(lambda gain, k: 1 / (int(np.argmax(gain > 0)) + 1)),
    "map": by_group(_average_precision),
    "hit_rate": by_group(lambda gain, k: float((gain[:k] > 0).any())),
}


def _label_sets(rows: pd.DataFrame) -> tuple[list[set[str]], list[set[str]]]:
    predicted, actual = labelled(rows, "prediction")
    return tuple([{*text.split(BETWEEN)} - {NO_LABELS} for text in side]
                 for side in (predicted, actual))  # fmt: skip


def of_labels(metric: Callable[[list[set[str]], list[set[str]]], float]) -> Oracle:
    def oracle(rows: pd.DataFrame) -> Expected:
        predicted, actual = _label_sets(rows)
        return float(metric(predicted, actual)) if actual else "no_actuals"

    return oracle


def counted(predicted: list[set[str]], actual: list[set[str]]) -> list[tuple[int, int, int]]:
    """Return the labels of each row on either side, and in both; only classes can be right."""
    pairs = zip(predicted, actual, strict=True)
    return [(len(p), len(a), len(p & a & {*CLASSES})) for p, a in pairs]


def micro(which: int) -> Oracle:
    """Return an average from sums over rows; what is no class of the model is never right."""

    def oracle(rows: pd.DataFrame) -> Expected:
        predicted, actual = _label_sets(rows)
        if not actual:
            return "no_actuals"
        n = np.array(counted(predicted, actual), float).T
        right, of = n[2].sum(), (n[0], n[1], (n[0] + n[1]) / 2)[which]
        is_few = not of.sum() or of.sum() ** 2 / (of**2).sum() < 10
        return "few_rows" if is_few else right / float(of.sum())

    return oracle


def over_labels(which: int) -> Oracle:
    def oracle(rows: pd.DataFrame) -> Expected:
        predicted, actual = _label_sets(rows)
        if not actual:
            return "no_actuals"
        tables = [np.array([[label in one for label in CLASSES] for one in side])
                  for side in (actual, predicted)]  # fmt: skip
        occurs = (tables[0] | tables[1]).any(axis=0)
        if not occurs.any():
            return "no_positives"
        each = sk.precision_recall_fscore_support(*tables, average=None, zero_division=0)
        return float(np.mean(each[which][occurs]))

    return oracle


MULTILABEL: dict[str, Oracle] = {
    "micro_precision": micro(0),
    "micro_recall": micro(1),
    "micro_f1": micro(2),
    "macro_precision": over_labels(0),
    "macro_recall": over_labels(1),
    "macro_f1": over_labels(2),
    "subset_accuracy": of_labels(
        lambda predicted, actual: np.mean([p == a for p, a in zip(predicted, actual, strict=True)])
    ),
    "hamming_loss": of_labels(lambda *sides: np.mean(
        [min((p + a - 2 * right) / len(CLASSES), 1) for p, a, right in counted(*sides)])),
    "jaccard": of_labels(lambda *sides: np.mean(
        [right / (p + a - right) if p + a else 1.0 for p, a, right in counted(*sides)])),
    "unseen_class_rate": of_labels(
        lambda _, actual: np.mean([bool(one - {*CLASSES}) for one in actual])
    ),
}  # fmt: skip
