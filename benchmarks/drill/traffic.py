"""A small model in service whose truth is known: what it saw, what it said, what came of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.spec import ModelSpec, load_model

MODEL = "drill"
START = dt.date(2024, 1, 1)
BASELINE_DAYS = 20
DAY = dt.timedelta(days=1)
NUMERIC = ("age", "height_in", "income", "temp_f", "balance")
REGIONS, DEVICES = ("north", "south", "east", "west"), ("phone", "laptop", "tablet")

YAML = """\
model: drill
task: binary_classification
description: A model in service whose truth is known.
owners: [team:drill]
time: {{zone: UTC, granularity: day, start: {start}, allowed_lateness: 12h}}
source:
  predictions: {{path: landing/drill/predictions/*.parquet, settle: 0s}}
  actuals:     {{path: landing/drill/actuals/*.parquet, settle: 0s}}
columns: {{prediction_id: id, event_time: at, score: score, prediction: decision, actual: truth,
          actual_time: known_at, dataset: dataset, model_version: version, latency_ms: latency_ms,
          status: status}}
actuals: {{expected_within: 1d, closed_after: 60d, min_coverage: 0.9}}
features:
  age:       {{type: numeric, min: 0, max: 120}}
  height_in: {{type: numeric, unit: in, min: 40, max: 90}}
  income:    {{type: numeric, unit: EUR, min: 0, max: 5000000, nullable: true}}
  temp_f:    {{type: numeric, unit: F, nullable: true}}
  balance:   {{type: numeric}}
  region:    {{type: categorical}}
  device:    {{type: categorical}}
  member:    {{type: boolean}}
slices: [region, model_version]
monitors:
  performance:
    - {{metric: roc_auc, drop: 0.05, slices: true}}
    - {{metric: calibration_error, above: 0.1}}
  service: {{p95_latency_ms: {{above: 300}}}}
alerts: {{slack: {{channel: "#drill"}}}}
"""


@dataclass
class Day:
    """What a day of traffic leaves behind.

    Attributes:
        date: Its date, UTC.
        predictions: Rows as they are logged.
        actuals: Ground truth, one row per prediction that got one.
    """

    date: dt.date
    predictions: pd.DataFrame
    actuals: pd.DataFrame


Change = Callable[[pd.DataFrame, np.random.Generator, int], pd.DataFrame]


def unchanged(frame: pd.DataFrame, _rng: np.random.Generator, _nth: int) -> pd.DataFrame:
    """Change nothing."""
    return frame


def declare(folder: Path) -> ModelSpec:
    """Write the model's declaration into a project folder and return it."""
    path = folder / "models" / f"{MODEL}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(YAML.format(start=START))
    return load_model(path)


def volume(date: dt.date, rng: np.random.Generator, busy: int) -> int:
    """Draw how many rows a day has: two thirds of ``busy`` at weekends, and Poisson noise."""
    return int(rng.poisson(busy if date.weekday() < 5 else busy * 2 / 3))


def make_day(
    date: dt.date,
    n: int,
    rng: np.random.Generator,
    *,
    dataset: str = "production",
    features: Change = unchanged,
    truth: Callable[[pd.DataFrame], NDArray[np.float64]] | None = None,
    nth: int = 0,
) -> Day:
    """Draw a day of traffic.

    Args:
        date: The day, UTC.
        n: Rows.
        rng: Randomness.
        dataset: Which dataset the rows belong to.
        features: What happens to the features between the world and the model.
        truth: Chance of a positive given the true features; the model's own belief by default.
        nth: Which day of a fault it is, from 0.
    """
    real = _features(n, rng)
    chance = (truth or probability)(real)
    seen = features(real.copy(), rng, nth)
    score = probability(seen)
    midnight = pd.Timestamp(date, tz="UTC")
    at = midnight + pd.to_timedelta(np.sort(rng.uniform(0, 24, n)), unit="h")
    ids = [f"{dataset[:1]}{date:%Y%m%d}-{i}" for i in range(n)]
    predictions = pd.DataFrame(
        {
            "id": ids,
            "at": at,
            "score": score,
            "decision": (score >= 0.5).astype(int),
            "dataset": dataset,
            "version": rng.choice(["7", "8"], n),
            "latency_ms": rng.gamma(4, 20, n),
            "status": np.where(rng.uniform(size=n) < 0.002, "error", "ok"),
            **{name: seen[name] for name in seen},
        }
    )
    known = at + pd.to_timedelta(rng.uniform(0, 4, n), unit="h")
    actuals = pd.DataFrame(
        {"id": ids, "truth": (rng.uniform(size=n) < chance).astype(int), "known_at": known}
    )
    return Day(date, predictions, actuals[rng.uniform(size=n) < 0.97])


def _features(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw true features; each day has weather of its own, as real days do."""
    weather = rng.normal(0, 2)
    frame = pd.DataFrame(
        {
            "age": rng.normal(42, 12, n).clip(18, 95),
            "height_in": rng.normal(67, 4, n).clip(50, 85),
            "income": rng.lognormal(10.3, 0.5, n),
            "temp_f": rng.normal(68 + weather, 9, n),
            "balance": rng.exponential(1, n) - 0.3,
            "region": rng.choice(REGIONS, n, p=[0.4, 0.3, 0.2, 0.1]),
            "device": rng.choice(DEVICES, n, p=[0.6, 0.3, 0.1]),
            "member": rng.uniform(size=n) < 0.4,
        }
    )
    frame.loc[rng.uniform(size=n) < 0.02, "income"] = np.nan
    return frame


def probability(frame: pd.DataFrame, age_effect: float = 1.5) -> NDArray[np.float64]:
    """Return the chance of a positive; what is missing or no number counts as average."""
    z = {name: _number(frame, name) for name in NUMERIC}
    income = np.log(z["income"].clip(1))
    logit = (
        age_effect * (z["age"] - 42) / 12
        - 1.0 * (income - 10.3) / 0.5
        + 0.5 * (z["temp_f"] - 68) / 9
        + 0.3 * (z["height_in"] - 67) / 4
        + np.where(frame["member"].astype(bool), 0.6, 0.0)
        - 0.9
    )
    chance: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))
    return chance


_AVERAGE = {"age": 42.0, "height_in": 67.0, "income": 30000.0, "temp_f": 68.0, "balance": 0.7}


def _number(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame:
        return np.full(len(frame), _AVERAGE[name])
    values = pd.to_numeric(frame[name], errors="coerce").fillna(_AVERAGE[name])
    found: NDArray[np.float64] = values.to_numpy(dtype=np.float64)
    return found
