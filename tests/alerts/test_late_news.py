"""What is learnt afterwards of past windows is told once, as what it is, or taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlmon_dagster.alerts.messages.incidents import count_untold
from mlmon_dagster.alerts.receivers.pagerduty import write_events
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert_event, outbox
from mlmon_dagster.tables.alerts import list_alerts
from tests.alerts.worlds import day, only_alert, result, rows_of, send, settle, spec_of

SPECS = [spec_of()]
ROC = {"family": "performance", "metric": "roc_auc", "column_name": ":table"}


def area(number: int, status: str = "OK", version: str = "v1", **changes: Any) -> dict[str, Any]:
    """Return a verdict on the area under the ROC curve of a day."""
    value = 0.21 if status == "ERROR" else 0.8
    said = f"ROC AUC is {value}, 0.59 worse than usual (0.80)" if status == "ERROR" else ""
    return result(
        number, status, value=value, message=said, data_version=f"{version}:b1", **ROC, **changes
    )


def events_of(store: Store) -> list[tuple[str, bool, str]]:
    return [(r["kind"], r["is_late"], r["muted_reason"]) for r in rows_of(store, alert_event)]


def messages(store: Store) -> list[dict[str, Any]]:
    """Return what was written, updates of first messages apart."""
    rows = [row for row in rows_of(store, outbox) if row["kind"] != "head"]
    return [{**row, **json.loads(row["payload"])} for row in rows]


def watched(store: Store, n_days: int = 11) -> None:
    """Let days pass on which all is well, each looked at when it ended."""
    for number in range(1, n_days + 1):
        settle(store, SPECS, day(number + 1), area(number))


def correct(store: Store, status: str, *days: int, version: str, now: int = 12) -> int:
    return settle(store, SPECS, day(now), *(area(n, status, version) for n in days))


def test_a_correction_that_turns_past_windows_bad_is_told_once_though_the_newest_is_fine(
    any_store: Store,
) -> None:
    watched(any_store)
    assert correct(any_store, "ERROR", 8, 9, 10, version="v2") == 1
    assert settle(any_store, SPECS, day(13)) == 0

    (told,) = messages(any_store)
    assert (told["kind"], told["head_key"]) == ("late", "")
    assert "Learnt on 2024-01-12: 2024-01-08 to 2024-01-10, ROC AUC is 0.21" in told["plain"]
    assert "--from 2024-01-08 --to 2024-01-10" in told["plain"]
    assert told["event"]["severity"] == "ERROR"
    assert events_of(any_store) == [("opened", True, ""), ("resolved", True, "")]
    assert only_alert(any_store)["state"] == "OK"
    assert count_untold(any_store, SPECS, day(20)) == 0
    assert settle(any_store, SPECS, day(60), area(59)) == 0  # and nobody is reminded


def test_pagerduty_gets_an_incident_of_its_own_that_is_over_at_once(store: Store) -> None:
    watched(store)
    correct(store, "ERROR", 8, version="v2")
    (told,) = messages(store)
    sent = list(write_events(told["event"]))

    assert [one["event_action"] for one in sent] == ["trigger", "resolve"]
    assert {one["dedup_key"] for one in sent} == {told["event"]["id"]}


def test_a_correction_back_withdraws_what_was_told_and_says_so_once(any_store: Store) -> None:
    watched(any_store)
    correct(any_store, "ERROR", 8, 9, version="v2")
    assert correct(any_store, "OK", 8, 9, version="v3", now=13) == 1
    assert correct(any_store, "OK", 8, 9, version="v4", now=14) == 0

    said = messages(any_store)[-1]
    assert "Withdrawn on 2024-01-13: 2024-01-08 to 2024-01-09 pass now" in said["plain"]
    assert [e.state for e in list_alerts(any_store)] == ["WITHDRAWN"]
    assert correct(any_store, "ERROR", 8, version="v5", now=15) == 1  # bad after all: told anew


def test_what_is_late_has_a_thread_of_its_own_beside_one_that_fires(
    store: Store, receiver: SlackReceiver
) -> None:
    watched(store)
    settle(store, SPECS, day(13), area(12, "ERROR"))
    send(store, receiver)
    assert correct(store, "ERROR", 5, 6, version="v2", now=14) == 1
    settle(store, SPECS, day(15), area(13))

    kinds = [(m["kind"], m["head_key"] == "") for m in messages(store)]
    assert kinds == [("opened", True), ("late", True), ("resolved", False)]
    assert only_alert(store)["episode"] == 1


@pytest.mark.parametrize("reason", ["history", "other baseline"])
def test_what_is_no_news_is_listed_and_not_told(store: Store, reason: str) -> None:
    """Imported windows, and other verdicts on the same rows after a change of the baseline."""
    watched(store)
    if reason == "history":
        settle(store, SPECS, day(12), area(8, "ERROR", "v2", is_backfill=True))
    else:
        bad = {**area(8, "ERROR"), "data_version": "v1:b2"}
        settle(store, SPECS, day(12), bad)

    assert messages(store) == []
    assert [(e.state, e.muted_reason) for e in list_alerts(store)] == [("RESOLVED", "backfill")]


def truth(number: int, status: str) -> dict[str, Any]:
    version = f"actuals:31:140:{'late' if status == 'ERROR' else 'fine'}"
    about = {"family": "freshness", "metric": "actuals_missing", "column_name": ":table"}
    return result(number, status, value=0.6, data_version=version, **about)


def test_ground_truth_that_comes_after_the_alert_has_ended_takes_nothing_back(
    store: Store, receiver: SlackReceiver
) -> None:
    for number in range(1, 8):
        settle(store, SPECS, day(number + 4), truth(number, "ERROR" if number in (4, 5) else "OK"))
        send(store, receiver)
    n_told = len(messages(store))

    assert settle(store, SPECS, day(12), truth(4, "OK"), truth(5, "OK")) == 0
    assert len(messages(store)) == n_told
    assert [e.state for e in list_alerts(store)] == ["RESOLVED"]


@pytest.mark.parametrize("together", [True, False])
def test_a_label_job_that_stopped_and_caught_up_was_late_all_the_same(
    store: Store, receiver: SlackReceiver, together: bool
) -> None:
    """All labels come at once, or some windows have theirs while others are not due again."""
    for number in range(1, 8):
        settle(store, SPECS, day(number + 4), truth(number, "OK" if number < 4 else "ERROR"))
        send(store, receiver)
    later = (3, 4, 5, 6, 7)
    parts = [(4, 5, 6, 7)] if together else [(6, 7), (8,), (9,), later, later]
    for n, windows in enumerate(parts):
        caught = (
            truth(number, "OK") | {"data_version": f"fine:{n}", "excess": -1.0 - n}
            for number in windows
        )
        settle(store, SPECS, day(12 + n), *caught)
        send(store, receiver)

    kinds = [message["kind"] for message in messages(store)]
    assert (kinds[0], kinds[-1], kinds.count("resolved")) == ("opened", "resolved", 1)
    assert [e.state for e in list_alerts(store)] == ["RESOLVED"]


def test_ground_truth_that_is_late_by_the_clock_alone_is_told(store: Store) -> None:
    """The same labels were enough at the window's age then, and are not at its age now."""
    for number in range(1, 8):
        settle(store, SPECS, day(number + 4), truth(number, "OK"))
    assert settle(store, SPECS, day(13), truth(6, "ERROR"), truth(7, "ERROR")) == 1

    assert {muted for _, _, muted in events_of(store)} == {""}
    assert only_alert(store)["state"] == "FIRING"


