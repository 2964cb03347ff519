"""What a baseline's windows share with each other, and with the calendar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.drift.between_windows import (
    Persistence,
    Season,
    Strays,
    correlation,
    follows_from_window,
    may_miss_a_season,
)
from mlmon_dagster.metrics.statistics import ColumnStatistics
from tests.metrics.samples import categorical_binning, cells, count, numeric_binning

WINDOWS = 45


@pytest.fixture
def rng() -> np.random.Generator:
    """Draws that no other test has a part in."""
    return np.random.default_rng(5)


def days(count: int, first: str = "2024-01-01") -> pd.Series:
    return pd.Series(pd.date_range(first, periods=count, freq="D", tz="UTC"))


def autoregressive(rng, coefficient: float, repeats: int, count: int = WINDOWS) -> np.ndarray:
    """Windows of variance 1, (repeats, count)."""
    found = rng.normal(size=(repeats, count))
    for i in range(1, count):
        found[:, i] *= np.sqrt(1 - coefficient**2)
        found[:, i] += coefficient * found[:, i - 1]
    return found


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_the_widening_is_that_of_simulated_windows(coefficient, rng):
    """Squares of later windows from the mean / squares inside: within 4 %."""
    values = autoregressive(rng, coefficient, 20_000)
    centre = values.mean(axis=1)
    inside = ((values - centre[:, None]) ** 2).mean()
    later = ((rng.normal(size=20_000) - centre) ** 2).mean()
    found = Persistence.of(coefficient, days(WINDOWS), np.zeros(WINDOWS, np.int64))
    assert found.widening == pytest.approx(later / inside, rel=0.04)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_the_correlation_is_found_also_below_sampling_noise_and_a_week(coefficient, rng):
    """On average within .07, with as much noise as there is to find."""
    week = np.tile([0, 0, 0, 0, 0, 3, 3], 7)[:WINDOWS]
    noise = np.full(WINDOWS, 1.0)
    found, starts = [], days(WINDOWS)
    season = Season.fit(starts)
    places = season.of(starts)
    for values in autoregressive(rng, coefficient, 150):
        seen = (values + week + rng.normal(size=WINDOWS))[:, None]
        found.append(correlation(seen - season.course(seen, places)[places], noise, starts))
    assert np.median(found) == pytest.approx(coefficient, abs=0.12)


@pytest.mark.parametrize(("coefficient", "most"), [(0.0, 0.012), (0.5, 0.013), (0.9, 0.03)])
def test_later_windows_are_rarely_called_far_however_the_baseline_wandered(coefficient, most, rng):
    """At the level .01, over 300 baselines of 45 days; without their order .16 at .9."""
    later = days(40, "2024-09-02")
    found = [
        Strays(values, np.zeros(WINDOWS), days(WINDOWS)).p_value(
            rng.normal(size=40), np.zeros(40), later
        )
        for values in autoregressive(rng, coefficient, 300)
    ]
    assert np.mean(np.array(found) <= 0.01) <= most


def test_a_weekend_is_compared_with_weekends(rng):
    week = np.tile([0, 0, 0, 0, 0, 5, 5], 8)[:49]
    own = Strays(week + rng.normal(0, 0.1, 49), np.zeros(49), days(49))
    saturday, monday = own.p_value(np.array([5.0, 5.0]), np.zeros(2), days(7).iloc[[5, 0]])
    assert saturday > 0.05
    assert monday < 1e-6


def test_equal_windows_make_every_other_value_far():
    own = Strays(np.full(20, 3.0), np.zeros(20), days(20))
    found = own.p_value(np.array([3.0, 3.1, np.nan]), np.zeros(3), days(3))
    np.testing.assert_array_equal(found, [1.0, 0.0, np.nan])


DAYS = 60


def profile(values: np.ndarray, *, kind: str = "numeric", step: str = "D") -> ColumnStatistics:
    """Windows of values (W, rows), a day or another step apart."""
    starts = pd.date_range("2024-01-01", periods=len(values), freq=step, tz="UTC")
    binning = numeric_binning(values) if kind == "numeric" else categorical_binning(values)
    return count(
        binning, values, cells=cells(len(values)).assign(window_start=starts),
        total=values.sum(axis=1), total_sq=(values**2).sum(axis=1),
    )  # fmt: skip


def of_windows(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values)[:, None], 50, axis=1)


STARTS = pd.date_range("2024-01-01", periods=DAYS, freq="D")
RNG = np.random.default_rng(8)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("weekday", of_windows(STARTS.day_of_week), True),
        ("month", of_windows(STARTS.month), True),
        ("a price of the day", of_windows(RNG.normal(size=DAYS)), False),
        ("a constant", np.ones((DAYS, 50)), False),
        ("independent rows", RNG.normal(size=(DAYS, 50)), False),
        ("weekday, and one odd row", None, False),
    ],
)
def test_a_column_that_follows_from_the_date_is_told_from_one_that_is_alike_all_day(
    name, values, expected
):
    if values is None:
        values = of_windows(STARTS.day_of_week)
        values[3, 0] = 6
    assert follows_from_window(profile(values.astype(float))) is expected
    if name == "weekday":
        assert follows_from_window(profile(values, kind="categorical"))
        assert not follows_from_window(profile(values[:13].astype(float)))


def test_columns_whose_days_differ_may_have_a_season_unless_a_year_is_known():
    weather = RNG.normal(0, 1, (DAYS, 1)) + RNG.normal(0, 1, (DAYS, 50))
    columns = {
        "weather": profile(weather), "age": profile(RNG.normal(size=(DAYS, 50))),
        "weekday": profile(of_windows(STARTS.day_of_week).astype(float)),
    }  # fmt: skip
    assert may_miss_a_season(columns) == ["weather"]
    assert may_miss_a_season({"weather": profile(weather, step="6D")}) == []
