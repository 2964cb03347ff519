"""A worker that is frozen past its lease: the message is posted once all the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from mlmon_dagster.alerts import deliver
from mlmon_dagster.alerts.receivers import Delivery, Outcome, Posted
from mlmon_dagster.alerts.slack import SlackReceiver
from mlmon_dagster.store import Store
from mlmon_dagster.store.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import IMPATIENT, day, result, rows_of, settle, spec_of

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
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

    def retract(self, delivery: Delivery, posted: Posted) -> bool:
        return self.inner.retract(delivery, posted)


def wake_another(store: Store, receiver: SlackReceiver) -> None:
    """Let another worker take the row over: look it up, and post what is not there."""
    deliver(store, {"slack": receiver}, policy=IMPATIENT, clock=lambda: AFTER_THE_LEASE)


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


def test_a_post_that_another_worker_has_found_stays(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    errors = deliver_frozen(store, receiver, before=False)

    (message,) = slack.messages
    assert rows_of(store, outbox)[0]["slack_ts"] == message.ts
    assert slack.calls.count("chat.postMessage") == 1
    assert errors == []


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
