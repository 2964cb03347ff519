"""A lake outside the project, named by its absolute path: files, and Delta tables."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pandas as pd
import pytest
from deltalake import write_deltalake

from tests.cli.conftest import Command

START = pd.Timestamp("2026-10-01", tz="UTC")
SPEC = """
model: churn
task: binary_classification
owners: ['team:ml']
time: {{zone: UTC, granularity: day, start: 2026-10-01}}
source: {source}
columns: {{prediction_id: id, event_time: at, score: p, actual: y}}
features: {{age: {{type: numeric}}}}
baseline: {{moving: 14d}}
"""


def write_lake(lake: Path) -> pd.DataFrame:
    """Write a day of predictions and their truth as files and as tables."""
    events = pd.DataFrame(
        {
            "id": [f"c{n}" for n in range(40)],
            "at": [START + dt.timedelta(minutes=30 * n) for n in range(40)],
            "p": [n % 10 / 10 for n in range(40)],
            "age": [20.0 + n for n in range(40)],
        }
    )
    truth = pd.DataFrame({"id": events["id"], "y": [n % 3 == 0 for n in range(40)]})
    for name, frame in (("events", events), ("truth", truth)):
        write_deltalake(lake / "tables" / name, frame)
        path = lake / name / "day.parquet"
        path.parent.mkdir()
        frame.to_parquet(path, index=False)
        os.utime(path, (START.timestamp(), START.timestamp()))
    return events


SOURCES = {
    "files": "{{predictions: {{path: '{lake}/events/*.parquet'}}, "
    "actuals: {{path: 'file://{lake}/truth/*.parquet'}}}}",
    "delta": "{{predictions: {{delta: '{lake}/tables/events'}}, "
    "actuals: {{delta: 'file://{lake}/tables/truth'}}}}",
    "delta in place": "{{predictions: {{delta: '{lake}/tables/events', in_place: true}}, "
    "actuals: {{delta: '{lake}/tables/truth', in_place: true}}}}",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_a_lake_outside_the_project_is_read_and_computed(
    mlmon: Command, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, lake = tmp_path / "project", tmp_path / "lake"
    (project / "models").mkdir(parents=True)
    lake.mkdir()
    write_lake(lake)
    source = SOURCES[kind].format(lake=lake)
    (project / "models" / "churn.yaml").write_text(SPEC.format(source=source))
    start = "--project", project, "--now", "2026-10-03T00:00:00Z"

    valid = mlmon(*start, "validate")
    assert (valid.code, valid.err) == (0, "")
    ran = mlmon(*start, "run")
    assert ran.code == 0, ran.err
    counted = mlmon(*start, "metrics", "churn", "--metric", "roc_auc", "--format", "csv").out
    assert ",40," in counted
    seen = mlmon(*start, "doctor").out
    assert "a source matches every one" in seen
    again = mlmon(*start, "run")
    assert "new row" not in again.out

    monkeypatch.setenv("MLMON_ENGINE", "ray")
    warned = mlmon(*start, "validate")
    assert warned.code == 0
    assert warned.err.count("must see the same files under the same path") == 1
