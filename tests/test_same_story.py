"""Surfaces tell the same of drawn alerts; `python -m tests.same_story` draws a hundred."""

from __future__ import annotations

from pathlib import Path

from tests.same_story import compare_stories

SURFACES = {"message", "list", "show", "page", "report", "table", "ui"}


def test_every_surface_tells_the_same_windows_worst_value_and_state(tmp_path: Path) -> None:
    found = compare_stories(3, tmp_path)

    assert found.wrong == {}
    assert found.n.keys() == SURFACES
