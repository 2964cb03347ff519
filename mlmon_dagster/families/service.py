"""Family service: latency and errors of the serving system, and an unusual volume."""

from __future__ import annotations

from calendar import day_name
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast
from zoneinfo import ZoneInfo

import numpy as np

from mlmon_dagster.families.family import (
    Facts,
    Family,
    Measure,
    Profiles,
    plot_both,
    profiled_columns,
    profiled_metrics,
)
from mlmon_dagster.families.requests import declared_frame, served
from mlmon_dagster.metrics.objectives import RULES
from mlmon_dagster.monitors.change_wording import percent, plain
from mlmon_dagster.monitors.evidence import (
    MIN_COUNT,
    NO_DATA,
    OK,
    Case,
    Evidence,
    Window,
    excess,
    excess_of,
    failing,
    finite,
    not_measured,
    production,
)
from mlmon_dagster.monitors.wording import (
    compared,
    no_verdict,
    number,
    subject,
    threshold,
    write_limit,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import (
    CLASS_RATE,
    FAMILIES,
    PROMETHEUS,
    SPAN_COVERAGE,
    Condition,
    Objective,
)
from mlmon_dagster.spec.names import SERVICE, TABLE
from mlmon_dagster.spec.scalars import name_duration
from mlmon_dagster.spec.windows import PLACES
from mlmon_dagster.store.state.monitor_results import MonitorResult, Status
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.frames import MetricSample
    from mlmon_dagster.metrics.service import Volume
    from mlmon_dagster.spec.declaration import Granularity

BURN_RATE = "burn_rate"
_ROLES = {"p95_latency_ms": "latency_ms", "p99_latency_ms": "latency_ms", "error_rate": "status"}
_SHARES = ("error_rate", CLASS_RATE, "stage_error_rate", "stage_timeout_rate")
# As `metrics.service` names them, which is not imported before something is measured.
SPAN_METRICS = (
    "span_coverage", "span_error_bias", "span_latency_bias", "p50_stage_ms", "p95_stage_ms",
    "p99_stage_ms", "p50_stage_calls", "p95_stage_calls", "stage_error_rate", "stage_timeout_rate",
    "p50_tokens", "p95_tokens", "sum_tokens",
)  # fmt: skip
_COSTS = ("mean_cost", "sum_cost")
_SERVICE = (
    "n", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "error_rate", CLASS_RATE, PROMETHEUS
)  # fmt: skip
_AN = {"hour": "an"}
_MS = " (ms)"  # at the end of a name
STRANGE = 0.001  # chance below which a volume is no usual one


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail declared conditions; those on columns that the model does not log are left out.

    The volume is judged against its own past (see `judge_volume`).
    """
    spec = evidence.spec
    conditions: dict[str, Condition | None] = {
        metric: getattr(spec.monitors.service, metric) for metric in (*_ROLES, "n")
    }
    rows = [
        _judge_metric(evidence, window, metric, condition)
        for window in evidence.windows
        for metric, condition in conditions.items()
        if condition is not None
        and (metric == "n" or getattr(spec.columns, _ROLES[metric]) is not None)
    ]
    rows += [
        _judge_metric(evidence, window, metric, limit, name)
        for window in production(evidence)
        for (metric, name), limit in evidence.spec.monitors.service.limits.items()
    ]
    rows += [
        _judge_metric(evidence, window, metric, limit, name)
        for window in production(evidence)
        for metric, limit in _limits_of_costs(spec)
        for name in spec.priced_features
    ]
    rows += [row for window in production(evidence) for row in judge_volume(evidence, window)]
    return rows + [
        _judge_objective(evidence, window, objective)
        for window in production(evidence)
        for objective in evidence.spec.monitors.service.objectives
    ]


def _limits_of_costs(spec: ModelSpec) -> list[tuple[str, Condition]]:
    limits = ((name, getattr(spec.monitors.service, name)) for name in _COSTS)
    return [(name, limit) for name, limit in limits if limit is not None]


def _is_evident(condition: Condition, row: MetricSample) -> bool:
    """Say whether errors are more than chance: 3 of 200 are 1.5 %, and no evidence for above 1 %.

    Nor are 2 of 30, whose interval lies above that: of many quiet days one has them. Requests
    without spans are as many errors, where too few have any.
    """
    if condition.below is not None:
        missing = round((1 - row["value"]) * row["n"])
        return condition.below == 1 or (missing >= MIN_COUNT and row["upper"] < condition.below)
    if not condition.above:  # none at all are allowed
        return True
    return bool(row["lower"] > condition.above and round(row["value"] * row["n"]) >= MIN_COUNT)


def _judge_metric(
    evidence: Evidence, window: Window, metric: str, condition: Condition, column: str = TABLE
) -> MonitorResult:
    monitor = evidence.spec.monitors.service
    row, named = evidence.whole(window, metric, column), subject(metric, column)
    if metric == "n":
        n = int(window["n"])
        counted = {"value": float(n), "n": n, "reason": "", "method_version": "count-1"}
        row = cast("MetricSample", counted)  # a count has no interval
    case = Case(evidence, window, monitor, metric, column, row, threshold(condition))
    if row is None or row["reason"]:
        reason = str(row["reason"]) if row else not_measured(window)
        grain = evidence.spec.time.granularity
        message = no_verdict(named, reason, int(window["n"]), grain)
        return case.result(NO_DATA, message, reason=reason)
    failed = condition.fails(row["value"])
    if metric == SPAN_COVERAGE or (metric in _SHARES and condition.above is not None):
        failed = failed and _is_evident(condition, row)
    count = "" if metric in ("n", PROMETHEUS) else f" (n {int(row['n']):,})"
    unit = _unit(evidence, column) if metric in (PROMETHEUS, *_COSTS) else ""
    if _MS in named:
        named, unit = named.replace(_MS, ""), " ms"
    is_share = metric in (*_SHARES, SPAN_COVERAGE)
    write = percent if is_share else partial(_measured, unit=unit)
    value = write(row["value"])
    message = f"{named} is {value}{count}, {compared(condition, failed, write)}."
    if not failed and condition.fails(row["value"]):
        message = f"{named} is {value}{count}, too few "
        message += "requests" if metric == SPAN_COVERAGE else "errors"
        message += f" to tell whether that is {threshold(condition, write)}."
    status: Status = failing(monitor, condition.is_error(row["value"])) if failed else OK
    reason = ""
    if failed and metric == "n" and condition.below is not None and window.get("holiday"):
        status, reason = NO_DATA, "holiday"
        message += f" It is a holiday ({window['holiday']}), so that is no alert."
    return case.result(status, message, reason=reason, **excess_of(condition, row))


def _measured(value: float, unit: str) -> str:
    """Write a number with its unit; a count has no decimals.

    Example:
        >>> _measured(60.0, ""), _measured(83.26, " ms")
        ('60', '83.3 ms')
    """
    return f"{value:,.0f}{unit}" if value == round(value) else f"{number(value)}{unit}"


def _unit(evidence: Evidence, name: str) -> str:
    if (feature := evidence.spec.features.get(name)) is not None:
        return f" {feature.unit}" if feature.unit else ""
    asked = evidence.spec.monitors.service.prometheus
    own = asked.metrics.get(name) if asked else None
    return f" {own.unit}" if own and own.unit else ""


def _judge_objective(evidence: Evidence, window: Window, objective: Objective) -> MonitorResult:
    """Fail a window in which an objective's budget burned too fast, see `metrics.objectives`.

    Hours and minutes that would wake somebody up are an ERROR, days are a WARN; both stand alone.
    """
    monitor, facts = evidence.spec.monitors.service, window["burned"][objective.name]
    found, left = facts["burn"], finite(facts["left"])
    limit = f"above {write_limit((found.rule or RULES[-1]).factor)}"
    case = Case(evidence, window, monitor, BURN_RATE, objective.name, threshold=limit)
    fields: dict[str, Any] = {
        "method_version": "burn-1",
        "n": found.n,
        "value": finite(found.burn),
        "k": 1,
        "of_n": 1,
        "details": {"left": None if left is None else round(left, 4), "target": objective.target},
    }
    remains = "" if left is None else f" {_of_budget(left, objective)}"
    if found.rule is not None:
        fields["details"] |= {"rule": found.rule.name, "since": f"{facts['since']:%Y-%m-%dT%H:%MZ}"}
        zone = ZoneInfo(evidence.spec.time.zone)
        since, until = (facts[name].astimezone(zone) for name in ("since", "until"))
        message = (
            f"{objective.name} burned its budget {found.burn:.3g} times too fast, "
            f"from {since:%d %b %H:%M} to {until:%d %b %H:%M}.\n"
            f"The rule {found.rule.name} fails from {found.rule.factor:g} times the even rate on, "
            f"over {name_duration(found.rule.long)} and {name_duration(found.rule.short)}.{remains}"
        )
        status = monitor.severity if found.rule is RULES[-1] else "ERROR"
        fields |= excess(found.burn, found.rule.factor)
        return case.result(status, message, **fields)
    if found.too_few(objective.target):
        return case.unjudged("few_requests", objective.name, **fields)
    message = (
        f"{objective.name} burns its budget at {found.burn:.3g} times the even rate, not above "
        f"{RULES[-1].factor:g}.{remains}"
    )
    fields |= excess(found.burn, RULES[-1].factor)
    return case.result(OK, message, **fields)


def _of_budget(left: float, objective: Objective) -> str:
    days = f"{objective.over.days} days"
    if left < 0:
        return f"The budget of {days} is spent {1 - left:.3g} times."
    return f"{percent(left)} of the budget of {days} is left."


def judge_volume(evidence: Evidence, window: Window) -> Iterator[MonitorResult]:
    """Fail a window with far fewer, or more, rows than its place in the week usually has.

    It needs `MIN_WINDOWS` earlier windows with rows (`earlier_places` and `earlier_sizes` of the
    window), of hours as many of the same hour; before that there is no row. A window that would
    fail on a `holiday` is NO_DATA. Of the last window of an export, the time until its last event
    counts (`covered`), which says nothing of a rise. An empty window is the business of freshness,
    and one whose rows were refused that of the schema: neither has a row here.
    """
    from mlmon_dagster.metrics import MIN_WINDOWS
    from mlmon_dagster.metrics.service import Volume

    sizes = window.get("earlier_sizes", ())
    refused = window["schema_broken"] or window["refused_because"]
    if not window["n"] or refused or len(sizes) < MIN_WINDOWS:
        return
    volume = Volume(
        int(window["n"]),
        int(window["place"]),
        np.asarray(window["earlier_places"]),
        np.asarray(sizes),
        PLACES.get(evidence.spec.time.granularity, 1),
        float(window.get("covered", 1.0)),
    )
    monitor = evidence.spec.monitors.service
    if monitor.volume_drop is not None and volume.is_known:
        yield _judge_change(evidence, window, volume, "volume_drop", monitor.volume_drop, -1)
    if monitor.volume_rise is not None and volume.is_known and volume.covered == 1:
        yield _judge_change(evidence, window, volume, "volume_rise", monitor.volume_rise, 1)


def _judge_change(
    evidence: Evidence,
    window: Window,
    volume: Volume,
    metric: str,
    condition: Condition,
    side: Literal[-1, 1],
) -> MonitorResult:
    from mlmon_dagster.metrics.service import is_passing

    monitor, holiday = evidence.spec.monitors.service, window.get("holiday")
    share = side * volume.change + 0.0  # no negative zero
    grain = evidence.spec.time.granularity
    failed = condition.fails(share) and volume.chance < STRANGE
    message = f"{volume.n:,} predictions, "
    if failed and side > 0:
        message += _describe_rise(volume, grain)
    else:
        message += f"{abs(share) * 100:.0f} % {'more' if volume.change > 0 else 'fewer'} than the "
        message += f"usual {volume.usual:,.0f} of such "
        message += f"{_AN.get(grain, 'a')} {grain}"
        message += " until its last event" if volume.covered < 1 else ""
    if condition.fails(share) and not failed:
        message += "; the volume varies as much anyway"
    status: Status = OK
    if failed and holiday:
        message += f"; it is a holiday ({holiday}), so that is no alert"
        status = NO_DATA
    elif failed:
        status = monitor.severity if side < 0 else "WARN"
    # Without an excess the next usual window ends the alert: Good Friday and Easter Monday, with a
    # usual weekend between them, are no condition that comes and goes.
    is_brief = failed and is_passing(side * volume.changes, condition.bound)
    return Case(evidence, window, monitor, metric, threshold=threshold(condition)).result(
        status,
        message + ".",
        reason="holiday" if status == NO_DATA else "",
        value=share,
        baseline_value=volume.usual,
        method_version="volume-2",
        details={"usual": round(volume.usual, 1), "measured": ""},
        **({} if is_brief else excess(share, condition.bound)),
    )


def _describe_rise(volume: Volume, granularity: Granularity) -> str:
    alike, when = volume.alike, f"{_AN.get(granularity, 'a')} {granularity}"
    if granularity in PLACES and len(alike):
        day, hour = divmod(volume.place, PLACES[granularity] // 7)
        when = f"on {day_name[day]}s" + (f" at {hour:02}:00" if granularity == "hour" else "")
    sizes = alike if len(alike) else volume.sizes
    low, high = (f"{float(f'{size:.3g}'):,.0f}" for size in (sizes.min(), sizes.max()))
    usual = low if low == high else f"{low} to {high}"
    times = plain(float(f"{volume.n / volume.usual:.2g}"))
    return f"usually {usual} {when}: {'twice' if times == '2' else f'{times} times'} as many"


def _frame(comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    from mlmon_dagster.metrics.frames import concat_frames

    profiled = profiled_metrics(SERVICE, comparison, profiles)
    return concat_frames([profiled, declared_frame(comparison.work)])


def _version(version: str, _: WindowInputs, facts: Facts) -> str:
    version += ":refused" if facts["refused_because"] else ""
    return f"{version}:{facts['answers']}" if facts["answers"] else version


def _limits(spec: ModelSpec) -> str:
    names = ("p95_latency_ms", "p99_latency_ms", "error_rate", "n", "volume_drop", "volume_rise")
    limits: dict[str, Condition | None] = {
        name: getattr(spec.monitors.service, name) for name in names
    }
    stated = [
        f"{name} {'above' if c.above is not None else 'below'} {c.bound:g}"
        for name, c in limits.items()
        if c is not None
    ]
    by_name = dict(spec.monitors.service.limits)
    by_name |= {(m, name): c for m, c in _limits_of_costs(spec) for name in spec.priced_features}
    stated += [
        f"{_limited(metric, name)} {'above' if c.above is not None else 'below'} {c.bound:g}"
        for (metric, name), c in by_name.items()
    ]
    promised = [f"{o.name}: {o.target:.4%} good" for o in spec.monitors.service.objectives]
    return " ".join(
        text
        for text, said in (
            (f"Fails at {', '.join(stated)}.", stated),
            (f"Objectives whose budgets must not burn: {', '.join(promised)}.", promised),
        )
        if said
    )


def _limited(metric: str, name: str) -> str:
    if metric in (CLASS_RATE, PROMETHEUS):
        return name
    return metric if name == TABLE else f"{metric} of {name}"


def _serves(spec: ModelSpec) -> bool:
    service, columns = spec.monitors.service, spec.columns
    latency = service.p95_latency_ms or service.p99_latency_ms
    return bool(
        service.n
        or (columns.latency_ms and latency)
        or (columns.status and service.error_rate)
        or service.objectives
        or service.limits
        or (spec.priced_features and _limits_of_costs(spec))
    )


FAMILY = Family(
    FAMILIES[SERVICE],
    judge,
    _limits,
    measure=Measure(
        partial(profiled_columns, SERVICE),
        _frame,
        lambda spec: "nothing",
        plot_both(lambda metric: metric in (*_SERVICE, *_COSTS, *SPAN_METRICS)),
    ),
    is_watched=_serves,
    metrics=lambda spec: (
        *_SERVICE,
        *(_COSTS if spec.priced_features else ()),
        *(SPAN_METRICS if spec.spans else ()),
    ),
    facts=served,
    version=_version,
)
