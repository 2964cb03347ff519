"""Rules that no single field of a spec can check alone: how its parts fit together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import names
from mlmon_dagster.spec.alerting import policy_problems
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import (
    alias_problems,
    attributed,
    attribution_problems,
    effect_problems,
    is_slow,
    outcome_problems,
    retention_problems,
)
from mlmon_dagster.spec.derived import description_problems
from mlmon_dagster.spec.evaluations import FORMAT, evaluation_problems
from mlmon_dagster.spec.holidays import holiday_problem
from mlmon_dagster.spec.metric_registry import BINARY, GENERATION, METRICS, MetricFamily
from mlmon_dagster.spec.monitors import DISTANCES, BusinessMonitor, Monitor, Prometheus
from mlmon_dagster.spec.names import (
    DRIFT,
    ESTIMATED_PERFORMANCE,
    FRESHNESS,
    OUTPUTS,
    QUALITY,
    SERVICE,
    VERSIONS,
    FieldPath,
    Found,
    offer,
    place_below,
    say_if,
)
from mlmon_dagster.spec.predicate import columns_of_spans, parse_predicate, predicate_columns
from mlmon_dagster.spec.scalars import MAX_HOURLY_WINDOWS, shown
from mlmon_dagster.spec.sources import FileSource, in_place_problems, source_problems
from mlmon_dagster.spec.spans import span_problems
from mlmon_dagster.spec.tasks import (
    class_scores,
    estimate_problems,
    estimated,
    metric_problem,
    monitored_subject_problem,
    residual,
    task_problems,
)

if TYPE_CHECKING:
    from mlmon_dagster.spec.declaration import Declaration


_MOST_SLICE_COLUMNS = 3
# Of what objectives promise: the slowest rule looks at three days, and records are read again.
SHORTEST_OBJECTIVE, LONGEST_OBJECTIVE = dt.timedelta(days=3), dt.timedelta(days=92)
_SLICEABLE = ("categorical", "boolean")
_NO_VERSIONS = "needs columns.model_version, or spans.version"


class Problem(NamedTuple):
    """One thing wrong with a spec, and where: ``("features", "temp")``."""

    path: FieldPath
    message: str


def find_problems(spec: Declaration, without: Collection[str] = ()) -> list[Problem]:
    """Return everything that does not fit together in a spec, in the order of its parts.

    Args:
        spec: The spec.
        without: Fields that are missing or wrong; rules that read them are left out.
    """
    return [
        Problem(path, said)
        for rule, fields in _RULES.items()
        if not any(field in without for field in fields)
        for path, said in rule(spec)
    ]


def _model(spec: Declaration) -> Found:
    yield from say_if(("model",), names.model_problem(spec.model))


def _owners(spec: Declaration) -> Found:
    if not spec.owners:
        yield ("owners",), "at least one owner is needed, such as team:ml-platform"
    for index, owner in enumerate(spec.owners):
        yield from say_if(("owners", index), names.owner_problem(owner))


def _spans(spec: Declaration) -> Found:
    if spec.spans is not None:
        logs_trace = spec.columns.trace_id is not None
        yield from span_problems(spec.spans, logs_trace=logs_trace)
        taken = {*spec.features, *spec.columns.outcomes}
        for column in spec.spans.columns:
            place: FieldPath = ("spans", "columns", column)
            yield from say_if(place, names.feature_problem(column))
            if column in taken:
                yield place, f"'{column}' is a feature or an outcome; choose another name"


def readable_columns(spec: Declaration) -> list[str]:
    """Return the columns of inference records that a custom metric may read."""
    logged = [*class_scores(spec).values(), *attributed(spec).values()]
    return [*predicate_columns(spec), *logged]


def _metrics(spec: Declaration) -> Found:
    known, seen = readable_columns(spec), set[str]()
    taken = {*METRICS, *DISTANCES, *map(estimated, METRICS), *map(residual, METRICS)}
    for index, one in enumerate(spec.metrics):
        where: FieldPath = ("metrics", index)
        if one.series in taken or one.series in seen:
            yield where, f"'{one.series}' is a metric already; write another name"
        seen.add(one.series)
        for column in one.columns:
            if column not in known:
                yield (*where, "columns"), f"'{column}' is not a column{offer(column, known)}"
        if one.is_of_truth and not spec.has_actuals:
            yield where, f"{one.series} needs ground truth; declare source.actuals"
        yield from _check_reader(where, one)


def _check_reader(where: FieldPath, monitor: Monitor) -> Found:
    """Check who is told of a monitor's failure, and what they read."""
    if monitor.owner is not None:
        yield from say_if((*where, "owner"), names.owner_problem(monitor.owner))
    if monitor.runbook is not None and not monitor.runbook.startswith(("https://", "http://")):
        yield (*where, "runbook"), "a runbook is an http(s) address"


