"""Read a CSV file as text: every cell is kept as it was written and gets its type later."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    check_header,
    check_size,
    in_parts,
    refused,
)

_BLOCK = 1 << 24
_MAX_HEADER = 1 << 20


def read_csv(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a UTF-8 file of separated cells, with a header or with declared names.

    An empty cell is null, a quoted empty cell is empty text; ``NA`` and ``null`` are text. A last
    line without a line end is taken only where the producer said that the file is complete: of
    ``0.75`` cut off there is ``0.7`` left.

    Raises:
        SchemaError: If the file is cut in a line, ragged, not UTF-8 or lacks a column.
    """
    _check_encoding(path, place)
    n_lines, n_quotes, is_ended = _scan(path, options.quote.encode())
    n_lines += not is_ended
    if not (is_ended or options.is_whole):
        found = f"line {n_lines} has no line end, so the file may be cut off there;"
        raise refused(place, "cut_line", f"{found} expected a line end after the last row.")
    if n_quotes % 2:
        found = f"a quoted cell is never closed; expected a second {options.quote}."
        raise refused(place, "cut_line", found)
    present = options.header or _header(path, place, options)
    check_header(place, present, wanted)
    check_size(place, n_lines, len(present), options.max_rows, options.rows_at_once)
    chosen = [c.source for c in wanted if c.source in present]
    n_head = 0 if options.header else next(_spans(path, [0], options), range(1, 2)).stop - 1
    n_rows = _Count(lambda: sum(t.num_rows for t in _read(path, place, present, [], options)))
    shape = RawFile(
        {}, 0, present, _places(path, n_lines, n_rows, options),
        lines_of=_lines_of(path, n_lines, n_rows, n_head, options), n_head=n_head,
    )  # fmt: skip
    tables = _read(path, place, present, chosen, options)
    for first, table in in_parts(tables, options.rows_at_once or options.max_rows):
        if options.rows_at_once is None or (not first and table.num_rows < options.rows_at_once):
            n_rows.known = table.num_rows
        columns = {present[int(n[1:])]: table[n].combine_chunks() for n in table.column_names}
        yield replace(shape, columns=columns, n_rows=table.num_rows, first=first)


class _Count:
    """How many rows a file has; counted only if somebody asks and it is not known by then."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self.known: int | None = None

    def __call__(self) -> int:
        if self.known is None:
            self.known = self._count()
        return self.known


def _scan(path: Path, quote: bytes) -> tuple[int, int, bool]:
    n_lines = n_quotes = 0
    block = b"\n"
    with path.open("rb") as file:
        while more := file.read(_BLOCK):
            block = more
            n_lines += block.count(b"\n")
            n_quotes += block.count(quote)
    return n_lines, n_quotes, block.endswith(b"\n")


def _check_encoding(path: Path, place: str) -> None:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise refused(place, "not_utf8", "the file is UTF-16; expected UTF-8.")


def _header(path: Path, place: str, options: Options) -> tuple[str, ...]:
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < _MAX_HEADER else "ignore")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, place) from error
    try:
        return tuple(next(_reader(io.StringIO(text, newline=""), options), []))
    except csv.Error as error:
        raise refused(
            f"{place}, line 1", "malformed_line", f"unreadable header ({error})."
        ) from error


def _reader(lines: Iterable[str], options: Options) -> Any:
    return csv.reader(lines, delimiter=options.delimiter, quotechar=options.quote)


def _read(
    path: Path, place: str, present: Sequence[str], wanted: Sequence[str], options: Options
) -> Iterator[pa.Table]:
    # Positions, not names: a header may hold anything.
    positions = {name: f"c{i}" for i, name in enumerate(present)}
    ragged: list[arrow_csv.InvalidRow] = []

    def refuse_row(row: arrow_csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    try:
        reader = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=list(positions.values()),
                skip_rows_after_names=0 if options.header else 1, block_size=_BLOCK,
            ),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=refuse_row,
                delimiter=options.delimiter, quote_char=options.quote,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={position: pa.string() for position in positions.values()},
                include_columns=[positions[name] for name in wanted or present[:1]],
                null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip
        yield reader.schema.empty_table()
        yield from (pa.Table.from_batches([batch]) for batch in reader)
    except pa.ArrowException as error:
        if ragged:
            raise _ragged(path, place, ragged[0], options) from error
        if "UTF8" in str(error):
            raise _not_utf8(path, place) from error
        # What follows the second colon quotes the row.
        said = ":".join(str(error).splitlines()[0].split(":")[:2])
        found = f"unreadable CSV ({said[:160]})."
        raise refused(place, "malformed_line", found) from error


def _ragged(path: Path, place: str, row: arrow_csv.InvalidRow, options: Options) -> Exception:
    span = next(_spans(path, [row.number - 1], options), None) if row.number else None
    line = span.start if span else row.number
    where = f"{place}, line {line}" if line else place
    told = "as declared under 'header'" if options.header else "as in the header"
    found = f"{row.actual_columns} cells; expected {row.expected_columns}, {told}."
    return refused(where, "malformed_line", found)


def _not_utf8(path: Path, place: str) -> Exception:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8."
                return refused(f"{place}, line {number}", "not_utf8", found)
    return refused(place, "not_utf8", "some bytes are not UTF-8; expected UTF-8.")


def _places(
    path: Path, n_lines: int, n_rows: Callable[[], int], options: Options
) -> Callable[[Sequence[int]], list[str]]:
    first = 0 if options.header else 1

    def place_of(rows: Sequence[int]) -> list[str]:
        if n_lines == n_rows() + first:
            return [f"line {row + first + 1}" for row in rows]
        # Blank lines or line ends inside quotes: count as the parser does.
        numbers = sorted({row + first for row in rows})
        spans = _spans(path, numbers, options)
        found = dict(zip(sorted(set(rows)), spans, strict=False))
        return [f"line {found[row].start}" if row in found else f"row {row + 1}" for row in rows]

    return place_of


def _lines_of(
    path: Path, n_lines: int, n_rows: Callable[[], int], n_head: int, options: Options
) -> Callable[[Sequence[int]], list[Sequence[int]]]:
    first = 0 if options.header else 1

    def lines_of(rows: Sequence[int]) -> list[Sequence[int]]:
        if n_lines == n_rows() + first:
            return [(row + first + 1,) for row in rows]
        numbers = sorted({row + first for row in rows})
        # Lone carriage returns end lines too, for the parser: then all lines count as the row's.
        found = {} if _has_lone_returns(path) else dict(
            zip(numbers, _spans(path, numbers, options), strict=False)
        )  # fmt: skip
        every = range(n_head + 1, n_lines + 1)
        return [found.get(row + first, every) for row in rows]

    return lines_of


def _has_lone_returns(path: Path) -> bool:
    with path.open("rb") as file:
        return any(
            line.count(b"\r") > line.endswith(b"\r\n")
            for line in iter(lambda: file.readline(_BLOCK), b"")
        )


def _spans(path: Path, wanted: Sequence[int], options: Options) -> Iterator[range]:
    """Yield the physical lines of each wanted row (ascending, the first = 0)."""
    remaining = iter(wanted)
    want = next(remaining, None)
    row = -1
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = _reader(file, options)
        before = 0
        for cells in reader:
            begins, before = before + 1, reader.line_num
            row += bool(cells)
            if cells and row == want:
                yield range(begins, reader.line_num + 1)
                want = next(remaining, None)
                if want is None:
                    return
