"""From Dagster to the outbox: what failed becomes observations, then alerts are dispatched.

Runs, checks, ticks and daemons that fail are looked up again and again within the last two days.
Looking twice at the same failure is harmless,
so no cursor can lose one. Times are Dagster's own, of the real clock, whatever moment the project
is replayed at. That all is well again is written only where something was not.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import dagster as dg

from mlmon_dagster.alerts.lifecycle.pipeline_failures import (
    Kind,
    Observed,
    RunFailure,
    RunSuccess,
    Unsettled,
    observe_runs,
    settle_failures,
    unsettled,
)
from mlmon_dagster.defs.assets import (
    BACKFILL_TAG,
    OVERVIEW_KEY,
    SHARED,
    asset_key,
    step_of_key,
)
from mlmon_dagster.defs.instance import MODEL_TAG, ONE_OF_MANY, UNFINISHED, models_of
from mlmon_dagster.defs.metadata import safe_metadata
from mlmon_dagster.defs.private_dagster import TickStatus
from mlmon_dagster.pipeline.receivers import receivers
from mlmon_dagster.project import Project
from mlmon_dagster.spec import BrokenModel, ModelSpec
from mlmon_dagster.spec.steps import assets_of

if TYPE_CHECKING:
    from mlmon_dagster.alerts.dispatching import DispatchReport


LOOK_BACK = dt.timedelta(hours=48)
PAGE = 200
MAX_PAGES = 25
STUCK_AFTER = {
    dg.DagsterRunStatus.NOT_STARTED: dt.timedelta(minutes=15),
    dg.DagsterRunStatus.STARTING: dt.timedelta(minutes=15),
    dg.DagsterRunStatus.STARTED: dt.timedelta(hours=3),
    dg.DagsterRunStatus.CANCELING: dt.timedelta(minutes=30),
}
SENSORS = (f"{SHARED}_planner", f"{SHARED}_alert_dispatcher")


def dispatch_alerts(
    project: Project,
    specs: Sequence[ModelSpec],
    instance: dg.DagsterInstance | None,
    now: dt.datetime,
    broken: Sequence[BrokenModel] | None = None,
) -> DispatchReport:
    """Note what failed in Dagster, fold verdicts into alerts and deliver what is due.

    Args:
        project: Where the state is.
        specs: All the models.
        instance: Dagster's instance, to find what failed; None leaves it out.
        now: The time for repeats and silences.
        broken: Declarations that do not load, all of them; what is known of their models waits.
            None if nobody looked.
    """
    from mlmon_dagster.alerts.dispatching import dispatch
    from mlmon_dagster.alerts.messages.view import dagster_links, page_links
    from mlmon_dagster.alerts.receivers.worker import ping
    from mlmon_dagster.report.events import describe_period
    from mlmon_dagster.store.state import model_history

    backfilling: set[str] = set()
    if broken is not None:
        observe_declarations(project, broken, now)
    if instance is not None:
        observe_dagster(project, specs, instance, now)
        backfilling = set(_backfilling(instance))
    prefixes = {spec.model: spec.key_prefix for spec in specs if spec.key_prefix}
    report = dispatch(
        project.store,
        specs,
        now,
        receivers(project, specs),
        environment=project.environment,
        links=page_links(project.pages_url, dagster_links(project.ui_url, prefixes)),
        backfilling=backfilling,
        ops_channel=project.ops_channel,
        broken=broken or (),
        with_plots=True,
        describe=describe_period,
    )
    # The real clock: whoever watches this process lives in real time.
    model_history.note_beat(project.store.state, model_history.DISPATCHER, project.store.clock())
    if project.heartbeat_url and (problem := ping(project.heartbeat_url)):
        report.delivery.errors.append(problem)
    return report


def _backfilling(instance: dg.DagsterInstance) -> Iterator[str]:
    """Yield the models of which a backfill is going on, as far as Dagster knows."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        tags: Mapping[str, str] = record.dagster_run.tags
        if BACKFILL_TAG in tags or "dagster/backfill" in tags:
            yield from models_of(record.dagster_run)


NAME = "alert_delivery"
CURE = "Run mlmon alerts deliver; if they stay, mlmon alerts list shows what was not sent."
TOO_LONG = dt.timedelta(hours=24)


