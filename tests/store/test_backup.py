"""Backups are whole, checked, portable between databases, and never overwrite anything."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, baselines, open_store
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.model_history import load_history, note_event
from mlmon_dagster.store.state.schema import store_mark
from mlmon_dagster.store.state.sql import exported_tables
from mlmon_dagster.store.upkeep.backup import make_backup, restore_backup, verify_backup
from tests.conftest import make_events, make_spec, window

NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
BINS = '{"binnings": ["north", "south"]}'


def fill(store: Store) -> None:
    spec = make_spec()
    predictions, actuals = make_events(spec)
    log = store.event_log(spec)
    log.append("predictions", predictions, ["p"])
    log.append("actuals", actuals, ["a"])
    day = window(spec, "2024-01-01")
    store.inference_records(spec).rebuild([day])
    with store.state.begin() as conn:
        window_state.mark_inputs(conn, spec, [day], NOW)
        note_event(conn, spec.model, "reopened", author="ann", note="why", now=NOW)
    baselines.save_baseline(store, spec.model, "b", "dataset", BINS, NOW)


def bins(store: Store, model: str) -> str | None:
    return baselines.read_whole_payload(store, baselines.load_newest(store.state, model, "b"))


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    with store.state.connect() as conn:
        return {
            table.name: sorted((tuple(r) for r in conn.execute(sa.select(table))), key=str)
            for table in exported_tables()
            if table is not store_mark  # from now on they have their own
        }


@pytest.mark.parametrize("name", ["backup", "backup.tar.gz"])
def test_a_restored_store_equals_the_one_that_was_backed_up(
    any_store: Store, tmp_path: Path, name: str
) -> None:
    fill(any_store)
    target = tmp_path / name
    files = any_store.root / "baselines" / "credit"
    (files / ".0.json.1.partial").path.write_text("of a writer that is at work")
    made = make_backup(any_store, target, NOW, None)
    assert verify_backup(target) == made
    restored = open_store(tmp_path / "restored")  # on SQLite, whatever it was made of
    assert restore_backup(restored, target, None, NOW) == made
    assert rows(restored) == rows(any_store)
    spec = make_spec()
    for stream in ("predictions", "actuals"):
        assert restored.event_log(spec).committed(stream, [stream[0]])
    before, after = (s.inference_records(spec).read() for s in (any_store, restored))
    assert before.sort_by("prediction_id") == after.sort_by("prediction_id")
    assert bins(restored, spec.model) == BINS
    assert len((restored.root / "baselines" / "credit").below()) == len(files.below()) - 1
    restored.close()


def test_ids_go_on_behind_the_restored_ones(store: Store, pg_url: str, tmp_path: Path) -> None:
    fill(store)
    make_backup(store, tmp_path / "backup", NOW, None)
    restored = open_store(tmp_path / "restored", pg_url)
    restore_backup(restored, tmp_path / "backup", None, NOW)
    with restored.state.begin() as conn:
        note_event(conn, "credit", "closed", author="bob", note="", now=NOW)
    assert len(load_history(restored.state, "credit")) == 2
    restored.close()


def test_a_store_that_holds_anything_is_not_restored_into(store: Store, tmp_path: Path) -> None:
    fill(store)
    make_backup(store, tmp_path / "backup", NOW, None)
    with pytest.raises(StoreError, match="is not empty, and a restore replaces nothing"):
        restore_backup(store, tmp_path / "backup", None, NOW)


def test_a_damaged_backup_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path
) -> None:
    fill(store)
    make_backup(store, tmp_path / "backup", NOW, None)
    (tmp_path / "backup" / "state" / "model_event.jsonl").write_text("")
    with pytest.raises(StoreError, match="is damaged: 1 files"):
        verify_backup(tmp_path / "backup")
    restored = open_store(tmp_path / "restored")
    with pytest.raises(StoreError, match="is damaged"):
        restore_backup(restored, tmp_path / "backup", None, NOW)
    assert not any(rows(restored).values())
    restored.close()


def test_an_existing_backup_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    make_backup(store, tmp_path / "backup", NOW, None)
    with pytest.raises(StoreError, match="exists already"):
        make_backup(store, tmp_path / "backup", NOW, None)
