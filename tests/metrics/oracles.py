"""What every metric must be, from a window's rows: scikit-learn, scipy, or the formula itself.

An oracle returns the value, `Within` for what bins can hide, or the documented reason for none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sk

EXACT = 1e-9  # relative, and of the unit of the data
CLASSES = ("a", "b b", "c")
COSTS = {"tp": -10.0, "fp": 2.0, "fn": 30.0, "tn": 0.0}
TOP_SHARE, TOP_K, QUANTILE = 0.1, 2, 0.8
MAX_WEIGHT = 4.0
_BINS, _SPAN = 1024, 14.0
HUGE = 1e35  # what larger errors, actuals and relevances count as
Floats = NDArray[np.float64]


class Within(NamedTuple):
    """The exact value, and how far bins may be from it."""

    value: float
    bound: float


Expected = float | Within | str
Oracle = Callable[[pd.DataFrame], Expected]


def score_bin(score: Floats) -> NDArray[np.int64]:
    """Find the bin of every score among the edges, in logit space."""
    edges = 1 / (1 + np.exp(-np.linspace(-_SPAN, _SPAN, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, score, side="right")


def midpoint(score: Floats) -> Floats:
    """Return the typical score of every score's bin."""
    step = 2 * _SPAN / _BINS
    return 1 / (1 + np.exp(-(-_SPAN + step * (score_bin(score) + 0.5))))


def labelled(rows: pd.DataFrame, role: str) -> tuple[Floats, Floats]:
    """Return an output and the actual of the rows that have both."""
    known = rows[rows[role].notna() & rows["actual"].notna()]
    return tuple(known[name].infer_objects().to_numpy() for name in (role, "actual"))


def scarce(is_positive: NDArray[np.bool_]) -> str:
    """Say why an area has no value, or nothing."""
    rarer = min(is_positive.sum(), (~is_positive).sum())
    if not len(is_positive):
        return "no_actuals"
    return "single_class" if not rarer else "few_of_rarer_class" if rarer < 10 else ""


def area(score: Floats, is_positive: NDArray[np.bool_]) -> Within:
    """ROC AUC; half of the pairs that share a bin is the bound."""
    place = score_bin(score.astype(float))
    pos, neg = (np.bincount(place[side], minlength=_BINS) for side in (is_positive, ~is_positive))
    bound = float(0.5 * (pos * neg).sum() / (pos.sum() * neg.sum()))
    return Within(float(sk.roc_auc_score(is_positive, score)), bound)


def roc_auc(rows: pd.DataFrame) -> Expected:
    score, actual = labelled(rows, "score")
    return scarce(actual == 1) or area(score.astype(float), actual == 1)


def pr_auc(rows: pd.DataFrame) -> Expected:
    score, actual = labelled(rows, "score")
    if why := scarce(actual == 1):
        return why
    place = score_bin(score.astype(float))
    best, worst = (sk.average_precision_score(actual, place + s * actual) for s in (0.5, -0.5))
    return Within(float(sk.average_precision_score(actual, score)), float(best - worst))


def ks_separation(rows: pd.DataFrame) -> Expected:
    score, actual = labelled(rows, "score")
    if why := scarce(actual == 1):
        return why
    place = score_bin(score.astype(float))
    bound = max(np.bincount(place[actual == k]).max() / (actual == k).sum() for k in (0, 1))
    found = stats.ks_2samp(score[actual == 1], score[actual == 0], method="asymp")
    return Within(float(found.statistic), float(bound))


def lift(rows: pd.DataFrame) -> Expected:
    """Positives among the best tenth; of rows tied at the cut the fraction that is needed."""
    score, actual = labelled(rows, "score")
    if not len(actual) or not actual.any() or len(actual) < 50:
        return "no_actuals" if not len(actual) else (
            "few_rows" if actual.any() else "no_actual_positives")  # fmt: skip
    wanted = TOP_SHARE * len(actual)

    def found(values: Floats) -> tuple[float, float]:
        cut = -np.sort(-values)[math.ceil(wanted) - 1]
        above, tied = values > cut, values == cut
        part = (wanted - above.sum()) / tied.sum()
        return actual[above].sum() + part * actual[tied].sum(), actual[tied].sum()

    scale = TOP_SHARE * actual.sum()
    exact, (_, doubtful) = found(score.astype(float))[0], found(score_bin(score.astype(float)))
    return Within(float(exact / scale), float(doubtful / scale))


def calibration_error(rows: pd.DataFrame) -> Expected:
    """Closed form over the rows' bins: gap per group of equal mass, less what noise makes it."""
    score, actual = labelled(rows, "score")
    if len(actual) < 50:
        return "few_rows" if len(actual) else "no_actuals"
    middles, n = midpoint(score.astype(float)), len(actual)
    _, which, sizes = np.unique(middles, return_inverse=True, return_counts=True)
    group = np.minimum((np.cumsum(sizes) - sizes / 2) / n * 10, 9).astype(int)[which]
    total = bias = 0.0
    for k in range(10):
        mine = group == k
        gap = middles[mine].sum() - actual[mine].sum()
        noise = np.sqrt((middles[mine] * (1 - middles[mine])).sum())
        total += abs(gap) / n
        if noise > 0:
            # A gap of z noises hides sqrt(3 / pi) exp(-z^2 / 4) noises of it.
            bias += noise * np.sqrt(3 / np.pi) * np.exp(-((gap / noise) ** 2) / 4) / n
    return float(max(total - bias, 0))


