"""What happens by the clock: the newest complete window of every model, and the tables' upkeep."""

import datetime as dt
from collections.abc import Iterator, Sequence

import dagster as dg

from mlmon_dagster.defs.assets import OVERVIEW_KEY, keys_of, range_tags
from mlmon_dagster.defs.instance import MODEL_TAG
from mlmon_dagster.defs.metadata import safe_metadata, table
from mlmon_dagster.defs.sensors import ASSET_JOB
from mlmon_dagster.pipeline.steps import REPORTED, WINDOWED
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Granularity, ModelSpec, complete_windows, production_end

CRON: dict[Granularity, str] = {
    "hour": "10 * * * *",
    "day": "30 6 * * *",
    "week": "0 7 * * 1",
    "month": "30 7 1 * *",
}
MAINTENANCE_KEY = dg.AssetKey(["maintenance"])
COLUMNS = ("model", "what", "rows", "files", "bytes")


def cadence_schedules(project: Project, specs: Sequence[ModelSpec]) -> list[dg.ScheduleDefinition]:
    """Return one schedule per granularity in use.

    The planner follows the data; the schedules make sure that a window is looked at even if no
    data came, which is when somebody has to hear of it.
    """
    grains = sorted({spec.time.granularity for spec in specs})
    return [
        _schedule(project, grain, [s for s in specs if s.time.granularity == grain])
        for grain in grains
    ]


def is_over(spec: ModelSpec, now: dt.datetime) -> bool:
    """Tell whether a model has ended and its last ground truth is past waiting for."""
    end = production_end(spec.time)
    return end is not None and now >= end + spec.actuals.closed_after


def _schedule(
    project: Project, grain: Granularity, specs: Sequence[ModelSpec]
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"newest_{grain}",
        job_name=ASSET_JOB,
        cron_schedule=CRON[grain],
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Takes in new files and computes the newest complete {grain} of every model "
        f"with {grain} windows, also when no data came.",
    )
    def newest_window(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        tick = context.scheduled_execution_time.isoformat()
        for spec in specs:
            complete = complete_windows(spec.time, project.now())
            if complete and not is_over(spec, project.now()):
                yield dg.RunRequest(
                    run_key=f"{spec.model}:{complete[-1].key}:{tick}",
                    asset_selection=[
                        *keys_of(spec, ("event_log", "baseline", *WINDOWED, *REPORTED)),
                        OVERVIEW_KEY,
                    ],
                    tags={**range_tags(complete[-1:]), MODEL_TAG: spec.model},
                )

    return newest_window


class MaintenanceConfig(dg.Config):
    """How to run it."""

    dry_run: bool = False


def maintenance_asset(project: Project, specs: Sequence[ModelSpec]) -> dg.AssetsDefinition:
    """Return the asset that deletes by age, merges small files and removes old versions."""

    @dg.asset(
        key=MAINTENANCE_KEY,
        group_name="overview",
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


def maintenance_schedule() -> dg.ScheduleDefinition:
    """Return the daily schedule of the upkeep."""

    @dg.schedule(
        name="daily_maintenance",
        job_name=ASSET_JOB,
        cron_schedule="15 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes rows past their retention, merges small files, removes old versions.",
    )
    def daily_maintenance(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time.isoformat()
        return dg.RunRequest(run_key=f"maintenance:{tick}", asset_selection=[MAINTENANCE_KEY])

    return daily_maintenance
