"""A small model whose story is planted: one region broke, one grew, one came and one went.

Rows go straight into the event log, then through the same steps as in a run, without Dagster.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, windows_between
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import window_state
from mlmon_dagster.work import Work
from tests.conftest import make_spec

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
DAYS, ROWS = 8, 240
NOW = START + (DAYS + 2) * DAY
BROKEN, GROWN, STEADY, NEW, GONE, TINY = range(6)
REGIONS = ("north", "south", "east", "fresh", "former", "tiny")
SECRET = "canary-7f3a@example.com"
# Of the rows of a day, in the baseline and in production.
_SHARES = {
    "validation": (0.3, 0.2, 0.3, 0.0, 0.196, 0.004),
    "production": (0.3, 0.4, 0.2, 0.096, 0.0, 0.004),
}


@dataclass(frozen=True)
class World:
    """A project with its model computed, and the rows that went in.

    Attributes:
        project: Where it is.
        spec: The model.
        rows: Every event with its actual, as the oracle of what is reported.
        windows: The production windows.
    """

    project: Project
    spec: ModelSpec
    rows: pd.DataFrame
    windows: tuple[Window, ...]

    @property
    def store(self) -> Store:
        return self.project.store

    @property
    def period(self) -> tuple[dt.datetime, dt.datetime]:
        return self.windows[0].start, self.windows[-1].end

    def copied(self, folder: Path) -> World:
        """Return the same world in another folder, to change."""
        shutil.copytree(self.project.folder, folder, dirs_exist_ok=True)
        return replace(self, project=_project(folder))

    def side(self, dataset: str) -> pd.DataFrame:
        return self.rows[self.rows["dataset"] == dataset]


MODEL: dict[str, object] = {
    "description": "Will this loan default?",
    "features": {
        "age": {"type": "numeric", "nullable": True},
        "region": {"type": "categorical", "nullable": True},
        "member": {"type": "boolean"},
        "email": {"type": "categorical", "pii": True},
    },
    "slices": ["region", ["region", "member"]],
    "monitors": {
        "performance": [
            {"metric": "accuracy", "drop": 0.02, "windows": "1 of 1"},
            {"metric": "roc_auc", "drop": 0.02},
        ],
        "quality": {"null_rate": {"above": 0.1}},
    },
}


def declare(**changes: object) -> ModelSpec:
    """Return the model: sliced by region and by region and member, with a column of secrets."""
    return make_spec(**{**MODEL, **changes})


def build(
    folder: Path,
    regions: Sequence[str | None] = REGIONS,
    spec: ModelSpec | None = None,
    *,
    replaced: int = DAYS,
) -> World:
    """Make the world; `regions` rename the six of the story, one by one.

    From the production day with the number `replaced` on, from 0, version 2 serves.
    """
    spec = spec or declare()
    project = _project(folder)
    rows = pd.concat(
        [
            *(_day(START - (i + 1) * DAY, "validation", regions) for i in range(DAYS)),
            *(_day(START + i * DAY, "production", regions) for i in range(DAYS)),
        ],
        ignore_index=True,
    )
    is_new = (rows["dataset"] == "production") & (rows["window_start"] >= START + replaced * DAY)
    rows["model_version"] = np.where(is_new, "2", "1")
    _log(project.store, spec, rows)
    windows = tuple(windows_between(spec.time, START, START + DAYS * DAY))
    with project.store.state.begin() as conn:
        window_state.mark_inputs(conn, spec, windows, NOW)
    work = Work(project, spec, windows, NOW, "run", is_backfill=False)
    run(work, ("baseline", *windowed_of(work.spec)))
    fold_results(project.store, [spec], NOW)
    return World(project, spec, rows, windows)


def _project(folder: Path) -> Project:
    return Project(folder, str(folder / ".mlmon" / "store"), now=lambda: NOW)


def _day(start: dt.datetime, dataset: str, regions: Sequence[str | None]) -> pd.DataFrame:
    rng = np.random.default_rng([start.toordinal(), len(dataset)])
    place = np.repeat(np.arange(6), np.round(np.array(_SHARES[dataset]) * ROWS).astype(int))
    n = len(place)
    quality = np.where(place == GROWN, 1.2, 3.0)
    if dataset == "production":
        quality = np.where(place == BROKEN, 0.0, quality)
    actual = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-rng.normal((actual - 0.5) * quality, 1.0)))
    return pd.DataFrame(
        {
            "prediction_id": [f"{dataset[0]}{start:%m%d}-{i}" for i in range(n)],
            "dataset": dataset,
            "event_time": [start + DAY * i / n for i in range(n)],
            "window_start": start,
            "prediction": (score > 0.5).astype(int),
            "score": score,
            "actual": np.where(rng.random(n) < 0.03, -1, actual),
            "age": np.where(rng.random(n) < 0.02, np.nan, rng.normal(40, 10, n)),
            "region": [regions[i] for i in place],
            "member": rng.random(n) < 0.5,
            # New ones all the time, so that unseen values would be named if that were allowed.
            "email": [f"{i % 3 if dataset == 'validation' else 7 + i}{SECRET}" for i in range(n)],
        }
    )


def _log(store: Store, spec: ModelSpec, rows: pd.DataFrame) -> None:
    n, rng = len(rows), np.random.default_rng(1)
    common = {
        "row_hash": pa.array(rng.integers(-(2**62), 2**62, n)),
        "file_sha": pa.array(["sha"] * n),
        "row_number": pa.array(range(n), pa.int64()),
        "ingested_at": pa.array([NOW] * n, pa.timestamp("us", "UTC")),
    }
    features = ("age", "region", "member", "email")
    predictions = pa.table(
        {
            **{
                name: pa.array(list(rows[name]), from_pandas=True)
                for name in ("prediction_id", "dataset", "prediction", "score", *features)
            },
            "event_time": pa.array(list(rows["event_time"]), pa.timestamp("us", "UTC")),
            "window_start": pa.array(list(rows["window_start"]), pa.timestamp("us", "UTC")),
            "window_date": pa.array(rows["window_start"].dt.strftime("%Y-%m-%d")),
            "model_version": pa.array(list(rows["model_version"])),
            "latency_ms": pa.array(rng.gamma(2, 20, n)),
            "status": pa.array(["ok"] * n),
            "nonfinite": pa.array([[]] * n, pa.list_(pa.string())),
            **common,
        }
    )
    actuals = pa.table(
        {
            "prediction_id": pa.array(list(rows["prediction_id"])),
            "dataset": pa.nulls(n, pa.string()),
            "actual": pa.array(list(rows["actual"])),
            "actual_time": pa.array(list(rows["event_time"]), pa.timestamp("us", "UTC")),
            "deleted": pa.array([False] * n),
            **common,
        }
    ).filter(pa.array(rows["actual"] >= 0))
    log = store.event_log(spec)
    assert log.append("predictions", predictions, ["sha"])
    assert log.append("actuals", actuals, ["sha"])
