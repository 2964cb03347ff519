"""The places that messages go to, with what the environment says of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.alerting import LOOPBACK, RECEIVERS

if TYPE_CHECKING:
    from mlmon_dagster.alerts.messages import message
    from mlmon_dagster.alerts.messages.message import Plot
    from mlmon_dagster.alerts.receivers.base import ConsoleReceiver, Receiver
    from mlmon_dagster.report.charts import Curve


def receivers(project: Project, specs: Sequence[ModelSpec] = ()) -> dict[str, Receiver]:
    """Return where messages go, by the names that specs have for it.

    Each kind is the module of that name in `alerts.receivers`. What is not set up, such as Slack
    without a token, is shown on the terminal.

    Args:
        project: Whose environment counts.
        specs: Models whose places may be posted to.

    Raises:
        ConfigError: If ``MLMON_SMTP_URL`` cannot be used.
    """
    console = _console(project)
    known = {kind: connect(project, kind, specs) or console for kind in RECEIVERS}
    return {"console": console, **known}


def connect(project: Project, kind: str, specs: Sequence[ModelSpec] = ()) -> Receiver | None:
    """Return a receiver; None if the environment does not say how to reach it."""
    from mlmon_dagster.alerts.lifecycle.routing import places_of
    from mlmon_dagster.alerts.receivers.base import Surroundings

    module = import_module(f"mlmon_dagster.alerts.receivers.{kind}")
    around = Surroundings(places_of(specs, kind), project.variables, draw_plot)
    receiver: Receiver | None = module.connect(around)
    return receiver


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
    named = {place.receiver for place in every_destination(specs)} - {"console"}
    elsewhere = sorted(kind for kind in named if connect(project, kind) is not None)
    if not elsewhere:
        return ""
    return (
        f"messages to {', '.join(elsewhere)} lead to {' and '.join(local.values())}, which nobody "
        f"opens from another machine. Set {' and '.join(local)} to the address that people use."
    )


@cache
def _console(_project: Project) -> ConsoleReceiver:
    """Return the terminal, made once per project, so that the hint on Slack is printed once."""
    from mlmon_dagster.alerts.receivers.base import ConsoleReceiver

    return ConsoleReceiver()


def draw_plot(plot: Plot) -> bytes:
    """Return a PNG of the plot of an alert, one curve below the other.

    Args:
        plot: As ``mlmon_dagster.alerts.messages.message.plot_of`` made it.
    """
    from mlmon_dagster.report.plots import draw

    return draw(*(_curve(curve, plot["zone"]) for curve in plot["curves"]))


def _curve(curve: message.Curve, zone: str) -> Curve:
    from mlmon_dagster.report.charts import Curve

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
