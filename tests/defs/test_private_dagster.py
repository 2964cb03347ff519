"""Dagster's insides are used in one place, and are not needed with a version that is not known."""

from __future__ import annotations

import ast
from pathlib import Path

import dagster as dg
import pytest

import mlmon_dagster
from mlmon_dagster.defs import private_dagster
from mlmon_dagster.defs.batched_events import BatchedSqliteEventLogStorage
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.sensors import cadence_job
from tests.defs.small_model import make_project, write_declaration

PACKAGE = Path(mlmon_dagster.__file__).parent


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_one_module_imports_what_is_private_to_dagster() -> None:
    using = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(name.startswith(("dagster._", "dagster_shared")) for name in imports_of(path))
    }

    assert using == {"defs/private_dagster.py"}


def test_the_versions_that_may_be_installed_are_known() -> None:
    assert private_dagster.is_known()


def test_with_a_version_that_is_not_known_dagster_stores_its_events_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_declaration(tmp_path)
    project = make_project(tmp_path)
    with open_instance(project) as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
    monkeypatch.setattr(dg, "__version__", "1.99.0")

    @dg.asset
    def something() -> None:
        """An asset."""

    with pytest.warns(RuntimeWarning, match=r"Dagster 1\.99\.0 is not known"):
        plain = open_instance(project)
    with plain as instance:
        stored = instance.event_log_storage
        assert type(stored) is private_dagster.SqliteEventLogStorage
        assert dg.materialize([something], instance=instance).success
        assert instance.get_latest_materialization_event(something.key) is not None
    with pytest.warns(RuntimeWarning, match="loads slowly"):
        assert isinstance(cadence_job("day", "newest"), dg.AssetSelection)
    project.store.close()
