"""INSERT .. ON CONFLICT, which SQLite and PostgreSQL spell alike but SQLAlchemy does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

_CHUNK = 500  # rows per statement; SQLite allows 32,766 values in one


def insert(conn: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return the dialect's INSERT, which has ``on_conflict_do_update`` and ``.excluded``."""
    if conn.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_or_ignore(
    conn: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]
) -> int:
    """Insert the rows that break no unique constraint; return how many they were.

    All rows must have the same keys.
    """
    if conn.dialect.name == "sqlite":
        # One compiled statement for all rows; PostgreSQL's driver cannot count that way.
        statement = insert(conn, table).on_conflict_do_nothing()
        listed = [dict(row) for row in rows]
        return conn.execute(statement, listed).rowcount if listed else 0
    inserted = 0
    for start in range(0, len(rows), _CHUNK):
        chunk = [dict(row) for row in rows[start : start + _CHUNK]]
        statement = insert(conn, table).values(chunk).on_conflict_do_nothing()
        inserted += conn.execute(statement).rowcount
    return inserted


def upsert(conn: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; where the primary key exists, the given columns are overwritten.

    All rows must have the same keys.
    """
    if not rows:
        return
    statement = insert(conn, table)
    keys = {column.name for column in table.primary_key}
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    statement = (
        statement.on_conflict_do_update(index_elements=sorted(keys), set_=changed)
        if changed
        else statement.on_conflict_do_nothing()
    )
    conn.execute(statement, [dict(row) for row in rows])
