"""Databases of users that are read as landing files are: where a read stands, and what is new.

New rows of a table, by PostgreSQL's snapshots; none is lost that commits late. Every row version
carries the id of the transaction that wrote it (``xmin``). A snapshot knows the oldest transaction
that was still open when it was taken: below that horizon every transaction has ended, so whatever
will ever be visible there is visible now. Reading the rows from the last horizon up to the present
one therefore takes each of them exactly once, in whatever order they commit; subtransactions and
prepared transactions keep the horizon down like any other.

``xmin`` has 32 bits and the horizon 64: a number is taken for the latest transaction before the
snapshot's end that has it. For a row older than 4 billion transactions that is too late a one, so
the row may be read again, and never less than once. Freezing leaves ``xmin`` as it is.

Databases without such snapshots are read by a growing number or a time, a column to sort by. No
newest value is believed to be the last one: a row may commit late, be of the far future, or come
after its table was counted from 1 again. So the column's line is kept as ranges, each with a count
and a sum of hashes of what was in it when it was read. A range that is not as it was is read again,
wherever it lies. Rows of the ranges that changed last are known by a hash of the whole row and left
out; those of other ranges come as duplicates.

What is hashed is the column and the id of the row, so a row in place of another is seen though both
have one time. On PostgreSQL it is the transaction that wrote a row of a table instead of its id, so
a row that was updated in place is seen as well. Counting comes before reading: what commits in
between is seen as a change by the next look.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import difflib
import functools
import hashlib
import json
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import NoSuchModuleError, NoSuchTableError, SAWarning, SQLAlchemyError

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import shown_url, without_secrets
from mlmon_dagster.spec.sources import SqlSource
from mlmon_dagster.store.state.database import parsed_url
from mlmon_dagster.store.state.schema import source_cursor
from mlmon_dagster.store.state.sql import Query, fetch_row, upsert

FETCH_ROWS = 20_000
_CONNECT_SECONDS = 10
Position = Mapping[str, Any]
Expression = sa.ColumnElement[Any]  # of a column of whatever type
_UNTOLD = "untold"  # key of a position
_OLDEST = 13
_HORIZON = sa.text(
    "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint "
    "FROM pg_current_snapshot() AS s"
)
_KIND = sa.text(
    "SELECT format_type(atttypid, NULL) FROM pg_attribute "
    "WHERE attrelid = to_regclass(:name) AND attname = :column AND NOT attisdropped"
)
_PARTS = (
    "WITH RECURSIVE part AS (SELECT oid, relkind FROM pg_class WHERE oid = to_regclass(:name) "
    "UNION SELECT c.oid, c.relkind FROM part "
    "JOIN pg_inherits ON inhparent = part.oid JOIN pg_class c ON c.oid = inhrelid) "
)
_KEEPS_TRANSACTIONS = sa.text(f"{_PARTS} SELECT bool_and(relkind IN ('r', 'p', 'm')) FROM part")
_WITHOUT_COMPILER = "SELECT set_config(name, 'off', true) FROM pg_settings WHERE name = 'jit'"
_TABLES = sa.text(
    f"{_PARTS} SELECT oid::bigint, pg_relation_filenode(oid)::bigint FROM part "
    "WHERE relkind = 'r' ORDER BY oid"
)
_SYSTEM = sa.text("SELECT system_identifier::text FROM pg_control_system()")
_TIMELINE = sa.text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN '' "
    "ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END"
)


@dataclass(frozen=True)
class SourceTable:
    """A table or view that exists, with the columns that are wanted of it.

    Attributes:
        clause: The table for statements.
        selected: The wanted columns; PostgreSQL's times as text, since Python has no year 0.
        is_number: Whether the cursor's column holds numbers.
        ids: The columns that identify a row, where they exist.
        kinds: The type of each column by name, also of those that are not wanted.
    """

    clause: sa.TableClause
    selected: tuple[Expression, ...]
    is_number: bool = False
    ids: tuple[Expression, ...] = ()
    kinds: Mapping[str, object] = field(default_factory=dict)


def find_table(
    conn: sa.Connection,
    source: SqlSource,
    wanted: Sequence[str],
    required: Sequence[str],
    ids: Sequence[str],
) -> SourceTable:
    """Look a declared table up.

    Args:
        conn: A connection of the source database.
        source: The declaration.
        wanted: Columns to be read where they exist.
        required: Those that must exist, the cursor's column aside.
        ids: Those of them that identify a row.

    Raises:
        ConfigError: If the table or a column does not exist, with the nearest name that does.
    """
    schema, _, name = source.sql.rpartition(".")
    inspector = sa.inspect(conn)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # types that SQLAlchemy does not know
            described = inspector.get_columns(name, schema or None)
        found = {column["name"]: column["type"] for column in described}
    except NoSuchTableError:
        found = {}
    if not found:
        known = [*inspector.get_table_names(schema or None)]
        known += inspector.get_view_names(schema or None)
        raise ConfigError(
            f"{source.label} does not exist.{_near(name, known)} Correct 'sql' under 'source', or "
            "let the database's user see the table."
        )
    column = source.cursor.column
    needed = [*required] if column == "xmin" else [*required, column]
    missing = [name for name in needed if name not in found]
    if missing:
        listed = ", ".join(repr(name) for name in missing)
        raise ConfigError(
            f"{source.label} has no column {listed}. Present: {', '.join(sorted(found)[:40])}."
            f"{_near(missing[0], found)} Correct the names in the spec, or add the column."
        )
    # In the table's order, so that a row has the same hash however the spec lists its columns.
    names = [name for name in found if name in wanted]
    clause = sa.table(
        name, *(sa.column(n) for n in {*names, column}), schema=schema or None
    )  # fmt: skip
    selected = tuple(_selected(conn, clause.c[n], found[n]) for n in names)
    is_number = isinstance(found.get(column), sa.Integer | sa.Numeric)
    identified = tuple(clause.c[n] for n in ids if n in names)
    return SourceTable(clause, selected, is_number, identified, found)


def stream_rows(conn: sa.Connection, query: Query) -> Iterator[Sequence[Any]]:
    """Run a query and yield its rows in lists, without holding all of them."""
    # Of this statement alone: a connection keeps its options, and no savepoint can be streamed.
    options = {"stream_results": True, "max_row_buffer": FETCH_ROWS}
    result = conn.execute(query, execution_options=options)
    while rows := result.fetchmany(FETCH_ROWS):
        yield rows


def _selected(conn: sa.Connection, column: Expression, kind: Any) -> Expression:
    is_time = isinstance(kind, sa.DateTime | sa.Date)
    if is_time and conn.dialect.name == "postgresql":
        return sa.cast(column, sa.Text).label(str(column.key))
    return column


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def parse_source_url(text: str, variable: str) -> URL:
    """Parse the URL of a source database.

    Args:
        text: Any URL that SQLAlchemy accepts; that of PostgreSQL needs no driver.
        variable: The environment variable it came from, for messages.

    Raises:
        ConfigError: If it is no URL; the URL itself, which may hold a password, is not repeated.
    """
    url, problem = parsed_url(text)
    if problem:
        raise ConfigError(
            f"{variable} is not a database URL: {problem}. Write it like "
            "postgresql://user:password@host:5432/database."
        )
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg2")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        # SQLite would make an empty database of that name.
        raise ConfigError(f"{variable} names the SQLite file {url.database}, which does not exist.")
    return url


@contextmanager
def source_connection(text: str, variable: str) -> Iterator[sa.Connection]:
    """Connect to a source database in one read-only transaction with one view of its data.

    Args:
        text: The URL.
        variable: The environment variable it came from, for messages.

    Raises:
        ConfigError: If the URL is wrong or its driver is not installed.
        StoreError: If the database cannot be reached or a statement fails; the message holds no
            password.
    """
    url = parse_source_url(text, variable)
    engine = _engine(url, variable)
    try:
        with engine.connect() as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
                conn.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
                # Compiling a statement with many branches takes longer than running it.
                conn.exec_driver_sql(_WITHOUT_COMPILER)
            elif conn.dialect.name == "sqlite":
                # Else each statement sees what was committed before it, not one view of all.
                conn.exec_driver_sql("BEGIN")
                opened: Any = conn.connection.driver_connection
                opened.create_function("crc32", 1, zlib.crc32, deterministic=True)
            yield conn
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        found = " ".join(without_secrets(str(cause), text).split())[:500]
        raise StoreError(
            f"The database of {variable} ({shown_url(text)}): {found}. "
            "Check that it runs, that the variable is right and that its user may read the table."
        ) from None
    finally:
        engine.dispose()


def _engine(url: URL, variable: str) -> sa.Engine:
    is_postgres = url.get_backend_name() == "postgresql"
    try:
        engine = sa.create_engine(
            url,
            poolclass=sa.NullPool,
            connect_args={"connect_timeout": _CONNECT_SECONDS} if is_postgres else {},
        )
    except NoSuchModuleError:
        raise ConfigError(
            f"{variable} starts with {url.drivername}://, which SQLAlchemy does not know; "
            "correct it, or install the dialect's package."
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"{variable} needs the driver {error.name!r}, which is not installed: "
            f"pip install {error.name}."
        ) from None
    if is_postgres:
        engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    return engine


@dataclass(frozen=True)
class SourceCursor:
    """A position that is sure, and one that will be once its batches are settled.

    Attributes:
        position: Everything before it is in the log, or was refused; {} at the beginning.
        pending: The position after the batches; None if none are on their way.
        batches: Content hashes of the batches between the two.
    """

    position: Position
    pending: Position | None = None
    batches: tuple[str, ...] = ()


def load_cursor(engine: sa.Engine, model: str, stream: str) -> SourceCursor:
    """Return the cursor of a stream; at the beginning if there is none."""
    c = source_cursor.c
    query = sa.select(c.position, c.pending).where(c.model == model, c.stream == stream)
    row = fetch_row(engine, query)
    if row is None:
        return SourceCursor({})
    pending = json.loads(row.pending or "{}")
    batches = tuple(pending.get("batches", ()))
    return SourceCursor(json.loads(row.position), pending.get("position"), batches)


def save_cursor(
    conn: sa.Connection,
    model: str,
    stream: str,
    position: Position,
    now: dt.datetime,
    *,
    pending: Position | None = None,
    batches: Sequence[str] = (),
) -> None:
    """Replace the cursor of a stream, in the transaction that notes the batches."""
    on_its_way = {"position": pending, "batches": list(batches)}
    row = {
        "model": model,
        "stream": stream,
        "position": json.dumps(position),
        "pending": "" if pending is None else json.dumps(on_its_way),
        "updated_at": now,
    }
    upsert(conn, source_cursor, [row])


def with_notice(position: Position, notice: str) -> Position:
    """Return a position with what people have to know of it and were not told yet."""
    return {**position, _UNTOLD: notice} if notice else position


def split_notice(position: Position) -> tuple[Position, str]:
    """Return a position without what people were not told yet, and that."""
    rest = {key: value for key, value in position.items() if key != _UNTOLD}
    return rest, str(position.get(_UNTOLD, ""))


def forget_notice(engine: sa.Engine, model: str, stream: str, now: dt.datetime) -> None:
    """Note that people were told what a look at a source found; the ingest's lock must be held."""
    cursor = load_cursor(engine, model, stream)
    position, _ = split_notice(cursor.position)
    pending = None if cursor.pending is None else split_notice(cursor.pending)[0]
    if SourceCursor(position, pending, cursor.batches) != cursor:
        with engine.begin() as conn:
            save_cursor(conn, model, stream, position, now, pending=pending, batches=cursor.batches)


