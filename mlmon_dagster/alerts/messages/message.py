"""A message: what it holds, as blocks that every receiver formats for itself, and its row.

Text comes raw, as it came from data. Here it is cleaned and shortened, and frozen under an
idempotency key when the message is written: as data, and as plain text. A plot goes along as
numbers, not as a picture: small, readable, and drawn only when its message has arrived.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from mlmon_dagster.alerts.lifecycle.routing import Destination
from mlmon_dagster.store.alert_state import GroupRow, MessageGroup
from mlmon_dagster.store.outbox import NewMessage, OutboxRow

Payload = Mapping[str, Any]
Mood = Literal["ERROR", "WARN", "OK"]
PLOT = "plot"
FALLBACK = "|fallback"  # ends the group of a copy
# Characters that are shown of a sentence, its numbers, what is left out, and the list of all three.
MAX_SENTENCE, MAX_NOTE, MAX_MORE, MAX_LIST = 300, 500, 1000, 2400
COLOURS = {"ERROR": "#d1242f", "WARN": "#bf8700", "OK": "#1a7f37"}
_PLAIN = {"ERROR": "ERROR", "WARN": "WARN ", "OK": "OK   "}
MAX_VALUE = 80
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_TITLE = 500
_NOTE = 200


class Curve(TypedDict):
    """One alert's history as numbers, ready to be drawn; see `group_state.plot_of`."""

    title: str
    starts: list[str]
    end: str
    values: list[float | None]
    lower: list[float | None]
    upper: list[float | None]
    failing: list[bool]
    baseline: float | None
    limit: float | None
    is_share: bool


class Plot(TypedDict):
    """The picture that goes with a message, as the outbox keeps it."""

    title: str
    alt: str
    zone: str
    curves: list[Curve]


@dataclass(frozen=True)
class Item:
    """One alert in a message: the sentence, and its numbers below."""

    sentence: str
    numbers: str = ""


@dataclass(frozen=True)
class Message:
    """A message in the order in which it is read; all text is raw, as it came from data.

    Attributes:
        title: What is wrong, in one sentence.
        mood: Sets the colour.
        items: The alerts.
        more: What was left out, such as ``and 7 more: ...``.
        notes: Label and text of the lines after that: why, what is not sent, owner.
        mentions: Who is notified, as the spec says.
        links: Label and address.
        commands: Shell commands that show more: the numbers, and the rows.
    """

    title: str
    mood: Mood
    items: tuple[Item, ...] = ()
    more: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    mentions: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    commands: tuple[str, ...] = ()


def name_group(place: Destination, *names: str, model: str = "") -> MessageGroup:
    """Return what stands for a row of the notification log, of messages that have none."""
    return {
        "group_key": "|".join((*place, *names)),
        "receiver": place.receiver,
        "channel": place.channel,
        "model": model,
        "family": "",
    }


def name_queue(group: MessageGroup) -> str:
    """Return what a group's messages keep their order in: the place and the model of a thread."""
    if not group["model"]:
        return group["group_key"]
    return "|".join((group["receiver"], group["channel"], group["model"]))


def row_key(group: GroupRow, suffix: str = "") -> str:
    """Return the idempotency key of what a group says in its present version."""
    parts = [group["receiver"], group["group_key"], str(group["version"]), suffix]
    return hashlib.sha256("|".join(part for part in parts if part).encode()).hexdigest()


def outbox_row(
    group: MessageGroup,
    key: str,
    kind: str,
    message: Message,
    *,
    head_key: str,
    now: dt.datetime,
    fallback: Destination | None = None,
    tells: Sequence[str] = (),
    handles: Sequence[str] | None = None,
    plot: Plot | None = None,
) -> NewMessage:
    """Write a message for the outbox.

    Args:
        group: The row of the notification log, or what stands for it.
        key: The idempotency key.
        kind: What kind of message it is.
        message: What to say.
        head_key: Key of the message that opened the thread; empty to open one.
        now: The time of the flush.
        fallback: Where it goes if this place refuses it for good.
        tells: The episodes that it is about, to say them again should it be refused.
        handles: The episodes that its buttons act on; by default those that it tells. What is never
            edited has none, as its buttons would outlive what they are about.
        plot: A picture that goes with the text in one piece, where the place takes that.
    """
    payload: dict[str, object] = {
        "plain": plain_text(message),
        "event": _write_event(group, key, kind, message, head_key),
        "mentions": list(message.mentions),
        "fallback": list(fallback) if fallback else [],
        "tells": list(tells),
        **({"handles": list(handles)} if handles is not None else {}),
        **({"plot": plot} if plot else {}),
    }
    group_key, place = group["group_key"], Destination(group["receiver"], group["channel"])
    return _new_row(key, group_key, name_queue(group), place, head_key, kind, payload, now)


