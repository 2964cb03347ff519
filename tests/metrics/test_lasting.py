"""A drop that no window shows by itself is found by the newest together, and rarely without one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.lasting import Course, Drop, find_drop
from mlmon_dagster.metrics.windows.law import level_of_newest

A_YEAR, LIMIT, USUAL = 365.25, 0.05, 0.82
LEVEL = level_of_newest(A_YEAR) / 2
DAY = 86_400


def draw(
    rng: np.random.Generator,
    windows: int,
    area: float,
    *,
    first: int = 0,
    spread: float = 0.1,
    follows: float = 0.0,
    error: float = 0.3,
) -> Course:
    """Draw an area under a curve in windows of few rows, whose logits stray and may follow."""
    shared = np.zeros(windows)
    for i, one in enumerate(rng.normal(0, 1, windows)):
        shared[i] = one if not i else follows * shared[i - 1] + np.sqrt(1 - follows**2) * one
    logit = special.logit(area) + spread * shared + rng.normal(0, error, windows)
    return Course(
        special.expit(logit),
        special.expit(logit + Z95 * error),
        np.full(windows, 150.0),
        (first + np.arange(windows)) * DAY,
    )


def look(baseline: Course, newest: Course, **options: object) -> Drop | None:
    known = {"is_share": True, "windows_a_year": A_YEAR, "is_moving": False}
    return find_drop(baseline, newest, USUAL, USUAL - LIMIT, **known | options)  # type: ignore[arg-type]


def is_told(drop: Drop | None) -> bool:
    return drop is not None and (
        drop.p_value / 2 <= LEVEL and drop.worse >= LIMIT and drop.newest >= LIMIT / 2
    )


def test_a_drop_that_single_windows_hardly_show_is_found_within_two_weeks() -> None:
    """Of .13, where 95 % of the windows lie within .70 and .90."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        baseline = draw(rng, 30, USUAL)
        course = draw(rng, 14, USUAL - 0.13, first=40)
        found.append(is_told(look(baseline, course)))
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize(
    ("follows", "most"),
    [
        pytest.param(0.0, 0.15, marks=pytest.mark.proof),
        pytest.param(0.5, 0.2, marks=pytest.mark.proof),
        (0.9, 0.35),
    ],
)
def test_unchanged_windows_have_an_episode_in_ten_years_or_so(follows: float, most: float) -> None:
    """The goal is one in twenty years, of independent days; the bounds are those of 40 years."""
    episodes = days = 0
    for seed in range(110):
        rng = np.random.default_rng(seed)
        baseline = draw(rng, 30, USUAL, follows=follows)
        course, is_on = draw(rng, 140, USUAL, first=40, follows=follows), False
        for last in range(7, 140, 2):
            place = np.arange(140)
            now = is_told(look(baseline, course.take((place <= last) & (place > last - 28))))
            episodes += now and not is_on
            is_on = now
        days += 133
    assert episodes / (days / A_YEAR) <= most


def test_what_it_says_is_the_typical_value_and_what_would_be_usual() -> None:
    rng = np.random.default_rng(1)
    drop = look(draw(rng, 60, USUAL), draw(rng, 28, 0.70, first=80))
    assert drop is not None
    assert drop.run == 28
    assert (drop.value, drop.usual) == (
        pytest.approx(0.70, abs=0.02),
        pytest.approx(0.82, abs=0.02),
    )
    assert drop.worse == pytest.approx(drop.usual - drop.value)
    assert drop.n == 28 * 150


def test_better_windows_too_few_of_them_and_two_at_once_say_nothing() -> None:
    rng = np.random.default_rng(2)
    baseline, worse = draw(rng, 30, USUAL), draw(rng, 14, 0.6, first=40)
    assert look(baseline, worse) is not None
    assert look(baseline, draw(rng, 14, 0.93, first=40)) is None
    assert look(baseline, worse.take(np.arange(14) < 6)) is None
    assert look(baseline.take(np.arange(30) < 13), worse) is None
    assert look(baseline, worse._replace(starts=worse.starts // 2 // DAY * DAY)) is None
    unknown = worse._replace(value=np.where(np.arange(14) < 8, np.nan, worse.value))
    assert look(baseline, unknown) is None


def test_a_loss_is_worse_when_it_rises_and_keeps_its_unit() -> None:
    rng = np.random.default_rng(3)

    def losses(mean: float, windows: int, first: int) -> Course:
        value = rng.normal(mean, 3, windows)
        starts = (first + np.arange(windows)) * DAY
        return Course(value, value - Z95 * 2.5, np.full(windows, 80.0), starts)

    known = {"is_share": False, "windows_a_year": A_YEAR, "is_moving": False}
    baseline = losses(40, 30, 0)
    drop = find_drop(baseline, losses(45, 14, 40), 40, 43, **known)  # type: ignore[arg-type]
    assert drop is not None
    assert drop.worse == pytest.approx(5, abs=1.5)
    assert drop.value == pytest.approx(45, abs=1.5)
    assert find_drop(baseline, losses(35, 14, 40), 40, 43, **known) is None  # type: ignore[arg-type]
