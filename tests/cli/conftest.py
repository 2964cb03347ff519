"""Fixtures of the command line's tests: the command, run as people run it, and its project."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlmon_dagster import cli
from tests.defs.small_model import VARIABLES
from tests.defs.worlds import processed_fortnight


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    # Wide enough for every table, whatever terminal the tests run in.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def mlmon(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``mlmon`` with some arguments, through its entry point."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["mlmon", *map(str, arguments)])
        capfd.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capfd.readouterr()
        assert "Traceback" not in said.err, said.err
        assert isinstance(code, int)
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, _own_environment: None
) -> Path:
    """A copy of the processed fortnight's project."""
    copy = tmp_path / "project"
    shutil.copytree(processed_fortnight(tmp_path_factory.getbasetemp()), copy)
    return copy
