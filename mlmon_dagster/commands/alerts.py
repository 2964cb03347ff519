"""``mlmon alerts``: list, deliver, test."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import specs_of

if TYPE_CHECKING:
    from mlmon_dagster.defs.resources import Project
    from mlmon_dagster.spec import ModelSpec


@click.group()
def alerts() -> None:
    """Look at alerts and deliver them."""


@alerts.command("list", epilog="Example: mlmon alerts list --model flight_delay --firing")
@click.option("--model", help="Only of this model.")
@click.option("--firing", is_flag=True, help="Only what is firing now.")
@click.pass_obj
def alerts_list(project: Project, model: str | None, firing: bool) -> None:
    """List alerts and their episodes, newest first."""
    from mlmon_dagster.alerts import list_alerts, render_alerts

    click.echo(render_alerts(list_alerts(project.store, model, "FIRING" if firing else None)))


@alerts.command("deliver", epilog="Example: mlmon alerts deliver")
@click.pass_obj
def alerts_deliver(project: Project) -> None:
    """Turn new verdicts into alerts and send what is due, as the dispatcher sensor does."""
    sys.exit(0 if deliver_now(project, specs_of(project)) else 1)


@alerts.command("test", epilog="Example: mlmon alerts test --channel '#ml-alerts'")
@click.option("--channel", help="Where to. [default: every channel that the models name]")
@click.pass_obj
def alerts_test(project: Project, channel: str | None) -> None:
    """Send one test message, and say plainly what is wrong if that fails."""
    sys.exit(0 if send_tests(project, specs_of(project), channel) else 1)


def deliver_now(project: Project, specs: Sequence[ModelSpec]) -> bool:
    """Dispatch once, as the sensor does; say what happened.

    Returns:
        Whether nothing was refused for good.
    """
    from mlmon_dagster.defs.delivery import dispatch_alerts
    from mlmon_dagster.defs.instance import open_instance

    with open_instance(project) as instance:
        report = dispatch_alerts(project, specs, instance, project.now())
    click.echo(report.text())
    return report.delivery.n_dead == 0


def send_tests(project: Project, specs: Sequence[ModelSpec], channel: str | None) -> bool:
    """Send one test message per channel; say what is wrong with each that fails."""
    from mlmon_dagster.alerts import send_test
    from mlmon_dagster.defs.receivers import receivers

    targets = {(spec.alerts.slack.channel if spec.alerts.slack else ""): spec for spec in specs}
    if channel is not None:
        targets = {channel: _redirected(specs[0], channel)}
    is_fine = True
    for name, spec in sorted(targets.items()):
        report = send_test(project.store, spec, project.now(), receivers(project))
        where = name if name and project.slack_token else "the terminal"
        if report.n_sent and not report.errors:
            click.echo(f"Delivered to {where}.")
            continue
        is_fine = False
        for error in report.errors or ["it is queued; run mlmon alerts deliver"]:
            click.echo(f"Not delivered to {where}: {error}", err=True)
    return is_fine


def _redirected(spec: ModelSpec, channel: str) -> ModelSpec:
    from mlmon_dagster.spec import SlackRoute

    policy = spec.alerts.model_copy(update={"slack": SlackRoute(channel=channel)})
    return spec.model_copy(update={"alerts": policy})
