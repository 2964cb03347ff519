"""From Dagster to the outbox: failed runs become observations, then alerts are dispatched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlmon_dagster.defs.assets import BACKFILL_TAG
from mlmon_dagster.defs.liveness import MODEL_TAG, UNFINISHED
from mlmon_dagster.defs.receivers import receivers
from mlmon_dagster.defs.resources import Project
from mlmon_dagster.spec import ModelSpec

if TYPE_CHECKING:
    from mlmon_dagster.alerts import DispatchReport

LOOK_BACK = dt.timedelta(hours=48)
RUNS_PER_LOOK = 200


def dispatch_alerts(
    project: Project,
    specs: Sequence[ModelSpec],
    instance: dg.DagsterInstance | None,
    now: dt.datetime,
) -> DispatchReport:
    """Note failed runs, then fold verdicts into alerts and deliver what is due.

    Args:
        project: Where the state is.
        specs: The models.
        instance: Dagster's instance, to find failed runs; None leaves them out.
        now: The time for repeats and silences.
    """
    from mlmon_dagster.alerts import dagster_links, dispatch

    backfilling: set[str] = set()
    if instance is not None:
        observe_runs(project, specs, instance, now)
        backfilling = set(_backfilling(instance))
    return dispatch(
        project.store,
        specs,
        now,
        receivers(project, specs),
        environment=project.environment,
        links=dagster_links(project.ui_url),
        backfilling=backfilling,
    )


def observe_runs(
    project: Project, specs: Sequence[ModelSpec], instance: dg.DagsterInstance, now: dt.datetime
) -> int:
    """Record the failed and the successful runs of the last days as observations.

    Looking again at the same run is harmless, so no cursor can lose one.
    """
    from mlmon_dagster.alerts import RunFailure, RunSuccess, observe_run_failures

    known = {spec.model for spec in specs}
    failures, successes = [], []
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS],
            # The real clock: Dagster's own times, whatever moment the project is replayed at.
            updated_after=dt.datetime.now(dt.UTC) - LOOK_BACK,
        ),
        limit=RUNS_PER_LOOK,
    )
    for record in records:
        run = record.dagster_run
        ended = dt.datetime.fromtimestamp(record.end_time or 0, dt.UTC)
        for model in _models_of(run) & known:
            if run.status == dg.DagsterRunStatus.SUCCESS:
                successes.append(RunSuccess(model, run.run_id, ended))
            elif run.tags.get("dagster/will_retry") != "true":
                message = _failure_message(instance, run.run_id)
                failures.append(RunFailure(model, run.run_id, ended, message))
    return observe_run_failures(project.store, failures, successes, now=now)


def _models_of(run: dg.DagsterRun) -> set[str]:
    if MODEL_TAG in run.tags:
        return {run.tags[MODEL_TAG]}
    return {key.path[0] for key in run.asset_selection or () if len(key.path) > 1}


def _failure_message(instance: dg.DagsterInstance, run_id: str) -> str:
    failed = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    for record in failed.records:
        event = record.event_log_entry.dagster_event
        error = event.step_failure_data.error if event else None
        if error is not None:
            cause = error.cause or error
            step = (event.step_key or "") if event else ""
            return f"{step.replace('__', '/')}: {cause.message.strip()}"
    return "the run ended without a failed step; see its log"


def _backfilling(instance: dg.DagsterInstance) -> Iterator[str]:
    """Yield the models of which a backfill is going on, as far as Dagster knows."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        tags: Mapping[str, str] = record.dagster_run.tags
        if BACKFILL_TAG in tags or "dagster/backfill" in tags:
            yield from _models_of(record.dagster_run)
