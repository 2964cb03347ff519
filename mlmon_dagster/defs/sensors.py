"""What looks by itself: planner and dispatcher, a sensor each for all models, and schedules."""

import datetime as dt
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Self

import dagster as dg

from mlmon_dagster.defs import assets, delivery
from mlmon_dagster.defs.assets import (
    OVERVIEW_KEY,
    PLANNED_TAG,
    SHARED,
    asset_key,
    keys_of,
    range_tags,
)
from mlmon_dagster.defs.checks import StandingChecks, show_standing
from mlmon_dagster.defs.delivery import report_delivery
from mlmon_dagster.defs.instance import WINDOWS_TAG, model_tags, models_in_flight
from mlmon_dagster.defs.metadata import safe_metadata, table
from mlmon_dagster.defs.private_dagster import (
    ANONYMOUS_ASSET_JOB_PREFIX,
    AssetGraph,
    UnresolvedAssetJobDefinition,
    build_asset_job,
    get_asset_graph_for_job,
    is_known,
    replace_record,
)
from mlmon_dagster.defs.resource import report_on_assets
from mlmon_dagster.families import silence
from mlmon_dagster.pipeline.ingest import ingest, ingest_numbers, note_backlog
from mlmon_dagster.pipeline.judge import judge, judge_quarantined
from mlmon_dagster.pipeline.plan import Request, in_runs, is_computed, plan
from mlmon_dagster.pipeline.quiet_models import FEW, QuietModels
from mlmon_dagster.pipeline.status import (
    OVERVIEW,
    digest_overview,
    find_outdated,
    is_overview_outdated,
)
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Models, ModelSpec, complete_windows, production_end
from mlmon_dagster.spec.declaration import SHORTEST_CLOSING, Granularity
from mlmon_dagster.spec.names import FRESHNESS
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.steps import REPORTED, windowed_of
from mlmon_dagster.store.state import manifest, model_history
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.store.state.monitor_results import load_standing
from mlmon_dagster.store.state.writing import BusyError
from mlmon_dagster.work import Work

# Dagster cuts a tick off after 60 s. Files are taken in for the first 20 of them; what is left is
# left for the next tick, and a file that alone may take longer for a run of its own.
TICK_SECONDS = 20.0
LEAST_SECONDS = 3.0  # of a model, so that one with many files leaves something to the others
LARGE_FILE = 32 * 1024**2
OVERVIEW_WAITS = dt.timedelta(minutes=10)
# Dagster's own job over all assets: the only one whose partitions may differ.
ASSET_JOB = "__ASSET_JOB"


def status_at_first(project: Project) -> str:
    """Return whether sensors and schedules run before anybody has started or stopped them.

    A branch, or a laptop, that shares the database of production would do its work a second time,
    by declarations that are not in force.
    """
    return "RUNNING" if project.is_production else "STOPPED"


