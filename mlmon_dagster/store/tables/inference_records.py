"""The inference records: one row per prediction, ground truth joined, rebuilt from the log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.baseline import LIVE, PRODUCTION
from mlmon_dagster.spec.evaluations import error_column, list_texts
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.sql import literals, quote_identifier
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.tables import spans
from mlmon_dagster.store.tables.columns import (
    PARTITION_BY,
    UNMATCHED,
    aliases_of,
    by_date,
    list_outcomes,
    record_schema,
    span_fields,
    window_date,
)
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    Snapshot,
    in_partitions,
    retry,
    select_sql,
)
from mlmon_dagster.store.tables.derived_columns import with_derived
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import (
    EVERY_ID,
    Bucket,
    BucketRows,
    buckets,
)

_DATES_PER_COMMIT = 30
_ACTUAL_COLUMNS = (
    "prediction_id",
    "dataset",
    "actual",
    "actual_time",
    "deleted",
    "row_hash",
    "ingested_at",
    "row_number",
)
_BY_TIME = "k.actual_time DESC NULLS LAST, k.row_hash DESC"
_BY_ARRIVAL = "k.ingested_at DESC, k.row_number DESC, k.row_hash DESC"
_JOINED = ("actual", "actual_time", "actual_row_hash")


@dataclass(frozen=True)
class WindowCounts:
    """What one window of one dataset holds after a rebuild.

    Attributes:
        window_start: UTC.
        dataset: The dataset counted.
        n: Records.
        n_actual: Records whose ground truth is known.
        n_conflict: Records for which several different prediction rows were logged.
        first_event_time: Time of the first event, UTC; None without records.
        last_event_time: Time of the last one.
        data_version: Fingerprint of the records; equal for equal records, whatever the order,
            repetition or file layout of the log they were rebuilt from.
    """

    window_start: datetime
    dataset: str
    n: int
    n_actual: int
    data_version: str
    n_conflict: int
    first_event_time: datetime | None = None
    last_event_time: datetime | None = None


# Few of a part's rows are in memory at a time; each part costs what it takes to begin one.
ROWS_A_PART: Final = 1_000_000


class Parts(NamedTuple):
    """Records in parts, each a subquery to stand after FROM, and how many rows their files have."""

    sources: list[str]
    n_rows: int


class PinnedRecords(Protocol):
    """One state of the rows that records are made from, as subqueries.

    Attributes:
        rows_at_once: So many predictions are made into records together.
    """

    rows_at_once: int

    def count_rows(self, dates: set[str]) -> dict[str, int]:
        """Return the number of predictions of each window date, duplicates included."""

    def moved_sql(self) -> str | None:
        """Return all (prediction_id, window_date) of moved ids as a subquery; None if none."""

    def tables(self, group: Group) -> dict[str, pa.Table]:
        """Return the tables in memory that the subqueries of some dates refer to."""

    def arrival_tables(self, group: Group) -> dict[str, pa.Table]:
        """Return those of them that tell when ground truth came."""

    def sql(
        self,
        stream: Stream,
        columns: Sequence[str],
        dates: set[str],
        datasets: set[str] | None = None,
        bucket: Bucket = EVERY_ID,
    ) -> str:
        """Return the rows of some window dates (datasets, ids of a bucket) as a subquery."""


class RecordsLog(Protocol):
    """What records are made from: the event log, or the tables that rows stay in."""

    def pinned(self) -> PinnedRecords:
        """Pin one consistent state."""

    def window_starts(self, dataset: str) -> list[datetime]:
        """Return the windows that predictions of a dataset are in, by their start, in order."""


class InferenceRecords:
    """The records of one model: a Delta table, partitioned by dataset and window date."""

    def __init__(
        self,
        root: Location,
        spec: ModelSpec,
        engine: QueryEngine,
        log: RecordsLog,
        erased: Callable[[], Erased],
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._log = log
        self._erased = erased
        self._schema = record_schema(spec)
        of_spans = {field.name for field in span_fields(spec)}
        self._logged = pa.schema([f for f in self._schema if f.name not in of_spans])
        self._spans = spans.folder_of(root, spec.model)
        self._folder = DeltaFolder(
            root / "inference_records" / spec.model, self._schema, PARTITION_BY, aliases_of(spec)
        )

    @property
    def folder(self) -> DeltaFolder:
        """The table."""
        return self._folder

    @property
    def log(self) -> RecordsLog:
        """What records are made from."""
        return self._log

    def rebuild(
        self, windows: Sequence[Window], datasets: Sequence[str] | None = None
    ) -> list[WindowCounts]:
        """Recompute windows from the log and replace them, whole dates at a time.

        A pure function of the log and of the erasures. Windows of one local date are replaced
        together, so that a commit replaces whole partitions; many dates take several commits,
        since every partition being written has buffers of its own. Killed in between, some windows
        are new and the others as they were.

        Args:
            windows: Windows of the model's granularity; none at all is fine.
            datasets: Only these; by default whatever datasets the windows have.

        Returns:
            One row per window and dataset, ordered; a window without records is listed with
            n = 0 for ``production``, or for each of ``datasets``.

        Raises:
            StoreError: If other writers kept getting in the way.
        """
        if not windows:
            return []
        counts: list[WindowCounts] = []
        for part in _parts(windows):
            counts += retry(partial(self._rebuild_once, part, datasets), "Rebuilding records")
        return sorted(counts, key=lambda c: (c.window_start, c.dataset))

    def _rebuild_once(
        self, windows: Sequence[Window], datasets: Sequence[str] | None
    ) -> list[WindowCounts]:
        dates = {window_date(window) for window in windows}
        wanted = None if datasets is None else set(datasets)
        # Pinned before the log is read: whoever commits records after this point makes our
        # commit fail, so a rebuild from older rows can never replace one from newer rows.
        target = self._folder.ensure()
        log = self._log.pinned()
        counted: list[pa.Table] = []

        def computed() -> Iterator[pa.Table]:
            for group in groups_of(log.count_rows(dates), log.rows_at_once):
                records = self._compute(log, group, wanted)
                counted.append(self._count(records))
                yield records
                del records  # before the next are made
            reached("rebuild.computed")

        self._replace(target, computed(), dates, wanted)
        reached("rebuild.committed")
        return _complete(self._add_up(counted), windows, datasets)

    def _replace(
        self,
        target: Snapshot,
        tables: Iterator[pa.Table],
        dates: set[str],
        datasets: set[str] | None,
    ) -> None:
        first = next(tables)
        second = next(tables, None)
        is_theirs = in_partitions(dates, datasets)
        was_there = any(is_theirs(file.partition) for file in target.files)
        if second is None and not first.num_rows and not was_there:
            return  # nothing was there, nothing is: no commit
        where = {"window_date": dates} | ({} if datasets is None else {"dataset": datasets})
        if second is None:
            named = [f"{key} IN ({literals(sorted(values))})" for key, values in where.items()]
            target.overwrite(first, " AND ".join(named))
            return
        parts = map(partial(BucketRows, EVERY_ID), chain([first, second], tables))
        del first, second  # so that each part is let go once it is written
        target.replace_partitions(parts, self._schema, where)

    def _compute(self, log: PinnedRecords, group: Group, datasets: set[str] | None) -> pa.Table:
        other_dates, tables = self._moved(log, group.dates)
        tables |= log.tables(group)
        erased = self._erased()
        if erased:
            tables["erased"] = erased.hashes
        by_arrival = self._spec.columns.actual_time is None
        sql = records_sql(
            self._logged, log, group.dates, other_dates, datasets, erased, group.bucket,
            by_arrival=by_arrival, outcomes=_columns_beside(self._spec),
            by_column=tuple(self._spec.evaluations),
        )  # fmt: skip
        records = self._engine.query(sql, tables).cast(self._logged)
        if self._spec.spans is None:
            return records
        source = spans.from_sql(self._spans, self._spec, group.dates)
        joined = self._engine.query(spans.join_sql(self._spec, source), {"records": records})
        return joined.cast(self._schema)

    def _moved(self, log: PinnedRecords, dates: set[str]) -> tuple[set[str], dict[str, pa.Table]]:
        """Find the ids that have rows both on these dates and elsewhere, and where."""
        source = log.moved_sql()
        if source is None:
            return set(), {}
        pairs = self._engine.query(
            f"""WITH moved AS MATERIALIZED (SELECT DISTINCT * FROM {source})
            SELECT * FROM moved WHERE prediction_id IN (
                SELECT prediction_id FROM moved WHERE window_date IN ({literals(sorted(dates))})
            )"""
        )
        other_dates = set(pairs.column("window_date").to_pylist()) - dates
        if not other_dates:
            return set(), {}
        return other_dates, {"moved": pairs.select(["prediction_id"])}

    def _count(self, records: pa.Table) -> pa.Table:
        """Count and fingerprint records by window and dataset."""
        joined = [field.name for field in span_fields(self._spec)]
        if self._spec.spans is not None and self._spec.spans.version is not None:
            joined.append("model_version")
        return self._engine.query(fingerprint_sql(joined), {"records": records})

    def _add_up(self, counted: Sequence[pa.Table]) -> list[WindowCounts]:
        """Return the counts of windows and datasets, in whatever parts their records came."""
        found = self._engine.query(_ADD_UP, {"counted": pa.concat_tables(counted)})
        return [
            WindowCounts(
                row["window_start"].astimezone(UTC),
                row["dataset"],
                row["n"],
                row["n_actual"],
                _digest(row["n"], row["total"], row["parity"]),
                row["n_conflict"],
                row["first_event_time"].astimezone(UTC),
                row["last_event_time"].astimezone(UTC),
            )
            for row in found.to_pylist()
        ]

    def read(
        self,
        windows: Sequence[Window] | None = None,
        datasets: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> pa.Table:
        """Read records, in no particular order.

        Args:
            windows: All by default.
            datasets: All by default.
            columns: All by default.
            limit: At most so many rows.
        """
        names = "*" if columns is None else ", ".join(f'"{c}"' for c in columns)
        tail = "" if limit is None else f" LIMIT {int(limit)}"
        return self._engine.query(f"SELECT {names} FROM {self.from_sql(windows, datasets)}{tail}")

    def from_sql(
        self,
        windows: Sequence[Window] | None = None,
        datasets: Sequence[str] | None = None,
        version: int | None = None,
    ) -> str:
        """Return a subquery over one pinned version, to stand after FROM in ``Store.query``.

        It has the derived columns beside the stored ones; those that nobody reads cost nothing.
        The text names files, so use it soon: files of a replaced version are removed after the
        retention time.

        Args:
            windows: All by default.
            datasets: All by default.
            version: An earlier version of the table, see `version_with`.
        """
        return with_derived(self._spec, self.stored_sql(windows, datasets, version))

    def stored_sql(
        self,
        windows: Sequence[Window] | None = None,
        datasets: Sequence[str] | None = None,
        version: int | None = None,
    ) -> str:
        """Return what `from_sql` does with the stored columns alone."""
        dates = None if windows is None else {window_date(window) for window in windows}
        snapshot = self._folder.snapshot() if version is None else self._folder.earlier(version)
        where = self._where(windows)
        if snapshot is None:
            return select_sql([], self._schema, None, where)
        return snapshot.from_sql(None, in_partitions(dates, datasets), where)

    def parts(self, windows: Sequence[Window], datasets: Sequence[str]) -> Parts:
        """Divide what `from_sql` returns into subqueries of a million rows or so, whole files each.

        Of fewer where the spec asks for it (`compute.at_least`).

        Args:
            windows: Whose records are wanted.
            datasets: Only these.
        """
        is_theirs = in_partitions({window_date(window) for window in windows}, datasets)
        snapshot, where = self._folder.snapshot(), self._where(windows)
        if snapshot is None:
            return Parts([with_derived(self._spec, select_sql([], self._schema, None, where))], 0)
        files = [file for file in snapshot.files if is_theirs(file.partition)]
        groups: list[list[str]] = [[]]
        n_rows, most = 0, min(ROWS_A_PART, self._spec.compute.at_least)
        for file in sorted(files, key=lambda f: (f.partition["window_date"], f.path)):
            if groups[-1] and n_rows + file.n_rows > most:
                groups.append([])
                n_rows = 0
            groups[-1].append(file.path)
            n_rows += file.n_rows
        stored = [
            select_sql(group, snapshot.schema, None, where, snapshot.aliases) for group in groups
        ]
        sources = [with_derived(self._spec, source) for source in stored]
        return Parts(sources, sum(file.n_rows for file in files))

    def _where(self, windows: Sequence[Window] | None) -> str | None:
        # Dates pick whole partitions; only hours share one.
        if windows is None or self._spec.time.granularity != "hour":
            return None
        return f"window_start IN ({literals(window.start for window in windows)})"

    def version_with(self, window: Window, data_version: str) -> int | None:
        """Return the newest version of the table in which a window's records have a fingerprint.

        Args:
            window: The window.
            data_version: As `version_of` returns it.

        Returns:
            None if no version that is kept has such records.
        """
        newest, seen = self._folder.snapshot(), set[frozenset[str]]()
        date = window_date(window)
        for version in range(newest.version if newest else -1, -1, -1):
            snapshot = self._folder.earlier(version)
            if snapshot is None:
                return None  # older commits are gone as well
            mine = frozenset(f.path for f in snapshot.files if f.partition["window_date"] == date)
            if mine in seen:
                continue
            seen.add(mine)
            try:
                rows = self._engine.query(
                    f"SELECT * FROM {self.stored_sql([window], version=version)}"
                )
            except StoreError:
                return None  # files of versions as old were deleted
            found = self._add_up([self._count(rows)])
            counts = {c.dataset: c for c in found if c.window_start == window.start}
            if counts and version_of(counts) == data_version:
                return version
        return None


def version_of(counts: Mapping[str, WindowCounts]) -> str:
    """Return one fingerprint of a window's live records; that of production alone, if it is."""
    live = {name: count for name, count in counts.items() if name in LIVE}
    if set(live) == {PRODUCTION}:
        return live[PRODUCTION].data_version
    listed = [f"{name}:{live[name].data_version}" for name in sorted(live)]
    return hashlib.sha256("|".join(listed).encode()).hexdigest()[:32]


