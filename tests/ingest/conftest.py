"""Fixtures of the ingest tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmon_dagster.store import Store
from tests.ingest.landing import World


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def world(store: Store, project: Path) -> World:
    """An empty project and an empty store."""
    return World(store, project)