def _alerts(spec: Declaration) -> Found:
    yield from place_below(("alerts",), policy_problems(spec.alerts))


def _time(spec: Declaration) -> Found:
    time = spec.time
    problem = names.zone_problem(time.zone)
    yield from say_if(("time", "zone"), problem)
    for entry in time.holidays:
        yield from say_if(("time", "holidays"), holiday_problem(entry))
    for name in ("start", "end"):
        day = getattr(time, name)
        if day is not None and not 1970 <= day.year <= 2200:
            yield ("time", name), f"{day} is not between the years 1970 and 2200"
            return
    if time.end is not None and time.end <= time.start:
        yield ("time", "end"), f"{time.end} is not after time.start, {time.start}"
    elif time.granularity == "hour":
        yield from _hours(spec, zone_known=problem is None)


def _hours(spec: Declaration, zone_known: bool) -> Found:
    time = spec.time
    if time.end is not None and (count := (time.end - time.start).days * 24) > MAX_HOURLY_WINDOWS:
        yield (
            ("time", "granularity"),
            f"{count:,} hourly windows from {time.start} to {time.end} are more than "
            f"{MAX_HOURLY_WINDOWS:,}; use day, or a shorter time",
        )
    if zone_known and _changes_by_part_of_an_hour(time.zone, time.start, time.end):
        # Dagster's hours drift off the clock there: the key 02:30 stands for 03:00.
        yield (
            ("time", "granularity"),
            f"clocks in {time.zone} change by less than an hour, which hourly windows cannot "
            "follow; use zone: UTC or granularity: day",
        )


def _changes_by_part_of_an_hour(zone: str, start: dt.date, end: dt.date | None) -> bool:
    hour = dt.timedelta(hours=1)
    first = dt.datetime(start.year, start.month, start.day, tzinfo=ZoneInfo(zone))
    days = (end - start).days if end else 3650
    offsets = ((first + dt.timedelta(days=n)).utcoffset() for n in range(0, min(days, 3650) + 1, 7))
    return len({offset % hour for offset in offsets if offset is not None}) > 1


def _source(spec: Declaration) -> Found:
    for stream, source in spec.source:
        if source is not None:
            found = source_problems(source, spec.columns.declared())
            yield from place_below(("source", stream), found)
    if isinstance(spec.source.actuals, FileSource) and spec.source.actuals.spans is not None:
        yield ("source", "actuals", "spans"), "is of predictions; a call is a span"
    events = spec.source.predictions
    if isinstance(events, FileSource) and events.spans is not None and spec.spans is None:
        said = "declare spans, such as spans: {sampling: unbiased}, for calls to be taken"
        yield ("source", "predictions", "spans"), said
    if spec.source.actuals is not None and spec.columns.actual is None:
        yield ("columns",), "source.actuals needs columns.actual, the ground truth's name"
    yield from place_below(("source",), in_place_problems(spec.source))
    if spec.source.predictions.in_place and spec.spans is not None:
        yield ("spans",), "spans need rows of files; leave out in_place"
    closed, expected = spec.actuals.closed_after, spec.actuals.expected_within
    if closed is not None and expected is not None and closed < expected:
        yield (("actuals", "closed_after"), "a window closes before its actuals are expected")


def _actuals(spec: Declaration) -> Found:
    yield from say_if(("actuals", "no_actual_when"), _no_actual_problem(spec))


def _expectations(spec: Declaration) -> Found:
    for index, expectation in enumerate(spec.expectations):
        if expectation.stream == "actuals" and spec.source.actuals is None:
            where: FieldPath = ("expectations", index, "stream")
            yield where, "the model has no ground truth; declare source.actuals"


def _evaluations(spec: Declaration) -> Found:
    where: FieldPath = ("evaluations",)
    if spec.task != GENERATION:
        if spec.evaluations:
            yield where, f"evaluations are for {GENERATION}, not for {spec.task}"
        return
    if not spec.evaluations:
        said = "at least one is needed, such as correct: {by: human, good: [correct]}"
        yield where, said
    yield from place_below(where, evaluation_problems(spec.evaluations, {*spec.features}))
    source = spec.source.actuals
    if source is None:
        yield ("source",), "declare actuals, where evaluations come from"
    elif not isinstance(source, FileSource):
        yield ("source", "actuals"), "evaluations are read from files; write path"
    elif source.format not in ("auto", FORMAT):
        yield ("source", "actuals", "format"), f"of evaluations is {FORMAT}; leave it out"


