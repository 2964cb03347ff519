"""No receiver loses a field of a message: every card is what was looked at."""

from __future__ import annotations

import json

import pytest

from tests.alerts.golden import MESSAGES, RECEIVERS, draw_card, read_golden

# A sign of each field, and the receivers that have no place for it.
FIELDS = {
    "title": ("null share of balance is high", ()),
    "an item": ("12 % of balance have no value", ()),
    "numbers": ("null_rate 0.12, limit 0.05", ("pagerduty",)),
    "more": ("and 3 more: age, region, tenure", ("pagerduty",)),
    "why": ("where it is 60 %", ()),
    "owner": ("team:growth", ()),
    "a link": ("https://pages.example.com/m/churn?window=2026-03-04", ()),
    "a command": ("mlmon trace churn --window 2026-03-04", ()),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_the_card_of_a_message_is_what_was_looked_at(receiver: str, kind: str) -> None:
    drawn = json.loads(json.dumps(draw_card(receiver, kind)))

    assert drawn == read_golden(receiver, kind), "python -m tests.alerts.golden, if that is meant"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_every_field_of_a_message_is_on_the_card(receiver: str, field: str) -> None:
    sign, without = FIELDS[field]
    text = json.dumps(read_golden(receiver, "opened"), ensure_ascii=False)

    assert (sign in text.replace("&amp;", "&")) == (receiver not in without)
