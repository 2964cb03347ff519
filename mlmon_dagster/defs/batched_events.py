"""Dagster's event log with many events in one transaction.

Dagster writes the events of a range of windows one by one, to SQLite each of them twice and over
connections made anew: more than half of a backfill. `EVENTS_AT_ONCE` makes it hand materializations
over in batches. Evaluations of checks it always stores one by one, so they are held here until
their step goes on. What a killed process has not written yet belongs to a step that has not ended,
which is computed and told again.

Of each database that Dagster makes it reads its sixty migrations anew, so that of a new run is a
copy of an empty one, which is kept beside them for every version of Dagster.
"""

from __future__ import annotations

import os
import tempfile
import threading
from abc import abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from dagster import DagsterEventType, EventLogEntry
from dagster import __version__ as dg_version
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from sqlalchemy.pool import NullPool

from mlmon_dagster.defs.private_dagster import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    BATCH_WRITABLE_EVENTS,
    SQLITE_BUSY_TIMEOUT_SECONDS,
    ConfigurableClassData,
    DagsterSqliteStorage,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    _event_logs_directory,
)

EVENTS_AT_ONCE = 500
_ENGINES = 16  # of run databases; a web server looks at many runs, of which few are looked at again
_INSERT = SqlEventLogStorageTable.insert()


