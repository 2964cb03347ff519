"""Metrics of spans, stages and tokens of random rows, against numpy, scipy and statsmodels."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from benchmarks.outcomes import column, window_cells
from mlmon_dagster.metrics.service import Stage, coverage_metrics, stage_metrics, token_metrics
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import loss_binning, role_binning

EXACT = 1e-9
WITHIN = 0.01  # of a quantile, from bins 2 % wide
SIZES = (0, 1, 30, 4_000)  # rows of the windows
WINDOWS = range(len(SIZES))
QUANTILES = {"p50": (0.5, 2), "p95": (0.95, 20), "p99": (0.99, 100)}  # and fewest rows
Floats = NDArray[np.float64]


@cache
def requests() -> list[dict[str, Floats]]:
    """Return requests of windows: what was sampled is slower and fails more often."""
    rng, windows = np.random.default_rng(8), []
    for n in SIZES:
        ms = rng.lognormal(4, 1.5, n)
        failed = (rng.random(n) < 0.1).astype(float)
        spans = rng.random(n) < 0.2 + 0.5 * (ms > 100) + 0.2 * failed
        has_stage = spans & (rng.random(n) < 0.8)
        bad = (rng.random(n) < 0.15).astype(float)
        rows = {
            "traced": spans.astype(float), "ms": ms, "failed": failed,
            "ms_traced": np.where(spans, ms, np.nan),
            "failed_traced": np.where(spans, failed, np.nan),
            "stage": np.where(has_stage, rng.lognormal(2, 2, n), np.nan),
            "calls": np.where(has_stage, 1 + rng.poisson(3, n), np.nan),
            "bad": np.where(has_stage, bad, np.nan),
            "late": np.where(has_stage, bad * (rng.random(n) < 0.4), np.nan),
            "tokens": np.where(spans, np.ceil(rng.lognormal(6, 2, n)), np.nan),
        }  # fmt: skip
        windows.append(rows)
    return windows


def of(name: str, kind: Literal["flag", "latency", "status"]) -> ColumnStatistics:
    """Return what profiles hold of one column of all windows."""
    longest, cells = max(SIZES), window_cells(len(SIZES))
    values = np.full((len(SIZES), longest), np.nan)
    for row, one in zip(values, requests(), strict=True):
        row[: len(one[name])] = one[name]
    binning = loss_binning(name, 1.0) if kind == "flag" else role_binning(name, kind)
    return column(binning, cells, values, np.array(SIZES))


def counted_stage() -> Stage:
    times, calls = of("stage", "latency"), of("calls", "latency")
    return Stage(times, calls, of("bad", "flag"), of("late", "flag"))


@cache
def measured() -> pd.DataFrame:
    """Return all metrics of spans; the index is (window, metric)."""
    latency = (of("ms", "latency"), of("ms_traced", "latency"))
    status = (of("failed", "status"), of("failed_traced", "status"))
    stage = counted_stage()
    frame = pd.concat(
        [
            coverage_metrics(of("traced", "flag"), latency, status),
            stage_metrics({"stage.fetch_ms": stage}, unbiased=True),
            token_metrics({"tokens.input": of("tokens", "latency")}, unbiased=True),
        ]
    )
    window = frame.groupby("metric").cumcount()
    return frame.set_index([window, "metric"])


def known(window: int, name: str) -> Floats:
    values = requests()[window][name]
    return values[~np.isnan(values)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("metric", "values"),
    [*((f"{q}_stage_ms", "stage") for q in QUANTILES), ("p50_tokens", "tokens"),
     ("p95_tokens", "tokens")],
)  # fmt: skip
def test_quantiles_are_the_rows_within_a_hundredth_and_too_few_have_none(metric, values, window):
    row, exact = measured().loc[(window, metric)], known(window, values)
    q, fewest = QUANTILES[metric[:3]]

    if len(exact) < fewest:
        assert np.isnan(row["value"])
        without = "no_latency" if SIZES[window] else "no_rows"
        assert row["reason"] == ("few_rows" if len(exact) else without)
        return
    at = np.quantile(exact, q, method="inverted_cdf")
    assert row["value"] == pytest.approx(at, rel=WITHIN)
    assert row["lower"] <= row["value"] <= row["upper"]
    assert row["n"] == len(exact)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("metric", "values", "reason"),
    [("span_coverage", "traced", "no_rows"), ("stage_error_rate", "bad", "no_spans"),
     ("stage_timeout_rate", "late", "no_spans")],
)  # fmt: skip
def test_shares_are_the_rows_with_wilsons_interval(metric, values, reason, window):
    row, exact = measured().loc[(window, metric)], known(window, values)

    if not len(exact):
        assert (np.isnan(row["value"]), row["reason"]) == (True, reason)
        return
    lower, upper = proportion_confint(exact.sum(), len(exact), method="wilson")
    assert row["value"] == pytest.approx(exact.mean(), rel=EXACT)
    assert (row["lower"], row["upper"]) == pytest.approx((lower, upper), abs=EXACT)


@pytest.mark.parametrize("metric", ["p50_stage_calls", "p95_stage_calls"])
@pytest.mark.parametrize("window", WINDOWS)
def test_calls_of_a_stage_are_exact(metric, window):
    row, exact = measured().loc[(window, metric)], known(window, "calls")
    q, fewest = QUANTILES[metric[:3]]
    at = np.quantile(exact, q, method="inverted_cdf") if len(exact) >= fewest else np.nan
    assert row["value"] == pytest.approx(at, nan_ok=True)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_sum_of_tokens_is_that_of_the_rows(window):
    row, exact = measured().loc[(window, "sum_tokens")], known(window, "tokens")

    if not len(exact):
        assert (np.isnan(row["value"]), row["reason"]) == (True, "no_spans")
        return
    assert row["value"] == pytest.approx(exact.sum(), rel=EXACT)


def test_the_bias_of_failed_rows_is_the_difference_of_their_coverage_with_newcombes_interval():
    row, rows = measured().loc[(3, "span_error_bias")], requests()[3]
    failed = rows["failed"] == 1
    mine, every = rows["traced"][failed], rows["traced"][~failed]
    interval = confint_proportions_2indep(
        mine.sum(), len(mine), every.sum(), len(every), method="newcomb", compare="diff"
    )

    assert row["value"] == pytest.approx(mine.mean() - every.mean(), rel=EXACT)
    assert (row["lower"], row["upper"]) == pytest.approx(interval, abs=EXACT)
    assert measured().loc[(0, "span_error_bias"), "reason"] == "one_status"


def test_the_bias_of_latencies_is_the_distance_of_both_distributions_as_far_as_bins_tell():
    row = measured().loc[(3, "span_latency_bias")]
    exact = stats.ks_2samp(known(3, "ms"), known(3, "ms_traced")).statistic

    assert row["value"] == pytest.approx(exact, abs=0.01)
    assert measured().loc[(0, "span_latency_bias"), "reason"] == "no_spans"


def test_sampled_stages_and_tokens_have_no_number() -> None:
    stage = counted_stage()
    frames = [
        stage_metrics({"stage.fetch_ms": stage}, unbiased=False),
        token_metrics({"tokens.input": of("tokens", "latency")}, unbiased=False),
    ]
    for frame in frames:
        assert set(frame["reason"]) == {"sampled"}
        assert frame[["value", "lower", "upper"]].isna().all(axis=None)
