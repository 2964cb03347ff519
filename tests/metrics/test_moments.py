"""Computed moments against Monte Carlo: the same windows without change, drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.metrics.binnings import merge_bins, merge_plan
from mlmon_dagster.metrics.drift.null_distribution import (
    DISTANCES,
    POWER,
    NullTables,
    gamma_tail,
    null_moments,
)

DRAWS = 20_000
MEAN_TOLERANCE = 0.03  # of the mean; Monte Carlo's own error is up to .01
SPREAD_TOLERANCE = 0.05  # and of the mean of a square root
SKEW_TOLERANCE = 0.2  # Monte Carlo's own error is up to .1
NOISE_TOLERANCE = 0.25
BASELINES = {
    "quantiles": (np.append(np.full(20, 3000), 60), True),
    "no_nulls": (np.append(np.full(20, 3000), 0), True),
    "small": (np.append(np.full(20, 50), [0, 20]), True),
    "mostly_zero": (np.array([54_000, *[600] * 10, 30]), True),
    "zipf": (np.append((12_000 / np.arange(1, 101)).astype(int), [0, 300]), False),
    "nulls": (np.array([12_000] * 5 + [100, 6000]), False),
    "three": (np.array([32_727, 16_363, 10_910, 500, 500]), False),
}


def computed(merged, n, metric):
    sizes = np.array([float(n)])
    return null_moments(merged[None], np.array([len(merged)]), sizes, (metric,))[0, 0]


def drawn(merged, n, metric):
    rng = np.random.default_rng(n)
    shares = rng.standard_gamma(merged + 0.5, size=(DRAWS, len(merged)))
    windows = rng.multinomial(n, shares / shares.sum(axis=1, keepdims=True))
    distance = DISTANCES[metric](windows, merged)
    distance = np.minimum(distance, np.quantile(distance, 0.9995))
    y = distance ** POWER[metric]
    low, high = np.quantile(y, [0.16, 0.84])
    skew = ((y - y.mean()) ** 3).mean() / y.std() ** 3 if y.std() else 0.0
    return distance.mean(), y.mean(), y.std(), skew, (high - low) / 2


@pytest.mark.parametrize("n", [50, 200, 1000, 30_000])
@pytest.mark.parametrize("metric", ["psi", "jensen_shannon"])
@pytest.mark.parametrize("name", BASELINES)
def test_moments_are_those_of_drawn_windows(name, metric, n):
    counts, ordered = BASELINES[name]
    merged = merge_bins(counts, merge_plan(counts, n, ordered=ordered))
    bias, mean, sd, skew, noise = computed(merged, n, metric)
    expected = drawn(merged, n, metric)
    assert bias == pytest.approx(expected[0], rel=SPREAD_TOLERANCE)
    assert mean == pytest.approx(expected[1], rel=MEAN_TOLERANCE)
    assert sd == pytest.approx(expected[2], rel=SPREAD_TOLERANCE)
    assert skew == pytest.approx(expected[3], rel=SKEW_TOLERANCE)
    assert noise == pytest.approx(expected[4], rel=NOISE_TOLERANCE, abs=0.02 * sd)


@pytest.mark.parametrize("name", ["quantiles", "mostly_zero", "nulls", "three"])
def test_moments_of_chi_square_are_those_of_drawn_windows(name):
    counts, ordered = BASELINES[name]
    merged = merge_bins(counts, merge_plan(counts, 30_000, ordered=ordered))
    _, mean, sd, skew, _ = computed(merged, 30_000, "chi_square")
    expected = drawn(merged, 30_000, "chi_square")
    assert mean == pytest.approx(expected[1], rel=MEAN_TOLERANCE)
    assert sd == pytest.approx(expected[2], rel=SPREAD_TOLERANCE)
    assert skew == pytest.approx(expected[3], rel=SKEW_TOLERANCE)


@pytest.mark.parametrize("n", [300, 700, 5000])
def test_moments_between_two_sizes_are_close_to_those_computed_there(n):
    for counts, ordered in BASELINES.values():
        plan = merge_plan(counts, n, ordered=ordered)
        tables = NullTables()
        number = np.array(tables.add(merge_bins(counts, plan)))
        for metric in ("psi", "jensen_shannon"):
            between = tables.moments(metric, number, n)
            exact = computed(merge_bins(counts, plan), n, metric)
            assert float(between.mean) == pytest.approx(exact[1], rel=0.02)
            assert float(between.sd) == pytest.approx(exact[2], rel=0.03)


def test_the_gamma_tail_is_that_of_drawn_windows():
    counts = BASELINES["quantiles"][0]
    rng = np.random.default_rng(5)
    shares = rng.standard_gamma(counts + 0.5, size=(DRAWS, len(counts)))
    windows = rng.multinomial(1000, shares / shares.sum(axis=1, keepdims=True))
    tables = NullTables(("psi",))
    moments = tables.moments("psi", np.array(tables.add(counts)), np.full(DRAWS, 1000))
    p = gamma_tail(DISTANCES["psi"](windows, counts), moments)
    for level in (0.5, 0.1, 0.01):
        assert (p <= level).mean() == pytest.approx(level, rel=0.15)
