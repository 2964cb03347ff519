"""What a cause goes with: equal to other libraries, and with intervals that hold it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from benchmarks.effect import CELLS, TRUE, Rows, drawn, found_in, tried
from mlmon_dagster.spec.declaration import Experiment
from mlmon_dagster.trace.effect import (
    Effect,
    arm_sums,
    describe_effect,
    describe_trial,
    effect_of,
    scale_of,
    trial_of,
    window_sums,
)

EXACT = 1e-9
NAMES = {"cause": "latency_ms", "unit": "ms", "outcome": "revenue", "more_is": "worse"}


def rows(seed: int, windows: int = 24, world: str = "covariate and days") -> list[Rows]:
    rng = np.random.default_rng(seed)
    return [drawn(rng, world, 200) for _ in range(windows)]


def effect(found: list[Rows]) -> Effect:
    scale = scale_of(np.concatenate([cause for cause, _, _ in found]))
    assert scale is not None
    effect = effect_of([window_sums(*one, CELLS, scale) for one in found], scale)
    assert effect is not None
    return effect


def frame(found: list[Rows]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"d": d, "y": y, "cell": c, "window": i}) for i, (d, y, c) in enumerate(found)
    ]
    return pd.concat(parts, ignore_index=True)


def test_slope_and_error_equal_a_regression_with_clusters_on_what_the_cells_leave() -> None:
    found = rows(1)
    table = frame(found)
    groups = table.groupby(["window", "cell"])
    d = table["d"] - groups["d"].transform("mean")
    y = table["y"] - groups["y"].transform("mean")
    fitted = OLS(y, d).fit(cov_type="cluster", cov_kwds={"groups": table["window"]}, use_t=True)
    [[lower, upper]] = fitted.conf_int().to_numpy()
    ours = effect(found).slope

    assert ours.value == pytest.approx(fitted.params.iloc[0], rel=EXACT)
    assert (ours.lower, ours.upper) == pytest.approx((lower, upper), rel=EXACT)


def test_the_unadjusted_slope_and_its_error_are_a_plain_regression_s() -> None:
    found = rows(3)
    table = frame(found)
    x = add_constant(table["d"])
    fitted = OLS(table["y"], x).fit(
        cov_type="cluster", cov_kwds={"groups": table["window"]}, use_t=True
    )
    n = len(table)  # statsmodels counts the constant in its factor (n - 1) / (n - k)
    error = fitted.bse["d"] / np.sqrt((n - 1) / (n - 2))
    half = stats.t.ppf(0.975, len(found) - 1) * error
    ours = effect(found).unadjusted

    assert ours.value == pytest.approx(fitted.params["d"], rel=EXACT)
    assert (ours.lower, ours.upper) == pytest.approx(
        (fitted.params["d"] - half, fitted.params["d"] + half), rel=1e-8
    )


def test_ranges_are_standardised_to_the_covariates_of_all_rows() -> None:
    found = rows(4)
    table, ours = frame(found), effect(found)
    edges = [-np.inf, *ours.ranges["high"]]
    table["range"] = pd.cut(table["d"], edges, right=False, labels=False)
    weights = table["cell"].value_counts(normalize=True)
    plain = table.groupby("range")["y"].mean()
    means = table.groupby(["range", "cell"])["y"].mean().unstack()

    assert ours.ranges["n"].tolist() == table["range"].value_counts().sort_index().tolist()
    assert ours.ranges["mean"].tolist() == pytest.approx(plain.tolist())
    assert means.notna().all(axis=None)
    assert ours.ranges["adjusted"].tolist() == pytest.approx((means * weights).sum(axis=1).tolist())


def test_a_range_that_lacks_the_covariates_mix_has_no_standardised_mean() -> None:
    found = [(d + 1e5 * (c == 0), y, c) for d, y, c in rows(5)]
    ranges = effect(found).ranges

    assert ranges["mix"].iloc[-1] < 0.8
    assert np.isnan(ranges["adjusted"].iloc[-1])
    assert ranges["n"].iloc[-1] > 0


@pytest.mark.parametrize(
    "world", ["as it is", "a covariate moves both, declared", "days move both"]
)
def test_intervals_hold_the_slope_where_covariates_and_days_move_both(world: str) -> None:
    rng = np.random.default_rng(7)
    found = [found_in(rng, world, 12, 150) for _ in range(200)]
    held = sum(one.slope.lower <= TRUE <= one.slope.upper for one in found)
    plain = sum(one.unadjusted.lower <= TRUE <= one.unadjusted.upper for one in found)

    assert stats.binomtest(held, 200, 0.95).pvalue > 1e-3
    assert world == "as it is" or plain < 150


def test_rows_without_a_cause_are_counted_apart_with_their_mean() -> None:
    found = rows(11)
    failed = [(np.where(y > np.quantile(y, 0.1), d, np.nan), y, c) for d, y, c in found]
    ours = effect(failed)
    lost = np.concatenate([y[np.isnan(d)] for d, y, _ in failed])
    said = "\n".join(describe_effect(ours, NAMES, 100, []))

    assert ours.missing == len(lost)
    assert ours.missing_mean == pytest.approx(lost.mean())
    assert "have an outcome but no latency_ms, as failed requests do" in said


def test_a_worth_that_makes_requests_slow_is_called_reversed_until_it_is_a_covariate() -> None:
    rng = np.random.default_rng(12)
    open_, closed = [], []
    for _ in range(24):
        basket = rng.integers(0, CELLS, 200)
        cause = rng.lognormal(4.6, 0.2, 200) * (1 + 0.3 * basket)
        outcome = 10.0 * basket + TRUE * cause + rng.normal(0, 0.5, 200)
        open_.append((cause, outcome, np.zeros(200, int)))
        closed.append((cause, outcome, basket))

    assert "The cause is reversed" in "\n".join(describe_effect(effect(open_), NAMES, 100, []))
    declared = effect(closed)
    said = "\n".join(describe_effect(declared, NAMES, 100, ["basket"]))
    assert declared.slope.upper < 0
    assert "reversed" not in said
    assert "Over all rows it would be +" in said


def test_few_windows_give_a_slope_without_an_interval() -> None:
    ours = effect(rows(13, windows=5))

    assert np.isnan([ours.slope.lower, ours.slope.upper]).all()
    assert not ours.slope.is_sure
    assert "Only 5 windows" in "\n".join(describe_effect(ours, NAMES, 100, []))


@pytest.mark.parametrize("causes", [[], [np.nan, np.nan], [3.0, 3.0, np.nan]])
def test_a_cause_without_two_values_has_no_scale(causes: list[float]) -> None:
    assert scale_of(causes) is None


def test_rows_that_differ_between_cells_alone_have_no_slope() -> None:
    cell = np.array([0, 0, 1, 1])
    scale = scale_of([1.0, 2.0])
    assert scale is not None

    assert effect_of([window_sums(cell + 1.0, cell, cell, 2, scale)], scale) is None


def test_an_arm_drawn_by_lot_gives_the_effect_that_comparing_rows_gets_wrong() -> None:
    rng = np.random.default_rng(15)
    found = [tried(rng, 12, 150) for _ in range(200)]
    held = sum(one.per_unit.lower <= TRUE <= one.per_unit.upper for one in found)
    moved = sum(one.cause.lower <= 50 <= one.cause.upper for one in found)

    assert stats.binomtest(held, 200, 0.95).pvalue > 1e-3
    assert stats.binomtest(moved, 200, 0.95).pvalue > 1e-3


def test_arms_that_got_another_share_than_the_lot_gave_are_not_compared() -> None:
    rng = np.random.default_rng(16)
    arm = Experiment(column="arm", control="a", treatment="b")
    sums = []
    for _ in range(20):
        drawn_arm = (rng.random(500) < 0.55).astype(int)
        sums.append(arm_sums(rng.random(500), rng.random(500), drawn_arm))
    found = trial_of(sums)
    assert found is not None
    [said] = describe_trial(found, NAMES, 100, arm)

    assert not found.is_valid
    assert "not compared" in said
    assert "55." in said or "54." in said
    assert trial_of(sums, 0.55) is not None
    assert trial_of([arm_sums([1.0], [1.0], [0])]) is None
