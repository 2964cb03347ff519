"""Monitors that compare a window with its own past: volume and repeated rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.monitors.cases import only, spec, verdicts, window

STEADY = {"place": 0, "earlier_places": np.tile(np.arange(7), 4), "earlier_sizes": np.full(28, 900)}


def volume(**fields: Any) -> list[dict[str, Any]]:
    rows = verdicts("service", [], [window(**(STEADY | fields))])
    return [row for row in rows if row["metric"] == "volume_drop"]


def test_a_window_with_a_third_of_the_usual_rows_fails() -> None:
    (row,) = volume(n=300)

    assert (row["status"], row["baseline_value"]) == ("ERROR", pytest.approx(900))
    assert row["message"] == "300 predictions, 67 % fewer than the usual 900 of such a day."


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 0},
        {"n": 300, "refused_because": "a.csv: cut off"},
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
        service={"volume_drop": None, "volume_rise": None},
    )
    one = window(n=5, n_expected=5, n_actual=0, n_sent=9, n_duplicate=9, **(STEADY | {}))
    found = {
        row["metric"]
        for family in ("schema", "freshness", "service")
        for row in verdicts(family, [], [one], model=off)
    }

    assert found <= {"bad_rate", "no_data_for", "error_rate"}
