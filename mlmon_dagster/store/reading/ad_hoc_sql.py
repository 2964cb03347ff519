"""One SELECT of a person, on an engine of its own that can read nothing but what it is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.rows import KINDS, folder_of

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


def select(
    store: Store, model: str, text: str, limit: int | None = None, seconds: float | None = None
) -> pa.Table:
    """Run one SELECT over the views predictions, actuals, records, profiles and metrics.

    The engine reads files below the tables of this model only, reaches no network, loads no
    extension, and its settings are locked.

    Args:
        store: The store.
        model: The model's name.
        text: One SELECT statement; the session's zone is UTC.
        limit: At most so many rows.
        seconds: It is broken off after so long; None lets it run.

    Raises:
        ConfigError: If it is not exactly one SELECT, the engine refuses it, or it takes too long.
        StoreError: If the store is in object storage.
    """
    import duckdb

    if not store.root.is_local:
        raise StoreError(
            "SQL of your own runs on a store on this machine only; read this one with "
            'open_store(...).records("MODEL").to_arrow() and query that.'
        )
    _refuse_other_statements(text)
    database: Any = duckdb.connect(":memory:")
    try:
        _lock_down(database, store, model)
        _make_views(database, store, model)
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        with _time_limit(database, seconds):
            relation = database.sql(text)
            if relation is None:
                raise ConfigError("The statement returned no rows to show; expected one SELECT.")
            some = relation if limit is None else relation.limit(limit)
            found: pa.Table = some.to_arrow_table()
        return found
    except duckdb.InterruptException:
        raise ConfigError(
            f"The query was broken off after {seconds:g} seconds. Select less, such as one window "
            "with WHERE, or give it longer with --timeout."
        ) from None
    except duckdb.Error as error:
        raise ConfigError(f"The query failed: {error}") from error
    finally:
        database.close()


@contextmanager
def _time_limit(database: Any, seconds: float | None) -> Iterator[None]:
    """Interrupt what the database does once the time is over."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, database.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _refuse_other_statements(text: str) -> None:
    import duckdb

    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise ConfigError(f"The query cannot be read: {error}") from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        listed = ", ".join(kinds) or "nothing"
        raise ConfigError(f"Expected exactly one SELECT statement, found {listed}.")


def _lock_down(database: Any, store: Store, model: str) -> None:
    folders = [str(folder_of(store, kind, model).path) + "/" for kind in KINDS]
    listed = ", ".join(literal(folder) for folder in folders)
    for statement in (
        "SET TimeZone = 'UTC'",
        "SET threads = 2",
        "SET memory_limit = '2GB'",
        f"SET temp_directory = {literal(str(store.folder / '.spill'))}",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET python_enable_replacements = false",
        f"SET allowed_directories = [{listed}]",
    ):
        database.execute(statement)


def _make_views(database: Any, store: Store, model: str) -> None:
    from mlmon_dagster.store.state import metric_log

    for kind in KINDS:
        snapshot = folder_of(store, kind, model).snapshot()
        if snapshot is not None:
            name = quote_identifier(kind)
            database.execute(f"CREATE VIEW {name} AS SELECT * FROM {snapshot.from_sql()}")
    metrics = pa.Table.from_pandas(metric_log.newest(store.state, model), preserve_index=False)
    database.register("metrics", metrics)
