"""Drift, quality and service of random and degenerate rows, against scipy and counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlmon_dagster.metrics.drift.distances import FURTHER, OF_BINS
from mlmon_dagster.metrics.drift.null_distribution import DISTANCES
from mlmon_dagster.spec.metric_registry import NOVEL
from tests.metrics.data_windows import (
    LATENCIES,
    NOTHING,
    NUMBERS,
    WORDS,
    data_world,
    distances,
    finite,
    quantile_counts,
    word_counts,
)
from tests.metrics.oracles import EXACT

pytestmark = pytest.mark.xdist_group("oracles")  # they share what was measured

WINDOWS = tuple(LATENCIES)
NOVELTY = (NOVEL, f"{NOVEL}_auto")
SCALED = ("wasserstein_scaled", "mean_shift")
OF_NUMBERS = ("ks", "wasserstein", *SCALED)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("column", [*NUMBERS, *WORDS, *NOTHING])
def test_quality_rates_are_shares_of_the_rows(window, column):
    world = data_world()
    values, found = world.windows[window][column], world.rows(window, column, "quality")
    expected = {"null_rate": values.isna().mean()}
    if column in (*NUMBERS, "no_number"):
        numbers = np.asarray(pd.to_numeric(values), dtype=float)
        missing = np.array([v is None for v in values])
        expected["null_rate"] = missing.mean()
        nan = np.isnan(numbers) & ~missing
        expected |= {"nan_rate": nan.mean(), "inf_rate": np.isinf(numbers).mean()}
        known = np.where(np.isfinite(numbers), numbers, 0)
        expected["out_of_range_rate"] = (np.abs(known) > 2).mean() if column == "x" else 0.0
    elif column != "no_word":
        expected["unseen_rate"] = word_counts(values, world.baseline[column])[-2] / len(values)
    rates = found["value"].drop("unseen_rate_auto", errors="ignore").to_dict()
    assert rates == pytest.approx(expected, abs=EXACT)
    assert set(found["reason"]) == {""}


@pytest.mark.parametrize("column", ["x", "c"])
@pytest.mark.parametrize("metric", [*DISTANCES, *OF_BINS])
def test_distances_over_bins_are_scipys(column, metric):
    world, count = data_world(), quantile_counts if column == "x" else word_counts
    then = world.baseline[column]
    for name in ("random", "changed"):
        raw = distances(count(world.windows[name][column], then), count(then, then))[metric]
        found = world.rows(name, column, "drift").loc[metric]
        assert found["value"] == pytest.approx(raw, abs=EXACT)
        assert 0 < found["by_chance"] < raw
    assert found["p_value"] < 0.01


@pytest.mark.parametrize("window", ["random", "changed"])
def test_the_shift_of_the_mean_of_a_column_of_few_values_is_exact(window):
    world = data_world()
    now, then = (finite(side["k"]) for side in (world.windows[window], world.baseline))
    found = world.rows(window, "k", "drift").loc["mean_shift", "value"]
    assert found == pytest.approx((now.mean() - then.mean()) / then.std(), abs=EXACT)


@pytest.mark.parametrize("column", ["k", "x"])
def test_ks_is_scipys_exactly_for_few_values_and_within_the_bins_for_many(column):
    world = data_world()
    then = finite(world.baseline[column])
    for name in ("random", "changed"):
        now = finite(world.windows[name][column])
        found = world.rows(name, column, "drift").loc["ks"]
        assert found["n"] == len(now)
        bound = 1 / 12 if column == "x" else 0.0  # more than any of 240 bins holds
        exact = stats.ks_2samp(now, then).statistic
        assert exact - bound - EXACT <= found["value"] <= exact + EXACT


def test_wasserstein_of_few_values_is_scipys():
    world = data_world()
    then, now = (finite(side["k"]) for side in (world.baseline, world.windows["changed"]))
    exact = stats.wasserstein_distance(np.minimum(now, then.max()), then)
    found = world.rows("changed", "k", "drift")
    assert found.loc["wasserstein", "value"] == pytest.approx(exact, rel=EXACT)
    for end in ("value", "by_chance"):
        scaled = found.loc["wasserstein", end] / then.std()
        assert found.loc["wasserstein_scaled", end] == pytest.approx(scaled, rel=EXACT)
    assert found.loc["wasserstein", "by_chance"] < 2 * then.std() / np.sqrt(len(now))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("column", [*NUMBERS, *WORDS])
def test_drift_of_any_window_has_a_finite_value_or_the_documented_reason(window, column):
    world = data_world()
    found = world.rows(window, column, "drift")
    values, is_number = world.windows[window][column], column in NUMBERS
    names = {*DISTANCES, *FURTHER} | ({"ks", *NOVELTY} if is_number else set())
    assert set(found.index) == names
    missing = found[found["value"].isna()]
    assert np.isfinite(found["value"].dropna()).all()
    assert not np.isinf(found[["lower", "upper"]]).any(axis=None)
    reasons = missing["reason"].to_dict()
    if window == "one_row":
        assert set(reasons.values()) == {"few_rows"}
        assert len(missing) == len(found)
        return
    expected = {}
    if not is_number:
        expected |= dict.fromkeys(OF_NUMBERS[1:], "not_ordered")
    elif not len(finite(values)):
        expected |= dict.fromkeys((*OF_NUMBERS, *NOVELTY), "all_null")
    if column == "constant":
        expected |= dict.fromkeys(SCALED, "constant_baseline")
    assert reasons == expected


@pytest.mark.parametrize("window", ["all_null", "not_a_number", "infinite", "1e300", "largest"])
@pytest.mark.parametrize("column", ["x", "k", "constant"])
def test_a_window_that_has_nothing_of_the_baseline_is_far_from_it(window, column):
    found = data_world().rows(window, column, "drift")
    assert found.loc["psi", "value"] > 1
    assert found.loc["psi", "p_value"] < 1e-6


@pytest.mark.parametrize("column", NOTHING)
def test_a_feature_that_the_baseline_does_not_know_is_told_so(column):
    for window in WINDOWS:
        found = data_world().rows(window, column, "drift")
        assert set(found["reason"]) == {"not_in_baseline"}
        assert found["value"].isna().all()


@pytest.mark.parametrize("window", WINDOWS)
def test_latency_quantiles_are_within_one_percent_or_have_a_reason(window):
    world = data_world()
    rows, found = world.windows[window], world.rows(window, ":table", "service")
    assert found.loc["n", "value"] == len(rows)
    known = finite(rows["latency_ms"])
    for level, metric in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        row = found.loc[f"{metric}_latency_ms"]
        if len(known) < round(1 / (1 - level)):
            assert row["reason"] == ("few_rows" if len(known) else "no_latency")
            assert np.isnan(row["value"])
            continue
        exact = np.quantile(known, level, method="inverted_cdf")
        # Below the scale of a microsecond everything is about one.
        assert row["value"] == pytest.approx(exact, rel=0.0101, abs=0.00102)
        assert row["lower"] <= row["value"] <= row["upper"]


@pytest.mark.parametrize("window", WINDOWS)
def test_error_rate_is_the_share_of_other_statuses(window):
    world = data_world()
    words = world.windows[window]["status"].dropna().str.lower()
    row = world.rows(window, ":table", "service").loc["error_rate"]
    if not len(words):
        assert (row["reason"], np.isnan(row["value"])) == ("no_status", True)
        return
    share = (~words.isin(["ok", "success", "200"])).mean()
    assert row["value"] == pytest.approx(share, abs=EXACT)
