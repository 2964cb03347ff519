"""Backups that were cut, restores and backups that were killed, and copies that do not fit."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from mlmon_dagster.defs.sensors import planner_sensor
from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.project import Project
from mlmon_dagster.spec import read_models
from mlmon_dagster.store.upkeep.backup import make_backup, restore_backup
from tests import forked
from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW, land_days, make_project, write_declaration

REFUSED = """
ingest
run churn
report churn
status
status churn
metrics churn
trace churn
alerts list
alerts deliver
watchdog
store describe
store maintain
store repair churn
backup another
erase churn --prediction-id p0301-1 --yes --author me
erase churn --list
"""


def made(folder: Path, first: int = 0) -> Project:
    """Make a project with two days of a model."""
    spec = write_declaration(folder)
    land_days(folder, *DAYS[first : first + 2])
    project = make_project(folder)
    ingest_new(project.store, spec, folder, readers(), now=NOW)
    return project


def restore_until(folder: Path, backup: Path, step: str) -> None:
    forked.die_at(step)
    restore_backup(make_project(folder).open_store(is_restoring=True), backup, None, NOW)


def back_up_until_killed(folder: Path, backup: Path) -> None:
    forked.die_at("backup.filled")
    make_backup(make_project(folder).store, backup, NOW, None)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of two days."""
    (tmp_path / "first").mkdir()
    project = made(tmp_path / "first")
    make_backup(project.store, tmp_path / "backup.tar.gz", NOW, project.models_folder)
    project.store.close()
    return tmp_path / "backup.tar.gz"


@pytest.mark.parametrize("step", ["restore.begun", "restore.copied", "restore.imported"])
def test_after_a_killed_restore_every_command_refuses_and_the_same_backup_ends_it(
    mlmon: Command, backup: Path, tmp_path: Path, step: str
) -> None:
    (folder := tmp_path / "second").mkdir()
    write_declaration(folder)
    assert forked.ended(restore_until, folder, backup, step) == -signal.SIGKILL
    for line in REFUSED.strip().splitlines() if step == "restore.copied" else ["run churn"]:
        ended = mlmon("--project", folder, *line.split())
        assert ended.code == 2, line
        assert "half filled: a restore of" in ended.err, line
        assert "Run mlmon restore with the same backup again" in ended.err, line
    looked = mlmon("--project", folder, "doctor")
    assert looked.code == 1
    assert "FIX  store: The store in" in looked.out
    with pytest.raises(StoreError, match="half filled"):
        look_as_the_daemon(make_project(folder))

    assert mlmon("--project", folder, "restore", backup).code == 0
    assert mlmon("--project", folder, "store", "describe").code == 0
    listed = mlmon("--project", folder, "ingest")
    assert (listed.code, "0 files" in listed.out) == (0, True), listed


def look_as_the_daemon(project: Project) -> None:
    """Evaluate the planner once, as the daemon does."""
    models = read_models(project.models_folder, project.now())
    with dg.DagsterInstance.ephemeral() as instance:
        planner_sensor(project, models)(dg.build_sensor_context(instance=instance))


def test_another_backup_does_not_go_on_with_a_killed_restore(
    mlmon: Command, backup: Path, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "first")
    make_backup(project.store, tmp_path / "other", NOW.replace(hour=17), None)
    project.store.close()
    (folder := tmp_path / "second").mkdir()
    assert forked.ended(restore_until, folder, backup, "restore.copied") == -signal.SIGKILL

    ended = mlmon("--project", folder, "restore", tmp_path / "other")

    assert ended.code == 2
    assert "half filled from another backup than" in ended.err