def _effects(spec: Declaration) -> Found:
    for index, effect in enumerate(spec.effects):
        yield from place_below(("effects", index), effect_problems(spec, effect))


def _columns(spec: Declaration) -> Found:
    roles = spec.columns.declared()
    for role, name in roles.items():
        if ":" not in role and role not in ("group", "rank", "examined", *spec.columns.outcomes):
            yield from say_if(("columns", role), names.column_problem(name))
    for index, part in enumerate(spec.columns.id_parts):
        yield from say_if(("columns", "prediction_id", index), names.column_problem(part))
        if part in spec.columns.id_parts[:index]:
            yield ("columns", "prediction_id", index), f"'{part}' is listed twice"
    for later, earlier in names.collisions([*spec.features, *roles.values()]):
        where = next((("columns", r) for r, name in roles.items() if name == later), None)
        yield (
            where or ("features", later),
            f"'{later}' and '{earlier}' differ in upper and lower case only; SQL sees one column",
        )


def _features(spec: Declaration) -> Found:
    if not spec.features:
        yield ("features",), "at least one feature is needed"
    yield from alias_problems(spec)
    for name in spec.logged_features:
        yield from say_if(("features", name), names.feature_problem(name))
        for index, message in description_problems(spec.features[name].describe):
            yield ("features", name, "describe", index), message
        if (source := spec.features[name].from_) is not None:
            yield from say_if(("features", name, "from"), names.column_problem(source))
        if name == spec.columns.actual:
            yield ("features", name), f"'{name}' is the ground truth, not a feature"


def _prices(spec: Declaration) -> Found:
    """Yield what prices name that is no column of the kind they need."""
    numbers = [name for name, feature in spec.logged_features.items() if feature.type == "numeric"]
    texts = [name for name, f in spec.logged_features.items() if f.type == "categorical"]
    texts += ["model_version"] if spec.has_versions else []
    for name, feature in spec.derived_features.items():
        if (prices := feature.prices) is None:
            continue
        where = ("features", name, "prices")
        yield from say_if(("features", name), names.feature_problem(name))
        if prices.by not in texts:
            said = f"{shown(prices.by)} is no categorical feature{offer(prices.by, texts)}"
            yield (*where, "by"), said
        for value, own in prices.of.items():
            if not own:
                yield (*where, "of", value), "names no feature that has a price"
            for amount in own:
                if amount not in numbers:
                    said = f"{shown(amount)} is no numeric feature{offer(amount, numbers)}"
                    yield (*where, "of", value, amount), said


def _baseline(spec: Declaration) -> Found:
    yield from say_if(("baseline",), spec.baseline.problem(spec.time.granularity))
    kind, declared = spec.baseline.kind, "baseline" in spec.model_fields_set
    if kind == "model_version" and not spec.has_versions:
        yield (("baseline", "model_version"), _NO_VERSIONS)
    if declared and kind == "dataset" and not spec.names_datasets:
        message = f"a baseline of the dataset '{spec.baseline.dataset}' needs columns.dataset"
        yield ("baseline",), message + ", or datasets; or write {moving: 28d}"


def _slices(spec: Declaration) -> Found:
    seen = set()
    for index, key in enumerate(spec.slices):
        where: FieldPath = ("slices", index)
        if not 1 <= len(key) <= _MOST_SLICE_COLUMNS or len(set(key)) < len(key):
            yield where, f"a slice has 1 to {_MOST_SLICE_COLUMNS} different columns"
        if frozenset(key) in seen:
            yield where, f"the slice {' x '.join(key)} is listed twice"
        seen.add(frozenset(key))
        for column in key:
            yield from say_if(where, _slice_column_problem(spec, column))


def _slice_column_problem(spec: Declaration, column: str) -> str | None:
    of_spans = spec.spans.columns if spec.spans is not None else {}
    if column in of_spans or (column == "model_version" and spec.has_versions):
        return None
    fit = [
        n for n, f in spec.features.items() if f.type in _SLICEABLE and not f.pii and not is_slow(f)
    ]
    fit += of_spans
    feature = spec.features.get(column)
    if feature is None:
        return f"'{column}' is not a feature{offer(column, fit, called='Can be sliced by')}"
    if feature.type not in _SLICEABLE:
        return f"'{column}' is {feature.type}; slices are by categorical or boolean features"
    if is_slow(feature):
        return f"'{column}' is computed for a sample of rows; slices need it of every row"
    return f"'{column}' is marked pii; its values may not be shown" if feature.pii else None


