"""One thread per incident, from the first message to the resolved one."""

from __future__ import annotations

import datetime as dt

from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import day, kinds, result, rows_of, send, settle, spec_of

HOUR = dt.timedelta(hours=1)


def test_opened_repeated_and_resolved_are_one_thread(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of()]
    settle(any_store, specs, day(2), result(1))
    send(any_store, receiver)
    settle(any_store, specs, day(2) + 23 * HOUR)
    settle(any_store, specs, day(3), result(2))
    send(any_store, receiver)
    settle(any_store, specs, day(4), result(3, "OK"))
    send(any_store, receiver)

    (head,) = slack.heads()
    repeated, resolved = slack.replies(head)
    assert kinds(any_store) == ["opened", "repeated", "resolved", "head"]
    assert "credit: psi of age is high" in head.text
    assert "Still firing" in repeated.text
    assert "1 resolved" in resolved.text
    assert head.colour == resolved.colour == "#1a7f37"
    assert {row["status"] for row in rows_of(any_store, outbox)} == {"sent"}


def test_a_new_episode_opens_a_new_thread(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of()]
    for number, status in enumerate(["ERROR", "OK", "ERROR"], start=1):
        settle(any_store, specs, day(number + 1), result(number, status))
        send(any_store, receiver)

    assert [len(slack.replies(head)) for head in slack.heads()] == [1, 0]


def test_an_alert_that_ended_and_opened_again_between_two_looks_goes_on_in_its_thread(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of()]
    settle(any_store, specs, day(2), result(1))
    send(any_store, receiver)
    settle(any_store, specs, day(4), result(2, "OK"), result(3))
    send(any_store, receiver)
    settle(any_store, specs, day(5), result(4, "OK"))
    send(any_store, receiver)

    (head,) = slack.heads()
    again, resolved = slack.replies(head)
    assert "1 new" in again.text
    assert "1 resolved" in again.text
    assert "nothing else fires" in resolved.text


def test_what_is_new_in_a_thread_says_since_when_it_fails(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """The look is days after the window: what was last told gives no hint of its date."""
    specs = [spec_of()]
    settle(store, specs, day(2), result(1))
    send(store, receiver)
    settle(store, specs, day(9), result(2, column_name="income"), result(2, "OK"))
    send(store, receiver)

    (_, change) = slack.messages
    assert "1 new, 1 resolved" in change.text
    assert f"since {day(2).date()}" in str(change.body)


def test_a_thread_that_nobody_saw_is_told_whole_though_an_alert_fired_twice_in_it(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    """All of its messages are withdrawn, those about alerts that ended before the last one too."""
    specs = [spec_of()]
    for number, (age, income) in enumerate(
        [("ERROR", "ERROR"), ("OK", "ERROR"), ("ERROR", "OK"), ("OK", "OK")], start=1
    ):
        rows = [
            result(number, status, column_name=column, message=f"{column} on day {number}")
            for column, status in (("age", age), ("income", income))
        ]
        settle(store, specs, day(number + 1), *rows)
    send(store, receiver)

    (message,) = slack.messages
    said = str(message.body)
    assert "3 alerts opened and resolved" in message.text
    assert all(part in said for part in ("age on day 1", "income on day 1", "age on day 3"))


def test_reminders_follow_windows_that_fail_anew_and_grow_rare(store: Store) -> None:
    specs, said = [spec_of()], []
    settle(store, specs, day(2), result(1))
    for number in range(2, 20):
        status = "OK" if number == 8 else "NO_DATA" if number in (3, 4) else "ERROR"
        rows = [] if number in (11, 12) else [result(number, status, k=1, of_n=3)]
        before = len(kinds(store))
        settle(store, specs, day(number + 1), *rows)
        settle(store, specs, day(number + 1) + 12 * HOUR)
        said += [number] if len(kinds(store)) > before else []

    # The second would be due on day 4, without a verdict; the third on day 9; none for history.
    assert said == [2, 5, 9, 17]
    assert set(kinds(store)) == {"opened", "repeated"}


def test_history_reminds_of_nothing(store: Store) -> None:
    settle(store, [spec_of()], day(2), result(1))
    settle(store, [spec_of()], day(9), *(result(n, is_backfill=True) for n in range(2, 8)))

    assert kinds(store) == ["opened"]


def test_nothing_else_fires_is_said_where_no_thread_of_the_model_has_anything_left(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    quality = {"family": "quality", "metric": "null_rate", "column_name": "income"}
    specs = [spec_of()]
    settle(store, specs, day(2), result(1))
    send(store, receiver)
    settle(store, specs, day(21), result(20), result(20, **quality))
    send(store, receiver)
    settle(store, specs, day(22), result(21, "OK"), result(21, **quality))
    settle(store, specs, day(23), result(22, "OK", **quality))
    send(store, receiver)

    first, second = [slack.replies(head)[-1].text.splitlines()[0] for head in slack.heads()]
    assert "1 resolved" in first
    assert first.endswith("; 1 still firing*")
    assert second.endswith("; nothing else fires*")
