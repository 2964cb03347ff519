"""A model is removed whole, wherever the process is killed meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.transitions import fingerprint, new_row
from mlmon_dagster.collect import admission
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import window_containing
from mlmon_dagster.store import Store, alert_state, open_store
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.sql import exported_tables
from mlmon_dagster.store.upkeep.maintenance import (
    count_rows,
    find_declaration,
    list_folders,
    remove_model,
)
from tests import crash_steps, forked
from tests.conftest import make_spec
from tests.store.test_backup import NOW, fill

MODEL = "credit"
DAY = dt.timedelta(days=1)
ALERT = {
    "model": MODEL, "dataset": "production", "monitor": "drift/psi/age", "family": "drift",
    "metric": "psi", "column_name": "age", "slice_key": "all", "slice_value": "all", "owner": "",
    "runbook": "", "window_start": NOW,
}  # fmt: skip


def furnish(folder: Path) -> Store:
    """Make a store with a model's tables, a firing alert that was told of, and a silence."""
    store = open_store(folder / "store")
    fill(store)
    (folder / "models").mkdir()
    (folder / "models" / f"{MODEL}.yaml").write_text(f"model: {MODEL}\n")
    for name in (MODEL, "another"):
        (folder / "spans" / name).mkdir(parents=True)
        (folder / "spans" / name / "1.jsonl").write_text("")
    key = fingerprint(ALERT, "production")
    fired = {"state": "FIRING", "severity": "WARN", "episode": 3, "opened_at": NOW}
    group = {
        "group_key": f"slack|#ml|{MODEL}|drift", "receiver": "slack", "channel": "#ml",
        "model": MODEL, "family": "drift", "firing": json.dumps([f"{key}:3:0"]), "head_key": "h",
        "version": 1, "resolved": "[]",
    }  # fmt: skip
    event = {
        "fingerprint": key, "episode": 3, "kind": "opened", "window_start": NOW,
        "data_version": "v", "severity": "WARN", "value": 0.4, "message": "", "muted_reason": "",
        "created_at": NOW,
    }  # fmt: skip
    with store.state.begin() as conn:
        alert_state.save_alerts(conn, [{**new_row(ALERT, "production", NOW), **fired}])
        alert_state.append_events(conn, [event])
        alert_state.save_group(conn, group)
    with store.state.begin() as conn:
        alert_state.add_silence(
            conn, matcher=json.dumps({"model": MODEL, "family": "drift"}), author="ann",
            comment="", starts_at=NOW, ends_at=NOW + 9 * DAY,
        )  # fmt: skip
    return store


def remove(folder: Path, store: Store) -> None:
    path = folder / "models" / f"{MODEL}.yaml"
    landed = folder / "spans" / MODEL
    remove_model(store, path, MODEL, landed=landed, author="ann", now=NOW + DAY)


STEPS = [step for step in crash_steps.STEPS if step.startswith("remove.")]


def remove_until(folder: Path, step: str) -> None:
    """Remove the model, and die without any clean-up when the step is reached."""
    forked.die_at(step)
    remove(folder, open_store(folder / "store"))


def content(folder: Path) -> tuple[object, list[str]]:
    """Return every row without its number, and every file that is there."""
    store = open_store(folder / "store")
    rows = {}
    with store.state.connect() as conn:
        for table in exported_tables():
            columns = [c for c in table.c if c.name != "id"]
            rows[table.name] = sorted(map(repr, conn.execute(sa.select(*columns))))
    store.close()
    files = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and "state.db" not in p.name
    )
    return rows, files


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    furnish(folder).close()
    return folder


def test_killed_at_any_step_and_repeated_it_is_as_if_never_killed(
    base: Path, tmp_path: Path
) -> None:
    found = {}
    for step in ("never", *STEPS):
        folder = tmp_path / step
        shutil.copytree(base, folder)
        if step != "never":
            assert forked.ended(remove_until, folder, step) == -signal.SIGKILL, step
        store = open_store(folder / "store")
        remove(folder, store)
        store.close()
        found[step] = content(folder)
    assert all(found[step] == found["never"] for step in STEPS)


def test_nothing_of_a_removed_model_is_left_and_everything_of_another_is(tmp_path: Path) -> None:
    store = furnish(tmp_path)
    admission.create_token(store.state, MODEL, now=NOW)
    window = window_containing(make_spec().time, NOW)
    with store.state.begin() as conn:
        window_state.mark_inputs(conn, make_spec(model="other"), [window], NOW)
    assert {"alert", "alert_event", "baseline", "window_state"} <= set(count_rows(store, MODEL))
    assert list_folders(store, MODEL)

    remove(tmp_path, store)

    assert not count_rows(store, MODEL)
    assert count_rows(store, "other") == {"window_state": 1}
    assert not list_folders(store, MODEL)
    assert not store.root.tables()
    assert not (store.root / "baselines").below()
    assert not list((tmp_path / "models").iterdir())
    assert [path.name for path in (tmp_path / "spans").iterdir()] == ["another"]
    [silence] = alert_state.every_silence(store.state)
    assert (silence["ends_at"], silence["ended_by"]) == (NOW + DAY, "ann")
    store.close()


def test_rows_are_deleted_on_both_databases(any_store: Store, tmp_path: Path) -> None:
    fill(any_store)
    assert count_rows(any_store, MODEL)

    remove(tmp_path, any_store)

    assert not count_rows(any_store, MODEL)


def test_a_model_declared_elsewhere_is_not_removed_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no credit\.yaml"):
        find_declaration(tmp_path, MODEL)
