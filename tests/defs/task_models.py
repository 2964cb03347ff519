"""One small model per task that is not binary, with a baseline and three days of production."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mlmon_dagster.spec import ModelSpec, load_model
from tests.defs.small_model import drop, landing

FIRST = dt.date(2024, 3, 1)
DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(3))
NOW = dt.datetime(2024, 3, 6, tzinfo=dt.UTC)
CLASSES = ("cat", "dog", "red fox")
ROWS = 240
_HEAD = """\
model: MODEL
task: TASK
owners: [team:ml]
time: {zone: UTC, start: 2024-03-01}
source:
  predictions: {path: landing/MODEL/predictions/*.parquet, settle: 0s}
  actuals: {path: landing/MODEL/actuals/*.parquet, settle: 0s}
features: {site: {type: categorical}}
slices: [site]
"""
_ROLES = "prediction_id: id, event_time: at, actual: truth, actual_time: known_at, dataset: dataset"
DECLARATIONS = {
    "multiclass_classification": _HEAD
    + f"""\
columns: {{{_ROLES}, prediction: label, scores: {{cat: p_cat, dog: p_dog, "red fox": p_fox}}}}
top_k: 2
monitors: {{performance: [{{metric: macro_f1, drop: 0.2}}, {{metric: top_k_accuracy, below: 0.9}}]}}
""",
    "multilabel_classification": _HEAD
    + f"""\
columns: {{{_ROLES}, prediction: topics}}
classes: [billing, delivery, returns]
monitors: {{performance: [{{metric: micro_f1, drop: 0.2}}, {{metric: jaccard, below: 0.1}}]}}
""",
    "regression": _HEAD
    + f"""\
columns: {{{_ROLES}, prediction: minutes}}
quantile: 0.9
monitors: {{performance: [{{metric: mae, drop: 1}}, {{metric: residual_drift, above: 0.1}}]}}
""",
    "ranking": _HEAD
    + f"""\
columns: {{{_ROLES}, group: query, rank: position, examined: seen}}
top_k: 5
monitors: {{performance: [{{metric: ndcg, drop: 0.1}}, {{metric: mrr, below: 0.1}}]}}
""",
}


def rows_of(
    task: str, day: dt.date, dataset: str, harm: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one day's predictions and actuals; `harm` makes the model worse, 0 to 1."""
    rng = np.random.default_rng([day.toordinal(), len(task), len(dataset)])
    start = pd.Timestamp(day, tz="UTC")
    ids = [f"{dataset[:1]}{day:%m%d}-{i}" for i in range(ROWS)]
    at = start + pd.to_timedelta(rng.uniform(0, 20, ROWS), unit="h")
    site = rng.choice(["north", "south"], ROWS)
    predictions = pd.DataFrame({"id": ids, "at": at, "dataset": dataset, "site": site})
    actuals = pd.DataFrame({"id": ids})
    actuals["known_at"] = at + pd.to_timedelta(rng.uniform(1, 5, ROWS), unit="h")
    if task == "multiclass_classification":
        truth = rng.integers(0, 3, ROWS)
        pull = 4.0 * (rng.random(ROWS) >= harm)
        logit = rng.normal(0, 1, (ROWS, 3))
        logit[np.arange(ROWS), truth] += pull
        scores = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
        predictions[["p_cat", "p_dog", "p_fox"]] = scores
        predictions["label"] = np.array(CLASSES)[scores.argmax(axis=1)]
        actuals["truth"] = np.array([*CLASSES, "wolf"])[np.where(rng.random(ROWS) < 0.02, 3, truth)]
    elif task == "multilabel_classification":
        has = rng.random((ROWS, 3)) < (0.6, 0.3, 0.1)
        given = has ^ (rng.random((ROWS, 3)) < 0.05 + 0.4 * harm)
        names = np.array(["returns", "billing", "delivery"])
        predictions["topics"] = [list(names[row]) for row in given]  # in no order
        actuals["truth"] = ["|".join(names[row]) or "[]" for row in has]
    elif task == "regression":
        truth = rng.normal(100, 20, ROWS)
        predictions["minutes"] = truth + rng.normal(harm * 20, 5, ROWS)
        actuals["truth"] = truth
    else:
        predictions["query"] = np.arange(ROWS) // 8
        relevance = rng.integers(0, 3, ROWS)
        keen = relevance * (1 - harm) + rng.normal(0, 0.5, ROWS)
        predictions["position"] = pd.Series(-keen).groupby(predictions["query"]).rank().astype(int)
        predictions["seen"] = 1 / predictions["position"]
        predictions["site"] = np.where(predictions["query"] % 2, "north", "south")
        actuals["truth"] = relevance
    return predictions, actuals


def frames_of(
    task: str, datasets: Collection[str]
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield name, predictions and actuals of every file: the last day's model is bad."""
    if "validation" in datasets:
        days = [rows_of(task, dt.date(2024, 2, day), "validation", 0.0) for day in range(1, 16)]
        yield "validation", pd.concat(p for p, _ in days), pd.concat(a for _, a in days)
    for day in DAYS:
        yield str(day), *rows_of(task, day, "production", float(day == DAYS[-1]))


def land(
    folder: Path, task: str, datasets: Collection[str] = ("validation", "production")
) -> ModelSpec:
    """Write the declaration and the files; return what is declared."""
    model = task.partition("_")[0]
    path = folder / "models" / f"{model}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(DECLARATIONS[task].replace("MODEL", model).replace("TASK", task))
    for name, predictions, actuals in frames_of(task, datasets):
        drop(predictions, landing(folder, "predictions", model) / f"{name}.parquet")
        drop(actuals, landing(folder, "actuals", model) / f"{name}.parquet")
    return load_model(path)
