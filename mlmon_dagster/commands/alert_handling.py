"""``mlmon alerts silence | unsilence | silences | ack | requeue | digest``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.moments import future
from mlmon_dagster.commands.options import author_option, models_of, specs_of
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    import datetime as dt

    from mlmon_dagster.project import Project


@click.command(
    epilog="Example: mlmon alerts silence --model flight_delay --monitor 'drift/*' --for 2d "
    "--comment 'new weather feed'"
)
@click.option("--model", help="Of this model; * is a wildcard in all of these.")
@click.option("--monitor", help="Of this monitor, such as 'drift/*'.")
@click.option("--family", help="Of this family, such as drift.")
@click.option("--severity", type=click.Choice(["WARN", "ERROR"]), help="Of this severity.")
@click.option("--owner", help="Of this owner, as the monitor declares it.")
@click.option("--slice", "slice_", metavar="KEY=VALUE", help="Of one slice, such as origin=JFK.")
@click.option("--until", callback=future, metavar="TIME", help="When it ends.")
@click.option("--for", "until_too", callback=future, metavar="DURATION", help="Such as 2h or 3d.")
@click.option("--comment", default="", help="Why.")
@author_option
@click.pass_obj
def silence(
    project: Project,
    /,
    slice_: str | None,
    until: dt.datetime | None,
    until_too: dt.datetime | None,
    comment: str,
    author: str,
    **labels: str | None,
) -> None:
    """Keep alerts from being sent for a while; they are still listed."""
    from mlmon_dagster.alerts.lifecycle.silences import matcher
    from mlmon_dagster.alerts.people.handling import LONGEST_SILENCE
    from mlmon_dagster.store.alerting import silences as stored

    if (until is None) == (until_too is None):
        raise ConfigError("Say how long: --for 2h, or --until 2013-12-30 (one of the two).")
    ends = until or until_too
    now = project.now()
    if ends is None or ends <= now:
        raise ConfigError("The silence would have ended already; --until lies in the future.")
    if ends - now > LONGEST_SILENCE:
        raise ConfigError("A silence lasts at most a year; take the monitor out of the spec.")
    wanted = {name: value for name, value in labels.items() if value}
    if slice_ is not None:
        key, equals, value = slice_.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--slice {slice_!r} is not KEY=VALUE, such as origin=JFK.")
        wanted |= {"slice_key": key, "slice_value": value}
    number = stored.add(
        project.store.state,
        matcher=matcher(wanted),
        author=author,
        comment=comment,
        starts_at=now,
        ends_at=ends,
    )
    said = ", ".join(f"{name} = {value}" for name, value in sorted(wanted.items()))
    click.echo(f"Silence {number}: {said}, until {ends:%Y-%m-%d %H:%M} UTC.")
    click.echo(f"{_count_matching(project, wanted)} alerts fire that it matches.")
    click.echo(f"To end it: mlmon alerts unsilence {number}")


def _count_matching(project: Project, wanted: dict[str, str]) -> int:
    from mlmon_dagster.alerts.lifecycle.silences import matcher, silenced_by
    from mlmon_dagster.store.alerting import alert_state

    with project.store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, None).values()
    silence_row = {"id": 0, "matcher": matcher(wanted)}
    active = [row for row in rows if row["state"] in alert_state.ACTIVE]
    return sum(silenced_by(row, [silence_row]) is not None for row in active)


@click.command(epilog="Example: mlmon alerts unsilence 3")
@click.argument("silence_id", type=int, metavar="ID")
@author_option
@click.pass_obj
def unsilence(project: Project, silence_id: int, author: str) -> None:
    """End silence ID now; what still fires is told with the next dispatch."""
    from mlmon_dagster.store.alerting import silences as stored

    if not stored.end(project.store.state, silence_id, project.now(), author):
        raise ConfigError(f"No silence {silence_id} is in force. See: mlmon alerts silences")
    click.echo(f"Silence {silence_id} has ended.")


@click.command(epilog="Example: mlmon alerts silences --all")
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@click.pass_obj
def silences(project: Project, everything: bool) -> None:
    """List silences: what they match, until when, by whom and why."""
    from mlmon_dagster.alerts.lifecycle.silences import render_silences
    from mlmon_dagster.store.alerting import silences as stored

    now = project.now()
    rows = stored.every(project.store.state, None if everything else now)
    click.echo(render_silences(rows, now))


@click.command(epilog="Example: mlmon alerts ack 3fa2c1 --comment 'looking at the weather feed'")
@click.argument("alert")
@click.option("--comment", default="", help="Shown in the thread.")
@author_option
@click.pass_obj
def ack(project: Project, alert: str, comment: str, author: str) -> None:
    """Take ALERT on: no reminders until it gets worse or ends, and its thread says who."""
    from mlmon_dagster.alerts.people.handling import acknowledge

    row = acknowledge(project.store, alert, author, project.now(), comment)
    click.echo(f"{row['model']}, {row['monitor']}: acknowledged by {author}.")


@click.command(epilog="Example: mlmon alerts requeue 17")
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every message that was refused.")
@click.pass_obj
def requeue(project: Project, ids: tuple[int, ...], everything: bool) -> None:
    """Tell again what messages told that were refused for good, after the cause was mended.

    What still fires is told as firing, what is over as over. Without ID and --all: list them.
    """
    from mlmon_dagster.alerts.lifecycle.silences import render_dead_letters
    from mlmon_dagster.alerts.lifecycle.undeclared_models import platform_spec
    from mlmon_dagster.alerts.people.requeue import requeue as tell_again
    from mlmon_dagster.store.alerting.outbox_health import dead_letters

    if not ids and not everything:
        rows = dead_letters(project.store.state)
        click.echo(render_dead_letters(rows))
        sys.exit(1 if rows else 0)
    specs = models_of(project).specs
    platform = platform_spec(specs, project.ops_channel)
    every = [*specs, *([platform] if platform else [])]
    n_refused, n_waiting = tell_again(project.store, every, project.now(), ids)
    click.echo(
        f"{n_refused} refused messages are told again in {n_waiting}, as things stand now. "
        "Next: mlmon alerts deliver"
    )


@click.command(epilog="Example: mlmon alerts digest --print --every weekly")
@click.option("--print", "printed", is_flag=True, help="Show it here instead of sending it.")
@click.option("--every", type=click.Choice(["daily", "weekly"]), default="daily")
@click.option("--model", help="Only about this model.")
@click.pass_obj
def digest(project: Project, printed: bool, every: Any, model: str | None) -> None:
    """Show the digest of the day or week until now, or write the ones that are due."""
    from mlmon_dagster.alerts.messages.digest import compose_digest, write_digests
    from mlmon_dagster.alerts.messages.rendering import plain_text
    from mlmon_dagster.commands.options import spec_of

    specs = [spec_of(project, model)] if model else specs_of(project)
    if printed:
        click.echo(plain_text(compose_digest(project.store, specs, every, project.now())))
        return
    n = write_digests(project.store, specs, project.now())
    hint = "" if n else "; none is due, or alerts.digest is off. To look at one: --print"
    click.echo(f"{n} digests written{hint}")
