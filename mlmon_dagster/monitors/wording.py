"""How verdicts are put into one plain sentence, with the statistics in a second line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from mlmon_dagster.monitors.change_wording import cut_value
from mlmon_dagster.spec.derived import NOVELTY
from mlmon_dagster.spec.metric_registry import METRICS, OUTCOME_MEANS, is_loss
from mlmon_dagster.spec.monitors import DISTANCES, ComparedMetric, Condition
from mlmon_dagster.spec.names import ALL, TABLE, counted, joined
from mlmon_dagster.spec.tasks import estimated, residual
from mlmon_dagster.store.state.monitor_results import MonitorResult

if TYPE_CHECKING:
    from mlmon_dagster.spec import ModelSpec

_LISTED = {"unseen": "unseen values", "quarantined": "files", "bad_reasons": "reasons"}
_SLICES = 3  # that explain one verdict
_PEOPLE = ("Brier", "Hellinger", "Jensen", "Matthews", "Prometheus", "Wasserstein")  # and products
_AT = {"window": "in", "hour": "in", "day": "on", "week": "in", "month": "in"}
BEYOND_CHANCE = (
    " beyond chance"  # ends the threshold of a distance; what chance gives is its baseline
)


def within_sentence(name: str) -> str:
    """Write a name as it stands within a sentence.

    Example:
        >>> within_sentence("Mean error"), within_sentence("ROC AUC"), within_sentence("F1")
        ('mean error', 'ROC AUC', 'F1')
    """
    is_acronym = name[1:2].isupper() or name[1:2].isdigit()
    return name if is_acronym or name.startswith(_PEOPLE) else name[0].lower() + name[1:]


_THRESHOLD = re.compile(
    rf"(above|below|beyond|drop) (-?[\d,.]+(?:e[+-]?\d+)?)(?P<beyond>{BEYOND_CHANCE})?"
)
NAMES = {
    "null_rate": "Null share",
    "nan_rate": "Share of not-a-number values",
    "unseen_rate": "Share of unseen values",
    "out_of_range_rate": "Share of values out of range",
    "personal_rate": "Share of texts with personal data",
    "error_rate": "Error rate",
    "inf_rate": "Share of infinite values",
    "n": "Number of predictions",
    "no_data_for": "Hours without predictions",
    "bad_rate": "Share of refused rows",
    "burn_rate": "Burn rate of the error budget",
    "release_change": "Performance since the release",
    "novel_rate": "Share of values outside the baseline's range",
    "psi_off_heap": "PSI without the most common value",
    "volume_drop": "Missing share of the usual volume",
    "volume_rise": "Predictions beyond the usual volume",
    "actuals_missing": "Missing share of the usual ground truth",
    "duplicate_rate": "Share of repeated rows",
    "conflict_rate": "Share of contradicting rows",
    "expectations": "Expectations that do not hold",
    "p50_latency_ms": "Median latency (ms)",
    "p95_latency_ms": "95th percentile of latency (ms)",
    "p99_latency_ms": "99th percentile of latency (ms)",
    "p50_stage_ms": "Median time (ms)",
    "p95_stage_ms": "95th percentile of time (ms)",
    "p99_stage_ms": "99th percentile of time (ms)",
    "p50_stage_calls": "Median number of calls",
    "p95_stage_calls": "95th percentile of calls",
    "stage_error_rate": "Error rate",
    "stage_timeout_rate": "Timeout rate",
    "span_coverage": "Share of requests with spans",
    "mean_cost": "Mean",
    "sum_cost": "Sum",
    "sustained_shift": "Lasting shift",
    "attribution": "Share of the attributions",
    "attribution_shift": "Change of the share of the attributions",
    "repeated_rows": "Similarity to earlier rows",
    "not_additive_rate": "Share of rows whose SHAP values do not add up to the score",
    "canary_share": "Share of the requests that the canary answered",
    "skew_rate": "Share served otherwise than computed offline",
    "version_age_days": "Days that the version has served",
    "class_rate": "Share",
    "prometheus": "Prometheus's value",
    **{
        f"{how}_{name}_gain": f"Gain of the {how} in {within_sentence(METRICS[name].label)}"
        for name in get_args(ComparedMetric)
        for how in ("shadow", "canary")
    },
    **DISTANCES,
    **{name: info.label for name, info in METRICS.items()},
    **{
        estimated(name): f"Estimated {within_sentence(info.label)}"
        for name, info in METRICS.items()
    },
    **{
        residual(name): f"Distance of the estimated {within_sentence(info.label)} from the truth"
        for name, info in METRICS.items()
    },
}
IMPACT = "impact"  # of drift, among the details of a verdict
REASONS = {
    "few_rows": "too few rows",
    "undefined": "its function says that it has no value",
    "fewer_rows_than_baseline": "it has fewer than half the rows of the baseline's smallest window",
    "few_requests": "too few requests for a budget: fewer than ten may be bad in three days",
    "no_rows": "the window has no rows",
    "holiday": "it is a holiday",
    "not_expected": "no prediction is expected then",
    "files_unread": "files that may hold its rows have landed and are not read yet",
    "files_refused": "a file that may hold its rows was refused",
    "not_computed": "it was not computed",
    "learning": "learning; there is no baseline yet to compare with",
    "no_baseline": "there is no baseline",
    "not_in_baseline": "the baseline has no value of it",
    "given_by_window": "its value follows from the time of the window alone, so it cannot drift",
    "few_independent_rows": "too many of its rows share values",
    "few_baseline_rows": "the baseline has too few rows",
    "few_baseline_rarer": "the baseline has fewer than 20 actuals of the rarer class to learn from",
    "baseline_no_actuals": "the baseline has no ground truth to learn from",
    "few_windows": "the baseline has fewer than eight windows, too few to say what is usual",
    "moving_baseline": "estimates are learnt from a fixed baseline, not from earlier windows",
    "baseline_single_class": "all actuals of the baseline are of one class",
    "no_scikit_learn": "scikit-learn is not installed; see the extra [estimate]",
    "no_pairs": "no two columns vary and are much as in the baseline, each by itself",
    "all_null": "every value is null",
    "not_ordered": "its values have no order",
    "constant_baseline": "the baseline has one value only",
    "schema": "the window broke the schema",
    "labels_still_coming": "its ground truth is still coming",
    "arrival_unknown": "how late ground truth usually comes is not known yet",
    "no_actuals": "there is no ground truth",
    "no_outcomes": "no outcome is known",
    "no_evaluations": "nobody has evaluated it",
    "no_bad": "people call nothing bad",
    "no_good": "people call nothing good",
    "other_judge": "another judge, or another version of it, gave it than in the baseline",
    "no_records": "no prediction is left in the window",
    "single_class": "all actuals are of one class",
    "few_of_rarer_class": "too few actuals are of the rarer class",
    "no_predicted_positives": "nothing was predicted positive",
    "no_actual_positives": "no actual is positive",
    "no_positives": "nothing was predicted or actually positive",
    "no_actual_negatives": "no actual is negative",
    "zero_actuals": "every actual is 0",
    "constant_actuals": "all actuals are equal",
    "unlabelled_scores": "a part of the scores has no ground truth at all",
    "no_reference": "the reference group has no rows",
    "no_latency": "no latency was logged",
    "no_status": "no status was logged",
    "not_known": "no row tells whether it is so",
    "sampled": "of its spans a tail sampler keeps the slow and the failed (spans.sampling)",
    "no_spans": "no request has spans of it",
    "no_cost": "no request has a cost; its model has no price",
    "no_series": "Prometheus has no such series at the window's end",
    "many_series": "Prometheus has several series where one number is asked for",
    "not_a_number": "Prometheus says NaN or infinity, as a division by 0 gives",
    "bad_query": "Prometheus does not understand the query",
    "refused": "Prometheus refuses us",
    "unreachable": "Prometheus gives no answer",
    "incomplete": "Prometheus warns that its answer is not whole",
    "version_not_served": "one of the two versions answered nothing in the window",
    "no_shared_predictions": "no prediction of the window is in both datasets",
    "few_shared_windows": "both versions served in fewer than eight windows so far",
    "undecided": "the interval holds both better and worse",
    "sample_ratio": "the canary did not get its share of the requests",
    "no_attributions": "no row has SHAP values of all features",
    "other_explainer": "another explainer, or another version of it, computed the SHAP values",
}


def number(value: float) -> str:
    """Write a number for people.

    Example:
        >>> [number(x) for x in (1.0, 0.2, 0.00123, 20.25, 776, 12345.6, 0.0)]
        ['1.00', '0.20', '0.0012', '20.3', '776', '12,346', '0']
    """
    return f"{value:.1f}" if 9.995 <= abs(value) < 99.95 else write_limit(value)


def write_limit(value: float) -> str:
    """Write a limit: like a number, and beyond 10 with one more digit, as it is read again.

    Example:
        >>> [write_limit(x) for x in (0.1, 20.25, 776)]
        ['0.10', '20.25', '776']
    """
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.2g}"


def impact_of(details: str | Mapping[str, object]) -> float:
    """Return how far a column drifted times what the model makes of it; 0 where not known."""
    known = json.loads(details or "{}") if isinstance(details, str) else details
    impact = known.get(IMPACT)
    return float(impact) if isinstance(impact, int | float) else 0.0


def named(metric: str) -> str:
    """Name a metric, maybe of one outcome.

    Example:
        >>> named("mean_outcome/revenue")
        'Mean outcome of revenue'
    """
    name, _, outcome = metric.partition("/")
    return NAMES.get(name, name) + (f" of {outcome}" if outcome else "")


def subject(metric: str, column: str = "", part: Mapping[str, object] | None = None) -> str:
    """Name what is judged, as the start of a sentence: metric, column and slice."""
    text, novel = NAMES.get(metric, metric), f".{NOVELTY}"
    if metric in DISTANCES and column.endswith(novel):
        text = f"Novelty of {column.removesuffix(novel)}"  # rows are counted, see `drift.unlike`
    elif column and column != TABLE:
        text += f" of {column}"
    if part is not None and part["slice_key"] != ALL:
        text += f" for {part['slice_key']} = {part['slice_value']}"
    return text


SPREAD: Final = "no slice is shown to be worse than the whole"


def explain(metric: str, column: str, found: Mapping[str, Any]) -> list[str]:
    """Return what explains a failing verdict, the most important first, without full stops.

    The sentence of the trace of its window, if there is one; then slices, unseen values, files.

    Args:
        metric: What is judged.
        column: The column that it is about.
        found: What was stored as its explanation.
    """
    lines = [str(found["why"]).rstrip(".")] if found.get("why") else []
    lines += [
        _describe_slice(item.get("metric", metric), column, item)
        for item in found.get("worst_slices", ())[:_SLICES]
    ]
    if found.get("worst_slices") == [] and not found.get("alike"):
        keys = found.get("sliced_by", ())
        lines.append(f"{SPREAD} (looked at {joined(keys)})" if keys else SPREAD)
    where = "" if column == TABLE else f" of {column}"
    named = [(label, found[key]) for key, label in _LISTED.items() if found.get(key)]
    return lines + [
        f"{label}{where} {', '.join([cut_value(str(name)) for name in v][:5])}"
        for label, v in named
    ]


def _describe_slice(metric: str, column: str, item: Mapping[str, Any]) -> str:
    """Write a slice with the metric that it is worse in, its baseline and size."""
    text = f"{subject(metric, column, item)} is {number(item['value'])}"
    extra = []
    for key, label in (("baseline_value", "baseline"), ("by_chance", "without a change")):
        if item.get(key) is not None:
            extra.append(f"{label} {number(item[key])}")
    if item.get("n") is not None:
        extra.append(f"n {item['n']:,}")
    return f"{text} ({', '.join(extra)})" if extra else text


def told(headline: str, statistics: str) -> str:
    r"""Return a verdict's text: what is so, and in a second line the statistics behind it.

    Example:
        >>> told("age is 15 years higher", "PSI of age is 0.61")
        'age is 15 years higher.\nPSI of age is 0.61.'
    """
    return "\n".join(f"{text}." for text in (headline, statistics) if text)


def headline(message: str) -> str:
    """Return the first line of a verdict's text, without its full stop."""
    return message.partition("\n")[0].rstrip(".")


