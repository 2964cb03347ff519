"""Read a CSV file as text: every cell is kept as it was written and gets its type later."""

from __future__ import annotations

import codecs
import csv
import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.csv_rows import (
    Damage,
    Dialect,
    RowBlock,
    RowFinder,
    Rows,
    read_blocks,
)
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    Refusal,
    check_header,
    check_size,
    in_parts,
    refused,
)

ENDINGS: Final[tuple[str, ...]] = (".csv",)
_BLOCK = 1 << 24
_MAX_HEADER = 1 << 20
_LONGEST_ROW = 1 << 28


def read_csv(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a UTF-8 file of separated cells, with a header or with declared names.

    An empty cell is null, a quoted empty cell is empty text; ``NA`` and ``null`` are text. Every
    line that is not blank is a row, or a part of one, or refused. A last line without a line end is
    taken only where the producer said that the file is complete: of ``0.75`` cut off there is
    ``0.7`` left.

    Raises:
        SchemaError: If the file is cut in a line, is not UTF-8 or lacks a column.
    """
    _check_encoding(path, place)
    n_lines, is_ended = _count_lines(path)
    if not (is_ended or options.is_whole):
        found = f"line {n_lines} has no line end, so the file may be cut off there;"
        raise refused(place, "cut_line", f"{found} expected a line end after the last row.")
    head = _read_head(path, place, options)
    check_header(place, head.names, wanted)
    check_size(place, n_lines, len(head.names), options.max_rows, options.rows_at_once)
    body = _Body(path, place, head, options)
    tables = body.read_tables([c.source for c in wanted if c.source in head.names])
    for first, table in in_parts(tables, options.rows_at_once or options.max_rows):
        names = {n: head.names[int(n[1:])] for n in table.column_names}
        yield RawFile(
            {name: table[n].combine_chunks() for n, name in names.items()}, table.num_rows,
            head.names, body.name_places, body.find_refusals(first, table.num_rows),
            body.find_lines, head.n_lines, first=first,
        )  # fmt: skip


@dataclass(frozen=True)
class _Head:
    """The names of a file's columns, and where its rows begin.

    Attributes:
        names: Of the columns.
        n_lines: Lines before the first row.
        n_bytes: Bytes before it.
        is_declared: The source declares the names; the file has no header.
    """

    names: tuple[str, ...]
    n_lines: int
    n_bytes: int
    is_declared: bool


class _Body:
    """The rows of a file; what is known of their lines grows as they are read."""

    def __init__(self, path: Path, place: str, head: _Head, options: Options) -> None:
        self._path = path
        self._place = place
        self._head = head
        self._dialect = _dialect(options)
        self._blocks: list[_Lines] = []
        self._refused: list[tuple[Damage, NDArray[np.int64]]] = []

    def read_tables(self, chosen: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows, every cell of some columns as text; a damaged row has nulls."""
        names = list(dict.fromkeys(chosen)) or self._head.names[:1]
        positions = [self._head.names.index(name) for name in names]
        first, line = 0, self._head.n_lines
        with self._path.open("rb") as file:
            file.seek(self._head.n_bytes)
            for block in read_blocks(file, RowFinder(self._dialect), _BLOCK):
                self._check_length(block)
                table, rows, damaged = self._parse_block(block, positions)
                self._blocks.append(
                    _Lines(first, rows.first_lines + line + 1, rows.last_lines + line + 1)
                )
                for damage in set(damaged.values()):
                    mine = [first + row for row, its in damaged.items() if its == damage]
                    self._refused.append((damage, np.array(sorted(mine), dtype=np.int64)))
                first, line = first + table.num_rows, line + len(block.breaks)
                yield table

    def find_refusals(self, first: int, n_rows: int) -> tuple[Refusal, ...]:
        """Return the damaged ones of some rows, numbered from the first of them."""
        found: dict[Damage, list[int]] = {}
        for damage, rows in self._refused:
            mine = rows[(rows >= first) & (rows < first + n_rows)]
            if mine.size:
                found.setdefault(damage, []).extend((mine - first).tolist())
        return tuple(
            Refusal(
                "malformed_line", damage.expected, tuple(rows),
                self._head.names[min(damage.cell, len(self._head.names) - 1)],
            )
            for damage, rows in found.items()
        )  # fmt: skip

    def find_lines(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Return the lines that each of some rows is made of."""
        starts = [block.first for block in self._blocks]
        return [self._blocks[bisect_right(starts, row) - 1].find(row) for row in rows]

    def name_places(self, rows: Sequence[int]) -> list[str]:
        """Name the lines that rows begin on."""
        return [f"line {lines[0]}" for lines in self.find_lines(rows)]

    def _check_length(self, block: RowBlock) -> None:
        if len(block.content) > _LONGEST_ROW:
            found = f"a line of more than {_LONGEST_ROW:,} bytes; expected rows."
            raise refused(self._place, "too_large", found)

    def _parse_block(
        self, block: RowBlock, positions: Sequence[int]
    ) -> tuple[pa.Table, Rows, dict[int, Damage]]:
        rows = block.find_rows()
        if not rows.begins.size:
            kinds = [(f"c{position}", pa.string()) for position in positions]
            return pa.schema(kinds).empty_table(), rows, {}
        damaged = block.find_damage(rows)
        table, ragged = self._parse(block.replace_rows(rows, damaged, self._empty), positions)
        if ragged:
            for row, n_cells in ragged:
                begin, end = int(rows.begins[row]), int(rows.ends[row])
                block.mark_damaged(begin, end, self._count_cells(n_cells))
            rows = block.find_rows()
            damaged = block.find_damage(rows)
            table, ragged = self._parse(block.replace_rows(rows, damaged, self._empty), positions)
        if ragged or table.num_rows != len(rows.begins):
            found = f"{len(rows.begins):,} rows were counted and {table.num_rows:,} read;"
            raise refused(self._place, "malformed_line", f"{found} expected as many.")
        return table, rows, damaged

    @property
    def _empty(self) -> bytes:
        """What stands in for a damaged row: one of the same number of cells."""
        sign, n_columns = self._dialect.delimiter, len(self._head.names)
        return (sign * (n_columns - 1) or 2 * self._dialect.quote).encode()

    def _count_cells(self, n_cells: int) -> Damage:
        n_columns = len(self._head.names)
        where = "as declared under 'header'" if self._head.is_declared else "as in the header"
        last = min(n_cells, n_columns) - 1
        return Damage(last, f"{n_columns} cells, {where}, and the line has {n_cells}")

    def _parse(
        self, content: bytes, positions: Sequence[int]
    ) -> tuple[pa.Table, list[tuple[int, int]]]:
        """Return the rows of some bytes but for those of another number of cells, and these."""
        ragged: list[tuple[int, int]] = []

        def skip_row(row: arrow_csv.InvalidRow) -> str:
            ragged.append((row.number - 1, row.actual_columns))
            return "skip"

        # Positions, not names: a header may hold anything.
        names = [f"c{i}" for i in range(len(self._head.names))]
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(content),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False, column_names=names, block_size=len(content) + 1,
                ),
                parse_options=arrow_csv.ParseOptions(
                    newlines_in_values=self._dialect.multiline, invalid_row_handler=skip_row,
                    delimiter=self._dialect.delimiter, quote_char=self._dialect.quote,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=[names[position] for position in positions],
                    null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
                ),
            )  # fmt: skip
        except pa.ArrowException as error:
            if "UTF8" in str(error):
                raise _not_utf8(self._path, self._place) from error
            # What follows the second colon quotes the row.
            said = ":".join(str(error).splitlines()[0].split(":")[:2])
            found = f"unreadable CSV ({said[:160]})."
            raise refused(self._place, "malformed_line", found) from error
        return table, ragged


class _Lines:
    """The lines of the rows of one block; only where they are not simply one after another."""

    def __init__(
        self, first: int, first_lines: NDArray[np.int64], last_lines: NDArray[np.int64]
    ) -> None:
        self.first = first
        self._begin = int(first_lines[0]) if first_lines.size else 0
        is_plain = np.array_equal(last_lines, np.arange(len(last_lines)) + self._begin)
        self._spans = None if is_plain else (first_lines, last_lines)

    def find(self, row: int) -> range:
        """Return the lines of a row of the file."""
        number = row - self.first
        if self._spans is None:
            return range(self._begin + number, self._begin + number + 1)
        first_lines, last_lines = self._spans
        return range(int(first_lines[number]), int(last_lines[number]) + 1)


def _dialect(options: Options) -> Dialect:
    return Dialect(options.delimiter, options.quote, options.multiline)


def _count_lines(path: Path) -> tuple[int, bool]:
    """Return how many lines a file has, and whether the last one has an end."""
    n_breaks = 0
    block = b"\n"
    with path.open("rb") as file:
        while more := file.read(_BLOCK):
            block = more
            n_breaks += block.count(b"\n")
    is_ended = block.endswith(b"\n")
    return n_breaks + (not is_ended), is_ended


def _check_encoding(path: Path, place: str) -> None:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise refused(place, "not_utf8", "the file is UTF-16; expected UTF-8.")


def _read_head(path: Path, place: str, options: Options) -> _Head:
    with path.open("rb") as file:
        content = file.read(_MAX_HEADER)
    n_skipped = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    if options.header:
        return _Head(options.header, 0, n_skipped, True)
    block, _ = RowFinder(_dialect(options)).find(content[n_skipped:], is_last=True)
    rows = block.find_rows()
    if not rows.begins.size:
        return _Head((), 0, n_skipped, False)
    first, last = int(rows.first_lines[0]), int(rows.last_lines[0])
    if rows.ends[0] >= _MAX_HEADER - n_skipped:
        found = f"a header of more than {_MAX_HEADER:,} bytes; expected names."
        raise refused(place, "malformed_line", found)
    where = f"{place}, line {first + 1}"
    if damage := block.find_damage(rows).get(0):
        found = f"unreadable header, cell {damage.cell + 1}; expected {damage.expected}."
        raise refused(where, "malformed_line", found)
    try:
        text = block.content[: rows.ends[0]][rows.begins[0] :].decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(path, place) from error
    lines = io.StringIO(text, newline="")
    names = next(csv.reader(lines, delimiter=options.delimiter, quotechar=options.quote))
    return _Head(tuple(names), last + 1, n_skipped + int(block.breaks[last]) + 1, False)


def _not_utf8(path: Path, place: str) -> Exception:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8."
                return refused(f"{place}, line {number}", "not_utf8", found)
    return refused(place, "not_utf8", "some bytes are not UTF-8; expected UTF-8.")
