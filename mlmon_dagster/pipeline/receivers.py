"""The places that messages go to, with what the environment says of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from mlmon_dagster.project import Project, read_variable
from mlmon_dagster.spec import ModelSpec

if TYPE_CHECKING:
    from mlmon_dagster.alerts import ConsoleReceiver, Receiver
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver
    from mlmon_dagster.alerts.receivers.webhook import Endpoint
    from mlmon_dagster.report.plots import Curve


def receivers(project: Project, specs: Sequence[ModelSpec] = ()) -> dict[str, Receiver]:
    """Return where messages go; without a Slack token Slack's are shown on the terminal.

    Args:
        project: What the environment says of Slack and mail.
        specs: Models whose webhooks may be posted to.

    Raises:
        ConfigError: If ``MLMON_SMTP_URL`` cannot be used.
    """
    from mlmon_dagster.alerts.lifecycle.routing import webhooks
    from mlmon_dagster.alerts.receivers.mail import MailReceiver, parse_mail_server
    from mlmon_dagster.alerts.receivers.webhook import WebhookReceiver

    console = _console(project)
    server = parse_mail_server(project.smtp_url, project.mail_from) if project.smtp_url else None
    endpoints = {
        channel: _endpoint(webhook.url, webhook.url_env, webhook.secret_env)
        for channel, webhook in webhooks(specs).items()
    }
    return {
        "console": console,
        "slack": slack_receiver(project) or console,
        "webhook": WebhookReceiver(endpoints),
        "email": MailReceiver(server, draw=draw_plot),
    }


@cache
def slack_receiver(project: Project) -> SlackReceiver | None:
    """Return the Slack workspace of the project's token; None without a token."""
    from mlmon_dagster.alerts.receivers.slack import SlackReceiver

    if project.slack_token is None:
        return None
    if project.slack_api_url is None:
        return SlackReceiver(project.slack_token, draw=draw_plot)
    return SlackReceiver(project.slack_token, base_url=project.slack_api_url, draw=draw_plot)


@cache
def _console(_project: Project) -> ConsoleReceiver:
    """Return the terminal, made once per project, so that the hint on Slack is printed once."""
    from mlmon_dagster.alerts import ConsoleReceiver

    return ConsoleReceiver()


def _endpoint(url: str | None, url_env: str | None, secret_env: str | None) -> Endpoint:
    from mlmon_dagster.alerts.receivers.webhook import Endpoint

    address = url if url_env is None else read_variable(url_env)
    secret = read_variable(secret_env) if secret_env else None
    declared = {url_env: address, secret_env: secret}
    missing = tuple(name for name, value in declared.items() if name and value is None)
    return Endpoint(address or "", secret, missing)


def draw_plot(plot: Mapping[str, Any]) -> bytes:
    """Return a PNG of the plot of an alert, one curve below the other.

    Args:
        plot: As ``mlmon_dagster.alerts.messages.outbox_rows.plot_of`` made it.
    """
    from mlmon_dagster.report.plots import draw

    return draw(*(_curve(curve, plot["zone"]) for curve in plot["curves"]))


def _curve(curve: Mapping[str, Any], zone: str) -> Curve:
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
