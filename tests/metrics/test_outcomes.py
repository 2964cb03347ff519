"""Intervals of outcomes hold what they should, heavy tails or not, and no tail is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.outcomes import LAWS, counted, windows
from mlmon_dagster.metrics.business import business_metrics
from mlmon_dagster.metrics.means import Mean, Tail, skewed_mean_interval

DRAWS = 1_000  # 1.96 standard errors of a share of .95 are .0135


@pytest.mark.parametrize("law", list(LAWS))
def test_the_interval_of_a_mean_holds_it_in_about_95_percent_and_every_window_has_one(
    law: str,
) -> None:
    found = windows(LAWS[law], 500, DRAWS, np.random.default_rng(3))
    assert 0.93 - 0.0135 <= found["held"] <= 0.97 + 0.0135
    assert found["given"] >= 0.99


def test_of_2000_rows_what_is_no_power_law_is_not_taken_for_one() -> None:
    reach = {
        name: windows(LAWS[name], 2_000, 100, np.random.default_rng(3))["reach"]
        for name in ("log-normal, sigma 1.5", "Pareto, tail 1.5", "Pareto, tail 1.1")
    }
    assert reach["log-normal, sigma 1.5"] < 5 < reach["Pareto, tail 1.5"] < 10
    assert reach["Pareto, tail 1.1"] > 20


@pytest.mark.parametrize("law", ["Pareto, tail 1.1", "Pareto, tail 1.5", "Pareto, tail 2.2"])
def test_windows_that_happened_to_draw_no_large_row_hold_the_mean_too(law: str) -> None:
    draw, truth = LAWS[law]
    rows = draw(np.random.default_rng(3), (DRAWS, 500))
    frame = business_metrics({"x": counted(rows)}, None, {})
    means = frame[frame["metric"] == "mean_outcome"]
    held = (means["lower"] <= truth).to_numpy() & (means["upper"] >= truth).to_numpy()

    largest = rows.max(axis=1)
    assert held[largest < np.quantile(largest, 0.25)].mean() > 0.87  # was .71, .81 and .86


def test_without_skewness_the_interval_is_students_and_of_mirrored_values_it_is_mirrored() -> None:
    mean = Mean(np.array([2.0]), np.array([0.1]), np.array([400]))
    none, some, n = np.zeros(1), np.full(1, 3.0), np.array([400])
    tail = Tail(np.full(1, 0.4), np.full(1, 1.5))
    low, high = skewed_mean_interval(mean, none, none, tail, n)
    assert [low[0], high[0]] == pytest.approx([2 - 0.196593, 2 + 0.196593], abs=1e-5)

    low, high = skewed_mean_interval(mean, some, none, tail, n)
    index = 0.4 * (1 + 8 / 20)  # as high as 400 rows let it be
    moved = (1.45 + 1.4 * index / (1 - index) * 1.5) * 3.0 / 20
    t = stats.t.ppf(0.975, 399)
    assert high[0] == pytest.approx(2 + 0.1 * (t + (2 * t**2 + 1) / 6 * moved), rel=1e-9)
    assert 2 - low[0] < 0.18
    down, up = skewed_mean_interval(mean, none, some, tail, n)
    assert [2 - down[0], up[0] - 2] == pytest.approx([high[0] - 2, 2 - low[0]])


def test_ten_buyers_are_the_fewest_whose_mean_has_an_interval() -> None:
    rows = np.zeros((2, 500))
    rows[0, :9], rows[1, :10] = np.arange(1, 10), np.arange(1, 11)
    frame = business_metrics({"x": counted(rows)}, None, {})
    means = frame[frame["metric"] == "mean_outcome"]

    assert means["reason"].tolist() == ["few_rows", ""]
    assert means["lower"].isna().tolist() == [True, False]
    assert means["value"].notna().all()


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-3])
def test_an_amount_that_hardly_differs_has_students_interval_wherever_its_bin_is(
    spread: float,
) -> None:
    amounts = 0.35 + spread * np.random.default_rng(3).normal(0, 1, (1, 400))
    frame = business_metrics({"x": counted(amounts)}, None, {}).set_index("metric")
    half = stats.t.ppf(0.975, 399) * amounts.std(ddof=1) / 20
    ends = frame.loc["mean_outcome", ["lower", "upper"]] - amounts.mean()
    assert ends.tolist() == pytest.approx([-half, half], rel=0.15, abs=1e-9)


@pytest.mark.parametrize("dear", [0.02, 0.05, 0.08])
def test_a_price_list_is_no_heavy_tail_however_far_its_prices_are_apart(dear: float) -> None:
    found = windows(
        (lambda rng, size: rng.choice([10.0, 1_000.0], size, p=[1 - dear, dear]), 10 + 990 * dear),
        500,
        DRAWS,
        np.random.default_rng(3),
    )
    assert 0.93 - 0.0135 <= found["held"] <= 0.97 + 0.0135
    assert found["reach"] < 2.7  # of a tail without a variance over 5


def test_the_share_of_the_largest_hundredth_is_that_of_the_rows_gains_and_losses_alike() -> None:
    values = np.random.default_rng(5).lognormal(0, 1.5, (1, 1_000))
    values[:, ::3] *= -1
    frame = business_metrics({"x": counted(values)}, None, {}).set_index("metric")
    sizes = np.sort(np.abs(values[0]))
    exact = sizes[-10:].sum() / sizes.sum()
    assert frame.loc["outcome_top_share", "value"] == pytest.approx(exact, rel=0.02)
    assert frame.loc["median_outcome", "value"] == pytest.approx(np.median(values), rel=0.03)
