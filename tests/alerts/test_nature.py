"""An alert that changes its nature is news: once, and whatever the order in which windows come."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.lifecycle.transitions import (
    AlertState,
    Nature,
    Verdict,
    keep_state,
    state_of,
    step,
)
from mlmon_dagster.alerts.messages.incidents import count_untold
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import alert_event, outbox
from mlmon_dagster.tables.alerts import ask_alert
from tests.alerts.test_replay import replayed
from tests.alerts.worlds import day, only_alert, result, rows_of, settle, spec_of

LEVEL = [0.4, 0.5, 0.45, 0.6, 0.38, 0.5, 0.55, 0.42, 0.47, 0.6, 0.5, 0.44]


def find_changes(
    natures: Sequence[Nature], length: dt.timedelta = dt.timedelta(days=1)
) -> list[int]:
    """Return in which windows of an episode that fails throughout a change is noticed."""
    alert, found = AlertState(), []
    for number, nature in enumerate(natures):
        start = day(1) + number * length
        alert, events = step(alert, Verdict(start, "WARN", number + 1, nature=nature))
        found += [number] * ("changed" in events)
    return found


def of_values(*values: float, rows: int = 0) -> list[Nature]:
    return [Nature(value, rows) for value in values]


def of_terms(terms: str) -> list[Nature]:
    return [Nature(0.4, term=term.strip(".")) for term in terms]


@pytest.mark.parametrize(
    ("natures", "changes"),
    [
        (of_values(*LEVEL, *LEVEL), []),
        (of_values(*LEVEL, 4.0), [12]),
        (of_values(*LEVEL, 4.0, 5.0, 4.5, 3.8), [12]),
        (of_values(*LEVEL, 4.0, 0.5, 4.0, 0.5, 4.0), [12]),
        (of_values(*LEVEL, 4.0, 5.0, 40.0), [12, 14]),
        (of_values(*LEVEL, 0.02, rows=1000), [12]),
        (of_values(0.4, 0.9, 1.0), []),
        (of_values(0.4, 1.3, 0.4), [1]),
        (of_values(0.4, 0.5, 0.6, rows=1000), []),
        (of_values(0.4, 0.7, rows=1000), [1]),
        (of_terms("aaaabb"), [5]),
        (of_terms("aaaabbbb"), [5]),
        (of_terms("aaaabababab"), []),
        (of_terms("aaaabbaabbaabb"), [5]),
        (of_terms("aaaabbbbcc"), [5, 9]),
        (of_terms("aaaab.bb"), []),
        (of_terms("aaaabc"), [5]),
        (of_terms("abbbb"), []),
        ([Nature(0.4, place=0.1 * (i % 5)) for i in range(12)] + [Nature(0.4, place=-1.2)], [12]),
        ([Nature(7.1, width=0.4 + 0.05 * (i % 3)) for i in range(12)] + [Nature(7.1, width=0.0)],
         [12]),
        ([Nature(None, term="a")] * 5, []),
    ],
    ids=[
        "wanders", "jumps", "and stays", "and flaps", "and jumps again", "falls", "not thrice",
        "three times", "odds", "three times the odds", "another term", "and stays",
        "one window each", "flaps", "and a third", "seen before", "two others",
        "too young", "turned", "stuck", "nothing",
    ],
)  # fmt: skip
def test_a_change_of_nature_is_noticed_once(natures: list[Nature], changes: list[int]) -> None:
    assert find_changes(natures) == changes


def test_nights_and_days_of_hours_are_one_nature() -> None:
    natures = of_values(*([0.2] * 12 + [0.9] * 12) * 5)

    assert find_changes(natures, dt.timedelta(hours=1)) == [12]


def wander(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw a number that wanders between windows and has a week."""
    shared, found = rng.normal(), []
    for place in range(n):
        shared = 0.6 * shared + 0.8 * rng.normal()
        found.append(shared + 0.7 * np.sin(2 * np.pi * place / 7))
    return np.array(found)


@pytest.mark.slow
def test_what_wanders_is_seldom_news() -> None:
    """Values between a third and three times the usual: less than one change in 60 windows."""
    counts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = 0.5 * np.exp(rng.uniform(0.2, 0.5) * wander(rng, 60))
        counts.append(len(find_changes(of_values(*values))))

    assert np.mean(counts) <= 1.0


def test_an_alert_does_not_end_for_a_fault_of_its_column() -> None:
    def verdict(number: int, status: str, *beside: str) -> Verdict:
        nature = Nature(0.1 if status == "WARN" else 0.0, 100, beside=beside)
        return Verdict(day(number), status, number, None, None, nature)  # type: ignore[arg-type]

    alert = step(AlertState(), verdict(1, "WARN", "null_rate")).after
    held = step(alert, verdict(2, "OK", "null_rate", "constant"))
    assert (held.after, held.events) == (alert, ())
    assert step(held.after, verdict(3, "OK", "null_rate")).events == ("resolved",)


def test_what_is_remembered_of_windows_is_kept_in_the_row() -> None:
    verdict = Verdict(day(1), "WARN", 1, 0.5, 0.1, Nature(0.1, 100, "a", -0.5, 1.2, ("b",)), True)
    alert = AlertState(recent=(verdict, Verdict(day(2), "OK", 2)), n_episodes=0)
    row: Any = {"opened_window": None, "failed_window": None}
    keep_state(row, alert)

    assert state_of(row) == alert
    assert len(json.loads(row["recent"])[1]) == 5


