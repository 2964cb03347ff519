"""A model of any task that declares no ground truth has a page, which says what is not known."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.report.health import write_health_report
from mlmon_dagster.spec.files.loader import load_model
from tests.defs.small_model import make_project
from tests.pipeline.looking import look

NOW = dt.datetime(2026, 2, 10, 6, tzinfo=dt.UTC)
DAYS, ROWS = 40, 60
TASKS: dict[str, dict[str, Any]] = {
    "binary_classification": {"columns": {"score": "p"}},
    "multiclass_classification": {"columns": {"prediction": "best"}},
    "regression": {"columns": {"prediction": "amount"}},
    "ranking": {"columns": {"group": "query", "rank": "place"}},
}


@pytest.mark.parametrize(
    ("task", "baseline"),
    [
        ("binary_classification", {"moving": "21d"}),
        *((task, {"dataset": "validation"}) for task in TASKS),
        *(
            pytest.param(task, {"moving": "21d"}, marks=pytest.mark.proof)
            for task in list(TASKS)[1:]
        ),
    ],
)
def test_the_page_is_made(tmp_path: Path, task: str, baseline: dict[str, str]) -> None:
    declared = {
        "model": "m", "task": task, "owners": ["team:x"], "time": {"start": "2026-01-01"},
        "source": {"predictions": {"path": "landing/*", "settle": "0s"}},
        "features": {"age": {"type": "numeric"}, "city": {"type": "categorical"}},
        "baseline": baseline,
    }  # fmt: skip
    roles = {"prediction_id": "id", "event_time": "at", "dataset": "set"}
    path = tmp_path / "models" / "m.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps(declared | {"columns": roles | TASKS[task]["columns"]}))
    (tmp_path / "landing").mkdir()
    draw_rows().to_parquet(tmp_path / "landing" / "a.parquet", index=False)
    project, spec = make_project(tmp_path, lambda: NOW), load_model(path)
    look(project, spec, "one")
    look(project, spec, "two")

    made, page = write_health_report(project, spec)

    assert made.status in ("OK", "NO_DATA", "WARN")
    assert "<h1" in page.read_text()
    project.store.close()


def draw_rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = DAYS * ROWS
    days = np.repeat(np.arange(DAYS), ROWS)
    start = pd.Timestamp("2026-01-01", tz="UTC")
    rows = pd.DataFrame({
        "id": [f"r{i}" for i in range(n)],
        "at": start + pd.to_timedelta(days * 24 + rng.uniform(0, 24, n), unit="h"),
        "set": "production",
        "p": rng.beta(2, 5, n),
        "best": rng.choice(["a", "b", "c"], n),
        "amount": rng.normal(100, 9, n),
        "query": [f"q{i // 6}" for i in range(n)],
        "place": np.arange(n) % 6 + 1,
        "age": rng.normal(40, 9, n),
        "city": rng.choice(["x", "y"], n),
    })  # fmt: skip
    before = rows.assign(
        id="v" + rows["id"], query="v" + rows["query"], set="validation",
        at=rows["at"] - pd.Timedelta(days=60),
    )  # fmt: skip
    return pd.concat([rows, before], ignore_index=True)
