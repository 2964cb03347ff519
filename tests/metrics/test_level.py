"""The level of a metric over some windows, against a baseline's windows that share days."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mlmon_dagster.metrics.windows.clusters import UsualLevel, as_seen, level_shift, usual_level

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


def test_equal_windows_are_nearly_one_sample():
    """Without a spread beyond rows the mean is known as by all rows together, and a bit less."""
    value = np.tile([0.01, -0.01], 10)
    found = usual(value, np.full(20, 0.02), np.full(20, 400))
    error = math.sqrt(found.laws.weight @ found.laws.error**2)
    assert found.spread < 0.005
    assert found.mean == pytest.approx(0, abs=EXACT)
    assert 0.02 / math.sqrt(20) < error < 1.2 * 0.02 / math.sqrt(20)
    assert found.row == pytest.approx(0.02 * 20, abs=EXACT)


def test_the_spread_of_independent_days_is_found():
    levels = [usual(*windows(np.random.default_rng(seed), 45, 1000, 0.03)) for seed in range(40)]
    assert np.mean([level.spread for level in levels]) == pytest.approx(0.03, rel=0.08)


def test_laws_are_weighed_by_the_likelihood_of_the_windows():
    """The same with the windows' whole covariance matrix, and the mean integrated out."""
    value, error, n = windows(np.random.default_rng(4), 12, 1000, 0.03, 0.6)
    laws = usual(value, error, n).laws
    days = np.arange(12)
    fits, means = [], []
    for spread, correlation in zip(laws.spread, laws.correlation, strict=True):
        shared = spread**2 * correlation ** np.abs(np.subtract.outer(days, days))
        inverse = np.linalg.inv(shared + np.diag(error**2))
        precision = inverse.sum()
        means.append(inverse.sum(axis=0) @ value / precision)
        rest = value - means[-1]
        fits.append(np.linalg.slogdet(inverse)[1] - math.log(precision) - rest @ inverse @ rest)
    per_correlation = len(fits) // 5
    belief = np.repeat([0.8, 0.05, 0.05, 0.05, 0.05], per_correlation) * np.exp(np.array(fits) / 2)
    assert laws.weight == pytest.approx(belief / belief.sum(), abs=EXACT)
    assert laws.mean == pytest.approx(np.array(means), abs=EXACT)


def test_without_errors_of_rows_a_shift_is_about_students_two_samples():
    """Many rows a window and independent days: near the pooled test, and no surer than that."""
    baseline = np.random.default_rng(2).normal(0, 0.02, 40)
    level = usual(baseline, np.full(40, 1e-9), np.full(40, 10**9))
    found = level_shift([0.05, 0.06, 0.04], [10**9] * 3, level)
    error = baseline.std(ddof=1) * math.sqrt(1 / 3 + 1 / 40)
    p = 2 * stats.t.sf((0.05 - baseline.mean()) / error, 39)
    assert found.value == pytest.approx(0.05, abs=EXACT)
    assert p < found.p_value < 10 * p


@pytest.mark.parametrize("given", [0, 7])
def test_fewer_than_eight_windows_say_nothing(given: int):
    assert usual_level(*[np.zeros(given)] * 3, np.ones(given)) is None


def test_constant_windows_have_no_chance():
    level = usual(np.zeros(10), np.zeros(10), np.full(10, 100))
    assert level_shift([0.0], [100], level).p_value == 1
    assert level_shift([0.1], [100], level).p_value < EXACT


def test_margin_and_p_value_are_of_one_law():
    """A shift as large as its margin has a chance of .05."""
    value, error, n = windows(np.random.default_rng(5), 45, 1000, 0.02, 0.5)
    level = usual(value, error, n)
    found = level_shift([0.03] * 5, [1000] * 5, level)
    for side in (-1, 1):
        at = level_shift([level.mean + side * found.margin] * 5, [1000] * 5, level)
        assert at.p_value == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("spread", "correlation"), [(0.02, 0.6), (0.02, 0.9)])
def test_wandering_days_are_seldom_called_shifted(spread: float, correlation: float):
    """At .0003 of five windows, a month after the baseline: of 300 worlds one or two at most."""
    called = 0
    for seed in range(300):
        value, error, n = windows(np.random.default_rng(seed), 80, 1000, spread, correlation)
        level = usual(value[:45], error[:45], n[:45])
        called += level_shift(value[75:], n[75:], level).p_value <= 0.0003
    assert called <= 2


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


def test_days_that_wander_after_a_baseline_that_looks_calm_are_believed():
    """Forty-five independent days, then ninety of the same width that wander."""
    rng = np.random.default_rng(4)
    value, error, n = windows(rng, 45, 1000, 0.02)
    level = usual(value, error, n)
    for correlation, is_likelier in ((0.9, True), (0.0, False)):
        later, its_error, rows = windows(rng, 90, 1000, 0.02, correlation)
        known = as_seen(level, later, later - Z * its_error, later + Z * its_error, rows)
        before, after = (
            level_shift([0.04] * 5, [1000] * 5, some).p_value for some in (level, known)
        )
        assert (after > 3 * before) == is_likelier
        assert known.laws.weight.sum() == pytest.approx(1)
    assert as_seen(level, [], [], [], []) is level


def test_many_of_a_few_outcomes_are_as_likely_as_poisson_says():
    """Ten a window are usual; where 24 come (1.2e-4), twice the chance is no more than said."""
    rows, rate = 5_000, 0.002
    came = np.tile([0.0018, 0.0022], 300)
    half = Z * np.sqrt(came / rows)
    level = usual_level(came, came - half, came + half, np.full(600, rows))
    assert level is not None
    for count, within in ((24, (1, 4)), (27, (1, 8))):
        value = count / rows
        found = level_shift([value], [rows], level, [math.sqrt(value / rows)]).p_value
        exact = 2 * float(stats.poisson.sf(count - 1, rows * rate))
        assert within[0] * exact <= found <= within[1] * exact
