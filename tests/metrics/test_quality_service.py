from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.metrics.intervals import chance_in_part, quantile_ranks, wilson
from mlmon_dagster.metrics.quality import quality_metrics, unseen_values
from tests.metrics.samples import categorical_binning, count, numeric_binning

RNG = np.random.default_rng(9)


@pytest.mark.parametrize(("k", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (7, 1000)])
def test_wilson_equals_scipys(k, n):
    oracle = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == (
        pytest.approx(oracle.low, abs=1e-9),
        pytest.approx(oracle.high, abs=1e-9),
    )


@pytest.mark.parametrize("case", [(2, 2, 2, 4), (48, 300, 50, 1000), (0, 30, 5, 90), (7, 7, 9, 9),
                                  (90_000, 400_000, 200_000, 1_000_000)])  # fmt: skip
def test_the_chance_of_marked_rows_in_a_part_equals_scipys(case):
    count, size, total, n = case
    oracle = stats.hypergeom.sf(count - 1, n, total, size)
    assert chance_in_part(*case) == pytest.approx(oracle, rel=1e-6)


def test_an_empty_cell_has_a_reason_and_no_rate():
    frame = quality_metrics(count(numeric_binning(RNG.normal(size=50)), np.empty((1, 0))))
    assert frame["value"].isna().all()
    assert set(frame["reason"]) == {"no_rows"}


def test_unseen_names_are_added_up_over_the_versions_of_a_window():
    binning = categorical_binning(np.array([0, 1]))
    stats_ = count(binning, np.array([[0, 9], [0, 9]]), unseen=[{"XX": 2}, {"XX": 1, "YY": 4}])
    stats_.cells["window_start"] = pd.Timestamp("2024-01-01", tz="UTC")
    key = ("c", pd.Timestamp("2024-01-01", tz="UTC"))
    assert unseen_values(stats_) == {key: {"XX": 3, "YY": 4}}


def test_quantile_ranks_cover_95_percent():
    n, q = 400, 0.95
    low, high = (int(rank) for rank in quantile_ranks(q, n))
    held = stats.binom.cdf(high - 1, n, q) - stats.binom.cdf(low - 1, n, q)
    assert 0.95 <= held <= 0.98
