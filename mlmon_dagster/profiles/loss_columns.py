"""What is profiled of a task besides its inputs and outputs: the loss of every row or group.

A *loss column* is computed in SQL and profiled like any other, in one bin: its rows, its sum and
the sum of its squares give every mean, with its interval, and merge exactly. Names start with a
colon, which no feature's name does.

Of SHAP values shares are profiled, signed values, what they add up to and who computed them. Of a
row they count only where there are those of all features. What they add up to is the output before
the model's link, and which link that is the counts say: see `metrics.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlmon_dagster.metrics.estimated.multiclass import CONFIDENCE, DECIDED_FOR
from mlmon_dagster.metrics.evaluations import CLUSTERED
from mlmon_dagster.metrics.late_truth.means_by_output import BY_OUTPUT, OUTCOME
from mlmon_dagster.metrics.means import PRODUCT
from mlmon_dagster.metrics.performance.multiclass import GAP, RIGHT
from mlmon_dagster.metrics.performance.multilabel import (
    EXACT,
    HAMMING,
    JACCARD,
    LABEL,
    SUMS,
    UNSEEN,
)
from mlmon_dagster.metrics.performance.multilabel import RIGHT as RIGHT_LABELS
from mlmon_dagster.metrics.performance.ranking import RATIOS, RELEVANT, WEIGHTED
from mlmon_dagster.metrics.performance.roc import SCORE_ORDER
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, EXEMPT
from mlmon_dagster.metrics.quality import BROKEN, RAW, REST
from mlmon_dagster.metrics.statistics import Binning, Kind
from mlmon_dagster.profiles.bin_codes import number
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.evaluations import error_column, evaluator_column
from mlmon_dagster.spec.metric_registry import BINARY, RANKING, REGRESSION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.predicate import exempt_sql
from mlmon_dagster.spec.spans import STAGE, TOKENS, stage_calls, stage_column, stage_status
from mlmon_dagster.spec.tasks import (
    BETWEEN,
    NO_LABELS,
    RESIDUAL,
    Answer,
    class_scores,
    declared_classes,
    task_of,
)
from mlmon_dagster.store.state.sql import literal, quote_identifier

SHARE = ":shap:"  # before a feature's name: its share of a row's attributions
SIGNED = ":signed:"  # before a feature's name: its SHAP value
BASE = ":base_value"
EXPLAINER = ":explainer"
JUDGED = ":judged/"  # before a judge's evaluation: what it says, and people of the same call
UNJUDGED = ":unjudged/"  # before an evaluation: whether it failed
EVALUATOR = ":evaluator/"  # before a judge's evaluation: who gave it
_SUM, _SIZE = quote_identifier(":sum"), quote_identifier(":size")
_OFFSET = "<offset {}>"
_LINKS = {
    "identity": "{0}",
    "logit": "CASE WHEN {0} > 0 AND {0} < 1 THEN LN({0} / (1 - {0})) END",
    "log": "CASE WHEN {0} > 0 THEN LN({0}) END",
}
Values = dict[str, tuple[Kind, str]]


def share_of(feature: str) -> str:
    """Return the name of the profiled column of a feature's share."""
    return f"{SHARE}{feature}"


def signed_of(feature: str) -> str:
    """Return the name of the profiled column of a feature's SHAP values."""
    return f"{SIGNED}{feature}"


def links(spec: ModelSpec) -> dict[str, str]:
    """Return what SHAP values may add up to and its SQL; {} where there is no single number."""
    if spec.task in (BINARY, RANKING) and spec.columns.score is not None:
        names = ("logit", "identity") if spec.task == BINARY else ("identity",)
        return {name: _LINKS[name].format("score") for name in names}
    if spec.task == REGRESSION and spec.columns.prediction is not None:
        return {name: _LINKS[name].format("prediction") for name in ("identity", "log")}
    return {}


