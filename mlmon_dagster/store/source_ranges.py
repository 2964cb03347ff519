"""What is new in a table of which only a column to sort by is known.

No newest value is believed to be the last one: a row may commit late, be of the far future, or come
after its table was counted from 1 again. So the column's line is kept as ranges, each with a count
and a sum of hashes of what was in it when it was read. A range that is not as it was is read again,
wherever it lies. Rows of the ranges that changed last are known by a hash of the whole row and left
out; those of other ranges come as duplicates.

What is hashed is the column and the id of the row, so a row in place of another is seen though both
have one time. On PostgreSQL it is the transaction that wrote a row of a table instead of its id, so
a row that was updated in place is seen as well.

Counting comes before reading: what commits in between is seen as a change by the next look.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from mlmon_dagster.spec.sources import SqlSource
from mlmon_dagster.store.sources import (
    Expression,
    Position,
    SourceTable,
    has_transactions,
    kind_of,
    stream_rows,
)

LEAST_ROWS = 1_000  # of a range, more in tables of many rows
MOST_RANGES = 1_000
MOST_MARKS = 20_000  # rows that are known by their hash
MOST_COUNTED = 1_000_000  # rows that a look counts; the ranges of larger tables take turns
MOST_AGAIN = 100_000  # rows that a look reads again; other ranges that changed take turns
_MODULUS = 65_521  # squares of what is left of a number, summed over a range, stay in 64 bits
# Functions of one value with a result of 32 bits.
_HASHES = {"mysql": "crc32", "mariadb": "crc32", "mssql": "checksum", "oracle": "ora_hash"}
_MARK_LENGTH = 10
_NULLS = 0  # the range of rows without a value; the next one has no lower end


@dataclass(frozen=True)
class Range:
    """A piece of the column's line.

    Attributes:
        low: The least value of it; None for what has none.
        tally: Rows and sums of hashes, as they were when it was read.
        marks: Hashes of its rows; None if they are not kept.
    """

    low: object = None
    tally: tuple[int, ...] = (0,)
    marks: frozenset[str] | None = None

    @property
    def n_rows(self) -> int:
        """Rows in it when it was read."""
        return self.tally[0]


@dataclass
class RangeScan:
    """A look at a table: what is not as it was, read once.

    Attributes:
        position: The ranges after the look; complete once all rows were taken.
        label: Names the look.
        notice: What a person has to know of it, once all rows were taken; "" if nothing.
    """

    conn: sa.Connection
    source: SqlSource
    table: SourceTable
    before: Position
    label: str = ""
    notice: str = ""
    position: Position = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.source.cursor.column
        self._column: Expression = self.table.clause.c[name]
        self._is_postgres = self.conn.dialect.name == "postgresql"
        self._kind: _Named | None = None
        self._knows_updates = False
        if self._is_postgres:
            full = self.conn.dialect.identifier_preparer.format_table(self.table.clause)
            self._kind = _Named(kind_of(self.conn, full, name) or "text")
            self._knows_updates = has_transactions(self.conn, full)

    def rows(self) -> Iterator[list[Sequence[object]]]:
        """Yield the rows that are new or changed, in lists; known ones of ranges that changed."""
        newest = self.conn.execute(
            sa.select(self._cast_to_text(sa.func.max(self._column)))
        ).scalar()
        self.label = f"{self.source.cursor.kind}-{newest}"
        ranges = _decode_ranges(self.before)
        turn = int(self.before.get("turn", 0)) % len(ranges)
        chosen, next_turn = _choose_counted(ranges, turn)
        tallies = self._count(ranges, chosen)
        changed = [
            i
            for i in chosen
            if tallies[i] != _as_wide(ranges[i].tally, tallies[i])
            or (ranges[i].marks and not self._knows_updates)
        ]
        read, waiting = _choose_read(ranges, tallies, changed)
        if waiting:
            next_turn = waiting[0]
        pieces, parents = self._split(ranges, tallies, read)
        is_read = [parent in read for parent in parents]
        kept = _choose_marked(pieces, is_read)
        seen: dict[int, set[str]] = {i: set() for i in kept if is_read[i]}
        still: dict[int, set[str]] = {i: set() for i in read}
        yield from self._read(ranges, pieces, parents, is_read, seen, still)
        marks = {i: frozenset(seen[i]) if is_read[i] else pieces[i].marks for i in kept}
        after = [replace(piece, marks=marks.get(i)) for i, piece in enumerate(pieces)]
        gone = {i: len(ranges[i].marks or ()) - len(still[i]) for i in read}
        n_waiting = sum(tallies[i][0] for i in waiting)
        self.notice = _notice(ranges, tallies, read, gone, n_waiting)
        self.position = {"ranges": _encode_ranges(_merge(after)), "turn": next_turn}

    def _read(
        self,
        ranges: Sequence[Range],
        pieces: Sequence[Range],
        parents: Sequence[int],
        is_read: Sequence[bool],
        seen: Mapping[int, set[str]],
        still: Mapping[int, set[str]],
    ) -> Iterator[list[Sequence[object]]]:
        """Yield the rows of some pieces that are not known; note the hashes of all of them."""
        wanted = [i for i, piece in enumerate(pieces) if is_read[i] and piece.n_rows]
        if not wanted:
            return
        shown = (*self.table.selected, self._cast_to_text(self._column), self._number(pieces))
        query = sa.select(*shown).where(self._within(pieces, wanted))
        for rows in stream_rows(self.conn, query):
            fresh = []
            for *row, number in rows:
                known = ranges[parents[number]].marks
                mark = _mark(row) if known or number in seen else ""
                if number in seen:
                    seen[number].add(mark)
                if known and mark in known:
                    still[parents[number]].add(mark)
                else:
                    fresh.append(row[:-1])
            if fresh:
                yield fresh

    def _split(
        self, ranges: Sequence[Range], tallies: Mapping[int, tuple[int, ...]], read: set[int]
    ) -> tuple[list[Range], list[int]]:
        """Cut ranges that are read and have become long; return all pieces, and from which each is.

        Pieces have the tally of now, ranges that are not read the one that they had.
        """
        n_all = sum(
            tallies[i][0] if i in tallies else one.n_rows for i, one in enumerate(ranges)
        )  # fmt: skip
        size = max(LEAST_ROWS, n_all // MOST_RANGES)
        pieces, parents, cut = list[Range](), list[int](), list[int]()
        for i, one in enumerate(ranges):
            now = replace(one, tally=tallies[i]) if i in read else one
            pieces.append(now)
            parents.append(i)
            if i in read and i != _NULLS and now.n_rows > 2 * size:
                lows = list(self._boundaries(ranges, i, size))
                if lows:
                    cut += range(len(pieces) - 1, len(pieces) + len(lows))
                pieces += [Range(low) for low in lows]
                parents += [i] * len(lows)
        if cut:
            for i, tally in self._count(pieces, cut).items():
                pieces[i] = replace(pieces[i], tally=tally)
        return pieces, parents

    def _boundaries(self, ranges: Sequence[Range], i: int, size: int) -> Iterator[object]:
        """Yield values of a range that cut it into pieces; rows of one value stay together."""
        columns: tuple[Expression, ...] = (self._cast_to_text(self._column), sa.func.count())
        query = sa.select(*columns).where(self._within(ranges, [i]))
        query = query.group_by(self._column).order_by(self._column)
        held = 0
        for rows in stream_rows(self.conn, query):
            for value, n in rows:
                low = _encode(value)
                if held and held + n > size and low != ranges[i].low:
                    yield low
                    held = 0
                held += n

    def _count(
        self, ranges: Sequence[Range], chosen: Sequence[int]
    ) -> dict[int, tuple[int, ...]]:  # fmt: skip
        """Return rows and sums of hashes of some ranges, as they are now."""
        hashes = self._hashes()
        columns = [one.label(f"hash{i}") for i, one in enumerate(hashes)]
        inner = sa.select(self._number(ranges), *columns).select_from(self.table.clause)
        if len(chosen) < len(ranges):
            inner = inner.where(self._within(ranges, chosen))
        part = inner.subquery("part")
        sums: list[Expression] = [sa.func.count()]
        sums += [sa.func.sum(part.c[column.name]) for column in columns]
        query = sa.select(part.c.number, *sums).group_by(part.c.number)
        found = {i: (0,) * len(sums) for i in chosen}
        for number, *values in self.conn.execute(query):
            if number in found:
                found[number] = tuple(int(value or 0) for value in values)
        return found

    def _hashes(self) -> list[Expression]:
        """Return what is summed over the rows of a range, as far as the database has a hash."""
        parts = [self._column, *self.table.ids]
        if self._is_postgres:
            if self._knows_updates:
                parts = [self._column, sa.column("xmin")]
            texts: list[Expression] = [sa.cast(part, sa.Text) for part in parts]
            return [sa.func.hashtextextended(_join(texts), 0)]
        if self.conn.dialect.name == "sqlite":
            return [sa.func.crc32(sa.cast(_join(parts), sa.LargeBinary))]
        found: list[Expression] = []
        if self.table.is_number:
            left = sa.cast(self._column, sa.BigInteger) % sa.literal_column(str(_MODULUS))
            # Two numbers that changed places with two others have the same sum.
            found += [left, left * left]
        if hash_ := _HASHES.get(self.conn.dialect.name):
            found += [sa.cast(sa.Function(hash_, one), sa.BigInteger) for one in self.table.ids]
        return found

    def _number(self, ranges: Sequence[Range]) -> Expression:
        """Return the number of a row's range in SQL, found as in a sorted list."""
        found = self._find(ranges, 1, len(ranges))
        return sa.case(
            (self._column.is_(None), sa.literal_column(str(_NULLS))), else_=found
        ).label("number")  # fmt: skip

    def _find(self, ranges: Sequence[Range], first: int, end: int) -> Expression:
        if end - first == 1:
            return sa.literal_column(str(first), sa.Integer)
        middle = (first + end) // 2
        below = self._find(ranges, first, middle)
        is_below = self._column < self._value(ranges[middle].low)
        return sa.case((is_below, below), else_=self._find(ranges, middle, end))

    def _within(self, ranges: Sequence[Range], chosen: Iterable[int]) -> sa.ColumnElement[bool]:
        """Return the condition for being in some ranges; neighbours become one condition."""
        runs: list[list[int]] = []
        for i in sorted(chosen):
            if runs and runs[-1][-1] == i - 1 and i - 1 != _NULLS:
                runs[-1].append(i)
            else:
                runs.append([i])
        found: list[sa.ColumnElement[bool]] = []
        for run in runs:
            if run[0] == _NULLS:
                found.append(self._column.is_(None))
                continue
            ends: list[sa.ColumnElement[bool]] = [self._column.is_not(None)]
            if run[0] > 1:
                ends.append(self._column >= self._value(ranges[run[0]].low))
            if run[-1] + 1 < len(ranges):
                ends.append(self._column < self._value(ranges[run[-1] + 1].low))
            found.append(sa.and_(*ends))
        return sa.or_(*found)

    def _cast_to_text(self, value: Expression) -> Expression:
        # Python has no year 12024 and no infinity, and a boundary may be one.
        return sa.cast(value, sa.Text) if self._is_postgres else value

    def _value(self, low: object) -> Expression:
        value = _decode(low)
        return sa.literal(value) if self._kind is None else sa.cast(sa.literal(value), self._kind)


