"""A check that fails when alerts do not arrive: what was refused for good must not go unseen."""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from mlmon_dagster.defs.metadata import safe_metadata
from mlmon_dagster.defs.overview import OVERVIEW_KEY
from mlmon_dagster.defs.resources import Project
from mlmon_dagster.spec import ModelSpec

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
