"""Rows of the state database as JSON lines, for backups; the same on both databases.

One text for SQLite and PostgreSQL, so that a backup of one can be restored into the other.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import METADATA, UtcDateTime
from mlmon_dagster.store.state.upsert import insert_or_ignore

_CHUNK = 5_000
_OF_NOBODY = {"writer_lock"}  # held by processes of this moment


def exported_tables() -> list[sa.Table]:
    """Return the tables that are kept, in a fixed order."""
    return [METADATA.tables[name] for name in sorted(METADATA.tables) if name not in _OF_NOBODY]


def export_rows(conn: sa.Connection, table: sa.Table, path: Path) -> int:
    """Write the rows of a table to a file; return how many."""
    query = sa.select(table)
    if "id" in table.c:
        query = query.order_by(table.c.id)
    n_rows = 0
    with path.open("w", encoding="utf-8") as file:
        for row in conn.execution_options(yield_per=_CHUNK).execute(query).mappings():
            file.write(json.dumps(dict(row), default=_written, sort_keys=True) + "\n")
            n_rows += 1
    return n_rows


def import_rows(conn: sa.Connection, table: sa.Table, path: Path) -> None:
    """Insert the rows of a file that are not there yet."""
    times = {column.name for column in table.c if isinstance(column.type, UtcDateTime)}
    for chunk in _chunks(path):
        rows = [
            {
                name: dt.datetime.fromisoformat(value) if name in times and value else value
                for name, value in row.items()
            }
            for row in chunk
        ]
        insert_or_ignore(conn, table, rows)
    _move_counter(conn, table)


def _chunks(path: Path) -> Iterator[list[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            chunk.append(json.loads(line))
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _move_counter(conn: sa.Connection, table: sa.Table) -> None:
    """Let the ids that PostgreSQL gives out go on behind those that were inserted."""
    if conn.dialect.name != "postgresql" or not _is_counted(table):
        return
    conn.execute(
        sa.text(
            f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "
            f"GREATEST((SELECT MAX(id) FROM {table.name}), 1))"
        )
    )


def _is_counted(table: sa.Table) -> bool:
    return "id" in table.c and isinstance(table.c.id.type, sa.Integer)


def _written(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(f"{type(value)} in the state database")
