"""A model whose ground truth is late, lived day by day through the pipeline's own steps."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
import yaml

from mlmon_dagster.store.state.schema import monitor_result
from mlmon_dagster.store.state.sql import read_frame
from tests.pipeline.looking import Place

FIRST = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
Lag = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SPEC: dict[str, Any] = {
    "model": "credit",
    "task": "binary_classification",
    "owners": ["team:risk"],
    "time": {"start": "2024-03-01"},
    "source": {
        "predictions": {"path": "landing/predictions/*.parquet", "settle": "0s"},
        "actuals": {"path": "landing/actuals/*.parquet", "settle": "0s"},
    },
    "columns": {
        "prediction_id": "id",
        "event_time": "at",
        "score": "score",
        "prediction": "decision",
        "dataset": "dataset",
        "actual": "late",
        "actual_time": "known_at",
    },
    "features": {"income": {"type": "numeric"}},
}


def by_class(positives: tuple[float, float], negatives: tuple[float, float]) -> Lag:
    """Return a lag in days, uniform between two bounds for each class."""

    def lag(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        low = np.where(truth == 1, positives[0], negatives[0])
        high = np.where(truth == 1, positives[1], negatives[1])
        return np.asarray(rng.uniform(low, high))

    return lag


@dataclass
class LateWorld(Place):
    """A calibrated model of which every prediction gets its label after a drawn lag.

    Attributes:
        folder: Of the project.
        lag: Days from the prediction to its label, drawn by truth.
        n: Predictions a day.
        baseline_days: Days of the validation data, 0 for none.
        actuals: What the spec declares under ``actuals``.
        delivered: Day on which labels known on a day are delivered; by default that day.
        is_dated: Whether labels say when they became known.
        wrong: From this day on scores say nothing.
        chosen: Chance by score that a production row is ever labelled; None: all are.
    """

    folder: Path
    lag: Lag
    n: int = 200
    baseline_days: int = 30
    actuals: dict[str, Any] = field(default_factory=dict)
    delivered: Callable[[int], int] = lambda day: day
    is_dated: bool = True
    wrong: int = 10**6
    chosen: Callable[[np.ndarray], np.ndarray] | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        columns = {k: v for k, v in SPEC["columns"].items() if self.is_dated or k != "actual_time"}
        declared = {**SPEC, "columns": columns, "actuals": self.actuals}
        super().__init__(self.folder, yaml.safe_dump(declared, sort_keys=False), FIRST)
        self.waiting: dict[int, list[pd.DataFrame]] = {}
        self.day = 0
        if self.baseline_days:
            first = -self.baseline_days - 70  # so that all of its labels are known by now
            days = [self._made(first + i, "validation") for i in range(self.baseline_days)]
            self.land("predictions", "baseline", pd.concat([p for p, _ in days]))
            self.land("actuals", "baseline", pd.concat([a for _, a in days]).drop(columns="due"))

    def _made(self, day: int, dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        rng, start = self.rng, FIRST + day * DAY
        at = np.sort(rng.random(self.n))
        income = rng.normal(0, 1, self.n)
        score = 1 / (1 + np.exp(-(1.4 * income - 1.2)))
        truth = (rng.random(self.n) < score).astype(int)
        if day >= self.wrong:
            truth = rng.permutation(truth)
        ids = [f"{day}-{i}" for i in range(self.n)]
        known = at + self.lag(truth, rng)
        predictions = pd.DataFrame(
            {
                "id": ids,
                "at": start + pd.to_timedelta(at, unit="D"),
                "score": score,
                "decision": (score > 0.5).astype(int),
                "dataset": dataset,
                "income": income,
            }
        )
        labels = pd.DataFrame(
            {
                "id": ids,
                "late": truth,
                "dataset": dataset,
                "known_at": start + pd.to_timedelta(known, unit="D"),
                "due": [self.delivered(int(day + k)) for k in known],
            }
        )
        if self.chosen is not None and dataset == "production":
            labels = labels[rng.random(self.n) < self.chosen(score)]
        return predictions, labels if self.is_dated else labels.drop(columns="known_at")

    def live(self, days: int) -> None:
        """Live so many days: files of a day land early on the next one, and the planner looks."""
        for _ in range(days):
            self.land_day()
            self.look()

    def land_day(self) -> None:
        """Land the files of a day, and let it be the next morning."""
        predictions, labels = self._made(self.day, "production")
        self.land("predictions", f"{self.day:03}", predictions)
        for due, rows in labels.groupby("due"):
            self.waiting.setdefault(max(int(due), self.day), []).append(rows.drop(columns="due"))
        if found := self.waiting.pop(self.day, []):
            self.land("actuals", f"{self.day:03}", pd.concat(found))
        self.day += 1
        self.now = FIRST + self.day * DAY + dt.timedelta(hours=3)

    def verdicts(self, family: str, metric: str | None = None) -> pd.DataFrame:
        """Return the newest verdicts of a family, with the number of their day."""
        rows = self.newest(family)
        rows = rows[rows["window_start"] >= FIRST]
        rows = rows[rows["metric"] == metric] if metric else rows
        return rows.assign(day=(rows["window_start"] - FIRST).dt.days)

    def ever(self, family: str) -> pd.DataFrame:
        """Return every verdict of a family that was ever stored and failed."""
        c = monitor_result.c
        query = sa.select(c.monitor, c.window_start, c.message).where(
            c.model == self.spec.model, c.family == family, c.status.in_(["WARN", "ERROR"])
        )
        return read_frame(self.project.store.state, query)
