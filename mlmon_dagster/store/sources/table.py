"""Reading new rows of a declared table; every name is looked up first and quoted by the dialect."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import NoSuchTableError, SAWarning

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import SqlSource

FETCH_ROWS = 20_000


@dataclass(frozen=True)
class SourceTable:
    """A table or view that exists, with the columns that are wanted of it.

    Attributes:
        clause: The table for statements.
        selected: The wanted columns; PostgreSQL's times as text, since Python has no year 0.
    """

    clause: sa.TableClause
    selected: tuple[sa.ColumnElement[Any], ...]


def find_table(
    conn: sa.Connection, source: SqlSource, wanted: Sequence[str], required: Sequence[str]
) -> SourceTable:
    """Look a declared table up.

    Args:
        conn: A connection of the source database.
        source: The declaration.
        wanted: Columns to be read where they exist.
        required: Those that must exist, the cursor's column aside.

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
    names = [name for name in wanted if name in found]
    clause = sa.table(
        name, *(sa.column(n) for n in {*names, column}), schema=schema or None
    )  # fmt: skip
    selected = tuple(_selected(conn, clause.c[n], found[n]) for n in names)
    return SourceTable(clause, selected)


def stream_rows(conn: sa.Connection, query: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    """Run a query and yield its rows in lists, without holding all of them."""
    result = conn.execution_options(stream_results=True, max_row_buffer=FETCH_ROWS).execute(query)
    while rows := result.fetchmany(FETCH_ROWS):
        yield rows


def _selected(
    conn: sa.Connection, column: sa.ColumnElement[Any], kind: Any
) -> sa.ColumnElement[Any]:
    is_time = isinstance(kind, sa.DateTime | sa.Date)
    if is_time and conn.dialect.name == "postgresql":
        return sa.cast(column, sa.Text).label(str(column.key))
    return column


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