def beyond_headline(message: str) -> str:
    """Return what a verdict's text says beyond its first line; empty if that is all."""
    return message.partition("\n")[2]


def no_verdict(text: str, reason: str, n: int, grain: str = "window") -> str:
    """Say why there is no verdict.

    Args:
        text: What was to be judged.
        reason: A key of `REASONS`.
        n: Rows.
        grain: What a window is called.

    Example:
        >>> no_verdict("ROC AUC", "few_windows", 40, "day")
        'No verdict on ROC AUC: the baseline has fewer than eight days, too few to say what is \
usual (n 40).'
    """
    why = REASONS.get(reason, reason).replace("window", grain)
    return f"No verdict on {within_sentence(text)}: {why} (n {n:,})."


def name_span(n: int, grain: str) -> str:
    """Name the newest windows, as a time that something holds over.

    Example:
        >>> name_span(7, "day"), name_span(1, "week")
        ('over the last 7 days', 'in this week')
    """
    return f"over the last {n} {grain}s" if n > 1 else f"{_AT[grain]} this {grain}"


def unit_of(spec: ModelSpec, metric: str, column: str = TABLE) -> str:
    """Return the unit of a metric's values as the spec declares it, with a space before it."""
    name, _, outcome = metric.partition("/")
    info = METRICS.get(name)
    declared = spec.columns.outcomes.get(outcome or column)
    units = {
        "actual": spec.actuals.unit,
        "cost": spec.currency,
        "outcome": declared.unit if declared is not None else None,
    }
    unit = units.get(info.unit) if info is not None else None
    return f" {unit}" if unit else ""


