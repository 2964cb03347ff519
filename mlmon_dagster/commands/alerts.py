"""``mlmon alerts``: look at alerts, deliver them, handle them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.alert_handling import ack, digest, requeue, silence, silences, unsilence
from mlmon_dagster.commands.alert_test import test
from mlmon_dagster.commands.moments import past
from mlmon_dagster.commands.options import models_of
from mlmon_dagster.errors import MlmonError

if TYPE_CHECKING:
    import datetime as dt

    from mlmon_dagster.project import Project


@click.group()
def alerts() -> None:
    """Look at alerts, handle them and deliver them.

    Alerts are named by the id that list shows; the first characters are enough.
    """


for command in (ack, digest, requeue, silence, silences, test, unsilence):
    alerts.add_command(command)


@alerts.command("list", epilog="Example: mlmon alerts list --model flight_delay --firing")
@click.option("--model", help="Only of this model.")
@click.option("--firing", is_flag=True, help="Only what is firing now.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def list_(project: Project, model: str | None, firing: bool, format_: str) -> None:
    """List alerts and their episodes, newest first."""
    from mlmon_dagster.alerts import list_alerts, render_alerts
    from mlmon_dagster.store.alerting.alert_state import models_with_new_results

    found = list_alerts(project.store, model, "FIRING" if firing else None)
    click.echo(render_alerts(found, zones(project)) if format_ == "table" else as_json(found))
    waiting = [m for m in models_with_new_results(project.store.state) if model in (None, m)]
    if waiting:
        click.echo(
            f"New verdicts of {', '.join(sorted(waiting))} are not in this list yet. The daemon "
            "takes them in within a minute, and so does: mlmon alerts deliver",
            err=True,
        )


def zones(project: Project) -> dict[str, str]:
    """Return the time zone of every model that is declared, in which its windows are named."""
    try:
        return {spec.model: spec.time.zone for spec in models_of(project).specs}
    except MlmonError:  # alerts outlive their models
        return {}


def as_json(episodes: Any) -> str:
    """Return episodes as a JSON list; times in ISO 8601."""
    import dataclasses
    import json

    return json.dumps([dataclasses.asdict(e) for e in episodes], default=str, indent=2)


@alerts.command(epilog="Example: mlmon alerts show 3fa2c1")
@click.argument("alert")
@click.pass_obj
def show(project: Project, alert: str) -> None:
    """Show everything that is known of ALERT."""
    from mlmon_dagster.alerts.people.handling import find_alert
    from mlmon_dagster.alerts.people.history import render_alert

    model = find_alert(project.store, alert)["model"]
    click.echo(render_alert(project.store, alert, zones(project).get(model, "UTC")))


@alerts.command(epilog="Example: mlmon alerts history --model flight_delay --since 7d")
@click.option("--model", help="Only of this model.")
@click.option("--since", callback=past, metavar="TIME", help="A day, a time, or 7d for a week ago.")
@click.option("--limit", default=200, show_default=True, help="At most so many, the newest.")
@click.pass_obj
def history(project: Project, model: str | None, since: dt.datetime | None, limit: int) -> None:
    """Show what happened to alerts: opened, escalated, acknowledged, resolved."""
    from mlmon_dagster.alerts.people.history import render_history

    click.echo(render_history(project.store, zones(project), model, since, limit))


@alerts.command(epilog="Example: mlmon alerts deliver")
@click.pass_obj
def deliver(project: Project) -> None:
    """Turn new verdicts into alerts and send what is due, as the dispatcher sensor does."""
    from mlmon_dagster.alerts.messages.owed import something_waits
    from mlmon_dagster.defs.delivery import dispatch_alerts
    from mlmon_dagster.defs.instance import open_instance
    from mlmon_dagster.spec import read_models
    from mlmon_dagster.spec.loader import no_models

    found = read_models(project.models_folder, project.now())
    if not found.specs and not found.broken and not something_waits(project.store):
        raise no_models(project.models_folder)
    for broken in found.broken:
        click.echo(f"mlmon: does not load: {broken.summary()}", err=True)
    with open_instance(project) as instance:
        report = dispatch_alerts(project, found.specs, instance, project.now(), found.broken)
    click.echo(report.text())
    sys.exit(0 if report.delivery.n_dead == 0 and not found.broken else 1)
