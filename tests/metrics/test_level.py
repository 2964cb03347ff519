"""The level of a metric over some windows, against a baseline's windows that share days."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mlmon_dagster.metrics.clusters import UsualLevel, level_shift, usual_level

Floats = NDArray[np.float64]
EXACT = 1e-9
Z = 1.959963984540054


def usual(value: Floats, error: Floats, n: NDArray[np.int64]) -> UsualLevel:
    found = usual_level(value, value - Z * error, value + Z * error, n)
    assert found is not None
    return found


def windows(
    rng: np.random.Generator, days: int, n: int, spread: float, correlation: float = 0.0
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Windows whose days share something; of shares near a fifth, so that a row strays by .4."""
    days_own = np.empty(days)
    last = 0.0
    for day, new in enumerate(rng.normal(size=days)):
        last = correlation * last + math.sqrt(1 - correlation**2) * new
        days_own[day] = last
    error = np.full(days, 0.4 / math.sqrt(n))
    return spread * days_own + rng.normal(size=days) * error, error, np.full(days, n)


def test_equal_windows_without_a_spread_are_one_sample():
    """With no spread beyond rows the error of the mean is that of all rows together."""
    value = np.tile([0.01, -0.01], 10)
    found = usual(value, np.full(20, 0.02), np.full(20, 400))
    assert found.spread == 0
    assert found.mean == pytest.approx(0, abs=EXACT)
    assert found.error == pytest.approx(0.02 / math.sqrt(20), abs=EXACT)
    assert found.row == pytest.approx(0.02 * 20, abs=EXACT)


def test_the_spread_is_dersimonian_and_lairds():
    rng = np.random.default_rng(1)
    value, error, n = windows(rng, 30, 1000, 0.03)
    weight = 1 / error**2
    centre = weight @ value / weight.sum()
    q = weight @ (value - centre) ** 2
    expected = (q - 29) / (weight.sum() - (weight**2).sum() / weight.sum())
    assert usual(value, error, n).spread ** 2 == pytest.approx(expected, rel=EXACT)


def test_without_errors_of_rows_a_shift_is_students_two_samples():
    """Many rows a window and independent days: the pooled test with the baseline's variance."""
    baseline = np.random.default_rng(2).normal(0, 0.02, 40)
    level = usual(baseline, np.full(40, 1e-9), np.full(40, 10**9))._replace(correlation=0.0)
    found = level_shift([0.05, 0.06, 0.04], [10**9] * 3, level)
    error = level.spread * math.sqrt(1 / 3 + 1 / 40)
    p = 2 * stats.t.sf((0.05 - level.mean) / error, level.freedom)
    assert level.error == pytest.approx(level.spread / math.sqrt(40), rel=1e-6)
    assert found.value == pytest.approx(0.05, abs=EXACT)
    assert found.p_value == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("given", [0, 7])
def test_fewer_than_eight_windows_say_nothing(given: int):
    assert usual_level(*[np.zeros(given)] * 3, np.ones(given)) is None


def test_windows_without_a_value_are_left_out():
    value = np.tile([0.01, -0.01, np.nan], 10)
    found = usual_level(value, value - 0.04, value + 0.04, np.full(30, 400))
    assert found is not None
    assert found.windows == 20


def test_constant_windows_have_no_chance():
    level = usual(np.zeros(10), np.zeros(10), np.full(10, 100))
    assert level_shift([0.0], [100], level).p_value == 1
    assert level_shift([0.1], [100], level).p_value < EXACT


def test_wandering_days_are_heard_together():
    """Days that follow each other say less: the error of the mean is wider by their correlation."""
    rng = np.random.default_rng(3)
    free, bound = (
        [usual(*windows(rng, 60, 5000, 0.03, rho)) for _ in range(30)] for rho in (0.0, 0.8)
    )
    assert np.mean([level.correlation for level in free]) < 0.1
    assert np.mean([level.correlation for level in bound]) > 0.55
    ratio = np.mean([level.error for level in bound]) / np.mean([level.error for level in free])
    assert ratio > 1.8


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.04])
def test_unchanged_windows_are_called_shifted_at_the_level(spread: float):
    """At .01, over 400 worlds: within three standard errors, the spread being estimated."""
    called = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        value, error, n = windows(rng, 50, 1000, spread)
        level = usual(value[:45], error[:45], n[:45])
        called += level_shift(value[45:], n[45:], level).p_value <= 0.01
    assert called / 400 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 400)
