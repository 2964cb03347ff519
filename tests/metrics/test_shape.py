"""Distances on normal scores: what they are, and how they are distributed without change."""

import numpy as np
import pytest
from scipy import special

from mlmon_dagster.metrics.drift.distances import psi
from mlmon_dagster.metrics.drift.smooth_distances import Shape

PER_MILLE = 0.004  # two standard errors of a share of .01 of 2,500 draws
METRICS = ["smooth", "area"]
LAWS = {
    "equal": np.full(240, 1 / 240),
    "mostly one value": np.array([0.8, *np.full(20, 0.01)]),
    "long tail": (1 / np.arange(1, 200)) / (1 / np.arange(1, 200)).sum(),
    "two values": np.array([0.7, 0.3]),
}


def drawn(shares, n, size=2_500, seed=3):
    return np.random.default_rng(seed).multinomial(n, shares, size)


def of_normals(rng, *, mean=0.0, sd=1.0, rows=1_000, windows=1):
    edges = special.ndtri(np.arange(1, 240) / 240)
    codes = np.searchsorted(edges, rng.normal(mean, sd, (windows, rows)))
    return np.array([np.bincount(row, minlength=240) for row in codes])


def test_the_area_of_a_shifted_normal_column_is_the_shift_in_standard_deviations():
    rng = np.random.default_rng(1)
    baseline = of_normals(rng, rows=400_000)[0]
    moved = of_normals(rng, mean=0.2, rows=400_000)
    assert Shape(baseline).area(moved, baseline)[0] == pytest.approx(0.2, rel=0.03)


def test_smooth_is_the_sum_of_squares_of_place_and_width():
    rng = np.random.default_rng(2)
    baseline = of_normals(rng, rows=400_000)[0]
    shape = Shape(baseline)
    # Cohen's effects of a normal law: the shift, and (sd ** 2 - 1) / sqrt(2); grouping costs some.
    assert shape.smooth(of_normals(rng, mean=0.2, rows=400_000), baseline)[0] == pytest.approx(
        0.2**2, rel=0.08
    )
    assert shape.smooth(of_normals(rng, sd=1.1, rows=400_000), baseline)[0] == pytest.approx(
        (1.1**2 - 1) ** 2 / 2, rel=0.15
    )


@pytest.mark.parametrize("name", LAWS)
def test_without_change_the_areas_mean_and_variance_are_those_of_a_brownian_bridge(name):
    shares, n = LAWS[name], 2_000
    baseline = np.round(shares * 1e9).astype(np.int64)
    shape = Shape(baseline)
    found = shape.area(drawn(shares, n, 20_000), baseline)
    moments = shape.nulls()[1].moments(n)
    assert found.mean() == pytest.approx(float(moments.mean), rel=0.03)
    assert found.std() == pytest.approx(float(moments.sd), rel=0.06)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [50, 200, 5_000])
@pytest.mark.parametrize("name", LAWS)
def test_without_change_one_window_in_a_hundred_has_a_p_of_one_in_a_hundred(name, n, metric):
    rng = np.random.default_rng(4)
    baseline = rng.multinomial(400_000, LAWS[name])
    shape = Shape(baseline)
    windows = drawn(LAWS[name], n, seed=5)
    p = shape.nulls()[METRICS.index(metric)].p_value(getattr(shape, metric)(windows, baseline), n)
    assert (p <= 0.01).mean() <= 0.01 + 2 * PER_MILLE
    assert 0.035 <= (p <= 0.05).mean() <= 0.065


@pytest.mark.parametrize("counts", [[0, 50, 0], [50], [0, 0]])
def test_a_constant_or_empty_baseline_has_no_place_and_no_width(counts):
    baseline = np.array(counts)
    shape = Shape(baseline)
    for metric, null in zip(METRICS, shape.nulls(), strict=True):
        value = getattr(shape, metric)(baseline[None], baseline)
        assert value.tolist() == [0.0]
        assert null.p_value(value, 30).tolist() == [1.0]


@pytest.mark.parametrize("shift", [0.2, 0.5, 1.0])
def test_a_mere_move_explains_the_distance_of_a_shifted_normal_column(shift):
    """Within 12 %: bins and the clipped tail cost some. A wider law of the same mean is no move."""
    rng = np.random.default_rng(4)
    baseline = of_normals(rng, rows=400_000)[0]
    shape = Shape(baseline)
    moved = of_normals(rng, mean=shift, rows=400_000)
    assert shape.by_place(psi, moved)[0] == pytest.approx(psi(moved, baseline)[0], rel=0.12)
    assert shape.place_and_width(moved)[0, 1] == pytest.approx(0, abs=0.05)
    wider = of_normals(rng, sd=1.5, rows=400_000)
    assert shape.by_place(psi, wider)[0] < 0.001
    assert shape.place_and_width(wider)[0, 1] > 0.5
