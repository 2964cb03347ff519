"""Whatever a clock said once, what it put off is told as soon as it is right, and once."""

from __future__ import annotations

import datetime as dt

from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.alerts.receivers.worker import DeliveryPolicy, deliver
from mlmon_dagster.store import Store, outbox
from mlmon_dagster.store.clocks import LONGEST_PAUSE
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import alerts_of, day, result, settle, spec_of

NOW = dt.datetime(2024, 1, 3, 12, tzinfo=dt.UTC)
YEAR = dt.timedelta(days=365)
HOUR = dt.timedelta(hours=1)
POLICY = DeliveryPolicy(pace_seconds=0, idle_seconds=0)
MODELS = [f"model{n}" for n in range(6)]


def send_at(store: Store, receiver: SlackReceiver, moment: dt.datetime) -> int:
    """Deliver at a moment of the real clock; return how many messages wait afterwards."""
    report = deliver(store, {"slack": receiver}, policy=POLICY, clock=lambda: moment)
    return report.n_waiting


def told(slack: FakeSlack) -> list[str]:
    """Return the models of the messages that Slack ever took, in their order."""
    return [next(m for m in MODELS if m in message.text) for message in slack.accepted]


def open_incidents(store: Store, models: list[str], number: int = 1) -> None:
    for model in models:
        settle(store, [spec_of(model)], NOW, result(number, model=model))


def test_what_a_clock_a_year_ahead_put_off_is_told_within_the_longest_wait(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_incidents(any_store, MODELS)
    slack.fall_silent()
    for minutes in (0, 10, 30, 60):
        send_at(any_store, receiver, NOW + YEAR + dt.timedelta(minutes=minutes))
    slack.fall_silent(False)
    moment = NOW
    while send_at(any_store, receiver, moment) and moment < NOW + LONGEST_PAUSE:
        moment += dt.timedelta(minutes=1)

    assert told(slack) == MODELS


def test_a_clock_that_goes_back_tells_nothing_twice_and_puts_nothing_off(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    open_incidents(any_store, MODELS[:3])
    left = [send_at(any_store, receiver, NOW)]
    left += [send_at(any_store, receiver, NOW - ago) for ago in (HOUR, 24 * HOUR, YEAR)]
    open_incidents(any_store, MODELS[3:])
    left.append(send_at(any_store, receiver, NOW - YEAR))

    assert left == [0] * 5
    assert told(slack) == MODELS


def test_a_channel_that_a_clock_ahead_closed_can_be_closed_again(store: Store) -> None:
    pause = dt.timedelta(seconds=30)
    outbox.close_gate(store.state, "#ml-alerts", NOW + YEAR, pause)
    outbox.close_gate(store.state, "#ml-alerts", NOW, pause)
    open_incidents(store, MODELS[:1])

    def claim(moment: dt.datetime) -> bool:
        found = outbox.claim_next(
            store.state, owner="a", receivers=["slack"], now=moment, lease=pause
        )
        return found is not None

    assert (claim(NOW), claim(NOW + pause)) == (False, True)


def test_verdicts_on_windows_that_have_not_been_do_not_hide_those_that_have(store: Store) -> None:
    """A clock a year ahead judged silence of windows to come; the next real silence is told."""
    spec, silent = spec_of(), {"family": "freshness", "metric": "no_data_for"}
    settle(store, [spec], day(3), result(1, "OK", **silent))
    settle(store, [spec], day(400), result(398, "OK", **silent))
    n = settle(store, [spec], day(4), result(2, "ERROR", **silent))

    [alert] = alerts_of(store)
    assert (n, alert["state"], alert["opened_window"]) == (1, "FIRING", day(2))
