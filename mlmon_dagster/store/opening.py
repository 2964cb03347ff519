"""Opening a store: a folder of tables, and the state database beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import URL

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import state

if TYPE_CHECKING:
    import pyarrow as pa

    from mlmon_dagster.store.delta_rows import DeltaRows
    from mlmon_dagster.store.event_log import EventLog
    from mlmon_dagster.store.inference_records import InferenceRecords

_FORBIDDEN = "[]^|\\"  # deltalake panics on them


class Store:
    """Everything that is kept.

    Attributes:
        root: The folder of the tables.
        state: The engine of the state database: ``begin()`` to write, ``connect()`` to read.
    """

    def __init__(self, root: Path, engine: sa.Engine, memory_limit: str = "2GB") -> None:
        # Imported here, so that reading the state database needs neither DuckDB nor Arrow.
        from mlmon_dagster.store.query import QueryEngine

        self.root = root
        self.state = engine
        self._queries = QueryEngine(root, memory_limit)

    def query(self, sql: str, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Run SQL on DuckDB, in this process, over files of the store and Arrow tables.

        Args:
            sql: One statement; the session's zone is UTC; nothing outside the store's folder
                can be read.
            tables: Arrow tables, seen under the names given.

        Raises:
            StoreError: If the statement fails.
        """
        return self._queries.query(sql, tables)

    def event_log(self, spec: ModelSpec) -> EventLog:
        """Return the event log of a model."""
        from mlmon_dagster.store.event_log import EventLog

        return EventLog(self.root, spec, self._queries)

    def inference_records(self, spec: ModelSpec) -> InferenceRecords:
        """Return the inference records of a model."""
        from mlmon_dagster.store import erasures
        from mlmon_dagster.store.inference_records import InferenceRecords

        return InferenceRecords(
            self.root,
            spec,
            self._queries,
            self.event_log(spec),
            lambda: erasures.erased(self.state, spec.model),
        )

    def table(self, kind: str, model: str) -> DeltaRows:
        """Return a table of derived rows, such as ``profiles``, of a model."""
        from mlmon_dagster.store.delta_rows import DeltaRows

        return DeltaRows(self.root / kind / model, self._queries)

    def vacuum(self, keep_days: int = 30) -> int:
        """Delete files of replaced table versions, of all models; return how many.

        Args:
            keep_days: Versions replaced within so many days stay readable.
        """
        from mlmon_dagster.store.delta import vacuum

        logs = sorted(self.root.glob("**/_delta_log"))
        return sum(vacuum(log.parent, keep_days) for log in logs)

    def close(self) -> None:
        """Close the connections of the state database."""
        self.state.dispose()


def open_store(root: str | Path, db_url: str | None = None) -> Store:
    """Open a store, creating its folder and database and migrating them if needed.

    Args:
        root: Folder of the tables.
        db_url: The state database; by default SQLite, in the file ``state.db`` of the folder.

    Raises:
        ConfigError: If the URL is not one of SQLite or PostgreSQL.
        StoreError: If the folder or the database cannot be used.
    """
    folder = Path(root).expanduser().absolute()
    bad = sorted(set(str(folder)) & set(_FORBIDDEN))
    if bad or "://" in str(root):
        raise StoreError(
            f"The store's folder {str(root)!r} cannot be used: it must be a path on this machine "
            f"without the characters {' '.join(_FORBIDDEN)}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The store's folder {folder} cannot be made: {error}") from error
    url = (
        URL.create("sqlite", database=str(folder / "state.db"))
        if db_url is None
        else state.normalise_url(db_url)
    )
    return Store(folder, state.connect(url))
