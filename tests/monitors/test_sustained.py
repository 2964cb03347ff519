"""Verdicts on shifts that stay: real, large and not over; outputs apart from features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mlmon_dagster.metrics.drift.column_change import ColumnChange
from mlmon_dagster.metrics.drift.sustained import SustainedShift
from mlmon_dagster.metrics.windows.law import level_of_newest
from tests.monitors.cases import only, spec, verdicts, window

LEVEL = level_of_newest(365.25)
SHIFT = SustainedShift(LEVEL / 5, 14, "place", 0, 0.3, 0.28, 0.25, 14_000, 60_000)
NONE = SustainedShift(1.0)


class Known:
    """Shifts that were found."""

    def __init__(self, **shifts: SustainedShift) -> None:
        self._shifts = {f"x{i}": NONE for i in range(30)} | shifts

    def shifts(self, start: object) -> Mapping[str, SustainedShift]:
        return self._shifts

    def change(self, column: str, start: object, shift: SustainedShift) -> ColumnChange:
        return ColumnChange("place", 0.24, 0.31, spread=0.2)


def judge(column: str, shift: SustainedShift, **options: Any) -> dict[str, Any]:
    found = verdicts("drift", [], sustained=Known(**{column: shift}), **options)
    return only(found, f"drift/sustained_shift/{column}")


def test_the_score_is_not_lost_among_thirty_features() -> None:
    of_score, of_feature = judge("score", SHIFT), judge("age", SHIFT)

    assert (of_score["status"], of_score["family_size"]) == ("WARN", 1)
    assert (of_feature["status"], of_feature["family_size"]) == ("OK", 31)
    assert "This may be chance" in of_feature["message"]


def test_the_sentence_says_for_how_long_how_much_and_how_usual_that_was() -> None:
    row = judge("score", SHIFT)

    assert row["message"].splitlines()[0] == (
        "Over the last 14 days score is 0.07 lower (median 0.31 to 0.24); 1 in 4 days of the "
        "baseline was as far off."
    )
    assert (row["k"], row["of_n"], row["n"]) == (1, 1, 14_000)
    assert row["excess"] == pytest.approx(0.28 / 0.15 - 1, abs=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_it_ends_when_the_newest_windows_are_usual_again(side: int) -> None:
    def at(newest: float) -> dict[str, Any]:
        return judge("score", replace(SHIFT, by=side * 0.3, newest=side * newest))

    assert at(0.08)["status"] == "WARN"
    assert at(0.07)["status"] == "OK"
    assert "The newest days are usual again" in at(-0.2)["message"]


def test_a_shift_has_to_be_as_large_as_declared() -> None:
    assert judge("score", replace(SHIFT, by=0.149))["status"] == "OK"
    declared = spec(drift={"sustained": {"above": 0.1, "error_at": 0.14}})
    assert judge("score", replace(SHIFT, by=0.149), model=declared)["status"] == "ERROR"


def test_a_broken_window_and_a_monitor_that_is_off_say_nothing() -> None:
    known = {"sustained": Known(score=SHIFT)}
    broken = verdicts("drift", [], [window(schema_broken=True)], **known)
    off = verdicts("drift", [], model=spec(drift={"sustained": False}), **known)

    for found in (broken, off):
        assert not [row for row in found if row["metric"] == "sustained_shift"]
