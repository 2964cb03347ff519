"""A CSV file is read by RFC 4180: each of its lines is a row, a part of one, or refused by name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.store import Store
from tests.ingest.landing import (
    PREDICTIONS,
    credit_spec,
    csv_bytes,
    events,
    files_of,
    ingest,
    land,
    letters_of,
)

LINES = csv_bytes(events(60)).decode().splitlines(keepends=True)  # the first is the header


def take_in(store: Store, project: Path, text: str, **source: Any) -> FileReport:
    """Ingest one file of a source that is declared like this."""
    land(project, f"{PREDICTIONS}/a.csv", text.encode())
    declared = {f"source__predictions__{name}": value for name, value in source.items()}
    (file,) = ingest(store, credit_spec(**declared), project).files
    assert file.rows_in == file.n_new + file.n_duplicate + file.n_conflict + file.n_bad
    return file


def quoted(line: str, cell: str = "north") -> str:
    """Put a lone quote before one cell of a line."""
    other = "south" if cell == "north" else "north"
    return line.replace(f",{cell},", f',"{cell},').replace(f",{other},", f',"{other},')


def test_a_lone_quote_in_row_2_and_in_row_51_costs_those_two_rows(
    store: Store, project: Path
) -> None:
    lines = LINES.copy()
    lines[2], lines[51] = quoted(lines[2]), quoted(lines[51])

    file = take_in(store, project, "".join(lines))

    assert (file.status, file.rows_in, file.n_new, file.n_bad) == ("done", 60, 58, 2)
    first, second = file.bad_rows
    assert "a.csv, line 3, column 'region': a line that is no row; expected a closing" in first
    assert "a.csv, line 52, column 'region'" in second
    assert {letter["reason"] for letter in letters_of(store, credit_spec())} == {"malformed_line"}


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
    store: Store, project: Path, damaged: str, column: str, expected: str
) -> None:
    file = take_in(store, project, "".join([*LINES[:4], damaged, *LINES[4:9]]))

    assert (file.rows_in, file.n_new, file.n_bad) == (9, 8, 1)
    (message,) = file.bad_rows
    assert f"a.csv, line 5, column '{column}'" in message
    assert expected in message


def test_line_ends_in_cells_are_refused_line_by_line_until_the_source_declares_them(
    store: Store, project: Path
) -> None:
    frame = events(30, region=["one\ntwo" if i in (3, 4) else "north" for i in range(30)])
    strict = take_in(store, project, csv_bytes(frame).decode())
    assert (strict.rows_in, strict.n_new, strict.n_bad) == (32, 28, 4), "lines are what is counted"
    assert "multiline: true under the source" in strict.bad_rows[0]

    declared = credit_spec(source__predictions__multiline=True)
    (again,) = [file for file in ingest(store, declared, project).files if file.is_again]

    assert (again.n_new, again.n_bad) == (2, 0), "and what was refused is read as it was meant"
    rows = store.event_log(declared).rows("predictions").to_pylist()
    assert [row["region"] for row in rows].count("one\ntwo") == 2
    (row,) = files_of(store, declared)
    assert (row["rows_in"], row["n_new"], row["n_bad"]) == ("30", "30", "0")


def test_a_line_that_holds_the_end_of_an_earlier_cell_is_no_row_though_its_cells_are_as_many(
    store: Store, project: Path
) -> None:
    columns = ["region", *[name for name in events(1).columns if name != "region"]]
    frame = events(12, region=["a\nb" if i == 5 else "north" for i in range(12)])[columns]

    file = take_in(store, project, csv_bytes(frame).decode())

    assert (file.rows_in, file.n_new, file.n_bad) == (13, 11, 2)
    assert "expected no end of a cell that an earlier line began" in file.bad_rows[1]


def test_a_quote_inside_a_cell_without_quotes_is_text(store: Store, project: Path) -> None:
    text = "".join(LINES[:8]).replace(",north,", ',5" pipe,', 1)

    file = take_in(store, project, text)

    assert (file.n_new, file.n_bad) == (7, 0)
    rows = store.event_log(credit_spec()).rows("predictions").to_pylist()
    assert [row["region"] for row in rows].count('5" pipe') == 1


def test_a_stray_quote_among_declared_line_ends_costs_the_lines_it_reaches_and_counts_each(
    store: Store, project: Path
) -> None:
    lines = LINES.copy()
    lines[2], lines[8] = quoted(lines[2]), quoted(lines[8])

    file = take_in(store, project, "".join(lines), multiline=True)

    assert (file.rows_in, file.n_new, file.n_bad) == (60, 53, 7)
    assert "line 3, column 'region'" in file.bad_rows[0]
    assert "line 4, column 'region'" in file.bad_rows[1]


def test_a_cell_that_is_never_closed_takes_the_rest_of_a_file_with_declared_line_ends(
    store: Store, project: Path
) -> None:
    lines = LINES.copy()
    lines[55] = quoted(lines[55])

    file = take_in(store, project, "".join(lines), multiline=True)

    assert (file.rows_in, file.n_new, file.n_bad) == (60, 54, 6)
    assert "line 56, column 'region'" in file.bad_rows[0]


def test_a_last_row_without_a_line_end_that_has_too_few_cells_costs_itself_alone(
    store: Store, project: Path
) -> None:
    """A quote inside a bare cell is odd: such a row is walked through cell by cell."""
    whole = "".join(LINES)
    last = 'it"em,2024-02-01T08:00:00Z,"two\nlines"'
    land(project, f"{PREDICTIONS}/a.csv.done", b"")

    file = take_in(store, project, whole + last, multiline=True)

    assert (file.status, file.rows_in, file.n_new) == ("done", 62, 60)
    assert file.n_bad == 2  # a damaged row is counted line by line


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r\r\n"])
def test_line_ends_of_any_system_and_blank_lines_are_no_rows(
    store: Store, project: Path, line_end: str
) -> None:
    text = "".join(LINES[:5]) + "\n\n" + "".join(LINES[5:9]) + "short\n\n"

    file = take_in(store, project, text.replace("\n", line_end))

    assert (file.rows_in, file.n_new, file.n_bad) == (9, 8, 1)
    assert "line 12, column 'id'" in file.bad_rows[0]


def test_one_column_may_be_score_and_feature(store: Store, project: Path) -> None:
    spec = credit_spec(features__confidence={"type": "numeric", "from": "score"})
    land(project, f"{PREDICTIONS}/a.csv", csv_bytes(events(6)))

    (file,) = ingest(store, spec, project).files

    assert (file.status, file.n_new, file.n_bad) == ("done", 6, 0), file.message
    rows = store.event_log(spec).rows("predictions").to_pylist()
    assert [row["confidence"] for row in rows] == [row["score"] for row in rows]


def test_cells_of_a_file_in_small_blocks_are_those_of_the_csv_module(
    store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlmon_dagster.ingest.formats import read_csv

    monkeypatch.setattr(read_csv, "_BLOCK", 64)
    words = ["one\n\ntwo", 'say ""', "a,b", "x" * 500, '"\n"']
    frame = events(40, region=[words[i % 5] for i in range(40)])
    text = csv_bytes(frame).decode()

    file = take_in(store, project, text, multiline=True)

    assert (file.rows_in, file.n_new) == (40, 40), file.message
    rows = store.event_log(credit_spec()).rows("predictions").to_pylist()
    oracle = csv.DictReader(text.splitlines(keepends=True))
    assert {row["prediction_id"]: row["region"] for row in rows} == {
        row["id"]: row["region"] for row in oracle
    }
