from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.metrics.binnings import (
    MIN_EXPECTED,
    drift_bins,
    merge_bins,
    merge_plan,
    score_groups,
)
from mlmon_dagster.metrics.statistics import Binning
from tests.metrics.samples import (
    categorical_binning,
    count,
    numeric_binning,
    score_statistics,
    statistics,
)

BASELINES = st.lists(st.integers(0, 2000), min_size=2, max_size=30).filter(lambda c: sum(c) > 0)


@given(BASELINES, st.integers(1, 100_000), st.booleans())
def test_merging_keeps_every_row_and_the_null_bin_apart(baseline, n, ordered):
    counts = np.array(baseline)
    plan = merge_plan(counts, n, ordered=ordered)
    assert merge_bins(counts, plan).sum() == counts.sum()
    assert (plan == plan[-1]).sum() == 1
    assert set(plan.tolist()) == set(range(int(plan.max()) + 1))


@given(BASELINES, st.integers(1, 100_000))
def test_merged_numeric_bins_expect_five_rows_and_the_highest_half_of_that(baseline, n):
    counts = np.array(baseline)
    plan = merge_plan(counts, n, ordered=True)
    expected = merge_bins(counts, plan)[:-1] * (n / counts.sum())
    seen = expected[expected > 0]
    if len(seen) > 1:
        assert (seen[:-1] >= MIN_EXPECTED - 1e-9).all()
        assert seen[-1] >= MIN_EXPECTED / 2 - 1e-9
    assert (np.diff(plan[:-1][counts[:-1] > 0]) >= 0).all()


def test_values_beyond_the_baselines_range_are_a_bin_of_their_own():
    plan = merge_plan(np.array([0, 70, 30, 0, 0]), 100, ordered=True)
    assert plan[0] == plan[3]
    assert len({plan[0], plan[1], plan[2], plan[4]}) == 4


def test_rare_categories_and_unseen_share_one_bin():
    values = np.repeat([0, 1, 2], [900, 95, 5])
    binning = categorical_binning(values)
    bins = drift_bins(count(binning, np.array([[0, 0, 1, 2, 9999, -1]])))
    assert bins.counts.tolist() == [[2, 1, 1, 1, 1]]  # 0, 1, 2, other with unseen, null
    plan = merge_plan(np.array([900, 95, 5, 0, 0]), 100, ordered=False)
    assert merge_bins(bins.counts, plan).tolist() == [[2, 1, 2, 1]]


def test_an_outlier_falls_into_the_open_outer_bin():
    values = np.random.default_rng(0).normal(size=2000)
    bins = drift_bins(count(numeric_binning(values), np.array([[1e12, -1e12]])))
    assert bins.counts[0, 0] == 1
    assert bins.counts[0, -2] == 1


def test_scores_are_grouped_by_the_baselines_mass():
    negatives = np.full((1, 100), 10)
    bins = drift_bins(score_statistics(negatives, np.zeros((1, 100), dtype=np.int64)))
    assert bins.counts.tolist() == [[50] * 20 + [0]]


def test_score_groups_of_a_single_value_are_itself_and_what_is_beyond():
    assert score_groups(np.array([0, 0, 5, 0])).tolist() == [0, 0, 1, 2]


def test_latency_has_no_drift():
    binning = Binning("latency_ms", "latency", 3, "id", low=1.0, high=10.0)
    with pytest.raises(ValueError, match="latency"):
        drift_bins(statistics(binning, np.ones((1, 3), dtype=np.int64)))
