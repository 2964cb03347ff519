"""The chaos run at small size, and proof that it can fail; `make chaos` is the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.fake_slack import FakeSlack, Message, fake_slack
from tests.chaos.database import own_postgres
from tests.chaos.faults import brew_storm, fates
from tests.chaos.inline import post_inline
from tests.chaos.judge import judge
from tests.chaos.running import play, prepare
from tests.chaos.verdicts import Event, Verdict, expected, verdicts


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as fake:
        yield fake


def said(day: int, status: str, column: str = "c0") -> Verdict:
    return Verdict("m00", column, day, status)


def stream(column: str, *statuses: str) -> list[tuple[str, int]]:
    days = {day: [said(day, status, column)] for day, status in enumerate(statuses, start=1)}
    return [(event.kind, event.day) for event in expected(days)]


def test_the_fold_of_the_harness_follows_the_documented_rules() -> None:
    one = stream("c0", "OK", "WARN", "ERROR", "NO_DATA", "ERROR", "OK", "ERROR")
    two = stream("c1", "ERROR", "OK", "ERROR", "OK", "ERROR", "OK", "OK", "ERROR")

    assert one == [("opened", 2), ("escalated", 3), ("resolved", 6), ("opened", 7)]
    assert two == [("opened", 3), ("resolved", 7)]


# What a judge sees


def post(text: str, key: str, ts: str, thread: str = "") -> Message:
    body: dict[str, Any] = {
        "text": text,
        "thread_ts": thread,
        "attachments": [{"color": "", "blocks": []}],
        "metadata": {"event_payload": {"idempotency_key": key}},
    }
    updates = [] if thread else [{"text": "m00: resolved, 1 alert back to normal"}]
    return Message("C1", f"1.{ts}", body, updates)


EVENTS = expected({1: [said(1, "WARN")], 2: [said(2, "ERROR")], 3: [said(3, "OK")]})
SEEN = [
    post("m00/c0/day 1/WARN", "a", "000001"),
    post("Worse: m00/c0/day 2/ERROR", "b", "000002", "1.000001"),
    post("Resolved: psi; was: m00/c0/day 2/ERROR", "c", "000003", "1.000001"),
]


def found(shown: list[Message], events: list[Event] = EVENTS) -> tuple[int, int, int, int]:
    finding = judge(events, shown, shown)
    wrong = (finding.lost, finding.duplicated, finding.out_of_order, finding.stale)
    lost, doubled, disorder, stale = map(len, wrong)
    assert finding.is_clean == (lost == doubled == disorder == stale == 0)
    return lost, doubled, disorder, stale


def test_the_judge_sees_what_is_lost_doubled_out_of_order_or_stale() -> None:
    head, worse, over = SEEN
    swapped = [head, replace(worse, ts=over.ts), replace(over, ts=worse.ts)]
    elsewhere = replace(worse, body={**worse.body, "thread_ts": "1.000009"})

    assert found(SEEN) == (0, 0, 0, 0)
    assert found([head, over])[0] == 1
    assert found([head, worse, worse, over])[1] == 2  # the event, and the message
    assert found(swapped)[2] == 1
    assert found([head, elsewhere, over])[2] == 1
    assert found([replace(head, updates=[]), worse, over])[3] == 1


def test_one_message_about_what_is_over_tells_the_whole_episode() -> None:
    text = "m00: 1 alert fired and recovered while messages could not be delivered: "
    missed = post(f"{text}was: m00/c0/day 2/ERROR", "d", "000001")

    assert found([missed]) == (0, 0, 0, 0)
    assert found([*SEEN, missed])[1] == 3


def test_an_inline_poster_loses_and_doubles_and_the_harness_says_so(slack: FakeSlack) -> None:
    events = expected(verdicts(n_models=4, n_days=7, seed=5))
    brew_storm(slack, seed=4, slow=False)
    n_errors = post_inline(events, slack.url)
    finding = judge(events, slack.accepted, slack.messages)

    assert n_errors > 0
    assert finding.lost
    assert finding.duplicated


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whatever_dies_everybody_is_told_once_and_in_order(
    slack: FakeSlack, database: str, tmp_path: Path
) -> None:
    arriving = verdicts(n_models=2, n_days=6, seed=6)
    events = expected(arriving)
    faults = brew_storm(slack, seed=1)
    with own_postgres() if database == "postgres" else nullcontext(("", None)) as (url, restart):
        place = prepare(tmp_path, url, slack, 2)
        toll = play(
            place,
            arriving,
            fates(seed=1, freeze_share=0.15),
            n_kills=4,
            restart=restart,
            pauses=(0.5,) if restart else (),
            patience_seconds=0.5,
            limit_seconds=600,
        )
    finding = judge(events, slack.accepted, slack.messages)

    assert finding.is_clean, finding
    assert (toll.n_restarts, toll.n_crashed) == (int(restart is not None), 0)
    assert toll.kills.total() > 0
    assert faults.total() > 0