class _Named(sa.types.UserDefinedType[str]):
    """A type of PostgreSQL by its name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: object) -> str:
        return self.name


@dataclass(frozen=True)
class Snapshot:
    """What is new below the horizon: the condition for it, and the position after it.

    The notice is what a person has to know of rows that may be gone; "" if nothing.
    """

    where: sa.ColumnElement[bool] | None
    position: Position
    label: str
    notice: str = ""


def take_snapshot(
    conn: sa.Connection, source: SqlSource, table: SourceTable, position: Position
) -> Snapshot:
    """Return which rows are new since a position; ``where`` is None if none can be.

    Args:
        conn: A connection in a REPEATABLE READ transaction.
        source: The declaration.
        table: The table that was found for it.
        position: Where the last snapshot ended; {} to read everything.

    Raises:
        ConfigError: If the database is not PostgreSQL 13 or newer, or the column cannot say which
            transaction wrote a row.
    """
    if conn.dialect.name != "postgresql":
        raise ConfigError(
            f"{source.label}: kind: xmin is for PostgreSQL, this is {conn.dialect.name}; use "
            "kind: id or kind: time."
        )
    if getattr(conn.dialect, "server_version_info", (13,))[0] < _OLDEST:
        raise ConfigError(f"{source.label}: kind: xmin needs PostgreSQL 13 or newer.")
    name = conn.dialect.identifier_preparer.format_table(table.clause)
    kind = _transaction_kind(conn, source, table, name)
    horizon, end = conn.execute(_HORIZON).one()
    tables = {str(oid): file for oid, file in conn.execute(_TABLES, {"name": name})}
    now: Position = {"origin": _origin(conn), "horizon": int(horizon), "tables": tables}
    is_same = position.get("origin") == now["origin"] and position["horizon"] <= now["horizon"]
    low = int(position["horizon"]) if is_same else None
    before: Mapping[str, int] = position.get("tables", {})
    new_tables = sorted(int(oid) for oid in set(tables) - set(before)) if is_same else []
    notice = _find_emptied(before, tables) if position else ""
    if position and not is_same:
        notice = (
            "it is not on the server that was read, or that was restored; the whole table is read."
        )
    label = f"tx-{low or 0}-{horizon}"
    if low == horizon and not new_tables:
        return Snapshot(None, now, label, notice)
    column = table.clause.c[source.cursor.column]
    where = _between(column, kind, low, int(horizon), int(end), new_tables)
    return Snapshot(where, now, label, notice)


def _find_emptied(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Say that tables lost the files that held their rows; "" if all still have them."""
    if all(now.get(oid) == file for oid, file in before.items()):
        return ""
    return (
        "it was emptied, replaced or rewritten (TRUNCATE, DROP, VACUUM FULL). Its new rows are "
        "read; if it was emptied, rows that came and went between two polls are lost, an unknown "
        "number."
    )