def attribution_columns(spec: ModelSpec) -> Values:
    """Return name -> kind and SQL expression over `attribution_source`.

    Of a feature the share |SHAP| / the row's sum of |SHAP|, 0 to 1, NULL in rows whose values are
    all 0; and the value itself, in rows whose output is known, so that they add up to its mean.
    """
    columns = {f: quote_identifier(c) for f, c in attributed(spec).items()}
    if not columns:
        return {}
    # A quarter of each, so that no sum of numbers is beyond all numbers.
    found: Values = {
        share_of(f): ("loss", f"ABS({c} / 4) / NULLIF({_SIZE}, 0)") for f, c in columns.items()
    }
    is_known = f"{_SUM} IS NOT NULL"
    found |= {
        signed_of(f): ("loss", f"CASE WHEN {is_known} THEN {_cut(c)} END")
        for f, c in columns.items()
    }
    if spec.columns.base_value is not None:
        found[BASE] = ("loss", f"CASE WHEN {is_known} THEN {_cut('base_value')} END")
    if spec.columns.explainer is not None:
        found[EXPLAINER] = ("categorical", f"CASE WHEN {is_known} THEN COALESCE(explainer, '') END")
    return found | (_sums(spec) if len(columns) == len(spec.logged_features) else {})


def _sums(spec: ModelSpec) -> Values:
    """Return what SHAP values of all features should add up to, what they leave, and whether."""
    found: Values = {}
    for link, sql in links(spec).items():
        raw = f"(CASE WHEN {_SUM} IS NOT NULL THEN {_cut(sql)} END)"
        known = spec.explain.base_value
        if spec.columns.base_value is not None:
            base = _cut("base_value")
        else:
            base = number(known) if known is not None else _OFFSET.format(link)
        rest = f"({raw} - {_SUM})"
        if not base.startswith("<"):
            rest = f"({raw} - {_SUM} - {base})"
        scale = f"(ABS({raw}) + ABS({base}) + 4 * LEAST({_SIZE}, {_HUGE}))"
        off = rest if not base.startswith("<") else f"({rest} - {base})"
        broken = (
            f"CASE WHEN {rest} IS NULL THEN NULL "
            f"WHEN ABS({off}) <= {number(spec.explain.tolerance)} * {scale} THEN 0e0 ELSE 1e0 END"
        )
        found |= {
            f"{RAW}{link}": ("loss", raw),
            f"{REST}{link}": ("loss", rest),
            f"{BROKEN}{link}": ("loss", broken),
        }
    return found


def has_offset(spec: ModelSpec, name: str) -> bool:
    """Say whether a column's middle in the baseline stands for the base value nobody knows."""
    known = (spec.columns.base_value, spec.explain.base_value)
    return name.startswith(REST) and known == (None, None)


def with_offsets(value: str, binnings: Mapping[str, Binning]) -> str:
    """Put the base values that were estimated from the baseline into an expression."""
    for link in _LINKS:
        mark = _OFFSET.format(link)
        if mark in value:
            value = value.replace(mark, number(binnings[f"{REST}{link}"].centre))
    return value


def attribution_source(spec: ModelSpec, from_sql: str) -> str:
    """Return the rows with the sums of their SHAP values, signed and of a quarter's magnitude.

    The signed one is NULL where a value, or the output that they should add up to, is missing.
    """
    columns = [quote_identifier(c) for c in attributed(spec).values()]
    size = " + ".join(f"ABS({c} / 4)" for c in columns)
    total = " + ".join(map(_cut, columns))
    is_known = [f"{c} IS NOT NULL" for c in columns]
    is_known += [f"({sql}) IS NOT NULL" for name, sql in links(spec).items() if name != "log"]
    return (
        f"(SELECT records.*, {size} AS {_SIZE}, "
        f"CASE WHEN {' AND '.join(is_known)} THEN {total} END AS {_SUM} FROM {from_sql} AS records)"
    )


def _cut(value: str) -> str:
    return f"(CASE WHEN {value} IS NOT NULL THEN LEAST(GREATEST({value}, -{_HUGE}), {_HUGE}) END)"


CLASSES_APART = 10  # whose rows are grouped apart
GAIN, DEBIT = ":gain/", ":debit/"  # begin the names of what an amount is above 0, and below
TRACED, TRACED_STATUS = ":traced", ":traced_status"
TRACED_LATENCY = ":traced_latency_ms"
TOLD = ":told/"  # begins the names of what says whether spans tell a declared column
FAILED, TIMED_OUT = ":error/", ":timeout/"

