"""A message: what it holds, how it reads at each place, and its row in the outbox.

Text comes raw, as it came from data. Here it becomes what Slack cannot misread (escaped, within the
limits, with no mention but the declared ones), plain text, HTML and data for programs. All of it is
frozen under an idempotency key when the message is written. A plot goes along as numbers, not as a
picture: small, readable, and drawn only when its message has arrived.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import html
import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from mlmon_dagster.alerts.lifecycle.routing import Destination
from mlmon_dagster.spec.mentions import read_mention
from mlmon_dagster.store.alert_state import GroupRow, MessageGroup
from mlmon_dagster.store.outbox import NewMessage, OutboxRow

Payload = Mapping[str, Any]
Mood = Literal["ERROR", "WARN", "OK"]
PLOT = "plot"
FALLBACK = "|fallback"  # ends the group of a copy
# Characters that are shown of a sentence, its numbers, what is left out, and the list of all three.
MAX_SENTENCE, MAX_NOTE, MAX_MORE, MAX_LIST = 300, 500, 1000, 2400
EVENT_TYPE = "mlmon_alert"
COLOURS = {"ERROR": "#d1242f", "WARN": "#bf8700", "OK": "#1a7f37"}
_EMOJI = {"ERROR": ":red_circle:", "WARN": ":large_yellow_circle:", "OK": ":white_check_mark:"}
_PLAIN = {"ERROR": "ERROR", "WARN": "WARN ", "OK": "OK   "}
# Room of the parts; JSON may double them, and Slack refuses more than about 13,000 together.
_ROOM_NOTES, _ROOM_LINKS, _ROOM_COMMAND = 1000, 800, 500
MAX_VALUE = 80
MAX_TEXT = 3000
MAX_HEADER = 150
MAX_SECTION = 3000
MAX_BLOCKS = 50
MAX_CONTEXT_ELEMENTS = 10
MAX_BUDGET = 10_000  # Slack answers msg_blocks_too_long at about 13,200 characters
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"<(?:[!@][A-Za-z0-9^]+|https?://[^\s<>|]+(?:\|[^<>|]*)?)>")
_ENTITY = re.compile(r"&(?:amp|lt|gt);")
_TITLE = 500
_NOTE = 200
_TEXT = 500
_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_CODE = "font-family:ui-monospace,Consolas,monospace;background:#f3f4f6;padding:2px 5px"


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
    """Render a message for the outbox.

    A message that breaks a limit in spite of all care goes out without its blocks: an alert must
    not die of its looks.

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
                **({"handles": list(handles)} if handles is not None else {}),
                **({"plot": plot} if plot else {}),
            }
        ),
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


def dump_plot(plot: Plot) -> str:
    """Write the payload of a row that carries nothing but a plot."""
    return json.dumps({"plot": plot, "plain": "", "event": {}, "fallback": []})


def fallback_row(row: OutboxRow, error: str) -> NewMessage | None:
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


def slack_payload(message: Message, idempotency_key: str) -> dict[str, object]:
    """Render for chat.postMessage and chat.update, without the channel.

    Every text is escaped and within Slack's limits; the only mention is the declared one. The
    headline is the message's text, since mentions inside attachments notify nobody.

    Args:
        message: What to say.
        idempotency_key: Written into the metadata and, shortened, into the footer, so that a
            message can be found again in the channel's history.
    """
    headline = f"{_EMOJI[message.mood]} *{safe(message.title, MAX_SENTENCE)}*"
    if message.mentions:
        headline = f"{' '.join(mention(name) for name in message.mentions)} {headline}"
    return {
        "text": headline,
        "attachments": [
            {
                "color": COLOURS[message.mood],
                "fallback": safe(message.title, MAX_SENTENCE),
                "blocks": [*_sections(message), _context(short_id(idempotency_key))],
            }
        ],
        "metadata": {
            "event_type": EVENT_TYPE,
            "event_payload": {"idempotency_key": idempotency_key},
        },
        "client_msg_id": str(uuid.uuid5(uuid.NAMESPACE_OID, idempotency_key)),
    }


def short_payload(payload: Payload) -> dict[str, object]:
    """Return the same message without blocks, for a server that refuses them."""
    key = payload["metadata"]["event_payload"]["idempotency_key"]
    short = {name: value for name, value in payload.items() if name != "attachments"}
    return {**short, "text": f"{payload['text']} ({short_id(key)})"}


def short_id(idempotency_key: str) -> str:
    """Return the visible mark by which a message is recognised in a channel."""
    return f"mlmon {idempotency_key[:12]}"


def _sections(message: Message) -> list[dict[str, object]]:
    """Put the parts into sections; no part can take the room of another."""
    items = [_item(item) for item in message.items]
    if message.more:
        items.append(safe(message.more, MAX_MORE))
    notes = [f"*{safe(label)}:* {safe(text, MAX_NOTE)}" for label, text in message.notes]
    room = _ROOM_COMMAND // max(len(message.commands), 1)
    commands = [cut(escape(clean(command, MAX_NOTE)), room) for command in message.commands]
    parts = (
        cut("\n".join(items), MAX_LIST),
        cut("\n".join(notes), _ROOM_NOTES),
        _links(message),
        "\n".join(f"`{command}`" for command in commands if command),
    )
    return [{"type": "section", "text": _markdown(part)} for part in parts if part]