def interval_text(low: float, high: float, *, of: str = "", unit: str = "") -> str:
    """Write an interval.

    Example:
        >>> interval_text(0.61, 0.693)
        '95 % interval 0.61 to 0.69'
    """
    return f"95 % interval {of}{number(low)} to {number(high)}{unit}"


def name_fall(metric: str, limit: float) -> str:
    """Name how much worse a metric may be.

    Example:
        >>> name_fall("roc_auc", 0.05), name_fall("log_loss", 0.1)
        ('a fall of 0.05', 'a rise of 0.10')
    """
    if metric in OUTCOME_MEANS:  # either way counts for somebody
        return f"a change of {number(limit)}"
    return f"a {'rise' if is_loss(metric) else 'fall'} of {number(limit)}"


def width_text(factor: float, n: int, grain: str = "window") -> str:
    """Say that an estimate's interval is wider than the baseline alone asks for, and why.

    Example:
        >>> width_text(1.72, 60, "day")
        'The interval is 1.72 times as wide as from the baseline alone, learnt from 60 days with \
ground truth'
    """
    return (
        f"The interval is {factor:.3g} times as wide as from the baseline alone, learnt from "
        f"{counted(n, grain)} with ground truth"
    )


def weighted_text(method: str, coverage: float | None) -> str:
    """Say that a value is of all predictions though labels are of some; else empty.

    Args:
        method: Method version of the metric.
        coverage: Share of the predictions that have ground truth; None where not known.

    Example:
        >>> weighted_text("post-stratified-2", 0.1)
        'Ground truth covers 10 % of the predictions; the value is weighted back to all of them'
    """
    from mlmon_dagster.metrics.late_truth.rectified import METHOD

    if not method.startswith(METHOD):
        return ""
    share = "a part" if coverage is None else f"{100 * coverage:.2g} %"
    if method == f"{METHOD}@judge":
        return (
            f"People labelled {share} of the calls; the share is of all, by what the judge says of "
            "the others"
        )
    return (
        f"Ground truth covers {share} of the predictions; the value is weighted back to all of them"
    )