ANSWERS: dict[Answer, Kind] = {
    "label": "confusion", "class": "classes", "labels": "categorical", "number": "numeric",
}  # fmt: skip
GROUPED = (
    ":ndcg", ":reciprocal_rank", ":average_precision", ":hit", ":precision_at_k", ":recall_at_k",
)  # fmt: skip
# Losses that cannot be larger, or are counts: their sums' unit does not depend on the baseline.
_OF_LABELS = (RIGHT_LABELS, EXACT, HAMMING, JACCARD, UNSEEN, *SUMS.values(),
              *(f"{name}{PRODUCT}" for name in SUMS.values()))  # fmt: skip
BOUNDED = {GAP: 1.0, ":log_loss": 64.0, ":brier": 2.0, ":top_k": 1.0,
           **dict.fromkeys((*GROUPED, *_OF_LABELS), 1.0)}  # fmt: skip
_CLIP = number(1e-15)  # of a probability, before its logarithm
_HUGE = number(1e35)  # products of four of them, squared, are still numbers
_PROBABILITY = '":probability"'
_CENTRE = "<centre>"


def loss_columns(spec: ModelSpec) -> Values:
    """Return name -> kind and SQL expression over `row_source`; none without ground truth."""
    if spec.columns.actual is None:
        return {}
    found = {
        "binary_classification": _binary,
        "multiclass_classification": _multiclass,
        "multilabel_classification": _multilabel,
        "regression": _regression,
    }.get(spec.task, lambda _: {})(spec)
    return found | _exempt(spec, found)


def outcome_columns(spec: ModelSpec) -> Values:
    """Return what is profiled of the outcomes: the value of each, of an amount also its size."""
    found: Values = {}
    for name, outcome in spec.columns.outcomes.items():
        column = quote_identifier(name)
        if outcome.kind == "rate":
            happened = f"CASE WHEN {column} > 0 THEN 1e0 WHEN {column} <= 0 THEN 0e0 END"
            found[f"{OUTCOME}{name}"] = ("loss", happened)
            continue
        cut = f"LEAST(GREATEST({column}, -{_HUGE}), {_HUGE})"
        found |= {
            f"{OUTCOME}{name}": ("loss", f"CASE WHEN {column} IS NOT NULL THEN {cut} END"),
            f"{GAIN}{name}": ("latency", f"CASE WHEN {column} >= 0 THEN {cut} END"),
            f"{DEBIT}{name}": ("latency", f"CASE WHEN {column} < 0 THEN -{cut} END"),
        }
    names = [f"{OUTCOME}{name}" for name in spec.columns.outcomes]
    return found | _by_output(spec, found, names)


def evaluation_columns(spec: ModelSpec) -> Values:
    """Return what is profiled of evaluations besides values: judges beside people, who judged."""
    found: Values = {}
    for name, one in spec.evaluations.items():
        if one.of is not None:
            says, said = quote_identifier(name), quote_identifier(one.of)
            found[f"{JUDGED}{name}"] = (
                "categorical",
                f"CASE WHEN {says} IS NOT NULL THEN CASE WHEN {says} > 0 THEN 'good' ELSE 'bad' END"
                f" || CASE WHEN {said} IS NULL THEN '' WHEN {said} > 0 THEN ' good'"
                " ELSE ' bad' END END",
            )
        failed, value = quote_identifier(error_column(name)), quote_identifier(name)
        found[f"{UNJUDGED}{name}"] = (
            "loss",
            f"CASE WHEN {failed} IS NOT NULL THEN 1e0 WHEN {value} IS NOT NULL THEN 0e0 END",
        )
        if one.by == "judge":
            who = f"COALESCE({quote_identifier(evaluator_column(name))}, '')"
            is_given = f"{quote_identifier(name)} IS NOT NULL"
            found[f"{EVALUATOR}{name}"] = ("categorical", f"CASE WHEN {is_given} THEN {who} END")
    return found


