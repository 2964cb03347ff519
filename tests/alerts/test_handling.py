"""What people do with alerts, and the digest."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.alerts.handling import acknowledge, find_alert, requeue
from mlmon_dagster.alerts.messages.digest import compose_digest, period_end, write_digests
from mlmon_dagster.alerts.messages.message import plain_text
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.alerting import DigestPolicy
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.state.schema import outbox
from mlmon_dagster.tables.alerts import ask_alert, ask_history
from mlmon_dagster.tables.rendering import render_text
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import (
    alerts_of,
    day,
    kinds,
    only_alert,
    result,
    rows_of,
    send,
    settle,
    spec_of,
)

SPECS = [spec_of()]
HOUR = dt.timedelta(hours=1)


def test_an_acknowledged_alert_repeats_only_once_it_gets_worse(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    settle(store, SPECS, day(2), result(1, "WARN"))
    send(store, receiver)
    acknowledge(store, only_alert(store)["fingerprint"][:6], "ana", day(2) + HOUR, "on it")
    quiet = settle(store, SPECS, day(5), result(4, "WARN"))
    settle(store, SPECS, day(6), result(5, "ERROR"))
    repeated = settle(store, SPECS, day(9), result(8, "ERROR"))
    send(store, receiver)

    (head,) = slack.heads()
    replies = [reply.text for reply in slack.replies(head)]
    assert (quiet, repeated) == (0, 1)
    assert "acknowledged by ana: on it" in replies[0]
    assert "1 worse" in replies[1]
    assert only_alert(store)["acked_by"] == ""


def test_only_what_fires_and_is_known_is_acknowledged(store: Store) -> None:
    settle(store, SPECS, day(2), result(1), result(2, "OK"), result(1, column_name="b"))
    ended = next(r for r in alerts_of(store) if r["state"] == "OK")["fingerprint"]

    with pytest.raises(ConfigError, match="only what fires"):
        acknowledge(store, ended, "ana", day(3))
    with pytest.raises(ConfigError, match="No alert"):
        find_alert(store, "zzz")
    with pytest.raises(ConfigError, match="No alert"):
        find_alert(store, "")


def test_history_and_an_alert_are_shown_with_who_did_what(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    acknowledge(store, only_alert(store)["fingerprint"], "ana", day(2) + HOUR, "on it")
    settle(store, SPECS, day(3), result(2, "OK"))

    history = render_text(ask_history(store, ()))
    assert [line.split()[1] for line in history.splitlines()[1:]] == [
        "opened",
        "acknowledged",
        "resolved",
    ]
    assert "ana: on it" in history
    assert render_text(ask_history(store, (), since=day(4))) == "Nothing happened."
    shown = render_text(ask_alert(store, only_alert(store)["fingerprint"][:8], ()))
    assert "drift: PSI of age" in shown
    assert "recovered" in shown


# Digest


@pytest.mark.parametrize(
    ("policy", "now", "due"),
    [
        ({"every": "daily"}, "2024-03-10T12:00", "2024-03-10T12:00"),
        ({"every": "daily"}, "2024-03-10T11:59", "2024-03-09T13:00"),
        ({"every": "weekly"}, "2024-03-13T12:00", "2024-03-11T12:00"),
        ({"every": "weekly"}, "2024-03-11T11:00", "2024-03-04T13:00"),
        (
            {"every": "weekly", "weekday": "sunday", "hour": 0},
            "2024-03-10T05:00",
            "2024-03-10T05:00",
        ),
    ],
)
def test_a_digest_is_due_at_its_hour_of_the_models_zone(
    policy: dict[str, object], now: str, due: str
) -> None:
    declared = DigestPolicy.model_validate(policy)
    assert declared.every != "off"
    found = period_end(
        declared,
        declared.every,
        "America/New_York",
        dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC),
    )

    assert found == dt.datetime.fromisoformat(due).replace(tzinfo=dt.UTC)


def test_a_digest_comes_once_a_day_for_all_models_of_a_place(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    specs = [spec_of(name, digest="daily") for name in ("credit", "other", "third")]
    settle(store, specs, day(2), result(1), result(1, model="other"), result(1, column_name="b"))
    settle(store, specs, day(2), result(2, "OK", column_name="b"))
    written = [write_digests(store, specs, day(2) + hours * HOUR) for hours in (8, 9, 31, 32)]
    send(store, receiver)

    digests = [m for m in slack.messages if "digest" in m.text]
    assert written == [1, 0, 0, 1]
    assert len(digests) == 2
    assert "Daily digest: 2 firing, 3 opened, 1 resolved" in digests[0].text
    assert "third" in str(digests[0].body)


def test_a_digest_has_a_line_a_model_with_what_changed_and_what_nobody_acknowledged(
    store: Store,
) -> None:
    names = ("credit", "loans", "calm", "still")
    specs = [spec_of(name) for name in names]
    ill = [result(n, message="age is 15 years higher") for n in (1, 2)]
    over = [result(n, status, model="loans") for n, status in ((1, "ERROR"), (2, "OK"))]
    settle(store, specs, day(3), *ill, *over, result(2, column_name="b"))
    known = {"calm": "Version 2 serves most predictions, before 1"}
    message = compose_digest(
        store, specs, "weekly", day(4), lambda _store, spec, *_: known.get(spec.model, "")
    )

    assert [(item.sentence, item.numbers) for item in message.items] == [
        ("credit: age is 15 years higher (and 1 more)", "since 2024-01-01; 2 opened"),
        ("loans: nothing fires", "1 opened, 1 resolved"),
        ("calm: nothing fires", "Version 2 serves most predictions, before 1"),
    ]
    notes = dict(message.notes)
    assert notes["Quiet"] == "1 of 4 models: still"
    assert notes["Nobody has acknowledged"] == "2 alerts of credit, the oldest since 2024-01-01"


def test_digests_are_off_by_default_and_a_quiet_one_says_so(store: Store) -> None:
    assert write_digests(store, SPECS, day(2)) == 0
    assert rows_of(store, outbox) == []
    said = plain_text(compose_digest(store, SPECS, "weekly", day(9)))
    assert said.startswith("OK    Weekly digest: 0 firing, 0 opened, 0 resolved")
    assert "every message was delivered" in said
    assert spec_of(digest=False).alerts.digest.every == "off"
    assert kinds(store) == []


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
    assert "over: psi of age is high" in slack.messages[-1].text
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
