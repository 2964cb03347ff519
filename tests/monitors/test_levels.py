"""Calibration and bias: on by default, quiet where nothing changed, noticed where it did."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.spec import ModelSpec
from tests.conftest import make_spec
from tests.monitors.cases import DAY, frame, metric, only, spec, verdicts, window

GAP, BIAS = "performance/calibration_gap", "performance/bias"
FIRST = DAY - pd.Timedelta(days=200)
ROW = 0.4  # how far one row strays, of shares near a fifth


def gap(
    day: pd.Timestamp, value: float, n: int, name: str = "calibration_gap", **fields: Any
) -> Any:
    half = 1.96 * ROW / math.sqrt(n)
    ends = {"lower": value - half, "upper": value + half}
    return metric(name, value, **{"window_start": day, "n": n, **ends, **fields})


def series(values: Any, n: int = 2000, start: pd.Timestamp = DAY, **fields: Any) -> list[Any]:
    days = [start + pd.Timedelta(days=i) for i in range(len(values))]
    return [gap(day, float(v), n, **fields) for day, v in zip(days, values, strict=True)]


def judged(
    baseline: Any, current: Any, model: ModelSpec | None = None, n: int = 2000, **fields: Any
) -> list[dict[str, Any]]:
    """Rows of every current window, judged together as a backfill does."""
    rows = series(current, n, **fields)
    return verdicts(
        "performance",
        rows,
        [window(row["window_start"]) for row in rows],
        model=model,
        baseline=frame([]),
        baseline_windows=frame(series(baseline, n, FIRST, **fields)),
    )


def statuses(rows: list[dict[str, Any]], monitor: str = GAP) -> list[str]:
    return [row["status"] for row in rows if row["monitor"] == monitor]


def noise(seed: int, days: int, n: int = 2000, spread: float = 0.01) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, days) + rng.normal(0, ROW / math.sqrt(n), days)


@pytest.mark.parametrize("drift", [-0.04, 0.04])
def test_scores_that_are_off_by_four_points_are_noticed_within_five_windows(drift: float):
    """Days that share a hundredth, of 5,000 rows; `benchmarks.levels` has more such worlds."""
    found = []
    for seed in range(8):
        quiet = noise(seed, 50, n=5000)
        rows = judged(
            quiet[:45], np.append(quiet[45:], noise(99 + seed, 5, n=5000) + drift), n=5000
        )
        found.append("WARN" in statuses(rows)[5:])
    assert all(found)


def test_healthy_windows_are_quiet():
    """Days that share a hundredth; `python -m benchmarks.levels` judges twenty years of them."""
    for seed in range(2):
        quiet = noise(seed, 45 + 90)
        assert set(statuses(judged(quiet[:45], quiet[45:]))) == {"OK"}


def test_a_baseline_that_is_off_itself_is_the_measure_and_is_named():
    rows = judged(noise(1, 45) + 0.2, noise(2, 5) + 0.2)
    assert set(statuses(rows)) == {"OK"}
    assert "in the baseline +0.20" in rows[-1]["message"]


def test_one_odd_window_does_not_fire_and_what_is_over_is_forgotten():
    quiet = noise(3, 60)
    odd = quiet[45:].copy()
    odd[7] += 0.3
    assert "WARN" not in statuses(judged(quiet[:45], odd))
    lasting = quiet[45:].copy()
    lasting[3:9] += 0.08
    found = statuses(judged(quiet[:45], lasting))
    assert found[6] == "WARN"
    assert set(found[11:]) == {"OK"}


def test_the_sentence_says_first_what_was_expected_and_what_came():
    rows = series(np.full(5, -0.11), 2000)
    rates = [metric("actual_rate", 0.29, window_start=row["window_start"], n=2000) for row in rows]
    found = verdicts(
        "performance", [*rows, *rates], [window(rows[-1]["window_start"])],
        baseline_windows=frame(series(np.tile([0.005, -0.005], 20), 2000, FIRST)),
    )  # fmt: skip
    row = only(found, GAP)
    assert row["message"] == (
        "Over the last 5 days the model expects 18 % on average where 29 % come true.\n"
        "Calibration gap is -0.11, in the baseline 0 (n 10,000); 95 % interval of the change "
        "-0.12 to -0.10, limit 0.02."
    )
    assert (row["status"], row["value"]) == ("WARN", pytest.approx(-0.11))


@pytest.mark.parametrize(("factor", "is_found"), [(1, False), (2, True)])
def test_of_rare_positives_doubled_scores_are_noticed_and_healthy_ones_are_quiet(
    factor: int, is_found: bool
):
    """Two in a thousand of 5,000 rows, ten a day as Poisson's; their scores add up to as many."""
    rate, n, statuses_of = 0.002, 5_000, list[str]()
    for seed in range(2):
        came = np.random.default_rng(seed).poisson(rate * n, 45 + 30) / n
        expected = rate * np.where(np.arange(75) < 45, 1, factor)
        rows = [
            metric("calibration_gap", float(gap), window_start=FIRST + pd.Timedelta(days=i), n=n,
                   lower=float(gap - half), upper=float(gap + half))
            for i, (gap, half) in enumerate(
                zip(expected - came, Z95 * np.sqrt(came / n), strict=True)
            )
        ]  # fmt: skip
        days = [window(row["window_start"]) for row in rows[45:]]
        known = {"baseline": frame([metric("actual_rate", rate)])}
        found = [
            row for row in verdicts(
                "performance", [*rows[45:], *[
                    metric("actual_rate", rate, window_start=day["window_start"]) for day in days
                ]], days, baseline_windows=frame(rows[:45]), **known,
            ) if row["monitor"] == GAP
        ]  # fmt: skip
        statuses_of += [row["status"] for row in found]
        assert {row["threshold"] for row in found} == {"shift 0.0005"}
    assert ("WARN" in statuses_of) == is_found


