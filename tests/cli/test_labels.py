"""``mlmon labels``: rows drawn with a known chance, labelled by people, and what they answered."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.pipeline.labels import LEAST, allot_rows
from mlmon_dagster.spec.windows import windows_between
from tests.cli.conftest import Command
from tests.defs.small_model import make_project
from tests.pipeline.looking import look
from tests.pipeline.test_generation import FIRST, declare, draw_day, land

NOW = dt.datetime(2026, 1, 9, 6, tzinfo=dt.UTC)
AT = ("--now", NOW.isoformat())
DAYS = 3


@pytest.fixture
def assistant(tmp_path: Path, _own_environment: None) -> Path:
    """A project whose judge has spoken of every call, and people of 50 a day."""
    spec, project = declare(tmp_path), make_project(tmp_path, lambda: NOW)
    for i in range(DAYS):
        day = FIRST + dt.timedelta(days=i)
        land(tmp_path, day, *draw_day(3, day, 0.85))
    look(project, spec, "one")
    project.store.close()
    return tmp_path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(mlmon: Command, folder: Path, *more: object) -> list[dict[str, str]]:
    asked = folder / "asked.csv"
    period = ("--from", FIRST, "--to", FIRST + dt.timedelta(days=DAYS - 1))
    ended = mlmon("--project", folder, *AT, "labels", "draw", "assistant", *period, *more,
                  "--output", asked)  # fmt: skip
    assert ended.code == 0, ended
    return read(asked)


def test_rows_are_drawn_without_labels_and_without_what_the_judge_says(
    assistant: Path, mlmon: Command
) -> None:
    rows = draw(mlmon, assistant, "--n", 60)
    again = draw(mlmon, assistant, "--n", 60)
    other = draw(mlmon, assistant, "--n", 60, "--seed", 1)
    assert rows == again
    assert {row["id"] for row in rows} != {row["id"] for row in other}
    assert len(rows) == 60
    assert not any("faithful" in name for name in rows[0])
    assert {row["label"] + row["at"] for row in rows} == {""}
    labelled = {
        str(row["id"])
        for i in range(DAYS)
        for row in draw_day(3, FIRST + dt.timedelta(days=i), 0.85)[1]
        if row["name"] == "correct"
    }
    assert not labelled & {row["id"] for row in rows}


def test_answers_are_ground_truth_once_they_are_taken_and_empty_cells_are_none(
    assistant: Path, mlmon: Command
) -> None:
    rows = draw(mlmon, assistant, "--n", 40)
    for i, row in enumerate(rows[:30]):
        row["label"] = "correct" if i % 3 else "wrong"
    write(assistant / "answered.csv", rows)
    taken = mlmon("--project", assistant, *AT, "labels", "take", "assistant",
                  assistant / "answered.csv")  # fmt: skip
    assert "30 labels are in landing/evaluations" in taken.out
    spec, project = declare_again(assistant), make_project(assistant, lambda: NOW)
    look(project, spec, "two")
    first = dt.datetime.combine(FIRST, dt.time(), dt.UTC)
    windows = windows_between(spec.time, first, first + dt.timedelta(days=DAYS))
    found = {
        row["prediction_id"]: row
        for row in project.store.inference_records(spec).read(windows).to_pylist()
    }
    assert [found[row["id"]]["correct"] for row in rows[:30]] == [
        float(i % 3 > 0) for i in range(30)
    ]
    assert all(found[row["id"]]["correct"] is None for row in rows[30:])
    assert all(found[row["id"]]["faithful"] is not None for row in rows)
    project.store.close()


def declare_again(folder: Path):  # type: ignore[no-untyped-def]
    from mlmon_dagster.spec.files.loader import load_model

    return load_model(folder / "models" / "assistant.yaml")


def test_an_id_that_looks_like_a_formula_is_none_in_the_file_and_itself_once_taken(
    tmp_path: Path, mlmon: Command
) -> None:
    spec, project = declare(tmp_path), make_project(tmp_path, lambda: NOW)
    calls, said = draw_day(3, FIRST, 0.85)
    calls[0]["id"] = "=1+1"
    land(tmp_path, FIRST, calls[:1], said[:0] or [said[0] | {"id": "=1+1"}])
    look(project, spec, "one")
    project.store.close()
    asked = tmp_path / "asked.csv"
    mlmon("--project", tmp_path, *AT, "labels", "draw", "assistant", "--from", FIRST, "--output",
          asked)  # fmt: skip
    [row] = read(asked)
    assert row["id"] == "'=1+1"
    write(asked, [row | {"label": "correct"}])
    assert mlmon("--project", tmp_path, *AT, "labels", "take", "assistant", asked).code == 0
    [landed] = (tmp_path / "landing" / "evaluations").glob("labels-*")
    assert '"id":"=1+1"' in landed.read_text()


def test_what_cannot_be_taken_is_said_with_its_line(assistant: Path, mlmon: Command) -> None:
    rows = draw(mlmon, assistant, "--n", 10)
    write(assistant / "empty.csv", rows)
    ended = mlmon("--project", assistant, *AT, "labels", "take", "assistant",
                  assistant / "empty.csv")  # fmt: skip
    assert ended.code == 2
    assert "has no answer in column 'label'" in ended.err
    rows[1] |= {"name": "faithful", "label": "good"}
    write(assistant / "wrong.csv", rows)
    ended = mlmon("--project", assistant, *AT, "labels", "take", "assistant",
                  assistant / "wrong.csv")  # fmt: skip
    assert ended.code == 2
    assert "line 3: 'good' is not a number" in ended.err


def test_of_every_kind_are_at_least_five_or_all_and_the_rest_in_proportion() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        sizes = {f"k{i}": int(n) for i, n in enumerate(rng.integers(0, 400, rng.integers(1, 9)))}
        n = int(rng.integers(1, 300))
        found = allot_rows(sizes, n)
        assert all(min(size, LEAST) <= found.get(k, 0) <= size for k, size in sizes.items())
        whole = sum(sizes.values())
        assert all(
            found[k] >= min(size, round(n * size / whole)) for k, size in sizes.items() if size
        )


def test_an_erased_call_leaves_no_evaluation_and_no_explanation(
    tmp_path: Path, mlmon: Command
) -> None:
    """What people wrote about a person's call is that person's, too."""
    spec, project = declare(tmp_path), make_project(tmp_path, lambda: NOW)
    calls, said = draw_day(3, FIRST, 0.85)
    for row in said:
        row["explanation"] = f"explained-{row['id']}-end"
    land(tmp_path, FIRST, calls, said)
    look(project, spec, "one")
    project.store.close()
    gone = str(calls[5]["id"])
    assert f"explained-{gone}-end" in texts_of(tmp_path)
    (tmp_path / "ids").write_text(gone)

    ended = mlmon("--project", tmp_path, *AT, "erase", "assistant", "--ids-file", tmp_path / "ids",
                  "--yes", "--author", "me")  # fmt: skip

    assert ended.code == 0, ended
    left = texts_of(tmp_path)
    assert f"explained-{gone}-end" not in left
    assert f"explained-{calls[6]['id']}-end" in left


def texts_of(folder: Path) -> set[str]:
    """Return every text in any Parquet file of the store, old versions included."""
    found: set[str] = set()
    for path in (folder / ".mlmon" / "store").rglob("*.parquet"):
        table = pq.read_table(path)
        for column in table.columns:
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                found.update(value for value in column.to_pylist() if value)
    return found
