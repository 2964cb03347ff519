"""When a window's realized performance may be trusted."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.spec import maturity_of, window_from_key
from mlmon_dagster.spec.windows import actual_coverage
from tests.spec.specs import REMOVED, spec

SPEC = spec(
    actuals={"expected_within": "1d", "closed_after": "14d", "min_coverage": 0.9, "min_rows": 30}
)
WINDOW = window_from_key(SPEC.time, "2024-05-01")


@pytest.mark.parametrize(
    ("days_after_end", "n", "n_actual", "expected"),
    [
        (-0.1, 100, 100, "provisional"),
        (0, 100, 89, "provisional"),
        (0, 100, 90, "mature"),
        (2.9, 100, 89, "provisional"),
        (3, 100, 89, "mature"),
        (3, 100, 29, "provisional"),
        (3, 100, 30, "mature"),
        (13.9, 100, 0, "provisional"),
        (14, 100, 0, "closed"),
        (14, 100, 100, "closed"),
        (1, 0, 0, "provisional"),
        (20, 0, 0, "closed"),
    ],
)
def test_maturity_follows_coverage_then_time(
    days_after_end: float, n: int, n_actual: int, expected: str
) -> None:
    now = WINDOW.end + dt.timedelta(days=days_after_end)

    assert maturity_of(SPEC, WINDOW, n, n_actual, now) == expected


def test_coverage_is_the_share_with_ground_truth_and_none_of_an_empty_window() -> None:
    assert actual_coverage(200, 50) == 0.25
    assert actual_coverage(0, 0) is None


def test_a_model_without_ground_truth_has_nothing_to_wait_for() -> None:
    blind = spec(source__actuals=REMOVED, columns__actual=REMOVED)

    assert maturity_of(blind, WINDOW, 10, 0, WINDOW.end) == "mature"
    assert maturity_of(blind, WINDOW, 10, 0, WINDOW.start) == "provisional"
