"""``mlmon event``: what people know of, so that nobody is called because of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import (
    Group,
    author_option,
    examples,
    of_model,
    period,
    prints_table,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.known_events import KnownEvent
from mlmon_dagster.spec.names import DRIFT
from mlmon_dagster.store import known_events
from mlmon_dagster.tables.changes import ask_events

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec
    from mlmon_dagster.tables.asked import Days
    from mlmon_dagster.tables.table import AnyAnswer


@click.group(cls=Group)
def event() -> None:
    """Say what is known to happen, such as a promotion.

    Charts mark it. Alerts that it explains are listed and not sent. Recurring events are better
    declared under `events` in the model's file.
    """


@event.command(
    epilog=examples("mlmon event add flight_delay storm --from 2013-12-14 --to 2013-12-17")
)
@of_model
@click.argument("name")
@period
@click.option("--every", type=click.Choice(["week", "month", "year"]), help="It happens again.")
@click.option(
    "--explains", default=DRIFT, show_default=True, help="Families of monitors, with commas."
)
@author_option
def add(
    project: Project,
    spec: ModelSpec,
    name: str,
    days: Days,
    every: str | None,
    explains: str,
    author: str,
) -> None:
    """Add the event NAME to MODEL, for windows that are judged from now on."""
    from pydantic import ValidationError

    first, last = days
    if first is None:
        raise ConfigError("The days are needed: --from DAY, and --to DAY if there are several.")
    families = [family.strip() for family in explains.split(",") if family.strip()]
    declared = {"name": name, "from": first, "to": last or first, "every": every}
    try:
        known = KnownEvent.model_validate({**declared, "explains": families})
    except ValidationError as error:
        first_error = error.errors()[0]
        where = ".".join(map(str, first_error["loc"]))
        said = first_error["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {said}" if where else said) from None
    with project.store.state.begin() as conn:
        known_events.add_event(conn, spec.model, known, author, project.now(), spec.events)
    click.echo(
        f"{spec.model} has the event {name!r}. Alerts that it explains are listed and not sent, of "
        f"windows judged from now on.\nTake it back with: mlmon event remove {spec.model} {name!r}"
    )


@event.command("list", epilog=examples("mlmon event list flight_delay"))
@of_model
@prints_table
def list_events(project: Project, spec: ModelSpec) -> AnyAnswer:
    """List the events of MODEL: those of its file, then those that people added."""
    return ask_events(project.store, spec)


@event.command(epilog=examples("mlmon event remove flight_delay storm"))
@of_model
@click.argument("name")
def remove(project: Project, spec: ModelSpec, name: str) -> None:
    """Take the event NAME of MODEL back; what it explained is not sent again."""
    with project.store.state.begin() as conn:
        known_events.remove_event(conn, spec, name)
    click.echo(f"{spec.model} has no event {name!r} any more.")
