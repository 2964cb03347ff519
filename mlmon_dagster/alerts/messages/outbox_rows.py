"""Rows of the outbox: a message and its plot, rendered and frozen under its idempotency key.

What the plot of a message shows, as data; whoever delivers it brings the drawing. The plot is kept
in the outbox as numbers, not as a picture: small, readable, and drawn only when its message has
arrived.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import html
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.routing import Destination
from mlmon_dagster.alerts.messages.message import (
    COLOURS,
    MAX_MORE,
    Message,
    declared_mentions,
    plain_text,
    short_payload,
    slack_payload,
)
from mlmon_dagster.alerts.messages.slack_text import Payload, clean, cut, escape, problems
from mlmon_dagster.alerts.messages.view import AlertView, number, worst_first
from mlmon_dagster.monitors.wording import limit_of
from mlmon_dagster.store.alert_state import GroupRow
from mlmon_dagster.store.outbox import OutboxRow
from mlmon_dagster.store.state.monitor_results import series

PLOT = "plot"
FALLBACK = "|fallback"  # ends the group of a copy
_TITLE = 500
_NOTE = 200
Draw = Callable[[Mapping[str, object]], bytes]
MAX_CURVES = 3
MAX_WINDOWS = 60
_FAILED = ("WARN", "ERROR")
_PLOT_TITLE = 120
_ALT = 900


def row_key(group: GroupRow, suffix: str = "") -> str:
    """Return the idempotency key of what a group says in its present version."""
    parts = [group["receiver"], group["group_key"], str(group["version"]), suffix]
    return hashlib.sha256("|".join(part for part in parts if part).encode()).hexdigest()


def outbox_row(
    group: Mapping[str, object],
    key: str,
    kind: str,
    message: Message,
    *,
    head_key: str,
    now: dt.datetime,
    fallback: Destination | None = None,
    tells: Sequence[str] = (),
    plot: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Render a message for the outbox.

    A message that breaks a limit in spite of all care goes out without its blocks: an alert must
    not die of its looks.

    Args:
        group: The row of the notification log, or at least its receiver, channel and key.
        key: The idempotency key.
        kind: What kind of message it is.
        message: What to say.
        head_key: Key of the message that opened the thread; empty to open one.
        now: The time of the flush.
        fallback: Where it goes if this place refuses it for good.
        tells: The episodes that it is about, to say them again should it be refused.
        plot: A picture that goes with the text in one piece, where the place takes that.
    """
    mark = head_key if kind == "head" else key
    payload = slack_payload(message, mark)
    if problems(payload, declared_mentions(message.mentions)):
        payload = short_payload(payload)
    return {
        "idempotency_key": key,
        "group_key": group["group_key"],
        "receiver": group["receiver"],
        "channel": group["channel"],
        "head_key": head_key,
        "kind": kind,
        "payload": json.dumps(
            {
                "slack": payload,
                "plain": plain_text(message),
                "event": _event(group, key, kind, message, head_key),
                "fallback": list(fallback) if fallback else [],
                "tells": list(tells),
                **({"html": html_text(message)} if group["receiver"] == "email" else {}),
                **({"plot": dict(plot)} if plot else {}),
            }
        ),
        "created_at": now,
    }


def plot_row(
    group: Mapping[str, object],
    key: str,
    plot: Mapping[str, object],
    *,
    thread: str,
    now: dt.datetime,
) -> dict[str, object]:
    """Return the row that uploads a plot into a thread.

    It is a message of its own, and in a group of its own: while it fails, no text waits for it.

    Args:
        group: The group whose message it goes with.
        key: The idempotency key of that message.
        plot: What to draw.
        thread: Key of the message that opened the thread; it waits until that has arrived.
        now: The time of the flush.
    """
    return {
        "idempotency_key": hashlib.sha256(f"{key}|{PLOT}".encode()).hexdigest(),
        "group_key": f"{group['group_key']}|{PLOT}",
        "receiver": group["receiver"],
        "channel": group["channel"],
        "head_key": thread,
        "kind": PLOT,
        "payload": dump_plot(plot),
        "created_at": now,
    }


def fallback_row(row: OutboxRow, error: str) -> dict[str, object] | None:
    """Return the copy of a refused message for its fallback place; None if there is none.

    Args:
        row: The row of the outbox that was refused.
        error: What the receiver said.
    """
    payload = json.loads(row["payload"])
    if not payload.get("fallback"):
        return None
    receiver, channel = payload["fallback"]
    key = hashlib.sha256(f"{row['idempotency_key']}|fallback".encode()).hexdigest()
    note = f"Meant for {clean(row['channel'])}, which refused it: {clean(error, _NOTE)}"
    slack = payload["slack"]
    again = {
        **slack,
        "text": f"{cut(slack['text'], _TITLE * 4)}\n{escape(note)}",
        "client_msg_id": str(uuid.uuid5(uuid.NAMESPACE_OID, key)),
        "metadata": {**slack["metadata"], "event_payload": {"idempotency_key": key}},
    }
    event = {**payload["event"], "id": key, "thread": key, "note": note}
    rest = {name: payload[name] for name in ("html", "plot") if name in payload}
    return {
        "idempotency_key": key,
        "group_key": f"{row['group_key']}{FALLBACK}",
        "receiver": receiver,
        "channel": channel,
        "head_key": "",
        "kind": row["kind"],
        "payload": json.dumps(
            {
                "slack": again,
                "plain": f"{payload['plain']}\n  {note}",
                "event": event,
                "tells": payload["tells"],
            }
            | rest
        ),
        "created_at": row["created_at"],
    }