def planner_sensor(project: Project, models: Models) -> dg.SensorDefinition:
    """Return the sensor that takes in new files and requests the windows they touched.

    It is level-triggered: what has to be computed follows from our store alone, never from a
    cursor, so nothing is lost when a tick dies. The declarations are read again at every tick: one
    that does not load any more waits, and so does one that Dagster has to be told of first. The
    cursor only names the model that a tick had no time for, with which the next one begins.
    """
    known = {spec.model: shape_of(spec) for spec in models.specs}
    quiet = QuietModels(project)

    @dg.sensor(
        name=f"{SHARED}_planner",
        asset_selection=select_cadence(*granularities_of(models.specs)),
        minimum_interval_seconds=project.tick_seconds,
        default_status=dg.DefaultSensorStatus(status_at_first(project)),
        description="Reads new landing files and requests exactly the windows that they, late "
        "ground truth or the passing of time touched.",
    )
    def planner(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        planned: list[Request] = []
        idle: list[ModelSpec] = []  # with nothing to compute before what there is can be shown
        requests: list[dg.RunRequest] = []  # of files that are taken in by a run
        failing = delivery.failed_plannings(project)
        declared = models.again(project.now())
        waiting = [s.model for s in declared.specs if known.get(s.model) != shape_of(s)]
        ready = [s for s in declared.specs if s.model not in waiting]
        tick = Tick.begin(project, context, ready)
        progress = quiet.progress() if len(ready) > FEW else {}
        skipped = {
            spec.model
            for spec in ready
            if len(ready) > FEW and spec.model not in tick.busy and quiet.is_quiet(spec, progress)
        }
        to_look_at = [s for s in beginning_with(context.cursor, ready) if s.model not in skipped]
        for n, spec in enumerate(to_look_at):
            if n and tick.seconds_left() <= 0:
                context.update_cursor(spec.model)
                break
            quiet.forget(spec)
            folders = quiet.folders(spec)
            try:
                found = _plan_model(tick, spec, len(to_look_at) - n)
                planned += found.requests
                requests += found.files
                if found.is_idle:
                    idle.append(spec)
                if found.is_idle and spec.model not in failing:
                    quiet.note(spec, folders, progress)
                if spec.model in failing:
                    delivery.note_planning(project, spec.model, None)
            except Exception as error:
                # One model's broken source must not stop the others; the tick log keeps the trace.
                context.log.exception(f"planning of model {spec.model!r} failed")
                if failing.get(spec.model) != "FIRING":  # what fires is told
                    delivery.note_planning(project, spec.model, error)
        if waiting:
            context.log.info(f"{', '.join(waiting)}: {assets.NOT_LOADED_YET}")
        planned += reports_to_make(project, idle)
        requests += [run_request(together) for together in in_runs(planned)]
        if not waiting:
            is_busy = bool(requests or tick.busy)
            requests += overview_to_make(project, declared, is_busy=is_busy)
        if not requests:
            return dg.SkipReason(
                "every window is computed from its newest inputs, or failed too often"
                + (f"; {', '.join(waiting)}: {assets.NOT_LOADED_YET}" if waiting else "")
            )
        return dg.SensorResult(run_requests=in_process(context, requests))

    return planner


def shape_of(spec: ModelSpec) -> tuple[object, ...]:
    """Return all of a model that Dagster knows from when it loaded: windows, keys and assets."""
    return spec.time, spec.key_prefix, windowed_of(spec)


@dataclass(frozen=True)
class Tick:
    """One evaluation of the planner.

    Attributes:
        ends: When it has to come to an end, on the monotonic clock.
        busy: Models of which a run is going on.
        backlogs: What the tick before left of the landing files, by model and stream.
        written: When the assets that write the streams were last materialized, likewise.
    """

    project: Project
    context: dg.SensorEvaluationContext
    ends: float
    busy: Set[str]
    backlogs: Mapping[str, Mapping[str, Backlog]]
    written: Mapping[str, Mapping[Stream, dt.datetime]]

    @classmethod
    def begin(
        cls, project: Project, context: dg.SensorEvaluationContext, specs: Sequence[ModelSpec]
    ) -> Self:
        """Look up what all models need to know, with one query each."""
        ends = time.monotonic() + TICK_SECONDS
        busy = models_in_flight(context.instance)
        backlogs = manifest.load_backlogs(project.store.state)
        written = assets.written_by(context.instance, specs)
        return cls(project, context, ends, busy, backlogs, written)

    def seconds_left(self) -> float:
        """Return how much time is left for taking in files."""
        return self.ends - time.monotonic()


def beginning_with(model: str | None, specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Return the specs in their order, beginning with that of a model, if it is among them."""
    first = next((n for n, spec in enumerate(specs) if spec.model == model), 0)
    return [*specs[first:], *specs[:first]]


@dataclass(frozen=True)
class Found:
    """What a look at a model found.

    Attributes:
        requests: Windows to compute.
        files: A run that takes in files.
        is_idle: Whether there was nothing at all.
    """

    requests: Sequence[Request] = ()
    files: Sequence[dg.RunRequest] = ()
    is_idle: bool = False


def _plan_model(tick: Tick, spec: ModelSpec, n_models: int) -> Found:
    """Take in a model's files and request what they touched; a run going on is waited for."""
    project, instance = tick.project, tick.context.instance
    work = Work(project, spec, (), project.now(), "", False)
    left = tick.seconds_left()
    ends = time.monotonic() + min(left, max(left / n_models, LEAST_SECONDS))
    try:
        report = ingest(
            work,
            tick.context.log.debug,
            max_bytes=LARGE_FILE,
            time_is_up=lambda: time.monotonic() >= ends,
            wait_seconds=0,
            written_by=tick.written.get(spec.model),
        )
    except BusyError as error:
        tick.context.log.info(str(error))
        return Found()
    before = tick.backlogs.get(spec.model, {})
    if before or report.n_left:
        now = manifest.load_backlog(project.store.state, spec.model)
        note_backlog(project, spec.model, before, now)
    news = [
        file
        for file in report.files
        if file.status not in ("waiting", "skipped") and file.reason != "no_access"
    ]
    if news:
        assets.report_taken_in(instance, project, spec, ingest_numbers(report))
    if spec.model in tick.busy:
        return Found()
    newest = silence.newest_windows(work)
    touches_older = bool(newest and report.windows and report.windows[0] < newest[0])
    judge(work, FRESHNESS, None if touches_older else newest)
    if news:
        found = load_standing(project.store.state, [spec], work.now)[spec.model]
        fresh = [row for row in found if row["family"] == FRESHNESS]
        key = asset_key(spec, "event_log")
        instance.report_runless_asset_event(show_standing(spec, key, FRESHNESS, fresh, None))
    judge_quarantined(work)
    if report.n_large:
        return Found(files=[take_in_request(spec)])
    more_is_coming = bool(report.n_waiting or report.n_left)
    requests = plan(project, spec, project.now(), more_is_coming=more_is_coming)
    is_idle = not (requests or news or more_is_coming)
    return Found(requests, is_idle=is_idle)


def reports_to_make(project: Project, specs: Sequence[ModelSpec]) -> list[Request]:
    """Ask for the reports of models that show something else than what there is.

    The run key says what they are to show: a run that failed is not asked for at every tick.
    """
    outdated = find_outdated(project, specs)
    return [
        Request(spec, (), REPORTED, f"{spec.model}:reports:{outdated[spec.model]}")
        for spec in specs
        if spec.model in outdated
    ]


def overview_to_make(project: Project, models: Models, *, is_busy: bool) -> list[dg.RunRequest]:
    """Ask for the overview if it rests on older verdicts, once all models are computed.

    While runs go on, so that something changes at every tick, it is made every ten minutes.
    """
    digest = digest_overview(project, models.specs, [one.name for one in models.broken])
    if not is_overview_outdated(project, digest):
        return []
    last = model_history.load_last_beat(project.store.state, OVERVIEW)
    if is_busy and last is not None and last <= project.now() < last + OVERVIEW_WAITS:
        return []
    key = f"overview:{digest}"
    return [dg.RunRequest(run_key=key, asset_selection=[OVERVIEW_KEY])]


def in_process(
    context: dg.SensorEvaluationContext | dg.ScheduleEvaluationContext,
    requests: Sequence[dg.RunRequest],
) -> list[dg.RunRequest]:
    """Ask for runs in one process each, where the project has no executor of its own.

    Dagster's default would start a process for each of the short steps.
    """
    repository = context.repository_def
    if repository is None:
        return list(requests)
    executor = repository.get_job(ASSET_JOB).executor_def
    if executor.name != dg.multi_or_in_process_executor.name:
        return list(requests)
    config: dict[str, object] = {"execution": {"config": {"in_process": {}}}}
    return [request._replace(run_config=config) for request in requests]


def take_in_request(spec: ModelSpec) -> dg.RunRequest:
    """Ask for a run that takes in a model's files, however long it takes."""
    return dg.RunRequest(
        run_key=f"{spec.model}:files:{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}",
        asset_selection=[asset_key(spec, "event_log")],
        tags=model_tags([spec]),
    )


def run_request(requests: Sequence[Request]) -> dg.RunRequest:
    """Turn a planned range of windows, of one model or several, into what Dagster launches.

    The run key holds the inputs' revision and the attempt: a failed run is asked for again, a
    finished one never.
    """
    key = requests[0].run_key
    if len(requests) > 1:
        keys = "\n".join(request.run_key for request in requests)
        key = f"{len(requests)} models:{hashlib.sha256(keys.encode()).hexdigest()}"
    tags = range_tags(requests[0].windows) | model_tags([one.spec for one in requests])
    return dg.RunRequest(
        run_key=key,
        asset_selection=[key for one in requests for key in keys_of(one.spec, one.assets)],
        tags=tags | {PLANNED_TAG: "true"},
    )


def dispatcher_sensor(project: Project, models: Models) -> dg.SensorDefinition:
    """Return the sensor that turns new verdicts into alerts and delivers what is due.

    Nothing depends on its cursor: alert state and outbox are tables, so any number of these may
    run. The cursor holds what the check of the delivery last said, so that it is not said again.
    """
    standing = StandingChecks(project)

    @dg.sensor(
        name=f"{SHARED}_alert_dispatcher",
        minimum_interval_seconds=project.tick_seconds,
        default_status=dg.DefaultSensorStatus(status_at_first(project)),
        description="Turns monitor results into alerts and delivers them: none lost, none twice.",
    )
    def alert_dispatcher(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = project.now()
        declared = models.again(now)
        assets.report_broken(context.instance, declared.broken)
        summary = delivery.dispatch_alerts(
            project, declared.specs, context.instance, now, declared.broken
        )
        standing.report(context.instance, declared.specs)
        report_on_assets(context.instance, context.repository_def, project)
        context.update_cursor(
            report_delivery(context.instance, project, declared.specs, context.cursor)
        )
        return dg.SkipReason(summary.text())

    return alert_dispatcher


def select_cadence(*grains: Granularity) -> dg.AssetSelection:
    """Return the assets of all models with windows of some lengths, and the overview of all.

    A job of ours may hold only assets of one partitioning, and models have many. A sensor may name
    a selection of assets instead, whose runs go to Dagster's own job; a schedule has to name a job.
    """
    selection: dg.AssetSelection = dg.AssetSelection.assets(OVERVIEW_KEY)
    for grain in grains:
        selection |= dg.AssetSelection.tag(WINDOWS_TAG, grain)
    return selection


class CadenceJob(UnresolvedAssetJobDefinition):
    """What a schedule starts: the assets of all models whose windows are equally long.

    Itself it holds the overview alone and names the others, since one more job of a thousand
    models doubles what their code location takes to load. Whatever assets a run of it asks for,
    Dagster takes from the whole location.
    """

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: dg.ExecutorDefinition | None = None,
        resource_defs: Mapping[str, dg.ResourceDefinition] | None = None,
    ) -> dg.JobDefinition:
        """Return the job, for the assets that the code location has."""
        job = build_asset_job(
            self.name,
            asset_graph=get_asset_graph_for_job(
                asset_graph, dg.AssetSelection.assets(OVERVIEW_KEY).without_checks()
            ),
            executor_def=default_executor_def,
            resource_defs=resource_defs,
            allow_different_partitions_defs=True,
        )
        others = self.selection.resolve(asset_graph) - {OVERVIEW_KEY}
        named = replace_record(job.asset_layer, external_job_asset_keys=others)
        return job._copy(asset_layer=named)


def cadence_job(grain: Granularity, schedule: str) -> CadenceJob | dg.AssetSelection:
    """Return the job that a schedule of that name starts.

    Dagster names the job of a selection so. The UI then shows the selection instead of the job.
    """
    if not is_known():
        return select_cadence(grain)
    return CadenceJob(
        name=f"{ANONYMOUS_ASSET_JOB_PREFIX}_{schedule}", selection=select_cadence(grain)
    )


CRON: dict[Granularity, str] = {
    "hour": "10 * * * *",
    "day": "30 6 * * *",
    "week": "0 7 * * 1",
    "month": "30 7 1 * *",
}
MAINTENANCE_KEY = dg.AssetKey([SHARED, "maintenance"])
COLUMNS = ("model", "what", "rows", "files", "bytes")


def cadence_schedules(project: Project, specs: Sequence[ModelSpec]) -> list[dg.ScheduleDefinition]:
    """Return one schedule per granularity in use.

    The planner follows the data; the schedules make sure that a window is looked at even if no
    data came, which is when somebody has to hear of it.
    """
    return [
        _schedule(project, grain, [s for s in specs if s.time.granularity == grain])
        for grain in granularities_of(specs)
    ]


def granularities_of(specs: Sequence[ModelSpec]) -> list[Granularity]:
    """Return the lengths of windows in use, each once."""
    return sorted({spec.time.granularity for spec in specs})


def is_over(spec: ModelSpec, now: dt.datetime) -> bool:
    """Tell whether a model has ended and its last ground truth is past waiting for."""
    end = production_end(spec.time)
    closed_after = spec.actuals.closed_after or SHORTEST_CLOSING
    return end is not None and now >= end + closed_after


def _schedule(
    project: Project, grain: Granularity, specs: Sequence[ModelSpec]
) -> dg.ScheduleDefinition:
    name = f"{SHARED}_newest_{grain}"

    @dg.schedule(
        name=name,
        target=cadence_job(grain, name),
        cron_schedule=CRON[grain],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus(status_at_first(project)),
        description=f"Reads new files and computes the newest complete {grain} of every model "
        f"with {grain} windows that is not computed yet, also when no data came; where it is, "
        "writes the health report again if it would show newer numbers.",
    )
    def newest_window(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        return in_process(context, list(requested(context)))

    def requested(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        tick, now = context.scheduled_execution_time.isoformat(), project.now()
        outdated = find_outdated(project, specs)
        wanted = []
        for spec in specs:
            complete = complete_windows(spec.time, now)
            if not complete or is_over(spec, now):
                continue
            key = f"{spec.model}:{complete[-1].key}:{tick}"
            if not is_computed(project, spec, complete[-1], now):
                every = ("event_log", "baseline", *windowed_of(spec), *REPORTED)
                wanted.append(Request(spec, (complete[-1],), every, key))
            elif spec.model in outdated:
                wanted.append(Request(spec, (), REPORTED, f"{key}:reports"))
        yield from (run_request(together) for together in in_runs(wanted))
        # Once for all models, behind their runs in the queue.
        yield dg.RunRequest(run_key=f"overview:{grain}:{tick}", asset_selection=[OVERVIEW_KEY])

    return newest_window


class MaintenanceConfig(dg.Config):
    """How to run it."""

    dry_run: bool = False


def maintenance_asset(project: Project, specs: Sequence[ModelSpec]) -> dg.AssetsDefinition:
    """Return the asset that deletes by age, merges small files and removes old versions."""

    @dg.asset(
        key=MAINTENANCE_KEY,
        group_name=SHARED,
        description="Upkeep of the tables of every model: rows past their age, many small files, "
        "versions that nobody can ask for any more. With `dry_run: true` it only says what it "
        "would do.",
        owners=sorted({owner for spec in specs for owner in spec.owners}) or None,
        kinds={"deltalake"},
        tags={"mlmon/scope": "all"},
    )
    def maintenance(config: MaintenanceConfig) -> dg.MaterializeResult[None]:
        from mlmon_dagster.store.upkeep.maintenance import maintain

        rows: list[dict[str, object]] = []
        totals = {"rows": 0, "files": 0, "bytes": 0}
        for spec in specs:
            for r in maintain(project.store, spec, project.now(), dry_run=config.dry_run):
                row = {"rows": r.rows, "files": r.files, "bytes": r.size}
                rows.append({"model": spec.model, "what": r.what, **row})
                totals = {name: totals[name] + n for name, n in row.items()}
        metadata = {**totals, "dry run": config.dry_run, "removed": table(rows, COLUMNS)}
        return dg.MaterializeResult(metadata=safe_metadata(metadata))

    return maintenance


def maintenance_schedule(project: Project) -> dg.ScheduleDefinition:
    """Return the daily schedule of the upkeep."""

    @dg.schedule(
        name=f"{SHARED}_daily_maintenance",
        target=[MAINTENANCE_KEY],
        cron_schedule="15 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus(status_at_first(project)),
        description="Deletes rows past their retention, merges small files, removes old versions.",
    )
    def daily_maintenance(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time.isoformat()
        request = dg.RunRequest(run_key=f"maintenance:{tick}", asset_selection=[MAINTENANCE_KEY])
        return in_process(context, [request])[0]

    return daily_maintenance
