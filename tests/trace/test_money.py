"""What a change is worth adds up, names who it is of, and chance is told as chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.statistics import ColumnStatistics, select
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import is_told_in_money
from mlmon_dagster.trace.explain import explain
from mlmon_dagster.trace.money import describe_worth, failed_worth, money_of, rounded
from tests.metrics.rows import make_spec, profiled

OUTCOMES = {
    "conversion": {"column": "c", "kind": "rate", "worth": 40.0},
    "refund": {"column": "r", "unit": "EUR", "better": "lower"},
}
DAYS, ROWS = 35, 400


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return make_spec(
        "binary_classification",
        {"prediction": "p", "outcomes": OUTCOMES},
        slices=["site"], currency="EUR",
    )  # fmt: skip


def days(fall: float) -> pd.DataFrame:
    """Return five weeks of visits; in the last one those of site s buy less by a share."""
    rng = np.random.default_rng(8)
    n = DAYS * ROWS
    day, site = np.repeat(np.arange(DAYS), ROWS), rng.choice(["n", "s"], n, p=[0.8, 0.2])
    usual = 0.3 + 0.01 * rng.normal(size=DAYS)[day]
    share = np.where((day >= DAYS - 7) & (site == "s"), usual * (1 - fall), usual)
    bought = (rng.random(n) < share).astype(float)
    refund = np.where(bought > 0, rng.exponential(2, n), 0.0)
    return pd.DataFrame(
        {"day": day, "site": site, "prediction": 1, "actual": bought, "conversion": bought,
         "refund": refund}
    )  # fmt: skip


def sides(spec: ModelSpec, rows: pd.DataFrame) -> tuple[dict[str, ColumnStatistics], ...]:
    profiles, _ = profiled(spec, rows, rows)
    starts = sorted(profiles[":outcome/conversion"].cells["window_start"].unique())

    def part(chosen: Any) -> dict[str, ColumnStatistics]:
        return {
            name: select(stats, stats.cells["window_start"].isin(chosen).to_numpy())
            for name, stats in profiles.items()
        }

    return part(starts[-7:]), part(starts[:-7])


def test_a_week_that_sold_less_is_told_with_its_worth_and_who_bought_less(spec: ModelSpec) -> None:
    rows = days(fall=0.8)
    found = {money.series: money for money in money_of(spec, *sides(spec, rows))}
    money = found["mean_outcome/conversion"]

    week = rows[rows["day"] >= DAYS - 7]
    before = rows.loc[rows["day"] < DAYS - 7, "conversion"].mean()
    lost = (week["conversion"].mean() - before) * len(week) * 40
    assert money.amount == pytest.approx(lost)
    assert money.is_real
    assert money.who == "site = s"
    assert "below usual" in money.sentence
    assert f"worth about {rounded(-lost)} EUR less" in money.sentence
    assert money.sentence.endswith("mostly site = s")
    saved = found["mean_cost/refund"]
    assert saved.amount is not None
    assert saved.amount > 0  # fewer refunds are a gain


def test_a_week_like_those_before_is_told_as_usual(spec: ModelSpec) -> None:
    found = money_of(spec, *sides(spec, days(fall=0.0)))
    assert [money.is_real for money in found] == [False, False]
    assert all("is as usual" in money.sentence for money in found)
    assert not any("EUR less" in money.sentence for money in found)


def test_few_windows_before_are_no_ground_to_speak_of_money(spec: ModelSpec) -> None:
    now, then = sides(spec, days(fall=0.8))
    starts = sorted(then["prediction"].cells["window_start"].unique())[-5:]
    few = {n: select(s, s.cells["window_start"].isin(starts).to_numpy()) for n, s in then.items()}
    [money, *_] = money_of(spec, now, few)
    assert math.isnan(money.margin)
    assert not money.is_real
    assert "too few windows to tell chance" in money.sentence


def test_the_trace_in_money_adds_up_over_the_slices(spec: ModelSpec) -> None:
    now, then = sides(spec, days(fall=0.8))
    found = explain(spec, "mean_outcome/conversion", now, then)
    assert found is not None
    [said] = describe_worth(spec, found)
    total = found.change * found.now.n * 40
    parts = found.slices.loc[found.slices["slice_key"] == "site", "effect"] * found.now.n * 40
    assert parts.sum() == pytest.approx(total, abs=1e-6)
    assert f"worth -{rounded(-total)} EUR" in said
    assert "site" not in said  # seven windows are too few to name a slice


def test_failed_requests_cost_what_as_many_usually_bring(spec: ModelSpec) -> None:
    rows = days(fall=0.0)
    _, then = sides(spec, rows)
    usual = rows[rows["day"] < DAYS - 7]
    each = 40 * usual["conversion"].mean() - usual["refund"].mean()
    assert failed_worth(spec, then) == pytest.approx(each)


def test_nothing_is_told_of_models_that_declare_nothing() -> None:
    spec = make_spec("binary_classification", {"prediction": "p"})
    assert not is_told_in_money(spec)
    assert not is_told_in_money(
        make_spec("binary_classification", {"prediction": "p"}, costs={"fp": 1.0})
    )