class _Named(sa.types.UserDefinedType[str]):
    """A type of PostgreSQL by its name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: object) -> str:
        return self.name


def _join(parts: Sequence[Expression]) -> Expression:
    """Return several values as one text in SQL."""
    shown: list[Expression] = [sa.func.coalesce(part, "") for part in parts]
    return functools.reduce(lambda one, other: one.op("||")(":").op("||")(other), shown)


def _as_wide(tally: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tally of an empty range with as many sums as another tally has."""
    return tally if any(tally) else (0,) * len(other)


def _choose_counted(ranges: Sequence[Range], turn: int) -> tuple[list[int], int]:
    """Return which ranges a look counts, in their order of turns, and whose turn is next."""
    in_turn = [*range(turn, len(ranges)), *range(turn)]
    if sum(one.n_rows for one in ranges) <= MOST_COUNTED:
        return in_turn, turn
    chosen = {_NULLS, 1} | {i for i, one in enumerate(ranges) if one.marks is not None}
    n_newest = 0
    for i in reversed(range(len(ranges))):
        if n_newest >= MOST_COUNTED // 2:
            break
        chosen.add(i)
        n_newest += ranges[i].n_rows
    n_older = 0
    for i in in_turn:
        if n_older >= MOST_COUNTED // 2:
            return [j for j in in_turn if j in chosen], i
        if i not in chosen:
            chosen.add(i)
            n_older += ranges[i].n_rows
    return in_turn, turn


