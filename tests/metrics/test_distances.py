from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from mlmon_dagster.metrics.drift.distances import (
    chi_square,
    jensen_shannon,
    ks,
    psi,
    smoothed_shares,
)

COUNTS = st.lists(st.integers(0, 10_000), min_size=2, max_size=12).filter(lambda c: sum(c) > 0)
PAIRS = st.integers(2, 12).flatmap(
    lambda size: st.tuples(
        *[
            st.lists(st.integers(0, 5_000), min_size=size, max_size=size).filter(
                lambda c: sum(c) > 0
            )
            for _ in range(2)
        ]
    )
)
RNG = np.random.default_rng(5)
CURRENT, BASELINE = RNG.multinomial(700, [0.1, 0.2, 0.3, 0.4]), RNG.multinomial(9000, [0.25] * 4)


@pytest.mark.parametrize(
    ("current", "baseline", "expected"),
    [
        # shares 40.5/101 and 60.5/101 against 1/2 each
        ([40, 60], [50, 50], -10 / 101 * np.log(81 / 101) + 10 / 101 * np.log(121 / 101)),
        ([0, 10], [10, 0], 2 * (10 / 11) * np.log(21)),
        ([7, 3], [7, 3], 0.0),
    ],
)
def test_psi_equals_the_sum_by_hand(current, baseline, expected):
    assert psi(current, baseline) == pytest.approx(expected, abs=1e-12)


def test_jensen_shannon_equals_scipys_distance_in_base_two():
    oracle = jensenshannon(smoothed_shares(CURRENT), smoothed_shares(BASELINE), base=2)
    assert jensen_shannon(CURRENT, BASELINE) == pytest.approx(oracle, abs=1e-12)


def test_chi_square_equals_the_statistic_of_scipys_contingency_test():
    distance = chi_square(CURRENT, BASELINE)
    oracle = stats.chi2_contingency([CURRENT, BASELINE], correction=False)
    statistic = distance / (1 / np.sum(CURRENT) + 1 / np.sum(BASELINE))
    assert statistic == pytest.approx(oracle.statistic, rel=1e-12)


def test_chi_square_ignores_bins_that_are_empty_on_both_sides():
    padded, plain = chi_square([10, 20, 0], [20, 20, 0]), chi_square([10, 20], [20, 20])
    np.testing.assert_allclose(padded, plain, rtol=1e-12)


def test_ks_on_unit_bins_equals_scipys_ks():
    a, b = RNG.integers(0, 40, 300), RNG.integers(3, 50, 900)
    counted = [np.bincount(x, minlength=50) for x in (a, b)]
    assert ks(*counted) == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("distance", [psi, jensen_shannon, ks, chi_square])
def test_distances_of_many_windows_are_those_of_each(distance):
    windows = RNG.multinomial(60, [0.1, 0.2, 0.3, 0.4], size=7)
    each = [float(distance(window, BASELINE)) for window in windows]
    np.testing.assert_allclose(distance(windows, BASELINE), each, rtol=1e-12)


@pytest.mark.parametrize("distance", [psi, jensen_shannon, ks, chi_square])
def test_a_side_without_rows_gives_nan(distance):
    assert np.isnan(distance([0, 0], [5, 5]))
    assert np.isnan(distance([5, 5], [0, 0]))


@given(PAIRS)
def test_distances_are_symmetric_and_never_negative(pair):
    a, b = pair
    for distance in (psi, jensen_shannon, ks, chi_square):
        assert distance(a, b) >= 0
        assert distance(a, b) == pytest.approx(float(distance(b, a)), abs=1e-9)
    assert jensen_shannon(a, b) <= 1 + 1e-12
    assert ks(a, b) <= 1 + 1e-12


@given(COUNTS)
def test_a_histogram_is_at_no_distance_from_itself(counts):
    for distance in (psi, jensen_shannon, ks, chi_square):
        assert distance(counts, counts) == pytest.approx(0, abs=1e-6)


@given(COUNTS)
def test_smoothed_shares_are_positive_and_sum_to_one(counts):
    shares = smoothed_shares(counts)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1, abs=1e-12)
