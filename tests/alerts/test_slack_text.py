"""No value from data is read as markup, and no message is too long for Slack."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlmon_dagster.alerts.messages.message import (
    Item,
    Message,
    clean,
    escape,
    plain_text,
    safe,
)
from mlmon_dagster.alerts.receivers.slack import (
    cut,
    declared_mentions,
    link,
    mention,
    problems,
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


@given(messages)
@example(Message(NASTY, "ERROR", (Item(NASTY, NASTY),) * 6, NASTY, (("Since", NASTY),) * 3))
def test_no_message_has_unescaped_characters_foreign_mentions_or_too_much_text(
    message: Message,
) -> None:
    payload = slack_payload(message, KEY)
    allowed = declared_mentions(message.mentions)

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


def test_the_validator_sees_what_slack_would_refuse() -> None:
    fine = slack_payload(Message("title", "OK", (Item("a"),)), KEY)
    block = fine["attachments"][0]["blocks"][0]

    def broken(**text: object) -> dict[str, object]:
        return {"text": "t", "blocks": [{**block, "text": {**block["text"], **text}}]}

    assert problems(fine) == []
    assert problems({"text": ""}) == ["text is empty"]
    assert "longer than" in problems({"text": "x" * 3001})[0]
    assert "blocks, more than" in problems({"text": "t", "blocks": [block] * 51})[0]
    assert "characters, allowed" in problems(broken(text=""))[0]
    assert "characters, allowed" in problems(broken(text="x" * 3001))[0]
    assert "not verbatim" in problems(broken(verbatim=False))[0]
    assert "not declared" in problems(broken(text="<!here>"))[0]
    assert "unescaped" in problems(broken(text="a < b"))[0]
    assert (
        "together"
        in problems(
            {"text": "t", "blocks": [{**block, "text": {**block["text"], "text": "x" * 2900}}] * 4}
        )[0]
    )
    assert "unexpected block" in problems({"text": "t", "blocks": [{"type": "actions"}]})[0]
    assert (
        "context of"
        in problems(
            {"text": "t", "blocks": [{"type": "context", "elements": [block["text"]] * 11}]}
        )[0]
    )


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
