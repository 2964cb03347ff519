"""What a baseline says of the calendar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.drift.between_windows import follows_from_window, may_miss_a_season
from mlmon_dagster.metrics.statistics import ColumnStatistics
from tests.metrics.samples import categorical_binning, cells, count, numeric_binning

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
