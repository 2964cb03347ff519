"""``mlmon alerts``: look at alerts, deliver them, handle them, test them; ``mlmon watchdog``."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mlmon_dagster.alerts.handling import LONGEST_SILENCE, acknowledge, find_alert
from mlmon_dagster.alerts.handling import requeue as send_again
from mlmon_dagster.alerts.lifecycle.routing import (
    Destination,
    collect_mentions,
    every_destination,
    is_matched,
    matcher,
    platform_spec,
)
from mlmon_dagster.alerts.messages.digest import Cadence, compose_digest, write_digests
from mlmon_dagster.commands.options import (
    Group,
    author_option,
    declared_specs,
    examples,
    future,
    models_of,
    past,
    prints_table,
    spec_of,
    specs_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import RECEIVERS, read_mention
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.scalars import format_duration, parse_duration
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.outbox import dead_letters, outbox_health
from mlmon_dagster.tables.alerts import (
    REFUSED_MESSAGES,
    ask_alert,
    ask_history,
    list_alerts,
    name_monitor,
    silences_at,
    tabulate_alerts,
)
from mlmon_dagster.tables.table import Answer, AnyAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_MOST_MENTIONS = 5  # that a test notifies: a channel of many models may have those of many teams


@click.group(cls=Group)
def alerts() -> None:
    """Look at alerts, handle them and deliver them.

    Alerts are named by the id that list shows; the first characters are enough.
    """


@alerts.command("list", epilog=examples("mlmon alerts list --model flight_delay --firing"))
@click.option("--model", help="Only of this model.")
@click.option("--firing", is_flag=True, help="Only what is firing now.")
@prints_table
@click.pass_obj
def list_(project: Project, model: str | None, firing: bool) -> AnyAnswer:
    """List alerts and their episodes, newest first; then what failed too seldom to be one."""
    from mlmon_dagster.store.alert_state import models_with_new_results

    found = list_alerts(project.store, model, "FIRING" if firing else None)
    answer = tabulate_alerts(declared_specs(project), found)
    waiting = [m for m in models_with_new_results(project.store.state) if model in (None, m)]
    note = (
        f"New verdicts of {', '.join(sorted(waiting))} are not in this list yet. The daemon "
        "takes them in within a minute, and so does: mlmon alerts deliver"
    )
    return replace(answer, note=note if waiting else "")


@alerts.command(epilog=examples("mlmon alerts show 3fa2c1"))
@click.argument("alert")
@prints_table
@click.pass_obj
def show(project: Project, alert: str) -> AnyAnswer:
    """Show everything that is known of ALERT."""
    return ask_alert(project.store, alert, declared_specs(project))


@alerts.command(epilog=examples("mlmon alerts history --model flight_delay --since 7d"))
@click.option("--model", help="Only of this model.")
@click.option("--since", callback=past, metavar="TIME", help="A day, a time, or 7d for a week ago.")
@click.option("--limit", default=200, show_default=True, help="At most so many, the newest.")
@prints_table
@click.pass_obj
def history(
    project: Project, model: str | None, since: dt.datetime | None, limit: int
) -> AnyAnswer:
    """Show what happened to alerts: opened, escalated, acknowledged, resolved."""
    return ask_history(project.store, declared_specs(project), model, since, limit)


@alerts.command(epilog=examples("mlmon alerts deliver"))
@click.pass_obj
def deliver(project: Project) -> None:
    """Turn new verdicts into alerts and send what is due, as the dispatcher sensor does."""
    from mlmon_dagster.alerts.messages.incidents import something_waits
    from mlmon_dagster.defs.delivery import dispatch_alerts
    from mlmon_dagster.defs.instance import open_instance
    from mlmon_dagster.spec import read_models
    from mlmon_dagster.spec.files.loader import no_models

    found = read_models(project.models_folder, project.now())
    if not found.specs and not found.broken and not something_waits(project.store):
        raise no_models(project.models_folder)
    for broken in found.broken:
        click.echo(f"mlmon: does not load: {broken.summary()}", err=True)
    with open_instance(project) as instance:
        report = dispatch_alerts(project, found.specs, instance, project.now(), found.broken)
    click.echo(report.text())
    sys.exit(0 if report.delivery.n_dead == 0 and not found.broken else 1)


@alerts.command(
    epilog=examples("mlmon alerts silence --model flight_delay --monitor 'drift/*' --for 2d")
)
@click.option("--model", help="Of this model; * is a wildcard in all of these.")
@click.option("--monitor", help="Of this monitor, such as 'drift/*'.")
@click.option("--family", help="Of this family, such as drift.")
@click.option("--severity", type=click.Choice(["WARN", "ERROR"]), help="Of this severity.")
@click.option("--owner", help="Of this owner, as the monitor declares it.")
@click.option("--slice", "slice_", metavar="KEY=VALUE", help="Of one slice, such as origin=JFK.")
@click.option("--for", "ends", callback=future, metavar="DURATION", help="Such as 2h or 3d.")
@click.option("--comment", default="", help="Why.")
@author_option
@click.pass_obj
def silence(
    project: Project,
    /,
    slice_: str | None,
    ends: dt.datetime | None,
    comment: str,
    author: str,
    **labels: str | None,
) -> None:
    """Keep alerts from being sent for a while; they are still listed."""
    now = project.now()
    if ends is None:
        raise ConfigError("Say how long, such as --for 2h.")
    if ends <= now:
        raise ConfigError("The silence would have ended already; write a longer --for.")
    if ends - now > LONGEST_SILENCE:
        raise ConfigError("A silence lasts at most a year; take the monitor out of the spec.")
    wanted = {name: value for name, value in labels.items() if value}
    if slice_ is not None:
        key, equals, value = slice_.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--slice {slice_!r} is not KEY=VALUE, such as origin=JFK.")
        wanted |= {"slice_key": key, "slice_value": value}
    with project.store.state.begin() as conn:
        number = alert_state.add_silence(
            conn,
            matcher=matcher(wanted),
            author=author,
            comment=comment,
            starts_at=now,
            ends_at=ends,
        )
    said = ", ".join(f"{name} = {value}" for name, value in sorted(wanted.items()))
    click.echo(f"Silence {number}: {said}, until {ends:%Y-%m-%d %H:%M} UTC.")
    click.echo(f"It matches {counted(_count_matching(project, wanted), 'open alert')}.")
    click.echo(f"To end it: mlmon alerts unsilence {number}")


def _count_matching(project: Project, wanted: dict[str, str]) -> int:
    with project.store.state.connect() as conn:
        rows = alert_state.load_open_alerts(conn)
    return sum(
        is_matched(row, matcher(wanted))
        for row in rows
        if alert_state.name_standing(row["state"], row["muted_reason"])
    )


@alerts.command(epilog=examples("mlmon alerts unsilence 3"))
@click.argument("silence_id", type=int, metavar="ID")
@author_option
@click.pass_obj
def unsilence(project: Project, silence_id: int, author: str) -> None:
    """End silence ID now; alerts that still fire are sent with the next dispatch."""
    if not alert_state.end_silence(project.store.state, silence_id, project.now(), author):
        raise ConfigError(f"No silence {silence_id} is in force. See: mlmon alerts silences")
    click.echo(f"Silence {silence_id} has ended.")


@alerts.command(epilog=examples("mlmon alerts silences --all"))
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
@prints_table
@click.pass_obj
def silences(project: Project, everything: bool) -> AnyAnswer:
    """List silences: what they match, until when, by whom and why."""
    now = project.now()
    rows = alert_state.every_silence(project.store.state, None if everything else now)
    return Answer(silences_at(now), rows)


@alerts.command(
    epilog=examples(
        "mlmon alerts ack 3fa2c1 --comment 'looking at the weather feed'",
        "mlmon alerts ack 3fa2c1 b73afae1",
    )
)
@click.argument("ids", nargs=-1, required=True, metavar="ALERT...")
@click.option("--comment", default="", help="Shown in the thread.")
@author_option
@click.pass_obj
def ack(project: Project, ids: tuple[str, ...], comment: str, author: str) -> None:
    """Acknowledge each ALERT: no reminders until it gets worse or ends; its thread says who."""
    for found in [find_alert(project.store, alert) for alert in ids]:  # all of them or none
        acknowledge(project.store, found["fingerprint"], author, project.now(), comment)
        monitor = name_monitor(found["monitor"])
        click.echo(f"{found['model']}, {monitor}: acknowledged by {author}.")


@alerts.command(epilog=examples("mlmon alerts listen"))
@click.pass_obj
def listen(project: Project) -> None:
    """Wait for clicks on the buttons of messages in Slack, until it is stopped.

    Needs MLMON_SLACK_APP_TOKEN, an app-level token; messages have buttons where it is set.
    """
    from threading import Event

    from mlmon_dagster.alerts.receivers.slack import API_URL, APP_TOKEN, listener

    app_token = project.variables(APP_TOKEN)
    if not app_token:
        raise ConfigError(
            "MLMON_SLACK_APP_TOKEN is not set: the app-level token (xapp-...) of the Slack app, "
            "with the scope connections:write. Turn Socket Mode and Interactivity on there."
        )
    url = project.variables(API_URL)
    client = listener(project.store, app_token, project.now, base_url=url)
    client.connect()
    click.echo("Listening to buttons in Slack.")
    try:
        Event().wait()
    finally:
        client.close()


@alerts.command(epilog=examples("mlmon alerts requeue 17"))
@click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every message that was refused.")
@prints_table
@click.pass_obj
def requeue(project: Project, ids: tuple[int, ...], everything: bool) -> AnyAnswer | None:
    """Send messages again that were refused for good, once the cause is repaired.

    They say how their alerts are now. Without ID and --all: list them.
    """
    if not ids and not everything:
        rows = dead_letters(project.store.state)
        below = "To send them again: mlmon alerts requeue --all" if rows else ""
        return Answer(REFUSED_MESSAGES, rows, below=below, exit_code=1 if rows else 0)
    specs = models_of(project).specs
    platform = platform_spec(specs, project.ops_channel)
    every = [*specs, *([platform] if platform else [])]
    n_refused, n_waiting = send_again(project.store, every, project.now(), ids)
    click.echo(
        f"{counted(n_refused, 'refused message')} will be sent again in {n_waiting}, with the "
        "present state of their alerts. "
        "Next: mlmon alerts deliver"
    )
    return None


@alerts.command(epilog=examples("mlmon alerts digest --print --every weekly"))
@click.option("--print", "printed", is_flag=True, help="Show it here instead of sending it.")
@click.option("--every", type=click.Choice(["daily", "weekly"]), default="daily")
@click.option("--model", help="Only about this model.")
@click.pass_obj
def digest(project: Project, printed: bool, every: Cadence, model: str | None) -> None:
    """Show the digest of the day or week until now, or write the ones that are due."""
    from mlmon_dagster.alerts.messages.message import plain_text
    from mlmon_dagster.report.events import describe_period

    specs = [spec_of(project, model)] if model else specs_of(project)
    store, now = project.store, project.now()
    if printed:
        click.echo(plain_text(compose_digest(store, specs, every, now, describe_period)))
        return
    n = write_digests(store, specs, now, describe_period)
    hint = "" if n else "; none is due, or alerts.digest is off. To look at one: --print"
    click.echo(f"{n} digests written{hint}")


@alerts.command(epilog=examples("mlmon alerts test --channel '#ml-alerts'"))
@click.option("--channel", help="Only this Slack channel, also one that no model names.")
@click.option("--model", help="Only the places of this model.")
@click.pass_obj
def test(project: Project, channel: str | None, model: str | None) -> None:
    """Send one test message to every place that the models name: Slack, mail, PagerDuty and so on.

    It notifies whom alerts there notify, and the command says who that is. Where a message does
    not arrive, it says what is wrong and how to repair it.
    """
    from mlmon_dagster.pipeline.receivers import local_links

    specs = specs_of(project) if model is None else [spec_of(project, model)]
    if warning := local_links(project, specs):
        click.echo(f"Links: {warning}", err=True)
    problems = [problem for problem in _try_all(project, specs, channel) if problem]
    sys.exit(1 if problems else 0)


def _try_all(project: Project, specs: list[ModelSpec], channel: str | None) -> Iterator[str]:
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver
    from mlmon_dagster.pipeline.receivers import connect

    places = every_destination(specs)
    if channel is not None:
        places = [Destination("slack", channel)]
    slack = connect(project, "slack")
    if any(place.receiver == "slack" for place in places):
        if not isinstance(slack, SlackReceiver):
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
    from mlmon_dagster.alerts.dispatching import send_test
    from mlmon_dagster.pipeline.receivers import receivers

    naming = [s for s in specs if place in every_destination([s])]
    spec = naming[0] if naming else specs[0]
    mentions = collect_mentions(naming, place)
    tried = mentions[:_MOST_MENTIONS]
    report = send_test(project.store, spec, project.now(), receivers(project, specs), place, tried)
    shown = place.receiver == "console" or (place.receiver == "slack" and is_shown_here)
    where = "the terminal" if shown else RECEIVERS[place.receiver].called.format(place.channel)
    if report.n_sent and not report.errors:
        notified = _describe_notified(place, mentions, is_shown_here=shown)
        click.echo(f"Delivered to {where}{notified}.")
        return ""
    errors = report.errors or ["it is not its turn yet: the channel is asked to wait; try again"]
    for error in errors:
        click.echo(f"Not delivered to {where}: {error}", err=True)
    return errors[0]


def _describe_notified(place: Destination, mentions: Sequence[str], *, is_shown_here: bool) -> str:
    """Say who was notified by name, as the end of a sentence."""
    if place.receiver == "console":
        return ""
    if place.receiver != "slack":
        return f"; {RECEIVERS[place.receiver].unmentioned}"
    known = [found.who for mention in mentions if (found := read_mention(mention))]
    who = ", ".join(known[:_MOST_MENTIONS]) or "nobody: no mention is declared"
    if n_spared := len(known[_MOST_MENTIONS:]):
        who += f"; this test spares {n_spared} more whom alerts may notify"
    return f"; in {place.channel} it notifies {who}" if is_shown_here else f", notifying {who}"


def _age(_context: click.Context, _option: click.Parameter, text: str) -> dt.timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(epilog=examples("mlmon watchdog --max-age 10m"))
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
    from mlmon_dagster.store.clocks import is_ahead
    from mlmon_dagster.store.state import model_history

    state = project.store.state
    last = model_history.load_last_beat(state, model_history.DISPATCHER)
    health = outbox_health(state)
    problems = []
    if last is None:
        problems.append(
            "alerts were never dispatched; start mlmon dev, or run mlmon alerts deliver"
        )
    else:
        now = project.store.clock()  # real time, as the dispatcher's
        if is_ahead(last, now):
            problems.append(
                f"the last dispatch was at {last:%Y-%m-%d %H:%M:%S} UTC, which lies ahead of now, "
                f"{now:%Y-%m-%d %H:%M:%S} UTC, so nobody knows when it was; is this clock right? "
                "The next dispatch puts it right: mlmon alerts deliver"
            )
        elif now - last > max_age:
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
