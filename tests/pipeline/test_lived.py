"""A model that is looked at now and then, and corrections that come weeks after."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pipeline.looking import Place

FIRST = dt.date(2026, 1, 1)
DAY = dt.timedelta(days=1)
ROWS = 120
SPEC = """\
model: loans
task: binary_classification
owners: [team:risk]
time: {zone: UTC, start: 2026-01-01}
source:
  predictions: {path: landing/predictions/*.parquet, settle: 0s}
  actuals: {path: landing/actuals/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, dataset: dataset, score: score, prediction: decision,
          actual: bad, actual_time: known_at}
actuals: {expected_within: 20d, min_coverage: 0.9, closed_after: 90d}
features: {age: {type: numeric}}
monitors:
  performance: {metric: roc_auc, drop: 0.1, severity: ERROR, windows: 2 of 3}
alerts: {slack: {channel: "#ml"}, group_wait: 0s, group_interval: 0s}
"""


class Lived(Place):
    """A model with twenty days of a baseline, looked at one moment after the other."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        super().__init__(folder, SPEC + extra, _at(0))
        predictions, actuals = customers(range(-20, 0), "validation")
        self.land("predictions", "validation", predictions)
        self.land("actuals", "validation", actuals)

    def verdicts(self, family: str) -> pd.DataFrame:
        key = ["monitor", "slice_key", "slice_value", "window_start"]
        return self.newest(family).set_index(key).sort_index()[["status", "value", "n"]]


def _at(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime.combine(FIRST, dt.time(), dt.UTC) + day * DAY + dt.timedelta(hours=hour)


def customers(days: range, dataset: str = "production") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return predictions of some days and their truth, known 1 to 20 days after."""
    frames = []
    for day in days:
        rng = np.random.default_rng([day + 100, len(dataset)])
        age = rng.normal(40, 10, ROWS)
        logit = (age - 40) / 4
        bad = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
        at = pd.Timestamp(_at(day)) + pd.to_timedelta(np.sort(rng.uniform(0, 24, ROWS)), unit="h")
        late = rng.uniform(1, 20, ROWS) if dataset == "production" else np.full(ROWS, 0.1)
        score = 1 / (1 + np.exp(-logit))
        frames.append(
            pd.DataFrame(
                {
                    "id": [f"{dataset[0]}{day}-{i}" for i in range(ROWS)],
                    "at": at,
                    "dataset": dataset,
                    "score": score,
                    "decision": (score > 0.5).astype(int),
                    "age": age,
                    "bad": bad.astype(int),
                    "known_at": at + pd.to_timedelta(late, unit="D"),
                }
            )
        )
    whole = pd.concat(frames, ignore_index=True)
    return whole.drop(columns=["bad", "known_at"]), whole[["id", "dataset", "bad", "known_at"]]


@pytest.mark.slow
def test_a_correction_after_weeks_is_told_and_windows_judged_together_are_judged_again(
    tmp_path: Path,
) -> None:
    """Three past days turn bad while the newest are fine; a residual of seven days sees six."""
    life = Lived(tmp_path / "corrected")
    n = 20
    predictions, truth = customers(range(n))
    truth = truth.assign(
        known_at=predictions["at"] + pd.Timedelta(hours=3),
        bad=(predictions["score"] > 0.5).astype(int),
    )
    days = (predictions["at"] - pd.Timestamp(_at(0))).dt.days
    for first in (0, 5, 10, 15):  # somebody looks every five days
        some = days.isin(range(first, first + 5))
        life.land("predictions", str(first), predictions[some])
        life.land("actuals", str(first), truth[some])
        life.now = _at(first + 5, 6)
        life.look()
        life.tell()
    before = life.verdicts("estimated_performance")["value"]
    assert life.messages() == []

    life.now += DAY
    some = days.isin(range(12, 18))
    life.land("actuals", "corrected", truth[some].assign(bad=1 - truth["bad"][some]))
    life.look()
    life.tell()

    told = [message for message in life.messages() if "ROC AUC" in message["plain"]]
    assert {message["kind"] for message in told} <= {"late", "opened"}
    assert any("2026-01-13 to 2026-01-18" in message["plain"] for message in told)
    after = life.verdicts("estimated_performance")["value"]
    newest = [key for key in after.index if "residual" in key[0] and key[3] == _at(n - 1)]
    assert newest
    for key in newest:
        assert abs(after[key] - before[key]) > 0.1, key


@pytest.mark.slow
def test_what_lasts_is_judged_again_when_rows_of_one_of_its_windows_come_late(
    tmp_path: Path,
) -> None:
    life = Lived(tmp_path / "late")
    n = 9
    predictions, _ = customers(range(n))
    predictions = predictions.assign(age=predictions["age"] + 6)
    days = (predictions["at"] - pd.Timestamp(_at(0))).dt.days
    is_late = (days == 4) & (np.arange(len(predictions)) % 2 == 0)
    life.land("predictions", "first", predictions[~is_late])
    life.now = _at(n, 6)
    life.look()
    newest = ("drift/sustained_shift/age", "all", "all", _at(n - 1))
    before = life.verdicts("drift").loc[newest]

    life.land("predictions", "late", predictions[is_late])
    life.now += dt.timedelta(hours=1)
    life.look()
    after = life.verdicts("drift").loc[newest]

    assert (before["status"], after["status"]) == ("WARN", "WARN")
    assert after["n"] == before["n"] + is_late.sum() == 7 * ROWS
    assert after["value"] == pytest.approx(0.6, abs=0.15)


@pytest.mark.proof
def test_what_lasts_is_judged_beside_a_moving_baseline_that_ends_before_it(tmp_path: Path) -> None:
    n = 30
    predictions, _ = customers(range(n))
    days = (predictions["at"] - pd.Timestamp(_at(0))).dt.days
    moved = predictions.assign(age=predictions["age"] + 6 * (days >= n - 7))
    found = {}
    for name, gap in (("apart", "7d"), ("beside", "0d")):
        life = Lived(tmp_path / name, f"baseline: {{moving: 21d, gap: {gap}}}\n")
        life.land("predictions", "all", moved)
        life.now = _at(n, 6)
        life.look()
        verdicts = life.verdicts("drift").reset_index()
        mine = verdicts[verdicts["monitor"] == "drift/sustained_shift/age"]
        found[name] = mine.set_index("window_start")["status"].to_dict()

    assert found["beside"] == {}
    assert found["apart"][_at(n - 1)] == "WARN"
    assert set(found["apart"].values()) == {"OK", "WARN"}


def test_windows_without_a_value_between_do_not_keep_a_residual_from_being_judged_again(
    tmp_path: Path,
) -> None:
    """Six days in a row have too few bad loans; before and after them a residual is of ten."""
    life, n = Lived(tmp_path / "rare"), 12
    predictions, truth = customers(range(n))
    days = (predictions["at"] - pd.Timestamp(_at(0))).dt.days
    truth = truth.assign(
        known_at=predictions["at"] + pd.Timedelta(hours=3),
        bad=truth["bad"].where(~days.between(4, 9), 0),
    )
    life.land("predictions", "all", predictions)
    life.land("actuals", "all", truth)
    life.now = _at(n, 6)
    life.look()
    newest = ("estimated_performance/roc_auc_residual", "all", "all", _at(n - 1))
    before = life.verdicts("estimated_performance").loc[newest]
    assert before["n"] == 6 * ROWS

    corrected = truth[days == 2].assign(known_at=pd.Timestamp(_at(n, 3)))
    life.land("actuals", "corrected", corrected.assign(bad=1 - corrected["bad"]))
    life.now = _at(n, 9)
    life.look()
    after = life.verdicts("estimated_performance").loc[newest]
    assert after["n"] == before["n"]
    assert abs(after["value"] - before["value"]) > 0.05
