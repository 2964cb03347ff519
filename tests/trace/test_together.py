"""Series that have nothing to do with each other are seldom called related; a lag is found."""

from __future__ import annotations

import numpy as np

from mlmon_dagster.trace.lagged_correlation import correlate_changes

WEEK = np.tile([0.0, 0.2, 0.1, 0.0, 0.3, 0.8, 0.6], 20)


def test_trends_and_weekdays_alone_are_no_relation() -> None:
    rng = np.random.default_rng(4)
    called = 0
    for _ in range(100):
        one, other = (np.cumsum(rng.normal(size=140)) + 3 * WEEK for _ in range(2))
        found = correlate_changes(one, other)
        assert found is not None
        called += found.p_value <= 0.05
    assert called <= 11  # 5 are expected of 100; more than 11 in one of 200 such tests


def test_what_follows_three_windows_later_is_found_at_that_lag() -> None:
    rng = np.random.default_rng(4)
    one = rng.normal(size=140)
    other = np.roll(one, 3) + rng.normal(0, 0.5, 140) + WEEK
    found = correlate_changes(one, other)
    assert found is not None
    assert (found.lag, found.p_value < 0.05) == (3, True)
    assert found.correlation > 0.5


def test_few_windows_and_constants_say_nothing() -> None:
    rng = np.random.default_rng(4)
    assert correlate_changes(rng.normal(size=30), rng.normal(size=30)) is None
    assert correlate_changes(np.ones(80), rng.normal(size=80)) is None