def _between(
    column: Expression,
    kind: str,
    low: int | None,
    horizon: int,
    end: int,
    new_tables: Sequence[int],
) -> sa.ColumnElement[bool]:
    if kind == "xid":
        written = sa.cast(sa.cast(column, sa.Text), sa.BigInteger)
        number = sa.literal(end, sa.BigInteger)
        # The latest transaction before the snapshot's end whose id ends in these 32 bits.
        bits = (number - written).op("&")(sa.literal(0xFFFFFFFF, sa.BigInteger))
        from_low: Any = None if low is None else number - bits >= low
        below: Any = number - bits < horizon
    else:
        from_low = None if low is None else column >= _number(low, kind)
        below = column < _number(horizon, kind)
    if from_low is None:
        return sa.and_(below)
    if new_tables:  # what a table that was not there at the last look holds may be of any age
        table_oid = sa.cast(sa.column("tableoid"), sa.BigInteger)
        from_low = sa.or_(from_low, table_oid.in_(list(new_tables)))
    return sa.and_(below, from_low)


def _number(value: int, kind: str) -> Expression:
    return sa.cast(sa.literal(str(value), sa.Text), _Named(kind))


def kind_of(conn: sa.Connection, name: str, column: str) -> str | None:
    """Return the type of a column of PostgreSQL; None if the table has no such column."""
    found = conn.execute(_KIND, {"name": name, "column": column}).scalar()
    return None if found is None else str(found)