def test_a_killed_backup_is_told_by_every_command_until_the_next_one_removes_it(
    mlmon: Command, tmp_path: Path
) -> None:
    (folder := tmp_path / "project").mkdir()
    made(folder).store.close()
    target = tmp_path / "copies" / "today.tar"
    assert forked.ended(back_up_until_killed, folder, target) == -signal.SIGKILL
    for line in ("status", "validate", "store describe"):
        ended = mlmon("--project", folder, *line.split())
        assert ended.code == 0
        assert f"mlmon: the backup {target}, begun" in ended.err
        assert "Make it again" in ended.err
    assert mlmon("--project", folder, "backup", target).code == 0
    assert [path.name for path in target.parent.iterdir()] == ["today.tar"]
    assert mlmon("--project", folder, "status").err == ""


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_cut_backup_is_a_sentence(
    mlmon: Command, backup: Path, tmp_path: Path, kept: float, ending: str
) -> None:
    whole = tmp_path / f"whole{ending}"
    project = make_project(tmp_path / "first")
    make_backup(project.store, whole, NOW, None)
    project.store.close()
    cut = tmp_path / f"cut{ending}"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * kept)])
    (folder := tmp_path / "second").mkdir()
    for words in (("restore", cut), ("restore", cut, "--verify")):
        ended = mlmon("--project", folder, *words)
        assert ended.code == 2
        assert "Aborted" not in ended.err
        assert f"{cut} " in ended.err
        assert "Use another" in ended.err
    assert not (folder / ".mlmon" / "store" / ".restoring").exists()


def test_a_folder_with_something_else_is_no_backup(mlmon: Command, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "backup.json").write_text('{"format": 7}')
    ended = mlmon("--project", tmp_path, "restore", tmp_path / "some")
    assert ended.code == 2
    assert "is no backup: its format is 7, not 1" in ended.err


def test_run_doctor_and_the_daemon_say_which_command_mends_a_database_restored_alone(
    mlmon: Command, tmp_path: Path
) -> None:
    project = made(tmp_path)
    project.store.close()
    state = tmp_path / ".mlmon" / "store" / "state.db"
    shutil.copy(state, tmp_path / "older.db")
    made(tmp_path, 2).store.close()
    for part in state.parent.glob("state.db-*"):
        part.unlink()
    shutil.copy(tmp_path / "older.db", state)

    ran = mlmon("--project", tmp_path, "--now", NOW.isoformat(), "run", MODEL)
    looked = mlmon("--project", tmp_path, "--now", NOW.isoformat(), "doctor")

    assert ran.code == 2
    assert f"run mlmon store repair {MODEL}, then mlmon run {MODEL}" in ran.err
    assert "FIX  moments: The tables of 'churn' and the state database are not" in looked.out
    repaired = mlmon("--project", tmp_path, "store", "repair", MODEL)
    assert (repaired.code, "taken for one moment" in repaired.out) == (0, True)
    assert mlmon("--project", tmp_path, "ingest").code == 0
    again = mlmon("--project", tmp_path, "--now", NOW.isoformat(), "doctor")
    assert "ok   moments: tables and state database belong together" in again.out


def test_a_zeroed_page_of_the_state_database_is_found_by_doctor_and_a_sentence_everywhere(
    mlmon: Command, tmp_path: Path
) -> None:
    (first := tmp_path / "first").mkdir()
    made(first).store.close()
    state = Path(".mlmon", "store", "state.db")
    with contextlib.closing(sqlite3.connect(first / state)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = conn.execute("PRAGMA page_size").fetchone()[0]
    whole = (first / state).read_bytes()
    used = [n for n in range(len(whole) // size) if any(whole[n * size : (n + 1) * size])]
    n_met = 0
    for page in random.Random(7).sample(used[1:], 8):
        folder = shutil.copytree(first, tmp_path / f"page{page}")
        damaged = whole[: page * size] + bytes(size) + whole[(page + 1) * size :]
        (folder / state).write_bytes(damaged)
        at = ("--project", folder, "--now", NOW.isoformat())
        looked = mlmon(*at, "doctor")
        assert looked.code == 1, page
        assert re.search(r"FIX +store: .*(malformed|damaged|database)", looked.out), looked.out
        assert "mlmon restore" in looked.out
        for words in (("ingest",), ("alerts", "list"), ("store", "describe")):
            ended = mlmon(*at, *words)
            if ended.code == 2:
                n_met += 1
                assert "The state database is damaged. Move it away and restore" in ended.err
    assert n_met > 0