def _new_row(
    key: str,
    group_key: str,
    queue: str,
    place: Destination,
    head_key: str,
    kind: str,
    payload: Payload,
    now: dt.datetime,
) -> NewMessage:
    return {
        "idempotency_key": key,
        "group_key": group_key,
        "queue": queue,
        "receiver": place.receiver,
        "channel": place.channel,
        "head_key": head_key,
        "kind": kind,
        "payload": json.dumps(payload),
        "created_at": now,
    }


def plot_row(
    group: MessageGroup,
    key: str,
    plot: Plot,
    *,
    thread: str,
    now: dt.datetime,
) -> NewMessage:
    """Return the row that uploads a plot into a thread.

    It is a message of its own, and in a group of its own: while it fails, no text waits for it.

    Args:
        group: The group whose message it goes with.
        key: The idempotency key of that message.
        plot: What to draw.
        thread: Key of the message that opened the thread; it waits until that has arrived.
        now: The time of the flush.
    """
    payload = {"plot": plot, "plain": "", "event": {}, "fallback": []}
    name = hashlib.sha256(f"{key}|{PLOT}".encode()).hexdigest()
    queue, place = f"{group['group_key']}|{PLOT}", Destination(group["receiver"], group["channel"])
    return _new_row(name, queue, queue, place, thread, PLOT, payload, now)


def fallback_row(row: OutboxRow, error: str) -> NewMessage | None:
    """Return the copy of a refused message for its fallback place; None if there is none.

    Args:
        row: The row of the outbox that was refused.
        error: What the receiver said.
    """
    payload = json.loads(row["payload"])
    if not payload.get("fallback"):
        return None
    key = hashlib.sha256(f"{row['idempotency_key']}|fallback".encode()).hexdigest()
    note = f"Meant for {clean(row['channel'])}, which refused it: {clean(error, _NOTE)}"
    event = {**payload["event"], "id": key, "thread": key, "note": note}
    copied = {name: payload[name] for name in ("mentions", "tells", "plot") if name in payload}
    copied |= {"plain": f"{payload['plain']}\n  {note}", "event": event}
    group_key, queue = f"{row['group_key']}{FALLBACK}", f"{row['queue']}{FALLBACK}"
    place = Destination(*payload["fallback"])
    return _new_row(key, group_key, queue, place, "", row["kind"], copied, row["created_at"])


def _write_event(
    group: MessageGroup, key: str, kind: str, message: Message, head_key: str
) -> dict[str, object]:
    """Return the message as data, for receivers that are programs."""
    return {
        "version": 1,
        "id": key,
        "thread": head_key or key,
        "group": hashlib.sha256(str(group["group_key"]).encode()).hexdigest()[:32],
        "kind": kind,
        "model": group["model"],
        "family": group["family"],
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


def read_message(payload: Payload) -> Message:
    """Return what a row of the outbox says; its text is cleaned and shortened already."""
    event = payload["event"]
    return Message(
        title=event["title"],
        mood=event["severity"],
        items=tuple(Item(item["sentence"], item["numbers"]) for item in event["items"]),
        more=event["more"],
        notes=tuple(event["notes"].items()),
        mentions=tuple(payload.get("mentions", ())),
        links=tuple((link["label"], link["url"]) for link in event["links"]),
        commands=tuple(event["commands"]),
    )


def plain_text(message: Message) -> str:
    """Render for a terminal, a digest or a log; one alert a line, values cleaned."""
    lines = [f"{_PLAIN[message.mood]} {clean(message.title, MAX_SENTENCE)}"]
    for item in message.items:
        numbers = f"  [{clean(item.numbers, MAX_NOTE)}]" if item.numbers else ""
        lines.append(f"  - {clean(item.sentence, MAX_SENTENCE)}{numbers}")
    if message.more:
        lines.append(f"    {clean(message.more, MAX_MORE)}")
    for label, text in (*message.notes, *message.links):
        lines.append(f"  {clean(label) + ':':<14} {clean(text, MAX_NOTE)}")
    for place, command in enumerate(message.commands):
        lines.append(f"  {'' if place else 'More:':<14} {clean(command, MAX_NOTE)}")
    return "\n".join(lines)


def clean(value: object, limit: int = MAX_VALUE) -> str:
    """Return one printable line of at most ``limit`` characters; not escaped.

    Control and formatting characters (new lines, right-to-left overrides, zero-width marks) become
    spaces or vanish, back-ticks become apostrophes so that a value cannot end a code span.
    """
    text = "".join(_visible(character) for character in str(value)).replace("`", "'")
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: max(limit - 1, 0)].rstrip() + "…"


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Cs", "Co", "Cn"):
        return ""
    return " " if category in ("Cc", "Zl", "Zp") else character


def escape(text: str) -> str:
    """Escape the three characters that Slack gives a meaning to."""
    return re.sub(r"[&<>]", lambda match: _ENTITIES[match[0]], text)


def safe(value: object, limit: int = MAX_VALUE) -> str:
    """Clean, shorten and escape a value that comes from data, in this order."""
    return escape(clean(value, limit))
