"""Tables and a state database of different moments are noticed, whatever was restored alone."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.moments import (
    begin_moment,
    check_tables,
    find_difference,
    find_other_tables,
    join_moments,
)
from mlmon_dagster.store.upkeep.backup import make_backup
from mlmon_dagster.store.upkeep.maintenance import maintain
from tests import forked
from tests.ingest.landing import NOW, credit_spec, events, ingest, land, truths

SPEC = credit_spec()


def live(folder: Path) -> None:
    """Take in two files after each other; what there was in between is kept in ``before``."""
    for name, first in (("a", 0), ("b", 10)):
        land(folder, f"landing/predictions/{name}.parquet", events(10, first=first))
        store = open_store(folder / "store")
        ingest(store, SPEC, folder)
        store.close()
        if name == "a":
            shutil.copytree(folder / "store", folder / "before")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two moments of a store, to copy."""
    folder = tmp_path_factory.mktemp("lived")
    live(folder)
    return folder


def put_back(folder: Path, *names: str) -> None:
    """Bring some files or folders of the store back as they were before."""
    for name in names:
        for part in (folder / "store").glob(f"{name}*"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        for part in (folder / "before").glob(f"{name}*"):
            copy = shutil.copytree if part.is_dir() else shutil.copy
            copy(part, folder / "store" / part.name)


def lose_database(folder: Path) -> None:
    for part in (folder / "store").glob("state.db*"):
        part.unlink()


RESTORED: dict[str, tuple[Callable[[Path], None], str]] = {
    "database": (lambda f: put_back(f, "state.db"), "the database alone went back to a copy"),
    "tables": (
        lambda f: put_back(f, "event_log", "moments"),
        "the tables alone went back to a copy",
    ),
    "one table": (
        lambda f: put_back(f, "event_log"),
        "it has no version 2, which the database knows, as after they were restored alone",
    ),
    "no database": (lose_database, "the database was lost, or replaced"),
}


@pytest.mark.parametrize("what", RESTORED)
def test_whatever_was_restored_alone_is_noticed_with_the_command_that_mends_it(
    lived: Path, tmp_path: Path, what: str
) -> None:
    shutil.copytree(lived, tmp_path, dirs_exist_ok=True)
    restore, expected = RESTORED[what]
    restore(tmp_path)
    store = open_store(tmp_path / "store")

    with pytest.raises(StoreError, match="not of the same moment") as refused:
        ingest(store, SPEC, tmp_path)

    assert expected in str(refused.value)
    assert "mlmon store repair credit" in str(refused.value)
    with pytest.raises(StoreError, match="not of the same moment"):
        make_backup(store, tmp_path / "backup", NOW, None)
    with pytest.raises(StoreError, match="not of the same moment"):
        maintain(store, SPEC, NOW)
    store.close()


def test_both_of_one_moment_are_fine_also_when_both_went_back(lived: Path, tmp_path: Path) -> None:
    for name in ("store", "before"):
        store = open_store(shutil.copytree(lived / name, tmp_path / name))
        check_tables(store, SPEC)
        store.close()


def test_two_lives_after_one_copy_are_told_apart(lived: Path, tmp_path: Path) -> None:
    for name in ("store", "twin"):
        store = open_store(shutil.copytree(lived / "before", tmp_path / name))
        begin_moment(store, "credit", NOW)
        store.close()
    shutil.copy(tmp_path / "twin" / "state.db", tmp_path / "store" / "state.db")
    store = open_store(tmp_path / "store")
    assert "each was used with another copy of the other one" in find_difference(store, "credit")
    store.close()


def test_a_table_with_another_commit_of_the_same_number_is_another_one(
    lived: Path, tmp_path: Path
) -> None:
    store = open_store(shutil.copytree(lived / "store", tmp_path / "store"))
    log = store.folder / "event_log" / "credit" / "predictions" / "_delta_log"
    newest = sorted(log.glob("*.json"))[-1]
    newest.write_text(newest.read_text() + "\n")
    assert "is another one than the database knows" in find_difference(store, "credit")
    newest.write_text(newest.read_text()[:-1])
    assert find_difference(store, "credit") == ""
    store.close()


def test_commits_that_were_tidied_away_are_no_difference(store: Store, tmp_path: Path) -> None:
    land(tmp_path, "landing/predictions/a.parquet", events(10))
    land(tmp_path, "landing/actuals/a.parquet", truths(10))
    ingest(store, SPEC, tmp_path)
    maintain(store, SPEC, NOW)
    for commit in store.folder.glob("event_log/credit/*/_delta_log/0*.json"):
        commit.unlink()  # as once they are 30 days old
    assert find_other_tables(store, "credit") == {}
    check_tables(store, SPEC)


def test_a_repair_joins_what_was_apart_and_the_count_goes_on(any_store: Store) -> None:
    for _ in range(3):
        begin_moment(any_store, "credit", NOW)
    moment = any_store.root / "moments" / "credit" / "moment.json"
    ours = moment.read()
    assert ours is not None
    moment.delete()
    assert "they have no history" in find_difference(any_store, "credit")
    begin_moment(any_store, "credit", NOW)
    assert moment.read() is None  # a difference stays until it is mended
    join_moments(any_store, "credit", NOW)
    assert find_difference(any_store, "credit") == ""
    moment.write(ours)
    assert "the tables alone went back" in find_difference(any_store, "credit")


def begin(folder: Path, step: str) -> None:
    forked.die_at(step)
    begin_moment(open_store(folder), "credit", NOW)


@pytest.mark.parametrize("step", ["moment.announced", "moment.noted", "moment.begun"])
def test_killed_while_a_moment_begins_nothing_differs(tmp_path: Path, step: str) -> None:
    store = open_store(tmp_path / "store")
    begin_moment(store, "credit", NOW)
    assert forked.ended(begin, tmp_path / "store", step) == -signal.SIGKILL
    assert find_difference(store, "credit") == ""
    begin_moment(store, "credit", NOW)
    assert find_difference(store, "credit") == ""
    store.close()


def test_a_database_that_fails_while_the_first_moment_begins_makes_no_difference(
    store: Store,
) -> None:
    def fail(_: object) -> None:
        raise sa.exc.OperationalError("commit", {}, Exception("disk I/O error"))

    sa.event.listen(store.state, "commit", fail)
    with pytest.raises(sa.exc.OperationalError):
        begin_moment(store, SPEC.model, NOW)
    sa.event.remove(store.state, "commit", fail)

    assert find_difference(store, SPEC.model) == ""
    begin_moment(store, SPEC.model, NOW)
    assert find_difference(store, SPEC.model) == ""
    with store.state.begin() as conn:
        conn.execute(sa.text("DELETE FROM store_mark"))
    assert "the database was lost" in find_difference(store, SPEC.model)