def output_expression(spec: ModelSpec) -> str | None:
    """Return the number that rows are grouped by where labels may be a chosen subset; else None.

    The score, or the prediction; of several classes the class that was decided for and its score,
    or the score alone where there are many classes. NULL of rows that ground truth never comes for.
    """
    roles, scores = spec.columns, class_scores(spec)
    if scores and roles.prediction is not None:
        apart = len(scores) <= CLASSES_APART
        whens = " ".join(
            f"WHEN {literal(label)} THEN {2 * i * apart} + {quote_identifier(name)}"
            for i, (label, name) in enumerate(scores.items())
        )
        found = f"(CASE prediction {whens} END)"
    elif roles.score is not None:
        found = "score"
    elif roles.prediction is not None and task_of(spec).answer not in ("class", "labels"):
        found = "CAST(prediction AS DOUBLE PRECISION)"
    else:
        return None
    exempt = exempt_sql(spec) if roles.actual is not None else None
    return found if exempt is None else f"(CASE WHEN {exempt} THEN NULL ELSE {found} END)"


def _by_output(spec: ModelSpec, losses: Values, names: Sequence[str]) -> Values:
    """Return what of these is also counted by group of the output."""
    if output_expression(spec) is None:
        return {}
    return {f"{BY_OUTPUT}{name}": ("by_output", losses[name][1]) for name in names}


def span_columns(spec: ModelSpec) -> Values:
    """Return what is profiled of spans: coverage, of whom, and each stage's time and ending."""
    if spec.spans is None:
        return {}
    traced = "COALESCE(n_spans, 0) > 0"
    share = f"CASE WHEN {traced} THEN 1e0 ELSE 0e0 END"
    found: Values = {TRACED: ("loss", share)}
    if spec.columns.status is not None:
        found[TRACED_STATUS] = ("status", f"CASE WHEN {traced} THEN status END")
    if spec.columns.latency_ms is not None:
        found[TRACED_LATENCY] = ("latency", f"CASE WHEN {traced} THEN latency_ms END")
    for name in spec.spans.stages:
        column, ended = stage_column(name), quote_identifier(stage_status(name))
        for counted in (column, stage_calls(name)):
            found[counted] = ("latency", quote_identifier(counted))
        for mark, bad in ((FAILED, "<> 'ok'"), (TIMED_OUT, "= 'timeout'")):
            found[f"{mark}{column}"] = (
                "loss",
                f"CASE WHEN {ended} IS NOT NULL THEN CASE WHEN {ended} {bad} "
                "THEN 1e0 ELSE 0e0 END END",
            )
    for name in spec.spans.columns:
        is_told = f"CASE WHEN {quote_identifier(name)} IS NULL THEN 0e0 ELSE 1e0 END"
        found[f"{TOLD}{name}"] = ("loss", is_told)
    if spec.spans.tokens:
        found |= {name: ("latency", quote_identifier(name)) for name in TOKENS}
    return found


def is_of_serving(column: str) -> bool:
    """Tell whether a column is a time or tokens, whose bins are the same for every model."""
    return column in ("latency_ms", TRACED_LATENCY, *TOKENS) or column.startswith(STAGE)


def bound_of(loss: str) -> float | None:
    """Return what a loss cannot exceed; None if that depends on the data."""
    shares = (SHARE, BROKEN, UNJUDGED, GAP, TRACED, TOLD, FAILED, TIMED_OUT)
    return 1.0 if loss.startswith(shares) else BOUNDED.get(loss)


def resolve(value: str, binnings: Mapping[str, Binning]) -> str:
    """Put into an expression what was fitted to the baseline: the mean of the actual."""
    if _CENTRE in value:
        return value.replace(_CENTRE, number(binnings["actual"].centre))
    return value


def row_source(spec: ModelSpec, from_sql: str) -> str:
    """Return the rows with the probability that a multiclass model gave to the actual class."""
    scores = class_scores(spec)
    if not scores:
        return from_sql
    known = " AND ".join(f"{quote_identifier(name)} IS NOT NULL" for name in scores.values())
    whens = " ".join(
        f"WHEN {literal(label)} THEN {quote_identifier(name)}" for label, name in scores.items()
    )
    given = f"CASE WHEN actual IS NOT NULL AND {known} THEN CASE actual {whens} ELSE 0e0 END END"
    return f"(SELECT records.*, {given} AS {_PROBABILITY} FROM {from_sql} AS records)"


