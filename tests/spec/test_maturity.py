"""When a window's realized performance may be trusted."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.spec import maturity_of, window_from_key
from mlmon_dagster.spec.windows import (
    UNKNOWN_TIMING,
    TruthTiming,
    actual_coverage,
    closing_age,
)
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


LEARNT = TruthTiming(dt.timedelta(days=20), 0.72, dt.timedelta(days=120))


@pytest.mark.parametrize(
    ("days_after_end", "n_actual", "timing", "expected"),
    [
        (1, 99, UNKNOWN_TIMING, "provisional"),
        (100, 99, UNKNOWN_TIMING, "provisional"),
        (1, 100, UNKNOWN_TIMING, "mature"),
        (365, 99, UNKNOWN_TIMING, "closed"),
        (19.9, 90, LEARNT, "provisional"),
        (20, 90, LEARNT, "mature"),
        (20, 71, LEARNT, "provisional"),
        (119, 71, LEARNT, "provisional"),
        (120, 71, LEARNT, "closed"),
    ],
)
def test_what_is_not_declared_follows_what_was_learnt(
    days_after_end: float, n_actual: int, timing: TruthTiming, expected: str
) -> None:
    """Before the learnt age, or with less than is in line then, a window waits."""
    undeclared, now = spec(), WINDOW.end + dt.timedelta(days=days_after_end)

    assert maturity_of(undeclared, WINDOW, 100, n_actual, now, timing) == expected


def test_declared_ages_win_over_learnt_ones() -> None:
    """Nothing learnt moves a window whose ages are declared."""
    for days, n_actual in ((2, 50), (4, 50), (5, 95), (15, 0)):
        now = WINDOW.end + dt.timedelta(days=days)
        known = maturity_of(SPEC, WINDOW, 100, n_actual, now)
        assert maturity_of(SPEC, WINDOW, 100, n_actual, now, LEARNT) == known


def test_a_window_closes_while_its_rows_are_kept() -> None:
    """However long ground truth is awaited, it is not awaited for rows that are gone."""
    kept = spec(retention={"production": "200d"})
    assert closing_age(kept, UNKNOWN_TIMING) == dt.timedelta(days=200)
    assert closing_age(kept, LEARNT) == dt.timedelta(days=120)
    assert closing_age(spec(), TruthTiming(closes=dt.timedelta(days=30))).days == 90


def test_coverage_is_the_share_with_ground_truth_and_none_of_an_empty_window() -> None:
    assert actual_coverage(200, 50) == 0.25
    assert actual_coverage(0, 0) is None


def test_a_model_without_ground_truth_has_nothing_to_wait_for() -> None:
    blind = spec(source__actuals=REMOVED, columns__actual=REMOVED)

    assert maturity_of(blind, WINDOW, 10, 0, WINDOW.end) == "mature"
    assert maturity_of(blind, WINDOW, 10, 0, WINDOW.start) == "provisional"
