"""``mlmon alerts``: list, deliver, test."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mlmon_dagster.defs.resources import Project
from mlmon_dagster.spec import ModelSpec


def render_alerts(project: Project, model: str | None, firing: bool) -> str:
    """Return the alerts as a table."""
    from mlmon_dagster.alerts import list_alerts, render_alerts

    return render_alerts(list_alerts(project.store, model, "FIRING" if firing else None))


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
    from mlmon_dagster.defs.delivery import receivers

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
