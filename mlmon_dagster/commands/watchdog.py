"""``mlmon watchdog``: is anybody delivering alerts? For cron and liveness probes."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mlmon_dagster.project import Project


def _age(_context: click.Context, _option: click.Parameter, text: str) -> dt.timedelta:
    from mlmon_dagster.spec.scalars import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(epilog="Example: mlmon watchdog --max-age 10m")
@click.option(
    "--max-age",
    default="10m",
    show_default=True,
    callback=_age,
    metavar="DURATION",
    help="How long ago the last dispatch may be.",
)
@click.pass_obj
def watchdog(project: Project, max_age: dt.timedelta) -> None:
    """Exit with 1 if alerts were not dispatched lately, or messages were refused for good.

    Dagster cannot report that Dagster is down: run this from cron, or as a liveness probe.
    """
    from mlmon_dagster.spec.scalars import format_duration
    from mlmon_dagster.store.alerting.outbox_health import outbox_health
    from mlmon_dagster.store.state import heartbeats

    state = project.store.state
    last = heartbeats.last_beat(state, heartbeats.DISPATCHER)
    health = outbox_health(state)
    problems = []
    if last is None:
        problems.append(
            "alerts were never dispatched; start mlmon dev, or run mlmon alerts deliver"
        )
    else:
        age = dt.datetime.now(dt.UTC) - last  # the real clock, as the dispatcher's
        if age > max_age:
            problems.append(
                f"the last dispatch was at {last:%Y-%m-%d %H:%M:%S} UTC, more than "
                f"{format_duration(max_age)} ago; is dagster-daemon up, is alert_dispatcher on?"
            )
    if health.n_dead:
        problems.append(
            f"{health.n_dead} messages were refused for good ({health.last_error}); "
            "see mlmon alerts requeue"
        )
    for problem in problems:
        click.echo(f"mlmon watchdog: {problem}", err=True)
    if not problems and last is not None:
        click.echo(f"Alerts were dispatched at {last:%Y-%m-%d %H:%M:%S} UTC.")
    sys.exit(1 if problems else 0)
