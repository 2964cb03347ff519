"""Rows of schema version 1 go through the second version's migration, there and back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import database, erased_ids
from mlmon_dagster.store.state.schema_changes import changes

NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)


def add_old_rows(engine: sa.Engine) -> None:
    """Write rows as the first version did: an erasure in the clear, a dead letter, a window."""
    rows = {
        "erasure": {"model": "credit", "dataset": "all", "prediction_id": "p-7",
                    "requested_at": NOW},
        "dead_letter": {"model": "credit", "stream": "predictions", "sha256": "f",
                        "row_number": 3, "reason": "wrong_type", "column_name": "age",
                        "message": "m", "row_hash": "1", "window_start": NOW, "created_at": NOW},
        "window_state": {"model": "credit", "window_start": NOW, "window_end": NOW,
                         "input_revision": 2, "n": 5},
        "silence": {"matcher": "{}", "author": "ann", "comment": "", "starts_at": NOW,
                    "ends_at": NOW},
    }  # fmt: skip
    reflected = sa.MetaData()
    reflected.reflect(engine, only=list(rows))
    with engine.begin() as conn:
        for name, row in rows.items():
            table = reflected.tables[name]
            times = {k: v for k, v in row.items() if isinstance(v, dt.datetime)}
            if conn.dialect.name == "sqlite":  # where they are text
                times = {k: v.strftime("%Y-%m-%d %H:%M:%S.%f") for k, v in times.items()}
            conn.execute(table.insert().values({**row, **times}))


def test_old_rows_survive_the_upgrade_and_erased_ids_stay_erased(any_store: Store) -> None:
    engine = any_store.state
    url = engine.url.render_as_string(hide_password=False)
    database.migrate_to(engine, "0001")
    add_old_rows(engine)
    upgraded = open_store(any_store.folder, url)  # opening upgrades
    with upgraded.state.connect() as conn:
        kept = {
            name: conn.execute(sa.text(f"SELECT * FROM {name}")).mappings().one()
            for name in ("erasure", "dead_letter", "window_state", "silence")
        }
        salt = conn.scalar(sa.text("SELECT salt FROM erasure_key WHERE model = 'credit'"))
    assert kept["erasure"]["id_hash"] == erased_ids.id_hash(salt, "p-7")
    assert "prediction_id" not in kept["erasure"]
    assert len(erased_ids.erased(upgraded.state, "credit").hashes) == 1
    assert (kept["dead_letter"]["row_number"], kept["dead_letter"]["id_hash"]) == (3, "")
    assert (kept["window_state"]["n"], kept["window_state"]["n_exempt"]) == (5, 0)
    assert (kept["silence"]["author"], kept["silence"]["ended_by"]) == ("ann", "")
    assert changes(upgraded.state, "credit") == []
    database.migrate_to(upgraded.state, "0001")
    database.migrate_to(upgraded.state, "0002")
    assert erased_ids.erased(upgraded.state, "credit").hashes.num_rows == 0  # as the docs say
    upgraded.close()


def test_the_copy_before_an_upgrade_has_the_old_version(store: Store, tmp_path: Path) -> None:
    database.migrate_to(store.state, "0001")
    add_old_rows(store.state)
    url = make_url(f"sqlite:///{store.folder}/state.db")
    assert database.copy_before_upgrade(url, tmp_path / "copy.db") == "0001"
    open_store(store.folder).close()
    copy = database.engine_of(make_url(f"sqlite:///{tmp_path}/copy.db"))
    assert database.version_of(copy) == "0001"
    with copy.connect() as conn:
        assert conn.scalar(sa.text("SELECT prediction_id FROM erasure")) == "p-7"
    with pytest.raises(StoreError, match="exists already"):
        database.copy_before_upgrade(url, tmp_path / "copy.db")
    assert database.copy_before_upgrade(make_url("sqlite:///nowhere.db"), tmp_path / "b.db") is None
