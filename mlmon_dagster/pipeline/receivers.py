"""The places that messages go to, with what the environment says of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlmon_dagster.project import Project, read_variable
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.alerting import LOOPBACK

if TYPE_CHECKING:
    from mlmon_dagster.alerts.lifecycle.routing import Address
    from mlmon_dagster.alerts.messages import message
    from mlmon_dagster.alerts.messages.message import Plot
    from mlmon_dagster.alerts.receivers.base import ConsoleReceiver, Receiver
    from mlmon_dagster.alerts.receivers.http_post import Endpoint
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver
    from mlmon_dagster.report.plots import Curve


def receivers(project: Project, specs: Sequence[ModelSpec] = ()) -> dict[str, Receiver]:
    """Return where messages go; without a Slack token Slack's are shown on the terminal.

    Args:
        project: What the environment says of Slack and mail.
        specs: Models whose webhooks may be posted to.

    Raises:
        ConfigError: If ``MLMON_SMTP_URL`` cannot be used.
    """
    from mlmon_dagster.alerts.lifecycle.routing import ADDRESSED, addresses
    from mlmon_dagster.alerts.receivers.alertmanager import AlertmanagerReceiver
    from mlmon_dagster.alerts.receivers.apprise import AppriseReceiver
    from mlmon_dagster.alerts.receivers.mail import MailReceiver, parse_mail_server
    from mlmon_dagster.alerts.receivers.pagerduty import PagerDutyReceiver
    from mlmon_dagster.alerts.receivers.teams import TeamsReceiver
    from mlmon_dagster.alerts.receivers.webhook import WebhookReceiver

    console = _console(project)
    server = parse_mail_server(project.smtp_url, project.mail_from) if project.smtp_url else None
    places = {
        receiver: {
            channel: _endpoint(route) for channel, route in addresses(specs, receiver).items()
        }
        for receiver in ADDRESSED
    }
    return {
        "console": console,
        "slack": slack_receiver(project) or console,
        "webhook": WebhookReceiver(places["webhook"]),
        "pagerduty": PagerDutyReceiver(places["pagerduty"]),
        "alertmanager": AlertmanagerReceiver(places["alertmanager"]),
        "teams": TeamsReceiver(places["teams"]),
        "apprise": AppriseReceiver(places["apprise"]),
        "email": MailReceiver(server, draw=draw_plot),
    }


def unready_places(project: Project, specs: Sequence[ModelSpec]) -> list[str]:
    """Say which places cannot take a message as things are, and what mends that; nothing is sent.

    Args:
        project: What the environment says of them.
        specs: The models whose places count.

    Raises:
        ConfigError: If ``MLMON_SMTP_URL`` cannot be used.
    """
    from mlmon_dagster.alerts.lifecycle.routing import every_destination
    from mlmon_dagster.alerts.receivers.base import Checked

    known = receivers(project, specs)
    problems = [
        receiver.problem(place.channel)
        for place in every_destination(specs)
        if isinstance(receiver := known[place.receiver], Checked)
    ]
    return list(dict.fromkeys(problem.error for problem in problems if problem))


def local_links(project: Project, specs: Sequence[ModelSpec]) -> str:
    """Say that messages go to others with links that only this machine opens; empty if not so.

    Args:
        project: What the environment says of Slack and the UI.
        specs: The models whose places count.
    """
    from mlmon_dagster.alerts.lifecycle.routing import every_destination

    local = {
        name: url
        for name, url in (("MLMON_UI_URL", project.ui_url), ("MLMON_PAGES_URL", project.pages_url))
        if url and urlsplit(url).hostname in LOOPBACK
    }
    if not local:
        return ""
    shown_here = {"console"} if project.slack_token else {"console", "slack"}
    elsewhere = sorted({p.receiver for p in every_destination(specs)} - shown_here)
    if not elsewhere:
        return ""
    return (
        f"messages to {', '.join(elsewhere)} lead to {' and '.join(local.values())}, which nobody "
        f"opens from another machine. Set {' and '.join(local)} to the address that people use."
    )


@cache
def slack_receiver(project: Project) -> SlackReceiver | None:
    """Return the Slack workspace of the project's token; None without a token."""
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver

    if project.slack_token is None:
        return None
    app_token = project.slack_app_token
    if project.slack_api_url is None:
        return SlackReceiver(project.slack_token, draw=draw_plot, app_token=app_token)
    return SlackReceiver(
        project.slack_token,
        base_url=project.slack_api_url,
        draw=draw_plot,
        app_token=app_token,
    )


@cache
def _console(_project: Project) -> ConsoleReceiver:
    """Return the terminal, made once per project, so that the hint on Slack is printed once."""
    from mlmon_dagster.alerts.receivers.base import ConsoleReceiver

    return ConsoleReceiver()


def _endpoint(route: Address) -> Endpoint:
    from mlmon_dagster.alerts.receivers.http_post import Endpoint
    from mlmon_dagster.alerts.receivers.pagerduty import URLS
    from mlmon_dagster.spec.alerting import PagerDutyRoute

    if isinstance(route, PagerDutyRoute):
        key = read_variable(route.key_env)
        return Endpoint(URLS[route.region], key, () if key else (route.key_env,))
    secret_env = getattr(route, "secret_env", None)
    address = getattr(route, "url", None) or read_variable(route.url_env or "")
    secret = read_variable(secret_env) if secret_env else None
    declared = {route.url_env: address, secret_env: secret}
    missing = tuple(name for name, value in declared.items() if name and value is None)
    return Endpoint(address or "", secret, missing)


def draw_plot(plot: Plot) -> bytes:
    """Return a PNG of the plot of an alert, one curve below the other.

    Args:
        plot: As ``mlmon_dagster.alerts.messages.message.plot_of`` made it.
    """
    from mlmon_dagster.report.plots import draw

    return draw(*(_curve(curve, plot["zone"]) for curve in plot["curves"]))


def _curve(curve: message.Curve, zone: str) -> Curve:
    from mlmon_dagster.report.plots import Curve

    return Curve(
        title=curve["title"],
        starts=[dt.datetime.fromisoformat(start) for start in curve["starts"]],
        values=_numbers(curve["values"]),
        end=dt.datetime.fromisoformat(curve["end"]),
        lower=_numbers(curve["lower"]),
        upper=_numbers(curve["upper"]),
        zone=zone,
        baseline=curve["baseline"],
        limit=curve["limit"],
        failing=curve["failing"],
        is_share=curve["is_share"],
    )


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
