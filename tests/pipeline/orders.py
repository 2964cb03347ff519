"""A model with every family of monitors, lived day by day, and twelve things that go wrong."""

from __future__ import annotations

import datetime as dt
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlmon_dagster.alerts.receivers.base import ConsoleReceiver, Receiver
from mlmon_dagster.alerts.receivers.worker import deliver
from tests.alerts.worlds import IMPATIENT
from tests.pipeline.looking import Place

FIRST, DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC), dt.timedelta(days=1)
ROWS, BASELINE, BEFORE, FAULTY, AFTER = 600, 30, 20, 6, 5
HEALTHY = BEFORE + 9  # days, of which nine were lived
SPEC = """\
model: orders
task: binary_classification
owners: [team:risk]
time: {zone: UTC, start: 2026-01-01}
source:
  predictions: {path: landing/predictions/*.parquet, settle: 0s}
  actuals: {path: landing/actuals/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, dataset: dataset, score: score, prediction: decision,
          latency_ms: latency, status: status, actual: paid, actual_time: known_at}
features:
  amount: {type: numeric}
  age: {type: numeric}
  visits: {type: numeric}
  channel: {type: categorical}
monitors:
  service: {p95_latency_ms: {above: 400}}
  performance: [{metric: roc_auc, drop: 0.05}, {metric: calibration_gap, shift: 0.05}]
  estimated_performance: {metric: roc_auc}
alerts: {slack: {channel: "#ml-alerts", mention: "@here"}, group_wait: 0s, group_interval: 0s}
"""
Rows = pd.DataFrame


class Orders(Place):
    """A healthy model with every family of monitors, and what is done to it from a day on."""

    def __init__(self, folder: Path, day: int = 0, receiver: Receiver | None = None) -> None:
        super().__init__(folder, SPEC, morning(day))
        self.day, self.receiver = day, receiver or ConsoleReceiver(io.StringIO())

    def live(self, days: int, break_day: Callable[[Rows, Rows], tuple[Rows, Rows]] | None) -> None:
        """Live so many days; each day's files land early on the next one, and are looked at."""
        for _ in range(days):
            predictions, labels = draw_day(self.day)
            if break_day is not None:
                predictions, labels = break_day(predictions, labels)
            for stream, rows in (("predictions", predictions), ("actuals", labels)):
                if len(rows):
                    self.land(stream, f"{self.day:03}", rows)
            self.day += 1
            self.now = morning(self.day)
            self.look()
            self.tell()
            deliver(self.project.store, {"slack": self.receiver}, policy=IMPATIENT)


def morning(day: int) -> dt.datetime:
    return FIRST + day * DAY + dt.timedelta(hours=3)


def draw_day(day: int, dataset: str = "production") -> tuple[Rows, Rows]:
    """Draw the predictions of a day, and their labels, known a few hours later."""
    rng = np.random.default_rng(1000 + day)
    amount, age = rng.lognormal(3, 0.6, ROWS), rng.normal(45, 12, ROWS).round()
    visits = rng.poisson(3, ROWS)
    channel = rng.choice(["web", "shop", "phone"], ROWS, p=[0.5, 0.35, 0.15])
    logit = 1.6 * (np.log(amount) - 3) + 0.05 * (age - 45) + 0.2 * (visits - 3) - 0.5
    score = 1 / (1 + np.exp(-logit))
    at = FIRST + day * DAY + pd.to_timedelta(np.sort(rng.random(ROWS)) * 0.9, unit="D")
    ids = [f"{dataset}-{day}-{i}" for i in range(ROWS)]
    predictions = pd.DataFrame(
        {
            "id": ids, "at": at, "dataset": dataset, "score": score,
            "decision": (score > 0.5).astype(int), "latency": rng.gamma(9, 20, ROWS),
            "status": np.where(rng.random(ROWS) < 0.002, "error", "ok"), "amount": amount,
            "age": age, "visits": visits, "channel": channel,
        }
    )  # fmt: skip
    labels = pd.DataFrame(
        {
            "id": ids, "dataset": dataset, "paid": (rng.random(ROWS) < score).astype(int),
            "known_at": at + pd.Timedelta(hours=2),
        }
    )  # fmt: skip
    return predictions, labels


def spoil(column: str, value: Callable[[Rows], Any]) -> Callable[[Rows, Rows], tuple[Rows, Rows]]:
    """Return a fault that gives a column of the predictions other values."""
    return lambda rows, labels: (rows.assign(**{column: value(rows)}), labels)


def pick(rows: Rows, share: float) -> np.ndarray:
    """Pick a share of the rows, the same ones at every call."""
    return np.random.default_rng(7).random(len(rows)) < share


def score_anew(rows: Rows) -> np.ndarray:
    """Return the same scores in the wrong order."""
    return np.random.default_rng(8).permutation(rows["score"])


CAUSES: dict[str, Callable[[Rows, Rows], tuple[Rows, Rows]]] = {
    "dead feed": lambda rows, labels: (rows[:0], labels[:0]),
    "half of the rows": lambda rows, labels: (rows[::3], labels[::3]),
    "null surge": spoil("amount", lambda rows: rows["amount"].mask(pick(rows, 0.6))),
    "shifted feed": spoil("amount", lambda rows: rows["amount"] * 1000),
    "default fill": spoil("age", lambda rows: rows["age"].mask(pick(rows, 0.5), -1.0)),
    "new category": spoil("channel", lambda rows: rows["channel"].mask(pick(rows, 0.4), "app")),
    "column gone": lambda rows, labels: (rows.drop(columns="visits"), labels),
    "scores that say nothing": spoil("score", score_anew),
    "inverted labels": lambda rows, labels: (rows, labels.assign(paid=1 - labels["paid"])),
    "no labels": lambda rows, labels: (rows, labels[:0]),
    "slow": spoil("latency", lambda rows: rows["latency"] * 5),
    "failing requests": spoil("status", lambda rows: np.where(pick(rows, 0.2), "error", "ok")),
}


def make_healthy(folder: Path) -> list[str]:
    """Live some weeks in which nothing happens; return what was said of them."""
    orders = Orders(folder)
    history = [draw_day(day, "validation") for day in range(-BASELINE, 0)]
    orders.land("predictions", "validation", pd.concat([rows for rows, _ in history]))
    orders.land("actuals", "validation", pd.concat([rows for _, rows in history]))
    past = [draw_day(day) for day in range(BEFORE)]
    orders.land("predictions", "past", pd.concat([rows for rows, _ in past]))
    orders.land("actuals", "past", pd.concat([rows for _, rows in past]))
    orders.day = BEFORE
    orders.live(9, None)  # which teaches how late ground truth comes
    said = [message["plain"] for message in orders.messages()]
    orders.project.store.close()
    return said


def live_cause(cause: str, healthy: Path, folder: Path, receiver: Receiver | None = None) -> Orders:
    """Live the days of one cause and some that are well again, after those of a healthy project."""
    shutil.copytree(healthy, folder)
    orders = Orders(folder, HEALTHY, receiver)
    orders.live(FAULTY, CAUSES[cause])
    orders.live(AFTER, None)
    return orders
