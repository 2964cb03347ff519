"""Text that Slack cannot misread: escaping of values from data, and the limits of a message."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Payload = Mapping[str, Any]

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
_USER = re.compile(r"@?([UW][A-Z0-9]{5,})")
_USERGROUP = re.compile(r"@?(S[A-Z0-9]{5,})")
_BROADCASTS = ("here", "channel", "everyone")


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

    ``@here``, ``@channel``, a user id (``U012ABCDEF``) and a user group id (``S012ABCDEF``)
    notify; Slack cannot resolve any other name, which is therefore shown as plain text.
    """
    name = (name or "").strip()
    if name.startswith("<") and name.endswith(">") and _MARKUP.fullmatch(name):
        return name
    if name.removeprefix("@") in _BROADCASTS:
        return f"<!{name.removeprefix('@')}>"
    if match := _USER.fullmatch(name):
        return f"<@{match[1]}>"
    if match := _USERGROUP.fullmatch(name):
        return f"<!subteam^{match[1]}>"
    return safe(name)


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
