"""The usual volume of a window, and how unusual its own is."""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.metrics.service import volume_drop

WEEK = np.tile(np.arange(7), 4)


def test_a_window_is_compared_with_its_own_weekday() -> None:
    sizes = np.where(WEEK >= 5, 200, 600)

    assert volume_drop(200, 6, WEEK, sizes).drop == pytest.approx(0, abs=1e-9)
    assert volume_drop(200, 2, WEEK, sizes).drop == pytest.approx(2 / 3)


def test_traffic_that_varies_a_hundred_times_has_no_unusual_day() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = np.exp(rng.uniform(np.log(20), np.log(2000), 29)).astype(int)

        assert volume_drop(int(sizes[-1]), 0, WEEK, sizes[:-1]).z < 4


def test_steady_traffic_makes_a_drop_strange_and_counting_noise_does_not() -> None:
    assert volume_drop(300, 0, WEEK, np.full(28, 1000)).z > 4
    assert volume_drop(1, 0, WEEK, np.full(28, 3)).z < 4


def test_an_incident_of_some_days_does_not_hide_itself() -> None:
    sizes = np.where(np.arange(28) < 23, 600, 180)

    assert volume_drop(180, 3, WEEK, sizes).z > 4


def test_without_earlier_windows_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="no earlier windows"):
        volume_drop(3, 0, np.zeros(0, dtype=int), np.zeros(0, dtype=int))