def has_transactions(conn: sa.Connection, name: str) -> bool:
    """Return whether rows of a table of PostgreSQL say which transaction wrote them.

    Those of views and foreign tables do not.
    """
    return bool(conn.execute(_KEEPS_TRANSACTIONS, {"name": name}).scalar())


def _transaction_kind(
    conn: sa.Connection, source: SqlSource, table: SourceTable, name: str
) -> str:  # fmt: skip
    column = source.cursor.column
    kind = kind_of(conn, name, column)
    if kind is None:
        raise ConfigError(
            f"{source.label} has no column {column!r}. A view must show its table's transaction "
            f"under a name of its own, such as: SELECT s.*, s.xmin AS row_xmin FROM ... AS s."
        )
    if kind not in ("xid", "xid8", "bigint"):
        raise ConfigError(
            f"{source.label}: column {column!r} is {kind}; kind: xmin reads xmin itself, or a "
            "column of type xid, xid8 or bigint that holds pg_current_xact_id() of the writer."
        )
    if column != "xmin":
        empty = sa.select(sa.literal(1)).select_from(table.clause)
        if conn.execute(empty.where(table.clause.c[column].is_(None)).limit(1)).first():
            raise ConfigError(
                f"{source.label}: column {column!r} is NULL in some rows, which would never be "
                "read. Fill them and set the column NOT NULL DEFAULT pg_current_xact_id()."
            )
    return kind


def _origin(conn: sa.Connection) -> str:
    """Name the server's data and its timeline: other ones count transactions anew."""
    found = []
    for query in (_SYSTEM, _TIMELINE):
        try:
            with conn.begin_nested():
                found.append(str(conn.execute(query).scalar() or ""))
        except sa.exc.DBAPIError:  # not allowed to everybody on every service
            found.append("")
    database = conn.execute(
        sa.text("SELECT oid::text FROM pg_database WHERE datname = current_database()")
    ).scalar()
    return ":".join([*found, str(database)])


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
