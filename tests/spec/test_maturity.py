"""When a window's realized performance may be trusted."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.spec import complete_windows, maturity_of, window_from_key
from mlmon_dagster.spec.windows import (
    UNKNOWN_TIMING,
    EarlyAge,
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


def test_hours_do_not_wait_for_days_unless_that_is_declared() -> None:
    """Events of hours are two of them late by default, and those of days two days."""
    for time, hours in (
        ({"granularity": "hour"}, 5),
        ({"granularity": "hour", "allowed_lateness": "6h"}, 9),
        ({"granularity": "day"}, 51),
    ):
        known = spec(
            time={"start": "2024-05-01", **time}, actuals={"expected_within": "3h", "min_rows": 30}
        )
        first = complete_windows(known.time, WINDOW.end + dt.timedelta(days=9))[0]
        due = first.end + dt.timedelta(hours=hours)
        early = due - dt.timedelta(minutes=1)
        assert maturity_of(known, first, 100, 90, early) == "provisional"
        assert maturity_of(known, first, 100, 90, due) == "mature"


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


EARLY = TruthTiming(
    dt.timedelta(days=20),
    0.72,
    dt.timedelta(days=120),
    tuple(EarlyAge(age, 40, 80, 0.35, 0.75) for age in (9, 10, 11, 19)),
)


@pytest.mark.parametrize(
    ("days_after_end", "n_actual", "expected"),
    [
        (9, 50, "early"),
        (9.5, 50, "early"),
        (8.9, 50, "provisional"),  # of the eighth day nothing is shown
        (11.5, 50, "provisional"),
        (18.5, 50, "provisional"),
        (9, 39, "provisional"),  # too few
        (9, 34, "provisional"),  # less than windows had by then
        (9, 76, "provisional"),  # more than they had
        (9, 75, "early"),
        (20, 75, "mature"),
    ],
)
def test_a_window_is_judged_early_only_where_it_was_shown_to_be_a_random_part(
    days_after_end: float, n_actual: int, expected: str
) -> None:
    now = WINDOW.end + dt.timedelta(days=days_after_end)
    assert maturity_of(spec(), WINDOW, 100, n_actual, now, EARLY) == expected


def test_more_labels_than_a_bias_is_small_beside_wait() -> None:
    now = WINDOW.end + dt.timedelta(days=9)
    assert maturity_of(spec(), WINDOW, 160, 80, now, EARLY) == "early"
    assert maturity_of(spec(), WINDOW, 160, 81, now, EARLY) == "provisional"


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
