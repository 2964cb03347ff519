"""A file that is read in parts leaves what it leaves when it is read at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest import cycle, raw
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats import read_csv, read_jsonl, read_parquet
from mlmon_dagster.ingest.raw import Options, in_parts
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import open_store
from mlmon_dagster.store.state.writing import writer_lock
from mlmon_dagster.store.tables import event_log, kept_rows, part_files
from tests.conftest import window
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    World,
    credit_spec,
    events,
    everything,
    ingest,
    land,
    letters_of,
    truths,
)

ROWS = 90


def bad(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with duplicates, a conflict and bad rows here and there."""
    frame = frame.astype({"score": object, "region": object, "id": object, "age": object})
    frame.loc[7, "score"] = 7.0
    frame.loc[40, "region"] = None
    frame.loc[41, "id"] = None
    frame.loc[88, "score"] = -1.0
    again = frame.iloc[[2, 50]]
    conflict = frame.iloc[[3]].assign(age=99.0)
    return pd.concat([frame, again, conflict], ignore_index=True)


def small_parts(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Divide all that is divided into parts of so many rows."""
    monkeypatch.setattr(cycle, "ROWS_A_PART", rows)
    monkeypatch.setattr(event_log, "ROWS_AT_ONCE", rows)
    monkeypatch.setattr(event_log.PinnedLog, "rows_at_once", rows)
    monkeypatch.setattr(part_files, "ROWS_TOGETHER", rows)
    monkeypatch.setattr(read_parquet, "_BATCH", 4)
    monkeypatch.setattr(read_csv, "_BLOCK", 2_000)
    monkeypatch.setattr(read_jsonl, "_BLOCK", 2_000)
    monkeypatch.setattr(read_jsonl, "_LEAST_BYTES", 0)


def world(folder: Path, ending: str, spec: ModelSpec) -> dict[str, Any]:
    """Take in a day's events, some again, and their ground truth; return all that is left."""
    project = folder / "project"
    content = bad(events(ROWS))
    if ending == "parquet":
        content = content.astype({"score": "float64", "age": "float64"})
    land(project, f"{PREDICTIONS}/a.{ending}", content)
    land(project, f"{PREDICTIONS}/b.{ending}", events(30, first=60, day="2024-02-02"))
    land(project, f"{ACTUALS}/a.{ending}", truths(80, first=20))
    store = open_store(folder / "store")
    report = ingest(store, spec, project)
    days = [window(spec, f"2024-02-0{day}") for day in (1, 2)]
    counts = store.inference_records(spec).rebuild(days)
    kept = kept_rows.locate_folder(store, spec.model)
    refused = [kept_rows.read_rows(kept / name) for name in kept.below()]
    found = {
        "files": [(f.path, f.status, f.rows_in, f.n_new, f.n_duplicate, f.n_conflict, f.n_bad,
                   f.n_unmatched, f.bad_rows, f.warnings) for f in report.files],
        "windows": report.windows,
        "letters": [{k: v for k, v in letter.items() if k not in ("id_hash", "row_hash")}
                    for letter in letters_of(store, spec)],
        "kept": [rows.rows.drop_columns(["id_hash"]).to_pylist() for rows in refused if rows],
        "counts": counts,
        "content": everything(store, spec),
    }  # fmt: skip
    store.close()
    return found


def test_of_a_parquet_file_read_in_parts_a_row_group_is_in_memory_and_not_the_file(
    tmp_path: Path,
) -> None:
    n, groups, path = 20_000, 12, tmp_path / "a.parquet"
    rows = pa.table({"x": np.random.default_rng(3).random(n * groups)})
    pq.write_table(rows, path, row_group_size=n)
    del rows
    before, held = pa.total_allocated_bytes(), []
    options = Options(n * groups, rows_at_once=n // 2)
    for part in read_parquet.read_parquet(path, "a", [Column("x", "x", "number")], options):
        held.append(pa.total_allocated_bytes() - before)
        del part
    assert len(held) == 2 * groups
    assert max(held) < path.stat().st_size / 2


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_file_with_more_cells_than_are_held_at_once_is_read_in_parts(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "MAX_CELLS", 40_000)
    monkeypatch.setattr(read_jsonl, "_LEAST_BYTES", 0)
    path, wanted = tmp_path / f"a.{ending}", [Column("x", "x", "number")]
    rows = pd.DataFrame({"x": np.arange(60_000) / 2})
    writers = {
        "parquet": (rows.to_parquet, read_parquet.read_parquet),
        "csv": (partial(rows.to_csv, index=False), read_csv.read_csv),
        "jsonl": (partial(rows.to_json, orient="records", lines=True), read_jsonl.read_jsonl),
    }
    write, read = writers[ending]
    write(path)

    parts = read(path, "a", wanted, Options(100_000, rows_at_once=20_000))

    assert sum(part.n_rows for part in parts) == 60_000
    with pytest.raises(SchemaError, match="are more than 40,000 cells"):
        list(read(path, "a", wanted, Options(100_000)))


def test_tables_of_half_a_part_are_not_cut() -> None:
    tables = [pa.table({"x": range(n)}) for n in (60, 30, 30, 250, 10)]

    parts = list(in_parts(tables, 100))

    assert [part.num_rows for _, part in parts] == [90, 100, 100, 90]
    assert [first for first, _ in parts] == [0, 90, 190, 290]
    assert pa.concat_tables([part for _, part in parts]) == pa.concat_tables(tables)


@pytest.mark.proof
# Each format divides by itself; what comes after it is divided alike.
@pytest.mark.parametrize(("ending", "rows"), [("parquet", 40), ("csv", 11), ("jsonl", 23)])
def test_any_division_leaves_the_same_rows_letters_counters_and_data_versions(
    ending: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = world(tmp_path / "at_once", ending, credit_spec())
    small_parts(monkeypatch, rows)

    found = world(tmp_path / "in_parts", ending, credit_spec())

    for name in expected:
        assert found[name] == expected[name], name


def test_too_many_bad_rows_are_counted_over_all_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = credit_spec()
    frame = events(60, score=[0.5] * 40 + [7.0] * 20)
    world.land(f"{PREDICTIONS}/a.parquet", frame)
    (at_once,) = world.ingest(spec).files
    small_parts(monkeypatch, 7)

    (in_parts,) = world.ingest(spec, retry=True).files

    assert at_once.status == in_parts.status == "quarantined"
    assert (at_once.message, at_once.bad_rows) == (in_parts.message, in_parts.bad_rows)
    assert not list((world.store.folder / "staging").rglob("*.good_rows"))


def test_nothing_of_a_file_is_seen_if_the_program_ends_between_two_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = credit_spec()
    world.land(f"{PREDICTIONS}/a.parquet", events(60))
    small_parts(monkeypatch, 7)
    prepare, calls = cycle.prepare, iter(range(100))

    def dying(*arguments: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return prepare(*arguments)

    monkeypatch.setattr(cycle, "prepare", dying)
    with pytest.raises(KeyboardInterrupt):
        world.ingest(spec)
    assert world.store.event_log(spec).rows("predictions").num_rows == 0
    monkeypatch.setattr(cycle, "prepare", prepare)

    (file,) = world.ingest(spec).files

    assert (file.status, file.n_new) == ("done", 60)
    assert world.store.event_log(spec).rows("predictions").num_rows == 60
    with writer_lock(world.store.state, f"ingest/{spec.model}", wait_seconds=1):
        assert not list((world.store.folder / "staging").rglob("*.*"))


def test_what_is_made_ahead_comes_in_order_and_fails_in_its_place() -> None:
    made, taken = [], []
    second_is_made = threading.Event()

    def items() -> Iterator[int]:
        for i in range(3):
            made.append(threading.current_thread())
            if i == 1:
                second_is_made.set()
            yield i
        raise ValueError("the fourth")

    def take_all() -> None:
        for item in cycle.ahead(items()):
            assert second_is_made.wait(30), "while the first is used up"
            taken.append(item)

    with pytest.raises(ValueError, match="the fourth"):
        take_all()

    assert taken == [0, 1, 2]
    assert threading.current_thread() not in made
