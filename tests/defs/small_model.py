"""A small model in a project of its own: a fortnight in which several things go wrong.

Days are those of New York, March 2024, so that the 10th has 23 hours:

- the 5th has no file; the 7th to 9th come in one, with half the rows of the 8th broken; on the
  12th `balance` is null throughout;
- the ground truth of the 13th and 14th is not there yet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, load_model, window_from_key

MODEL = "churn"
ZONE = ZoneInfo("America/New_York")
FIRST, END = dt.date(2024, 3, 1), dt.date(2024, 3, 15)
DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(14))
SILENT, BROKEN, NULLED = dt.date(2024, 3, 5), dt.date(2024, 3, 8), dt.date(2024, 3, 12)
LATE = (dt.date(2024, 3, 13), dt.date(2024, 3, 14))
NOW = dt.datetime(2024, 3, 15, 16, tzinfo=dt.UTC)
ROWS = 150
VARIABLES = (
    "MLMON_PROJECT",
    "MLMON_STORE",
    "MLMON_DB_URL",
    "MLMON_SLACK_TOKEN",
    "MLMON_SLACK_API_URL",
    "MLMON_SLACK_APP_TOKEN",
    "MLMON_PAGES_URL",
    "MLMON_UI_URL",
    "MLMON_ENVIRONMENT",
    "MLMON_TICK_SECONDS",
    "MLMON_NOW",
)

YAML = """\
model: {model}
task: binary_classification
description: Will this customer leave within a month?
owners: [team:growth, oncall@example.com]
time: {{zone: {zone}, granularity: day, start: {start}}}
source:
  predictions: {{path: landing/{model}/predictions/*.parquet, settle: 0s, max_bad_rate: 0.2}}
  actuals:     {{path: landing/{model}/actuals/*.parquet, settle: 0s}}
columns: {{prediction_id: id, event_time: at, score: score, prediction: decision, actual: left,
          actual_time: known_at, dataset: dataset, model_version: version, latency_ms: latency_ms}}
actuals: {{expected_within: 1d, closed_after: 30d, min_coverage: 0.9}}
features:
  age:     {{type: numeric, min: 0}}
  balance: {{type: numeric, nullable: true}}
  region:  {{type: categorical}}
slices: [region]
monitors:
  drift: {{above: 0.25, windows: 1 of 1}}
  performance: {{metric: roc_auc, drop: 0.1, windows: 1 of 1}}
  quality: {{null_rate: {{above: 0.2}}}}
alerts: {{slack: {{channel: "#ml-alerts", mention: "@here"}}, repeat: 24h}}
"""


def write_declaration(
    folder: Path, model: str = MODEL, start: dt.date = FIRST, zone: str = ZONE.key
) -> ModelSpec:
    """Write models/<model>.yaml and return what it declares."""
    path = folder / "models" / f"{model}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(YAML.format(model=model, start=start, zone=zone))
    return load_model(path)


def customers(
    day: dt.date,
    dataset: str = "production",
    n: int = ROWS,
    *,
    age: float = 40.0,
    like: dt.date | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one day's predictions and their ground truth; the same day is always the same.

    All of it happens on that day in New York and in UTC; the values are those of the day ``like``.
    """
    rng = np.random.default_rng([(like or day).toordinal(), len(dataset)])
    midnight = dt.datetime.combine(day, dt.time(), ZONE)
    at = pd.Timestamp(midnight) + pd.to_timedelta(np.sort(rng.uniform(0, 18, n)), unit="h")
    ages = rng.normal(age, 10, n).clip(18)
    balance = rng.lognormal(3, 1, n)
    logit = (ages - 40) / 8 - np.log(balance) + 2.5
    score = 1 / (1 + np.exp(-logit))
    ids = [f"{dataset[:1]}{day:%m%d}-{i}" for i in range(n)]
    predictions = pd.DataFrame(
        {
            "id": ids,
            "at": at.tz_convert("UTC"),
            "score": score,
            "decision": (score >= 0.5).astype(int),
            "dataset": dataset,
            "version": "3",
            "latency_ms": rng.gamma(4, 10, n),
            "age": ages,
            "balance": balance,
            "region": rng.choice(["north", "south", "west"], n, p=[0.5, 0.3, 0.2]),
        }
    )
    known = pd.Timestamp(midnight).tz_convert("UTC") + pd.Timedelta(hours=18.5)
    left = (rng.uniform(size=n) < score).astype(int)
    return predictions, pd.DataFrame({"id": ids, "left": left, "known_at": known})


def landing(folder: Path, stream: str, model: str = MODEL) -> Path:
    """Return a stream's landing folder, which exists then."""
    path = folder / "landing" / model / stream
    path.mkdir(parents=True, exist_ok=True)
    return path


def drop(frame: pd.DataFrame, path: Path) -> None:
    """Put a file into a landing folder in one step, as a good producer does."""
    partial = path.with_suffix(".partial")
    frame.to_parquet(partial, index=False)
    partial.rename(path)


def land_validation(folder: Path, model: str = MODEL, first: dt.date | None = None) -> None:
    """Land the baseline: twenty days of validation data, ending well before production."""
    usual = [dt.date(2024, 2, 1) + dt.timedelta(days=i) for i in range(20)]
    later = first - usual[0] if first else dt.timedelta()
    days = [customers(day + later, "validation", like=day) for day in usual]
    for stream, frames in zip(("predictions", "actuals"), zip(*days, strict=True), strict=True):
        drop(pd.concat(frames), landing(folder, stream, model) / "validation.parquet")


def land_days(
    folder: Path, *days: dt.date, truth: bool = True, like: dt.date | None = None
) -> None:
    """Land some days in one file per stream, with what goes wrong on them."""
    frames = [customers(day, like=like) for day in days]
    for day, (predictions, _) in zip(days, frames, strict=True):
        if day == BROKEN:
            predictions.loc[: ROWS // 2 - 1, "score"] = 1.7
        if day == NULLED:
            predictions["balance"] = np.nan
    name = f"{days[0]}.parquet"
    drop(pd.concat(p for p, _ in frames), landing(folder, "predictions") / name)
    if truth:
        drop(pd.concat(a for _, a in frames), landing(folder, "actuals") / name)


def land_truth(folder: Path, day: dt.date) -> None:
    """Land the ground truth of a day that came without."""
    drop(customers(day)[1], landing(folder, "actuals") / f"{day}.parquet")


def land_truth_again(folder: Path, day: dt.date) -> None:
    """Land the ground truth of a day once more, as if it were corrected an hour later."""
    _, actuals = customers(day)
    actuals["known_at"] += dt.timedelta(hours=1)
    drop(actuals, landing(folder, "actuals") / f"{day}-again.parquet")


def make_project(
    folder: Path, now: Callable[[], dt.datetime] = lambda: NOW, db_url: str | None = None
) -> Project:
    """Return the project of a folder at the tests' moment; without a database's URL on SQLite."""
    return Project(folder, str(folder / ".mlmon" / "store"), db_url, now=now)


def land_fortnight(folder: Path) -> None:
    """Land everything that the fortnight has brought so far."""
    land_validation(folder)
    together = (BROKEN - dt.timedelta(days=1), BROKEN, BROKEN + dt.timedelta(days=1))
    land_days(folder, *together)
    for day in DAYS:
        if day not in (SILENT, *together):
            land_days(folder, day, truth=day not in LATE)


def windows_of_days(spec: ModelSpec, days: Sequence[dt.date] = DAYS) -> list[Window]:
    """Return the windows of some days."""
    return [window_from_key(spec.time, str(day)) for day in days]
