"""The commands that take the state database to another version and back."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlmon_dagster.store import open_store
from mlmon_dagster.store.baselines import fitted_baselines
from mlmon_dagster.store.state.database import HEAD
from tests.cli.conftest import Command


@pytest.fixture
def at(tmp_path: Path) -> tuple[str, ...]:
    """The options of a project without models."""
    (tmp_path / "project" / "models").mkdir(parents=True)
    return ("--project", str(tmp_path / "project"))


def test_a_database_of_postgresql_goes_down_and_up_once_a_dump_is_vouched_for(
    mlmon: Command, at: tuple[str, ...], tmp_path: Path, pg_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLMON_DB_URL", pg_url)
    down = mlmon(*at, "downgrade", "--to", "0001", "--backup", tmp_path / "before.tar.gz")
    assert (down.code, "has version 0001 now" in down.out) == (0, True), down.err

    refused = mlmon(*at, "upgrade")
    assert refused.code == 2
    assert "Make a copy with pg_dump first, then say --dumped." in refused.err
    up = mlmon(*at, "upgrade", "--dumped")
    assert (up.code, up.out.strip()) == (
        0, f"Schema version 0001 before, {HEAD} now (newest: {HEAD})."
    ), up.err  # fmt: skip


def test_a_database_of_sqlite_is_copied_before_it_is_upgraded(
    mlmon: Command, at: tuple[str, ...], tmp_path: Path
) -> None:
    down = mlmon(*at, "downgrade", "--to", "0001", "--backup", tmp_path / "before.tar.gz")
    assert down.code == 0, down.err

    assert "--backup FILE.db" in mlmon(*at, "upgrade").err
    copy = tmp_path / "copy.db"
    up = mlmon(*at, "upgrade", "--backup", copy)
    assert up.out.strip() == (
        f"Copied to {copy}. Schema version 0001 before, {HEAD} now (newest: {HEAD})."
    )
    assert copy.stat().st_size > 0
    assert mlmon(*at, "downgrade", "--to", HEAD, "--backup", tmp_path / "b.tar.gz").code == 2


def test_a_downgrade_gives_the_older_program_the_bins_that_it_reads_from_rows(
    mlmon: Command, at: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "project" / ".mlmon" / "store"
    store = open_store(folder)
    moment = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
    fitted_baselines.save(store, "churn", "b", "dataset", '{"binnings": []}', moment)
    store.close()

    down = mlmon(*at, "downgrade", "--to", "0001", "--backup", tmp_path / "before.tar.gz")

    assert down.code == 0, down.err
    with closing(sqlite3.connect(folder / "state.db")) as conn:
        assert conn.execute("SELECT payload FROM baseline").fetchall() == [('{"binnings": []}',)]
