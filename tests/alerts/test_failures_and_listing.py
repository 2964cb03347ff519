"""Failed runs are alerts like any other, and every episode can be listed."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.lifecycle.pipeline_failures import (
    RunFailure,
    RunSuccess,
    observe_runs,
)
from mlmon_dagster.alerts.messages.incidents import count_untold
from mlmon_dagster.alerts.messages.view import dagster_links
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import mlmon_alert
from mlmon_dagster.store.state.sql import fetch
from mlmon_dagster.tables.alerts import ask_alert, ask_history, list_alerts, tabulate_alerts
from mlmon_dagster.tables.rendering import render, render_text
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.worlds import DAY, day, observe, only_alert, result, send, settle, spec_of
from tests.conftest import make_spec

SPECS = [spec_of()]
SECRET = "anna@example.org"
FAILURE = RunFailure("credit", "run-1", day(2), "ValueError: <!channel> no\nTraceback ...")


def test_a_failed_run_is_told_once_and_ends_with_the_next_success(
    any_store: Store, slack: FakeSlack, receiver: SlackReceiver
) -> None:
    links = dagster_links("http://ui")
    new = [observe_runs(any_store, [FAILURE], now=day(2)) for _ in range(2)]
    settle(any_store, SPECS, day(2), links=links)
    send(any_store, receiver)
    earlier = RunSuccess("credit", "run-0", day(1))
    observe_runs(any_store, [FAILURE, earlier], now=day(3))
    still = settle(any_store, SPECS, day(2), links=links)
    success = RunSuccess("credit", "run-2", day(3))
    observe_runs(any_store, [FAILURE, earlier, success], now=day(3))
    settle(any_store, SPECS, day(3), links=links)
    send(any_store, receiver)

    (head,) = slack.heads()
    assert new == [1, 0]
    assert still == 0
    assert "A run failed: ValueError: &lt;!channel&gt; no*" in head.text
    assert "*Since:* 2024-01-02" in str(head.body["attachments"])
    assert "http://ui/runs/run-1" in str(head.body["attachments"])
    assert len(slack.replies(head)) == 1
    assert only_alert(any_store)["resolved_reason"] == "recovered"


def test_kinds_of_failures_are_alerts_of_their_own(store: Store) -> None:
    failures = [
        FAILURE,
        RunFailure("credit", "run-1", day(2), "drift", kind="check"),
        RunFailure("credit", "sha", day(2), "", kind="file", owner="team:data"),
    ]
    observe_runs(store, failures, now=day(2))
    settle(store, SPECS, day(2))

    found = {e.monitor: e.message for e in list_alerts(store)}
    assert found == {
        "pipeline/run": "A run failed: ValueError: <!channel> no",
        "pipeline/check": "A check crashed: drift",
        "pipeline/file": "A file was quarantined",
    }


def test_episodes_are_listed_with_their_worst_value(any_store: Store) -> None:
    rows = [
        result(1, value=0.3),
        result(2, value=0.9),
        result(3, "OK"),
        result(4, "WARN", value=0.2),
        result(4, metric="ks", k=2, of_n=3, value=0.5),
        result(4, family="service", metric="p95", value=None),
    ]
    settle(any_store, SPECS, day(5), *rows)
    found = list_alerts(any_store, "credit")

    assert [(e.metric, e.state, e.episode, e.worst_value) for e in found] == [
        ("p95", "FIRING", 1, None),
        ("psi", "FIRING", 2, 0.2),
        ("ks", "PENDING", 0, 0.5),
        ("psi", "RESOLVED", 1, 0.9),
    ]
    assert (found[3].opened_window, found[3].resolved_window) == (day(1), day(3))
    assert [e.severity for e in found if e.metric == "psi"] == ["WARN", "ERROR"]


def test_the_worst_of_a_falling_metric_is_the_lowest(store: Store) -> None:
    falling = [result(i, value=v, baseline_value=0.8) for i, v in enumerate((0.7, 0.6, 0.65), 1)]
    settle(store, SPECS, day(5), *falling)

    assert [e.worst_value for e in list_alerts(store)] == [0.6]


def test_windows_are_named_as_the_models_zone_has_them(store: Store) -> None:
    midnight = dt.datetime(2024, 1, 5, 5, tzinfo=dt.UTC)
    settle(store, SPECS, day(9), result(1, window_start=midnight))

    spec = make_spec(model="credit", time={"zone": "America/New_York", "start": "2024-01-01"})
    assert "credit  2024-01-05  " in render_text(tabulate_alerts([spec], list_alerts(store)))
    assert "\n2024-01-05  opened" in render_text(ask_history(store, [spec]))


def test_what_is_pending_is_listed_apart_with_the_severity_that_it_would_have(
    store: Store,
) -> None:
    rare = {"metric": "ks", "k": 2, "of_n": 3}
    settle(store, SPECS, day(5), result(1), result(1, "WARN", **rare), result(2, "OK", **rare))
    fired, pending = render_text(tabulate_alerts(SPECS, list_alerts(store))).split("\n\n")

    assert fired.splitlines()[1].split()[1:5] == ["FIRING", "ERROR", "credit", "2024-01-01"]
    heading, names, row = pending.splitlines()
    assert heading == "Pending, no alert unless more windows fail:"
    assert names.split()[:4] == ["ID", "WOULD", "BE", "MODEL"]
    assert row.split()[1:4] == ["WARN", "credit", "2024-01-01"]


def test_windows_that_fail_after_an_alert_has_recovered_are_named_and_when_it_was_noticed(
    store: Store,
) -> None:
    days = ["ERROR", "ERROR", "OK", "OK", "OK", "WARN", "OK", "OK", "OK"]
    rows = [result(i, status, k=2, of_n=3) for i, status in enumerate(days, 1)]
    settle(store, SPECS, day(12), *rows)
    (listed,) = list_alerts(store)
    shown = ask_alert(store, listed.fingerprint, ()).text or ""

    assert (listed.state, listed.opened_window, listed.failed_window, listed.resolved_window) == (
        "RESOLVED", day(1), day(2), day(4)
    )  # fmt: skip
    assert "Failed again:    2024-01-06 (too few for an alert)" in shown
    assert "2024-01-01  opened    2024-01-12 00:00" in shown
    assert "2024-01-04  resolved  2024-01-12 00:00" in shown
    assert "Told:            2024-01-12 00:00 UTC" in shown


def test_the_worst_is_of_verdicts_that_stand(store: Store) -> None:
    settle(store, SPECS, day(5), result(1, value=0.9), result(2, value=0.3))
    settle(store, SPECS, day(6), result(1, value=0.4, data_version="v2"))

    assert [e.worst_value for e in list_alerts(store)] == [0.4]


def test_an_event_is_untold_from_the_moment_in_which_it_should_have_been_told(
    any_store: Store,
) -> None:
    observe(any_store, result(1), result(2, "OK"), result(1, column_name="b", is_backfill=True))
    fold_results(any_store, SPECS, day(3))  # and the dispatcher dies here

    counted = [count_untold(any_store, SPECS, now) for now in (day(3), day(3) + DAY)]
    others = count_untold(any_store, [spec_of("other")], day(9))
    assert (counted, others) == ([0, 2], 0)
    assert settle(any_store, SPECS, day(4)) == 2  # what was over, and the end of the backfill
    assert count_untold(any_store, SPECS, day(9)) == 0


COLUMNS = ("age", "plan", "income")


def test_episodes_of_the_view_are_those_of_the_list_over_40_random_days(any_store: Store) -> None:
    rng = np.random.default_rng(3)
    for number in range(1, 41):
        statuses = rng.choice(["OK", "WARN", "ERROR", "NO_DATA"], 3, p=[0.5, 0.2, 0.2, 0.1])
        rows = [
            result(number, str(status), column_name=column, monitor=f"drift/psi/{column}")
            for column, status in zip(COLUMNS, statuses, strict=True)
        ]
        observe(any_store, *rows)
        settle(any_store, SPECS, day(number + 1))
        listed = {(e.fingerprint, e.episode): e for e in list_alerts(any_store)}
        with any_store.state.connect() as conn:
            found = fetch(conn, sa.select(mlmon_alert))

        assert {(r["fingerprint"], r["episode"]) for r in found} == set(listed)
        for row in found:
            alert = listed[row["fingerprint"], row["episode"]]
            same = ("model", "monitor", "state", "severity", "opened_window", "resolved_window",
                    "muted_reason", "acked_by")  # fmt: skip
            assert {n: row[n] for n in same} == {n: getattr(alert, n) for n in same}
    assert len(listed) > 8


def test_what_was_stored_of_a_column_before_it_was_marked_is_shown_nowhere(store: Store) -> None:
    email = {"family": "quality", "metric": "unseen_rate", "column_name": "email"}
    said = f"Share of unseen values of email is 0.40: {SECRET}."
    why = {"unseen": [SECRET]}
    bad = [result(n, message=said, details=json.dumps(why), **email) for n in (1, 2)]
    settle(store, SPECS, day(3), *bad)
    settle(store, SPECS, day(6), *(result(n, "OK", **email) for n in (3, 4, 5)))
    features = {"email": {"type": "categorical", "pii": True}}
    marked = [make_spec(model="credit", features=features)]
    found = list_alerts(store)
    assert SECRET in render_text(ask_alert(store, found[0].fingerprint, SPECS))

    for answer in (
        tabulate_alerts(marked, found),
        ask_alert(store, found[0].fingerprint, marked),
        ask_history(store, marked),
    ):
        assert "email" in render_text(answer)
        assert SECRET not in render_text(answer)
        assert SECRET not in render(answer, "json")
