"""Find the rows of a CSV file in its bytes, and the rows that are not CSV by RFC 4180.

A row is a line, unless the source says that cells hold line ends. So a quote that is never closed
spoils its own line only. Read as the standard allows, it would take everything up to the next
quote for one cell, and the rows between would be gone without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# In a file whose cells hold line ends, a cell that is not closed by then never will be.
_LONGEST_ROW: Final = 1 << 24
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
            if is_open and not is_last and len(content) - place < _LONGEST_ROW:
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