class BatchedEventLogStorage(SqlEventLogStorage):
    """What the event logs of both databases share: when to hold, and what is one transaction."""

    _holding = threading.RLock()

    @cached_property
    def _held(self) -> defaultdict[str, list[EventLogEntry]]:
        return defaultdict(list)

    @abstractmethod
    def one_transaction(self, run_id: str) -> AbstractContextManager[sa.Connection]:
        """Begin one transaction that everything joins which this thread writes meanwhile."""

    def insert_events(
        self, index: sa.Connection, run_id: str, rows: list[dict[str, object]]
    ) -> Sequence[int]:
        """Insert rows of events; return their ids."""
        returning = _INSERT.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        return index.execute(returning, rows).scalars().all()

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, after those of its run that were held; hold a check's evaluation.

        One without a run has no step that it could be lost with, and is stored at once.
        """
        with self._holding:
            if event.run_id and event.dagster_event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
                self._held[event.run_id].append(event)
                if len(self._held[event.run_id]) >= EVENTS_AT_ONCE:
                    self._store_held(event.run_id)
                return
            self._store_held(event.run_id)
        super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction, after those of their run that were held."""
        with self._holding:
            for run_id in dict.fromkeys(event.run_id for event in events):
                self._store_held(run_id)
        if {event.dagster_event_type for event in events} <= BATCH_WRITABLE_EVENTS:
            self._store_together(events)
        else:
            super().store_event_batch(events)

    def _store_held(self, run_id: str) -> None:
        if held := self._held.pop(run_id, []):
            self._store_together(held)

    def _store_together(self, events: Sequence[EventLogEntry]) -> None:
        for run_id in dict.fromkeys(event.run_id for event in events):
            self._store_run(run_id, [event for event in events if event.run_id == run_id])

    def _store_run(self, run_id: str, events: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with self.one_transaction(run_id) as index:
            ids = self.insert_events(index, run_id, rows)
            found = list(zip(events, ids, strict=True))
            of_assets = [(e, n) for e, n in found if e.dagster_event_type in ASSET_EVENTS]
            self._store_asset_event_tags(
                index, [event for event, _ in of_assets], [event_id for _, event_id in of_assets]
            )
            # An asset's entry tells of its newest event of each kind alone.
            newest = {
                (row["asset_key"], event.dagster_event_type): (event, event_id)
                for row, (event, event_id) in zip(rows, found, strict=True)
                if event.dagster_event_type in ASSET_EVENTS
            }
            for event, event_id in newest.values():
                self._store_asset_event(index, event, event_id)
            for event, event_id in found:
                if event.dagster_event_type in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(event, event_id)


class BatchedSqliteEventLogStorage(BatchedEventLogStorage, SqliteEventLogStorage):
    """The event log in SQLite: a database per run, and an index over all of them."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._open = threading.local()
        super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]  # two databases at once

    @contextmanager
    def one_transaction(self, run_id: str) -> Iterator[sa.Connection]:
        """Begin one in the run's database and one in the index, where the events are mirrored."""
        with self.run_connection(run_id), self.index_connection() as index:
            yield index

    def insert_events(
        self, index: sa.Connection, run_id: str, rows: list[dict[str, object]]
    ) -> Sequence[int]:
        """Insert into both databases; return the ids of the index."""
        with self.run_connection(run_id) as run:
            run.execute(_INSERT, rows)
        return super().insert_events(index, run_id, rows)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        """Join this thread's transaction on a database, or open a connection and begin one.

        Dagster's own makes an engine each time, which costs more than what is asked of it.
        """
        opened: dict[str, sa.Connection] = self._open.__dict__
        if shard in opened:
            yield opened[shard]
            return
        with self._db_lock:
            engine = self._engine(shard)
            with engine.connect() as conn, conn.begin():
                opened[shard] = conn
                try:
                    yield conn
                finally:
                    del opened[shard]

    def dispose(self) -> None:
        """Close the connections that were kept, so that no database has a file beside it."""
        super().dispose()
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()

    def _initdb(self, engine: sa.Engine, for_index_shard: bool = False) -> None:
        """Make the tables that a database lacks; of a new run by a copy."""
        path = Path(engine.url.database or "")
        if for_index_shard or path.exists():
            if not _is_complete(engine):
                super()._initdb(engine, for_index_shard)
            return
        copy = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        copy.write_bytes(self._tables_of_a_run())
        try:
            os.link(copy, path)
        except OSError:  # another process was first, or the disk has no links
            super()._initdb(engine)
        finally:
            copy.unlink()

    def _tables_of_a_run(self) -> bytes:
        """Return the bytes of an empty run's database, made once for a version of Dagster."""
        kept = Path(self._base_dir) / f"empty-{dg_version}.sqlite"
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=self._base_dir) as folder:
                path = Path(folder) / "run.db"
                super()._initdb(sa.create_engine(f"sqlite:///{path}", poolclass=NullPool))
                path.replace(kept)
        return kept.read_bytes()

    def _engine(self, shard: str) -> sa.Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = sa.create_engine(
                self.conn_string_for_shard(shard),
                # Whoever closes the last connection of a database writes all of it to the disk and
                # waits for that three times: with one that stays open, a commit waits once.
                pool_size=1,
                max_overflow=-1,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        self._engines[shard] = engine
        while len(self._engines) > _ENGINES:
            self._engines.popitem(last=False)[1].dispose()
        return engine


def _is_complete(engine: sa.Engine) -> bool:
    """Tell whether a database has Dagster's tables: the revision is noted after they are made."""
    with engine.connect() as conn:
        return MigrationContext.configure(conn).get_current_revision() is not None


class BatchedSqliteStorage(DagsterSqliteStorage):
    """Dagster's storage in SQLite, with `BatchedSqliteEventLogStorage`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = BatchedSqliteEventLogStorage(_event_logs_directory(base_dir))


class BatchedPostgresEventLogStorage(BatchedEventLogStorage, PostgresEventLogStorage):
    """The event log in PostgreSQL: one table, and one connection a transaction."""

    def __init__(self, url: str) -> None:
        self._joined = threading.local()
        super().__init__(url, should_autocreate_tables=True)

    @contextmanager
    def one_transaction(self, run_id: str) -> Iterator[sa.Connection]:
        """Begin one on a connection of its own."""
        with super()._connect() as opened:
            conn = opened.execution_options(isolation_level="READ COMMITTED")
            with conn.begin():
                self._joined.connection = conn
                try:
                    yield conn
                finally:
                    del self._joined.connection

    def _connect(self) -> AbstractContextManager[sa.Connection]:
        joined: sa.Connection | None = getattr(self._joined, "connection", None)
        return super()._connect() if joined is None else nullcontext(joined)


class BatchedPostgresStorage(DagsterPostgresStorage):
    """Dagster's storage in PostgreSQL, with `BatchedPostgresEventLogStorage`."""

    def __init__(self, url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(url, should_autocreate_tables=True, inst_data=inst_data)
        self._event_log_storage = BatchedPostgresEventLogStorage(url)