def _choose_read(
    ranges: Sequence[Range], tallies: Mapping[int, tuple[int, ...]], changed: Sequence[int]
) -> tuple[set[int], list[int]]:
    """Return which ranges that changed are read now, and which wait for the next look."""
    read, waiting, n_again = set[int](), list[int](), 0
    for i in changed:
        is_known = ranges[i].marks is None and ranges[i].n_rows > 0
        n = tallies[i][0] if is_known else 0
        if n and n_again and n_again + n > MOST_AGAIN:
            waiting.append(i)
        else:
            read.add(i)
            n_again += n
    return read, waiting


def _choose_marked(pieces: Sequence[Range], is_read: Sequence[bool]) -> set[int]:
    """Return the pieces whose rows are to be known by their hashes, the newest first."""
    kept, n_marks = set[int](), 0
    for i in reversed(range(len(pieces))):
        piece = pieces[i]
        if (is_read[i] or piece.marks is not None) and n_marks + piece.n_rows <= MOST_MARKS:
            kept.add(i)
            n_marks += piece.n_rows
    return kept


def _notice(
    ranges: Sequence[Range],
    tallies: Mapping[int, tuple[int, ...]],
    read: set[int],
    gone: Mapping[int, int],
    n_waiting: int,
) -> str:
    """Say what was not as it had been; "" if rows only came among those that are known."""
    n_gone = n_again = 0
    for i in read:
        is_known = ranges[i].marks is not None
        n_gone += gone[i] if is_known else max(ranges[i].n_rows - tallies[i][0], 0)
        n_again += 0 if is_known or not ranges[i].n_rows else tallies[i][0]
    said = []
    if n_gone:
        said.append(
            f"at least {n_gone:,} rows that were read are changed or no longer there; what is now "
            "there is read. If rows were removed, those that came and went between two looks are "
            "lost, an unknown number: keep rows for longer than looks are apart."
        )
    if n_again:
        said.append(
            f"rows came, changed or went far behind the newest ones: {n_again:,} rows around them "
            "are read again, and known ones count as duplicates."
        )
    if n_waiting:
        said.append(f"{n_waiting:,} more are read again at the next looks.")
    return " ".join(said)


