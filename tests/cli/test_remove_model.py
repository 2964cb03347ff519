"""Removing a model by its command."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.upkeep.backup import restore_backup
from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, make_project

pytestmark = pytest.mark.slow


def test_remove_says_what_goes_asks_and_makes_a_backup_that_brings_it_back(
    mlmon: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = ("--project", folder, "--now", NOW.isoformat(), "model", "remove", MODEL)
    before = metric_log.newest(make_project(folder).store.state, MODEL)

    landed = folder / "spans" / MODEL / "1.jsonl.refused"
    landed.parent.mkdir(parents=True)
    landed.write_text("no JSON")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = mlmon(*remove, "--author", "ann")
    assert asked.code == 1
    assert "rows of metric" in asked.out
    assert f"models/{MODEL}.yaml" in asked.out
    assert "mlmon backup FILE" in asked.out
    assert f"spans/{MODEL}: 1 file of spans that no ingest has read" in asked.out
    assert f"Delete all this of {MODEL} for good?" in asked.out
    assert len(metric_log.newest(make_project(folder).store.state, MODEL)) == len(before)

    kept = tmp_path / "before.tar.gz"
    gone = mlmon(*remove, "--author", "ann", "--yes", "--backup", kept)
    assert gone.code == 0, gone.err
    assert f"{MODEL} is deleted." in gone.out
    assert not (folder / "models" / f"{MODEL}.yaml").exists()
    assert not landed.parent.exists()
    assert metric_log.newest(make_project(folder).store.state, MODEL).empty

    restored = open_store(tmp_path / "restored")
    restore_backup(restored, kept, tmp_path / "models", NOW)
    assert len(metric_log.newest(restored.state, MODEL)) == len(before)
    assert (tmp_path / "models" / f"{MODEL}.yaml").exists()
    restored.close()