def _binary(spec: ModelSpec) -> Values:
    if spec.columns.score is None:
        return {}
    right = "(CASE WHEN actual = 1 THEN score WHEN actual = 0 THEN 1 - score END)"
    found: Values = {
        ":log_loss": ("loss", _log_loss(right)),
        ":brier": ("loss", f"(1 - {right}) * (1 - {right})"),
        GAP: ("loss", "CASE WHEN actual IN (0, 1) THEN score - actual END"),
        SCORE_ORDER: ("order", "score"),
    }
    if spec.columns.prediction is not None:
        found[DECIDED] = ("score", "CASE WHEN prediction = 1 THEN score END")
    return found


def _log_loss(right: str) -> str:
    return f"CASE WHEN {right} IS NOT NULL THEN -LN(GREATEST({right}, {_CLIP})) END"


def _multiclass(spec: ModelSpec) -> Values:
    scores = class_scores(spec)
    if not scores:
        return {}
    columns = [quote_identifier(name) for name in scores.values()]
    squares = " + ".join(f"{column} * {column}" for column in columns)
    above = " + ".join(
        f"CASE WHEN {column} > {_PROBABILITY} THEN 1 ELSE 0 END" for column in columns
    )
    labels = ", ".join(map(literal, scores))
    is_top = f"actual IN ({labels}) AND {above} < {spec.top_k}"
    whens = " ".join(
        f"WHEN {literal(label)} THEN {quote_identifier(name)}" for label, name in scores.items()
    )
    found: Values = {name: ("score", quote_identifier(name)) for name in scores.values()}
    found |= {
        f"{GAP}/{name}": (
            "loss",
            f"CASE WHEN actual IS NOT NULL THEN {quote_identifier(name)} - "
            f"CASE WHEN actual = {literal(label)} THEN 1e0 ELSE 0e0 END END",
        )
        for label, name in scores.items()
    }
    found |= {
        CONFIDENCE: ("score", f"(CASE prediction {whens} END)"),
        **{
            f"{DECIDED_FOR}{name}": (
                "score",
                f"CASE WHEN prediction = {literal(label)} THEN {quote_identifier(name)} END",
            )
            for label, name in scores.items()
        },
        ":log_loss": ("loss", _log_loss(_PROBABILITY)),
        ":brier": ("loss", f"({squares}) - 2 * {_PROBABILITY} + 1"),
        ":top_k": (
            "loss",
            f"CASE WHEN {_PROBABILITY} IS NULL THEN NULL WHEN {is_top} THEN 1e0 ELSE 0e0 END",
        ),
    }
    counted = _by_output(spec, found, (":log_loss", ":brier", ":top_k"))
    if counted:
        is_right = "CASE WHEN prediction = actual THEN 1e0 WHEN prediction <> actual THEN 0e0 END"
        counted[f"{BY_OUTPUT}{RIGHT}"] = ("by_output", is_right)
    return found | counted


def _multilabel(spec: ModelSpec) -> Values:
    """Return what is counted of the labels of a row that has both sets.

    A label that is no class of the model is right in no row.
    """
    if spec.columns.prediction is None:
        return {}
    labels, sides = declared_classes(spec), ("prediction", "actual")
    has = {side: [_has_label(side, label) for label in labels] for side in sides}
    known, n_labels = "prediction IS NOT NULL AND actual IS NOT NULL", number(len(labels))
    both = " + ".join(
        f"CASE WHEN {p} AND {a} THEN 1 ELSE 0 END" for p, a in zip(*has.values(), strict=True)
    )
    predicted, wanted = map(_count_labels, sides)
    sizes = {
        ":predicted_labels": predicted,
        ":actual_labels": wanted,
        ":mean_labels": f"({predicted} + {wanted}) / 2",
    }
    either = f"({predicted} + {wanted} - ({both}))"
    declared = " + ".join(f"CASE WHEN {a} THEN 1 ELSE 0 END" for a in has["actual"])
    values = {
        RIGHT_LABELS: f"({both}) + 0e0",
        **sizes,
        **{f"{name}{PRODUCT}": f"({both}) * {size}" for name, size in sizes.items()},
        EXACT: "CASE WHEN prediction = actual THEN 1e0 ELSE 0e0 END",
        HAMMING: f"LEAST(({either} - ({both})) / {n_labels}, 1e0)",
        JACCARD: f"CASE WHEN {either} = 0 THEN 1e0 ELSE ({both}) / {either} END",
        UNSEEN: f"CASE WHEN {wanted} > ({declared}) THEN 1e0 ELSE 0e0 END",
    }
    found: Values = {n: ("loss", f"CASE WHEN {known} THEN {sql} END") for n, sql in values.items()}
    for label, predicted, actual in zip(labels, *has.values(), strict=True):
        found[f"{LABEL}{label}"] = (
            "categorical",
            f"CASE WHEN NOT ({known}) THEN NULL "
            f"WHEN {predicted} THEN CASE WHEN {actual} THEN 'right' ELSE 'false' END "
            f"WHEN {actual} THEN 'missed' ELSE 'neither' END",
        )
    return found


