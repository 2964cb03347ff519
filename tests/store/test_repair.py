"""Damaged tables: found, named, and mended so that they hold what they held before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import metric_log, schema
from mlmon_dagster.store.tables.delta import open_table
from mlmon_dagster.store.tables.part_files import buckets
from mlmon_dagster.store.upkeep.integrity import examine_store, find_strangers, repair_model
from tests.conftest import list_windows
from tests.ingest.landing import (
    NOW,
    credit_spec,
    events,
    ingest,
    land,
    log_content,
    record_content,
    truths,
)
from tests.store.test_metric_log import frame

Damaging = Callable[[Store], None]


def build(store: Store, project: Path) -> None:
    """Take in three files one after the other, a checkpoint in between, and their records."""
    land(project, "landing/predictions/a.parquet", events(8))
    ingest(store, credit_spec(), project)
    land(project, "landing/predictions/b.parquet", events(6, first=4, day="2024-02-02"))
    land(project, "landing/actuals/a.parquet", truths(9))
    ingest(store, credit_spec(), project)
    open_table(store.root / "event_log" / "credit" / "predictions").create_checkpoint()
    land(project, "landing/predictions/c.parquet", events(3, first=20, day="2024-02-03"))
    ingest(store, credit_spec(), project)
    record_content(store, credit_spec())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and its landing files, to copy."""
    folder = tmp_path_factory.mktemp("whole")
    store = open_store(folder / "store")
    build(store, folder / "project")
    store.close()
    return folder


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Iterator[Store]:
    """A copy of it, that may be damaged; the project is beside the store."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


def table(store: Store, name: str) -> Path:
    """Return the folder of a table."""
    return store.folder / name


def commits(store: Store, name: str) -> list[Path]:
    """Return the commits of a table, oldest first."""
    return sorted((table(store, name) / "_delta_log").glob("*.json"))


def data(store: Store, name: str) -> list[Path]:
    """Return the live data files of a table."""
    return sorted(Path(uri) for uri in open_table(store.root / name).file_uris())


def cut(path: Path, size: int) -> None:
    """Cut a file off."""
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path) -> None:
    """Destroy the footer of a Parquet file, which keeps its size."""
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)


PREDICTIONS, RECORDS = "event_log/credit/predictions", "inference_records/credit"
DAMAGES: dict[str, tuple[Damaging, str]] = {
    "last commit empty": (lambda s: cut(commits(s, PREDICTIONS)[-1], 0), "is empty"),
    "last commit cut": (lambda s: cut(commits(s, PREDICTIONS)[-1], 400), "is cut off or damaged"),
    "last commit gone": (
        lambda s: commits(s, PREDICTIONS)[-1].unlink(),
        "3 rows of 1 files that the manifest calls done are missing",
    ),
    "checkpoint cut": (
        lambda s: cut(next(table(s, PREDICTIONS).glob("_delta_log/*.checkpoint.parquet")), 99),
        "checkpoint 00000000000000000002 is cut off or damaged",
    ),
    "checkpoint's name damaged": (
        lambda s: cut(table(s, PREDICTIONS) / "_delta_log/_last_checkpoint", 5),
        "_last_checkpoint cannot be parsed",
    ),
    "data file gone": (lambda s: data(s, PREDICTIONS)[0].unlink(), "is missing"),
    "data file cut": (lambda s: cut(data(s, PREDICTIONS)[0], 100), "has 100 bytes, not"),
    "footer destroyed": (lambda s: flip(data(s, PREDICTIONS)[0]), "has no readable footer"),
    "log gone": (
        lambda s: shutil.rmtree(table(s, PREDICTIONS)),
        "rows of 3 files that the manifest calls done are missing",
    ),
    "ground truth gone": (lambda s: data(s, "event_log/credit/actuals")[0].unlink(), "is missing"),
    "moved ids cut": (
        lambda s: cut(commits(s, "event_log/credit/moved_ids")[-1], 300), "is cut off or damaged",
    ),
    "records' commit cut": (lambda s: cut(commits(s, RECORDS)[0], 9), "is cut off or damaged"),
    "records' file gone": (lambda s: data(s, RECORDS)[0].unlink(), "is missing"),
    "foreign file": (
        lambda s: table(s, RECORDS).joinpath("notes.txt").write_text("x") and None,
        "1 files are no part of the table inference_records: notes.txt",
    ),
    "foreign commit": (
        lambda s: commits(s, PREDICTIONS)[-1]
        .with_name(f"{99:020}.json")
        .write_text('{"commitInfo": {}}') and None,
        "is missing",
    ),
}  # fmt: skip


def content(store: Store) -> dict[str, Any]:
    """Return what the store holds, whatever its files are called."""
    spec = credit_spec()
    return {
        "log": log_content(store, spec, provenance=False),
        "records": record_content(store, spec),
    }


def test_a_whole_store_has_no_damage(copied: Store) -> None:
    assert list(examine_store(copied)) == []


def test_rows_that_were_refused_at_first_are_no_damage_and_a_repair_reads_their_file_again(
    store: Store, tmp_path: Path
) -> None:
    frame = events(40)
    file = land(tmp_path, "landing/predictions/a.csv", frame.assign(age=["?", *frame["age"][1:]]))
    strict, mended = (
        credit_spec(source__predictions__max_bad_rate=0.3, **nulls)
        for nulls in ({}, {"source__predictions__null_tokens": ["?"]})
    )
    assert [f.n_bad for f in ingest(store, strict, tmp_path).files] == [1]
    assert [f.n_new for f in ingest(store, mended, tmp_path).files] == [1]
    assert list(examine_store(store)) == []
    whole = log_content(store, mended, provenance=False)
    for part in (store.folder / "event_log" / "credit" / "predictions").rglob("*.parquet"):
        part.unlink()
        break
    assert file.exists()
    repair_model(store, mended, tmp_path, NOW)
    ingest(store, mended, tmp_path)
    assert log_content(store, mended, provenance=False) == whole
    assert list(examine_store(store)) == []


def test_metrics_that_nobody_can_name_any_more_are_found(any_store: Store) -> None:
    metric_log.append(any_store.state, pd.concat([frame(), frame(metric="ks")]))
    assert list(examine_store(any_store)) == []

    with any_store.state.begin() as conn:
        conn.execute(sa.delete(schema.series).where(schema.series.c.metric == "ks"))
    (found,) = examine_store(any_store)

    assert (found.place, found.found) == (
        "sample",
        "1 rows do not say which metric they are: the rows of series that they name are gone",
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_is_found_named_and_mended(
    name: str, copied: Store, whole: Path, tmp_path: Path
) -> None:
    undamaged = open_store(whole / "store")
    before = content(undamaged)
    undamaged.close()
    damage, expected = DAMAGES[name]
    damage(copied)

    found = list(examine_store(copied))
    assert any(expected in d.found for d in found), found
    assert all("mlmon store repair credit" in d.cure for d in found), found

    told = repair_model(copied, credit_spec(), tmp_path / "project", NOW)
    ingest(copied, credit_spec(), tmp_path / "project")

    assert content(copied) == before
    assert list(examine_store(copied)) == []
    assert told.lost == []
    assert told.done
    due = list_windows(copied, "credit")
    if str(RECORDS) in str(told.done) and "foreign" not in name:
        assert (due["input_revision"] > due["computed_revision"]).all()  # they are computed again
    assert Path(told.moved).is_dir() or name == "log gone"


def test_rows_whose_landing_file_is_gone_are_told_and_the_whole_ones_stay(
    copied: Store, tmp_path: Path
) -> None:
    spec = credit_spec()
    before = copied.event_log(spec).rows("predictions").num_rows
    data(copied, PREDICTIONS)[0].unlink()
    shutil.rmtree(tmp_path / "project" / "landing")

    told = repair_model(copied, spec, tmp_path / "project", NOW)

    assert told.lost
    assert all(path.startswith("landing/predictions/") for path in told.lost)
    assert 0 < copied.event_log(spec).rows("predictions").num_rows < before
    assert any("rows of" in d.found for d in examine_store(copied))  # still told, until put back


def test_a_repair_that_is_only_shown_changes_nothing(copied: Store, tmp_path: Path) -> None:
    cut(commits(copied, PREDICTIONS)[-1], 0)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())

    told = repair_model(copied, credit_spec(), tmp_path / "project", NOW, dry_run=True)

    assert told.done
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_files_of_every_part_of_a_large_date_belong_to_its_table() -> None:
    names = [
        f"dataset=production/window_date=2024-01-01/part-{bucket.first:03x}-{bucket.last:03x}-"
        f"{'0af' * 10}.parquet"
        for bucket in buckets(64)
    ]
    assert find_strangers(dict.fromkeys([*names, "notes.txt"], 1)) == ("notes.txt",)
