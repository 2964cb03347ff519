"""Every message arrives once, in order, whatever breaks."""

from __future__ import annotations

import datetime as dt
import signal

import pytest

from mlmon_dagster.alerts.dispatching import dispatch, send_test
from mlmon_dagster.alerts.handling import requeue
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, deliver, ping
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.outbox import claim_next, outbox_health, settle
from mlmon_dagster.store.state.schema import channel_gate, outbox
from tests import forked
from tests.alerts import worlds
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import day, observe, result, rows_of, send, spec_of

SPECS = [spec_of()]
NOW = dt.datetime.now(dt.UTC)


def after(seconds: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)


def open_threads(store: Store, n: int = 1) -> list[str]:
    """Queue the first message of ``n`` models; return their names."""
    models = [f"m{i:02d}" for i in range(n)]
    worlds.settle(
        store, [spec_of(m) for m in models], day(2), *(result(1, model=m) for m in models)
    )
    return models


def statuses(store: Store) -> list[str]:
    return [row["status"] for row in rows_of(store, outbox)]


def keys(slack: FakeSlack) -> list[str]:
    return [message.key for message in slack.messages]


def expected_keys(store: Store) -> list[str]:
    rows = rows_of(store, outbox)
    return [r["idempotency_key"] for r in rows if r["kind"] != "head"]


# Faults


@pytest.mark.parametrize("when", ["", "after_"])
@pytest.mark.parametrize("fault", ["500", "reset", "eof", "truncated", "hang"])
def test_an_unclear_attempt_is_settled_by_looking(
    store: Store, slack: FakeSlack, when: str, fault: str
) -> None:
    open_threads(store)
    slack.script("chat.postMessage", when + fault)
    slack.hang_seconds = 60
    seconds = 3 if fault == "hang" else 30  # no answer but the missing one may be too late
    report = send(store, SlackReceiver(slack.token, base_url=slack.url, timeout_seconds=seconds))

    assert keys(slack) == expected_keys(store)
    assert statuses(store) == ["sent"]
    assert report.n_sent == 1
    assert report.errors


