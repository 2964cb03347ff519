"""What pages bring along is what its makers published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import mlmon_dagster.report

UPLOT = Path(mlmon_dagster.report.__file__).parent / "assets" / "uplot"
# Of uPlot 1.6.32 as npm has it: its dist/ and LICENSE.
PUBLISHED = {
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_chart_script_is_kept_as_it_was_published(name: str) -> None:
    assert hashlib.sha256((UPLOT / name).read_bytes()).hexdigest() == PUBLISHED[name]


def test_nothing_else_is_brought_along() -> None:
    assert {path.name for path in UPLOT.iterdir()} == {*PUBLISHED, "README.md"}
