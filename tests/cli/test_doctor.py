"""``mlmon doctor`` names what is wrong with what is kept; every other command says one sentence."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from mlmon_dagster.commands.doctor import _sources
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import model_history
from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, land_days, landing, write_declaration
from tests.ingest.sql_world import VARIABLE, sql_spec

AT = ("--now", NOW.isoformat())
STORE = Path(".mlmon") / "store"


def _cut_commit(store: Path) -> None:
    commit = max((store / "event_log" / MODEL / "predictions" / "_delta_log").glob("*.json"))
    commit.write_bytes(b"")


def _lose_file(store: Path) -> None:
    next((store / "inference_records" / MODEL).rglob("*.parquet")).unlink()


def test_deep_finds_a_cut_commit_and_a_lost_file_which_repair_and_ingest_mend(
    folder: Path, mlmon: Command
) -> None:
    count = ("store", "sql", MODEL, "SELECT count(*), sum(row_hash % 9973) FROM predictions")
    before = mlmon("--project", folder, *count).out
    _cut_commit(folder / STORE)
    _lose_file(folder / STORE)

    found = mlmon("--project", folder, "doctor", "--deep")
    assert found.code == 1
    assert "commit 00000000000000000001.json is empty" in found.out
    assert "cannot be opened" not in found.out  # the same, said twice
    assert f"-> Run mlmon store repair {MODEL}" in found.out

    mended = mlmon("--project", folder, *AT, "store", "repair", MODEL)
    assert (mended.code, mended.err) == (0, "")
    assert f"Next: mlmon run {MODEL}" in mended.out
    again = mlmon("--project", folder, *AT, "ingest", MODEL)
    assert (again.code, "75 bad rows" in again.out) == (1, True)  # the broken day's, as before

    assert mlmon("--project", folder, "doctor", "--deep").code == 0
    assert mlmon("--project", folder, *count).out == before


def test_deep_leaves_models_to_the_project_of_the_same_database_that_keeps_them(
    folder: Path, mlmon: Command
) -> None:
    with sqlite3.connect(folder / STORE / "state.db") as state:
        state.execute("CREATE TEMP TABLE theirs AS SELECT * FROM ingest_file")
        state.execute("UPDATE theirs SET model = 'theirs'")
        state.execute("INSERT INTO ingest_file SELECT * FROM theirs")

    found = mlmon("--project", folder, "doctor", "--deep")

    assert (found.code, "store repair theirs" in found.out) == (0, False), found.out
    assert "not looked at, as another project keeps them: theirs" in found.out


@pytest.mark.parametrize("content", [b"", b'{"add": {"pa'], ids=["empty", "cut"])
def test_no_command_reads_past_a_newest_commit_that_is_not_whole(
    content: bytes, folder: Path, mlmon: Command
) -> None:
    for kind in (f"event_log/{MODEL}/predictions", f"inference_records/{MODEL}"):
        log = folder / STORE / kind / "_delta_log"
        max(log.glob("*.json")).write_bytes(content)
    land_days(folder, NOW.date())
    query = "SELECT count(*) FROM predictions"
    for command in (
        ("ingest", MODEL),
        ("store", "describe"),
        ("store", "head", MODEL),
        ("store", "sql", MODEL, query),
        ("metrics", MODEL, "--granularity", "week"),
        ("backup", folder / "backup.tar.gz"),
    ):
        ended = mlmon("--project", folder, *AT, *command)
        assert ended.code == 2, (command, ended)
        assert ended.err.startswith("mlmon: The table at "), (command, ended)
        assert ended.err.count("\n") == 1
        assert (
            f"mlmon store repair {MODEL}" if not content else "mlmon doctor --deep"
        ) in ended.err


def test_a_lost_state_database_is_not_taken_for_a_new_store(folder: Path, mlmon: Command) -> None:
    for path in (folder / STORE).glob("state.db*"):
        path.unlink()

    found = mlmon("--project", folder, "doctor", "--deep")

    assert found.code == 1
    assert "the log has rows of 12 files that the state database does not know" in found.out
    assert f"mlmon store repair {MODEL}" in found.out


def test_refused_files_are_named_until_a_corrected_one_is_taken_in(
    folder: Path, mlmon: Command
) -> None:
    path = landing(folder, "predictions") / "2024-03-15.parquet"
    path.write_bytes(b"PAR1 nothing")
    assert mlmon("--project", folder, *AT, "ingest", MODEL).code == 1

    found = mlmon("--project", folder, *AT, "doctor")
    assert found.code == 1
    assert "FIX  quarantine: 1 refused files since 2024-02-14" in found.out
    assert f"mlmon ingest {MODEL} --replay" in found.out

    with sqlite3.connect(folder / STORE / "state.db") as conn:  # as if it had come under that name
        conn.execute("UPDATE ingest_file SET path = ? WHERE path LIKE '%/predictions/2024-03-14%'",
                     (f"landing/{MODEL}/predictions/2024-03-15.parquet",))  # fmt: skip
    assert "ok   quarantine: no refused files" in mlmon("--project", folder, *AT, "doctor").out


def test_a_model_with_events_and_no_baseline_is_named(folder: Path, mlmon: Command) -> None:
    with sqlite3.connect(folder / STORE / "state.db") as conn:
        conn.execute("DELETE FROM baseline")

    found = mlmon("--project", folder, *AT, "doctor")

    assert found.code == 1
    assert f"FIX  baselines: {MODEL} has events and no baseline" in found.out
    assert f"mlmon run {MODEL}" in found.out


def test_places_that_cannot_be_sent_to_are_named_and_nothing_is_sent(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_declaration(tmp_path)
    path = tmp_path / "models" / f"{MODEL}.yaml"
    places = "{pagerduty: {key_env: NO_KEY}, apprise: {url_env: CHAT}, email: {to: a@b.org}}"
    path.write_text(re.sub("^alerts: .*", f"alerts: {places}", path.read_text(), flags=re.M))
    monkeypatch.setenv("CHAT", "nosuch://hidden5Token")

    found = mlmon("--project", tmp_path, "doctor")
    assert found.code == 1
    assert "FIX  places: Apprise $CHAT: the variable does not hold one address" in found.out
    assert "PagerDuty $NO_KEY: set NO_KEY where the dispatcher runs" in found.out
    assert "set MLMON_SMTP_URL" in found.out
    assert "hidden5Token" not in found.out + found.err


def test_an_engine_that_does_not_exist_is_named_without_what_may_be_a_token(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "engine:" not in mlmon("--project", folder, "doctor").out
    monkeypatch.setenv("MLMON_ENGINE", "dask://user:secret@host")

    found = mlmon("--project", folder, "doctor")

    assert found.code == 1
    assert "engine: MLMON_ENGINE begins with 'dask'; expected local, ray, spark" in found.out
    assert "secret" not in found.out + found.err


def test_a_disk_that_is_nearly_full_is_told_before_it_is_full(
    folder: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 9 * 10**6, 9 * 10**6),
    )
    found = mlmon("--project", folder, "doctor")
    assert found.code == 1
    assert "FIX  disk: 9 MB free" in found.out
    assert "mlmon store maintain" in found.out


def test_a_store_that_cannot_be_written_is_a_sentence_and_exit_code_2_everywhere(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_declaration(tmp_path)
    monkeypatch.setenv("MLMON_STORE", "/proc/mlmon")  # where not even root makes a folder
    doctor = mlmon("--project", tmp_path, "doctor")
    assert doctor.code == 1
    assert "FIX  disk: /proc/mlmon cannot be written" in doctor.out
    for command in (("ingest",), ("run", MODEL), ("alerts", "deliver"), ("store", "describe")):
        ended = mlmon("--project", tmp_path, *command)
        assert ended.code == 2
        assert ended.err.startswith("mlmon: The store's folder /proc/mlmon cannot be made")
        assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("database or disk is full", "mlmon: The disk is full. Make room"),
        ("server closed the connection", "mlmon: The state database failed or went away"),
    ],
)
def test_a_run_that_a_disk_or_database_breaks_off_ends_with_the_sentence_and_2(
    failure: str, said: str, folder: Path, mlmon: Command
) -> None:
    land_days(folder, NOW.date())
    with sqlite3.connect(folder / STORE / "state.db") as state:
        state.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON ingest_file "
            f"BEGIN SELECT RAISE(FAIL, '{failure}'); END"
        )

    ended = mlmon("--project", folder, *AT, "run", MODEL)

    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(said)


def test_a_mark_ahead_of_now_is_named_by_doctor_and_run_and_moved_back_by_repair(
    folder: Path, mlmon: Command
) -> None:
    store = open_store(folder / ".mlmon" / "store")
    with store.state.begin() as conn:
        mark = NOW + dt.timedelta(days=300)
        model_history.move_rows_from(conn, MODEL, "production", mark, NOW)
    store.close()
    base = ("--project", folder, "--now", NOW.isoformat())
    examined, ran = mlmon(*base, "doctor"), mlmon(*base, "run", MODEL)
    mended = mlmon(*base, "store", "repair", MODEL)
    again, healthy = mlmon(*base, "run", MODEL), mlmon(*base, "doctor")

    assert "FIX  retention" in examined.out
    assert f"-> mlmon store repair {MODEL}" in examined.out
    assert ran.code == 2
    assert f"mlmon store repair {MODEL}" in ran.err
    assert mended.code == 0
    assert "no longer before" in mended.out
    assert again.code == 0, again.err
    assert "ok   retention" in healthy.out


def test_doctor_says_whether_the_table_of_a_source_can_be_read(tmp_path: Path) -> None:
    spec = sql_spec({"column": "id", "kind": "id"})
    (tmp_path / "models").mkdir()
    declared = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (tmp_path / "models" / "credit.yaml").write_text(yaml.safe_dump(declared))
    path = tmp_path / "source.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE scores (id, at, score, decision, age, region)")
    engine.dispose()

    without = _sources(project_from_environment(tmp_path, environ={}))
    with_url = _sources(project_from_environment(tmp_path, environ={VARIABLE: f"sqlite:///{path}"}))

    assert [(f.subject, f.is_fine) for f in without] == [("source of credit/predictions", False)]
    assert f"{VARIABLE} is not set" in without[0].found
    assert [f.is_fine for f in with_url] == [True], with_url
    assert "table scores" in with_url[0].found