def compared(
    condition: Condition, failed: bool, write: Callable[[float], str] = write_limit
) -> str:
    """Write 'above 0.20' or 'not above 0.20', or 'above 20 %' where that is how it is written."""
    return ("" if failed else "not ") + threshold(condition, write)


def threshold(condition: Condition, write: Callable[[float], str] = write_limit) -> str:
    """Write a condition as text."""
    side = "above" if condition.above is not None else "below"
    return f"{side} {write(condition.bound)}"


def as_judged(result: MonitorResult) -> MonitorResult:
    """Return a result with its numbers beyond chance if those are judged, else as it is.

    Windows of few rows are far from everything; what they are beyond that compares with others.
    """
    if not result["threshold"].endswith(BEYOND_CHANCE) or result["baseline_value"] is None:
        return result
    chance = result["baseline_value"]
    value, lower, upper = (
        None if end is None else end - chance
        for end in (result["value"], result["lower"], result["upper"])
    )
    threshold = result["threshold"].removesuffix(BEYOND_CHANCE)
    judged = {"value": value, "lower": lower, "upper": upper, "threshold": threshold}
    return cast("MonitorResult", {**result, **judged, "baseline_value": None})


def limit_of(result: MonitorResult) -> float | None:
    """Return the value beyond which a result would have failed; None if that is no value.

    Args:
        result: ``threshold`` as text, such as ``above 0.10``, ``beyond 0.10`` (on the side of
            ``value``), or ``drop 0.05`` and ``above 0.10 beyond chance``, which are held against
            ``baseline_value``.
    """
    match = _THRESHOLD.fullmatch(result["threshold"])
    if match is None:
        return None
    bound = float(match[2].replace(",", ""))
    if match[1] == "beyond":
        return None if result["value"] is None else math.copysign(bound, result["value"])
    if match[1] != "drop":
        return bound + (result["baseline_value"] or 0.0 if match["beyond"] else 0.0)
    if result["baseline_value"] is None:
        return None
    sign = 1 if is_loss(result["metric"]) else -1
    return float(result["baseline_value"] + sign * bound)
