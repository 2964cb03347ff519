"""The event log: predictions and actuals as accepted, append-only, each file exactly once."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literals
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.tables.columns import (
    PARTITION_BY,
    UNMATCHED,
    actual_schema,
    aliases_of,
    conform,
    prediction_schema,
    stream_schema,
    window_date,
)
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    Snapshot,
    in_partitions,
    retry,
    select_sql,
)
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.id_index import IdIndex, find_repeated
from mlmon_dagster.store.tables.part_files import (
    EVERY_ID,
    ROWS_AT_ONCE,
    Bucket,
    BucketRows,
    Digits,
    PartedRows,
    buckets,
    by_bucket,
)

# So many files a large date, that a bucket of a rebuild has files of its own; twice that is no use.
FEW_BUCKETS: Final = 16
MANY_BUCKETS: Final = 64
FEW_BUCKETS_ROWS: Final = 4_000_000
# Files written side by side. They share what is held of rows: with four times as many, each gets
# four times as many row groups, whose descriptions are in memory until the file is closed.
FILES_AT_ONCE: Final = 16
MOVED_IDS = pa.schema(
    [pa.field("prediction_id", pa.string()), pa.field("window_date", pa.string())]
)


class EventLog:
    """The log of one model: two Delta tables, partitioned by dataset and window date.

    A third table, ``moved_ids``, lists every prediction_id that has rows under more than one
    window date, with those dates. It is what lets a window be rebuilt from its own partitions:
    only for these few ids may another partition hold the winning row or the ground truth.
    """

    def __init__(self, root: Location, spec: ModelSpec, engine: QueryEngine) -> None:
        self._spec = spec
        self._engine = engine
        home = root / "event_log" / spec.model
        self._streams: dict[Stream, DeltaFolder] = {
            "predictions": DeltaFolder(
                home / "predictions", prediction_schema(spec), PARTITION_BY, aliases_of(spec)
            ),
            "actuals": DeltaFolder(home / "actuals", actual_schema(spec), PARTITION_BY),
        }
        self._moved = DeltaFolder(home / "moved_ids", MOVED_IDS)
        self._indexes = {s: IdIndex(spec.model, s, engine) for s in self._streams}

    def append(self, stream: Stream, rows: pa.Table | PartedRows, shas: Sequence[str]) -> bool:
        """Commit the rows of one or several files at once.

        Args:
            stream: ``predictions`` or ``actuals``.
            rows: Canonical rows; absent columns become null. Predictions need ``window_date``;
                actuals without that column are placed with their prediction.
            shas: Content hashes of the files. Rows of files already committed are left out,
                recognised by their ``file_sha``.

        Returns:
            False if every file was committed before, so that nothing was written.

        Raises:
            StoreError: If a column is unknown, has the wrong type, or a key is null.
        """
        given = PartedRows.of(rows) if isinstance(rows, pa.Table) else rows
        if stream == "actuals" and "window_date" not in given.schema.names:
            given = given.with_column("window_date", _at(self._dates_of_actuals(given)))
        return retry(lambda: self._append_once(stream, given, shas), f"Appending {stream}")

    def _append_once(self, stream: Stream, rows: PartedRows, shas: Sequence[str]) -> bool:
        snapshot = self._streams[stream].ensure()
        missing = [sha for sha in dict.fromkeys(shas) if not snapshot.has_transaction(sha)]
        if not missing:
            return False
        if len(missing) < len(set(shas)):
            kept = pc.is_in(rows.table(["file_sha"])["file_sha"], pa.array(missing))
            rows = rows.only(kept.to_numpy().astype(bool))
        if stream == "predictions":
            for _, mine in rows.by_id(self._engine, ["prediction_id", "window_date"]):
                self._note_moved(mine, snapshot)
        reached("append.moved_ids_noted")
        if rows.num_rows > ROWS_AT_ONCE:
            schema = stream_schema(self._spec, stream)
            snapshot.append_parts(self._in_passes(stream, rows), schema, missing)
        else:
            snapshot.append(self._conformed(stream, rows.table()), missing)
        reached("append.committed")
        return True

    def _conformed(self, stream: Stream, rows: pa.Table) -> pa.Table:
        """Return rows as the table has them."""
        if stream == "actuals":
            rows = _with_dataset(rows)
        rows = conform(rows, stream_schema(self._spec, stream), f"{self._spec.model}/{stream}")
        for name in ("prediction_id", "dataset", "window_date", "row_hash"):
            if rows.column(name).null_count:
                raise StoreError(f"Rows for {self._spec.model}/{stream} have a null {name!r}.")
        return rows

    def _in_passes(self, stream: Stream, rows: PartedRows) -> Iterator[Iterator[BucketRows]]:
        """Yield rows in passes over all of them, so that few files are written at a time.

        Those of large dates are divided by their ids, so that each bucket has files of its own.
        """
        counts: Counter[str | None] = Counter()
        for table in rows.tables(["window_date"]):
            for found in pc.value_counts(table["window_date"]).to_pylist():
                counts[found["values"]] += found["counts"]
        # Rows without a date are refused with the small ones.
        large = {date: n for date, n in counts.items() if date and n > ROWS_AT_ONCE}
        files = [(date, bucket) for date, n in large.items() for bucket in _buckets_of(n)]
        if len(large) < len(counts):
            yield self._small(stream, rows, pa.array(large, pa.string()))
        digits = rows.digits(self._engine) if large else np.zeros(0, np.uint8)
        for first in range(0, len(files), FILES_AT_ONCE):
            by_date: dict[str, list[Bucket]] = {}
            for date, bucket in files[first : first + FILES_AT_ONCE]:
                by_date.setdefault(date, []).append(bucket)
            yield self._large(stream, rows, digits, by_date)

    def _small(self, stream: Stream, rows: PartedRows, large: pa.Array) -> Iterator[BucketRows]:
        """Yield the rows of all dates but the large ones."""
        for table in rows.tables():
            mine = table
            if len(large):
                mine = table.filter(pc.invert(pc.is_in(table["window_date"], large)))
            yield BucketRows(EVERY_ID, self._conformed(stream, mine))

    def _large(
        self, stream: Stream, rows: PartedRows, digits: Digits, files: Mapping[str, list[Bucket]]
    ) -> Iterator[BucketRows]:
        """Yield the rows of some dates that are in some neighbouring buckets."""
        start = 0
        for table in rows.tables():
            of_table = digits[start : start + table.num_rows]
            start += table.num_rows
            for date, among in files.items():
                is_mine = pc.equal(table["window_date"], date).to_numpy().astype(bool)
                first, last = among[0].two_digits[0], among[-1].two_digits[1]
                is_mine &= (of_table >= first) & (of_table <= last)
                if is_mine.any():
                    mine = self._conformed(stream, table.filter(pa.array(is_mine)))
                    yield from by_bucket(mine, of_table[is_mine], among)

    def place(self, rows: pa.Table) -> pa.Table:
        """Give actuals the window date of their prediction, and a dataset that is never null."""
        rows = _with_dataset(rows)
        if "window_date" in rows.column_names:
            return rows
        dates = self._dates_of_actuals(PartedRows.of(rows))
        return rows.append_column("window_date", _at(dates)(0, rows.num_rows))

    def _dates_of_actuals(self, rows: PartedRows) -> pa.DictionaryArray:
        """Find the window date of each actual's prediction, two bytes an actual."""
        names: dict[str, int] = {}
        codes = np.zeros(rows.num_rows, np.uint16)  # of days, 65,536 are 180 years
        columns = [name for name in ("prediction_id", "dataset") if name in rows.schema.names]
        for positions, found in rows.by_id(self._engine, columns):
            mine = _with_dataset(found)
            placed = self._engine.query(
                f"""SELECT r.i, COALESCE(p.window_date, '{UNMATCHED}') AS window_date
                FROM incoming AS r LEFT JOIN (
                    SELECT prediction_id, dataset, MIN(window_date) AS window_date
                    FROM (SELECT prediction_id, window_date, UNNEST([dataset, '{ALL}']) AS dataset
                          FROM matches)
                    GROUP BY prediction_id, dataset
                ) AS p USING (prediction_id, dataset)""",
                {
                    "incoming": mine.append_column("i", pa.array(positions)),
                    "matches": self.windows_of_actuals(mine),
                },
            )
            dates = placed["window_date"].combine_chunks().dictionary_encode()
            known = [names.setdefault(name, len(names)) for name in dates.dictionary.to_pylist()]
            codes[placed["i"].to_numpy()] = np.array(known, np.uint16)[dates.indices.to_numpy()]
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(names), pa.string()))

    def _note_moved(self, rows: pa.Table, snapshot: Snapshot) -> None:
        columns = ["prediction_id", "window_date"]
        source, asked = self._rows_of("predictions", snapshot, rows, columns)
        known = self._engine.query(f"SELECT DISTINCT * FROM {source}", {"ids": asked})
        if not (mask := find_repeated(rows, known)).any():
            return
        pairs = self._engine.query(
            """WITH pairs AS (SELECT * FROM incoming UNION SELECT * FROM known)
            SELECT prediction_id, window_date FROM pairs WHERE prediction_id IN (
                SELECT prediction_id FROM pairs GROUP BY prediction_id HAVING COUNT(*) > 1
            )""",
            {"incoming": rows.select(columns).filter(pa.array(mask)), "known": known},
        )
        if pairs.num_rows:
            retry(lambda: self._moved.ensure().append(pairs), "Noting moved ids")

    def committed(self, stream: Stream, shas: Sequence[str]) -> set[str]:
        """Return those of the content hashes whose files were committed."""
        snapshot = self._streams[stream].snapshot()
        return set() if snapshot is None else {s for s in shas if snapshot.has_transaction(s)}

    def rows(
        self,
        stream: Stream,
        columns: Sequence[str] | None = None,
        windows: Sequence[Window] | None = None,
        shas: Sequence[str] | None = None,
    ) -> pa.Table:
        """Read rows of the log as they were appended, in no particular order.

        Args:
            stream: ``predictions`` or ``actuals``.
            columns: Columns wanted; all by default.
            windows: Predictions of these windows only; for actuals, those that were stored with
                the window's date (of all of a day's hours, where windows are hours).
            shas: Rows of these files only.
        """
        conditions = []
        if shas is not None:
            conditions.append(f"file_sha IN ({literals(shas)})")
        if windows is not None and stream == "predictions":
            conditions.append(f"window_start IN ({literals(w.start for w in windows)})")
        dates = None if windows is None else {window_date(w) for w in windows}
        return self._engine.query(
            "SELECT * FROM " + self._sql(stream, columns, dates, " AND ".join(conditions) or None)
        )

    def window_starts(self, dataset: str) -> list[dt.datetime]:
        """Return the windows that predictions of a dataset are in, by their start, in order."""
        snapshot = self._streams["predictions"].snapshot()
        if snapshot is None:
            return []
        source = snapshot.from_sql(["window_start"], lambda p: p["dataset"] == dataset)
        found = self._engine.query(f"SELECT DISTINCT window_start FROM {source} ORDER BY ALL")
        starts: list[dt.datetime] = found["window_start"].to_pylist()
        return starts

    def _sql(
        self,
        stream: Stream,
        columns: Sequence[str] | None,
        dates: set[str] | None = None,
        where: str | None = None,
    ) -> str:
        snapshot = self._streams[stream].snapshot()
        if snapshot is None:
            return select_sql([], stream_schema(self._spec, stream), columns, where)
        return snapshot.from_sql(columns, in_partitions(dates), where)

    def known_ids(self, stream: Stream, ids: pa.Table, excluding: Sequence[str] = ()) -> pa.Table:
        """Look ids up in the whole log, to tell new rows from duplicates and conflicts.

        Args:
            stream: ``predictions`` or ``actuals``.
            ids: A table with a column ``prediction_id``; others are ignored.
            excluding: Content hashes of files whose rows are left out.

        Returns:
            The distinct prediction_id, dataset, row_hash, window_date (and window_start, for
            predictions, or actual_time, ingested_at and row_number, for actuals) of every row of
            those ids in the log; no rows if none is known.
        """
        columns = ["prediction_id", "dataset", "row_hash", "window_date"]
        times = ["actual_time", "ingested_at", "row_number"]
        columns += ["window_start"] if stream == "predictions" else times
        others = f"file_sha NOT IN ({literals(excluding)})" if excluding else None
        snapshot = self._streams[stream].snapshot()
        source, asked = self._rows_of(stream, snapshot, ids, columns, others)
        return self._engine.query(f"SELECT DISTINCT * FROM {source}", {"ids": asked})

    def _rows_of(
        self,
        stream: Stream,
        snapshot: Snapshot | None,
        ids: pa.Table,
        columns: Sequence[str],
        where: str | None = None,
    ) -> tuple[str, pa.Table]:
        """Return the rows of some ids as a subquery, and the table ``ids`` that it refers to."""
        is_asked = "prediction_id IN (SELECT prediction_id FROM ids)"
        condition = is_asked if where is None else f"{where} AND {is_asked}"
        if snapshot is None:
            schema = stream_schema(self._spec, stream)
            return select_sql([], schema, columns, condition), ids.select(["prediction_id"])
        found = self._indexes[stream].candidates(snapshot, ids)
        schema = snapshot.schema
        sql = select_sql(found.files, schema, columns, condition, snapshot.aliases)
        return sql, found.ids

    def windows_of_actuals(self, rows: pa.Table) -> pa.Table:
        """Find the windows that hold the predictions of some actuals.

        Args:
            rows: A table with the columns prediction_id and dataset (text); a dataset that is
                null or ``all`` stands for every dataset.

        Returns:
            The distinct prediction_id, dataset (of the prediction), window_start, window_date;
            ids without a prediction are absent. A prediction that was logged differently for
            several windows has all of them.
        """
        columns = ["prediction_id", "dataset", "window_start", "window_date"]
        asked = _with_dataset(rows).select(columns[:2])
        snapshot = self._streams["predictions"].snapshot()
        source, ids = self._rows_of("predictions", snapshot, asked, columns)
        return self._engine.query(
            f"""WITH asked AS (SELECT DISTINCT * FROM incoming)
            SELECT DISTINCT p.* FROM {source} AS p
            JOIN asked AS a ON a.prediction_id = p.prediction_id
                AND (a.dataset = p.dataset OR a.dataset = '{ALL}')""",
            {"incoming": asked, "ids": ids},
        )

    @property
    def folders(self) -> dict[str, DeltaFolder]:
        """The three tables by name: predictions, actuals and moved_ids."""
        return {**{str(name): f for name, f in self._streams.items()}, "moved_ids": self._moved}

    def pinned(self) -> PinnedLog:
        """Pin the newest version of all three tables, for reading one consistent state."""
        # In this order: a moved id is noted before its row is committed, so every move that the
        # pinned rows took part in is seen.
        predictions = self._streams["predictions"].snapshot()
        actuals = self._streams["actuals"].snapshot()
        return PinnedLog(self._spec, predictions, actuals, self._moved.snapshot())


