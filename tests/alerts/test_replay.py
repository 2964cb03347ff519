"""Observations may arrive in any order and more than once: the episodes are the same."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state.schema import alert_event, outbox
from tests.alerts.worlds import alerts_of, day, observe, result, rows_of, settle, spec_of

LETTERS = ["OK", "WARN", "ERROR", "NO_DATA"]
KN = [(1, 1), (1, 3), (2, 3), (3, 3), (3, 5)]
Episode = tuple[str, int, str, Any]


def episodes(store: Store) -> list[Episode]:
    return [
        (row["kind"], row["episode"], row["severity"], row["window_start"])
        for row in rows_of(store, alert_event)
    ]


def replayed(rows: list[dict[str, Any]], batches: list[list[int]]) -> list[Episode]:
    """Fold after each batch of arrivals; windows of a later batch are not older."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        for batch in batches:
            for index in batch:
                observe(store, rows[index])
            fold_results(store, [spec_of()], day(60))
        found = episodes(store)
        store.close()
    return found


@settings(max_examples=12)
@given(
    letters=st.lists(st.sampled_from(LETTERS), min_size=1, max_size=14),
    kn=st.sampled_from(KN),
    seed=st.integers(0, 2**16),
)
def test_any_order_of_arrival_with_repeats_gives_the_same_episodes(
    letters: list[str], kn: tuple[int, int], seed: int
) -> None:
    rng = random.Random(seed)
    k, n = kn
    rows = [result(i, status, k=k, of_n=n) for i, status in enumerate(letters, start=1)]
    in_order = list(range(len(rows)))
    shuffled = rng.sample(in_order, len(rows)) + rng.choices(in_order, k=len(rows))
    cut = rng.randrange(len(rows) + 1)
    first = in_order[:cut] + rng.choices(in_order[:cut] or [0], k=3) if cut else []
    rest = rng.sample(in_order, len(rows))  # those known already arrive again

    expected = replayed(rows, [in_order])
    assert replayed(rows, [shuffled, shuffled]) == expected
    assert replayed(rows, [rng.sample(first, len(first)), rest]) == expected


@pytest.mark.parametrize(
    ("changes", "muted"),
    [
        ({"value": 0.0001}, False),
        ({"value": 0.4, "status": "WARN"}, False),
        ({"value": 0.4}, True),
        ({"value": 0.0, "details": {"n_quarantined": 1}}, True),
        ({"metric": "column_missing", "value": None}, True),
        ({"metric": "column_missing", "value": None, "status": "WARN"}, False),
        ({"family": "freshness", "metric": "no_data_for", "value": 30.0}, True),
    ],
    ids=["one bad row", "a warning", "many bad rows", "a file", "schema", "hint", "no data"],
)
def test_only_a_broken_window_mutes_its_drift(
    store: Store, changes: dict[str, Any], muted: bool
) -> None:
    cause = {"family": "schema", "metric": "bad_rate", "column_name": ":table", **changes}
    status = cause.pop("status", "ERROR")
    settle(store, [spec_of()], day(2), result(1, status, **cause), result(1))

    by_family = {row["family"]: row for row in alerts_of(store)}
    assert bool(by_family["drift"]["muted_reason"]) == muted
    assert by_family[cause["family"]]["muted_reason"] == ""


def test_the_cause_says_what_it_keeps_silent(store: Store) -> None:
    cause = result(1, family="schema", metric="bad_rate", column_name=":table", value=0.5)
    settle(store, [spec_of()], day(2), cause, result(1))

    (message,) = rows_of(store, outbox)
    said = json.loads(message["payload"])["plain"]
    assert "Not sent:      drift and performance alerts of this window" in said
    assert "(1 so far)" in said
    assert only_alert_of(store, "drift")["muted_reason"].startswith("suppressed:schema/bad_rate")


def test_what_has_been_told_is_not_among_what_a_broken_window_keeps_silent(store: Store) -> None:
    settle(store, [spec_of()], day(2), result(1))
    cause = result(2, family="schema", metric="bad_rate", column_name=":table", value=0.5)
    settle(store, [spec_of()], day(3), cause, result(2), result(2, column_name="income"))

    *_, head = [row for row in rows_of(store, outbox) if row["kind"] == "head"]
    said = json.loads(head["payload"])["plain"]
    assert "PSI of age" in said
    assert "Not sent:      other drift and performance alerts of this window" in said
    assert "(1 so far)" in said


def only_alert_of(store: Store, family: str) -> dict[str, Any]:
    (row,) = [row for row in alerts_of(store) if row["family"] == family]
    return row
