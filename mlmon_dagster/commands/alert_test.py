"""``mlmon alerts test``: one real message to every place, and what is wrong where it fails."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import specs_of
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlmon_dagster.alerts.lifecycle.routing import Destination
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec


@click.command(epilog="Example: mlmon alerts test --channel '#ml-alerts'")
@click.option("--channel", help="Only this Slack channel, also one that no model names.")
@click.option("--model", help="Only the places of this model.")
@click.pass_obj
def test(project: Project, channel: str | None, model: str | None) -> None:
    """Send one test message to every place that the models name: Slack, webhooks, mail.

    Where one does not arrive, say what is wrong and what mends it.
    """
    specs = [spec for spec in specs_of(project) if model in (None, spec.model)]
    if not specs:
        raise ConfigError(f"No model {model!r}." if model else "There is no model yet.")
    problems = [problem for problem in _try_all(project, specs, channel) if problem]
    sys.exit(1 if problems else 0)


def _try_all(project: Project, specs: list[ModelSpec], channel: str | None) -> Iterator[str]:
    from mlmon_dagster.alerts.lifecycle.routing import Destination, every_destination
    from mlmon_dagster.pipeline.receivers import slack_receiver

    places = every_destination(specs)
    if channel is not None:
        places = [Destination("slack", channel)]
    slack = slack_receiver(project)
    if any(place.receiver == "slack" for place in places):
        if slack is None:
            click.echo(
                "Slack: not connected, MLMON_SLACK_TOKEN is not set; messages are shown here.",
                err=True,
            )
        else:
            check = slack.auth_test()
            click.echo(f"Slack: {check.text}", err=not check.ok)
            if not check.ok:
                yield check.text
    for place in places:
        yield _try(project, specs, place, is_shown_here=slack is None)


def _try(
    project: Project, specs: list[ModelSpec], place: Destination, *, is_shown_here: bool
) -> str:
    """Send one message; return what is wrong, empty if nothing."""
    from mlmon_dagster.alerts import send_test
    from mlmon_dagster.alerts.lifecycle.routing import every_destination
    from mlmon_dagster.pipeline.receivers import receivers

    spec = next((s for s in specs if place in every_destination([s])), specs[0])
    report = send_test(project.store, spec, project.now(), receivers(project, specs), place)
    shown = place.receiver == "console" or (place.receiver == "slack" and is_shown_here)
    names = {"slack": place.channel, "webhook": f"the webhook {place.channel}"}
    where = "the terminal" if shown else names.get(place.receiver, place.channel)
    if report.n_sent and not report.errors:
        click.echo(f"Delivered to {where}.")
        return ""
    errors = report.errors or ["it is not its turn yet: the channel is asked to wait; try again"]
    for error in errors:
        click.echo(f"Not delivered to {where}: {error}", err=True)
    return errors[0]
