"""A table that nobody changed is opened once, and whatever anybody does to it is seen at once."""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store
from mlmon_dagster.store.tables.delta import NEWEST, Conflict, DeltaFolder

SCHEMA = pa.schema([("v", pa.int64())])


def rows(*values: int) -> pa.Table:
    return pa.table({"v": values}, schema=SCHEMA)


@pytest.fixture
def folder(store: Store) -> DeltaFolder:
    folder = DeltaFolder(store.root / "t", SCHEMA)
    folder.ensure().append(rows(1), ["first"])
    return folder


def values(store: Store, folder: DeltaFolder) -> list[int]:
    snapshot = folder.snapshot()
    assert snapshot is not None
    found: list[int] = store.query(f"SELECT v FROM {snapshot.from_sql()} ORDER BY v")["v"]
    return found.to_pylist()  # type: ignore[attr-defined]


def test_what_we_committed_is_not_opened_again(folder: DeltaFolder) -> None:
    folder.ensure().append(rows(2), ["second"])
    found = NEWEST.find(folder.path)
    folder.ensure()
    assert NEWEST.find(folder.path) is found
    assert (found.number, len(found.files), found.has_transaction("second")) == (2, 2, True)


def test_a_commit_of_another_process_is_seen(folder: DeltaFolder, store: Store) -> None:
    assert values(store, folder) == [1]
    write_deltalake(folder.path.url, rows(2), mode="append")
    assert values(store, folder) == [1, 2]


def test_an_older_version_that_is_restored_is_seen(
    folder: DeltaFolder, store: Store, tmp_path: Path
) -> None:
    shutil.copytree(folder.path.path, tmp_path / "backup")
    folder.ensure().append(rows(2))
    assert values(store, folder) == [1, 2]
    shutil.rmtree(folder.path.path)
    shutil.copytree(tmp_path / "backup", folder.path.path)
    assert values(store, folder) == [1]
    DeltaTable(folder.path.url).restore(0)
    assert values(store, folder) == []


def test_another_table_of_the_same_version_is_seen(folder: DeltaFolder, store: Store) -> None:
    assert values(store, folder) == [1]
    shutil.rmtree(folder.path.path)
    assert folder.snapshot() is None
    write_deltalake(folder.path.url, rows(), mode="append")
    write_deltalake(folder.path.url, rows(7), mode="append")
    assert DeltaTable(folder.path.url).version() == 1
    assert values(store, folder) == [7]


def test_a_checkpoint_without_its_commits_is_seen(folder: DeltaFolder, store: Store) -> None:
    assert values(store, folder) == [1]
    log = folder.path.path / "_delta_log"
    for value in (2, 3):
        write_deltalake(folder.path.url, rows(value), mode="append")
    DeltaTable(folder.path.url).create_checkpoint()
    (log / f"{2:020}.json").unlink()  # as a cleanup that was broken off leaves it
    assert values(store, folder) == [1, 2, 3]


def test_a_newest_commit_that_is_damaged_is_told(folder: DeltaFolder) -> None:
    assert folder.snapshot() is not None
    (folder.path.path / "_delta_log" / f"{1:020}.json").write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        folder.snapshot()


def test_what_is_pinned_stays_as_it_was_whoever_commits(folder: DeltaFolder, store: Store) -> None:
    held, other = folder.snapshot(), folder.snapshot()
    assert held is not None
    assert other is not None
    other.append(rows(2), ["second"])
    assert (held.version, len(held.files)) == (1, 1)
    assert (held.has_transaction("first"), held.has_transaction("second")) == (True, False)
    assert values(store, folder) == [1, 2]
    with pytest.raises(Conflict):
        held.append(rows(3))
    assert values(store, folder) == [1, 2]


def test_the_tables_kept_are_few(store: Store) -> None:
    folders = [DeltaFolder(store.root / f"t{i}", SCHEMA) for i in range(40)]
    first = [NEWEST.find(folder.ensure()._folder) for folder in folders]
    again = [NEWEST.find(folder.path) for folder in reversed(folders)]
    assert sum(a is b for a, b in zip(first, reversed(again), strict=True)) == 32
