"""Tables in a bucket beside a state database of another moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest.landing import hash_landed
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.upkeep.integrity import repair_model
from tests.ingest.landing import NOW, credit_spec, events, ingest, land, log_content


def test_an_older_database_beside_newer_tables_in_a_bucket_is_noticed_and_mended(
    remote: Store, tmp_path: Path
) -> None:
    spec, state = credit_spec(), tmp_path / "work" / "state.db"
    land(tmp_path, "landing/predictions/a.parquet", events(8))
    ingest(remote, spec, tmp_path)
    remote.close()
    shutil.copy(state, tmp_path / "older.db")
    land(tmp_path, "landing/predictions/b.parquet", events(8, first=8))
    ingest(remote, spec, tmp_path)
    before = log_content(remote, spec, provenance=False)
    remote.close()
    for part in state.parent.glob("state.db*"):
        part.unlink()
    shutil.copy(tmp_path / "older.db", state)

    store = open_store(
        remote.root.url, storage_options=remote.storage_options, folder=tmp_path / "work"
    )
    with pytest.raises(StoreError, match=r"the database alone went back.*mlmon store repair"):
        ingest(store, spec, tmp_path)
    sources = [source for _, source in spec.source]
    told = repair_model(store, spec, tmp_path, NOW, landed=lambda: hash_landed(tmp_path, sources))
    assert told.lost == []
    report = ingest(store, spec, tmp_path)

    assert [(file.status, file.n_new) for file in report.files] == [("done", 8)]
    assert log_content(store, spec, provenance=False) == before
    with pytest.raises(StoreError, match="bucket's own versioning"):
        repair_model(store, spec, tmp_path, NOW)
    store.close()
