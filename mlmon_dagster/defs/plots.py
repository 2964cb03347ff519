"""Plots of alerts, drawn like those of the reports; alerts and reports do not know each other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlmon_dagster.report.plots import Curve


def draw_plot(plot: Mapping[str, Any]) -> bytes:
    """Return a PNG of the plot of an alert, one curve below the other.

    Args:
        plot: As ``mlmon_dagster.alerts.messages.plot_data.plot_of`` made it.
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
