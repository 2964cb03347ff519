"""The usual volume of a window, and how unusual its own is."""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.families.service import STRANGE
from mlmon_dagster.metrics.service import Volume
from tests.metrics.volume_years import Fault, Traffic, Year, draw_year

WEEK = np.tile(np.arange(7), 4)


def test_a_window_is_compared_with_its_own_weekday() -> None:
    sizes = np.where(WEEK >= 5, 200, 600)

    assert Volume(200, 6, WEEK, sizes).change == pytest.approx(0, abs=1e-9)
    assert Volume(200, 2, WEEK, sizes).change == pytest.approx(-2 / 3)


def test_traffic_that_varies_a_hundred_times_has_no_unusual_day() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = np.exp(rng.uniform(np.log(20), np.log(2000), 29)).astype(int)

        assert Volume(int(sizes[-1]), 0, WEEK, sizes[:-1]).chance > STRANGE


def test_steady_traffic_makes_a_change_strange_and_counting_noise_does_not() -> None:
    for n in (300, 2000):
        assert Volume(n, 0, WEEK, np.full(28, 1000)).chance < STRANGE
    for n in (1, 6):
        assert Volume(n, 0, WEEK, np.full(28, 3)).chance > STRANGE


@pytest.mark.parametrize("low", [180, 1400])
def test_an_incident_of_some_days_does_not_hide_itself(low: int) -> None:
    noise = np.exp(np.random.default_rng(1).normal(0, 0.08, 28))
    sizes = (noise * np.where(np.arange(28) < 23, 600, low)).astype(int)

    assert Volume(low, 3, WEEK, sizes).chance < STRANGE


def test_what_is_odd_in_every_week_is_as_usual() -> None:
    noise = np.exp(np.random.default_rng(1).normal(0, 0.08, 28))
    sizes = noise * np.where(np.arange(28) % 7 == np.array([1, 4, 2, 5]).repeat(7), 1500, 600)

    assert Volume(1500, 3, WEEK, sizes.astype(int)).chance > STRANGE


def test_an_hour_is_compared_with_the_same_hour_of_other_days() -> None:
    """Nights are still; a day in the order of hours."""
    rng = np.random.default_rng(2)
    places = np.tile(np.arange(168), 4)
    usual = np.where(places % 24 < 7, 2, 400)
    sizes = np.maximum(rng.poisson(usual * np.exp(rng.normal(0, 0.1, len(places)))), 1)

    assert Volume(150, 12, places, sizes, 168).chance < STRANGE
    assert Volume(900, 12, places, sizes, 168).chance < STRANGE
    assert Volume(400, 12, places, sizes, 168).chance > STRANGE
    assert Volume(1, 3, places, sizes, 168).chance > STRANGE
    assert Volume(5, 3, places, sizes, 168).chance > STRANGE
    assert not Volume(5, 3, places[:300], sizes[:300], 168).is_known


def test_the_usual_of_a_place_is_without_what_was_odd() -> None:
    sizes = np.where(WEEK == 2, [2000] * 7 + [600] * 14 + [50] * 7, 500)

    assert Volume(600, 2, WEEK, sizes).alike.tolist() == [600, 600]
    assert len(Volume(600, 2, WEEK[-16:-9], sizes[-16:-9]).alike) == 0


def alarms(year: Year, fault: Fault | None = None) -> dict[int, int]:
    """Return which windows fail by the default limits: 1 for a rise, -1 for a drop."""
    failing = {}
    for i, volume in year.volumes(fault):
        if not -0.5 <= volume.change <= 0.7 and volume.chance < STRANGE:
            failing[i] = 1 if volume.change > 0 else -1
    return failing


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(growth=5, weekend=5, spread=0.2, follows=0.5),
        Traffic(growth=0.2, spread=0.15, wanders=0.05),
        Traffic(usual=5, weekend=5),
        Traffic(spread=0.5, days=120),
        Traffic(promotions=6),
        Traffic(usual=30, is_hourly=True, days=30, weekend=3),
    ],
    ids=["grows", "shrinks", "few", "varies", "promotions", "hours"],
)
def test_healthy_years_have_next_to_no_alarm(traffic: Traffic) -> None:
    """A holiday that no calendar names, and a promotion, are unusual, and not the days after."""
    year = draw_year(traffic, 5)

    found = [i for i in alarms(year) if not year.is_promoted[i]]

    assert len(found) <= 1


@pytest.mark.parametrize(
    ("fault", "side"),
    [
        (lambda sizes, i: int(sizes[i] + sizes[i - 1]), 1),
        (lambda sizes, i: int(3 * sizes[i]), 1),
        (lambda sizes, i: int(0.4 * sizes[i]), -1),
    ],
    ids=["yesterday again", "sent three times", "much of the day missing"],
)
def test_a_planted_day_is_found(fault: Fault, side: int) -> None:
    year = draw_year(Traffic(holidays=0, days=30, growth=2), 7)

    found = alarms(year, fault)

    assert len(found) >= 27
    assert set(found.values()) == {side}
