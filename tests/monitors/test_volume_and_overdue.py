"""Monitors that compare a window with its own past: volume, overdue and repeated rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.monitors.cases import DAY, only, spec, verdicts, window

STEADY = {"place": 0, "earlier_places": np.tile(np.arange(7), 4), "earlier_sizes": np.full(28, 900)}


def volume(**fields: Any) -> list[dict[str, Any]]:
    rows = verdicts("service", [], [window(**(STEADY | fields))])
    return [row for row in rows if row["metric"] == "volume_drop"]


def test_a_window_with_a_third_of_the_usual_rows_fails() -> None:
    (row,) = volume(n=300)

    assert (row["status"], row["baseline_value"]) == ("ERROR", pytest.approx(900))
    assert row["message"] == "300 predictions, 67 % less than the usual 900 of such a window."


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0},
        {"n": 300, "n_quarantined": 1},
        {"n": 300, "schema_broken": True},
        {"n": 300, "earlier_sizes": np.full(13, 900), "earlier_places": np.zeros(13, dtype=int)},
    ],
)
def test_empty_refused_and_early_windows_have_no_volume_to_judge(fields: dict[str, Any]) -> None:
    assert volume(**fields) == []


def test_a_drop_within_the_usual_scatter_passes_and_says_so() -> None:
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.uniform(3, 7.6, 28)).astype(int)
    (row,) = volume(n=30, earlier_sizes=sizes)

    assert row["status"] == "OK"
    assert row["message"].endswith("the volume varies as much anyway.")


def overdue(coverages: list[float], n: int = 100) -> list[dict[str, Any]]:
    windows = [
        window(
            DAY + pd.Timedelta(days=i),
            n=n,
            n_expected=n,
            n_actual=round(n * c),
            data_version=f"{i}",
        )
        for i, c in enumerate(coverages)
    ]
    rows = verdicts("freshness", [], windows)
    return [row for row in rows if row["metric"] == "actuals_missing"]


def test_ground_truth_far_below_its_usual_coverage_is_overdue() -> None:
    rows = overdue([0.95] * 8 + [0.2, 0.9])

    assert [row["status"] for row in rows] == ["OK"] * 8 + ["ERROR", "OK"]
    assert rows[8]["message"] == (
        "Ground truth is due, and 20 of 100 predictions have it (usually 95 %)."
    )


def test_ground_truth_that_never_came_is_overdue_and_sparse_one_is_not() -> None:
    assert [row["status"] for row in overdue([0.0, 0.0])] == ["ERROR", "ERROR"]
    assert {row["status"] for row in overdue([0.3, 0.2, 0.35] * 4)} == {"OK"}
    assert {row["status"] for row in overdue([0.0] * 3, n=20)} == {"OK"}


def test_ground_truth_stays_overdue_however_long_none_comes_and_while_no_predictions_come() -> None:
    rows = overdue([1.0] * 8 + [0.0] * 20, n=20)
    assert {row["status"] for row in rows[8:]} == {"ERROR"}
    assert rows[-1]["message"].endswith("(usually 100 %).")
    # A row, or the alert would end as that of a monitor that is gone.
    (empty,) = overdue([0.0], n=0)
    assert (empty["status"], empty["reason"]) == ("NO_DATA", "no_rows")


def test_windows_that_are_not_due_have_no_verdict() -> None:
    now = (DAY + pd.Timedelta(days=2)).to_pydatetime()
    rows = verdicts("freshness", [], [window(n_expected=100, n_actual=0)], now=now)

    assert [row["status"] for row in rows] == ["OK", "NO_DATA"]


def test_rows_sent_again_are_a_warning_and_two_rows_are_none() -> None:
    again = {"n_sent": 1000, "n_duplicate": 600, "n_conflict": 100}
    rows = verdicts("schema", [], [window(**again)])

    assert only(rows, "schema/duplicate_rate")["status"] == "WARN"
    assert only(rows, "schema/conflict_rate")["status"] == "WARN"
    few = verdicts("schema", [], [window(n_sent=5, n_duplicate=2, n_conflict=2)])
    assert {row["status"] for row in few} == {"OK"}


def test_each_of_them_can_be_turned_off() -> None:
    off = spec(
        schema={"duplicate_rate": None, "conflict_rate": None},
        freshness={"actuals_missing": None},
        service={"volume_drop": None},
    )
    one = window(n=5, n_expected=5, n_actual=0, n_sent=9, n_duplicate=9, **(STEADY | {}))
    found = {
        row["metric"]
        for family in ("schema", "freshness", "service")
        for row in verdicts(family, [], [one], model=off)
    }

    assert found <= {"bad_rate", "no_data_for", "error_rate"}
