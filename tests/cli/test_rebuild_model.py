"""A spec's first mistake is put right: every file is read again under it, and no row is lost."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import manifest, writing
from tests.cli.conftest import Command

DAYS, ROWS = 30, 20
START = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
SPEC = """
model: churn
task: {task}
owners: ['team:ml']
time: {{zone: UTC, granularity: day, start: 2026-10-01}}
source:
  predictions: {{path: landing/*.csv, max_bad_rate: 0.5}}
  actuals: {{path: landing/*.csv}}
columns: {{prediction_id: {key}, event_time: at, prediction: said, actual: came}}
features:
  age: {{type: numeric}}
  plan: {{type: {plan}}}
baseline: {{moving: 14d}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Thirty days of files, each with a row whose age is no number."""
    (tmp_path / "landing").mkdir()
    (tmp_path / "models").mkdir()
    for day in range(DAYS):
        write_day(tmp_path, day)
    declare(tmp_path)
    return tmp_path


def write_day(project: Path, day: int) -> None:
    lines = ["ref,row,at,said,came,age,plan"]
    for row in range(ROWS):
        at = START + dt.timedelta(days=day, hours=row)
        age = "old" if row == 0 else str(20 + row)
        lines.append(f"r{day}-{row},{day}-{row},{at:%Y-%m-%dT%H:%M:%SZ},{row % 2},1,{age},7")
    path = project / "landing" / f"{day:02}.csv"
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (START.timestamp(), START.timestamp()))


def declare(
    project: Path,
    task: str = "multiclass_classification",
    key: str = "ref",
    plan: str = "numeric",
) -> None:
    (project / "models" / "churn.yaml").write_text(SPEC.format(task=task, key=key, plan=plan))


def at(project: Path, *words: str) -> Iterable[str]:
    now = START + dt.timedelta(days=DAYS + 1)
    return "--project", str(project), "--now", now.isoformat(), *words


def stored(project: Path) -> dict[str, tuple[int, int]]:
    """Return stream -> rows accepted and rows refused."""
    store = open_store(project / ".mlmon" / "store")
    files = {s: manifest.load_files(store.state, "churn", s) for s in ("predictions", "actuals")}
    store.close()
    return {
        stream: (sum(row["n_new"] for row in rows), sum(row["n_bad"] for row in rows))
        for stream, rows in files.items()
    }


MENDED = {
    "task": {"task": "binary_classification"},
    "id": {"key": "row"},
    "type": {"plan": "text"},
}
TAKEN_IN = {"predictions": (DAYS * (ROWS - 1), DAYS), "actuals": (DAYS * ROWS, 0)}


@pytest.mark.parametrize(
    "what", ["task", *(pytest.param(one, marks=pytest.mark.proof) for one in ("id", "type"))]
)
def test_a_changed_key_names_the_command_that_reads_all_again_without_losing_rows(
    mlmon: Command, project: Path, what: str
) -> None:
    assert mlmon(*at(project, "ingest")).code == 1, "rows were refused"
    assert stored(project) == TAKEN_IN
    declare(project, **MENDED[what])

    refused = mlmon(*at(project, "ingest"))
    assert refused.code == 2
    assert "mlmon model rebuild churn" in refused.err
    planned = mlmon(*at(project, "model", "rebuild", "churn", "--dry-run", "--author", "ann"))
    assert "60 files with 1,200 rows (1,170 accepted, 30 refused) to be read again" in planned.out
    assert mlmon(*at(project, "ingest")).code == 2, "nothing was done"
    done = mlmon(*at(project, "model", "rebuild", "churn", "--yes", "--author", "ann"))

    assert done.code == 0, done.err
    assert "(1,170 accepted, 30 refused) before, " in done.out
    assert "(1,170 accepted, 30 refused) now" in done.out
    assert stored(project) == TAKEN_IN
    assert mlmon(*at(project, "ingest")).code == 0
    history = mlmon(*at(project, "model", "history", "churn")).out
    assert "rebuilt" in history


def test_rows_of_files_that_are_gone_are_counted_before_anything_is_done(
    mlmon: Command, project: Path
) -> None:
    mlmon(*at(project, "ingest"))
    (project / "landing" / "03.csv").unlink()
    declare(project, task="binary_classification")

    rebuild = at(project, "model", "rebuild", "churn", "--yes", "--author", "ann")
    refused = mlmon(*rebuild)
    assert refused.code == 2
    assert "landing/03.csv: 20 rows, not there any more" in refused.out
    assert "40 rows of 2 files or batches cannot be read again" in refused.out
    assert stored(project) == TAKEN_IN

    assert mlmon(*rebuild, "--lose").code == 0
    left = {stream: (n - n // DAYS, bad - bad // DAYS) for stream, (n, bad) in TAKEN_IN.items()}
    assert stored(project) == left


@pytest.mark.parametrize(
    "step", ["forget.folder", pytest.param("ingest.after_append", marks=pytest.mark.proof)]
)
def test_interrupted_and_repeated_it_has_the_same_rows(
    mlmon: Command, project: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    mlmon(*at(project, "ingest"))
    declare(project, task="binary_classification")

    class Killed(BaseException): ...

    def die(name: str) -> None:
        if name == step:
            raise Killed

    rebuild = at(project, "model", "rebuild", "churn", "--yes", "--author", "ann")
    monkeypatch.setattr(writing, "on_reached", die, raising=False)
    with pytest.raises(Killed):
        mlmon(*rebuild)
    monkeypatch.undo()
    assert mlmon(*rebuild).code == 0
    assert stored(project) == TAKEN_IN