def _monitors(spec: Declaration) -> Found:
    for path, monitor in spec.monitors.each():
        yield from _check_reader(("monitors", *path), monitor)
    for family in (QUALITY, DRIFT):
        yield from _monitored_columns(spec, family)
    other = spec.monitors.drift.baseline
    said = other.problem(spec.time.granularity, own=True) if other else None
    yield from say_if(("monitors", DRIFT, "baseline"), said)
    if other and other.kind == "model_version" and not spec.has_versions:
        yield (("monitors", DRIFT, "baseline"), _NO_VERSIONS)
    if not spec.monitors.freshness.no_data_for:
        yield ("monitors", FRESHNESS, "no_data_for"), "must be longer than 0s"
    for family in get_args(MetricFamily):
        if family in spec.monitors.model_fields_set:
            yield from _performance(spec, family)
    if ESTIMATED_PERFORMANCE in spec.monitors.model_fields_set:
        yield from estimate_problems(spec)
    yield from _service(spec)
    yield from _versions(spec)


def _monitored_columns(spec: Declaration, family: str) -> Found:
    monitor = getattr(spec.monitors, family)
    known = [*spec.features, *(r for r in OUTPUTS if getattr(spec.columns, r))]
    yield from _known_columns(("monitors", family, "columns"), monitor.columns, known)


def _known_columns(
    where: FieldPath, declared: Literal["all"] | tuple[str, ...], known: list[str]
) -> Found:
    columns = () if declared == "all" else declared
    for index, column in enumerate(columns):
        if column in columns[:index]:
            yield (*where, index), f"'{column}' is listed twice"
        elif column not in known:
            yield (*where, index), f"'{column}' is not a feature{offer(column, known)}"


def _performance(spec: Declaration, family: MetricFamily) -> Found:
    declared = getattr(spec.monitors, family)
    seen: set[str] = set()
    for index, monitor in enumerate(declared):
        where: FieldPath = ("monitors", family, index)
        if monitor.series in seen:
            yield where, f"{monitor.series} is monitored twice; keep one"
        seen.add(monitor.series)
        other = METRICS[monitor.metric].family
        if other != family:
            moved = f"{monitor.metric} is of {other}; write it under monitors.{other}"
            yield where, moved
        yield from say_if(where, metric_problem(spec, monitor.metric))
        what = "outcome" if isinstance(monitor, BusinessMonitor) else "evaluation"
        yield from say_if((*where, what), monitored_subject_problem(spec, monitor))
    if declared and not spec.has_actuals:
        yield (
            ("monitors", family),
            f"{family} needs ground truth: declare source.actuals and columns.actual",
        )


def _service(spec: Declaration) -> Found:
    service = spec.monitors.service
    for metric, role in (
        ("p95_latency_ms", "latency_ms"),
        ("p99_latency_ms", "latency_ms"),
        ("error_rate", "status"),
    ):
        if metric in service.model_fields_set and getattr(spec.columns, role) is None:
            yield (("monitors", SERVICE, metric), f"{metric} needs columns.{role}; declare it")
    seen: set[str] = set()
    for index, objective in enumerate(service.objectives):
        where: FieldPath = ("monitors", SERVICE, "objectives", index)
        if objective.name in seen:
            yield (*where, "name"), f"'{objective.name}' is declared twice"
        seen.add(objective.name)
        yield from say_if((*where, "good"), _served_problem(spec, objective.good))
        if not SHORTEST_OBJECTIVE <= objective.over <= LONGEST_OBJECTIVE:
            said = f"between {SHORTEST_OBJECTIVE.days} and {LONGEST_OBJECTIVE.days} days"
            yield (*where, "over"), said
    for name, declared in service.classes.items():
        place = ("monitors", SERVICE, "classes", name, "when")
        yield from say_if(place, _served_problem(spec, declared.when, of_spans=True))
    if service.prometheus is not None:
        yield from _prometheus(service.prometheus)
    for name in ("mean_cost", "sum_cost"):
        if getattr(service, name) is not None and not spec.priced_features:
            yield (("monitors", SERVICE, name), f"{name} needs a feature with prices; declare one")
    if service.span_coverage is not None and spec.spans is None:
        yield (("monitors", SERVICE, "span_coverage"), "span_coverage needs spans; declare them")
    known = spec.spans.stages if spec.spans is not None else {}
    for stage in set(service.stages) - set(known):
        hint = names.did_you_mean(stage, known) or "; declare it"
        yield (("monitors", SERVICE, "stages", stage), f"{stage!r} is not among spans.stages{hint}")


