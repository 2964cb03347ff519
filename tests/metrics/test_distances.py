"""Distances against scipy or their formula, as they are shown, and those asked for besides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.binnings import representatives, upper_edges
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
from mlmon_dagster.metrics.statistics import Binning
from tests.metrics.data_windows import distances
from tests.metrics.samples import Law, count, numeric_binning

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


Floats = NDArray[np.float64]
BASE = (30, 500)
MANY, FEW = 4_000, 40
BESIDE = ("wasserstein", "wasserstein_scaled", "hellinger", "total_variation")
LAWS: dict[str, tuple[Law, Law]] = {  # of the baseline, and of the window
    "normal": (
        lambda rng, size: rng.normal(size=size),
        lambda rng, size: rng.normal(0.3, 1.1, size),
    ),
    "lognormal": (
        lambda rng, size: rng.lognormal(0, 1.5, size),
        lambda rng, size: rng.lognormal(0.3, 1.5, size),
    ),
    "heaps": (
        lambda rng, size: np.where(rng.random(size) < 0.6, 0.0, 5.0 * rng.geometric(0.05, size)),
        lambda rng, size: np.where(rng.random(size) < 0.5, 0.0, 5.0 * rng.geometric(0.04, size)),
    ),
    "ages": (
        lambda rng, size: np.floor(rng.normal(40, 12, size)).clip(18, 90),
        lambda rng, size: np.floor(rng.normal(44, 12, size)).clip(18, 90),
    ),
}


def sides(law: str, n: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([17, n, *law.encode()])
    before, after = LAWS[law]
    return before(rng, BASE), after(rng, (1, n))


def shown(binning: Binning, now: Floats, then: Floats) -> pd.DataFrame:
    frame = drift_metrics(count(binning, now), count(binning, then), seed=1, further=BESIDE)
    return frame.set_index("metric")


def of_bins(binning: Binning, values: Floats) -> tuple[Floats, Floats]:
    """Return the share of rows per bin, and half of the width of each row's bin."""
    upper = upper_edges(binning)
    codes = np.searchsorted(upper, values.ravel(), side="left")
    share = np.bincount(codes, minlength=binning.size) / values.size
    known = np.clip(values.ravel(), binning.low, binning.high)
    return share, np.abs(known - representatives(binning)[codes])


@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.parametrize("law", LAWS)
def test_ks_is_scipys_of_the_rows_up_to_the_largest_bin(law, n):
    then, now = sides(law, n)
    binning = numeric_binning(then)
    within = np.maximum(of_bins(binning, now)[0], of_bins(binning, then)[0]).max()
    exact = stats.ks_2samp(now.ravel(), then.ravel()).statistic
    found = shown(binning, now, then).loc["ks"]
    assert exact - within <= found["value"] <= exact + 1e-12
    assert 0 < found["by_chance"] < found["value"]
    assert found["value"] == pytest.approx(exact, abs=0.005 if n == MANY else 0.03)


@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.parametrize("law", LAWS)
def test_wasserstein_is_scipys_of_the_rows_up_to_half_the_width_of_their_bins(law, n):
    """Values beyond the baseline's range count at its ends: no bin says how far they are."""
    then, now = sides(law, n)
    binning = numeric_binning(then)
    within = of_bins(binning, now)[1].mean() + of_bins(binning, then)[1].mean()
    exact = stats.wasserstein_distance(
        np.clip(now.ravel(), binning.low, binning.high), then.ravel()
    )
    found = shown(binning, now, then)
    assert found.loc["wasserstein", "value"] == pytest.approx(exact, abs=within + 1e-12)
    if law in ("normal", "ages"):  # in a long tail bins are wide
        assert found.loc["wasserstein", "value"] == pytest.approx(exact, rel=0.01)
        scaled = found.loc["wasserstein_scaled", "value"]
        assert scaled == pytest.approx(exact / then.std(), rel=0.02)
