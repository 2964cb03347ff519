"""Slack down for two hours in a storm: one summary on recovery, order kept, nothing lost."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from mlmon_dagster.alerts.messages.outage import summarize_outages
from mlmon_dagster.alerts.receivers.base import Delivery, Outcome, Posted
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, deliver
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import day, result, rows_of, settle, spec_of

MINUTE = dt.timedelta(minutes=1)
SECOND = dt.timedelta(seconds=1)
MODELS = 12
POLICY = DeliveryPolicy(idle_seconds=0.0)


@dataclass
class Recorded:
    """A receiver that notes at which simulated second each message was accepted."""

    inner: SlackReceiver
    now: dt.datetime
    posts: list[tuple[dt.datetime, str]] = field(default_factory=list)

    def send(self, delivery: Delivery) -> Outcome:
        outcome = self.inner.send(delivery)
        if isinstance(outcome, Posted) and not delivery.update_ts:
            self.posts.append((self.now, delivery.idempotency_key))
        return outcome

    def look_up(self, delivery: Delivery, since: float) -> Outcome:
        return self.inner.look_up(delivery, since)

    def retract(self, delivery: Delivery, posted: Posted) -> Outcome:
        return self.inner.retract(delivery, posted)


def tick(store: Store, specs: list[ModelSpec], slack: Recorded, *rows: dict[str, Any]) -> None:
    """One dispatch at the simulated moment."""
    settle(store, specs, slack.now, *rows)
    summarize_outages(store, specs, slack.now)
    deliver(
        store,
        {"slack": slack},
        policy=POLICY,
        clock=lambda: slack.now,
        jitter=lambda: 0.5,
    )


@pytest.mark.proof
@pytest.mark.parametrize("fault", ["answers 503", "is not there"])
def test_a_storm_while_slack_is_down_is_one_summary_when_it_is_back(
    store: Store, slack: FakeSlack, receiver: SlackReceiver, fault: str
) -> None:
    specs = [spec_of(f"m{i:02}") for i in range(MODELS)]
    gone = SlackReceiver("xoxb-right", base_url="http://127.0.0.1:1/api/", timeout_seconds=1)
    recorded = Recorded(receiver, day(2))
    tick(store, specs, recorded, result(1, model="m00"))  # a thread that people have seen
    assert len(slack.heads()) == 1

    slack.is_down = fault == "answers 503"
    recorded.inner = receiver if slack.is_down else gone
    rng = random.Random(3)
    failing: set[str] = set()
    for minute in range(0, 120, 5):
        recorded.now = day(2) + (minute + 5) * MINUTE
        model = f"m{rng.randrange(1, MODELS):02}"
        failing ^= {model}
        start = recorded.now
        status = "ERROR" if model in failing else "OK"
        news = result(2, status, model=model, window_start=start, window_end=start)
        tick(store, specs, recorded, news)
    start = recorded.now
    tick(store, specs, recorded, result(2, "OK", model="m00", window_start=start))
    assert len(slack.messages) == 1
    waiting = [r for r in rows_of(store, outbox) if r["status"] in ("queued", "unknown")]

    slack.is_down, recorded.inner = False, receiver
    seen = len(recorded.posts)
    over = 0
    for _ in range(300):
        recorded.now += SECOND
        tick(store, specs, recorded)
        left = {r["status"] for r in rows_of(store, outbox)} & {"queued", "unknown", "sending"}
        over = 0 if left else over + 1
        if over > 20:  # and nothing comes after it
            break

    rows = rows_of(store, outbox)
    assert not [r for r in rows if r["status"] in ("queued", "unknown", "sending", "dead")]
    after = slack.messages[1:]
    summaries = [m for m in after if "after an outage" in m.text]
    assert len(summaries) == 1
    # Beside the summary: the thread that was seen, and the few that were tried before it was clear.
    heads = [m for m in after if not m.thread_ts]
    assert len(heads) <= 1 + 3
    (reply,) = slack.replies(slack.heads()[0])
    assert "1 resolved" in reply.text
    told = " ".join(str(m.body) for m in heads)
    assert all(f"{model}" in told for model in failing)
    assert "fired and ended while" in summaries[0].text
    assert len(waiting) <= 1 + 3 + 6
    times = [when for when, _ in recorded.posts[seen:]]
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    assert all(gap >= 1 for gap in gaps)
    order = {row["idempotency_key"]: row["id"] for row in rows}
    ids = [order[key] for _, key in recorded.posts[seen:]]
    assert ids == sorted(ids) or fault == "answers 503"


def test_what_fires_in_the_summary_ends_in_its_thread_and_no_button_outlives_it(
    store: Store, slack: FakeSlack
) -> None:
    specs = [spec_of(f"m{i}") for i in range(5)]
    gone = SlackReceiver("xoxb-right", base_url="http://127.0.0.1:1/api/", timeout_seconds=1)
    recorded = Recorded(gone, day(2))
    tick(store, specs, recorded, *(result(1, model=f"m{i}") for i in range(5)))
    for minute in (5, 10, 15, 20):
        recorded.now = day(2) + minute * MINUTE
        tick(store, specs, recorded)
    recorded.inner = SlackReceiver(slack.token, base_url=slack.url, app_token=slack.app_token)
    for _ in range(90):
        recorded.now += SECOND
        tick(store, specs, recorded)
    tick(store, specs, recorded, *(result(2, "OK", model=f"m{i}") for i in range(5)))
    for _ in range(20):
        recorded.now += SECOND
        tick(store, specs, recorded)

    (head,) = slack.heads()
    assert "5 firing in 5 models" in head.text
    assert len(slack.replies(head)) == 5
    assert all("1 resolved" in reply.text for reply in slack.replies(head))
    assert "mlmon_acknowledge" not in str(head.shown)
    assert "mlmon alerts ack ID" in str(head.shown)