def _has_label(side: str, label: str) -> str:
    mark = literal(f"{BETWEEN}{label}{BETWEEN}")
    return f"POSITION({mark} IN {literal(BETWEEN)} || {side} || {literal(BETWEEN)}) > 0"


def _count_labels(side: str) -> str:
    """Return how many labels a row has, also such as are no class of the model."""
    between = f"REPLACE({side}, {literal(BETWEEN)}, '')"
    return (
        f"(CASE WHEN {side} = {literal(NO_LABELS)} THEN 0e0 "
        f"ELSE LENGTH({side}) - LENGTH({between}) + 1e0 END)"
    )


def _regression(spec: ModelSpec) -> Values:
    if spec.columns.prediction is None:
        return {}
    # Where a side is missing there is no error; LEAST would ignore the null.
    error = (
        "(CASE WHEN prediction IS NOT NULL AND actual IS NOT NULL THEN "
        f"LEAST(GREATEST(prediction - actual, -{_HUGE}), {_HUGE}) END)"
    )
    size = f"(CASE WHEN {error} IS NOT NULL THEN LEAST(ABS(actual), {_HUGE}) END)"
    away = (
        f"(CASE WHEN {error} IS NOT NULL THEN "
        f"LEAST(GREATEST(actual - {_CENTRE}, -{_HUGE}), {_HUGE}) END)"
    )
    over, under = number(1 - spec.quantile), number(spec.quantile)
    pinball = f"CASE WHEN {error} > 0 THEN {over} * {error} ELSE -{under} * {error} END"
    # Halves, so that neither the difference nor the sum of two numbers is beyond all numbers.
    half_error = "ABS(prediction / 2 - actual / 2)"
    half_sizes = "(ABS(actual / 2) + ABS(prediction / 2))"
    symmetric = f"CASE WHEN {half_sizes} = 0 THEN 0e0 ELSE {half_error} / {half_sizes} * 2 END"
    relative = (
        f"CASE WHEN {error} IS NOT NULL AND actual / 2 <> 0 "
        f"THEN LEAST({half_error} / ABS(actual / 2), {_HUGE}) END"
    )
    found: Values = {
        "actual": ("numeric", "actual"),
        RESIDUAL: ("numeric", f"-{error}"),
        ":error_size": ("latency", f"ABS({error})"),
        ":error": ("loss", error),
        ":absolute_error": ("loss", f"ABS({error})"),
        ":squared_error": ("loss", f"{error} * {error}"),
        ":percentage_error": ("loss", relative),
        ":symmetric_error": ("loss", symmetric),
        ":quantile_loss": ("loss", pinball),
        ":actual_size": ("loss", size),
        ":error_by_size": ("loss", f"ABS({error}) * {size}"),
        ":away": ("loss", away),
        ":away_squared": ("loss", f"{away} * {away}"),
        ":away_cubed": ("loss", f"{away} * {away} * {away}"),
        ":error_away": ("loss", f"{error} * {error} * {away}"),
        ":error_away_squared": ("loss", f"{error} * {error} * {away} * {away}"),
    }  # fmt: skip
    return found | _by_output(spec, found, (":error",))


