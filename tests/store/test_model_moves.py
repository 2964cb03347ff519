"""A model is renamed, removed and restored whole, wherever the process is killed meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.identity import fingerprint, new_row
from mlmon_dagster.alerts.people.rename_and_end import rename_alerts
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.alerting import alert_state, silences
from mlmon_dagster.store.state import collect_tokens, crash_points
from mlmon_dagster.store.state.model_events import history
from mlmon_dagster.store.upkeep.export import exported_tables
from mlmon_dagster.store.upkeep.remove import (
    find_removed,
    purge_expired,
    remove_model,
    removed_models,
    restore_model,
)
from mlmon_dagster.store.upkeep.rename import count_rows, declaration_of, rename_model
from tests import forked
from tests.conftest import make_spec
from tests.store.test_backup import BINS, NOW, bins, fill

OLD, NEW = "credit", "loans"
DAY = dt.timedelta(days=1)
ALERT = {
    "model": OLD, "dataset": "production", "monitor": "drift/psi/age", "family": "drift",
    "metric": "psi", "column_name": "age", "slice_key": "all", "slice_value": "all", "owner": "",
    "runbook": "",
}  # fmt: skip


def furnish(folder: Path) -> Store:
    """Make a store with a model's tables, a firing alert that was told of, and a silence."""
    store = open_store(folder / "store")
    fill(store)
    (folder / "models").mkdir()
    (folder / "models" / f"{OLD}.yaml").write_text(f"model: {OLD}\n")
    key = fingerprint(ALERT, "production")
    fired = {"state": "FIRING", "severity": "WARN", "episode": 3, "opened_at": NOW}
    group = {
        "group_key": f"slack|#ml|{OLD}|drift", "receiver": "slack", "channel": "#ml",
        "model": OLD, "family": "drift", "firing": json.dumps([f"{key}:3:0"]), "head_key": "h",
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
    silences.add(
        store.state, matcher=json.dumps({"model": OLD, "family": "drift"}), author="ann",
        comment="", starts_at=NOW, ends_at=NOW + 9 * DAY,
    )  # fmt: skip
    return store


def rename(folder: Path, store: Store) -> None:
    path = folder / "models" / f"{OLD}.yaml"
    names, text = (OLD, NEW), f"model: {NEW}\n"
    rename_model(store, path, text, names, rename_alerts, author="ann", now=NOW)


def remove(folder: Path, store: Store) -> None:
    path = folder / "models" / f"{OLD}.yaml"
    remove_model(store, path, OLD, 30 * DAY, author="ann", now=NOW + DAY)


def restore(folder: Path, store: Store) -> None:
    found = find_removed(store, OLD)
    if found is not None:
        restore_model(store, folder / "models", found, author="ann", now=NOW + 2 * DAY)


ACTIONS: dict[str, Callable[[Path, Store], None]] = {
    "rename": rename, "remove": remove, "restore": restore,
}  # fmt: skip
STEPS = [s for s in crash_points.STEPS if s.split(".")[0] in ACTIONS]


def act_until(folder: Path, step: str) -> None:
    """Do what the step is one of, and die without any clean-up when it is reached."""
    forked.die_at(step)
    ACTIONS[step.split(".")[0]](folder, open_store(folder / "store"))


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
    clean: dict[str, tuple[object, list[str]]] = {}
    for action, act in ACTIONS.items():
        folder = tmp_path / action
        shutil.copytree(base, folder)
        store = open_store(folder / "store")
        if action == "restore":
            remove(folder, store)
        act(folder, store)
        store.close()
        clean[action] = content(folder)
    assert any(NEW in name for name in clean["rename"][1])
    assert not any(OLD in name for name in clean["rename"][1])
    assert clean["restore"][1] == content(base)[1]
    for step in STEPS:
        action, folder = step.split(".")[0], tmp_path / step
        shutil.copytree(base, folder)
        store = open_store(folder / "store")
        if action == "restore":
            remove(folder, store)
        assert forked.ended(act_until, folder, step) == -signal.SIGKILL, step
        ACTIONS[action](folder, store)
        store.close()
        assert content(folder) == clean[action], step


def test_a_renamed_model_keeps_rows_tables_threads_tokens_and_silences(tmp_path: Path) -> None:
    store = furnish(tmp_path)
    collect_tokens.create(store.state, OLD, now=NOW)
    before = store.inference_records(make_spec()).read().sort_by("prediction_id")
    counted = count_rows(store, OLD)
    rename(tmp_path, store)
    spec = make_spec(model=NEW)
    assert store.inference_records(spec).read().sort_by("prediction_id") == before
    assert bins(store, NEW) == BINS
    assert not count_rows(store, OLD)
    after = count_rows(store, NEW)
    assert after.pop("model_event") == counted.pop("model_event") + 1
    assert after == counted
    key = fingerprint({**ALERT, "model": NEW}, "production")
    with store.state.connect() as conn:
        [group] = alert_state.load_groups(conn, NEW).values()
        assert alert_state.load_alerts(conn, NEW)[key]["episode"] == 3
    assert group["group_key"] == f"slack|#ml|{NEW}|drift"
    assert json.loads(group["firing"]) == [f"{key}:3:0"]
    [silence] = silences.every(store.state)
    assert json.loads(silence["matcher"])["model"] == NEW
    assert [known.model for known in collect_tokens.tokens(store.state)] == [NEW]
    assert {row["kind"] for row in history(store.state, NEW)} == {"reopened", "renamed"}
    store.close()


def test_a_removed_model_comes_back_whole_until_its_time_is_up(tmp_path: Path) -> None:
    store = furnish(tmp_path)
    spec = make_spec()
    before = store.inference_records(spec).read().sort_by("prediction_id")
    counted = count_rows(store, OLD)
    remove(tmp_path, store)
    assert not count_rows(store, OLD)
    assert not store.root.tables()
    assert not (store.root / "baselines").below()
    assert not list((tmp_path / "models").iterdir())
    [silence] = silences.every(store.state)
    assert (silence["ends_at"], silence["ended_by"]) == (NOW + DAY, "ann")
    assert purge_expired(store, NOW + 30 * DAY) == []
    restore(tmp_path, store)
    assert store.inference_records(spec).read().sort_by("prediction_id") == before
    assert bins(store, OLD) == BINS
    after = count_rows(store, OLD)
    assert after.pop("model_event") == counted.pop("model_event") + 1
    assert after == counted
    assert declaration_of(tmp_path / "models", OLD).read_text() == f"model: {OLD}\n"
    assert removed_models(store) == []
    remove(tmp_path, store)
    assert [gone.model for gone in purge_expired(store, NOW + 31 * DAY)] == [OLD]
    assert removed_models(store) == []
    store.close()


def test_a_model_of_the_same_name_is_not_overwritten(tmp_path: Path) -> None:
    store = furnish(tmp_path)
    remove(tmp_path, store)
    fill(store)
    with pytest.raises(ConfigError, match="There is a model credit again"):
        restore(tmp_path, store)
    assert store.inference_records(make_spec()).read().num_rows
    store.close()


def test_rows_move_on_both_databases(any_store: Store, tmp_path: Path) -> None:
    fill(any_store)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{OLD}.yaml").write_text(f"model: {OLD}\n")
    rename(tmp_path, any_store)
    (tmp_path / "models" / f"{NEW}.yaml").rename(tmp_path / "models" / f"{OLD}.yaml")
    path = tmp_path / "models" / f"{OLD}.yaml"
    counted = count_rows(any_store, NEW)
    remove_model(any_store, path, NEW, DAY, author="ann", now=NOW)
    found = find_removed(any_store, NEW)
    assert found is not None
    restore_model(any_store, tmp_path / "models", found, author="ann", now=NOW)
    after = count_rows(any_store, NEW)
    assert after.pop("model_event") == counted.pop("model_event") + 1
    assert after == counted


def test_a_model_declared_elsewhere_is_not_renamed_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no credit\.yaml"):
        declaration_of(tmp_path, OLD)
