"""Every metric of performance and of business: name, tasks, formula, direction, unit and range.

The one table that the spec's checks, the monitors, the reports and docs/metrics.md go by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mlmon_dagster.spec.names import BUSINESS, PERFORMANCE

Better = Literal["higher", "lower", "neither"]
MetricFamily = Literal["performance", "business"]
PERSONAL_RATE: Final = "personal_rate"  # of texts that hold what identifies people
AUTO: Final = "_auto"  # ends the name of what is usual of a rate in the baseline's windows
NOVEL: Final = "novel_rate"  # share of rows outside the baseline's range
OFF_HEAP: Final = "psi_off_heap"  # of the rows without a value that most rows share
INF: Final = float("inf")
BINARY, MULTICLASS, MULTILABEL, REGRESSION, RANKING, GENERATION = (
    "binary_classification",
    "multiclass_classification",
    "multilabel_classification",
    "regression",
    "ranking",
    "generation",
)


@dataclass(frozen=True)
class MetricInfo:
    """One metric.

    Attributes:
        name: As it is stored and as monitors name it.
        label: As people read it.
        tasks: For which it is computed.
        formula: In one line; docs/metrics.md has conventions and degenerate cases.
        better: Which way is better; ``neither`` for what only describes the data, and for
            differences whose best value is 0.
        unit: ``1`` for shares and indices, ``nat``, ``actual`` (the unit of the actual),
            ``cost`` (the unit of the spec's costs), ``outcome`` or ``row``.
        low: Smallest value. high: Largest.
        needs: Roles of ``columns``, or keys of the spec, without which it is not computed.
        fallback: Roles that will do instead.
        family: Whose asset computes it, and under which key of ``monitors`` it is judged.
    """

    name: str
    label: str
    tasks: tuple[str, ...]
    formula: str
    better: Better
    unit: str = "1"
    low: float = 0.0
    high: float = 1.0
    needs: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()
    family: MetricFamily = PERFORMANCE


_SCORED = ("score",)
_SCORES = ("scores",)
_DECIDED = ("prediction",)
_CLASSES = (BINARY, MULTICLASS)
NAMED: Final = (MULTICLASS, MULTILABEL)  # tasks that answer with names of classes
_EVERY = (BINARY, MULTICLASS, MULTILABEL, REGRESSION)


def _binary() -> list[MetricInfo]:
    b = (BINARY,)
    return [
        MetricInfo("roc_auc", "ROC AUC", b,
                   "P(score of a positive > of a negative) + P(equal) / 2", "higher",
                   needs=_SCORED),
        MetricInfo("pr_auc", "PR AUC", b,
                   "average precision: sum of (R_i - R_i-1) P_i over descending thresholds",
                   "higher", needs=_SCORED),
        MetricInfo("ks_separation", "KS separation", b,
                   "max over thresholds of |share of positives above - of negatives above|",
                   "higher", needs=_SCORED),
        MetricInfo("lift", "Lift", b,
                   "share of positives among the top_share highest scores / share of positives",
                   "higher", high=INF, needs=_SCORED),
        MetricInfo("calibration_error", "Calibration error", b,
                   "ECE over 10 groups of equal mass, less its mean for a calibrated model",
                   "lower", needs=_SCORED),
        MetricInfo("specificity", "Specificity", b, "TN / (TN + FP)", "higher", needs=_DECIDED),
        MetricInfo("precision", "Precision", b, "TP / (TP + FP)", "higher", needs=_DECIDED),
        MetricInfo("recall", "Recall", b, "TP / (TP + FN)", "higher", needs=_DECIDED),
        MetricInfo("f1", "F1", b, "2 TP / (2 TP + FP + FN)", "higher", needs=_DECIDED),
        MetricInfo("predicted_rate", "Share predicted positive", b, "predicted positives / rows",
                   "neither", needs=_DECIDED),
        MetricInfo("actual_rate", "Share of positives", b, "actual positives / n", "neither"),
        *_fairness(),
    ]  # fmt: skip


def _fairness() -> list[MetricInfo]:
    rates = {
        "demographic_parity": "P(predicted positive)",
        "equal_opportunity": "recall",
        "predictive_parity": "precision",
    }
    found = []
    for name, rate in rates.items():
        label = name.replace("_", " ").capitalize()
        found += [
            MetricInfo(f"{name}_difference", f"{label} difference", (BINARY,),
                       f"{rate} of the group - of the reference", "neither", low=-1.0,
                       needs=("prediction", "fairness")),
            MetricInfo(f"{name}_ratio", f"{label} ratio", (BINARY,),
                       f"{rate} of the group / of the reference", "neither", high=INF,
                       needs=("prediction", "fairness")),
        ]  # fmt: skip
    return found


def _multiclass() -> list[MetricInfo]:
    m = (MULTICLASS,)
    found = []
    for average, tasks, how in (
        ("macro", NAMED, "unweighted mean over the classes that occur"),
        ("micro", NAMED, "from the sums over the classes; of one class a row equals accuracy"),
        ("weighted", m, "mean over the classes by their actual rows"),
    ):
        found += [
            MetricInfo(f"{average}_{name}", f"{average.capitalize()} {label}", tasks,
                       f"{name}: {how}", "higher", needs=_DECIDED)
            for name, label in (("precision", "precision"), ("recall", "recall"), ("f1", "F1"))
        ]  # fmt: skip
    return [
        *found,
        MetricInfo("macro_roc_auc", "Macro ROC AUC", m,
                   "one-vs-rest ROC AUC, unweighted mean over the classes", "higher",
                   needs=_SCORES),
        MetricInfo("weighted_roc_auc", "Weighted ROC AUC", m,
                   "one-vs-rest ROC AUC, mean over the classes by their actual rows", "higher",
                   needs=_SCORES),
        MetricInfo("top_k_accuracy", "Top-k accuracy", m,
                   "share of rows whose actual has fewer than top_k classes scored above it",
                   "higher", needs=_SCORES),
        MetricInfo("unseen_class_rate", "Share of unseen classes", NAMED,
                   "share of actuals that are, or name, no class of the model", "lower",
                   needs=_DECIDED),
    ]  # fmt: skip


def _multilabel() -> list[MetricInfo]:
    m = (MULTILABEL,)
    return [
        MetricInfo("subset_accuracy", "Exact matches", m,
                   "rows whose predicted labels are the actual ones / n", "higher",
                   needs=_DECIDED),
        MetricInfo("hamming_loss", "Hamming loss", m,
                   "mean of labels in one of both sets / all labels", "lower", needs=_DECIDED),
        MetricInfo("jaccard", "Jaccard index", m,
                   "mean of labels in both sets / in any of both, 1 where there are none", "higher",
                   needs=_DECIDED),
    ]  # fmt: skip


def _shared() -> list[MetricInfo]:
    return [
        MetricInfo("accuracy", "Accuracy", _CLASSES, "right decisions / n", "higher",
                   needs=_DECIDED),
        MetricInfo("balanced_accuracy", "Balanced accuracy", _CLASSES,
                   "mean recall of the classes that occur", "higher", needs=_DECIDED),
        MetricInfo("mcc", "Matthews correlation", _CLASSES,
                   "correlation of decision and actual (R_K for several classes)", "higher",
                   low=-1.0, needs=_DECIDED),
        MetricInfo("brier", "Brier score", _CLASSES,
                   "mean squared error of the probabilities (summed over several classes)",
                   "lower", high=2.0, needs=_SCORED, fallback=_SCORES),
        MetricInfo("log_loss", "Log loss", _CLASSES, "mean of -ln(probability of the actual)",
                   "lower", unit="nat", high=INF, needs=_SCORED, fallback=_SCORES),
        MetricInfo("calibration_gap", "Calibration gap", _CLASSES,
                   "mean score - share that came true (of several classes: the furthest off)",
                   "neither", low=-1.0, needs=_SCORED, fallback=_SCORES),
    ]  # fmt: skip


def _regression() -> list[MetricInfo]:
    r, needs = (REGRESSION,), _DECIDED

    def metric(
        name: str, label: str, formula: str, unit: str = "actual", high: float = INF
    ) -> MetricInfo:
        return MetricInfo(name, label, r, formula, "lower", unit, 0.0, high, needs)

    return [
        MetricInfo("me", "Mean error", r, "mean of prediction - actual", "neither", "actual",
                   -INF, INF, needs),
        MetricInfo("bias", "Bias", r, "mean error / mean absolute error", "neither", "1",
                   -1.0, 1.0, needs),
        metric("mae", "Mean absolute error", "mean of |prediction - actual|"),
        metric("rmse", "Root mean squared error", "sqrt of mean of (prediction - actual)^2"),
        metric("mape", "MAPE", "mean of |prediction - actual| / |actual| where actual is not 0",
               "1"),
        metric("smape", "sMAPE",
               "mean of 2 |prediction - actual| / (|prediction| + |actual|), 0 where both are 0",
               "1", 2.0),
        metric("wape", "WAPE", "sum of |prediction - actual| / sum of |actual|", "1"),
        metric("median_absolute_error", "Median absolute error",
               "median of |prediction - actual|, from bins"),
        metric("p90_absolute_error", "90th percentile of the absolute error",
               "90 % quantile of |prediction - actual|, from bins"),
        metric("quantile_loss", "Quantile loss",
               "mean of max(q (actual - prediction), (q - 1) (actual - prediction))"),
        MetricInfo("r2", "R squared", r, "1 - sum of squared errors / sum of (actual - mean)^2",
                   "higher", "1", -INF, 1.0, needs),
        metric("residual_drift", "Drift of the errors",
               "PSI of actual - prediction against the baseline's, less its mean without change",
               "1"),
    ]  # fmt: skip


def _ranking() -> list[MetricInfo]:
    def metric(name: str, label: str, formula: str, *needs: str, high: float = 1.0) -> MetricInfo:
        return MetricInfo(
            name, label, (RANKING,), formula, "higher", high=high, needs=("group", *needs)
        )

    return [
        metric("ndcg", "NDCG", "mean over groups of DCG / ideal DCG of the first top_k ranks"),
        metric("mrr", "MRR", "mean over groups of 1 / rank of the first relevant row"),
        metric("map", "MAP", "mean over groups of the average precision of the first top_k ranks"),
        metric("hit_rate", "Hit rate", "share of groups with a relevant row in the first top_k"),
        metric("precision_at_k", "Precision at k",
               "mean over groups of the share of the first top_k rows that are relevant"),
        metric("recall_at_k", "Recall at k",
               "mean over groups of the share of the relevant rows in the first top_k ranks"),
        metric("ipw_precision_at_k", "Weighted precision at k",
               "mean over groups of sum of w over the relevant rows / seen rows, first top_k",
               "examined", high=INF),
        metric("ipw_recall_at_k", "Weighted recall at k",
               "sum of w over relevant rows in the first top_k / over all", "examined"),
        metric("ipw_mrr", "Weighted reciprocal rank",
               "mean of 1 / rank over the relevant rows, weighted by w", "examined"),
        metric("ipw_dcg", "Weighted DCG",
               "mean of the discount over the relevant rows (0 beyond top_k), weighted by w",
               "examined"),
    ]  # fmt: skip


def _generation() -> list[MetricInfo]:
    g, judged = (GENERATION,), ("judges",)
    return [
        MetricInfo("good_rate", "Good share", g,
                   "share of the evaluations that are good; of all calls where a judge stands in",
                   "higher", needs=("evaluations",)),
        MetricInfo("mean_value", "Mean", g, "mean of the numbers of an evaluation", "higher",
                   low=-INF, high=INF, needs=("numbers",)),
        MetricInfo("evaluated_rate", "Share evaluated", g, "calls with the evaluation / calls",
                   "neither", needs=("evaluations",), fallback=("numbers",)),
        MetricInfo("failed_rate", "Share of failed evaluations", g,
                   "evaluations that failed themselves / those asked for", "lower",
                   needs=("evaluations",), fallback=("numbers",)),
        MetricInfo("judge_agreement", "Agreement with people", g,
                   "judged calls about which judge and people agree / judged calls", "higher",
                   needs=judged),
        MetricInfo("false_pass_rate", "False passes", g,
                   "P(the judge says good | people say bad)", "lower", needs=judged),
        MetricInfo("false_fail_rate", "False failures", g,
                   "P(the judge says bad | people say good)", "lower", needs=judged),
    ]  # fmt: skip


def _of_outcomes(name: str, label: str, better: Better) -> list[MetricInfo]:
    """Return the metrics of outcomes of which more is better, or less."""
    every, needs = (*_EVERY, RANKING), (f"outcomes_{better}",)

    def metric(how: str, called: str, formula: str) -> MetricInfo:
        return MetricInfo(
            f"{how}_{name}",
            f"{called} {label}",
            every,
            formula,
            better,
            "outcome",
            -INF,
            INF,
            needs,
            family=BUSINESS,
        )

    return [
        metric("mean", "Mean", "mean of the outcomes that are known; of a rate their share"),
        metric("total", "Total", "sum of the outcomes that are known; of a rate their number"),
        metric("median", "Median", "50 % quantile of the known outcomes, from bins"),
        metric("p95", "95th percentile of the", "95 % quantile of the known outcomes, from bins"),
    ]  # fmt: skip


def _business() -> list[MetricInfo]:
    return [
        *_of_outcomes("outcome", "outcome", "higher"),
        *_of_outcomes("cost", "cost", "lower"),
        MetricInfo("outcome_top_share", "Share of the largest hundredth", (*_EVERY, RANKING),
                   "share of the sum of |outcome| that the largest 1 % of the rows hold, from bins",
                   "neither", needs=("outcomes",), family=BUSINESS),
        MetricInfo("outcome_coverage", "Share of known outcomes", (*_EVERY, RANKING),
                   "rows whose outcome is known / all rows", "neither", needs=("outcomes",),
                   family=BUSINESS),
        MetricInfo("expected_value", "Expected value", (BINARY,),
                   "-(tp TP + fp FP + fn FN + tn TN) / n with the spec's costs", "higher",
                   unit="cost", low=-INF, high=INF, needs=("prediction", "costs"),
                   family=BUSINESS),
    ]  # fmt: skip


METRICS: Final[dict[str, MetricInfo]] = {
    info.name: info
    for every in (
        _binary,
        _shared,
        _multiclass,
        _multilabel,
        _regression,
        _ranking,
        _generation,
        _business,
    )
    for info in every()
}


# Their intervals are long to the side of what the rows did not draw.
OUTCOME_MEANS = ("mean_outcome", "mean_cost")
MEANS_OF_VALUES = (*OUTCOME_MEANS, "good_rate", "mean_value")
# Of all rows of a window, without an interval.
COUNTED = frozenset({"total_outcome", "total_cost", "outcome_top_share"})


def of_outcome(metric: str, outcome: str | None) -> str:
    """Return the name of a metric of one outcome, such as ``mean_outcome/revenue``."""
    return f"{metric}/{outcome}" if outcome else metric


def info_of(metric: str) -> MetricInfo:
    """Return the record of a metric, maybe of one outcome.

    Raises:
        KeyError: If there is none.
    """
    return METRICS[metric.partition("/")[0]]


def is_loss(metric: str) -> bool:
    """Say whether a higher value is worse."""
    return is_higher_better(metric) is False


def is_higher_better(metric: str) -> bool | None:
    """Say whether a higher value is better; None if neither side is, or it is no metric."""
    info = METRICS.get(metric.partition("/")[0])
    return None if info is None or info.better == "neither" else info.better == "higher"
