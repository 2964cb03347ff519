"""Verdicts on the newest windows together, where none of them is worse by itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.spec import ModelSpec
from tests.monitors.cases import DAY, frame, metric, only, spec, verdicts, window

AUC = "performance/roc_auc"
FIRST = DAY - pd.Timedelta(days=100)
HALF = 0.09


def series(values: Any, start: pd.Timestamp, name: str = "roc_auc", **fields: Any) -> list[Any]:
    return [
        metric(name, float(value), window_start=start + pd.Timedelta(days=i), n=150,
               **{"lower": value - HALF, "upper": value + HALF} | fields)
        for i, value in enumerate(values)
    ]  # fmt: skip


def judge(values: Any, model: ModelSpec | None = None, **fields: Any) -> dict[str, Any]:
    """Judge the last of some days beside a baseline of forty, whose areas are .82 on average."""
    rng = np.random.default_rng(0)
    strays = rng.normal(0, 0.04, 40)
    baseline = series(0.82 + strays - strays.mean(), FIRST, dataset="validation")
    known = metric("roc_auc", 0.82, lower=0.81, upper=0.83, n=6_000) | {
        "usual": 0.82, "usual_error": 0.006, "spread": 0.01, "row_error": 0.045, "n_windows": 40,
    }  # fmt: skip
    rows = series(values, DAY, **fields)
    return only(
        verdicts(
            "performance",
            rows,
            [window(rows[-1]["window_start"], n_actual=150)],
            model=model,
            baseline=pd.DataFrame([known]),
            baseline_windows=frame(baseline),
        ),
        AUC,
    )


def test_two_weeks_that_are_each_within_the_usual_fail_together_and_say_so() -> None:
    row = judge(0.73 + np.random.default_rng(1).normal(0, 0.03, 14))
    assert row["status"] == "ERROR"
    first, second = row["message"].split("\n")
    assert first == "ROC AUC is 0.73 over the last 14 days, worse than the usual 0.81."
    assert second == (
        "This day alone (n 150) may be chance, together they are not (n 2,100); the limit is a "
        "fall of 0.05."
    )
    assert row["value"] == pytest.approx(0.73, abs=0.02)
    assert row["lower"] < row["value"] < row["upper"]
    assert (row["n"], json.loads(row["details"])["n_together"]) == (2_100, 14)
    assert row["method_version"].endswith(":together")
    assert row["excess"] == pytest.approx((0.81 - 0.73) / 0.05 - 1, abs=0.3)


def test_a_verdict_is_of_as_many_windows_as_it_names() -> None:
    family, model = JUDGED_BY["performance"], spec()
    together = judge(0.73 + np.random.default_rng(1).normal(0, 0.03, 14))
    alone = judge(np.full(14, 0.82))
    assert (family.count_judged(model, together), family.count_judged(model, alone)) == (14, 1)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.full(14, 0.82), "nothing moved"),
        (np.full(14, 0.79), "less than the limit"),
        (np.full(5, 0.75), "too few windows"),
        (np.r_[np.full(11, 0.74), np.full(3, 0.82)], "it is over"),
        (np.full(14, 0.9), "it is better"),
    ],
)
def test_what_does_not_move_far_surely_or_any_more_leaves_the_window_to_itself(
    values: Any, why: str
) -> None:
    row = judge(values)
    assert row["status"] == "OK", why
    assert "together" not in row["message"]


def test_a_window_that_fails_by_itself_is_told_by_itself() -> None:
    row = judge(np.r_[np.full(13, 0.75), 0.5])
    assert row["status"] == "ERROR"
    assert row["message"].startswith("ROC AUC is 0.50, worse than the usual")


def test_windows_that_the_baseline_holds_say_nothing_against_it() -> None:
    """Of a moving baseline the newest windows are those after it."""
    model = spec()
    rng = np.random.default_rng(0)
    values = np.r_[0.82 + rng.normal(0, 0.04, 30), np.full(14, 0.72)]
    rows = series(values, FIRST)
    known = metric("roc_auc", 0.82, lower=0.81, upper=0.83, n=6_000) | {
        "usual": 0.82, "usual_error": 0.006, "spread": 0.01, "row_error": 0.045, "n_windows": 38,
    }  # fmt: skip
    for held, status in ((30, "ERROR"), (39, "OK")):
        found = verdicts(
            "performance",
            rows,
            [window(rows[-1]["window_start"], n_actual=150)],
            model=model,
            baseline=pd.DataFrame([known]),
            baseline_windows=frame(rows[:held]),
        )
        assert only(found, AUC)["status"] == status, held
