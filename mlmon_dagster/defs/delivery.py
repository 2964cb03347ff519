"""From Dagster to the outbox: what failed becomes observations, then alerts are dispatched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlmon_dagster.defs.assets import BACKFILL_TAG
from mlmon_dagster.defs.failures import models_of, observe_dagster, observe_declarations
from mlmon_dagster.defs.liveness import UNFINISHED
from mlmon_dagster.defs.receivers import receivers
from mlmon_dagster.defs.resources import Project
from mlmon_dagster.spec import BrokenModel, ModelSpec

if TYPE_CHECKING:
    from mlmon_dagster.alerts import DispatchReport


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
    from mlmon_dagster.alerts import dagster_links, dispatch
    from mlmon_dagster.alerts.receivers.deliver import ping
    from mlmon_dagster.store.state import heartbeats

    backfilling: set[str] = set()
    if broken is not None:
        observe_declarations(project, broken, now)
    if instance is not None:
        observe_dagster(project, specs, instance, now)
        backfilling = set(_backfilling(instance))
    report = dispatch(
        project.store,
        specs,
        now,
        receivers(project, specs),
        environment=project.environment,
        links=dagster_links(project.ui_url),
        backfilling=backfilling,
        ops_channel=project.ops_channel,
        broken=broken or (),
        with_plots=True,
    )
    # The real clock: whoever watches this process lives in real time.
    heartbeats.beat(project.store.state, heartbeats.DISPATCHER, dt.datetime.now(dt.UTC))
    if project.heartbeat_url and (problem := ping(project.heartbeat_url)):
        report.delivery.errors.append(problem)
    return report


def _backfilling(instance: dg.DagsterInstance) -> Iterator[str]:
    """Yield the models of which a backfill is going on, as far as Dagster knows."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        tags: Mapping[str, str] = record.dagster_run.tags
        if BACKFILL_TAG in tags or "dagster/backfill" in tags:
            yield from models_of(record.dagster_run)
