"""The chaos run at small size, and proof that it can fail; `make chaos` is the whole of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.alerts.messages import incidents, outage
from mlmon_dagster.store import Store
from tests.alerts.fake_slack import FakeSlack, Message, fake_slack
from tests.chaos.database import own_postgres
from tests.chaos.dispatching import CHANNELS, OUTAGE_AFTER, Place
from tests.chaos.drain import drain
from tests.chaos.faults import brew_storm, fates
from tests.chaos.judge import judge
from tests.chaos.revisions import (
    GOES_ON,
    believed,
    draw,
    passing_over_what_is_late,
    play_revisions,
    true_spans,
)
from tests.chaos.running import look_through, looks_of, play, prepare, untold, written_at
from tests.chaos.verdicts import Verdict, expected, looks, rule_of, verdicts


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as fake:
        yield fake


def said(day: int, status: str, column: str = "c0") -> Verdict:
    k, n = rule_of(column)
    return Verdict("m00", column, day, status, "v1", k, n)


def stream(column: str, *statuses: str, looked: Sequence[int] = ()) -> list[tuple[str, int]]:
    days = {day: [said(day, status, column)] for day, status in enumerate(statuses, start=1)}
    found = expected(days, looked or sorted(days))
    return [(event.kind, event.look) for episode in found for event in episode.events]


def test_the_fold_of_the_harness_follows_the_documented_rules() -> None:
    one = stream("c0", "OK", "WARN", "ERROR", "NO_DATA", "ERROR", "OK", "OK", "ERROR", "OK")
    two = stream("c1", "ERROR", "OK", "ERROR", "OK", "ERROR", "OK", "OK", "ERROR")
    seldom = stream("c0", "WARN", "OK", "ERROR", "OK", looked=[3, 4])

    assert one == [("opened", 2), ("escalated", 3), ("resolved", 6), ("opened", 8), ("resolved", 9)]
    assert two == [("opened", 3), ("resolved", 7)]
    assert seldom == [("opened", 3), ("resolved", 3), ("opened", 3), ("resolved", 4)]


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


EPISODES = expected(
    {1: [said(1, "WARN")], 2: [said(2, "ERROR")], 3: [said(3, "OK")], 4: []}, [1, 2, 3, 4]
)
SEEN = [
    post("m00/c0/day 1/WARN", "a", "000001"),
    post("Worse: m00/c0/day 2/ERROR", "b", "000002", "1.000001"),
    post("Resolved: psi; was: m00/c0/day 2/ERROR", "c", "000003", "1.000001"),
]
WRITTEN = {"a": 1, "b": 2, "c": 3, "d": 4}
MISSED = post("m00: over: m00/c0/day 2/ERROR, from 1 to 3", "d", "000004")


def found(shown: list[Message], written: dict[str, int] = WRITTEN) -> list[int]:
    """Return how much is lost, doubled, out of order, told as if not over, stale."""
    finding = judge(EPISODES, shown, shown, written)
    numbers = [len(wrong) for wrong in finding.wrong]
    assert finding.is_clean == (not any(numbers))
    return numbers


def test_the_judge_sees_what_is_lost_doubled_out_of_order_or_stale() -> None:
    head, worse, over = SEEN
    elsewhere = replace(worse, body={**worse.body, "thread_ts": "1.000009"})
    again = replace(head, ts="1.000009")

    assert found(SEEN) == [0, 0, 0, 0, 0]
    assert found([head, over])[0] == 1
    assert found([worse, over])[0] == 1
    assert found([head, worse])[0] == 1
    assert found([head, worse, worse, over])[1] == 2  # the event, and the message
    assert found([head, elsewhere, over])[2] == 1
    assert found([worse, over, again])[3] == 1  # red after its own end
    assert found(SEEN, WRITTEN | {"a": 3})[3] == 1  # written when its end was known
    assert found([replace(head, updates=[]), worse, over])[4] == 1


def test_one_message_about_what_is_over_tells_the_whole_episode() -> None:
    assert found([MISSED]) == [0, 0, 0, 0, 0]
    assert found([*SEEN, MISSED])[1] == 2


@pytest.mark.parametrize("forgets", [False, True])
def test_looks_at_random_days_lose_nothing_but_under_the_rule_of_old(
    store: Store, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    slack.channels = dict(CHANNELS)
    if forgets:
        monkeypatch.setattr(incidents, "note_owed", lambda _state: None)
    arriving, looked = verdicts(n_models=1, n_days=30, seed=3), looks(30, seed=3)
    look_through(store, Place(Path(), "", slack.url, 1), arriving, looked)
    episodes = expected(arriving, looked)
    finding = judge(episodes, slack.accepted, slack.messages, written_at(store))

    assert finding.is_clean != forgets, finding
    assert bool(finding.lost) == forgets
    assert finding.n_over > 0 or forgets


def test_weeks_without_an_answer_of_slack_lose_nothing(
    store: Store, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack.channels = dict(CHANNELS)
    monkeypatch.setattr(outage, "OUTAGE_AFTER", OUTAGE_AFTER)
    arriving, looked = verdicts(n_models=6, n_days=40, seed=3), looks(40, seed=3)
    place = Place(Path(), "", slack.url, 6)
    look_through(store, place, arriving, looked, slack.fall_silent, range(5))
    finding = judge(expected(arriving, looked), slack.accepted, slack.messages, written_at(store))

    assert finding.is_clean, finding
    assert finding.n_summaries > 0
    assert any("more: m0" in str(m.body) for m in slack.messages)  # not all had room


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.proof)])
def test_whatever_dies_everybody_is_told_once_and_in_order(
    slack: FakeSlack, database: str, tmp_path: Path
) -> None:
    arriving, looked = verdicts(n_models=2, n_days=16, seed=6), looks(16, seed=6)
    faults = brew_storm(slack, seed=1)
    with own_postgres() if database == "postgres" else nullcontext(("", None)) as (url, restart):
        place = prepare(tmp_path, url, slack, 2)
        toll = play(
            place,
            arriving,
            looked,
            fates(seed=1, freeze_share=0.15),
            n_kills=4,
            restart=restart,
            pauses=(0.5,) if restart else (),
            patience_seconds=0.5,
            limit_seconds=600,
        )
        finding = judge(expected(arriving, looked), slack.accepted, slack.messages, looks_of(place))
        n_untold = untold(place)

    assert finding.is_clean, finding
    assert n_untold == 0
    assert (toll.n_restarts, toll.n_crashed) == (int(restart is not None), 0)
    assert toll.kills.total() > 0
    assert faults.total() > 0


def test_revisions_of_past_windows_are_believed_as_they_are_true(
    store: Store, slack: FakeSlack
) -> None:
    place = Place(Path(), "", slack.url, 3)
    brew_storm(slack, seed=2, slow=False)
    arriving, found = draw(n_models=3, n_days=70, n_revisions=40, seed=2)
    play_revisions(store, place, slack, arriving, found, seed=2)

    assert found.is_clean, found
    assert min(found.n_told[kind] for kind in ("Learnt", "Amended", "Withdrawn")) > 0
    assert found.n_killed > 0


def test_a_product_that_passes_over_what_is_late_is_found_wanting(
    store: Store, slack: FakeSlack
) -> None:
    slack.channels = dict(CHANNELS)
    place = Place(Path(), "", slack.url, 2)
    arriving, found = draw(n_models=2, n_days=50, n_revisions=20, seed=3)
    with passing_over_what_is_late():
        play_revisions(store, place, slack, arriving, found, seed=3)

    assert found.never


def test_a_reader_believes_what_messages_say_and_the_judge_compares_that_with_the_truth() -> None:
    def told(text: str, ts: str, thread: str = "") -> Message:
        return replace(post(text, ts, ts, thread), updates=[])

    head = told("m00: psi is high Since: 2024-01-05", "000001")
    late = told("Learnt on 2024-02-01: 2024-01-02 to 2024-01-03, m00/c0/day 3/ERROR.", "000002")
    longer = told("Amended on 2024-02-02: 2024-01-02 to 2024-01-04, m00/c0/day 4/ERROR.", "000003")
    gone = told("Withdrawn on 2024-02-03: 2024-01-02 to 2024-01-04 pass now; m00: x", "000004")

    assert believed([head], "m00") == ([(5, GOES_ON)], [])
    assert believed([head], "m01") == ([], [])
    assert believed([late, longer], "m00") == ([(2, 4)], [])
    assert believed([late, longer, gone], "m00") == ([], [])
    assert believed([late, replace(late, ts="1.000009")], "m00")[1] == ["m00: days 2 to 3"]
    assert true_spans(
        {d: said(d, "OK" if d in (1, 4, 5) else "WARN", "c1") for d in range(1, 8)}
    ) == [
        (2, 3),
        (6, 7),
    ]


@pytest.mark.proof
def test_a_long_outbox_drains_in_order(tmp_path: Path) -> None:
    drained = drain(tmp_path, 300, 150)

    assert (drained.n_messages, drained.n_wrong) == (151, 0)
