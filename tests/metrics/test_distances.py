"""Distances against scipy or their formula, their laws, and those that are asked for besides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.drift.distances import (
    ALWAYS,
    FURTHER,
    OF_BINS,
    chi_square,
    jensen_shannon,
    ks,
    psi,
    smoothed_shares,
    wasserstein,
)
from tests.metrics.data_windows import distances
from tests.metrics.samples import count, numeric_binning

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
BASELINE = RNG.multinomial(9000, [0.25] * 4)
OF_COUNTS = {name: formula for name, formula in (ALWAYS | OF_BINS).items() if name != "ks"}
SIDES = [
    (
        RNG.multinomial(n, RNG.dirichlet(np.full(size, 0.3))),
        RNG.multinomial(900, np.full(size, 1 / size)),
    )
    for n in (1, 30, 5_000)
    for size in (2, 7, 40)
]


@pytest.mark.parametrize("sides", SIDES)
def test_distances_are_those_of_scipy_or_the_formula_of_their_names(sides):
    expected = distances(*sides)
    for name, distance in OF_COUNTS.items():
        assert distance(*sides) == pytest.approx(expected[name], rel=1e-9, abs=1e-7), name
    places = np.sort(RNG.normal(size=len(sides[0])) * 1e3)
    assert wasserstein(*sides, places) == pytest.approx(
        stats.wasserstein_distance(places, places, *sides), rel=1e-9
    )


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


def test_chi_square_ignores_bins_that_are_empty_on_both_sides():
    padded, plain = chi_square([10, 20, 0], [20, 20, 0]), chi_square([10, 20], [20, 20])
    np.testing.assert_allclose(padded, plain, rtol=1e-12)


@pytest.mark.parametrize("distance", [psi, jensen_shannon, ks, chi_square])
def test_distances_of_many_windows_are_those_of_each(distance):
    windows = RNG.multinomial(60, [0.1, 0.2, 0.3, 0.4], size=7)
    each = [float(distance(window, BASELINE)) for window in windows]
    np.testing.assert_allclose(distance(windows, BASELINE), each, rtol=1e-12)


def test_a_side_without_rows_gives_nan():
    for name, distance in (ALWAYS | OF_BINS).items():
        assert np.isnan([distance([0, 0], [5, 5]), distance([5, 5], [0, 0])]).all(), name
    assert np.isnan(wasserstein([0, 0], [3, 4], [0.0, 1.0]))


@given(PAIRS)
def test_distances_are_symmetric_and_never_negative(pair):
    a, b = pair
    for distance in (psi, jensen_shannon, ks, chi_square):
        assert distance(a, b) >= 0
        assert distance(a, b) == pytest.approx(float(distance(b, a)), abs=1e-9)
        assert distance(a, a) == pytest.approx(0, abs=1e-6)
    assert jensen_shannon(a, b) <= 1 + 1e-12
    assert ks(a, b) <= 1 + 1e-12


@given(COUNTS)
def test_smoothed_shares_are_positive_and_sum_to_one(counts):
    shares = smoothed_shares(counts)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1, abs=1e-12)


def measured(current, baseline, binning):
    frame = drift_metrics(
        count(binning, current), count(binning, baseline), seed=1, further=FURTHER
    )
    return frame.set_index("metric")


def test_unchanged_windows_are_as_far_as_chance_gives_in_every_distance():
    baseline, current = RNG.normal(size=(1, 50_000)), RNG.normal(size=(60, 100))
    frame = measured(current, baseline, numeric_binning(baseline))
    for name in ("hellinger", "total_variation", "l_infinity", "kl", "wasserstein"):
        mine = frame.loc[name]["value"] - frame.loc[name]["by_chance"]
        assert abs(mine.mean()) < 3 * mine.std() / np.sqrt(60) + 0.003, name