def _exempt(spec: ModelSpec, losses: Values) -> Values:
    """Return the outputs of rows that ground truth never comes for, of what counts others."""
    exempt = exempt_sql(spec)
    if exempt is None:
        return {}
    outputs = {name: found for name, found in losses.items()
               if found[0] == "score" and not name.startswith(CONFIDENCE)}  # fmt: skip
    answer = task_of(spec).answer
    if spec.columns.score is not None and answer == "label":
        outputs["score"] = ("score", "score")
    if spec.columns.prediction is not None and answer in ANSWERS:
        outputs["prediction"] = (ANSWERS[answer], "prediction")
    return {
        f"{EXEMPT}{name}": (kind, f"(CASE WHEN {exempt} THEN {value} END)")
        for name, (kind, value) in outputs.items()
    }


def group_columns(spec: ModelSpec) -> Values:
    """Return what is profiled of every group, over `group_source`.

    Of a ranking its metrics, of a conversation its calls and what they add up to.
    """
    if spec.evaluations and spec.columns.group is not None:
        return {name: ("loss", quote_identifier(name)) for name in _by_conversation(spec)}
    if not task_of(spec).is_grouped or spec.columns.actual is None:
        return {}
    weighted = WEIGHTED if spec.columns.examined is not None else ()
    return {name: ("loss", quote_identifier(name)) for name in (*GROUPED, *weighted)}


def group_source(spec: ModelSpec, from_sql: str) -> str:
    """Return one row per group: its window, slices and the metrics of its ranking.

    Ranks are places among the group's rows, by ``rank`` or falling ``score``, equal ones by id. A
    row without an actual, or with one below 0, counts as not relevant; a group without any actual
    has nulls. A group with several values of a slice column has the value ``<mixed>`` there. A
    call of no conversation is one of its own.
    """
    if spec.evaluations:
        return _conversation_source(spec, from_sql)
    keys = 'window_start, dataset, model_version, "group"'
    order = "rank" if spec.columns.rank is not None else "score DESC NULLS LAST"
    over = f"OVER (PARTITION BY {keys} ORDER BY"
    slices = _list_slice_columns(spec)
    named = "".join(f", {quote_identifier(name)}" for name in slices)
    gain = f"(CASE WHEN actual > 0 THEN LEAST(actual, {_HUGE}) ELSE 0e0 END)"
    ranked = (
        f"SELECT {keys}{named}, actual, {gain} AS gain, "
        f"ROW_NUMBER() {over} {order}, prediction_id) AS place, "
        f"ROW_NUMBER() {over} {gain} DESC, prediction_id) AS ideal "
        f'FROM {from_sql} AS records WHERE "group" IS NOT NULL'
    )
    if spec.columns.examined is not None:
        weight = f"1e0 / GREATEST(examined, {number(1 / spec.max_weight)})"
        ranked = ranked.replace(
            "actual, ", f"actual, CASE WHEN examined > 0 THEN {weight} END AS weight, ", 1
        )
    found = f"SUM(CASE WHEN gain > 0 THEN 1 ELSE 0 END) {over} place)"
    outer = ", ".join(f"{sql} AS {quote_identifier(name)}" for name, sql in _by_group(spec).items())
    return (
        f"(SELECT {keys}{''.join(map(_one_value, slices))}, {outer} FROM "
        f"(SELECT ranked.*, {found} AS found FROM ({ranked}) AS ranked) AS counted GROUP BY {keys})"
    )