def _event(
    group: Mapping[str, object], key: str, kind: str, message: Message, head_key: str
) -> dict[str, object]:
    """Return the message as data, for receivers that are programs."""
    return {
        "version": 1,
        "id": key,
        "thread": head_key or key,
        "group": hashlib.sha256(str(group["group_key"]).encode()).hexdigest()[:32],
        "kind": kind,
        "model": group.get("model", ""),
        "family": group.get("family", ""),
        "severity": message.mood,
        "title": clean(message.title, _TITLE),
        "items": [
            {"sentence": clean(i.sentence, _TITLE), "numbers": clean(i.numbers, _TITLE)}
            for i in message.items
        ],
        "more": clean(message.more, MAX_MORE),
        "notes": {label: clean(text, _TITLE) for label, text in message.notes},
        "links": [{"label": clean(label), "url": url} for label, url in message.links],
        "commands": [clean(command, _TITLE) for command in message.commands],
    }


_TEXT = 500
_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_CODE = "font-family:ui-monospace,Consolas,monospace;background:#f3f4f6;padding:2px 5px"


def html_text(message: Message) -> str:
    """Render for a mail program; every value is cleaned and escaped.

    Args:
        message: What to say.
    """
    parts = [f'<h2 style="font-size:17px;margin:0 0 10px">{_safe(message.title)}</h2>']
    items = [
        f"<li>{_safe(item.sentence)}"
        + (f'<br><span style="color:#66737f">{_safe(item.numbers)}</span>' if item.numbers else "")
        + "</li>"
        for item in message.items
    ]
    if items:
        parts.append(f'<ul style="margin:0 0 10px;padding-left:20px">{"".join(items)}</ul>')
    parts += [f"<p>{_safe(message.more, 1000)}</p>"] if message.more else []
    notes = [f"<b>{_safe(label)}:</b> {_safe(text)}" for label, text in message.notes]
    parts += [f"<p>{'<br>'.join(notes)}</p>"] if notes else []
    links = [_link(label, address) for label, address in message.links]
    parts += [f"<p>{' · '.join(links)}</p>"] if links else []
    commands = [f'<code style="{_CODE}">{_safe(command)}</code>' for command in message.commands]
    parts += [f"<p>{'<br>'.join(commands)}</p>"] if commands else []
    border = f"border-left:4px solid {COLOURS[message.mood]};padding:2px 0 2px 14px"
    body = "".join(parts)
    return f'<div style="{_FONT};font-size:14px;color:#1f2933;{border}">{body}</div>'


def _safe(value: object, limit: int = _TEXT) -> str:
    return html.escape(clean(value, limit))


def _link(label: str, address: str) -> str:
    if not re.match(r"https?://", address):
        return _safe(label)
    return f'<a href="{html.escape(address)}">{_safe(label)}</a>'


def plot_of(conn: sa.Connection, views: Sequence[AlertView]) -> dict[str, object] | None:
    """Return the plot of some alerts of one model; None if there is nothing to draw.

    The worst alerts with a history of two values or more get a curve each: value and interval by
    window, the baseline, the limit, and which windows failed.

    Args:
        conn: The state database.
        views: The alerts.
    """
    ordered = worst_first([view for view in views if view.row["family"] != "pipeline"])
    curves: list[Payload] = []
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
        "title": clean(f"{model}: {names}", _PLOT_TITLE),
        "alt": clean(". ".join(_alt(v, c) for v, c in zip(shown, curves, strict=True)), _ALT),
        "zone": shown[0].zone,
        "curves": curves,
    }


def _curve(conn: sa.Connection, view: AlertView) -> dict[str, object] | None:
    row = view.row
    names = ("model", "monitor", "dataset", "slice_key", "slice_value")
    found = series(conn, {n: row[n] for n in names}, row["last_window_start"], MAX_WINDOWS)
    values = [r["value"] if r["status"] != "NO_DATA" else None for r in found]
    if sum(value is not None for value in values) < 2:
        return None
    judged = next(r for r in reversed(found) if r["status"] != "NO_DATA")
    has_interval = any(r["lower"] is not None and r["upper"] is not None for r in found)
    return {
        "title": clean(view.name, _PLOT_TITLE),
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


def _alt(view: AlertView, curve: Payload) -> str:
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


def read_plot(payload: Payload) -> Payload:
    """Return the plot of an outbox payload; empty if it has none."""
    plot = payload.get("plot")
    return dict(plot) if isinstance(plot, Mapping) else {}


def draw_or_none(draw: Draw | None, payload: Mapping[str, object]) -> bytes | None:
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


def dump_plot(plot: Mapping[str, object]) -> str:
    """Write the payload of a row that carries nothing but a plot."""
    return json.dumps({"plot": dict(plot), "plain": "", "event": {}, "fallback": []})