def test_what_a_window_judged_early_shows_by_the_same_rows_when_it_is_due_is_told(
    store: Store,
) -> None:
    """Its limits are stricter until then."""

    def judged(status: str, maturity: str, again: str = "") -> dict[str, Any]:
        version = f"v1:{maturity}{again}"
        return {**area(12, status, maturity=maturity), "data_version": version}

    watched(store)
    settle(store, SPECS, day(13), judged("OK", "early"))
    assert settle(store, SPECS, day(14), judged("OK", "early", ":b2")) == 0
    assert settle(store, SPECS, day(20), judged("ERROR", "mature")) == 1

    assert only_alert(store)["state"] == "FIRING"
    assert {muted for _, _, muted in events_of(store)} == {""}


def test_an_alert_whose_end_is_learnt_late_recovered_in_the_window_that_ended_it(
    store: Store,
) -> None:
    waits = {"k": 2, "of_n": 3}
    first = (area(1, "ERROR", **waits), area(2, "ERROR", **waits))
    settle(store, SPECS, day(7), *first, area(4, **waits), area(5, "ERROR", **waits))
    settle(store, SPECS, day(8), area(3, **waits))  # with it two days passed before the fifth

    again, told = list_alerts(store)
    assert (again.state, told.state) == ("PENDING", "RESOLVED")
    assert told.failed_window == day(2)
    assert told.resolved_window == day(4)


def test_an_end_that_moves_is_listed_and_not_told(store: Store) -> None:
    settle(store, SPECS, day(3), area(1), area(2, "ERROR"))
    settle(store, SPECS, day(5), area(4))
    n_told = len(messages(store))
    settle(store, SPECS, day(6), area(3))  # it had passed a day before

    (ended,) = list_alerts(store)
    assert ended.resolved_window == day(3)
    assert len(messages(store)) == n_told
    assert count_untold(store, SPECS, day(20)) == 0
