"""How far past its limit a window is, which tells severe windows and recoveries."""

from __future__ import annotations

import pandas as pd
import pytest

from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, step
from mlmon_dagster.monitors.evidence import excess, excess_of
from mlmon_dagster.spec.monitors import Condition
from tests.monitors.cases import DAY, frame, metric, only, verdicts, window

ONE = pd.Timedelta(days=1)


def drift(value: float, p: float) -> dict:
    return metric("psi", value, "age", p_value=p, lower=value - 0.01, upper=value + 0.01)


@pytest.mark.parametrize(
    ("family", "row", "name", "expected"),
    [
        ("quality", metric("null_rate", 0.4, "age", lower=0.3, upper=0.5),
         "quality/null_rate/age", (1.0, 0.5)),
        ("quality", metric("null_rate", 0.0, "age", lower=0.0, upper=0.01),
         "quality/null_rate/age", (-1.0, 0.0)),
        ("drift", drift(0.3, 1e-9), "drift/psi/age", (2.0, None)),
        ("drift", drift(0.02, 0.4), "drift/psi/age", (-0.8, None)),
        ("drift", drift(0.3, 0.4), "drift/psi/age", (2.0, None)),  # may be chance
        ("quality", metric("null_rate", 0.4, "age", n=9), "quality/null_rate/age", (None, None)),
    ],
)  # fmt: skip
def test_each_family_says_how_far_past_its_limit_a_window_is(family, row, name, expected):
    found = only(verdicts(family, [row]), name)
    assert (found["excess"], found["excess_error"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"above": 0.0}, 0.0, -1.0),
        ({"above": 0.0}, 0.01, 0.01),
        ({"above": 200.0}, 300.0, 0.5),
        ({"below": 100.0}, 200.0, -1.0),
        ({"below": 100.0}, 50.0, 0.5),
        ({"below": 100.0}, 100.0, 0.0),
    ],
)
def test_below_a_limit_counts_as_above_it_and_a_limit_of_zero_allows_nothing(
    condition, value, expected
):
    found = excess_of(Condition(**condition), {"value": value, "lower": None, "upper": None})
    assert found == {"excess": pytest.approx(expected), "excess_error": None}


def test_what_is_not_finite_is_no_evidence():
    assert excess(float("nan"), 0.1, float("inf")) == {"excess": None, "excess_error": None}


@pytest.mark.parametrize(("low", "opens"), [(0.80, True), (0.84, False)])
def test_a_collapse_of_one_window_fires_at_once_and_a_lone_window_past_the_limit_does_not(
    low, opens
):
    """ROC AUC of 5,000 rows, .90 in the baseline; the next day it is within the limit again."""
    aucs = [0.90, low, 0.86, 0.86]
    days = [window(DAY + i * ONE) for i in range(len(aucs))]
    rows = [
        metric("roc_auc", auc, n=5000, lower=auc - 0.022, upper=auc + 0.022,
               window_start=day["window_start"])
        for auc, day in zip(aucs, days, strict=True)
    ]  # fmt: skip
    base = frame([metric("roc_auc", 0.90, lower=0.895, upper=0.905, n=20_000)])
    state, events = AlertState(), []
    found = verdicts("performance", rows, days, baseline=base)
    for number, row in enumerate(r for r in found if r["monitor"] == "performance/roc_auc"):
        told = Verdict(
            row["window_start"], row["status"], number, row["excess"], row["excess_error"]
        )
        state, happened = step(state, told, k=row["k"], n=row["of_n"])
        events += [(event, number) for event in happened]

    assert (found[0]["k"], found[0]["of_n"]) == (2, 3)
    assert events == ([("opened", 1)] if opens else [])