def _by_group(spec: ModelSpec) -> dict[str, str]:
    k = spec.top_k
    discount = f"{number(math.log(2))} / LN({{}} + 1)"
    dcg, ideal = (
        f"SUM(CASE WHEN {place} <= {k} THEN gain * {discount.format(place)} ELSE 0 END)"
        for place in ("place", "ideal")
    )
    relevant = "SUM(CASE WHEN gain > 0 THEN 1 ELSE 0 END)"
    first = "MIN(CASE WHEN gain > 0 THEN place END)"
    precisions = (
        f"SUM(CASE WHEN gain > 0 AND place <= {k} THEN CAST(found AS DOUBLE PRECISION) / place "
        "ELSE 0 END)"
    )
    hits = f"CAST(SUM(CASE WHEN gain > 0 AND place <= {k} THEN 1 ELSE 0 END) AS DOUBLE PRECISION)"
    values = {
        ":ndcg": f"{dcg} / {ideal}",
        ":reciprocal_rank": f"1e0 / {first}",
        ":average_precision": f"{precisions} / LEAST({k}, {relevant})",
        ":hit": f"CASE WHEN {first} <= {k} THEN 1e0 ELSE 0e0 END",
        ":precision_at_k": f"{hits} / LEAST({k}, COUNT(*))",
        ":recall_at_k": f"{hits} / {relevant}",
    }
    none = f"WHEN COUNT(actual) = 0 THEN NULL WHEN {relevant} = 0 THEN 0e0"
    found = {name: f"CASE {none} ELSE {sql} END" for name, sql in values.items()}
    return found | (_weighted(k) if spec.columns.examined is not None else {})


def _conversation_source(spec: ModelSpec, from_sql: str) -> str:
    """Return one row per conversation and window: what is counted of it, and its slices."""
    slices = _list_slice_columns(spec)
    counted = _by_conversation(spec).items()
    outer = ", ".join(f"{sql} AS {quote_identifier(name)}" for name, sql in counted)
    keys = "window_start, dataset, model_version"
    return (
        f"(SELECT {keys}{''.join(map(_one_value, slices))}, {outer} FROM {from_sql} AS records "
        f'GROUP BY {keys}, "group", CASE WHEN "group" IS NULL THEN prediction_id END)'
    )


def _list_slice_columns(spec: ModelSpec) -> list[str]:
    return sorted({name for key in spec.slices for name in key} - {"model_version"})


def _by_conversation(spec: ModelSpec) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, one in spec.evaluations.items():
        value = quote_identifier(name)
        n = f"CAST(COUNT({value}) AS DOUBLE PRECISION)"
        said = f"CASE WHEN {value} > 0 THEN 1e0 ELSE 0e0 END" if one.good is not None else value
        total = f"SUM({said})"
        parts = zip(CLUSTERED, (total, n, f"{total} * {n}"), strict=True)
        found |= {f"{part}{name}": f"CASE WHEN {n} > 0 THEN {sql} END" for part, sql in parts}
    return found


def _weighted(k: int) -> dict[str, str]:
    """Return sums of a group's relevant rows, each by 1 / the chance that it was examined.

    A row that was not seen (chance 0 or unknown) is left out, as nobody knows whether it is
    relevant. Products serve the covariance of a sum and of that over all relevant rows.
    """
    worth = {
        RELEVANT: "weight",
        ":ipw_recall_at_k": f"CASE WHEN place <= {k} THEN weight ELSE 0 END",
        ":ipw_mrr": "weight / place",
        ":ipw_dcg": f"CASE WHEN place <= {k} THEN weight * {number(math.log(2))} / LN(place + 1) "
        "ELSE 0 END",
    }
    sums = {
        name: f"SUM(CASE WHEN gain > 0 AND weight IS NOT NULL THEN {sql} ELSE 0e0 END)"
        for name, sql in worth.items()
    }
    seen = f"COUNT(CASE WHEN place <= {k} THEN weight END)"
    values = sums | {f"{name}{PRODUCT}": f"{sums[name]} * {sums[RELEVANT]}" for name in RATIOS}
    values[":ipw_precision_at_k"] = f"{sums[':ipw_recall_at_k']} / NULLIF({seen}, 0)"
    known = "COUNT(CASE WHEN actual IS NOT NULL THEN weight END)"
    return {name: f"CASE WHEN {known} > 0 THEN {sql} END" for name, sql in values.items()}


def _one_value(column: str) -> str:
    name = quote_identifier(column)
    text = f"CAST({name} AS VARCHAR)"
    return (
        f", CASE WHEN COUNT({name}) = 0 THEN NULL WHEN MIN({text}) = MAX({text}) "
        f"AND COUNT({name}) = COUNT(*) THEN MIN({text}) ELSE '<mixed>' END AS {name}"
    )
