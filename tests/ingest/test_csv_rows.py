"""A CSV file is read by RFC 4180: each of its lines is a row, a part of one, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from mlmon_dagster.ingest.report import FileReport
from tests.ingest.landing import (
    World,
    credit_spec,
    csv_bytes,
    events,
)

LINES = csv_bytes(events(60)).decode().splitlines(keepends=True)  # the first is the header


def take_in(world: World, text: str, **source: Any) -> FileReport:
    """Ingest one file of a source that is declared like this."""
    declared = {f"source__predictions__{name}": value for name, value in source.items()}
    file = world.take_in(text.encode(), credit_spec(**declared))
    assert file.rows_in == file.n_new + file.n_duplicate + file.n_conflict + file.n_bad
    return file


def quoted(line: str, cell: str = "north") -> str:
    """Put a lone quote before one cell of a line."""
    other = "south" if cell == "north" else "north"
    return line.replace(f",{cell},", f',"{cell},').replace(f",{other},", f',"{other},')


def test_a_lone_quote_in_row_2_and_in_row_51_costs_those_two_rows(world: World) -> None:
    lines = LINES.copy()
    lines[2], lines[51] = quoted(lines[2]), quoted(lines[51])

    file = take_in(world, "".join(lines))

    assert (file.status, file.rows_in, file.n_new, file.n_bad) == ("done", 60, 58, 2)
    first, second = file.bad_rows
    assert "a.csv, line 3, column 'region': a line that is no row; expected a closing" in first
    assert "a.csv, line 52, column 'region'" in second
    assert {letter["reason"] for letter in world.letters()} == {"malformed_line"}


@pytest.mark.parametrize(
    ("damaged", "column", "expected"),
    [
        ('p99,"2024-02-01T08:00:00Z"x,0.5,1,,7,1,ok,1,north,True\n', "at", "after a closing"),
        ('p99,2024-02-01T08:00:00Z,0.5,1,,7,1,ok,1,"no" rth,True\n', "region", "after a closing"),
        ('p99,2024-02-01T08:00:00Z,0.5,1,,7,1,ok,1,"no\\"rth",True\n', "region", "after a closing"),
        ("p99,2024-02-01T08:00:00Z,0.5,1,,7,1,ok,1,no\rrth,True\n", "region", "carriage return"),
        ("p99,2024-02-01T08:00:00Z,0.5\n", "score", "11 cells, as in the header, and the line has"),
        ("p99,2024-02-01T08:00:00Z,0.5,1,,7,1,ok,1,north,True,\n", "member", "the line has 12"),
        ('"p99,2024-02-01T08:00:00Z,0.5,1,,7,1,ok,1,north,True\n', "id", "closing quote in the"),
    ],
)
def test_a_damaged_line_is_refused_with_its_column_and_no_other(
    world: World, damaged: str, column: str, expected: str
) -> None:
    file = take_in(world, "".join([*LINES[:4], damaged, *LINES[4:9]]))

    assert (file.rows_in, file.n_new, file.n_bad) == (9, 8, 1)
    (message,) = file.bad_rows
    assert f"a.csv, line 5, column '{column}'" in message
    assert expected in message


def test_line_ends_in_cells_are_refused_line_by_line_until_the_source_declares_them(
    world: World,
) -> None:
    frame = events(30, region=["one\ntwo" if i in (3, 4) else "north" for i in range(30)])
    strict = take_in(world, csv_bytes(frame).decode())
    assert (strict.rows_in, strict.n_new, strict.n_bad) == (32, 28, 4), "lines are what is counted"
    assert "multiline: true under the source" in strict.bad_rows[0]

    declared = credit_spec(source__predictions__multiline=True)
    (again,) = [file for file in world.ingest(declared).files if file.is_again]

    assert (again.n_new, again.n_bad) == (2, 0), "and what was refused is read as it was meant"
    rows = world.rows(declared)
    assert [row["region"] for row in rows].count("one\ntwo") == 2
    (row,) = world.files(declared)
    assert (row["rows_in"], row["n_new"], row["n_bad"]) == ("30", "30", "0")


def test_a_line_that_holds_the_end_of_an_earlier_cell_is_no_row_though_its_cells_are_as_many(
    world: World,
) -> None:
    columns = ["region", *[name for name in events(1).columns if name != "region"]]
    frame = events(12, region=["a\nb" if i == 5 else "north" for i in range(12)])[columns]

    file = take_in(world, csv_bytes(frame).decode())

    assert (file.rows_in, file.n_new, file.n_bad) == (13, 11, 2)
    assert "expected no end of a cell that an earlier line began" in file.bad_rows[1]
