"""From Dagster to the outbox: what failed becomes observations, then alerts are dispatched."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from mlmon_dagster.defs.assets import BACKFILL_TAG
from mlmon_dagster.defs.failures import models_of, observe_dagster, observe_declarations
from mlmon_dagster.defs.liveness import UNFINISHED
from mlmon_dagster.defs.metadata import safe_metadata
from mlmon_dagster.defs.overview import OVERVIEW_KEY
from mlmon_dagster.pipeline.receivers import receivers
from mlmon_dagster.project import Project
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


NAME = "alert_delivery"
CURE = "Run mlmon alerts deliver; if they stay, mlmon alerts list shows what it should have told."
TOO_LONG = dt.timedelta(hours=24)


def delivery_check(project: Project, specs: Sequence[ModelSpec]) -> dg.AssetChecksDefinition:
    """Return the check of the overview that fails while messages are dead or wait for a day."""

    @dg.asset_check(
        asset=OVERVIEW_KEY,
        name=NAME,
        metadata={"owners": ", ".join(dict.fromkeys(o for spec in specs for o in spec.owners))},
        description="Fails when a message was refused for good or has waited for a day, or when "
        "something that an alert should have told is in no message. The "
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
    from mlmon_dagster.alerts.messages.owed import count_untold
    from mlmon_dagster.store.alerting.outbox_health import outbox_health

    health = outbox_health(project.store.state)
    oldest = health.oldest_waiting_at
    waits = oldest is not None and project.now() - oldest > TOO_LONG
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
            "Mend the cause, then run: mlmon alerts requeue"
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
