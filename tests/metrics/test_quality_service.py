from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.metrics.intervals import chance_in_part, quantile_ranks, wilson
from mlmon_dagster.metrics.quality import quality_metrics, unseen_values
from mlmon_dagster.metrics.service import service_metrics
from mlmon_dagster.metrics.statistics import Binning
from tests.metrics.samples import categorical_binning, count, numeric_binning, statistics

RNG = np.random.default_rng(9)
LATENCY = Binning("latency_ms", "latency", 1163, "lat", low=1e-3, high=1e7)
STATUS = Binning("status", "status", 2, "status")


def latencies(values: np.ndarray):
    place = np.floor(np.log(values / 1e-3) / (np.log(1e10) / 1163)).astype(int)
    counts = np.bincount(place, minlength=1163)[None]
    return statistics(
        LATENCY, counts, minimum=np.array([values.min()]), maximum=np.array([values.max()])
    )


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


def test_a_share_of_nothing_has_no_interval():
    assert np.isnan(wilson(0, 0)).all()


def test_quality_rates_are_shares_of_all_rows():
    values = np.array([[1.0, 2.0, np.nan, np.nan]])
    binning = numeric_binning(RNG.normal(size=100))
    stats_ = count(
        binning, values, n_null=np.array([1]), n_nan=np.array([1]), n_out_of_range=np.array([2])
    )
    found = quality_metrics(stats_).set_index("metric")["value"]
    assert found.to_dict() == {
        "null_rate": 0.25, "nan_rate": 0.25, "inf_rate": 0.0, "out_of_range_rate": 0.5,
    }  # fmt: skip


def test_unseen_rate_counts_the_unseen_code_only():
    binning = categorical_binning(np.array([0, 0, 1]))
    found = quality_metrics(count(binning, np.array([[0, 1, 9999, -1]]))).set_index("metric")
    assert found["value"].to_dict() == {"null_rate": 0.25, "unseen_rate": 0.25}


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


def test_latency_quantiles_are_within_one_percent():
    values = RNG.lognormal(3, 1, 5000)
    found = service_metrics(latencies(values), None).set_index("metric")
    for metric, q in {
        "p50_latency_ms": 0.5,
        "p95_latency_ms": 0.95,
        "p99_latency_ms": 0.99,
    }.items():
        exact = np.quantile(values, q, method="inverted_cdf")
        assert found.loc[metric, "value"] == pytest.approx(exact, rel=0.01)
        assert found.loc[metric, "lower"] <= exact <= found.loc[metric, "upper"]
    assert found.loc["n", "value"] == 5000


def test_quantile_ranks_cover_95_percent():
    n, q = 400, 0.95
    low, high = (int(rank) for rank in quantile_ranks(q, n))
    held = stats.binom.cdf(high - 1, n, q) - stats.binom.cdf(low - 1, n, q)
    assert 0.95 <= held <= 0.98


@pytest.mark.parametrize(
    ("n", "missing"),
    [(19, {"p95_latency_ms", "p99_latency_ms"}), (99, {"p99_latency_ms"}), (100, set())],
)
def test_extreme_quantiles_of_few_rows_are_not_given(n, missing):
    frame = service_metrics(latencies(RNG.lognormal(3, 1, n)), None)
    assert set(frame.loc[frame["value"].isna(), "metric"]) == missing
    assert set(frame.loc[frame["value"].isna(), "reason"]) <= {"few_rows"}


def test_error_rate_is_of_rows_with_a_status():
    stats_ = statistics(STATUS, np.array([[95, 5], [0, 0]]), n=np.array([120, 50]))
    frame = service_metrics(None, stats_)
    errors = frame[frame["metric"] == "error_rate"]
    assert errors["value"].tolist()[0] == 0.05
    assert errors["reason"].tolist() == ["", "no_status"]