def _parts(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Split windows into parts of at most ``_DATES_PER_COMMIT`` whole local dates, in order."""
    dates = list(by_date(sorted(windows)).values())
    for start in range(0, len(dates), _DATES_PER_COMMIT):
        yield [w for date in dates[start : start + _DATES_PER_COMMIT] for w in date]


class Group(NamedTuple):
    """Records that are in memory together: those of some window dates, or of one in part."""

    dates: set[str]
    bucket: Bucket


def groups_of(counts: Mapping[str, int], at_once: int) -> Iterator[Group]:
    """Divide window dates into groups of roughly so many logged rows each.

    Args:
        counts: The rows of each date. One that has more is divided into buckets of its ids.
        at_once: How many rows.
    """
    dates: set[str] = set()
    n_rows = 0
    for date, n in counts.items():
        if n > at_once:
            for bucket in buckets(-(-n // at_once)):
                yield Group({date}, bucket)
            continue
        if dates and n_rows + n > at_once:
            yield Group(dates, EVERY_ID)
            dates, n_rows = set(), 0
        dates.add(date)
        n_rows += n
    if dates:
        yield Group(dates, EVERY_ID)


def _complete(
    counts: Sequence[WindowCounts], windows: Sequence[Window], datasets: Sequence[str] | None
) -> list[WindowCounts]:
    """Keep the windows asked for and add those without records."""
    starts = {window.start for window in windows}
    found = {(c.window_start, c.dataset): c for c in counts if c.window_start in starts}
    empty = _digest(0, "0", "0")
    for start in starts:
        for dataset in (PRODUCTION,) if datasets is None else datasets:
            found.setdefault(
                (start, dataset), WindowCounts(start, dataset, 0, 0, empty, n_conflict=0)
            )
    return [found[key] for key in sorted(found)]


def _digest(n: int, total: str, parity: str) -> str:
    return hashlib.sha256(f"{n}:{total}:{parity}".encode()).hexdigest()[:32]


def records_sql(
    schema: pa.Schema,
    log: PinnedRecords,
    dates: set[str],
    other_dates: set[str],
    datasets: set[str] | None,
    erased: Erased,
    bucket: Bucket = EVERY_ID,
    *,
    by_arrival: bool = False,
    outcomes: tuple[str, ...] = (),
    by_column: tuple[str, ...] = (),
) -> str:
    """Return the statement that computes the records of some window dates.

    The winner of several prediction rows with one dataset and prediction_id is the one with the
    smallest (event_time, row_hash); the newest ground truth is the one with the largest
    (actual_time, row_hash), or the one that arrived last where it has no time. Both are found
    among all rows of an id, wherever they lie: an id with rows on ``other_dates`` too is in the
    table ``moved``.

    Args:
        schema: Columns of the records.
        log: The pinned event log.
        dates: Window dates whose records are wanted.
        other_dates: Further dates on which ids of the table ``moved`` have rows.
        datasets: Only these; None for all.
        erased: Ids that must not be seen again; if any, their hashes are the table ``erased``.
        bucket: Only records of ids inside.
        by_arrival: Ground truth has no time of its own.
        outcomes: Columns that come with the ground truth.
        by_column: Those that come in rows of their own, each with its newest; see `_fold_columns`.
    """
    joined, of_actuals = (*_JOINED, *outcomes), (*_ACTUAL_COLUMNS, *outcomes)
    known = "".join(f"k.{quote_identifier(name)}, " for name in outcomes)
    columns = [name for name in schema.names if name not in (*joined, "n_prediction_rows")]
    selected = ", ".join(
        f"{'a' if name in joined else 'w'}.{quote_identifier(name)}" for name in schema.names
    )
    predictions = log.sql("predictions", columns, dates, datasets, bucket)
    actuals = log.sql("actuals", of_actuals, dates | {UNMATCHED}, bucket=bucket)
    if other_dates:
        semi_join = "WHERE prediction_id IN (SELECT prediction_id FROM moved)"
        elsewhere = log.sql("predictions", columns, other_dates, datasets, bucket)
        predictions = f"({predictions[1:-1]} UNION ALL SELECT * FROM {elsewhere} {semi_join})"
        elsewhere = log.sql("actuals", of_actuals, other_dates, bucket=bucket)
        actuals = f"({actuals[1:-1]} UNION ALL SELECT * FROM {elsewhere} {semi_join})"
    on_dates = ", ".join(f"'{date}'" for date in sorted(dates))
    of_winners = f"""FROM {actuals} AS k
        JOIN winners AS w ON w.prediction_id = k.prediction_id
            AND (k.dataset = '{ALL}' OR k.dataset = w.dataset)"""
    newest = f"""SELECT w.dataset, w.prediction_id, k.actual, k.actual_time, {known}k.deleted,
            k.row_hash AS actual_row_hash
        {of_winners}
        QUALIFY ROW_NUMBER() OVER (PARTITION BY w.dataset, w.prediction_id
            ORDER BY {_BY_ARRIVAL if by_arrival else _BY_TIME}) = 1"""
    if by_column:
        newest = f"{_fold_columns(by_column)} {of_winners} GROUP BY w.dataset, w.prediction_id"
    not_erased = f"AND NOT {erased.matches_sql('l')}" if erased else ""
    return f"""WITH logged AS MATERIALIZED (SELECT * FROM {predictions}),
    repeated AS MATERIALIZED (
        SELECT dataset, prediction_id, COUNT(DISTINCT row_hash) AS n_prediction_rows FROM logged
        WHERE prediction_id IN (
            SELECT prediction_id FROM logged GROUP BY prediction_id HAVING COUNT(*) > 1)
        GROUP BY dataset, prediction_id
    ),
    winners AS MATERIALIZED (
        SELECT l.*, 1::BIGINT AS n_prediction_rows FROM logged AS l
        WHERE prediction_id NOT IN (SELECT prediction_id FROM repeated) {not_erased}
        UNION ALL
        SELECT l.*, r.n_prediction_rows FROM logged AS l
        JOIN repeated AS r ON r.dataset = l.dataset AND r.prediction_id = l.prediction_id
        WHERE TRUE {not_erased}
        QUALIFY ROW_NUMBER() OVER (
            PARTITION BY l.dataset, l.prediction_id ORDER BY l.event_time, l.row_hash) = 1
    ),
    known AS ({newest})
    SELECT {selected} FROM winners AS w
    LEFT JOIN known AS a ON a.dataset = w.dataset AND a.prediction_id = w.prediction_id
        AND NOT COALESCE(a.deleted, FALSE)
    WHERE w.window_date IN ({on_dates})"""


def _columns_beside(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns that come with the ground truth."""
    beside = {field.name for field in list_outcomes(spec)}
    return tuple(name for name in record_schema(spec).names if name in beside)


def _fold_columns(names: Sequence[str]) -> str:
    """Return what selects of each evaluation its newest row, whatever the others say.

    Who gave it and why are those of that row, and one that failed takes nothing back. The ground
    truth's time is that of its own row, and the fingerprint that of all rows.
    """
    place = "(COALESCE(k.actual_time, TIMESTAMPTZ '-infinity'), k.row_hash)"
    found = [f"arg_max(k.actual, {place}) FILTER (k.actual IS NOT NULL) AS actual"]
    found.append("MAX(k.actual_time) FILTER (k.actual IS NOT NULL) AS actual_time")
    for name in names:
        value, error = quote_identifier(name), quote_identifier(error_column(name))
        has_value = f"k.{value} IS NOT NULL"
        chosen = {
            column: has_value for column in (value, *map(quote_identifier, list_texts([name])))
        }
        chosen[error] = f"{has_value} OR k.{error} IS NOT NULL"
        found += (
            f"arg_max_null(k.{column}, {place}) FILTER ({is_chosen}) AS {column}"
            for column, is_chosen in chosen.items()
        )
    found.append("FALSE AS deleted")
    found.append("BIT_XOR(DISTINCT k.row_hash) AS actual_row_hash")
    return f"SELECT w.dataset, w.prediction_id, {', '.join(found)}"


def fingerprint_sql(of_spans: Sequence[str] = ()) -> str:
    """Return the statement that counts and fingerprints the table ``records`` by window.

    What was joined from spans is a part of it by the columns ``of_spans``.

    Sums and parities do not depend on the order of rows; md5 is the same in every version of
    every engine, which the engine's own hash is not.
    """
    columns = map(quote_identifier, of_spans)
    joined = "".join(f", COALESCE({column}::VARCHAR, '')" for column in columns)
    return f"""SELECT window_start, dataset, COUNT(*) AS n, COUNT(actual) AS n_actual,
        COUNT(*) FILTER (n_prediction_rows > 1) AS n_conflict,
        CAST(SUM(hash) AS VARCHAR) AS total, CAST(BIT_XOR(hash) AS VARCHAR) AS parity,
        MIN(event_time) AS first_event_time, MAX(event_time) AS last_event_time
    FROM (SELECT *, CAST('0x' || md5(CONCAT_WS('|',
            prediction_id, row_hash, n_prediction_rows, COALESCE(actual_row_hash::VARCHAR, '')
            {joined}))[1:15] AS BIGINT) AS hash FROM records)
    GROUP BY window_start, dataset"""


# What `fingerprint_sql` found of parts, of each window and dataset together.
_ADD_UP: Final = """SELECT window_start, dataset, SUM(n)::BIGINT AS n,
    SUM(n_actual)::BIGINT AS n_actual, SUM(n_conflict)::BIGINT AS n_conflict,
    CAST(SUM(total::HUGEINT) AS VARCHAR) AS total,
    CAST(BIT_XOR(parity::BIGINT) AS VARCHAR) AS parity,
    MIN(first_event_time) AS first_event_time, MAX(last_event_time) AS last_event_time
FROM counted GROUP BY window_start, dataset"""
