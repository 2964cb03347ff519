"""Intervals of outcomes with heavy tails hold what they should, and none is given that cannot."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.outcomes import LAWS, NO_MEAN, counted, windows
from mlmon_dagster.metrics.business import business_metrics

DRAWS = 1_000  # 1.96 standard errors of a share of .95 are .0135
GIVEN = {"log-normal, sigma 2": 0.4}  # 500 rows of it look like no mean


@pytest.mark.parametrize("law", [law for law in LAWS if law != NO_MEAN])
def test_the_interval_of_a_mean_holds_it_in_about_95_percent(law: str) -> None:
    found = windows(LAWS[law], 500, DRAWS, np.random.default_rng(3))
    assert 0.93 - 0.0135 <= found["held"] <= 0.97 + 0.0135
    assert found["given"] >= GIVEN.get(law, 0.8)


def test_where_hardly_a_mean_exists_most_windows_have_none_to_trust_and_say_so() -> None:
    rows = LAWS[NO_MEAN][0](np.random.default_rng(3), (200, 2_000))
    frame = business_metrics({"x": counted(rows)}, None, None).set_index("metric")
    means = frame.loc["mean_outcome"]
    without = means[means["lower"].isna()]

    assert len(without) >= 0.85 * len(means)
    assert set(without["reason"]) == {"heavy_tail"}
    assert without["value"].notna().all()
    assert set(frame.loc["median_outcome", "reason"]) == {""}


def test_ten_buyers_are_the_fewest_whose_mean_has_an_interval() -> None:
    rows = np.zeros((2, 500))
    rows[0, :9], rows[1, :10] = np.arange(1, 10), np.arange(1, 11)
    frame = business_metrics({"x": counted(rows)}, None, None)
    means = frame[frame["metric"] == "mean_outcome"]

    assert means["reason"].tolist() == ["few_rows", ""]
    assert means["lower"].isna().tolist() == [True, False]
    assert means["value"].notna().all()


def test_where_two_kinds_of_rows_meet_their_tail_is_none_that_has_no_mean() -> None:
    rng = np.random.default_rng(3)
    rows = rng.exponential(np.where(rng.random((100, 2_000)) < 0.1, 10.0, 1.0))
    frame = business_metrics({"x": counted(rows)}, None, None)
    means = frame[frame["metric"] == "mean_outcome"]

    assert means["lower"].notna().mean() >= 0.8


def test_a_price_list_is_no_heavy_tail_however_far_its_prices_are_apart() -> None:
    rng = np.random.default_rng(3)
    rows = np.concatenate(
        [rng.choice([10.0, 1_000.0], (100, 500), p=[1 - p, p]) for p in (0.02, 0.05, 0.08)]
    )
    frame = business_metrics({"x": counted(rows)}, None, None)
    means = frame[frame["metric"] == "mean_outcome"]

    assert means["lower"].notna().all()


def test_the_share_of_the_largest_hundredth_is_that_of_the_rows_gains_and_losses_alike() -> None:
    values = np.random.default_rng(5).lognormal(0, 1.5, (1, 1_000))
    values[:, ::3] *= -1
    frame = business_metrics({"x": counted(values)}, None, None).set_index("metric")
    sizes = np.sort(np.abs(values[0]))
    exact = sizes[-10:].sum() / sizes.sum()
    assert frame.loc["outcome_top_share", "value"] == pytest.approx(exact, rel=0.02)
    assert frame.loc["median_outcome", "value"] == pytest.approx(np.median(values), rel=0.03)
