"""The rows behind a finding: as they are, or as they were when it was judged; worst first."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.families.service import BURN_RATE
from mlmon_dagster.profiles.compiler import NULL_SLICE
from mlmon_dagster.profiles.embedded import know_fits
from mlmon_dagster.profiles.in_force import baseline_in_force
from mlmon_dagster.spec import (
    ModelSpec,
    Predicate,
    Window,
    parse_predicate,
    predicate_columns,
    window_containing,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Task, attributed, sampled_features
from mlmon_dagster.spec.derived import VECTOR, name_derived
from mlmon_dagster.spec.evaluations import error_column, evaluator_column
from mlmon_dagster.spec.monitors import CLASS_RATE, SPAN_COVERAGE
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import (
    Comparison,
    Every,
    Membership,
    Not,
    NullTest,
    Operator,
    Some,
    to_sql,
    to_text,
)
from mlmon_dagster.spec.spans import FAILED, TRACE_ID, stage_calls, stage_of, stage_status
from mlmon_dagster.spec.tasks import class_scores
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.sql import Row, quote_identifier
from mlmon_dagster.store.tables import spans
from mlmon_dagster.store.tables.columns import span_fields, window_date
from mlmon_dagster.store.tables.derived_columns import with_derived

MOST_ROWS = 1_000_000
ANSWERED: Final = tuple(f(s) for s in ("ok", "success", "200") for f in (str, str.upper, str.title))
OFF_BY = "off_by"
HIDDEN = "***"
_ROLES = (
    "model_version", "score", "prediction", "group", "rank", "examined", "actual", "actual_time",
    "latency_ms", "status", "trace_id",
)  # fmt: skip
_IS_WRONG = (
    "CASE WHEN prediction IS NOT NULL AND actual IS NOT NULL THEN "
    "CASE WHEN prediction <> actual THEN 1e0 ELSE 0e0 END END"
)
# How far the output was off: what rows are sorted by, the worst first.
_OFF_BY: dict[Task, str] = {
    "binary_classification": "CASE WHEN actual IS NOT NULL THEN "
    "abs(coalesce(score, prediction) - actual) END",
    "multiclass_classification": _IS_WRONG,
    "multilabel_classification": _IS_WRONG,
    "regression": "prediction - actual",
    "ranking": "actual",
    "generation": "NULL",
}
# Wrong decisions first, then by how far the output was off; without ground truth, by id alone.
_WRONG = "(prediction IS NOT NULL AND actual IS NOT NULL AND prediction <> actual) DESC"
LATENCY: Final = "latency_ms"
_WORST_FIRST: dict[Task, str] = {
    "binary_classification": f"{_WRONG}, {OFF_BY} DESC NULLS LAST",
    "multiclass_classification": _WRONG,
    "multilabel_classification": _WRONG,
    "regression": f"abs({OFF_BY}) DESC NULLS LAST",
    "ranking": "actual DESC NULLS LAST, rank DESC NULLS LAST, score NULLS FIRST",
    "generation": "actual NULLS LAST",
}


@dataclass(frozen=True)
class Rows:
    """Rows of some windows that belong together.

    Attributes:
        table: The first of them, worst first: wrong decisions, then by ``off_by``. Ids, times, what
            the model put out, what came true, and every feature; SHAP values where logged.
        n: How many there are.
        predicate: Picks them, in the language of `mlmon_dagster.spec.predicate`; empty for all;
            None if a value cannot be written in it.
        hidden: Columns of personal values, each shown as ``***`` where there is one.
    """

    table: pa.Table
    n: int
    predicate: str | None
    hidden: tuple[str, ...]


def rows_of(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    picked: Predicate | None = None,
    *,
    limit: int = 50,
    dataset: str = PRODUCTION,
    version: int | None = None,
    shown: Collection[str] = (),
    slowest: str | None = None,
    brief: bool = False,
) -> Rows:
    """Return the rows of some windows that a predicate picks.

    Args:
        store: The store.
        spec: The model.
        windows: Which windows; none gives no rows.
        picked: All rows by default.
        limit: At most so many of them are returned, all are counted.
        dataset: Of which dataset.
        version: Of an earlier version of the records, see `behind`.
        shown: Columns of personal values to show nevertheless.
        slowest: A column of times: those that took longest first, instead of the worst.
        brief: Without features and SHAP values.
    """
    if spec.embeddings:
        know_fits(spec, baseline_in_force(store, spec).binnings)
    source = store.inference_records(spec).from_sql(windows, [dataset], version)
    where = f" WHERE {to_sql(picked)}" if picked is not None else ""
    hidden = tuple(n for n, f in spec.features.items() if f.pii and n not in shown)
    kept = max(0, min(limit, MOST_ROWS))
    order = _WORST_FIRST[spec.task]
    if slowest is not None:
        order = f"{quote_identifier(slowest)} DESC NULLS LAST"
    tail = f"ORDER BY {order}, prediction_id LIMIT {kept}"
    first = f"SELECT {_columns(spec, hidden, brief=brief)} FROM {source}{where} {tail}"
    late = [name for name in sampled_features(spec) if quote_identifier(name) not in where]
    if late:
        # They take long for each row, so that they are computed for those that are shown alone.
        early = [name for name in spec.features if name not in late]
        stored = store.inference_records(spec).stored_sql(windows, [dataset], version)
        chosen = (
            f"(SELECT * EXCLUDE ({OFF_BY}) FROM (SELECT records.*, {_off_by(spec)} FROM "
            f"{with_derived(spec, stored, early)} AS records{where}) AS worst {tail})"
        )
        shown_rows = with_derived(spec, chosen, late)
        first = f"SELECT {_columns(spec, hidden, brief=brief)} FROM {shown_rows} {tail}"
    if _is_traced_by_spans(spec):
        folder = spans.folder_of(store.root, spec.model)
        of_them = spans.from_sql(folder, spec, {window_date(window) for window in windows})
        first = spans.with_trace_sql(first, of_them)
    table = store.query(first)
    counted = store.query(f"SELECT count(*) AS n FROM {source}{where}")
    return Rows(table, int(counted.column("n")[0].as_py()), _written(spec, picked), hidden)


def _is_traced_by_spans(spec: ModelSpec) -> bool:
    """Say whether the trace of an event is known from its spans alone."""
    return spec.spans is not None and spec.columns.trace_id is None


def _columns(spec: ModelSpec, hidden: Collection[str], *, brief: bool) -> str:
    roles = [r for r in _ROLES if getattr(spec.columns, r) is not None]
    if spec.has_versions and spec.columns.model_version is None:
        roles.insert(0, "model_version")
    roles += [TRACE_ID] if _is_traced_by_spans(spec) else []
    scores = list(class_scores(spec).values())
    plain = ["prediction_id", "event_time", *roles, *spec.columns.outcomes, *scores]
    # Explanations quote what people wrote, and stay in the store.
    said = (evaluator_column, error_column)
    plain += [column(name) for name in spec.evaluations for column in said]
    features = [
        f"CASE WHEN {quote_identifier(n)} IS NOT NULL THEN '{HIDDEN}' END AS {quote_identifier(n)}"
        if n in hidden
        else f"{quote_identifier(name_derived(n, VECTOR))} AS {quote_identifier(n)}"
        if feature.type == "embedding"
        else quote_identifier(n)
        for n, feature in spec.features.items()
    ]
    attributions = [quote_identifier(name) for name in attributed(spec).values()]
    of_spans = [quote_identifier(field.name) for field in span_fields(spec)]
    named = map(quote_identifier, plain)
    more = () if brief else (*features, *attributions)
    return ", ".join([*named, _off_by(spec), *of_spans, *more])


def _off_by(spec: ModelSpec) -> str:
    """Return the expression of how far the output was off, with its name."""
    return f"{_OFF_BY[spec.task]} AS {OFF_BY}" if _has_outputs(spec) else f"NULL AS {OFF_BY}"


def _has_outputs(spec: ModelSpec) -> bool:
    return spec.columns.actual is not None and (
        spec.columns.score is not None or spec.columns.prediction is not None
    )


def column_texts(spec: ModelSpec, table: pa.Table, digits: int) -> dict[str, list[str]]:
    """Write the cells of rows for people, by column.

    Args:
        spec: The model, whose zone times are in.
        table: The rows.
        digits: Of numbers with a fraction.
    """
    zone = ZoneInfo(spec.time.zone)

    def text(value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, dt.datetime):
            return value.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    return {
        name: [text(value) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def slice_predicate(spec: ModelSpec, slice_key: str, slice_value: str) -> Predicate | None:
    """Return what picks the rows of a slice; None for the whole.

    Raises:
        ConfigError: If the model declares no such slice, or the value does not fit its key.
    """
    if slice_key == ALL:
        return None
    keys = {",".join(key): key for key in spec.slices}
    if slice_key not in keys:
        raise ConfigError(
            f"Model {spec.model!r} has no slice {slice_key!r}. "
            f"It declares: {', '.join(keys) or 'none'}."
        )
    columns, values = keys[slice_key], split_values(slice_value)
    if len(values) != len(columns):
        raise ConfigError(
            f"Slice {slice_key!r} needs {len(columns)} values separated by commas (a comma in a "
            f"value is written \\,), not {slice_value[:200]!r}."
        )
    parts = tuple(_condition(spec, c, v) for c, v in zip(columns, values, strict=True))
    return parts[0] if len(parts) == 1 else Every(parts)


def split_values(slice_value: str) -> list[str]:
    r"""Take a slice value apart; ``\,`` and ``\\`` stand for a comma and a backslash.

    Example:
        >>> split_values(r"D\,L,JFK")
        ['D,L', 'JFK']
    """
    values, is_escaped = [""], False
    for character in slice_value:
        if not is_escaped and character in "\\,":
            is_escaped = character == "\\"
            if not is_escaped:
                values.append("")
            continue
        values[-1] += character
        is_escaped = False
    return values


def _condition(spec: ModelSpec, column: str, value: str) -> Predicate:
    # A text "<null>" in the data shares the slice of nulls; the slice is read as the nulls.
    if value == NULL_SLICE:
        return NullTest(column)
    feature = spec.features.get(column)
    if feature is not None and feature.type == "boolean":
        return Comparison(column, "=", value == "true")
    return Comparison(column, "=", value)


def _written(spec: ModelSpec, predicate: Predicate | None) -> str | None:
    """Write a predicate for people; the language has no backslashes and no control characters."""
    if predicate is None:
        return ""
    text = to_text(predicate)
    try:
        parse_predicate(text, predicate_columns(spec), spec.time.zone)
    except ConfigError:
        return None
    return text


# --- behind a verdict


@dataclass(frozen=True)
class Verdict:
    """What an alert last failed on.

    Attributes:
        window: The window.
        version: Of the records that were judged; None if it is not kept any more.
        picked: Its slice, or the values of its column that were wrong; None for all rows.
        time: The column of times that it is about, whose longest rows come first: of requests that
            took long, or failed; None if it is about something else.
    """

    window: Window
    version: int | None
    picked: Predicate | None
    time: str | None


def behind(store: Store, spec: ModelSpec, alert: Row) -> Verdict:
    """Return what the last failing window of an alert was about.

    Args:
        store: The store.
        spec: The alert's model.
        alert: Row of the table ``alert``.
    """
    identity = {n: str(alert[n]) for n in ("model", "monitor", "slice_key", "slice_value")}
    last = monitor_results.last_failure(store.state, identity)
    start = last["window_start"] if last else alert["last_window_start"]
    window = window_containing(spec.time, start)
    slice_ = slice_predicate(spec, str(alert["slice_key"]), str(alert["slice_value"]))
    wrong = _wrong_values(spec, last) if last else _wrong_in_any(store, spec, alert, window)
    # What follows the fingerprint of the records says which baseline, how mature they were, and of
    # which other windows the verdict is.
    data_version = last["data_version"] if last else alert["last_data_version"]
    records = store.inference_records(spec)
    version = records.version_with(window, re.split("[:+]", str(data_version))[0])
    time = _time_of(str(alert["metric"]), str(alert["column_name"]))
    return Verdict(window, version, together(slice_, wrong), time)


def _time_of(metric: str, column: str) -> str | None:
    """Return the column of times that a metric is of: a stage's, or the whole request's."""
    if (stage := stage_of(column)) is not None:
        return stage_calls(stage) if metric.endswith("_calls") else column
    is_of_requests = metric in ("error_rate", CLASS_RATE, BURN_RATE)
    return LATENCY if is_of_requests or metric.endswith(f"_{LATENCY}") else None


def _wrong_in_any(store: Store, spec: ModelSpec, alert: Row, window: Window) -> Predicate | None:
    """Return what picks the wrong values of an alert that stands for several columns."""
    rows = monitor_results.newest(
        store.state, spec.model, window.start, window.end, str(alert["family"])
    )
    mine = rows[(rows["metric"] == alert["metric"]) & rows["status"].isin(["WARN", "ERROR"])]
    found = [_wrong_values(spec, row) for row in mine.to_dict("records")]
    picks = tuple(picked for picked in found if picked is not None)
    return Some(picks) if len(picks) > 1 else next(iter(picks), None)


def _wrong_values(spec: ModelSpec, verdict: Row) -> Predicate | None:
    """Return what picks the values that a verdict on quality or service is about."""
    column, metric = str(verdict["column_name"]), str(verdict["metric"])
    feature = spec.features.get(column)
    if metric == "null_rate" and feature is not None:
        return NullTest(column)
    if metric == "out_of_range_rate" and feature is not None:
        ends: tuple[tuple[Operator, float | None], ...] = (("<", feature.min), (">", feature.max))
        out = tuple(Comparison(column, sign, float(v)) for sign, v in ends if v is not None)
        return out[0] if len(out) == 1 else Some(out)
    if column in spec.evaluations:
        return _wrong_evaluations(spec, metric, column)
    details = json.loads(verdict["details"] or "{}")
    names = details.get("unseen_values") or details.get("unseen")
    if metric == "unseen_rate" and names and feature is not None:
        return Membership(column, tuple(map(str, names)))
    if metric == "error_rate":
        return Not(Membership("status", ANSWERED))
    if metric == SPAN_COVERAGE:
        return NullTest("n_spans")
    if metric in (CLASS_RATE, BURN_RATE):
        return _declared_requests(spec, metric, column)
    stage = stage_of(column)
    if stage is None:
        return None
    if metric == "stage_timeout_rate":
        return Comparison(stage_status(stage), "=", "timeout")
    if metric == "stage_error_rate":
        return Membership(stage_status(stage), FAILED)
    return NullTest(column, negated=True)


def _wrong_evaluations(spec: ModelSpec, metric: str, name: str) -> Predicate:
    """Return what picks the calls that an evaluation is bad of, failed for, or is wrong about."""
    other = spec.evaluations[name].of
    says_bad, says_good = Comparison(name, "<=", 0.0), Comparison(name, ">", 0.0)
    if metric == "failed_rate":
        return NullTest(error_column(name), negated=True)
    if metric == "good_rate" or other is None:
        return says_bad if metric == "good_rate" else NullTest(name, negated=True)
    is_bad, is_good = Comparison(other, "<=", 0.0), Comparison(other, ">", 0.0)
    return Some((Every((says_good, is_bad)), Every((says_bad, is_good))))


def _declared_requests(spec: ModelSpec, metric: str, name: str) -> Predicate | None:
    """Return what picks the requests of a class, or those not good; None if not declared now."""
    service = spec.monitors.service
    columns, zone = predicate_columns(spec), spec.time.zone
    if metric == CLASS_RATE and name in service.classes:
        return parse_predicate(service.classes[name].when, columns, zone)
    goods = [one.good for one in service.objectives if one.name == name and metric == BURN_RATE]
    return Not(parse_predicate(goods[0], columns, zone)) if goods else None


def together(one: Predicate | None, other: Predicate | None) -> Predicate | None:
    """Return what picks the rows that both pick; None picks all."""
    if one is None or other is None:
        return one if other is None else other
    return Every((one, other))


@dataclass(frozen=True)
class Trace:
    """What is known of a trace.

    Attributes:
        rows: Its spans and logs in time, each once.
        events: Picks its prediction events.
        link: Its address elsewhere, where the spec declares one.
    """

    rows: pa.Table
    events: Predicate
    link: str | None


def trace_of(store: Store, spec: ModelSpec, trace_id: str) -> Trace:
    """Return what is known of a trace; no rows if nothing of it was taken in."""
    snapshot = spans.folder_of(store.root, spec.model).snapshot()
    if snapshot is None:
        rows = spans.SCHEMA.empty_table()
    else:
        rows = store.query(spans.of_traces_sql(snapshot.from_sql(), [trace_id]))
    declared = spec.spans
    events: Predicate = Comparison(TRACE_ID, "=", trace_id)
    if declared is not None and declared.attribute is not None:
        ids = rows["prediction_id"].drop_null().unique().to_pylist()
        events = Membership("prediction_id", tuple(ids)) if ids else events
    return Trace(rows, events, declared.link_to(trace_id) if declared is not None else None)


def traces_behind(
    store: Store, spec: ModelSpec, verdict: Verdict, *, limit: int
) -> tuple[Rows, Rows]:
    """Return the slowest and the failed requests that a verdict is about, of those with a trace.

    Failed are those without an answer and those with a stage that failed; the slowest of them come
    first. Both as `rows_of` gives them, without features.

    Args:
        store: The store.
        spec: A model that declares spans.
        verdict: Whose window, slice and version.
        limit: At most so many of each.
    """
    assert spec.spans is not None
    traced = NullTest("n_spans" if spec.columns.trace_id is None else TRACE_ID, negated=True)
    stages = (Membership(stage_status(n), FAILED) for n in spec.spans.stages)
    failed = Some((Not(Membership("status", ANSWERED)), *stages))

    def found(picked: Predicate) -> Rows:
        return rows_of(
            store,
            spec,
            (verdict.window,),
            together(verdict.picked, picked),
            limit=limit,
            version=verdict.version,
            slowest=verdict.time or LATENCY,
            brief=True,
        )

    return found(traced), found(together(traced, failed) or traced)
