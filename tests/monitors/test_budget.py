"""The alarm budget, against simulated verdicts."""

from __future__ import annotations

import datetime as dt
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, step
from mlmon_dagster.monitors.budget import alarm_budget, slower, stricter
from mlmon_dagster.monitors.evidence import A_YEAR, AN_ALERT, choose_level
from mlmon_dagster.spec.custom_metrics import CustomMetric
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.scalars import KOfN
from tests.monitors.cases import spec

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def opened(failures: np.ndarray, k: int, n: int) -> int:
    state, found = AlertState(), 0
    for i, failed in enumerate(failures):
        verdict = Verdict(START + dt.timedelta(days=i), "WARN" if failed else "OK", i + 1)
        taken = step(state, verdict, k=k, n=n)
        state, found = taken.after, found + ("opened" in taken.events)
    return found


@pytest.mark.parametrize(("q", "windows", "k", "n"), [(0.5, "2 of 3", 2, 3), (0.2, "1 of 1", 1, 1)])
def test_independent_windows_open_no_more_alerts_than_the_budget_says(q, windows, k, n):
    """8,000 windows of one of 10 columns, failing with q / 10: near the bound, or below it."""
    model = spec(drift={"q": q, "windows": windows})
    (budget,) = alarm_budget(model, {"drift": 10})
    failures = np.random.default_rng(3).random(8_000) < q / 10
    expected = budget.independent / 10 * 8_000 / 365.25
    assert 0.6 * expected <= opened(failures, k, n) <= 1.25 * expected


def test_the_defaults_stay_within_one_false_incident_a_year_of_independent_windows():
    model = spec(performance={"metric": "roc_auc", "drop": 0.05})
    found = {
        b.family: b for b in alarm_budget(model, {"drift": 31, "performance": 1, "quality": 9})
    }
    assert set(found) == {"drift", "performance"}
    assert sum(b.independent for b in found.values()) < 1
    assert found["drift"].wandering == pytest.approx(1.9, abs=0.1)
    assert found["drift"].delay == 2


def test_custom_metrics_cost_what_their_windows_do():
    own = tuple(
        CustomMetric(of=f"a.b:{name}", windows=rule)
        for name, rule in (("slow", KOfN(2, 3)), ("fast", KOfN(1, 1)))
    )
    model = spec().model_copy(update={"metrics": own})

    [budget] = alarm_budget(model, {"custom": 2})
    [slow] = alarm_budget(slower(model, "custom"), {"custom": 2})

    level = choose_level(KOfN(1, 1), "day")
    assert budget.independent == pytest.approx(AN_ALERT + A_YEAR["day"] * level)
    assert slow.independent < budget.independent


def test_one_window_instead_of_two_of_three_costs_false_alarms_and_gains_a_window():
    (fast,) = alarm_budget(spec(drift={"windows": "1 of 1"}), {"drift": 30})
    assert (fast.delay, round(fast.independent, 2)) == (1, 3.65)


def test_slower_windows_and_a_stricter_q_are_what_the_remedies_say():
    model = spec()
    (usual,) = alarm_budget(model, {"drift": 30})
    (late,) = alarm_budget(slower(model, "drift"), {"drift": 30})
    assert (usual.delay, late.delay) == (2, 3)
    assert late.independent < usual.independent / 8
    (wide,), (narrow,) = (alarm_budget(m, {"drift": 30}) for m in (model, stricter(model)))
    assert narrow.wandering == pytest.approx(wide.wandering / 10)


@given(st.integers(1, 6), st.integers(0, 6), st.sampled_from(["hour", "day", "week", "month"]))
def test_a_test_of_performance_opens_falsely_once_in_twenty_years_where_its_level_may_be_chosen(
    k: int, more: int, grain: Granularity
) -> None:
    rule = KOfN(k, k + more)
    level = choose_level(rule, grain)
    a_year = A_YEAR[grain] * comb(rule.n - 1, rule.k - 1) * level**rule.k
    assert 0.001 <= level <= 0.025
    assert level in (0.001, 0.025) or a_year == pytest.approx(AN_ALERT)
