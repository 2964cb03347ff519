"""A message as Slack's Block Kit and as plain text."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from mlmon_dagster.alerts.messages.message import (
    MAX_LIST,
    MAX_MORE,
    MAX_NOTE,
    MAX_SENTENCE,
    Item,
    Message,
)
from mlmon_dagster.alerts.messages.slack_text import clean, cut, escape, link, mention, safe

EVENT_TYPE = "mlmon_alert"
COLOURS = {"ERROR": "#d1242f", "WARN": "#bf8700", "OK": "#1a7f37"}
_EMOJI = {"ERROR": ":red_circle:", "WARN": ":large_yellow_circle:", "OK": ":white_check_mark:"}
_PLAIN = {"ERROR": "ERROR", "WARN": "WARN ", "OK": "OK   "}
# Room of the parts; JSON may double them, and Slack refuses more than about 13,000 together.
_ROOM_NOTES, _ROOM_LINKS, _ROOM_COMMAND = 1000, 800, 500


def short_id(idempotency_key: str) -> str:
    """Return the visible mark by which a message is recognised in a channel."""
    return f"mlmon {idempotency_key[:12]}"


def slack_payload(message: Message, idempotency_key: str) -> dict[str, Any]:
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


def short_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same message without blocks, for a server that refuses them."""
    key = payload["metadata"]["event_payload"]["idempotency_key"]
    short = {name: value for name, value in payload.items() if name != "attachments"}
    return {**short, "text": f"{payload['text']} ({short_id(key)})"}


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
    for label, command in zip(("More:", ""), message.commands, strict=False):
        lines.append(f"  {label:<14} {clean(command, MAX_NOTE)}")
    return "\n".join(lines)


def _sections(message: Message) -> list[dict[str, Any]]:
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


def _context(*texts: str) -> dict[str, Any]:
    return {"type": "context", "elements": [_markdown(text) for text in texts]}


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def declared_mentions(names: Sequence[str]) -> set[str]:
    """Return the markup that messages of these declared names may hold."""
    return {mention(name) for name in names if name}
