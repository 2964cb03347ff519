"""Opening a store: a folder of tables, and the state database beside them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import clocks
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.places.objects import place_of
from mlmon_dagster.store.state import database
from mlmon_dagster.store.tables.engine import Limits, QueryEngine

if TYPE_CHECKING:
    from mlmon_dagster.store.tables.delta import DeltaRows
    from mlmon_dagster.store.tables.event_log import EventLog
    from mlmon_dagster.store.tables.inference_records import InferenceRecords, RecordsLog
    from mlmon_dagster.store.tables.rows import Chosen, Rows


RESTORING: Final = ".restoring"  # a file that is in the folder while a restore fills it


class Store:
    """Everything that is kept.

    Attributes:
        root: Where the tables and the refused files are: a folder, or a prefix of a bucket.
        folder: The folder on this machine for staging copies and spilled queries; the root
            itself, if that is a folder.
        storage_options: How to reach object storage; landing files may be there too.
        state: The engine of the state database: ``begin()`` to write, ``connect()`` to read.
        queries: What runs SQL over the tables.
        open_in_place: Opens the tables that the rows of some models stay in; set by whoever knows
            how they are reached.
    """

    def __init__(
        self,
        root: Location,
        folder: Path,
        engine: sa.Engine,
        storage_options: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.root = root
        self.folder = folder
        self.storage_options = dict(storage_options or {})
        self.state = engine
        self.queries = QueryEngine(root, folder, limits or Limits())
        self.open_in_place: Callable[[Store, ModelSpec], RecordsLog] | None = None
        self.threads = self.queries.threads

    def clock(self) -> dt.datetime:
        """Return the real time by the clock that processes share, see `clocks.read_clock`."""
        return clocks.read_clock(self.state)

    def machine_clock(self) -> dt.datetime:
        """Return the real time by this machine's clock, which its files go by."""
        return clocks.machine_clock_of(self.state)()

    def query(self, sql: str, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """Run SQL on DuckDB, in this process, over files of the store and Arrow tables.

        Args:
            sql: One statement; the session's zone is UTC; nothing outside the store's folder
                can be read.
            tables: Arrow tables, seen under the names given.

        Raises:
            StoreError: If the statement fails.
        """
        return self.queries.query(sql, tables)

    def batches(
        self, sql: str, rows: int, tables: Mapping[str, pa.Table] | None = None
    ) -> Iterator[pa.Table]:
        """Run SQL as `query` does and yield its rows, at most so many at a time."""
        return self.queries.batches(sql, rows, tables)

    def event_log(self, spec: ModelSpec) -> EventLog:
        """Return the event log of a model."""
        from mlmon_dagster.store.tables.event_log import EventLog

        return EventLog(self.root, spec, self.queries)

    def records_log(self, spec: ModelSpec) -> RecordsLog:
        """Return what the records of a model are made from.

        Raises:
            ConfigError: If its rows stay where they are, and this store was opened alone.
        """
        if not spec.source.predictions.in_place:
            return self.event_log(spec)
        if self.open_in_place is None:
            raise ConfigError(
                f"The rows of {spec.model!r} are in tables of their own (in_place), which this "
                "process does not know how to reach. Open the project: read_project(...).store."
            )
        return self.open_in_place(self, spec)

    def inference_records(self, spec: ModelSpec, log: RecordsLog | None = None) -> InferenceRecords:
        """Return the inference records of a model, made from its log or from one at hand."""
        from mlmon_dagster.store.state import erased_ids
        from mlmon_dagster.store.tables.inference_records import InferenceRecords

        return InferenceRecords(
            self.root,
            spec,
            self.queries,
            log or self.records_log(spec),
            lambda: erased_ids.load_erased(self.state, spec.model),
        )

    def table(self, kind: str, model: str) -> DeltaRows:
        """Return a table of derived rows, such as ``profiles``, of a model."""
        from mlmon_dagster.store.tables.delta import DeltaRows

        return DeltaRows(self.root / kind / model, pa.schema([]), engine=self.queries)

    def records(self, model: str, **chosen: Unpack[Chosen]) -> Rows:
        """Choose inference records of a model, to be read by ``to_pandas`` or ``to_arrow``.

        Args:
            model: The model's name; no spec is needed.
            **chosen: Which: dataset, since, until and as_of, see `rows.Chosen`.

        Example:
            >>> import tempfile
            >>> store = open_store(tempfile.mkdtemp())
            >>> store.records("churn", dataset="production").head(5).limit
            5
        """
        from mlmon_dagster.store.tables.rows import rows_of

        return rows_of(self, "records", model, chosen)

    def predictions(self, model: str, **chosen: Unpack[Chosen]) -> Rows:
        """Choose logged predictions, as accepted; keywords as of `records`."""
        from mlmon_dagster.store.tables.rows import rows_of

        return rows_of(self, "predictions", model, chosen)

    def actuals(self, model: str, **chosen: Unpack[Chosen]) -> Rows:
        """Choose logged ground truth, as accepted; ``since`` goes by ``actual_time``."""
        from mlmon_dagster.store.tables.rows import rows_of

        return rows_of(self, "actuals", model, chosen)

    def spans(self, model: str, **chosen: Unpack[Chosen]) -> Rows:
        """Choose spans and log records of requests; ``since`` goes by when they began."""
        from mlmon_dagster.store.tables.rows import rows_of

        return rows_of(self, "spans", model, chosen)

    def close(self) -> None:
        """Close the connections of the state database."""
        self.state.dispose()


def refuse_half_restored(folder: Path) -> None:
    """Refuse a store that a restore was killed in.

    Raises:
        StoreError: If it was.
    """
    marker = folder / RESTORING
    if marker.exists():
        raise StoreError(
            f"The store in {folder} is half filled: a restore of "
            f"{marker.read_text().partition(' ')[2] or 'a backup'} was begun and not ended. Run "
            "mlmon restore with the same backup again, which goes on; or empty the store and its "
            "database, and restore another one. Until then nothing is read or computed, "
            "since work done meanwhile would be lost."
        )


def open_store(
    root: str | Path,
    db_url: str | None = None,
    *,
    is_restoring: bool = False,
    storage_options: Mapping[str, str] | None = None,
    folder: Path | None = None,
    limits: Limits | None = None,
    clock: clocks.Clock = clocks.read_machine_clock,
) -> Store:
    """Open a store, creating its folder and database and migrating them if needed.

    Args:
        root: Folder of the tables, or a URL of object storage such as ``s3://bucket/prefix``.
        db_url: The state database; by default SQLite, in the file ``state.db`` of the folder.
        is_restoring: Whether a store may be half filled, as for who restores it.
        storage_options: How to reach object storage, in deltalake's words, such as
            ``aws_endpoint_url``; for the tables and for landing files.
        folder: The folder on this machine that a root in object storage needs: staging copies,
            spilled queries and, without ``db_url``, the state.
        limits: What queries may take of this machine.
        clock: The machine's clock, see `clocks`.

    Raises:
        ConfigError: If the URL is not one of SQLite or PostgreSQL.
        StoreError: If the folder or the database cannot be used, or a restore was killed.
    """
    place = place_of(root, storage_options)
    if not place.is_local and folder is None:
        raise StoreError(
            f"The store {place} is in object storage: also name a folder on this machine for "
            "staging copies, as in open_store(root, db_url, folder=Path('work'))."
        )
    home = place.path if place.is_local or folder is None else folder.expanduser().absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The store's folder {home} cannot be made: {error}") from error
    if not is_restoring:
        refuse_half_restored(home)
    url = (
        URL.create("sqlite", database=str(home / "state.db"))
        if db_url is None
        else database.normalise_url(db_url)
    )
    return Store(place, home, database.connect(url, clock), storage_options, limits)
