"""Is one more window unlike a baseline's, where nothing but the windows' numbers is known?"""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.metrics.windows.custom import UsualValues

DAY = 86_400.0
YEAR = 365.25


def usual(values: np.ndarray, rows: int = 100, **fields: bool) -> UsualValues:
    starts = np.arange(len(values)) * DAY
    return UsualValues(values, np.full(len(values), rows), starts, YEAR, **fields)


def test_the_ends_of_the_usual_range_have_half_of_the_level() -> None:
    known = usual(np.random.default_rng(1).normal(5, 1, 30))

    found = known.judge(6.0, 31 * DAY, 0.02)

    assert known.judge(found.high, 31 * DAY).above == pytest.approx(0.01, rel=0.05)
    assert known.judge(found.low, 31 * DAY).below == pytest.approx(0.01, rel=0.05)


@pytest.mark.proof
@pytest.mark.parametrize("freedom", [3.0, np.inf])
def test_of_unchanged_windows_one_in_twenty_lies_outside_of_a_95_percent_range(
    freedom: float,
) -> None:
    """Also of laws with heavy tails; 120 draws, of which 1 to 13 may (99.9 %)."""
    rng, outside = np.random.default_rng(7), 0
    for _ in range(120):
        drawn = rng.standard_normal(25) if np.isinf(freedom) else rng.standard_t(freedom, 25)
        found = usual(drawn[:-1]).judge(drawn[-1], 24 * DAY)
        low, high = found.interval(drawn[-1])
        assert (found.low <= drawn[-1] <= found.high) == (low <= found.usual <= high)
        outside += not found.low <= drawn[-1] <= found.high

    assert 1 <= outside <= 13


def test_a_weekly_season_is_part_of_what_is_usual() -> None:
    week = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0])
    noise = np.random.default_rng(3).normal(0, 0.1, 57)
    values = np.resize(week, 57) + noise
    known = usual(values[:56])

    assert known.judge(1.0, 56 * DAY).p_value > 0.2
    assert known.judge(3.0, 56 * DAY).p_value < 0.001
    assert known.judge(3.0, 61 * DAY).p_value > 0.2


def test_a_baseline_of_the_same_days_or_later_ones_is_looked_at_by_the_day_of_the_week() -> None:
    values = np.resize([1.0, 1.1, 0.9, 1.0, 1.0, 3.0, 3.1], 56)

    early = usual(values).judge(3.0, -2 * DAY)  # a Saturday a week before the baseline

    assert early.p_value > 0.2


def test_a_number_that_is_always_the_same_is_unlike_any_other() -> None:
    known = usual(np.full(12, 3.0))

    assert known.judge(3.0, 12 * DAY).p_value == pytest.approx(1.0, abs=1e-3)
    assert known.judge(3.1, 12 * DAY).p_value < 1e-9


def test_a_window_of_half_the_rows_of_the_smallest_is_the_least() -> None:
    assert usual(np.arange(9.0), rows=60).fewest_rows == 30.0
