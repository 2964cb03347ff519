"""A message as a small HTML page, for mail: no style sheet, script or picture from elsewhere."""

from __future__ import annotations

import re
from html import escape

from mlmon_dagster.alerts.message import Message
from mlmon_dagster.alerts.rendering import COLOURS
from mlmon_dagster.alerts.slack_text import clean

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
    return escape(clean(value, limit))


def _link(label: str, address: str) -> str:
    if not re.match(r"https?://", address):
        return _safe(label)
    return f'<a href="{escape(address)}">{_safe(label)}</a>'
