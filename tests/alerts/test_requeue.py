"""Messages that were refused are told again as things stand, not as they were written."""

from __future__ import annotations

import pytest

from mlmon_dagster.alerts.handling import requeue
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.state.schema import outbox
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import day, result, rows_of, send, settle, spec_of

SPECS = [spec_of()]
RED, GREEN = "#d1242f", "#1a7f37"


def untold(store: Store) -> int:
    return alert_state.count_untold(store.state, ["credit"], day(99), day(99))


@pytest.mark.parametrize("n_refused", [1, 2])
def test_what_is_over_is_told_as_over_once_and_calls_nobody(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver, n_refused: int
) -> None:
    """The opening was refused; its end was told in time, or refused too."""
    slack.script("chat.postMessage", *["not_in_channel"] * n_refused)
    settle(any_store, SPECS, day(2), result(1))
    send(any_store, receiver)
    settle(any_store, SPECS, day(3), result(2, "OK"))
    send(any_store, receiver)
    counted = requeue(any_store, SPECS, day(4))
    again = requeue(any_store, SPECS, day(4))
    send(any_store, receiver)
    settle(any_store, SPECS, day(5), result(3, "OK"))

    assert (counted, again, untold(any_store)) == ((n_refused, 1), (0, 0), 0)
    assert len(slack.messages) == 3 - n_refused
    assert {m.colour for m in slack.messages} == {GREEN}
    assert "opened and resolved: psi of age is high" in slack.messages[-1].text
    assert not any("<!here>" in m.text for m in slack.messages)


def test_what_fires_still_is_told_as_firing_and_its_end_goes_into_that_thread(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    slack.script("chat.postMessage", "not_in_channel")
    settle(any_store, SPECS, day(2), result(1), result(1, column_name="b", message="b is high"))
    send(any_store, receiver)
    settle(
        any_store, SPECS, day(3), result(2, message="now worse"), result(2, "OK", column_name="b")
    )
    requeue(any_store, SPECS, day(3))
    send(any_store, receiver)
    settle(any_store, SPECS, day(4), result(3, "OK"))
    send(any_store, receiver)

    over, head = slack.heads()
    assert ("b is high" in over.text, over.body["attachments"][0]["color"]) == (True, GREEN)
    assert head.text.startswith("<!here>")
    assert "now worse" in head.text
    assert [reply.colour for reply in slack.replies(head)] == [GREEN]
    assert {row["status"] for row in rows_of(any_store, outbox)} == {"superseded", "sent"}
    assert untold(any_store) == 0


def test_a_refused_test_message_or_digest_is_sent_as_it_is(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    with store.state.begin() as conn:
        conn.execute(outbox.update().values(status="dead", kind="digest", payload="{}"))

    assert requeue(store, SPECS, day(3)) == (1, 1)
    assert [row["status"] for row in rows_of(store, outbox)] == ["queued"]


def test_an_id_that_was_not_refused_is_named(store: Store) -> None:
    with pytest.raises(ConfigError, match="None of these was refused"):
        requeue(store, SPECS, day(3), [17])