def delivery_check(project: Project, specs: Sequence[ModelSpec]) -> dg.AssetChecksDefinition:
    """Return the check of the overview that fails while messages are dead or wait for a day."""

    @dg.asset_check(
        asset=OVERVIEW_KEY,
        name=NAME,
        metadata={"owners": ", ".join(dict.fromkeys(o for spec in specs for o in spec.owners))},
        description="Fails when a message was refused for good or has waited for a day, or when "
        "a change of an alert is in no message. The "
        "dispatcher evaluates it too, as soon as that changes.",
    )
    def alert_delivery() -> dg.AssetCheckResult:
        passed, said, numbers = _look(project, specs)
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=said,
            metadata=safe_metadata(numbers),
        )

    return alert_delivery


def report_delivery(
    instance: dg.DagsterInstance, project: Project, specs: Sequence[ModelSpec], known: str | None
) -> str:
    """Evaluate the check outside of a run if its answer has changed.

    Args:
        instance: Where the evaluation is shown.
        project: Whose outbox it is.
        specs: All the models.
        known: The answer that was shown last; None if that is not known.

    Returns:
        The answer now.
    """
    passed, said, numbers = _look(project, specs)
    answer = "delivered" if passed else said
    if answer != (known or "delivered"):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=OVERVIEW_KEY,
                check_name=NAME,
                passed=passed,
                severity=dg.AssetCheckSeverity.ERROR,
                description=said,
                metadata=safe_metadata(numbers),
            )
        )
    return answer


def _look(project: Project, specs: Sequence[ModelSpec]) -> tuple[bool, str, dict[str, object]]:
    from mlmon_dagster.alerts.messages.incidents import count_untold
    from mlmon_dagster.store.clocks import measure_age
    from mlmon_dagster.store.outbox import outbox_health

    health = outbox_health(project.store.state)
    oldest = health.oldest_waiting_at
    waits = oldest is not None and measure_age(oldest, project.now()) > TOO_LONG
    n_untold = count_untold(project.store, specs, project.now())
    numbers: dict[str, object] = {
        "waiting": health.n_waiting,
        "dead": health.n_dead,
        "events without a message": n_untold,
    }
    if oldest is not None:
        numbers["oldest waiting since"] = f"{oldest:%Y-%m-%d %H:%M} UTC"
    if health.last_error:
        numbers["last error"] = health.last_error
    if health.n_dead:
        said = (
            f"{health.n_dead} messages were refused for good; the last: {health.last_error} "
            "Repair the cause, then run: mlmon alerts requeue"
        )
    elif waits:
        said = (
            f"{health.n_waiting} messages wait, the oldest since {oldest:%Y-%m-%d %H:%M} UTC. "
            f"{health.last_error}"
        )
    elif n_untold:
        said = f"{n_untold} events of alerts are in no message, though nothing mutes them. {CURE}"
    else:
        said = "Every message was delivered, or is on its way."
    return not (health.n_dead or waits or n_untold), said.strip(), numbers


def observe_dagster(
    project: Project, specs: Sequence[ModelSpec], instance: dg.DagsterInstance, now: dt.datetime
) -> int:
    """Record what failed in Dagster, and what is well again; return how much of it is new."""
    if not specs:
        return 0
    known = {spec.model for spec in specs}
    open_ = unsettled(project.store)
    real_now = project.clock()
    found: list[Observed] = list(_failed_runs(instance, known, real_now))
    failing = {(f.model, f.kind, f.subject) for f in found}
    found += _runs_well_again(instance, specs, failing | set(open_))
    found += _stuck_runs(instance, known, open_, real_now)
    found += _ticks(instance, specs, open_)
    found += _daemons(instance, open_, real_now)
    return observe_runs(project.store, found, now=now)


def observe_declarations(project: Project, broken: Sequence[BrokenModel], now: dt.datetime) -> int:
    """Record which declarations do not load, each once, and which do again or are gone."""
    from mlmon_dagster.alerts.lifecycle.routing import PLATFORM

    failing = {model.path.name: model.summary() for model in broken}
    real_now = project.clock()
    return settle_failures(project.store, PLATFORM, "spec", failing, when=real_now, now=now)


def failed_plannings(project: Project) -> dict[str, str]:
    """Return the models whose new data could not be looked at lately, and their alert's state."""
    found = unsettled(project.store)
    return {model: state for (model, kind, _), state in found.items() if kind == "planning"}