def calibration_gap(rows: pd.DataFrame) -> Expected:
    score, actual = labelled(rows, "score")
    return float((score.astype(float) - actual).mean()) if len(actual) else "no_actuals"


def probability_loss(loss: Callable[[Floats], Floats]) -> Oracle:
    """Return the mean of a loss of the probability that the actual was given."""

    def oracle(rows: pd.DataFrame) -> Expected:
        score, actual = labelled(rows, "score")
        right = np.where(actual == 1, score, 1 - score)
        return float(loss(right.astype(float)).mean()) if len(right) else "no_actuals"

    return oracle


def table(rows: pd.DataFrame) -> tuple[int, int, int, int]:
    """Return tn, fp, fn, tp."""
    predicted, actual = labelled(rows, "prediction")
    return tuple(int(((predicted == p) & (actual == a)).sum()) for a in (0, 1) for p in (0, 1))


def share(of: Callable[..., tuple[float, float]], empty: str) -> Oracle:
    """Return a share of the table of decisions."""

    def oracle(rows: pd.DataFrame) -> Expected:
        counts = table(rows)
        over, under = of(*counts)
        if not sum(counts):
            return "no_actuals"
        return over / under if under else empty

    return oracle


def decided(score: Callable[[Any, Any], float]) -> Oracle:
    """Return a metric of scikit-learn, of actuals and decisions."""

    def oracle(rows: pd.DataFrame) -> Expected:
        predicted, actual = labelled(rows, "prediction")
        return float(score(actual, predicted)) if len(actual) else "no_actuals"

    return oracle


def balanced(actual: Any, predicted: Any) -> float:
    """Mean recall of the classes that occur, which scikit-learn warns of if others are decided."""
    return float(np.mean([(predicted[actual == k] == k).mean() for k in np.unique(actual)]))


def expected_value(rows: pd.DataFrame) -> Expected:
    counts = dict(zip(("tn", "fp", "fn", "tp"), table(rows), strict=True))
    n = sum(counts.values())
    return -sum(COSTS[k] * v for k, v in counts.items()) / n if n else "no_actuals"


def of_outcome(column: str, worked: Callable[[Floats], Expected]) -> Oracle:
    """Return what is worked out of the outcomes that are known, cut as documented."""

    def oracle(rows: pd.DataFrame) -> Expected:
        known = [float(value) for value in rows[column] if value is not None]
        return worked(np.clip(known, -HUGE, HUGE)) if known else "no_outcomes"

    return oracle


def _quantile(q: float, values: Floats) -> Expected:
    if len(values) < round(1 / (1 - q)):
        return "few_rows"
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    return Within(exact, 0.01 * abs(exact) + 1e-3)


def _top_share(values: Floats) -> Expected:
    sizes = np.sort(np.abs(values))[::-1]
    return Within(float(sizes[: math.ceil(0.01 * len(sizes))].sum() / sizes.sum()), 0.02)


OUTCOMES: dict[str, Oracle] = {
    f"{how}_{name}": of_outcome(column, worked)
    for name, column in (("outcome", "outcome"), ("cost", "outlay"))
    for how, worked in (
        ("mean", lambda values: float(np.mean(values))),
        ("total", lambda values: math.fsum(values)),
        ("median", partial(_quantile, 0.5)),
        ("p95", partial(_quantile, 0.95)),
    )
} | {
    "outcome_top_share": of_outcome("outcome", _top_share),
    "outcome_coverage": lambda rows: float(rows["outcome"].notna().mean()),
}


def rate_of(role: str, *, of_actuals: bool) -> Oracle:
    """Return the share of ones among an output's rows."""

    def oracle(rows: pd.DataFrame) -> Expected:
        if of_actuals:
            _, values = labelled(rows, role)
            return float(values.mean()) if len(values) else "no_actuals"
        known = rows[role].dropna()
        return float(known.mean()) if len(known) else "no_rows"

    return oracle


BINARY: dict[str, Oracle] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "ks_separation": ks_separation,
    "lift": lift,
    "calibration_error": calibration_error,
    "calibration_gap": calibration_gap,
    "brier": probability_loss(lambda right: (1 - right) ** 2),
    "log_loss": probability_loss(lambda right: -np.log(np.maximum(right, 1e-15))),
    "actual_rate": rate_of("score", of_actuals=True),
    "predicted_rate": rate_of("prediction", of_actuals=False),
    "precision": share(lambda tn, fp, fn, tp: (tp, tp + fp), "no_predicted_positives"),
    "recall": share(lambda tn, fp, fn, tp: (tp, tp + fn), "no_actual_positives"),
    "specificity": share(lambda tn, fp, fn, tp: (tn, tn + fp), "no_actual_negatives"),
    "f1": share(lambda tn, fp, fn, tp: (2 * tp, 2 * tp + fp + fn), "no_positives"),
    "accuracy": decided(sk.accuracy_score),
    "balanced_accuracy": decided(balanced),
    "mcc": decided(lambda a, p: 0.0 if len(set(a)) < 2 else sk.matthews_corrcoef(a, p)),
    "expected_value": expected_value,
}
