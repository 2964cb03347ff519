"""Fixtures of the Dagster room: one processed fortnight per process, and copies of it to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.defs.small_model import VARIABLES
from tests.defs.worlds import World, copied_fortnight, opened, processed_fortnight


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no variable of the machine reach a test, nor one of a test another test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


@pytest.fixture
def fortnight(tmp_path_factory: pytest.TempPathFactory, _own_environment: None) -> Iterator[World]:
    """The processed fortnight, shared by the tests of this process: only to be read."""
    with opened(processed_fortnight(tmp_path_factory.getbasetemp())) as world:
        yield world


@pytest.fixture
def own_fortnight(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, _own_environment: None
) -> Iterator[World]:
    """A copy of the processed fortnight that the test may change."""
    with copied_fortnight(tmp_path_factory.getbasetemp(), tmp_path / "project") as world:
        yield world