@settings(max_examples=10, deadline=None)
@given(
    letters=st.lists(st.sampled_from("POWTUB"), min_size=4, max_size=16),
    seed=st.integers(0, 2**16),
)
def test_any_order_of_arrival_gives_the_same_changes(letters: list[str], seed: int) -> None:
    rng = random.Random(seed)
    made: dict[str, dict[str, Any]] = {
        "P": {"status": "OK"}, "O": {"status": "OK"}, "W": {"status": "WARN", "value": 0.4},
        "B": {"status": "WARN", "value": 4.0}, "T": {"status": "WARN", "details": {"term": "a"}},
        "U": {"status": "WARN", "details": {"term": "b"}},
    }  # fmt: skip
    rows = [result(i, **made[letter]) for i, letter in enumerate(letters, start=1)]
    in_order = list(range(len(rows)))

    expected = replayed(rows, [in_order])
    assert replayed(rows, [rng.sample(in_order, len(rows))]) == expected
    assert replayed(rows, [[place] for place in in_order]) == expected


SAID = {"W": "age is 3 years higher.\nPSI of age is 0.40", "B": "age is 30 in every row."}


def fault(number: int, **changes: Any) -> dict[str, Any]:
    return result(number, **{"status": "WARN", "value": 4.0, "message": SAID["B"], **changes})


def open_thread(store: Store, specs: Sequence[ModelSpec]) -> None:
    for number in range(1, 4):
        settle(store, specs, day(number + 1), result(number, "WARN", message=SAID["W"]))


def test_a_change_is_an_answer_without_a_mention_and_told_once(store: Store) -> None:
    specs = [spec_of()]
    open_thread(store, specs)
    settle(store, specs, day(5), fault(4))
    settle(store, specs, day(6), fault(5))

    opened, changed = [
        row for row in rows_of(store, outbox) if row["kind"] in ("opened", "updated")
    ]
    said = json.loads(changed["payload"])["plain"]
    assert changed["head_key"] == opened["idempotency_key"]
    assert "1 changed: age is 30 in every row" in said
    assert "since 2024-01-04, before: age is 3 years higher" in said
    assert "@here" in opened["payload"]
    assert "@here" not in changed["payload"]
    assert [row["kind"] for row in rows_of(store, alert_event)] == ["opened", "changed"]
    assert [row for row in rows_of(store, alert_event) if not row["message_key"]] == []


def test_a_change_that_is_worse_calls_people(store: Store) -> None:
    specs = [spec_of()]
    open_thread(store, specs)
    settle(store, specs, day(5), fault(4, status="ERROR"))

    (changed,) = [row for row in rows_of(store, outbox) if row["kind"] == "updated"]
    said = json.loads(changed["payload"])["plain"]
    assert "1 worse: age is 30 in every row" in said
    assert "@here" in changed["payload"]


def test_the_story_of_an_alert_has_its_changes(store: Store) -> None:
    specs = [spec_of()]
    open_thread(store, specs)
    settle(store, specs, day(5), fault(4))

    text = ask_alert(store, only_alert(store)["fingerprint"][:8], ()).text or ""
    assert "Changed:         since 2024-01-04, before: age is 3 years higher" in text
    assert (
        "2024-01-04  changed  2024-01-05 00:00  age is 30 in every row. Since 2024-01-04, before:"
        in text
    )


def test_of_other_families_a_change_is_no_news(store: Store) -> None:
    specs, of = [spec_of()], {"family": "performance", "metric": "roc_auc", "column_name": ":table"}
    for number in range(1, 4):
        settle(store, specs, day(number + 1), result(number, "WARN", **of))
    fold_results(store, specs, day(6))
    settle(store, specs, day(6), result(5, "WARN", value=40.0, **of))

    assert [row["kind"] for row in rows_of(store, alert_event)] == ["opened"]


@pytest.mark.parametrize("seed", range(8))
def test_whoever_looks_whenever_every_change_is_told_and_none_twice(
    store: Store, seed: int
) -> None:
    rng, specs, waiting = random.Random(seed), [spec_of()], list[dict[str, Any]]()
    natures: list[dict[str, Any]] = [
        {"value": 0.4}, {"value": 0.5}, {"value": 4.0}, {"value": 40.0},
        {"details": {"term": "a"}}, {"details": {"term": "b"}},
    ]  # fmt: skip
    nature = natures[0]
    for number in range(1, 60):
        nature = rng.choice(natures) if rng.random() < 0.2 else nature
        status = rng.choices(["WARN", "ERROR", "OK"], [9, 1, 0.3])[0] if number < 50 else "OK"
        made = nature if status != "OK" else {}
        waiting.append(result(number, status, **made))
        if number > 3 and rng.random() < 0.1:
            late = number - rng.randint(1, 3)
            waiting.append(result(late, "WARN", **rng.choice(natures), data_version=f"v{number}"))
        if rng.random() < 0.4 or number == 59:
            settle(store, specs, day(number + 1), *waiting)
            with store.state.begin() as conn:
                conn.execute(outbox.update().values(status="sent"))
            waiting = []
    settle(store, specs, day(62))

    events = [row for row in rows_of(store, alert_event) if row["kind"] == "changed"]
    sent = {row["idempotency_key"]: row for row in rows_of(store, outbox)}
    assert count_untold(store, specs, day(80)) == 0
    assert all(event["message_key"] in sent for event in events)
    telling = {
        key for key, row in sent.items() if "1 changed" in json.loads(row["payload"])["plain"]
    }
    assert telling <= {event["message_key"] for event in events}
    assert telling
