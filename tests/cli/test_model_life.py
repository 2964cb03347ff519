"""Renaming, removing and restoring a model by its commands, Dagster included."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.lineage import asset_key
from mlmon_dagster.spec import load_models
from mlmon_dagster.store.state import metric_log
from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW, make_project

pytestmark = pytest.mark.slow

NEW = "attrition"


def test_rename_shows_first_and_then_moves_everything(mlmon: Command, folder: Path) -> None:
    at = ("--project", folder, "--now", NOW.isoformat())
    before = len(metric_log.newest(make_project(folder).store.state, MODEL))
    shown = mlmon(*at, "model", "rename", MODEL, NEW, "--author", "ann")
    assert "rows of metric" in shown.out
    assert "Nothing was changed" in shown.out
    done = mlmon(*at, "model", "rename", MODEL, NEW, "--author", "ann", "--yes")
    assert done.code == 0, done.err
    assert f"{MODEL} is {NEW} now." in done.out
    project = make_project(folder)
    [spec] = load_models(project.models_folder)
    assert spec.model == NEW
    assert len(metric_log.newest(project.store.state, NEW)) == before
    with open_instance(project) as instance:
        key = asset_key(spec, "drift")
        assert instance.get_materialized_partitions(key) == {str(day) for day in DAYS}
    assert "renamed by ann: before: churn" in mlmon(*at, "model", "history", NEW).out
    ran = mlmon(*at, "run", NEW)
    assert ran.code == 0, ran.err

    taken = mlmon(*at, "model", "rename", NEW, "9 bad name", "--author", "ann", "--yes")
    assert taken.code == 2

    removed = mlmon(*at, "model", "remove", NEW, "--author", "ann", "--yes")
    assert "in the trash until 2024-04-14" in removed.out
    assert NEW in mlmon(*at, "model", "trash").out
    assert "not in the trash" in mlmon(*at, "model", "restore", MODEL, "--author", "a").err
    back = mlmon(*at, "model", "restore", NEW, "--author", "ann")
    assert back.code == 0, back.err
    assert len(metric_log.newest(make_project(folder).store.state, NEW)) == before
    assert "The trash is empty." in mlmon(*at, "model", "trash").out
    gone = mlmon(*at, "model", "remove", NEW, "--purge", "--author", "ann", "--yes")
    assert f"{NEW} is deleted." in gone.out
    assert "The trash is empty." in mlmon(*at, "model", "trash").out