def test_a_rate_limit_closes_the_channel_for_every_worker(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(any_store, 2)
    slack.script("chat.postMessage", "429:60")
    send(any_store, receiver)
    second = send(any_store, receiver)
    (gate,) = rows_of(any_store, channel_gate)

    assert slack.calls == ["chat.postMessage"]
    assert second.n_waiting == 2
    assert gate["not_before"] > after(50)
    send(any_store, receiver, clock=lambda: after(61))
    assert keys(slack) == expected_keys(any_store)


def test_a_message_refused_for_good_is_dead_until_a_person_retries(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store)
    slack.script("chat.postMessage", "not_in_channel")
    report = send(store, receiver)
    health = outbox_health(store.state)

    assert (report.n_dead, statuses(store)) == (1, ["dead"])
    assert health.n_dead == 1
    assert "/invite" in health.last_error
    assert requeue(store, [spec_of("m00")], day(2)) == (1, 1)
    send(store, receiver)
    (message,) = slack.messages
    assert message.colour == "#d1242f"  # it fires still
    assert statuses(store) == ["superseded", "sent"]


def test_a_dead_message_blocks_no_other(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store, 3)
    slack.script("chat.postMessage", "not_in_channel")
    send(store, receiver)

    assert statuses(store) == ["dead", "sent", "sent"]


def test_failures_back_off_longer_each_time(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store)
    policy = DeliveryPolicy(first_backoff_seconds=10, idle_seconds=0)
    unreachable = SlackReceiver("xoxb", base_url="http://no-such-host.invalid/api/")
    waits = []
    clock = NOW
    for _ in range(4):
        deliver(
            store,
            {"slack": unreachable},
            policy=policy,
            clock=lambda now=clock: now,  # type: ignore[misc]
            jitter=lambda: 1.0,
        )
        (row,) = rows_of(store, outbox)
        waits.append((row["next_at"] - clock).total_seconds())
        clock = row["next_at"]

    assert waits == [10, 20, 40, 80]


def test_a_head_that_was_deleted_is_no_loss(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store)
    send(store, receiver)
    slack.script("chat.update", "message_not_found")
    worlds.settle(store, [spec_of("m00")], day(3), result(2, "OK", model="m00"))
    report = send(store, receiver)

    assert statuses(store) == ["sent", "sent", "superseded"]
    assert report.n_dead == 0


def test_messages_of_a_channel_are_paced(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store, 3)
    policy = DeliveryPolicy(pace_seconds=60)
    report = deliver(store, {"slack": receiver}, policy=policy)

    assert (report.n_sent, report.n_waiting) == (1, 2)


def test_a_call_ends_after_its_share_of_messages(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_threads(store, 3)

    assert send(store, receiver, max_messages=2).n_sent == 2
    assert send(store, receiver, budget_seconds=0).n_sent == 0


# Order


@pytest.mark.parametrize(
    ("fault", "is_backfill"),
    [("500", False), ("after_500", True)],
    ids=["the earlier one of its group", "the summary that it answers"],
)
def test_a_message_waits_for(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver, fault: str, is_backfill: bool
) -> None:
    patient = DeliveryPolicy(settle_seconds=30, pace_seconds=0, idle_seconds=0)
    slack.script("chat.postMessage", fault)
    worlds.settle(any_store, SPECS, day(2), result(1, is_backfill=is_backfill))
    deliver(any_store, {"slack": receiver}, policy=patient)
    worlds.settle(any_store, SPECS, day(3), result(2, "OK"))
    deliver(any_store, {"slack": receiver}, policy=patient)
    waiting = statuses(any_store)
    deliver(any_store, {"slack": receiver}, policy=patient, clock=lambda: after(31))

    (head,) = slack.heads()
    assert waiting == ["unknown", "queued", "queued"]
    assert keys(slack) == expected_keys(any_store)
    assert slack.messages[1].thread_ts == head.ts


def test_other_groups_do_not_wait(store: Store, slack: FakeSlack, receiver: SlackReceiver) -> None:
    open_threads(store, 2)
    slack.script("chat.postMessage", "500")
    patient = DeliveryPolicy(settle_seconds=30, pace_seconds=0, idle_seconds=0)
    deliver(store, {"slack": receiver}, policy=patient)

    assert statuses(store) == ["unknown", "sent"]


# Several workers


def test_two_claims_never_meet(any_store: Store) -> None:
    open_threads(any_store, 2)
    lease = dt.timedelta(seconds=60)

    def claim(owner: str, now: dt.datetime = NOW) -> int | None:
        found = claim_next(any_store.state, owner=owner, receivers=["slack"], now=now, lease=lease)
        return int(found.row["id"]) if found else None

    assert [claim("a"), claim("b"), claim("c")] == [1, 2, None]
    assert claim("d", NOW + lease) == 1


def test_a_worker_that_lost_its_lease_settles_nothing(any_store: Store) -> None:
    open_threads(any_store)
    lease = dt.timedelta(seconds=60)
    common = {"receivers": ["slack"], "lease": lease}
    slow = claim_next(any_store.state, owner="slow", now=NOW, **common)  # type: ignore[arg-type]
    later = NOW + 2 * lease
    quick = claim_next(any_store.state, owner="quick", now=later, **common)  # type: ignore[arg-type]
    assert slow is not None
    assert quick is not None

    assert quick.is_lookup
    assert not settle(any_store.state, slow, "sent")
    assert settle(any_store.state, quick, "sent")


# Death


def deliver_until(root: str, db_url: str, slack_url: str, step: str) -> None:
    """Deliver what waits, and die when the step is reached."""
    forked.die_at(step)
    receiver = SlackReceiver("xoxb-right", base_url=slack_url)
    deliver(open_store(root, db_url), {"slack": receiver})


@pytest.mark.parametrize("step", ["deliver.claimed", "deliver.posted", "deliver.settled"])
def test_a_worker_killed_at_any_step_leaves_exactly_one_message(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver, step: str
) -> None:
    open_threads(any_store)
    url = any_store.state.url.render_as_string(hide_password=False)
    ended = forked.ended(deliver_until, str(any_store.root), url, slack.url, step)
    send(any_store, receiver, clock=lambda: after(61))

    assert ended == -signal.SIGKILL
    assert keys(slack) == expected_keys(any_store)
    assert statuses(any_store) == ["sent"]


# Waiting


# The whole way


def test_dispatch_folds_writes_and_delivers(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    observe(any_store, result(1))
    report = dispatch(any_store, SPECS, day(2), {"slack": receiver})

    assert len(slack.messages) == 1
    assert report.text() == ("1 verdict read, 1 message written, 1 delivered, 0 waiting, 0 refused")


def test_a_test_message_goes_the_way_of_alerts(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    first = send_test(store, SPECS[0], day(2), {"slack": receiver})
    slack.script("chat.postMessage", "not_in_channel")
    second = send_test(store, SPECS[0], day(3), {"slack": receiver})

    assert (first.n_sent, second.n_dead) == (1, 1)
    assert "this is a test" in slack.messages[0].text
    assert "/invite" in second.errors[0]


def test_an_address_that_answers_is_well(slack: FakeSlack) -> None:
    assert ping(f"{slack.url}ping") == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/secret", "cannot be reached: ConnectionRefusedError"),
        ("http://example.com/secret", "over https"),
    ],
)
def test_what_is_wrong_is_said_without_the_address(url: str, said: str) -> None:
    problem = ping(url)

    assert said in problem
    assert "secret" not in problem
