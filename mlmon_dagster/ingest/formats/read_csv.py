"""Read a CSV file as text: every cell is kept as it was written and gets its type later.

A row is a line, unless the source says that cells hold line ends. So a quote that is never closed
spoils its own line only. Read as the standard (RFC 4180) allows, it would take everything up to the
next quote for one cell, and the rows between would be gone without a word.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import (
    Options,
    RawFile,
    Refusal,
    check_header,
    check_size,
    in_parts,
    refused,
)

Ints = NDArray[np.int64]
# In a file whose cells hold line ends, a cell that is not closed by then never will be.
_LONGEST_OPEN_ROW: Final = 1 << 24
_LINE_END: Final = re.compile(rb"\r*+(?:\n|\Z)")
_LINE_FEED: Final = ord("\n")
_RETURN: Final = ord("\r")
_UNCLOSED: Final = (
    "a closing quote in the same line, or multiline: true under the source if its cells hold line "
    "ends"
)
_NEVER_CLOSED: Final = "a closing quote"
_TEXT_AFTER_QUOTE: Final = "the delimiter or the end of the line after a closing quote"
_REST_OF_CELL: Final = "no end of a cell that an earlier line began"
_LONE_RETURN: Final = "no carriage return but at the end of the line"


@dataclass(frozen=True)
class Damage:
    """What makes a row unusable.

    Attributes:
        cell: The number of the cell, the first is 0.
        expected: What should have been there.
    """

    cell: int
    expected: str


@dataclass(frozen=True)
class Dialect:
    """How a file parts its cells, and how it quotes them.

    Attributes:
        delimiter: One ASCII character.
        quote: One ASCII character.
        multiline: Quoted cells may hold line ends.
    """

    delimiter: str
    quote: str
    multiline: bool = False

    @cached_property
    def quoted_cell(self) -> re.Pattern[bytes]:
        """Matches a cell with quotes around it; those inside are doubled."""
        quote = re.escape(self.quote.encode())
        inner = rb"[^" + quote + (b"" if self.multiline else rb"\r\n") + rb"]*+"
        return re.compile(quote + inner + rb"(?:" + 2 * quote + inner + rb")*+" + quote)

    @cached_property
    def bare_cell(self) -> re.Pattern[bytes]:
        """Matches a cell without quotes around it."""
        return re.compile(rb"[^" + re.escape(self.delimiter.encode()) + rb"\r\n]*+")

    @cached_property
    def clean_rows(self) -> re.Pattern[bytes]:
        """Matches as many rows as have nothing odd in them, blank lines too."""
        delimiter = re.escape(self.delimiter.encode())
        bare = rb"[^" + re.escape(self.quote.encode()) + delimiter + rb"\r\n]*+"
        cell = rb"(?:" + self.quoted_cell.pattern + rb"|" + bare + rb")"
        row = cell + rb"(?:" + delimiter + cell + rb")*+\r*+"
        return re.compile(rb"(?:" + row + rb"\n)*+(?:" + row + rb"\Z)?+")


@dataclass(frozen=True)
class Rows:
    """Where the rows of some bytes are.

    Attributes:
        begins: Where each begins.
        ends: Where each ends, without its line end.
        first_lines: The number of the line each begins on; the first line of the bytes is 0.
        last_lines: The number of the line each ends on.
    """

    begins: Ints
    ends: Ints
    first_lines: Ints
    last_lines: Ints


@dataclass
class RowBlock:
    """Some bytes of a file that hold whole rows.

    Attributes:
        content: The bytes.
        breaks: Where each line ends.
        is_row_end: Whether a row ends there, too.
        damaged: Where damaged rows begin and end, and what is wrong; each line is a row there.
    """

    content: bytes
    breaks: Ints
    is_row_end: NDArray[np.bool_]
    damaged: list[tuple[int, int, Damage]] = field(default_factory=list)

    def mark_damaged(self, begin: int, end: int, damage: Damage) -> None:
        """Note that all lines of some bytes are damaged."""
        first, last = np.searchsorted(self.breaks, [begin, end])
        self.is_row_end[first:last] = True
        self.damaged.append((begin, end, damage))

    def find_rows(self) -> Rows:
        """Return where the rows are; blank lines are none."""
        last_lines = np.flatnonzero(self.is_row_end)
        ends = self.breaks[last_lines]
        begins = np.concatenate([[0], ends[:-1] + 1])[: len(ends)].astype(np.int64)
        first_lines = np.concatenate([[0], last_lines[:-1] + 1])[: len(ends)].astype(np.int64)
        data = np.frombuffer(self.content, np.uint8)
        while (is_return := (ends > begins) & (data[ends - 1] == _RETURN)).any():
            ends = ends - is_return
        has_text = ends > begins
        return Rows(begins[has_text], ends[has_text], first_lines[has_text], last_lines[has_text])

    def find_damage(self, rows: Rows) -> dict[int, Damage]:
        """Return what is wrong with which of the rows."""
        found = {}
        for begin, end, damage in self.damaged:
            first, last = np.searchsorted(rows.begins, [begin, end])
            found.update(dict.fromkeys(range(first, last), damage))
        return found

    def replace_rows(self, rows: Rows, numbers: Iterable[int], placeholder: bytes) -> bytes:
        """Return the bytes with others in place of some rows."""
        parts, place = [], 0
        for row in sorted(numbers):
            parts += [self.content[place : rows.begins[row]], placeholder]
            place = int(rows.ends[row])
        return b"".join([*parts, self.content[place:]]) if parts else self.content


class RowFinder:
    """Finds the rows of the blocks of one file, which it is given in their order."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._quote = ord(dialect.quote)
        self._has_open_cell = False

    def find(self, content: bytes, *, is_last: bool) -> tuple[RowBlock, bytes]:
        """Find the rows of a block.

        Args:
            content: What follows the rows of the block before it.
            is_last: The file ends with it.

        Returns:
            The rows, and the bytes after them, of a row that is not complete yet.
        """
        n_whole = len(content) if is_last else content.rfind(b"\n") + 1
        content, rest = content[:n_whole], content[n_whole:]
        block = _split_lines(content)
        is_plain = self._dialect.quote.encode() not in content
        if is_plain and content.count(b"\r") == content.count(b"\r\n"):
            return block, rest
        quotes = np.flatnonzero(np.frombuffer(content, np.uint8) == self._quote)
        place = 0
        while place < len(content):
            end = self._match(self._dialect.clean_rows, content, place)
            if end > place:
                self._join_lines(block, quotes, place, end)
                place = end
                continue
            end, damage = self._look_at_row(content, place)
            is_open = damage is not None and damage.expected is _NEVER_CLOSED
            if is_open and not is_last and len(content) - place < _LONGEST_OPEN_ROW:
                n_lines = int(np.searchsorted(block.breaks, place))
                done = replace(
                    block, content=content[:place], breaks=block.breaks[:n_lines],
                    is_row_end=block.is_row_end[:n_lines],
                )  # fmt: skip
                return done, content[place:] + rest
            if damage is not None:
                block.mark_damaged(place, end, damage)
            elif self._dialect.multiline:
                # The last byte of the row: its line end, unless the file ends without one.
                first, own = np.searchsorted(block.breaks, [place, end - 1])
                block.is_row_end[first:own] = False
            place = end
        return block, rest

    @staticmethod
    def _match(pattern: re.Pattern[bytes], content: bytes, place: int) -> int:
        found = pattern.match(content, place)
        return place if found is None else found.end()

    def _join_lines(self, block: RowBlock, quotes: Ints, begin: int, end: int) -> None:
        """Take off the row ends that are inside a quoted cell of clean rows."""
        if not self._dialect.multiline:
            return
        first, last = np.searchsorted(block.breaks, [begin, end])
        n_before = np.searchsorted(quotes, block.breaks[first:last])
        n_before = n_before - np.searchsorted(quotes, begin)
        block.is_row_end[first:last] = n_before % 2 == 0

    def _look_at_row(self, content: bytes, begin: int) -> tuple[int, Damage | None]:
        """Walk through the cells of a row that has something odd.

        Returns:
            Where the next row begins, and what is wrong with this one.
        """
        place, cell = begin, 0
        has_bare_quote = False
        damage = None
        while True:
            if content[place : place + 1] == self._dialect.quote.encode():
                end = self._match(self._dialect.quoted_cell, content, place)
                if end == place and self._dialect.multiline:
                    return len(content), Damage(cell, _NEVER_CLOSED)
                expected = _UNCLOSED if end == place else _TEXT_AFTER_QUOTE
            else:
                end = self._match(self._dialect.bare_cell, content, place)
                has_bare_quote |= self._quote in content[place:end]
                expected = _LONE_RETURN
            place = end
            if expected is _UNCLOSED:
                damage = Damage(cell, expected)
                break
            if content[place : place + 1] == self._dialect.delimiter.encode():
                place, cell = place + 1, cell + 1
                continue
            if not _LINE_END.match(content, place):
                damage = Damage(cell, expected)
            break
        end = content.find(b"\n", place) + 1 or len(content)
        if not self._dialect.multiline:
            damage = self._follow_open_cell(content[begin:end], damage, has_bare_quote)
        return end, damage

    def _follow_open_cell(
        self, line: bytes, damage: Damage | None, has_bare_quote: bool
    ) -> Damage | None:
        """Refuse the line that may hold the end of a cell that was begun on an earlier one."""
        if damage is not None and damage.expected is _UNCLOSED:
            self._has_open_cell ^= bool(line.count(self._quote) % 2)
        elif damage is None and has_bare_quote and self._has_open_cell:
            self._has_open_cell = False
            return Damage(0, _REST_OF_CELL)
        return damage


def _split_lines(content: bytes) -> RowBlock:
    breaks = np.flatnonzero(np.frombuffer(content, np.uint8) == _LINE_FEED).astype(np.int64)
    if content and not content.endswith(b"\n"):
        breaks = np.append(breaks, len(content))
    return RowBlock(content, breaks, np.ones(len(breaks), dtype=bool))


def read_blocks(file: BinaryIO, finder: RowFinder, n_bytes: int) -> Iterator[RowBlock]:
    """Read a file from where it stands, in blocks of whole rows of roughly so many bytes."""
    rest, is_last = b"", False
    while not is_last:
        asked = max(n_bytes, len(rest))  # of a long row always more, so that it is soon whole
        more = file.read(asked)
        is_last = len(more) < asked
        block, rest = finder.find(rest + more, is_last=is_last)
        yield block


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
