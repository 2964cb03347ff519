"""No value from data is read as markup, and no message is too long for Slack."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlmon_dagster.alerts.messages.message import (
    Item,
    Message,
    Payload,
    clean,
    escape,
    plain_text,
    safe,
)
from mlmon_dagster.alerts.receivers.slack import (
    cut,
    link,
    mention,
    short_payload,
    slack_payload,
)

KEY = "f" * 64
NASTY = "<!channel> <@U012ABCDEF> <https://evil|click> &lt; </script> `\u202egnp.exe\n"
texts = st.one_of(
    st.text(),
    st.text(alphabet="<>&!@|`\"'*_~#\n\u202e ab", max_size=400),
    st.just(NASTY),
    st.just("&" * 5000),
    st.just('\\"' * 3000),
)
messages = st.builds(
    Message,
    title=texts,
    mood=st.sampled_from(["ERROR", "WARN", "OK"]),
    items=st.lists(st.builds(Item, texts, texts), max_size=6).map(tuple),
    more=texts,
    notes=st.lists(st.tuples(st.sampled_from(["Since", "Owner"]), texts), max_size=3).map(tuple),
    mentions=st.lists(
        st.sampled_from(["@here", "U012ABCDEF", "S012ABCDEF", "@oncall", NASTY]), max_size=3
    ).map(tuple),
    links=st.lists(
        st.tuples(texts, texts.map(lambda text: f"https://host/{text}")), max_size=8
    ).map(tuple),
    commands=st.lists(texts, max_size=2).map(tuple),
)


MARKUP = re.compile(r"<(?:[!@][A-Za-z0-9^]+|https?://[^\s<>|]+(?:\|[^<>|]*)?)>")
ENTITY = re.compile(r"&(?:amp|lt|gt);")
# Slack takes texts of 3,000 characters, and answers msg_blocks_too_long at about 13,200.
MOST, MOST_TOGETHER, MOST_BLOCKS = 3_000, 10_000, 50


def problems(payload: Payload, mentions: set[str]) -> list[str]:
    """List everything about a message that Slack would refuse or misread; empty if none."""
    blocks = [block for one in payload.get("attachments", ()) for block in one["blocks"]]
    texts = [
        e
        for block in blocks
        for e in ([block.get("text")] if "text" in block else block["elements"])
    ]
    found = [f"text of {len(one['text'])}" for one in texts if not 1 <= len(one["text"]) <= MOST]
    found += [f"{one} would link names" for one in texts if not one["verbatim"]]
    if len(blocks) > MOST_BLOCKS or len(json.dumps(blocks, ensure_ascii=False)) > MOST_TOGETHER:
        found.append("too many blocks, or too long together")
    for text in (payload["text"], *(one["text"] for one in texts)):
        markup = [match[0] for match in MARKUP.finditer(text)]
        found += [
            f"{one} was not declared" for one in markup if one[1] in "!@" and one not in mentions
        ]
        rest = MARKUP.sub("", text)
        if re.search(r"[<>]", rest) or "&" in ENTITY.sub("", rest):
            found.append(f"unescaped character in {text[:60]!r}")
    return found


@given(messages)
@example(Message(NASTY, "ERROR", (Item(NASTY, NASTY),) * 6, NASTY, (("Since", NASTY),) * 3))
def test_no_message_has_unescaped_characters_foreign_mentions_or_too_much_text(
    message: Message,
) -> None:
    payload = slack_payload(message, KEY)
    allowed = {mention(name) for name in message.mentions if name}

    assert problems(payload, allowed) == []
    assert problems(short_payload(payload), allowed) == []


@given(messages)
def test_plain_text_has_no_control_characters(message: Message) -> None:
    lines = plain_text(message).split("\n")

    assert all(line.isprintable() for line in lines)
    parts = (message.items, message.notes, message.links, message.commands)
    assert len(lines) == 1 + bool(message.more) + sum(map(len, parts))


@given(texts, st.integers(1, 200))
def test_a_value_is_one_printable_line_of_limited_length(text: str, limit: int) -> None:
    cleaned = clean(text, limit)

    assert len(cleaned) <= limit
    assert cleaned.isprintable()
    assert "`" not in cleaned


@given(texts)
def test_escaping_can_be_undone(text: str) -> None:
    assert escape(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


@given(texts, st.integers(1, 100))
def test_a_cut_never_ends_inside_an_entity(text: str, limit: int) -> None:
    shortened = cut(escape(text), limit)

    assert len(shortened) <= limit
    assert "&" not in shortened.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


@pytest.mark.parametrize(
    ("name", "markup"),
    [
        ("@here", "<!here>"),
        ("channel", "<!channel>"),
        ("U012ABCDEF", "<@U012ABCDEF>"),
        ("@S012ABCDEF", "<!subteam^S012ABCDEF>"),
        ("<!subteam^S012ABCDEF>", "<!subteam^S012ABCDEF>"),
        ("@oncall", "@oncall"),
        ("<@W012ABCDEF>", "<@W012ABCDEF>"),
        ("<!everyone>", "<!everyone>"),
        ("<!date^0>", "&lt;!date^0&gt;"),
        ("@SUPPORT", "@SUPPORT"),
        ("<script>", "&lt;script&gt;"),
        (None, ""),
    ],
)
def test_only_what_slack_can_resolve_becomes_a_mention(name: str | None, markup: str) -> None:
    assert mention(name) == markup


def test_an_address_that_is_not_http_is_shown_as_text() -> None:
    assert link("javascript:alert(1)", "Runbook") == "Runbook"
    assert link("https://h/a?b=1&c=<2>|3", "R|un") == "<https://h/a?b=1&amp;c=%3C2%3E%7C3|R/un>"


def test_a_value_is_shortened_before_it_is_escaped() -> None:
    assert safe("&" * 100, 3) == "&amp;&amp;…"


def test_a_message_is_read_in_order_what_since_why_who_where_how() -> None:
    message = Message(
        title="credit: PSI of age is 0.40",
        mood="WARN",
        items=(Item("value 0.4, baseline 0, n = 1,200"),),
        notes=(("Since", "2024-01-01"), ("Explained by", "region = north"), ("Owner", "ml")),
        links=(("Asset in Dagster", "https://ui/assets/credit/drift"),),
        commands=("mlmon metrics credit --metric psi",),
    )
    plain = plain_text(message)
    order = ["0.40", "n = 1,200", "Since", "north", "Owner", "https://ui", "mlmon metrics"]

    assert [plain.index(part) for part in order] == sorted(plain.index(part) for part in order)
    bare = dataclasses.replace(message, items=(), notes=(), links=(), commands=())
    assert plain_text(bare) == "WARN  credit: PSI of age is 0.40"