def note_planning(project: Project, model: str, error: Exception | None) -> None:
    """Record that a model's new data could not be looked at, or can be again."""
    real_now = project.clock()
    tick = f"{real_now:%Y%m%dT%H%M%S}"
    found: Observed = RunSuccess(model, f"planned {tick}", real_now, "planning", in_a_row=2)
    if error is not None:
        text = f"{type(error).__name__}: {error}"
        found = RunFailure(model, f"failed {tick}", real_now, text, "planning", in_a_row=2)
    observe_runs(project.store, [found], now=project.now())


# Runs


def _failed_runs(
    instance: dg.DagsterInstance, known: set[str], now: dt.datetime
) -> Iterator[RunFailure]:

    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - LOOK_BACK)
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        records = instance.get_run_records(wanted, limit=PAGE, cursor=cursor)
        for record in records:
            run = record.dagster_run
            ended = dt.datetime.fromtimestamp(record.end_time or 0, dt.UTC)
            models = models_of(run) & known
            if models and run.tags.get("dagster/will_retry") != "true":
                for model, (kind, message) in _why_failed(instance, run).items():
                    if model in known:
                        yield RunFailure(model, run.run_id, ended, message, kind)
        if len(records) < PAGE:
            return
        cursor = records[-1].dagster_run.run_id


def _why_failed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, tuple[Kind, str]]:
    """Return, by model, what failed, a run or only its checks, and its first step's error.

    Of a run for several models only those have failed of which a step did.
    """
    failed = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    models = sorted(models_of(run))
    causes: dict[str, list[tuple[str, str]]] = {}
    for record in failed.records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event else None
        if event is not None and error is not None:
            step = event.step_key or ""
            cause = (step.replace("__", "/"), (error.cause or error).message.strip())
            for model in models if len(models) == 1 else _model_of(step, models):
                causes.setdefault(model, []).append(cause)
    if not causes:
        return dict.fromkeys(models, ("run", "the run ended without a failed step; see its log"))
    return {model: _told(found) for model, found in causes.items()}


def _model_of(step: str, models: Sequence[str]) -> list[str]:
    """Return the model of a step, of which a name may end with another's."""
    before = f"__{step.rpartition('__')[0]}"
    return sorted((m for m in models if before.endswith(f"__{m}")), key=len)[-1:]


def _told(causes: Sequence[tuple[str, str]]) -> tuple[Kind, str]:
    kind: Kind = "check" if all(step.endswith("_check") for step, _ in causes) else "run"
    return kind, f"{causes[0][0]}: {causes[0][1]}"


def _runs_well_again(
    instance: dg.DagsterInstance, specs: Sequence[ModelSpec], broken: set[tuple[str, str, str]]
) -> Iterator[RunSuccess]:
    """Yield the newest run that went well for every model that has a failed one."""
    failed = {model for model, kind, _ in broken if kind in ("run", "check")}
    for spec in sorted((s for s in specs if s.model in failed), key=lambda s: s.model):
        if (record := _newest_good_run(instance, spec)) is None:
            continue
        ended = dt.datetime.fromtimestamp(record.end_time or 0, dt.UTC)
        for kind in ("run", "check"):
            if (spec.model, kind, "") in broken:
                yield RunSuccess(spec.model, record.dagster_run.run_id, ended, kind)


def _newest_good_run(instance: dg.DagsterInstance, spec: ModelSpec) -> dg.RunRecord | None:
    """Return the newest run in which nothing of a model failed and what failed last went well.

    A run of other steps, such as one that takes in files, says nothing of those that failed.
    """
    model, status = spec.model, dg.DagsterRunStatus

    def is_well(run: dg.DagsterRun) -> bool:
        return run.is_success or model not in _why_failed(instance, run)

    last = _newest_run(instance, model, [status.FAILURE], lambda run: not is_well(run))
    known = {
        # A step that the model no longer has cannot go well again.
        step_of_key(asset_key(spec, name))
        for info in assets_of(spec)
        for name in (info.name, f"{info.family}_check")
    }
    event = dg.DagsterEventType
    steps = known & _steps(instance, last.dagster_run, event.STEP_FAILURE) if last else set[str]()
    return _newest_run(
        instance,
        model,
        [status.SUCCESS, status.FAILURE],
        lambda run: is_well(run) and steps <= _steps(instance, run, event.STEP_SUCCESS),
        since=(last.end_time or 0.0) if last else 0.0,
    )


