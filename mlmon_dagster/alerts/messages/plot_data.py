"""What the plot of a message shows, as data; whoever delivers it brings the drawing.

The plot is kept in the outbox as numbers, not as a picture: small, readable, and drawn only when
its message has arrived.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.messages.slack_text import clean
from mlmon_dagster.alerts.messages.view import AlertView, number, worst_first
from mlmon_dagster.spec.metric_registry import is_loss
from mlmon_dagster.store.state.frames import Row
from mlmon_dagster.store.state.monitor_results import series

Draw = Callable[[Mapping[str, Any]], bytes]

MAX_CURVES = 3
MAX_WINDOWS = 60
_FAILED = ("WARN", "ERROR")
_THRESHOLD = re.compile(r"(above|below|beyond|drop) (-?[\d,.]+(?:e[+-]?\d+)?)")
_TITLE = 120
_ALT = 900


def plot_of(conn: sa.Connection, views: Sequence[AlertView]) -> dict[str, Any] | None:
    """Return the plot of some alerts of one model; None if there is nothing to draw.

    The worst alerts with a history of two values or more get a curve each: value and interval by
    window, the baseline, the limit, and which windows failed.

    Args:
        conn: The state database.
        views: The alerts.
    """
    ordered = worst_first([view for view in views if view.row["family"] != "pipeline"])
    curves: list[dict[str, Any]] = []
    shown = []
    for view in ordered:
        curve = _curve(conn, view)
        if curve is not None:
            curves.append(curve)
            shown.append(view)
        if len(curves) == MAX_CURVES:
            break
    if not curves:
        return None
    model = shown[0].row["model"]
    names = ", ".join(curve["title"] for curve in curves)
    return {
        "title": clean(f"{model}: {names}", _TITLE),
        "alt": clean(". ".join(_alt(v, c) for v, c in zip(shown, curves, strict=True)), _ALT),
        "zone": shown[0].zone,
        "curves": curves,
    }


def _curve(conn: sa.Connection, view: AlertView) -> dict[str, Any] | None:
    row = view.row
    names = ("model", "monitor", "dataset", "slice_key", "slice_value")
    found = series(conn, {n: row[n] for n in names}, row["last_window_start"], MAX_WINDOWS)
    values = [r["value"] if r["status"] != "NO_DATA" else None for r in found]
    if sum(value is not None for value in values) < 2:
        return None
    judged = next(r for r in reversed(found) if r["status"] != "NO_DATA")
    has_interval = any(r["lower"] is not None and r["upper"] is not None for r in found)
    return {
        "title": clean(view.name, _TITLE),
        "starts": [r["window_start"].isoformat() for r in found],
        "end": found[-1]["window_end"].isoformat(),
        "values": values,
        "lower": [r["lower"] for r in found] if has_interval else [],
        "upper": [r["upper"] for r in found] if has_interval else [],
        "failing": [r["status"] in _FAILED for r in found],
        "baseline": judged["baseline_value"],
        "limit": limit_of(judged),
        "is_share": row["metric"].endswith("_rate"),
    }


def limit_of(result: Row) -> float | None:
    """Return the value beyond which a result would have failed; None if that is no value.

    Args:
        result: ``threshold`` as text, such as ``above 0.10``, ``beyond 0.10`` (on the side of
            ``value``) or ``drop 0.05``, which is held against ``baseline_value``.
    """
    match = _THRESHOLD.fullmatch(result["threshold"])
    if match is None:
        return None
    bound = float(match[2].replace(",", ""))
    if match[1] == "beyond":
        return math.copysign(bound, result["value"])
    if match[1] != "drop":
        return bound
    if result["baseline_value"] is None:
        return None
    sign = 1 if is_loss(result["metric"]) else -1
    return float(result["baseline_value"] + sign * bound)


def _alt(view: AlertView, curve: Mapping[str, Any]) -> str:
    """Say in words what the curve shows, for those who cannot see it."""
    first, last = (dt.datetime.fromisoformat(curve["starts"][i]) for i in (0, -1))
    known = [value for value in curve["values"] if value is not None]
    text = (
        f"{view.name} from {view.moment(first)} to {view.moment(last)}: last {number(known[-1])}, "
        f"lowest {number(min(known))}, highest {number(max(known))}"
    )
    for name in ("baseline", "limit"):
        if curve[name] is not None:
            text += f", {name} {number(curve[name])}"
    n_failed = sum(curve["failing"])
    return f"{text}; {n_failed} of {len(known)} windows failed"


def read_plot(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plot of an outbox payload; empty if it has none."""
    plot = payload.get("plot")
    return dict(plot) if isinstance(plot, Mapping) else {}


def draw_or_none(draw: Draw | None, payload: Mapping[str, Any]) -> bytes | None:
    """Draw the plot of a payload; None if there is none, or if drawing fails for any reason.

    A message must not die of its picture.
    """
    plot = read_plot(payload)
    if draw is None or not plot:
        return None
    try:
        return draw(plot)
    except Exception:  # whatever it is, the text is what counts
        return None


def dump_plot(plot: Mapping[str, Any]) -> str:
    """Write the payload of a row that carries nothing but a plot."""
    return json.dumps({"plot": dict(plot), "plain": "", "event": {}, "fallback": []})