def _buckets_of(n_rows: int) -> list[Bucket]:
    """Divide the ids of a large date, so that a rebuild reads a part of it as one file or two."""
    most = FEW_BUCKETS if n_rows <= FEW_BUCKETS_ROWS else MANY_BUCKETS
    return buckets(min(2 * n_rows // ROWS_AT_ONCE, most))


def _with_dataset(rows: pa.Table) -> pa.Table:
    """Return actuals whose dataset is never null."""
    if "dataset" not in rows.column_names:
        return rows.append_column("dataset", pa.repeat(ALL, rows.num_rows))
    place = rows.schema.get_field_index("dataset")
    return rows.set_column(place, "dataset", pc.fill_null(rows["dataset"], ALL))


def _at(values: pa.DictionaryArray) -> Callable[[int, int], pa.Array]:
    return lambda start, end: values.slice(start, end - start).dictionary_decode()


class PinnedLog:
    """One state of the log, as subqueries for rebuilding windows."""

    rows_at_once = ROWS_AT_ONCE

    def __init__(
        self,
        spec: ModelSpec,
        predictions: Snapshot | None,
        actuals: Snapshot | None,
        moved: Snapshot | None,
    ) -> None:
        self._snapshots = {"predictions": predictions, "actuals": actuals}
        self._spec = spec
        self.moved = moved

    def count_rows(self, dates: set[str]) -> dict[str, int]:
        """Return the number of logged predictions of each window date, duplicates included."""
        counts = dict.fromkeys(sorted(dates), 0)
        snapshot = self._snapshots["predictions"]
        for file in () if snapshot is None else snapshot.files:
            if file.partition["window_date"] in counts:
                counts[file.partition["window_date"]] += file.n_rows
        return counts

    def moved_sql(self) -> str | None:
        """Return all (prediction_id, window_date) of moved ids as a subquery; None if none."""
        return None if self.moved is None else self.moved.from_sql()

    def tables(self, _group: object) -> dict[str, pa.Table]:
        """Return none: all subqueries name files."""
        return {}

    arrival_tables = tables

    def sql(
        self,
        stream: Stream,
        columns: Sequence[str],
        dates: set[str],
        datasets: set[str] | None = None,
        bucket: Bucket = EVERY_ID,
    ) -> str:
        """Return the rows of some window dates (datasets, ids of a bucket) as a subquery."""
        snapshot = self._snapshots[stream]
        if snapshot is None:
            return select_sql([], stream_schema(self._spec, stream), columns, None)
        return snapshot.from_sql(columns, in_partitions(dates, datasets), bucket=bucket)
