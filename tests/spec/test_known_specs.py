"""Specs that were parsed before are not parsed again, and are never another's."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from mlmon_dagster.spec import read_models
from mlmon_dagster.spec.files import loader
from tests.conftest import SPEC

NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three declarations, beside the state."""
    (tmp_path / "models").mkdir()
    for name in ("a", "b", "c"):
        declare(tmp_path, name)
    (tmp_path / ".mlmon").mkdir()
    return tmp_path


def declare(folder: Path, name: str, **changes: object) -> None:
    text = json.dumps({**SPEC, "model": name, **changes})  # JSON is YAML
    (folder / "models" / f"{name}.yaml").write_text(text)


def parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Read the models; return the files that had to be parsed."""
    found: list[str] = []
    parse = loader.parse_model
    with monkeypatch.context() as patch:
        patch.setattr(
            loader,
            "parse_model",
            lambda text, at: (found.append(Path(at).stem), parse(text, at))[1],
        )
        kept = read_models(folder / "models", NOW, known=folder / ".mlmon" / "specs.json")
    assert kept == read_models(folder / "models", NOW)
    return found


def test_a_file_is_parsed_once_for_each_content(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process parses none, and after a change the changed file alone."""
    assert parsed(folder, monkeypatch) == ["a", "b", "c"]
    assert parsed(folder, monkeypatch) == []
    declare(folder, "b", description="Changed.")
    assert parsed(folder, monkeypatch) == ["b"]
    assert parsed(folder, monkeypatch) == []


def test_a_file_that_is_wrong_says_so_every_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its problems have lines, which only parsing knows."""
    declare(folder, "c", task="guessing")
    assert parsed(folder, monkeypatch) == ["a", "b", "c"]
    assert parsed(folder, monkeypatch) == ["c"]


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "[]",
        '{"version": "of another day", "specs": {}}',
        '{"specs": 3}',
        "\x00\xff",
    ],
)
def test_what_is_kept_may_be_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    """It is then made anew."""
    parsed(folder, monkeypatch)
    (folder / ".mlmon" / "specs.json").write_text(damaged)
    assert parsed(folder, monkeypatch) == ["a", "b", "c"]
    assert parsed(folder, monkeypatch) == []


def test_what_is_kept_and_could_not_be_declared_is_parsed_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed(folder, monkeypatch)
    path = folder / ".mlmon" / "specs.json"
    kept = json.loads(path.read_text())
    kept["specs"] = dict.fromkeys(kept["specs"], '{"model": "x", "task": "guessing"}')
    path.write_text(json.dumps(kept))
    assert parsed(folder, monkeypatch) == ["a", "b", "c"]


def test_without_a_place_for_state_nothing_is_written(folder: Path) -> None:
    """As for a command that only looks at declarations."""
    (folder / ".mlmon").rmdir()
    assert (
        len(read_models(folder / "models", NOW, known=folder / ".mlmon" / "specs.json").specs) == 3
    )
    assert not (folder / ".mlmon").exists()