def _merge(ranges: Sequence[Range]) -> list[Range]:
    """Put neighbours together that are short, and whose rows are not known one by one."""
    size = max(LEAST_ROWS, sum(one.n_rows for one in ranges) // MOST_RANGES)
    merged = list(ranges[:2])
    for one in ranges[2:]:
        last = merged[-1]
        is_short = last.n_rows + one.n_rows <= size
        if len(merged) > 1 and is_short and last.marks is None and one.marks is None:
            width = max(len(last.tally), len(one.tally))
            tallies = (_as_wide(t, (0,) * width) for t in (last.tally, one.tally))
            merged[-1] = replace(last, tally=tuple(map(sum, zip(*tallies, strict=True))))
        else:
            merged.append(one)
    return merged


def _mark(row: Sequence[object]) -> str:
    digest = hashlib.blake2b(repr(tuple(row)).encode(errors="replace"), digest_size=8).digest()
    return base64.b85encode(digest).decode()


def _encode_ranges(ranges: Sequence[Range]) -> list[list[object]]:
    return [
        [one.low, list(one.tally), None if one.marks is None else "".join(sorted(one.marks))]
        for one in ranges
    ]


def _decode_ranges(position: Position) -> list[Range]:
    stored = position.get("ranges") or [[None, [0], ""]] * 2
    return [Range(low, tuple(tally), _decode_marks(marks)) for low, tally, marks in stored]


def _decode_marks(marks: str | None) -> frozenset[str] | None:
    if marks is None:
        return None
    starts = range(0, len(marks), _MARK_LENGTH)
    return frozenset(marks[at : at + _MARK_LENGTH] for at in starts)


def _encode(value: object) -> object:
    if isinstance(value, dt.datetime):
        return {"time": value.isoformat()}
    return int(value) if isinstance(value, decimal.Decimal) else value


def _decode(value: object) -> object:
    return dt.datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value