def _newest_run(
    instance: dg.DagsterInstance,
    model: str,
    statuses: list[dg.DagsterRunStatus],
    fits: Callable[[dg.DagsterRun], bool],
    since: float = 0.0,
) -> dg.RunRecord | None:
    found: list[dg.RunRecord] = []
    for tags in ({MODEL_TAG: model}, {f"{ONE_OF_MANY}{model}": "true"}):
        wanted = dg.RunsFilter(statuses=statuses, tags=tags)
        found += instance.get_run_records(wanted, limit=PAGE)
    found.sort(key=lambda record: record.end_time or 0.0, reverse=True)
    newer = takewhile(lambda record: (record.end_time or 0.0) > since, found)
    return next((record for record in newer if fits(record.dagster_run)), None)


def _steps(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType) -> set[str]:
    found = instance.get_records_for_run(run.run_id, of_type=kind).records
    events = (record.event_log_entry.dagster_event for record in found)
    return {event.step_key for event in events if event is not None and event.step_key}


def _stuck_runs(
    instance: dg.DagsterInstance, known: set[str], open_: Unsettled, now: dt.datetime
) -> Iterator[Observed]:

    stuck: set[str] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(STUCK_AFTER))):
        run = record.dagster_run
        began = record.create_timestamp.astimezone(dt.UTC)
        if record.start_time:
            began = dt.datetime.fromtimestamp(record.start_time, dt.UTC)
        limit = STUCK_AFTER[run.status]
        if now - began < limit:
            continue
        for model in sorted(models_of(run) & known):
            stuck.add(model)
            hours = limit.total_seconds() / 3600
            text = f"run {run.run_id} is {run.status.value} for more than {hours:g} h"
            yield RunFailure(model, run.run_id, began + limit, text, "stuck")
    for model, kind, subject in sorted(open_):
        if kind == "stuck" and model not in stuck:
            yield RunSuccess(model, f"none stuck {now:%Y%m%dT%H%M}", now, "stuck", subject)


# Ticks and daemons


def _ticks(
    instance: dg.DagsterInstance, specs: Sequence[ModelSpec], open_: Unsettled
) -> Iterator[Observed]:
    """Yield failing ticks of our sensors and schedules, and later ones that went well."""
    from mlmon_dagster.alerts.lifecycle.routing import PLATFORM

    ours = {*SENSORS, *(f"{SHARED}_newest_{spec.time.granularity}" for spec in specs)}
    for state in instance.all_instigator_state():
        name = state.instigator_name
        if name not in ours:
            continue
        in_a_row = 2 if name in SENSORS else 1  # a sensor's tick may time out; the next comes soon
        done = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
        ticks = instance.get_ticks(
            state.instigator_origin_id, state.selector_id, limit=2, statuses=done
        )
        known = open_.get((PLATFORM, "tick", name), "OK")
        for tick in takewhile(lambda tick: tick.is_failure, ticks):  # newest first
            if known != "FIRING":  # what fires is told
                error = tick.error.message.strip() if tick.error else "see the tick's log"
                yield RunFailure(
                    PLATFORM,
                    f"{name}:{tick.tick_id}",
                    dt.datetime.fromtimestamp(tick.timestamp, dt.UTC),
                    f"{name}: {error}",
                    "tick",
                    subject=name,
                    in_a_row=in_a_row,
                )
        if ticks and not ticks[0].is_failure and known != "OK":
            when = dt.datetime.fromtimestamp(ticks[0].timestamp, dt.UTC)
            tick_id = f"{name}:{ticks[0].tick_id}"
            yield RunSuccess(PLATFORM, tick_id, when, "tick", name, in_a_row)


def _daemons(
    instance: dg.DagsterInstance, open_: Unsettled, now: dt.datetime
) -> Iterator[Observed]:
    """Yield the daemons that have run once and are silent; one that never ran is not missed."""
    from mlmon_dagster.alerts.lifecycle.routing import PLATFORM

    for name, status in instance.get_daemon_statuses().items():
        if status.last_heartbeat is None or not status.required:
            continue
        last = dt.datetime.fromtimestamp(status.last_heartbeat.timestamp, dt.UTC)
        if not status.healthy and now - last < LOOK_BACK:
            text = f"{name} was last heard of at {last:%Y-%m-%d %H:%M} UTC; is dagster-daemon up?"
            key = f"{name}:{last:%Y%m%dT%H%M%S}"
            yield RunFailure(PLATFORM, key, last, text, "daemon", subject=name)
        elif status.healthy and (PLATFORM, "daemon", name) in open_:
            yield RunSuccess(PLATFORM, f"{name}:well {last:%Y%m%dT%H%M}", last, "daemon", name)
