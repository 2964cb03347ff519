"""What is said, when, and where."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pytest

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.lifecycle.routing import matcher
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.messages.view import dagster_links
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
from mlmon_dagster.alerts.receivers.slack import SlackReceiver, render
from mlmon_dagster.alerts.receivers.worker import deliver
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.state.schema import alert, alert_event, outbox, window_state
from mlmon_dagster.store.state.sql import upsert
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import (
    IMPATIENT,
    day,
    kinds,
    observe,
    only_alert,
    result,
    rows_of,
    send,
    settle,
    spec_of,
)

MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)
SPECS = [spec_of()]


def columns(number: int, status: str = "ERROR", n: int = 3, **kw: Any) -> list[dict[str, Any]]:
    return [
        result(number, status, column_name=f"c{i}", message=f"psi of c{i} is high", **kw)
        for i in range(n)
    ]


def untold(store: Store) -> int:
    return alert_state.count_untold(store.state, ["credit"], day(99), day(99))


def texts(store: Store) -> list[str]:
    return [json.loads(row["payload"])["plain"] for row in rows_of(store, outbox)]


def test_many_columns_are_one_message_with_a_limit(store: Store) -> None:
    settle(store, SPECS, day(2), *columns(1, n=13))

    (text,) = texts(store)
    assert "(and 12 more)" in text
    assert "and 7 more: PSI of c3, c4, c5" in text
    assert "mlmon metrics credit --metric psi --from 2024-01-01 --to 2024-01-01" in text


def test_a_message_says_what_since_when_why_whose_and_how_to_see_more(store: Store) -> None:
    row = result(
        1,
        lower=0.3,
        upper=0.5,
        runbook="https://wiki/psi",
        run_id="0f0f0f0f-1111-2222-3333-444444444444",
        details={
            "worst_slices": [
                {
                    "metric": "psi",
                    "slice_key": "region",
                    "slice_value": "north",
                    "value": 0.9,
                    "n": 700,
                }
            ],
            "unseen": {"XYZ": 12},
        },
    )
    settle(store, SPECS, day(2), row, links=dagster_links("http://ui"))

    (text,) = texts(store)
    assert text.splitlines() == [
        "ERROR credit: psi of age is high",
        "  Since:         2024-01-01",
        "  Why:           PSI of age for region = north is 0.90 (n 700); unseen values of age XYZ",
        "  Owner:         team:risk",
        "  Next:          Ask the owner of this feed. If the change is meant: "
        "mlmon baseline promote credit.",
        "  Asset:         http://ui/assets/credit/drift",
        "  Check:         http://ui/assets/credit/drift?view=checks&checkDetail=drift",
        "  Run:           http://ui/runs/0f0f0f0f-1111-2222-3333-444444444444",
        "  Runbook:       https://wiki/psi",
        "  More:          mlmon metrics credit --metric psi --column age "
        "--from 2024-01-01 --to 2024-01-01",
        f"                 mlmon rows {rows_of(store, alert)[0]['fingerprint'][:8]}",
    ]


def test_alerts_that_began_on_different_days_say_which_began_when(store: Store) -> None:
    later = result(3, column_name="c1", message="psi of c1 is high")
    settle(store, SPECS, day(4), *columns(1, n=1), *columns(2, n=1), *columns(3, n=1), later)

    (text,) = texts(store)
    assert "  Since:         2024-01-01 (PSI of c0); 2024-01-03 (PSI of c1)" in text.splitlines()


def test_families_that_fail_in_the_same_windows_are_one_thread_with_one_mention_by_cause(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    latency = result(1, family="service", metric="p95_latency_ms", message="p95 latency is 9 s")
    settle(any_store, SPECS, day(2), result(1), latency)
    quality = {"family": "quality", "metric": "null_rate", "message": "age is null"}
    settle(any_store, SPECS, day(4), result(2, **quality), result(3, **quality))
    send(any_store, receiver)

    (head,) = slack.heads()
    (joined,) = slack.replies(head)
    assert head.text.startswith("<!here>")
    assert "psi of age is high (and 1 more)" in texts(any_store)[0]
    assert "1 new: age is null" in joined.text
    assert "<!here>" not in joined.text
    causes = ["age is null", "psi of age is high", "p95 latency is 9 s"]
    shown = json.dumps(head.shown)
    assert sorted(causes, key=shown.index) == causes


def test_what_began_many_windows_later_in_another_family_is_an_incident_of_its_own(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    settle(store, SPECS, day(2), result(1))
    slow = {"family": "service", "metric": "error_rate", "message": "requests fail"}
    settle(store, SPECS, day(10), *(result(n) for n in range(2, 10)), result(9, **slow))
    send(store, receiver)
    settle(store, SPECS, day(11), result(10, "OK", **slow), result(10))
    send(store, receiver)

    first, second = slack.heads()
    assert "<!here>" in second.text
    assert "requests fail" in second.text
    assert not any("requests fail" in json.dumps(m.body) for m in slack.replies(first))
    assert ["resolved" in m.text for m in slack.replies(second)] == [True]


def test_what_begins_as_another_cause_ends_has_a_thread_of_its_own(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    slow = {"family": "service", "metric": "error_rate", "message": "requests fail"}
    over = [*(result(n) for n in range(2, 19)), result(19, "OK")]
    settle(store, SPECS, day(20), *over, result(19, **slow))

    rows = [row for row in rows_of(store, outbox) if row["kind"] != "head"]
    assert [(row["kind"], "requests fail" in row["payload"]) for row in rows] == [
        ("opened", False), ("resolved", False), ("opened", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("later", "is_called"),
    [
        ({"number": 3, "column_name": "b"}, False),
        ({"number": 20, "column_name": "b"}, True),  # a cause of its own beneath a standing alert
        ({"number": 3, "family": "quality", "status": "ERROR"}, True),  # worse than all before
    ],
)
def test_people_are_called_again_only_for_what_is_worse_or_a_cause_of_its_own(
    later: dict[str, Any], is_called: bool, store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    number, new = later["number"], {"status": "WARN", **later}
    settle(store, SPECS, day(2), result(1, "WARN"))
    settle(store, SPECS, day(number + 1), result(**new), result(number, "WARN"))
    send(store, receiver)

    (head,) = slack.heads()
    (reply,) = slack.replies(head)
    assert "1 new" in reply.text
    assert ("<!here>" in reply.text) == is_called


def test_people_of_another_family_are_called_into_a_thread_that_is_not_theirs(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    route = {"family": "service", "slack": {"channel": "#ml-alerts", "mention": "@channel"}}
    specs = [spec_of(routes=[route])]
    settle(store, specs, day(2), result(1))
    settle(store, specs, day(3), result(2, family="service", metric="error_rate"))
    send(store, receiver)

    (head,) = slack.heads()
    assert ["<!channel>" in m.text for m in slack.replies(head)] == [True]


def test_a_new_alert_and_a_partial_end_are_replies(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    settle(any_store, SPECS, day(2), *columns(1, n=1))
    settle(any_store, SPECS, day(3), *columns(2, n=2))
    settle(any_store, SPECS, day(4), *columns(3, n=1), result(3, "OK", column_name="c1"))
    send(any_store, receiver)

    (head,) = slack.heads()
    new, ended = slack.replies(head)
    assert kinds(any_store) == ["opened", "updated", "head", "updated", "head"]
    assert "1 new: psi of c1 is high; 2 still firing" in new.text
    assert "<!here>" not in new.text
    assert "1 resolved: PSI of c1 is 0.01 again; 1 still firing" in ended.text
    assert "<!here>" not in ended.text
    assert head.colour == "#d1242f"


def test_escalation_and_revision_are_told(store: Store) -> None:
    settle(store, SPECS, day(2), *columns(1, "WARN", n=2, k=2, of_n=3))
    settle(store, SPECS, day(3), *columns(2, "WARN", n=2, k=2, of_n=3))
    worse = result(3, "ERROR", column_name="c0", k=2, of_n=3)
    settle(store, SPECS, day(4), worse, result(3, "WARN", column_name="c1", k=2, of_n=3))
    revised = result(3, "OK", column_name="c1", data_version="v2", message="c1 fine", k=2, of_n=3)
    settle(store, SPECS, day(5), revised)

    replies = [text for text in texts(store) if "still firing" in text]
    assert ["1 worse" in replies[0], "1 revised after late data" in replies[1]] == [True, True]
    assert "1 revised after late data: c1 fine; 1 still firing, 1 recovering" in replies[1]


def test_an_unchanged_group_repeats_only_when_it_is_time(store: Store) -> None:
    specs = [spec_of(repeat="12h")]
    settle(store, specs, day(2), result(1))
    without_news = [flush_groups(store, specs, day(2) + hours * HOUR) for hours in (1, 13, 25)]
    observe(store, result(2))
    fold_results(store, specs, day(2) + 26 * HOUR)
    written = [flush_groups(store, specs, day(2) + hours * HOUR) for hours in (26, 27, 51)]

    assert (without_news, written) == ([0, 0, 0], [1, 0, 0])


def test_messages_of_a_group_keep_five_minutes_apart(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    too_soon = settle(store, SPECS, day(2) + MINUTE, result(2, "OK"))
    later = flush_groups(store, SPECS, day(2) + 5 * MINUTE)

    assert (too_soon, later) == (0, 1)


def test_what_opens_and_ends_between_two_looks_is_told_once_as_over(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    written = settle(any_store, SPECS, day(3), result(1), result(2, "OK"))
    again = flush_groups(any_store, SPECS, day(3) + HOUR)
    send(any_store, receiver)

    (message,) = slack.messages
    assert (written, again, untold(any_store)) == (1, 0, 0)
    assert message.text.endswith("credit: over: psi of age is high, from 2024-01-01 to 2024-01-02*")
    assert (message.colour, "<!here>" in message.text) == ("#1a7f37", False)


def test_however_many_episodes_are_over_each_is_named_or_counted(store: Store) -> None:
    """Of 40, twelve have a sentence; the others are counted by their alert."""
    history = [result(i, "ERROR" if i % 2 else "OK", message=f"day {i}") for i in range(1, 81)]
    settle(store, SPECS, day(81), *history)

    (text,) = texts(store)
    assert text.count("day ") - text.count("days ") >= 12
    assert "and 28 more: PSI of age (28 times)" in text
    assert untold(store) == 0


@pytest.mark.parametrize("is_open", [False, True])
def test_what_has_no_room_in_one_message_comes_in_the_next(store: Store, is_open: bool) -> None:
    """Of 70 alerts with long sentences, in a thread that goes on or in none."""
    many = [f"feature_{i:02}_of_many_features" for i in range(70)]
    first = [result(1, column_name="seen")] if is_open else []
    settle(store, SPECS, day(2), *first)
    news = [
        result(n, "ERROR" if n % 2 else "OK", column_name=c, message=f"PSI of {c} <{'x' * 200}>")
        for c in many
        for n in (3, 4)
    ]
    settle(store, SPECS, day(5), *news, *(result(4, column_name="seen") for _ in first))

    rows = {row["idempotency_key"]: row["payload"] for row in rows_of(store, outbox)}
    names = {row["fingerprint"]: row["column_name"] for row in rows_of(store, alert)}
    events = rows_of(store, alert_event)
    assert len(events) == 2 * 70 + is_open
    assert all(
        names[e["fingerprint"]] in json.dumps(render(json.loads(rows[e["message_key"]])))
        for e in events
    )
    assert len(rows) <= 6
    assert untold(store) == 0


def test_what_a_withdrawn_thread_told_as_over_is_told_by_what_takes_its_place(
    store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    settle(store, SPECS, day(2), result(1, column_name="seen"))
    history = [result(2, message="in between"), result(3, "OK"), result(3, column_name="seen")]
    settle(store, SPECS, day(4), *history)
    settle(store, SPECS, day(5), result(4, "OK", column_name="seen"))
    send(store, receiver)

    (message,) = slack.messages
    assert "2 alerts opened and resolved" in message.text
    assert "in between" in json.dumps(message.body)
    assert untold(store) == 0


def test_an_end_quotes_its_own_episode_though_the_alert_has_failed_since(store: Store) -> None:
    two = {"k": 2, "of_n": 3}
    settle(store, SPECS, day(3), result(1, **two), result(2, message="first", **two))
    deliver(store, {"console": ConsoleReceiver(io.StringIO())})
    passing = [result(i, "OK", **two) for i in (3, 4, 5)]
    settle(store, SPECS, day(7), *passing, result(6, message="later", **two))

    assert "was: first" in texts(store)[1]


def test_windows_taken_in_at_once_are_muted_one_by_one(store: Store) -> None:
    """Day 1 drifts, day 2 has a refused file that explains it, day 3 is well again."""
    cause = {"family": "schema", "metric": "bad_rate"}
    drift = [result(1), result(2), result(3, "OK")]
    settle(store, SPECS, day(4), *drift, result(2, **cause), result(3, "OK", **cause))
    explained = [result(5, column_name="b"), result(6, "OK", column_name="b")]
    settle(store, SPECS, day(7), *explained, result(5, **cause), result(6, "OK", **cause))

    told = [json.loads(row["payload"])["event"] for row in rows_of(store, outbox)]
    assert [event["title"] for event in told] == [
        "credit: 2 alerts opened and resolved",
        "credit: over: psi of age is high, from 2024-01-05 to 2024-01-06",
    ]
    assert untold(store) == 0


def test_every_place_hears_of_what_is_over(store: Store) -> None:
    other = {"severity": "ERROR", "slack": {"channel": "#other"}, "continue": True}
    specs = [spec_of(routes=[other])]
    settle(store, specs, day(2), result(1, column_name="b"))
    settle(store, specs, day(3), result(2, "OK", column_name="b"), result(1), result(2, "OK"))

    over = [row for row in rows_of(store, outbox) if "psi of age" in row["payload"]]
    assert {row["channel"] for row in over} == {"#ml-alerts", "#other"}


def test_a_muted_alert_is_not_told_until_it_is_let_out(store: Store) -> None:
    cause = {"family": "schema", "metric": "bad_rate"}
    settle(store, SPECS, day(2), result(1, **cause), result(1))
    settle(store, SPECS, day(3), result(2, "OK", **cause), result(2))

    told = [(row["created_at"], json.loads(row["payload"])["event"]["title"])
            for row in rows_of(store, outbox) if row["kind"] != "head"]  # fmt: skip
    assert told == [
        (day(2), "credit: psi of age is high"),
        (day(3), "credit: 1 new, 1 resolved; 1 still firing"),
    ]


# Silences


def silence(store: Store, start: dt.datetime, end: dt.datetime, **labels: str) -> int:
    with store.state.begin() as conn:
        return alert_state.add_silence(
            conn,
            matcher=matcher(labels),
            author="me",
            comment="planned",
            starts_at=start,
            ends_at=end,
        )


def test_a_silenced_alert_is_listed_and_told_when_the_silence_ends(any_store: Store) -> None:
    number = silence(any_store, day(1), day(5), model="cre*", column_name="age")
    before = settle(any_store, SPECS, day(2), result(1))
    row = only_alert(any_store)
    after = flush_groups(any_store, SPECS, day(5))

    assert (before, row["muted_reason"], after) == (0, f"silence:{number}", 1)


def test_a_silence_holds_repeats_and_the_end_but_not_other_alerts(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    silence(store, day(2), day(9), column_name="age")
    repeated = settle(store, SPECS, day(4), result(3))
    other = settle(store, SPECS, day(5), *columns(4, n=1))
    ended = settle(store, SPECS, day(5) + HOUR, result(5, "OK"))

    assert (repeated, other, ended) == (0, 1, 0)
    assert kinds(store) == ["opened", "updated", "head", "head"]


def test_the_end_under_a_silence_shows_only_in_the_head(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    silence(store, day(2), day(9), model="credit")
    settle(store, SPECS, day(3), result(2, "OK"))
    settle(store, SPECS, day(10))

    assert kinds(store) == ["opened", "head"]
    assert "resolved, PSI of age is 0.01 again" in texts(store)[1]


# Backfill


def backfill(number: int, status: str = "ERROR", **kw: Any) -> dict[str, Any]:
    return result(number, status, is_backfill=True, **kw)


def test_a_backfill_sends_one_summary_and_its_end_replies_in_that_thread(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    service = {"family": "service", "metric": "error_rate"}
    history = [backfill(i, "ERROR" if i % 2 else "OK") for i in range(1, 8)]
    settle(any_store, SPECS, day(9), *history, *(backfill(i, **service) for i in range(1, 8)))
    quiet = [flush_groups(any_store, SPECS, day(9) + hours * HOUR) for hours in (1, 5, 23)]
    settle(any_store, SPECS, day(10), result(8, "OK"), result(8, **service))
    settle(any_store, SPECS, day(11), result(9, "OK", **service))
    send(any_store, receiver)

    (head,) = slack.heads()
    drift_ended, service_ended = slack.replies(head)
    assert "2 alerts firing already (drift, service)" in head.text
    assert quiet == [0, 0, 0]
    assert "1 resolved: PSI of age is 0.01 again; 1 still firing" in drift_ended.text
    assert "1 resolved" in service_ended.text
    assert head.colour == "#1a7f37"


def test_the_summary_waits_for_the_end_of_the_backfill(store: Store) -> None:
    row = {"model": "credit", "window_start": day(2), "window_end": day(3)}
    with store.state.begin() as conn:
        upsert(conn, window_state, [{**row, "input_revision": 1, "computed_revision": 0}])
    created = {"created_at": day(9)}
    settle(store, SPECS, day(9), backfill(1, **created))
    waiting = kinds(store)
    with store.state.begin() as conn:
        upsert(conn, window_state, [{**row, "input_revision": 1, "computed_revision": 1}])
    known_to_run = flush_groups(store, SPECS, day(9), backfilling={"credit"})
    done = flush_groups(store, SPECS, day(9))

    assert (waiting, known_to_run, done) == ([], 0, 1)


def test_a_backfill_that_leaves_gaps_ends_after_half_an_hour(store: Store) -> None:
    row = {"model": "credit", "window_start": day(2), "window_end": day(3)}
    with store.state.begin() as conn:
        upsert(conn, window_state, [{**row, "input_revision": 1, "computed_revision": 0}])
    settle(store, SPECS, day(9), backfill(1, created_at=day(9)))

    assert flush_groups(store, SPECS, day(9) + 29 * MINUTE) == 0
    assert flush_groups(store, SPECS, day(9) + 30 * MINUTE) == 1


def test_an_episode_that_outlives_its_backfill_is_told_also_when_it_ends_at_once(
    store: Store,
) -> None:
    history = [backfill(1), backfill(1, column_name="b"), backfill(2, "OK", column_name="b")]
    settle(store, SPECS, day(9), *history, backfill(2), result(3, "OK"))

    (text,) = texts(store)
    assert "credit: over: psi of age is high, from 2024-01-01 to 2024-01-03" in text


def test_an_alert_that_was_told_stays_in_its_thread_when_a_backfill_goes_on(store: Store) -> None:
    settle(store, SPECS, day(2), result(1))
    deliver(store, {"console": ConsoleReceiver(io.StringIO())})
    settle(store, SPECS, day(3), backfill(2), backfill(2, column_name="b"))
    settle(store, SPECS, day(4), result(3, "OK"), result(3, "OK", column_name="b"))

    assert kinds(store) == ["opened", "summary", "resolved", "head"]
    heads = {row["head_key"] for row in rows_of(store, outbox) if row["head_key"]}
    assert len(heads) == 1


# Without Slack


def test_without_a_token_messages_are_printed_kept_and_slack_is_explained(store: Store) -> None:
    stream = io.StringIO()
    settle(store, SPECS, day(2), result(1))
    settle(store, SPECS, day(3), result(2, "OK", column_name="b"), result(2, "OK"))
    settle(store, SPECS, day(4), result(3))
    report = deliver(store, {"console": ConsoleReceiver(stream)}, policy=IMPATIENT)

    printed = stream.getvalue()
    assert printed.count("psi of age is high") == 2
    assert printed.count("MLMON_SLACK_TOKEN") == 1
    assert report.n_waiting == 0
    assert {row["status"] for row in rows_of(store, outbox)} == {"sent", "superseded"}


def test_models_that_were_not_asked_for_are_left_alone(store: Store) -> None:
    observe(store, result(1), result(1, model="other"))
    settle(store, [spec_of(), spec_of("other")], day(2))

    news = result(2), result(2, model="other")
    assert settle(store, [spec_of("other")], day(9), *news) == 1


def test_without_a_verdict_the_commands_are_those_that_help(store: Store) -> None:
    row = result(
        1,
        "NO_DATA",
        family="performance",
        metric="roc_auc",
        column_name=":table",
        reason="no_baseline",
        message="ROC AUC cannot be judged: there is no baseline.",
    )
    settle(store, SPECS, day(2), row)

    (text,) = texts(store)
    assert "no_verdict" not in text
    assert text.splitlines()[-2:] == [
        "  More:          mlmon status credit",
        "                 mlmon doctor",
    ]


def test_a_missed_estimate_offers_the_trace_of_what_was_estimated(store: Store) -> None:
    row = result(1, family="estimated_performance", metric="roc_auc_residual", column_name=":table")
    settle(store, SPECS, day(2), row)

    (text,) = texts(store)
    assert "mlmon metrics credit --metric roc_auc_residual --from" in text
    assert "mlmon trace credit --metric roc_auc --from 2024-01-01 --to 2024-01-01" in text
    assert f"mlmon rows {only_alert(store)['fingerprint'][:8]}" in text