def test_of_several_classes_the_furthest_off_is_named_once():
    classes = ("a", "b", "c")
    model = make_spec(
        task="multiclass_classification",
        columns={
            "prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y",
            "scores": {"a": "pa", "b": "pb", "c": "pc"},
        },
    )  # fmt: skip
    shifts, rows, baseline = {"a": 0.06, "b": -0.05, "c": -0.01, "": 0.06}, [], []
    for i, (name, shift) in enumerate(shifts.items()):
        column = {"column_name": f"class:{name}"} if name else {}
        rows += series(noise(i, 5) + shift, **column)
        baseline += series(noise(9 + i, 45), start=FIRST, **column)
    found = verdicts(
        "performance", rows, [window(rows[4]["window_start"])], model=model,
        baseline_windows=frame(baseline),
    )  # fmt: skip
    row = only(found, GAP)
    assert row["status"] == "WARN"
    assert row["message"].startswith("Over the last 5 days the model expects 'a' 6")
    assert row["family_size"] == len(classes)


REGRESSION = make_spec(
    task="regression",
    columns={"prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y"},
)


@pytest.mark.parametrize(("lean", "within"), [(2 * ROW / math.sqrt(20), 30), (1.6, 5)])
def test_a_regression_that_leans_is_noticed(lean: float, within: int):
    """By two standard errors of a window, which no single one shows, and by two of a row."""
    for seed in range(3):
        quiet = noise(seed, 45 + within, n=20, spread=0.0)
        rows = judged(quiet[:45], np.clip(quiet[45:] + lean, -1, 1), REGRESSION, 20, name="bias")
        assert "WARN" in statuses(rows, BIAS)


@pytest.mark.parametrize(("windows", "reason"), [(None, "learning"), (3, "few_windows"), (8, "")])
def test_without_a_baselines_windows_there_is_no_verdict(windows: int | None, reason: str):
    known = {} if windows is None else {"baseline_windows": frame(series(np.zeros(windows)))}
    rows = series([0.0])
    row = only(verdicts("performance", rows, [window(rows[0]["window_start"])], **known), GAP)
    assert (row["status"], row["reason"]) == ("NO_DATA" if reason else "OK", reason)


def test_provisional_windows_are_not_judged_by_level():
    known = frame(series(np.zeros(20), start=FIRST))
    day = window(DAY, maturity="provisional")
    row = only(verdicts("performance", series([0.9]), [day], baseline_windows=known), GAP)
    assert (row["status"], row["reason"]) == ("NO_DATA", "labels_still_coming")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({}, {"roc_auc", "calibration_gap"}),
        ({"performance": {"metric": "f1", "drop": 0.1}}, {"f1", "calibration_gap"}),
        ({"performance": []}, set()),
    ],
)
def test_calibration_is_watched_unless_no_performance_is(declared: Any, expected: set[str]):
    assert {monitor.metric for monitor in spec(**declared).monitors.performance} == expected


def test_a_declared_limit_of_the_same_metric_replaces_the_default():
    own = {"metric": "calibration_gap", "shift": 0.1, "over": 7, "severity": "ERROR"}
    monitors = spec(performance=[own]).monitors.performance
    assert [(m.metric, m.shift, m.over) for m in monitors] == [("calibration_gap", 0.1, 7)]


def test_bias_and_error_of_a_regression_are_watched():
    found = {m.metric: m.shift or m.change or m.drop for m in REGRESSION.monitors.performance}
    assert found == {"r2": 0.1, "bias": 0.05, "mae": 0.25}


def test_one_lucky_window_is_no_evidence_that_a_shift_is_over():
    rows = [row for row in judged(noise(1, 45), [0.06] * 6 + [-0.02, 0.0]) if row["monitor"] == GAP]

    assert rows[-2]["excess"] > -0.5
    assert rows[-1]["excess"] < -0.5
