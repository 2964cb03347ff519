"""A worker that is frozen past its lease: the message is posted once all the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlmon_dagster.alerts.receivers.base import Delivery, Outcome, Posted
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, deliver
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store import outbox as outbox_rows
from mlmon_dagster.store.clocks import Clock
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import IMPATIENT, day, result, rows_of, settle, spec_of

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PATIENT = DeliveryPolicy(settle_seconds=30, pace_seconds=0, idle_seconds=0)
AFTER_THE_LEASE = NOW + dt.timedelta(minutes=5)


@dataclass
class Freezing:
    """A receiver whose process is frozen inside the call, before or after the post."""

    inner: SlackReceiver
    meanwhile: Callable[[], object]
    before: bool

    def send(self, delivery: Delivery) -> Outcome:
        if self.before:
            self.meanwhile()
        outcome = self.inner.send(delivery)
        if not self.before:
            self.meanwhile()
        return outcome

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        return self.inner.look_up(delivery, since)

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        return self.inner.retract(delivery, posted)


def stand_at(moment: dt.datetime) -> Clock:
    return lambda: moment


def in_an_hour() -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)


def wake_another(store: Store, receiver: SlackReceiver, **changes: Any) -> None:
    """Let another worker take the row over: look it up, and post what is not there."""
    options = {"policy": IMPATIENT, "clock": lambda: AFTER_THE_LEASE, **changes}
    deliver(store, {"slack": receiver}, **options)


def deliver_frozen(store: Store, receiver: SlackReceiver, *, before: bool) -> list[str]:
    settle(store, [spec_of()], day(2), result(1))
    frozen = Freezing(receiver, lambda: wake_another(store, receiver), before)
    report = deliver(store, {"slack": frozen}, policy=IMPATIENT, clock=lambda: NOW, max_messages=1)
    return report.errors


def test_a_worker_frozen_before_its_post_takes_the_second_copy_back(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    errors = deliver_frozen(any_store, receiver, before=True)

    (row,) = rows_of(any_store, outbox)
    (message,) = slack.messages
    assert (row["status"], row["slack_ts"], errors) == ("sent", message.ts, [])
    assert slack.calls.count("chat.postMessage") == 2
    assert slack.calls.count("chat.delete") == 1


def test_a_late_post_of_unclear_fate_leaves_one_copy(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """Another worker looked before it came, so only the one that was frozen can know of two."""
    settle(any_store, [spec_of()], day(2), result(1))

    def another_posts() -> None:
        wake_another(any_store, receiver)
        slack.script("chat.postMessage", "after_500")

    frozen = Freezing(receiver, another_posts, before=True)
    quick = replace(IMPATIENT, settle_seconds=0.01)
    deliver(any_store, {"slack": frozen}, policy=quick, clock=lambda: NOW, max_messages=1)
    known = rows_of(any_store, outbox)[0]["slack_ts"]
    wake_another(any_store, receiver)

    (row,) = rows_of(any_store, outbox)
    (message,) = slack.messages
    assert (row["status"], row["slack_ts"], message.ts) == ("sent", known, known)
    assert slack.calls.count("chat.postMessage") == 2
    assert slack.calls.count("chat.delete") == 1


def test_a_second_copy_that_cannot_be_deleted_at_once_is_deleted_later(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    slack.script("chat.delete", "500", "429:1", "after_reset")
    errors = deliver_frozen(any_store, receiver, before=True)
    known = rows_of(any_store, outbox)[0]["slack_ts"]
    n_copies = len(slack.messages)
    for hours in range(1, 6):
        later = NOW + dt.timedelta(hours=hours)
        deliver(
            any_store, {"slack": receiver}, policy=IMPATIENT, clock=stand_at(later), max_messages=1
        )

    (row,) = rows_of(any_store, outbox)
    (message,) = slack.messages
    assert (n_copies, errors) == (2, [])
    assert (row["status"], row["slack_ts"], message.ts) == ("sent", known, known)
    assert slack.calls.count("chat.postMessage") == 2


def test_a_second_copy_stays_where_deleting_is_forbidden_and_somebody_is_told(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    slack.script("chat.delete", "cant_delete_message")
    errors = deliver_frozen(store, receiver, before=True)
    deliver(store, {"slack": receiver}, policy=IMPATIENT, clock=in_an_hour)

    assert errors == ["a message was posted twice after a worker had been frozen"]
    assert rows_of(store, outbox)[0]["status"] == "sent"
    assert slack.calls.count("chat.postMessage") == 2


def test_a_message_that_is_known_is_never_posted_again_by_looking_for_its_copies(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """Somebody deleted it, or the history may not be read any more."""
    settle(store, [spec_of()], day(2), result(1))
    deliver(store, {"slack": receiver}, policy=PATIENT)
    (before,) = rows_of(store, outbox)
    for fault in ("", "missing_scope"):
        slack.messages.clear()
        slack.script("conversations.history", fault)
        assert outbox_rows.look_up_again(store.state, before["id"], NOW)
        deliver(store, {"slack": receiver}, policy=PATIENT, clock=in_an_hour)

    (row,) = rows_of(store, outbox)
    assert {**row, "lease_owner": "", "lease_until": None} == before | {"next_at": row["next_at"]}
    assert slack.calls.count("chat.postMessage") == 1


def copies(slack: FakeSlack, n: int) -> list[str]:
    """Post the only message of the channel again; return the names of all copies."""
    (first,) = slack.messages
    for _ in range(n):
        slack.answer("chat.postMessage", {**first.body, "channel": first.channel})
    return [message.ts for message in slack.messages]


def post_without_an_answer(store: Store, slack: FakeSlack, receiver: SlackReceiver) -> None:
    """Leave a message in the channel that nobody knows to be there."""
    settle(store, [spec_of()], day(2), result(1))
    slack.script("chat.postMessage", "after_500")
    deliver(store, {"slack": receiver}, policy=PATIENT)


def test_a_message_is_looked_up_again_until_one_copy_is_left(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    post_without_an_answer(store, slack, receiver)
    oldest, *_ = copies(slack, 2)
    slack.script("chat.delete", "500", "", "500")
    seen = []
    for hours in range(1, 5):
        later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
        deliver(store, {"slack": receiver}, policy=IMPATIENT, clock=stand_at(later), max_messages=1)
        seen.append((len(slack.messages), rows_of(store, outbox)[0]["status"]))

    assert seen == [(2, "unknown"), (2, "unknown"), (1, "sent"), (1, "sent")]
    assert rows_of(store, outbox)[0]["slack_ts"] == slack.messages[0].ts == oldest


def test_a_late_success_leaves_a_message_of_unclear_fate_to_who_looks_it_up(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """The other worker's copy may be there too, and only the history knows."""
    settle(store, [spec_of()], day(2), result(1))

    def another_posts_and_hears_nothing() -> None:
        wake_another(store, receiver, max_messages=1)  # looks it up: it is not there
        slack.script("chat.postMessage", "after_500")
        wake_another(store, receiver, policy=PATIENT, max_messages=1)

    frozen = Freezing(receiver, another_posts_and_hears_nothing, before=True)
    deliver(store, {"slack": frozen}, policy=IMPATIENT, clock=lambda: NOW, max_messages=1)
    n_copies = len(slack.messages)
    wake_another(store, receiver, clock=in_an_hour)

    assert n_copies == 2
    assert rows_of(store, outbox)[0]["slack_ts"] == slack.messages[0].ts
    assert len(slack.messages) == 1


def test_a_worker_whose_clock_is_wrong_takes_no_lease_away(
    pg_url: str, tmp_path: Path, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """On PostgreSQL leases go by the server's clock; a machine's own is not asked."""
    store = open_store(
        tmp_path, pg_url, clock=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    )
    settle(store, [spec_of()], day(2), result(1))
    minute = dt.timedelta(minutes=1)
    claimed = outbox_rows.claim_next(
        store.state,
        owner="a",
        receivers=["slack"],
        now=store.clock(),
        lease=minute,
    )

    report = deliver(store, {"slack": receiver}, policy=IMPATIENT)
    store.close()

    assert claimed is not None
    assert (slack.calls, report.n_waiting) == ([], 1)


def test_a_worker_frozen_between_its_claim_and_the_call_posts_nothing(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    settle(store, [spec_of()], day(2), result(1))
    moments = iter([NOW])
    deliver(
        store,
        {"slack": receiver},
        policy=IMPATIENT,
        clock=lambda: next(moments, AFTER_THE_LEASE),
        max_messages=1,
    )
    (row,) = rows_of(store, outbox)

    assert (slack.messages, row["status"]) == ([], "sending")
