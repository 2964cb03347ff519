"""Rows of any derived table, replaced window by window; profiles are kept in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literals, quote_identifier
from mlmon_dagster.store.tables.delta import DeltaFolder, Partition, Snapshot, retry
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.event_log import window_date


class DeltaRows:
    """One Delta table of derived rows; partitioned by ``window_date`` if the rows have it."""

    def __init__(self, path: Location, engine: QueryEngine) -> None:
        self._path = path
        self._engine = engine

    @property
    def folder(self) -> DeltaFolder:
        """The table, with whatever columns it has."""
        return DeltaFolder(self._path, pa.schema([]))

    def replace(
        self, rows: pa.Table, windows: Sequence[Window] | None, predicate: str = ""
    ) -> None:
        """Replace rows in one commit.

        Args:
            rows: What to store; columns new to the table are added to it.
            windows: Windows to replace, recognised by the rows' ``window_date`` (and by
                ``window_start`` where windows are hours). None for all; no windows, no change.
            predicate: A further SQL condition on what is replaced, such as ``kind = 'numeric'``;
                one on partition columns is fastest.

        Raises:
            StoreError: If rows are outside of what is to be replaced, or types do not fit.
        """
        if windows is not None and not windows:
            return
        conditions = [predicate] if predicate else []
        if windows is not None:
            conditions.append(
                f"window_date IN ({literals(sorted({window_date(w) for w in windows}))})"
            )
            if any(len(window.key) > len(window_date(window)) for window in windows):
                starts = ", ".join(f"'{w.start:%Y-%m-%dT%H:%M:%SZ}'" for w in windows)
                conditions.append(f"window_start IN ({starts})")
        where = " AND ".join(f"({condition})" for condition in conditions) or "TRUE"
        partition_by = ("window_date",) if "window_date" in rows.column_names else ()
        folder = DeltaFolder(self._path, rows.schema, partition_by)
        retry(lambda: folder.ensure().overwrite(rows, where), f"Writing {self._path.name}")

    def read(
        self,
        columns: Sequence[str] | None = None,
        where: str | None = None,
        keep: Callable[[Partition], bool] | None = None,
    ) -> pa.Table:
        """Read rows, in no particular order; no rows and no columns if nothing was written.

        Args:
            columns: All by default; one that the table has not got is an error.
            where: A SQL condition.
            keep: Which partitions to look into, all by default; the files of others stay closed.
        """
        snapshot = self.snapshot()
        if snapshot is None:
            return pa.table({})
        names = "*" if columns is None else ", ".join(map(quote_identifier, columns))
        return self._engine.query(f"SELECT {names} FROM {snapshot.from_sql(None, keep, where)}")

    def snapshot(self) -> Snapshot | None:
        """Pin the newest version; None if nothing was written."""
        return DeltaFolder(self._path, pa.schema([])).snapshot()
