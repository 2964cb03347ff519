"""The planner and the dispatcher: one sensor each for all models; and what they ask of Dagster."""

import dagster as dg

from mlmon_dagster.defs import broken, compute, delivery, failures, judging
from mlmon_dagster.defs.checks import evaluation
from mlmon_dagster.defs.compute import Work
from mlmon_dagster.defs.delivery_check import report_delivery
from mlmon_dagster.defs.lineage import asset_key, keys_of
from mlmon_dagster.defs.liveness import MODEL_TAG, fail_dead_runs, is_in_flight
from mlmon_dagster.defs.metadata import safe_metadata
from mlmon_dagster.defs.partitions import range_tags
from mlmon_dagster.defs.planning import Request, plan
from mlmon_dagster.defs.resources import Project
from mlmon_dagster.spec import Models, ModelSpec

ASSET_JOB = (
    "__ASSET_JOB"  # Dagster's own job over all assets: the only one whose partitions may differ
)
FILES_PER_TICK = 50


def planner_sensor(project: Project, models: Models) -> dg.SensorDefinition:
    """Return the sensor that takes in new files and requests the windows they touched.

    It is level-triggered: what has to be computed follows from our store alone, never from a
    cursor, so nothing is lost when a tick dies. The declarations are read again at every tick: one
    that does not load any more waits, and so does one that Dagster has to be told of first.
    """
    known = {spec.model: spec.time for spec in models.specs}

    @dg.sensor(
        name="planner",
        job_name=ASSET_JOB,
        minimum_interval_seconds=project.tick_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in new landing files and requests exactly the windows that they, late "
        "ground truth or the passing of time touched.",
    )
    def planner(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        requests: list[dg.RunRequest] = []
        failing = failures.failed_plannings(project)
        declared = models.again(project.now())
        waiting = [s.model for s in declared.specs if known.get(s.model) != s.time]
        for spec in declared.specs:
            if spec.model in waiting:
                continue
            try:
                requests += _plan_model(context, project, spec)
                if spec.model in failing:
                    failures.note_planning(project, spec.model, None)
            except Exception as error:
                # One model's broken source must not stop the others; the tick log keeps the trace.
                context.log.exception(f"planning of model {spec.model!r} failed")
                if failing.get(spec.model) != "FIRING":  # what fires is told
                    failures.note_planning(project, spec.model, error)
        if waiting:
            context.log.info(f"{', '.join(waiting)}: {broken.UNKNOWN}")
        if not requests:
            return dg.SkipReason(
                "every window is computed from its newest inputs, or failed too often"
                + (f"; {', '.join(waiting)}: {broken.UNKNOWN}" if waiting else "")
            )
        return dg.SensorResult(run_requests=requests)

    return planner


def _plan_model(
    context: dg.SensorEvaluationContext, project: Project, spec: ModelSpec
) -> list[dg.RunRequest]:
    fail_dead_runs(context.instance, spec.model)
    if is_in_flight(context.instance, spec.model):
        return []
    work = Work(project, spec, (), project.now(), "", False)
    report = compute.ingest(work, context.log.debug, max_files=FILES_PER_TICK)
    if report.files:
        context.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key(spec, "event_log"),
                metadata=safe_metadata(compute.ingest_numbers(report)),
            )
        )
    fresh = judging.judge(work, "freshness")
    if report.files:
        key = asset_key(spec, "event_log")
        context.instance.report_runless_asset_event(
            evaluation(key, "freshness", None, fresh.get(None, []), None)
        )
    judging.judge_quarantined(work)
    return [run_request(request) for request in plan(project, spec, project.now())]


def run_request(request: Request) -> dg.RunRequest:
    """Turn a planned range of windows into what Dagster launches.

    The run key holds the inputs' revision and the attempt: a failed run is asked for again, a
    finished one never.
    """
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=keys_of(request.spec, request.assets),
        tags={**range_tags(request.windows), MODEL_TAG: request.spec.model},
    )


def dispatcher_sensor(project: Project, models: Models) -> dg.SensorDefinition:
    """Return the sensor that turns new verdicts into alerts and delivers what is due.

    Nothing depends on its cursor: alert state and outbox are tables, so any number of these may
    run. The cursor holds what the check of the delivery last said, so that it is not said again.
    """

    @dg.sensor(
        name="alert_dispatcher",
        job_name=ASSET_JOB,
        minimum_interval_seconds=project.tick_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Turns monitor results into alerts and delivers them: none lost, none twice.",
    )
    def alert_dispatcher(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = project.now()
        declared = models.again(now)
        broken.report_broken(context.instance, declared.broken)
        summary = delivery.dispatch_alerts(
            project, declared.specs, context.instance, now, declared.broken
        )
        context.update_cursor(
            report_delivery(context.instance, project, declared.specs, context.cursor)
        )
        return dg.SkipReason(summary.text())

    return alert_dispatcher