def _links(message: Message) -> str:
    """Join the links that fit; a link cut in two would be no link."""
    text = ""
    for label, address in message.links:
        longer = f"{text} · {link(address, label)}" if text else link(address, label)
        text = longer if len(longer) <= _ROOM_LINKS else text
    return text


def _item(item: Item) -> str:
    numbers = f"\n      {safe(item.numbers, MAX_NOTE)}" if item.numbers else ""
    return f"• {safe(item.sentence, MAX_SENTENCE)}{numbers}"


def _context(*texts: str) -> dict[str, object]:
    return {"type": "context", "elements": [_markdown(text) for text in texts]}


def _markdown(text: str) -> dict[str, object]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def declared_mentions(names: Sequence[str]) -> set[str]:
    """Return the markup that messages of these declared names may hold."""
    return {mention(name) for name in names if name}


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


def cut(escaped: str, limit: int) -> str:
    """Shorten escaped text, never inside an entity."""
    if len(escaped) <= limit:
        return escaped
    kept = escaped[: max(limit - 1, 0)]
    ampersand = kept.rfind("&")
    if ampersand != -1 and ";" not in kept[ampersand:]:
        kept = kept[:ampersand]
    return kept + "…"


def link(url: str, label: str) -> str:
    """Return a link, or the escaped label alone if the address is not http(s)."""
    if not re.match(r"https?://", url):
        return safe(label)
    address = re.sub(r"[\s<>|`]", lambda match: f"%{ord(match[0]):02X}", url)
    return f"<{escape(address)}|{safe(label).replace('|', '/')}>"


def mention(name: str | None) -> str:
    """Return the markup that notifies a declared person or group.

    A declaration that is refused for its mention still says where alerts go: there the name that
    Slack cannot resolve stays plain text.
    """
    found = read_mention(name or "")
    return found.markup if found else safe(name or "")


def problems(payload: Payload, mentions: Iterable[str] = ()) -> list[str]:
    """List everything about a message that Slack would refuse or misread; empty if none.

    Args:
        payload: ``text`` and optionally ``blocks`` and ``attachments``.
        mentions: Markup of people that may be notified; any other mention is a problem.
    """
    found: list[str] = []
    blocks = list(_blocks(payload))
    if not payload.get("text"):
        found.append("text is empty")
    if len(str(payload.get("text", ""))) > MAX_TEXT:
        found.append(f"text is longer than {MAX_TEXT} characters")
    if len(blocks) > MAX_BLOCKS:
        found.append(f"{len(blocks)} blocks, more than {MAX_BLOCKS}")
    if len(json.dumps(blocks, ensure_ascii=False)) > MAX_BUDGET:
        found.append(f"blocks are longer than {MAX_BUDGET} characters together")
    for block in blocks:
        found += _block_problems(block)
    texts = [element["text"] for block in blocks for element in _elements(block)]
    for text in (str(payload.get("text", "")), *texts):
        found += _markup_problems(text, set(mentions))
    return found


def _blocks(payload: Payload) -> Iterable[Mapping[str, object]]:
    yield from payload.get("blocks", ())
    for attachment in payload.get("attachments", ()):
        yield from attachment.get("blocks", ())


def _block_problems(block: Mapping[str, object]) -> list[str]:
    kind, elements = block.get("type"), _elements(block)
    limit = MAX_HEADER if kind == "header" else MAX_SECTION
    found = [
        f"{kind} text of {len(element['text'])} characters, allowed are 1 to {limit}"
        for element in elements
        if not 1 <= len(element["text"]) <= limit
    ]
    if any(e["type"] == "mrkdwn" and not e.get("verbatim") for e in elements):
        found.append(f"{kind} text is not verbatim, Slack would link names in it")
    if kind == "context" and not 1 <= len(elements) <= MAX_CONTEXT_ELEMENTS:
        found.append(f"context of {len(elements)} elements")
    if kind not in ("header", "section", "context", "divider"):
        found.append(f"unexpected block type {kind!r}")
    return found


def _elements(block: Payload) -> Sequence[Payload]:
    return [block["text"]] if "text" in block else list(block.get("elements", ()))


def _markup_problems(text: str, mentions: set[str]) -> list[str]:
    found = [
        f"mention {match[0]} that was not declared"
        for match in _MARKUP.finditer(text)
        if match[0][1] in "!@" and match[0] not in mentions
    ]
    rest = _MARKUP.sub("", text)
    if re.search(r"[<>]", rest) or "&" in _ENTITY.sub("", rest):
        found.append(f"unescaped character in {text[:60]!r}")
    return found