def _prometheus(declared: Prometheus) -> Found:
    where: FieldPath = ("monitors", SERVICE, "prometheus")
    if (declared.url is None) == (declared.url_env is None):
        yield (where, "Prometheus needs url, or url_env if the address is a secret; not both")
    if declared.url is not None:
        yield from say_if((*where, "url"), names.web_address_problem(declared.url))


def _untold(dataset: str) -> str:
    return f"events of dataset '{dataset}' need columns.dataset, or datasets"


def _versions(spec: Declaration) -> Found:
    monitor, where = spec.monitors.versions, ("monitors", VERSIONS)
    seen: set[str] = set()
    for index, one in enumerate(monitor.compare):
        place: FieldPath = (*where, "compare", index)
        if one.gain in seen:
            yield place, f"{one.metric} of a {one.how} is compared twice; keep one"
        seen.add(one.gain)
        canary = monitor.canary
        if canary is not None and one.share is not None and one.split != canary.split:
            yield place, "the split of one canary is watched; the other has another share"
        yield from say_if(place, metric_problem(spec, one.metric))
        if one.metric == "brier" and spec.task != BINARY:
            yield place, f"brier is compared of two scores of a class; not for {spec.task}"
        if not spec.has_actuals:
            yield place, "versions are compared by ground truth: declare columns.actual"
        if one.dataset is not None and not spec.names_datasets:
            yield place, _untold(one.dataset)
        if one.champion is not None and not spec.has_versions:
            yield place, "versions are distinguished by columns.model_version; declare it"
    if monitor.staleness is not None and not spec.has_versions:
        yield (*where, "staleness"), _NO_VERSIONS
    skew = monitor.skew
    if skew is None:
        return
    if skew.dataset == PRODUCTION:
        yield ((*where, "skew", "dataset"), "production is what another dataset is held against")
    if not spec.names_datasets:
        yield (*where, "skew"), _untold(skew.dataset)
    yield from _known_columns((*where, "skew", "columns"), skew.columns, [*spec.features])


_TASK_FIELDS = (
    "task", "columns", "features", "slices", "classes", "costs", "fairness", "top_k", "top_share",
    "quantile",
)  # fmt: skip
_MONITOR_FIELDS = (
    "task", "time", "source", "columns", "features", "monitors", "costs", "fairness",
)  # fmt: skip
# Each rule, and the fields that it reads.
_RULES: dict[Callable[[Declaration], Found], tuple[str, ...]] = {
    _model: ("model",),
    task_problems: _TASK_FIELDS,
    _owners: ("owners",),
    _time: ("time",),
    _source: ("source", "columns", "actuals", "spans"),
    _actuals: ("actuals", "columns", "features", "time"),
    _columns: ("columns", "features"),
    attribution_problems: ("task", "columns", "features", "monitors", "explain"),
    _spans: ("columns", "features", "spans"),
    _expectations: ("source", "expectations"),
    outcome_problems: ("source", "columns", "features"),
    _evaluations: ("task", "source", "features", "evaluations"),
    _effects: ("task", "source", "columns", "features", "effects"),
    _features: ("columns", "features"),
    _prices: ("columns", "features", "spans"),
    _baseline: ("columns", "baseline", "time"),
    _slices: ("columns", "features", "slices", "spans"),
    _monitors: _MONITOR_FIELDS,
    _metrics: ("task", "source", "columns", "features", "spans", "metrics"),
    _alerts: ("alerts",),
    retention_problems: ("actuals", "retention"),
}


def _no_actual_problem(spec: Declaration) -> str | None:
    """Say what is wrong with ``no_actual_when``; None if nothing is."""
    text = spec.actuals.no_actual_when
    return None if text is None else _served_problem(spec, text)


def _served_problem(spec: Declaration, text: str, *, of_spans: bool = False) -> str | None:
    """Say what is wrong with a predicate on what is known when a request is answered.

    What spans tell is not known of every request, so that only classes may be made of it.
    """
    columns = predicate_columns(spec)
    later = () if of_spans else columns_of_spans(spec)
    # Known only where there is ground truth.
    for role in ("actual", "actual_time", *spec.columns.outcomes, *later):
        columns.pop(role, None)
    try:
        parse_predicate(text, columns, spec.time.zone)
    except ConfigError as error:
        return str(error)
    return None
