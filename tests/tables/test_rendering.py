"""What leaves as CSV runs in no spreadsheet, and what goes to a terminal breaks no line of it."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest

import mlmon_dagster
from mlmon_dagster.tables.rendering import csv_text, text_table

NASTY = ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\0", 'a"b', "a\nb", "ok"]
STEERING = ["red \x1b[31m", "a\nb", "a\r\nb", "\x07", "\u202evsc", "\x9b2J", "plain"]


def test_no_cell_or_name_of_csv_begins_a_formula_and_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"=name": NASTY, "n": range(-5, 5), "share": [-0.5] * 10})

    head, *rows = csv.reader(io.StringIO(csv_text(frame), newline=""))

    assert not any(cell.startswith(tuple("=+-@\t\r\0")) for cell in [*head, *(r[0] for r in rows)])
    assert [row[0].removeprefix("'") for row in rows] == NASTY
    assert [row[1:] for row in rows] == [[str(n), "-0.5"] for n in range(-5, 5)]


@pytest.mark.parametrize("width", [None, 200])
def test_a_table_has_a_line_a_row_and_steers_no_terminal(width: int | None) -> None:
    text = text_table(["a\x1b[2J"], [[cell] for cell in STEERING], width=width)

    assert len(text.split("\n")) == 1 + len(STEERING)
    assert all(line.isprintable() for line in text.split("\n"))


def test_nothing_else_writes_csv_for_people() -> None:
    package = Path(mlmon_dagster.__file__).parent
    writes = re.compile(r"\.to_csv\(|csv\.(Dict)?[wW]riter\(")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if writes.search(path.read_text())
    }
    assert found <= {"tables/rendering.py", "demo/flights.py", "drill/trial.py"}, found
