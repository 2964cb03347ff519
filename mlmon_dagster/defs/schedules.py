"""One schedule per cadence: the newest complete window of every model, with or without new data."""

import datetime as dt
from collections.abc import Iterator, Sequence

import dagster as dg

from mlmon_dagster.defs.lineage import keys_of, range_tags
from mlmon_dagster.defs.liveness import MODEL_TAG
from mlmon_dagster.defs.overview import OVERVIEW_KEY
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
