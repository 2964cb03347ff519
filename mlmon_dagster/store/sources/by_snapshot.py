"""New rows of a PostgreSQL table by transaction, without losing one that commits late.

Every row version carries the id of the transaction that wrote it (``xmin``). A snapshot knows the
oldest transaction that was still open when it was taken: below that horizon every transaction has
ended, so whatever will ever be visible there is visible now. Reading the rows from the last horizon
up to the present one therefore takes each of them exactly once, in whatever order they commit;
subtransactions and prepared transactions keep the horizon down like any other.

``xmin`` has 32 bits and the horizon 64: a number is taken for the latest transaction before the
snapshot's end that has it. For a row older than 4 billion transactions that is too late a one, so
the row may be read again, and never less than once. Freezing leaves ``xmin`` as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import SqlSource
from mlmon_dagster.store.sources.source_cursor import Position
from mlmon_dagster.store.sources.table import SourceTable

_OLDEST = 13
_HORIZON = sa.text(
    "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint "
    "FROM pg_current_snapshot() AS s"
)
_KIND = sa.text(
    "SELECT format_type(atttypid, NULL) FROM pg_attribute "
    "WHERE attrelid = to_regclass(:name) AND attname = :column AND NOT attisdropped"
)
_TABLES = sa.text(
    "WITH RECURSIVE part AS (SELECT oid, relkind FROM pg_class WHERE oid = to_regclass(:name) "
    "UNION SELECT c.oid, c.relkind FROM part "
    "JOIN pg_inherits ON inhparent = part.oid JOIN pg_class c ON c.oid = inhrelid) "
    "SELECT oid::bigint FROM part WHERE relkind = 'r' ORDER BY oid"
)
_SYSTEM = sa.text("SELECT system_identifier::text FROM pg_control_system()")
_TIMELINE = sa.text(
    "SELECT CASE WHEN pg_is_in_recovery() THEN '' "
    "ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END"
)


class _TransactionId(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_options: Any) -> str:
        return "xid8"


@dataclass(frozen=True)
class Snapshot:
    """What is new below the horizon: the condition for it, and the position after it."""

    where: sa.ColumnElement[bool] | None
    position: Position
    label: str


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
    kind = _kind_of(conn, source, table, name)
    horizon, end = conn.execute(_HORIZON).one()
    tables = list(conn.execute(_TABLES, {"name": name}).scalars())
    now: Position = {"origin": _origin(conn), "horizon": int(horizon), "tables": tables}
    is_same = position.get("origin") == now["origin"] and position["horizon"] <= now["horizon"]
    low = int(position["horizon"]) if is_same else None
    new_tables = sorted(set(tables) - set(position.get("tables", ()))) if is_same else []
    label = f"tx-{low or 0}-{horizon}"
    if low == horizon and not new_tables:
        return Snapshot(None, now, label)
    column = table.clause.c[source.cursor.column]
    return Snapshot(_between(column, kind, low, int(horizon), int(end), new_tables), now, label)


def _between(
    column: sa.ColumnElement[Any],
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
        as_kind = _TransactionId() if kind == "xid8" else sa.BigInteger()
        from_low = None if low is None else column >= _number(low, as_kind)
        below = column < _number(horizon, as_kind)
    if from_low is None:
        return sa.and_(below)
    if new_tables:  # what a table that was not there at the last look holds may be of any age
        table_oid = sa.cast(sa.column("tableoid"), sa.BigInteger)
        from_low = sa.or_(from_low, table_oid.in_(list(new_tables)))
    return sa.and_(below, from_low)


def _number(value: int, kind: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(str(value), sa.Text), kind)


def _kind_of(conn: sa.Connection, source: SqlSource, table: SourceTable, name: str) -> str:
    column = source.cursor.column
    kind = conn.execute(_KIND, {"name": name, "column": column}).scalar()
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
    return str(kind)


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
