"""How late ground truth was in the files: init writes it as a value and says what it saw."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.scaffold.proposal import propose
from mlmon_dagster.spec import parse_model

START = pd.Timestamp("2026-01-01", tz="UTC")
NOW = dt.datetime(2026, 4, 20, tzinfo=dt.UTC)
N, DAYS = 6_000, 100


def written(folder: Path, lag: object, *, is_joined: bool = False) -> str:
    """Return the spec of events whose labels come so late, in days, by truth."""
    rng = np.random.default_rng(0)
    at = START + pd.to_timedelta(np.sort(rng.random(N)) * DAYS, unit="D")
    score = rng.random(N)
    truth = (rng.random(N) < score).astype(int)
    known = at + pd.to_timedelta(lag(truth, rng), unit="D")  # type: ignore[operator]
    events = pd.DataFrame(
        {"request_id": [f"r{i}" for i in range(N)], "at": at, "score": score,
         "income": rng.normal(0, 1, N)}
    )  # fmt: skip
    labels = pd.DataFrame({"request_id": events["request_id"], "label": truth, "label_time": known})
    is_known = labels["label_time"] <= START + pd.Timedelta(days=DAYS)
    labels = labels[is_known]
    if is_joined:
        events.merge(labels, how="left").to_parquet(folder / "all.parquet")
        return propose(folder, (folder / "all.parquet",), "loans", None, "team:x", NOW)
    events.to_parquet(folder / "events.parquet")
    labels.to_parquet(folder / "labels.parquet")
    files = (folder / "events.parquet", folder / "labels.parquet")
    return propose(folder, files, "loans", None, "team:x", NOW)


@pytest.mark.parametrize("is_joined", [False, True])
def test_init_writes_the_lag_that_it_saw(tmp_path: Path, is_joined: bool) -> None:
    """Of labels 1 to 20 days late, although those of the newest predictions are not there yet."""
    text = written(tmp_path, lambda truth, rng: rng.uniform(1, 20, len(truth)), is_joined=is_joined)
    (line,) = [line for line in text.splitlines() if line.startswith("actuals:")]
    assert "expected_within: 20d" in line
    assert "seen: median 10 d, 95 % within 19 d" in line or "median 11 d" in line
    spec = parse_model(text, "it")
    assert spec.actuals.expected_within == dt.timedelta(days=20)
    assert spec.actuals.min_coverage is None


def test_the_slower_class_decides(tmp_path: Path) -> None:
    """Positives known within 10 days do not make a window ripe whose negatives take 30."""
    text = written(
        tmp_path, lambda truth, rng: np.where(truth == 1, rng.uniform(1, 10, len(truth)), 30)
    )
    (line,) = [line for line in text.splitlines() if line.startswith("actuals:")]
    assert "expected_within: 30d" in line
    assert "95 % of 0 within 30 d" in line


def test_times_of_one_day_or_before_the_prediction_are_no_lag(tmp_path: Path) -> None:
    """A file of labels stamped when it was written says nothing of how late they were known."""
    text = written(tmp_path, lambda truth, rng: np.full(len(truth), -3.0))
    assert not [line for line in text.splitlines() if line.startswith("actuals:")]
