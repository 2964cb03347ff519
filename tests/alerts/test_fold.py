"""Monitor results become alerts and history, once each."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results, retire_undeclared
from mlmon_dagster.alerts.lifecycle.transitions import fingerprint
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert, alert_event, mlmon_alert, monitor_result, outbox
from mlmon_dagster.store.state.sql import fetch
from mlmon_dagster.tables.alerts import ask_alert, list_alerts
from mlmon_dagster.tables.rendering import render_text
from tests.alerts.worlds import (
    alerts_of,
    day,
    observe,
    only_alert,
    result,
    rows_of,
    settle,
    spec_of,
)

SPECS = [spec_of()]
NOW = day(20)


def fold(store: Store, *rows: dict[str, Any], now: dt.datetime = NOW) -> int:
    observe(store, *rows)
    return fold_results(store, SPECS, now)


def history(store: Store) -> list[tuple[str, dt.datetime]]:
    return [(row["kind"], row["window_start"]) for row in rows_of(store, alert_event)]


def alerts_by_metric(store: Store) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in rows_of(store, alert)}


def test_results_are_taken_in_once_and_in_order_of_windows(any_store: Store) -> None:
    rows = [result(3, "OK"), result(1), result(2)]

    assert fold(any_store, *rows) == 3
    assert fold(any_store, *rows) == 0
    assert history(any_store) == [("opened", day(1)), ("resolved", day(3))]
    assert only_alert(any_store)["resolved_reason"] == "recovered"
    assert all(row["folded_at"] == NOW for row in rows_of(any_store, monitor_result))


def test_since_is_the_first_bad_day_in_the_list_the_view_the_message_and_its_commands(
    store: Store,
) -> None:
    """Of 2 of 3 windows the second opened the alert; every surface says the first."""
    rows = [result(n, status, k=2, of_n=3) for n, status in enumerate(("OK", "ERROR", "ERROR"), 1)]
    settle(store, SPECS, day(4), *rows)
    (listed,) = list_alerts(store)
    with store.state.connect() as conn:
        (shown,) = fetch(conn, sa.select(mlmon_alert).where(mlmon_alert.c.episode > 0))
    said = json.loads(rows_of(store, outbox)[0]["payload"])

    assert (listed.opened_window, shown["opened_window"]) == (day(2), day(2))
    assert "Since:         2024-01-02" in said["plain"]
    assert "--from 2024-01-02 --to 2024-01-03" in said["plain"]
    assert said["event"]["notes"]["Since"] == "2024-01-02"
    assert "Since:           2024-01-02" in render_text(
        ask_alert(store, listed.fingerprint[:8], ())
    )
    assert rows_of(store, alert_event)[0]["window_start"] == day(3)  # when it happened


def test_a_verdict_on_the_same_rows_that_is_another_is_no_late_data(store: Store) -> None:
    """An alert that ended because the spec got another baseline was told to end after late data."""
    fold(store, result(1, data_version="rows:b1"), result(2, data_version="rows2:b1"))
    fold(store, result(2, "OK", data_version="rows2:b2"))
    fold(store, result(1, "OK", data_version="rows:b2"))

    row = only_alert(store)
    assert (row["state"], row["resolved_reason"]) == ("OK", "recomputed")


def test_identity_is_what_it_is_about_and_not_how_bad_or_whose() -> None:
    base = result(1)
    same = result(2, "WARN", value=9.0, owner="else", data_version="v2", message="x", n=1)
    changes = [
        {"model": "b"},
        {"monitor": "drift/other"},
        {"metric": "ks"},
        {"column_name": "b"},
        {"dataset": "shadow"},
        {"slice_key": "region"},
        {"slice_value": "north"},
    ]
    prints = {fingerprint({**base, **change}, "production") for change in changes}

    assert fingerprint(same, "production") == fingerprint(base, "production")
    assert len({*prints, fingerprint(base, "production"), fingerprint(base, "staging")}) == 9


# Suppression


@pytest.mark.parametrize("family", ["schema", "freshness"])
@pytest.mark.parametrize("cause_first", [True, False])
def test_a_broken_window_mutes_its_drift_whatever_comes_first(
    store: Store, family: str, cause_first: bool
) -> None:
    cause = result(1, family=family, metric="m", column_name=":table")
    rows = [cause, result(1)] if cause_first else [result(1), cause]
    for row in rows:
        fold(store, row)

    found = alerts_by_metric(store)
    assert found["psi"]["muted_reason"] == f"suppressed:{family}/m/:table"
    assert found["m"]["muted_reason"] == ""


def test_an_alert_that_was_told_and_recovers_is_not_muted_by_a_broken_window(store: Store) -> None:
    patient, broken = {"k": 2, "of_n": 6}, {"family": "schema", "metric": "m"}
    for n in (1, 2):
        fold(store, result(n, **patient))
    fold(store, result(3, "OK", **patient))
    fold(store, result(4, **broken), result(4, "OK", **patient))
    fold(store, result(5, "OK", **broken), result(5, "OK", **patient))
    drift = alerts_by_metric(store)["psi"]

    assert (drift["state"], drift["muted_reason"]) == ("RECOVERING", "")


def test_a_cause_that_late_data_mends_lets_the_alert_out(store: Store) -> None:
    cause = {"family": "schema", "metric": "m"}
    fold(store, result(1, **cause), result(1))
    fold(store, result(1, "OK", data_version="v2", **cause))

    assert alerts_by_metric(store)["psi"]["muted_reason"] == ""


def test_a_broken_column_mutes_its_own_drift_until_that_has_recovered(store: Store) -> None:
    broken = {"family": "quality", "metric": "null_rate", "column_name": "a"}
    twice = {"k": 2, "of_n": 3}
    fold(store, result(1, **broken), *(result(1, column_name=c, **twice) for c in "ab"))
    fold(store, result(2, **broken), *(result(2, column_name=c, **twice) for c in "ab"))
    muted = {row["column_name"]: row["muted_reason"] for row in drift_alerts(store)}

    assert muted == {"a": "suppressed:quality/null_rate/a", "b": ""}

    fold(store, result(3, "OK", **broken), result(3, "OK", column_name="a", **twice))
    (recovering,) = (row for row in drift_alerts(store) if row["column_name"] == "a")
    assert (recovering["state"], recovering["muted_reason"]) == ("RECOVERING", muted["a"])

    fold(store, result(4, "OK", **broken), result(4, column_name="a", **twice))
    (firing,) = (row for row in drift_alerts(store) if row["column_name"] == "a")
    assert (firing["state"], firing["muted_reason"]) == ("FIRING", "")


def test_a_sustained_shift_is_no_news_beside_drift_of_the_same_column(store: Store) -> None:
    lasting = {"metric": "sustained_shift"}
    fold(store, result(1, column_name="a"), *(result(1, column_name=c, **lasting) for c in "ab"))
    found = [row for row in rows_of(store, alert) if row["metric"] == "sustained_shift"]

    assert [(row["column_name"], row["muted_reason"]) for row in found] == [("b", "")]

    of_seven = {**lasting, "details": json.dumps({"n_windows": 7})}
    for number in range(2, 9):  # drift was told of the first day, which is one of the seven
        fold(
            store,
            result(number, "OK", column_name="a"),
            result(number, column_name="a", **(of_seven if number < 8 else lasting)),
        )
        found = [row for row in rows_of(store, alert) if row["metric"] == "sustained_shift"]
        names = {row["column_name"] for row in found}
        assert names == ({"b"} if number < 8 else {"a", "b"})
    told = next(
        row
        for row in rows_of(store, alert)
        if (row["metric"], row["column_name"]) == ("sustained_shift", "a")
    )
    assert (told["state"], told["muted_reason"]) == ("FIRING", "")


def drift_alerts(store: Store) -> list[dict[str, Any]]:
    return [row for row in rows_of(store, alert) if row["metric"] == "psi"]


def test_quality_and_other_datasets_are_not_muted(store: Store) -> None:
    cause = {"family": "schema", "metric": "m"}
    fold(
        store,
        result(1, **cause),
        result(1, family="quality", metric="null_rate"),
        result(1, dataset="shadow", metric="ks"),
    )

    found = alerts_by_metric(store)
    assert found["null_rate"]["muted_reason"] == found["ks"]["muted_reason"] == ""


# What is gone


def test_a_slice_without_results_for_two_judged_windows_is_resolved(store: Store) -> None:
    north = {"slice_key": "region", "slice_value": "north"}
    fold(store, result(1, "OK"), result(1, **north))
    fold(store, result(2, "OK"))
    still_there = [row["state"] for row in rows_of(store, alert)]
    fold(store, result(3, "OK"))

    assert "FIRING" in still_there
    (row,) = [row for row in rows_of(store, alert) if row["slice_key"] == "region"]
    assert (row["state"], row["resolved_reason"]) == ("OK", "slice_missing")


def test_a_slice_with_too_few_rows_stays_firing(store: Store) -> None:
    north = {"slice_key": "region", "slice_value": "north"}
    fold(store, result(1, "OK"), result(1, **north))
    for number in (2, 3, 4):
        fold(store, result(number, "OK"), result(number, "NO_DATA", reason="few_rows", **north))

    assert "FIRING" in [row["state"] for row in rows_of(store, alert)]


def test_a_monitor_taken_out_of_the_spec_is_resolved(store: Store) -> None:
    fold(store, result(1, metric="ks"), result(1, "OK"))
    fold(store, result(2, "OK"), result(3, "OK"))

    assert alerts_by_metric(store)["ks"]["resolved_reason"] == "monitor_removed"


def test_the_alerts_of_a_model_taken_away_are_ended_on_request(store: Store) -> None:
    fold(store, result(1))

    assert retire_undeclared(store, SPECS, NOW) == []
    assert retire_undeclared(store, [spec_of("another")], day(2)) == []
    assert retire_undeclared(store, [spec_of("another")], NOW) == ["credit"]
    assert only_alert(store)["resolved_reason"] == "model_removed"


# No verdict


def no_data(number: int, reason: str, **changes: Any) -> dict[str, Any]:
    return result(number, "NO_DATA", reason=reason, message="No verdict on PSI.", **changes)


@pytest.mark.parametrize(
    ("reason", "maturity", "raised"),
    [
        ("few_rows", "", False),
        ("labels_still_coming", "provisional", False),
        ("schema", "", False),
        ("no_actuals", "provisional", False),
        ("no_actuals", "mature", True),
        ("no_baseline", "", True),
    ],
)
def test_no_data_is_an_alert_only_if_somebody_must_act(
    store: Store, reason: str, maturity: str, raised: bool
) -> None:
    fold(store, no_data(1, reason, maturity=maturity))

    assert [row["metric"] for row in alerts_of(store)] == (["no_verdict"] if raised else [])


@pytest.mark.parametrize(
    "reason", ["learning", "not_in_baseline", "few_rows", "few_of_rarer_class"]
)
def test_a_family_that_judges_nothing_for_a_week_is_one_alert_until_it_judges(
    store: Store, reason: str
) -> None:
    for number in range(1, 7):
        fold(store, no_data(number, reason))
    assert [kind for kind, _ in history(store)] == []
    for number in range(7, 20):
        fold(store, no_data(number, reason))
    assert [kind for kind, _ in history(store)] == ["opened"]
    fold(store, result(20, "OK"))
    assert [kind for kind, _ in history(store)] == ["opened", "resolved"]


def test_empty_windows_do_not_count_as_windows_that_could_not_be_judged(store: Store) -> None:
    for number in range(1, 20):
        fold(store, no_data(number, "few_rows", n=0))
    assert [kind for kind, _ in history(store)] == []


def test_the_alert_of_a_family_without_verdict_is_one_and_ends_with_a_verdict(store: Store) -> None:
    fold(store, no_data(1, "no_baseline"), no_data(1, "no_baseline", column_name="b"))
    opened = only_alert(store)
    fold(store, result(2, "OK"))

    assert opened["message"] == "No verdict on PSI. The same holds for 1 more."
    assert alerts_by_metric(store)["no_verdict"]["state"] == "OK"


def judged(number: int, family: str = "drift") -> dict[str, Any]:
    return result(number, "OK", reason="", family=family)


def test_families_that_cannot_judge_for_one_reason_are_one_alert_until_all_of_them_can(
    store: Store,
) -> None:
    for number in range(1, 9):  # the steps of a window come one after the other
        fold(store, no_data(number, "few_rows", family="quality"))
        fold(store, no_data(number, "few_of_rarer_class", family="performance"))
    opened = only_alert(store)
    fold(store, judged(9, "quality"))
    fold(store, no_data(9, "few_rows", family="performance"))
    fold(store, judged(10, "quality"))
    assert [kind for kind, _ in history(store)] == ["opened"]
    fold(store, judged(10, "performance"))

    assert opened["monitor"] == "no_verdict/few_rows"
    assert "The same holds for 1 more (quality, performance)" in opened["message"]
    assert [kind for kind, _ in history(store)] == ["opened", "resolved"]


def test_late_labels_of_older_windows_are_no_news_of_what_cannot_be_judged(store: Store) -> None:
    """Nineteen windows of too few rows, of which each is judged again as its labels come."""
    for number in range(1, 20):
        older = [no_data(late, "few_rows") for late in range(max(1, number - 12), number)]
        fold(store, *older, no_data(number, "few_rows"))
    assert [kind for kind, _ in history(store)] == ["opened"]
    fold(store, judged(4), judged(5), no_data(20, "few_rows"))
    assert [kind for kind, _ in history(store)] == ["opened"]
    fold(store, judged(21))
    assert [kind for kind, _ in history(store)] == ["opened", "resolved"]


def test_another_reason_is_another_alert(store: Store) -> None:
    for number in range(1, 8):
        fold(store, no_data(number, "few_rows"), no_data(number, "no_latency", family="service"))
    fold(store, no_data(8, "few_rows"), judged(8, "service"))

    found = [row for row in alerts_of(store) if row["metric"] == "no_verdict"]
    states = {row["monitor"]: row["state"] for row in found}
    assert states == {"no_verdict/few_rows": "FIRING", "no_verdict/no_latency": "OK"}


def test_what_keeps_most_of_a_family_from_a_verdict_is_its_condition(store: Store) -> None:
    for number in range(1, 8):
        few = [no_data(number, "few_rows", column_name=name) for name in "ab"]
        fold(store, *few, no_data(number, "not_ordered", column_name="c"))

    assert only_alert(store)["monitor"] == "no_verdict/few_rows"


def test_a_batch_does_not_cut_a_window(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlmon_dagster.alerts.lifecycle.apply_results._BATCH", 3)
    columns = ["a", "b"]
    observe(store, *(result(i, column_name=c) for i in range(1, 6) for c in columns))

    assert fold_results(store, SPECS, NOW) == 10
    assert len(history(store)) == 2
