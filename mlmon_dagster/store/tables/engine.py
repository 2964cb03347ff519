"""The query engine: DuckDB in this process, able to read the store's files and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from mlmon_dagster.errors import StoreError, quote_error
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.tables.derived_columns import FUNCTIONS

HELD = "held_records"


@dataclass(frozen=True)
class Limits:
    """What queries may take of this machine.

    Attributes:
        memory: Before a query writes to the disk what it holds, such as ``512MB``.
        threads: At once.
        spill: The folder for that; by default one in the store's folder on this machine.
    """

    memory: str = "512MB"
    threads: int = 2
    spill: Path | None = None


class QueryEngine:
    """Runs SQL over the store's Parquet files and over Arrow tables.

    Args:
        root: The only place that a query may read.
        folder: A folder on this machine for what can be made anew.
        limits: What a query may take.
    """

    def __init__(self, root: Location, folder: Path, limits: Limits) -> None:
        self.root = root
        self.folder = folder
        self.threads = limits.threads
        self._limits = limits
        self._lock = Lock()
        self._database: Any = None

    def query(self, sql: str, tables: Mapping[str, object] | None = None) -> pa.Table:
        """Run one statement and return its rows.

        Args:
            sql: A statement; the session's time zone is UTC.
            tables: Arrow tables to be seen under the names given.

        Raises:
            StoreError: If the statement fails.
        """
        with self._asking(tables) as cursor:
            return cursor.sql(sql).to_arrow_table()

    def batches(
        self, sql: str, rows: int, tables: Mapping[str, object] | None = None
    ) -> Iterator[pa.Table]:
        """Run one statement and yield its rows, of which few are in memory at a time.

        Args:
            sql: As of `query`.
            rows: At most so many at a time.
            tables: As of `query`.

        Raises:
            StoreError: If the statement fails, also after some of its rows.
        """
        with self._asking(tables) as cursor:
            yield from _read_batches(cursor, sql, rows)

    @contextmanager
    def _asking(self, tables: Mapping[str, object] | None) -> Iterator[Any]:
        """Yield a cursor that sees some tables; what fails is an error of the store."""
        # One for each query: an unfinished result would own the connection.
        cursor = self.open_cursor()
        try:
            with _raise_store_errors():
                for name, table in (tables or {}).items():
                    cursor.register(name, table)
                yield cursor
        finally:
            cursor.close()

    def open_cursor(self) -> Any:
        """Return a connection of its own to the one database of this engine."""
        with self._lock:
            if self._database is None:
                self._database = self._connect()
            return self._database.cursor()

    def _connect(self) -> Any:
        import duckdb

        keep_freed_memory()
        database: Any = duckdb.connect(":memory:")
        if not self.root.is_local:
            from mlmon_dagster.store.places.duckdb_objects import ObjectFiles

            database.register_filesystem(ObjectFiles(self.root))
        for statement in (
            "SET GLOBAL TimeZone = 'UTC'",  # else of this session alone
            f"SET threads = {self._limits.threads}",
            f"SET memory_limit = {literal(self._limits.memory)}",
            f"SET temp_directory = {literal(str(self._limits.spill or self.folder / '.spill'))}",
            # The operating system keeps files that were read, and gives them up when need be.
            "SET enable_external_file_cache = false",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            f"SET allowed_directories = [{literal(f'{self.root}/')}]",
            "SET enable_external_access = false",
        ):
            database.execute(statement)
        for name, function in FUNCTIONS.items():
            database.create_function(
                name,
                function.compute,
                list(function.takes),
                function.gives,
                type="arrow",
                null_handling="special",
            )
        return database


def _read_batches(cursor: Any, sql: str, rows: int) -> Iterator[pa.Table]:
    for batch in cursor.sql(sql).to_arrow_reader(rows):
        yield pa.Table.from_batches([batch])


@contextmanager
def _raise_store_errors() -> Iterator[None]:
    """Raise what fails of the database or of Arrow, also while rows come, as a `StoreError`."""
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StoreError(f"A query failed: {quote_error(error)}") from error


def keep_freed_memory() -> None:
    """Let this process use freed memory again, up to 64 MB, before it goes back to the system.

    Rows come and go in blocks of some megabytes, each of which would be asked of the system, page
    by page, and given back at once: a fifth of a profile's time, more where memory is a guest's.
    The C library of Linux learns how large passing blocks are from the largest that was freed; it
    has to be told once, and a block that nobody writes to costs nothing. Others take no notice.
    """
    np.empty(_PASSING, np.uint8)


_PASSING = 2**25 - 2**16  # bytes: of 32 MB, with what stands before them, it would not learn


class HeldRows:
    """Some rows in memory, under the name `HELD`, and an engine that sees them beside the store.

    They are a table of the database's own: to plan a statement over one costs as much for a
    thousand columns as for ten, where a table of Arrow is looked at column by column. It ends with
    this, whose statements have to be asked one after the other.

    Args:
        queries: The engine.
        sql: The rows.

    Raises:
        StoreError: If the statement fails.
    """

    def __init__(self, queries: QueryEngine, sql: str) -> None:
        self.threads = queries.threads
        self._cursor = queries.open_cursor()
        with _raise_store_errors():
            self._cursor.execute(f"CREATE TEMP TABLE {HELD} AS {sql}")

    def query(self, sql: str, /) -> pa.Table:
        """Run one statement and return its rows."""
        with _raise_store_errors():
            return self._cursor.sql(sql).to_arrow_table()

    def batches(self, sql: str, rows: int, /) -> Iterator[pa.Table]:
        """Run one statement and yield its rows, at most so many at a time."""
        with _raise_store_errors():
            yield from _read_batches(self._cursor, sql, rows)
