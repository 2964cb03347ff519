"""The fold behind ``mlmon backtest``."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.backtest import backtest, opened_by_week

START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def verdicts(
    statuses: Sequence[str],
    values: Sequence[float] | None = None,
    threshold: str = "above 0.1",
    k: int = 1,
    n: int = 1,
    **fields: Any,
) -> list[dict[str, Any]]:
    return [
        {
            "monitor": "drift/psi/age",
            "family": "drift",
            "slice_key": "all",
            "slice_value": "all",
            "window_start": START + i * DAY,
            "status": status,
            "value": values[i] if values else None,
            "threshold": threshold,
            "excess": None,
            "excess_error": None,
            "details": "{}",
            "k": k,
            "of_n": n,
            **fields,
        }
        for i, status in enumerate(statuses)
    ]


def test_an_alert_opens_at_the_k_th_failure_and_is_counted_in_its_week() -> None:
    statuses = ["OK"] * 6 + ["WARN", "WARN", "OK", "OK", "OK"]
    [found] = backtest(verdicts(statuses, k=2, n=3))

    assert found.opened == (START + 7 * DAY,)
    assert (found.n_judged, found.n_failed, found.n_no_data) == (11, 2, 0)
    assert opened_by_week([found], START, START + 11 * DAY) == [0, 1]


def test_windows_without_a_verdict_neither_open_nor_close() -> None:
    [found] = backtest(verdicts(["WARN", "NO_DATA", "NO_DATA", "WARN"], k=2, n=2))

    assert found.opened == (START + 3 * DAY,)
    assert found.n_no_data == 2


def test_the_suggested_threshold_silences_all_but_one_alert_in_four_weeks() -> None:
    values = [0.05] * 28
    for day, value in ((2, 0.12), (9, 0.31), (16, 0.13), (23, 0.11)):
        values[day] = value
    rows = verdicts(["WARN" if v > 0.1 else "OK" for v in values], values)
    [found] = backtest(rows)
    assert found.suggested == 0.13

    tried = [r | {"status": "WARN" if r["value"] > found.suggested else "OK"} for r in rows]
    [again] = backtest(tried)
    assert (len(found.opened), len(again.opened), again.suggested) == (4, 1, None)


def test_a_distance_is_judged_by_what_it_is_beyond_chance() -> None:
    beside = {"baseline_value": 0.04, "lower": None, "upper": None}
    rows = verdicts(["WARN", "OK"], [0.24, 0.12], "above 0.10 beyond chance", **beside)
    [found] = backtest(rows)

    assert found.worst == pytest.approx(0.2)
    assert found.threshold == "above 0.10 beyond chance"


@pytest.mark.parametrize(
    ("threshold", "letters", "values", "worst", "suggested"),
    [
        ("below 50.00", "PEPEP", [100.0, 40.0, 100.0, 45.0, 100.0], 40, 45),
        ("beyond 0.10", "EPEPE", [-0.3, 0.01, -0.2, 0.02, -0.25], 0.3, 0.25),
        ("drop 0.05", "EPEPE", [0.06, 0.01, 0.08, 0.02, 0.3], 0.3, 0.08),
        ("26 hours", "EPE", [0.7] * 3, None, None),  # no number
    ],
)
def test_a_limit_is_moved_to_its_own_side(
    threshold: str, letters: str, values: list[float], worst: float, suggested: float
) -> None:
    """A shift down is as bad as one up, and a drop is judged by how much worse it was."""
    rows = verdicts(["ERROR" if x == "E" else "OK" for x in letters], values, threshold)
    for row, worse in zip(rows, values, strict=True):
        row["details"] = json.dumps({"worse_by": worse})
    [found] = backtest(rows)

    assert (found.worst, found.suggested) == (worst, suggested)


@given(
    st.lists(st.sampled_from(["OK", "WARN", "ERROR", "NO_DATA"]), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_rows_does_not_matter(statuses: list[str], random: Any) -> None:
    rows = verdicts(statuses, [float(i % 7) for i in range(len(statuses))], k=2, n=3)
    shuffled = random.sample(rows, len(rows))

    assert backtest(shuffled) == backtest(rows)
