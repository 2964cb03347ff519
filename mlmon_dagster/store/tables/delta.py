"""Delta Lake tables as the store uses them: pinned snapshots, live files as SQL, safe commits.

To open a table its log is read, which takes longer the more was committed. So a version that was
read is kept as long as it is the newest one: the next commit is not there, no checkpoint is newer,
and its own commit says what it said. Whatever others do to the table is seen at the next look: a
commit, an older version restored, another table in its place. Three small files tell, wherever the
table is.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literal, literals, quote_identifier
from mlmon_dagster.store.tables.columns import window_date
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import (
    EVERY_ID,
    ROW_GROUP,
    SAMPLE,
    Bucket,
    BucketRows,
    PartFiles,
    bucket_of,
    seldom_repeats,
)

Partition = Mapping[str, str]
_TABLES_KEPT: Final = 32  # of a handful of models; each holds the names of its files


class Conflict(Exception):
    """Another process committed first."""


@dataclass(frozen=True)
class LiveFile:
    """One Parquet file of a table version, with its partition's values."""

    path: str
    partition: Partition
    n_rows: int
    size: int | None = None

    @property
    def bucket(self) -> Bucket:
        """Where the ids of its rows are."""
        return bucket_of(self.path)


class TableVersion:
    """What the log says of one version of a table.

    Args:
        table: The version, which nobody else has.
        folder: Where its files are.
    """

    def __init__(self, table: DeltaTable, folder: Location) -> None:
        self.folder = folder
        self.number: int = table.version()
        self.schema = pa.schema(table.schema().to_arrow())
        self.keys = table.metadata().partition_columns
        self._table: DeltaTable | None = table
        self._lock = Lock()

    @cached_property
    def files(self) -> tuple[LiveFile, ...]:
        """The live files; of 275 partitions it takes a few milliseconds."""
        with self._reading() as table:
            actions = pa.table(table.get_add_actions(flatten=True))
        columns = [actions.column(f"partition.{key}").to_pylist() for key in self.keys]
        values = zip(*columns, strict=True) if self.keys else iter([()] * actions.num_rows)
        wanted = ("path", "num_records", "size_bytes")
        paths, counts, sizes = (actions.column(c).to_pylist() for c in wanted)
        return tuple(
            # The log's paths are percent-encoded once more than the names of the folders.
            LiveFile(
                f"{self.folder}/{unquote(path)}",
                dict(zip(self.keys, value, strict=True)),
                n or 0,
                size,
            )
            for path, value, n, size in zip(paths, values, counts, sizes, strict=True)
        )

    def has_transaction(self, app_id: str) -> bool:
        """Tell whether a commit until this version carried the application transaction."""
        with self._reading() as table:
            return table.transaction_version(app_id) is not None

    def take(self) -> DeltaTable:
        """Return the table to whoever commits: a commit takes it on to the next version.

        Raises:
            Conflict: If it was taken before, and this version is not the newest any more.
        """
        with self._lock:
            table, self._table = self._table, None
        if table is None:
            table = open_table(self.folder)
            if table.version() != self.number:
                raise Conflict(f"{self.folder} is at version {table.version()}")
        return table

    @contextmanager
    def _reading(self) -> Iterator[DeltaTable]:
        with self._lock:
            table = self._table
            if table is None:
                table = open_table(self.folder)
                table.load_as_version(self.number)
            yield table


class _Kept(NamedTuple):
    version: TableVersion
    commit: bytes  # a digest of its content


class NewestVersions:
    """The newest versions of the tables that this process read last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._lock = Lock()

    def find(self, path: Location) -> TableVersion:
        """Return the newest version of a table.

        Raises:
            TableNotFoundError: If there is none.
            StoreError: As `open_table` does.
        """
        key = _key(path)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        if kept is not None and _is_newest(path, kept):
            return kept.version
        table, content = _open(path)
        return self._note(path, table, content)

    def find_commit(self, path: Location) -> tuple[int, str] | None:
        """Return number and digest of a table's newest commit; None without table or commit."""
        try:
            number = self.find(path).number
        except TableNotFoundError:
            return None
        with self._lock:
            kept = self._kept.get(_key(path))
        if kept is None or kept.version.number != number:
            return None  # a checkpoint stands for it
        return number, kept.commit.hex()

    def keep(self, path: Location, table: DeltaTable) -> TableVersion:
        """Return the version that a table is at after a commit, and keep it."""
        try:
            content = _locate_commit(path, table.version()).read()
        except (OSError, StoreError):
            content = None  # what was committed stays so, and is opened by whoever reads it
        return self._note(path, table, content)

    def _note(self, path: Location, table: DeltaTable, content: bytes | None) -> TableVersion:
        found = TableVersion(table, path)
        with self._lock:
            self._kept.pop(_key(path), None)
            if content is not None:
                self._kept[_key(path)] = _Kept(found, _digest(content))
            while len(self._kept) > _TABLES_KEPT:
                self._kept.popitem(last=False)
        return found


NEWEST: Final = NewestVersions()


def _key(path: Location) -> tuple[object, ...]:
    return path.url, *sorted(path.options.items())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _is_newest(path: Location, kept: _Kept) -> bool:
    number = kept.version.number
    try:
        content = _locate_commit(path, number).read()
        if content is None or _digest(content) != kept.commit:
            return False
        if _locate_commit(path, number + 1).read() is not None:
            return False
        checkpoint = (path / "_delta_log" / "_last_checkpoint").read()
        return checkpoint is None or json.loads(checkpoint)["version"] <= number
    except (OSError, ValueError, LookupError, TypeError):
        return False  # opening it says what is wrong


def open_table(path: Location) -> DeltaTable:
    """Open the newest version of a table, for whoever asks alone.

    Raises:
        TableNotFoundError: If there is none.
        StoreError: If it cannot be read, or the newest commit is not whole, as after a power
            cut: the table's library takes an empty commit for one that changed nothing, and its
            rows would be missing without a word.
    """
    return _open(path)[0]


def _open(path: Location) -> tuple[DeltaTable, bytes | None]:
    """Open the newest version of a table; also return the content of its commit."""
    try:
        table = DeltaTable(path.url, storage_options=dict(path.options))
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        # The lines after the first are where in native code it was found.
        found = path.explain(error).strip().partition("\n")[0]
        raise StoreError(f"The table at {path} cannot be read: {found}") from error
    content = _locate_commit(path, table.version()).read()
    # None: a checkpoint of that version stands for it.
    if content is not None and (why := why_commit_is_bad(content)):
        raise StoreError(
            f"The table at {path} cannot be read: its newest commit {table.version():020}.json "
            f"{why}. Run mlmon store repair {_find_model(path)}."
        )
    return table, content


def _locate_commit(path: Location, number: int) -> Location:
    return path / "_delta_log" / f"{number:020}.json"


def why_commit_is_bad(content: bytes) -> str:
    """Say what is wrong with the content of a commit; nothing if it is whole."""
    if not content.strip():
        return "is empty"
    try:
        actions = [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError:
        return "is cut off or damaged"
    if not all(isinstance(action, dict) and len(action) == 1 for action in actions):
        return "holds something else than actions"
    told: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    metrics = told.get("operationMetrics", {})
    for key, action in (("num_added_files", "add"), ("num_removed_files", "remove")):
        said, there = metrics.get(key), sum(action in a for a in actions)
        if isinstance(said, int) and there < said:
            return f"is cut off: {there} of {said} files"
    return ""


def _find_model(path: Location) -> str:
    _, is_log, rest = str(path).rpartition("/event_log/")
    return rest.split("/")[0] if is_log else path.name


T = TypeVar("T")
_RETENTION: dict[str, str | None] = {
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 30 days",
    # The log keeps no smallest and largest values of files: they may be a person's id or value,
    # and nothing here looks for them, since partitions say where rows are.
    "delta.dataSkippingNumIndexedCols": "0",
}
_ATTEMPTS = 50
Aliases = Mapping[str, tuple[str, ...]]
NO_ALIASES: Final[Aliases] = MappingProxyType({})


def in_partitions(
    dates: Collection[str] | None, datasets: Collection[str] | None = None
) -> Callable[[Partition], bool]:
    """Return what chooses the partitions of some dates, and datasets; None are all."""
    return lambda partition: (
        (dates is None or partition["window_date"] in dates)
        and (datasets is None or partition["dataset"] in datasets)
    )


class Snapshot:
    """One pinned version of a Delta table.

    Attributes:
        version: The table version.
        schema: The table's columns, partition columns included, and then the declared ones
            that it has not got yet; those read as null.
        aliases: Column -> its earlier names, under which older rows have it.
    """

    def __init__(
        self,
        pinned: TableVersion,
        declared: pa.Schema,
        aliases: Aliases = NO_ALIASES,
    ) -> None:
        self._pinned = self._base = pinned  # what is read, and what the next commit builds on
        self._folder = pinned.folder
        self.aliases = aliases
        self.version = pinned.number
        self._stored = pinned.schema
        known = set(self._stored.names)
        missing = [column for column in declared if column.name not in known]
        self.schema: pa.Schema = pa.schema([*self._stored, *missing])

    @property
    def files(self) -> tuple[LiveFile, ...]:
        """The live files."""
        return self._pinned.files

    def has_transaction(self, app_id: str) -> bool:
        """Tell whether a commit of this version carried the application transaction."""
        return self._pinned.has_transaction(app_id)

    def from_sql(
        self,
        columns: Sequence[str] | None = None,
        keep: Callable[[Partition], bool] | None = None,
        where: str | None = None,
        bucket: Bucket = EVERY_ID,
    ) -> str:
        """Return a subquery over the live files, to stand after FROM.

        Args:
            columns: Columns wanted, all by default. One that older files lack is null there.
            keep: Which partitions to read, all by default.
            where: A SQL condition on the rows.
            bucket: Rows whose ids are inside; files that have none of them stay closed.
        """
        files = [
            file
            for file in self.files
            if file.bucket.overlaps(bucket) and (keep is None or keep(file.partition))
        ]
        if any(not file.bucket.is_inside(bucket) for file in files):
            where = bucket.sql() if where is None else f"({where}) AND {bucket.sql()}"
        return select_sql([file.path for file in files], self.schema, columns, where, self.aliases)

    def append(self, rows: pa.Table, app_ids: Sequence[str] = ()) -> None:
        """Add rows, provided that this version is still the newest.

        Raises:
            Conflict: If it is not; load a new snapshot, decide again and retry.
        """
        self._write(rows, app_ids, mode="append")

    def overwrite(self, rows: pa.Table, predicate: str) -> None:
        """Replace the rows that match a predicate, provided that this version is the newest.

        Args:
            rows: What takes their place.
            predicate: A SQL condition, fastest on partition columns.

        Raises:
            Conflict: If it is not.
        """
        self._write(rows, (), mode="overwrite", predicate=predicate)

    def append_parts(
        self,
        passes: Iterable[Iterable[BucketRows]],
        schema: pa.Schema,
        app_ids: Sequence[str] = (),
    ) -> None:
        """Add rows that are made part by part, as `append` does, in one commit.

        Args:
            passes: The rows; those of a pass are in files that are written side by side.
            schema: Their columns.
            app_ids: Application transactions of the commit.

        Raises:
            Conflict: If another version became the newest.
        """
        self._commit_parts(passes, schema, app_ids, mode="append")

    def replace_partitions(
        self, parts: Iterable[BucketRows], schema: pa.Schema, where: Mapping[str, Collection[str]]
    ) -> None:
        """Replace whole partitions by rows that are made part by part, in one commit.

        Args:
            parts: The rows.
            schema: Their columns.
            where: Partition column -> the values of the partitions.

        Raises:
            Conflict: If another version became the newest.
        """
        filters = [(key, "in", sorted(values)) for key, values in where.items()]
        self._commit_parts([parts], schema, (), mode="overwrite", partition_filters=filters)

    def _commit_parts(
        self,
        passes: Iterable[Iterable[BucketRows]],
        schema: pa.Schema,
        app_ids: Sequence[str],
        **options: Any,
    ) -> None:
        self._refuse_other_types(schema)
        if set(schema.names) != set(self._stored.names):
            self._write(schema.empty_table(), (), mode="append")  # for its new columns alone
        keys = self._pinned.keys
        actions = PartFiles(self._folder, keys).written(passes)
        self._commit(
            lambda table: table.create_write_transaction(
                [*actions],
                schema=table.schema(),
                partition_by=keys,
                commit_properties=_make_properties(app_ids),
                **options,
            )
        )

    def _write(self, rows: pa.Table, app_ids: Sequence[str], **options: Any) -> None:
        self._refuse_other_types(rows.schema)
        if set(rows.schema.names) != set(self._stored.names):
            options["schema_mode"] = "merge"
        options["writer_properties"] = writer_properties(rows)
        # The writer copies a batch for each partition that it has rows of.
        reader = rows.to_reader(max_chunksize=ROW_GROUP)
        self._commit(
            lambda table: write_deltalake(
                table, reader, commit_properties=_make_properties(app_ids), **options
            )
        )

    def _commit(self, write: Callable[[DeltaTable], None]) -> None:
        table = self._base.take()
        try:
            write(table)
        except CommitFailedError as error:
            raise Conflict(str(error)) from error
        except DeltaError as error:
            raise StoreError(f"Writing to {self._folder} failed: {error}") from error
        self._base = NEWEST.keep(self._folder, table)

    def _refuse_other_types(self, schema: pa.Schema) -> None:
        # The writer would cast text to numbers and back without a word.
        known = set(self._stored.names)
        for column in schema:
            if column.name in known:
                stored = duckdb_type(self._stored.field(column.name).type)
                if duckdb_type(column.type) != stored:
                    raise StoreError(
                        f"Column {column.name!r} of the table at {self._folder} holds {stored}, "
                        f"not {duckdb_type(column.type)}. A column keeps its type; "
                        "declare the new one under another name."
                    )


def _make_properties(app_ids: Sequence[str]) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(app_id, 1) for app_id in app_ids],
        max_commit_retries=0,  # a retry inside would commit what was decided on old data
    )


@dataclass(frozen=True)
class DeltaFolder:
    """A Delta table's place: a folder, or prefix of a bucket, that may not exist yet.

    Attributes:
        path: The folder.
        schema: Columns that the table has, or will have with the next commit.
        partition_by: Partition columns, used when the table is created.
        aliases: Column -> its earlier names.
    """

    path: Location
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    aliases: Aliases = field(default_factory=dict)

    def snapshot(self) -> Snapshot | None:
        """Pin the newest version; None if nothing was ever written.

        Raises:
            StoreError: If the folder holds something that is not a readable table.
        """
        try:
            return Snapshot(NEWEST.find(self.path), self.schema, self.aliases)
        except TableNotFoundError:
            return None

    def earlier(self, version: int) -> Snapshot | None:
        """Pin an earlier version; None if its commits were cleaned up.

        Files of a version are deleted when they are older than the retention of versions; a
        query then fails.
        """
        table = open_table(self.path)
        try:
            table.load_as_version(version)
        except (DeltaError, OSError):
            return None
        return Snapshot(TableVersion(table, self.path), self.schema, self.aliases)

    def ensure(self) -> Snapshot:
        """Pin the newest version, creating an empty table first if there is none."""
        snapshot = self.snapshot()
        while snapshot is None:
            self.path.make()
            try:
                DeltaTable.create(
                    self.path.url,
                    self.schema,
                    mode="ignore",
                    partition_by=list(self.partition_by),
                    configuration=_RETENTION,
                    storage_options=dict(self.path.options),
                )
            except DeltaError:
                _pause(0)  # most likely another process is creating it
            snapshot = self.snapshot()
        return snapshot


def retry(attempt: Callable[[], T], what: str) -> T:
    """Call until it commits without a conflict.

    Raises:
        StoreError: After 50 conflicts.
    """
    for n in range(_ATTEMPTS):
        try:
            return attempt()
        except Conflict:
            _pause(n)
    raise StoreError(f"{what} met {_ATTEMPTS} conflicting commits; too many writers at once.")


def _pause(n: int) -> None:
    time.sleep(random.uniform(0, min(0.02 * 2**n, 1.0)))


def writer_properties(sample: pa.Table | pa.RecordBatch) -> WriterProperties:
    """Choose the encoding of each column by its first rows.

    Args:
        sample: Rows to be written, or the first of them; without rows every column that can
            have a dictionary gets one.
    """
    plain = ColumnProperties(dictionary_enabled=False)
    rows = sample.slice(0, SAMPLE)
    return WriterProperties(
        max_row_group_size=ROW_GROUP,
        compression="SNAPPY",
        column_properties={
            name: plain
            for name, values in zip(rows.schema.names, rows.columns, strict=True)
            if seldom_repeats(values)
        }
        or None,
    )


def select_sql(
    files: Sequence[str],
    schema: pa.Schema,
    columns: Sequence[str] | None,
    where: str | None,
    aliases: Aliases = NO_ALIASES,
    *,
    has_paths: bool = False,
) -> str:
    """Return a subquery that selects typed columns from Parquet files, an empty one for none.

    A renamed column reads from its earlier names where older rows have it under those. With
    ``has_paths``, the column ``filename`` says which file a row is from.
    """
    old = {name for names in aliases.values() for name in names}
    schema, known = pa.schema([field for field in schema if field.name not in old]), schema
    fields = [schema.field(name) for name in columns] if columns is not None else list(schema)
    names = ", ".join(quote_identifier(field.name) for field in fields)
    names += ", filename" if has_paths else ""
    condition = f" WHERE {where}" if where else ""
    # The empty branch gives the columns their types, and those that no file has their nulls.
    typed = ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote_identifier(f.name)}" for f in known)
    typed += ", NULL::VARCHAR AS filename" if has_paths else ""
    source = f"SELECT {typed} WHERE FALSE"
    if files:
        listed = ", ".join(literal(escape_glob(file)) for file in files)
        source += (
            f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name=true, "
            f"filename={has_paths}, hive_partitioning=true, hive_types_autocast=false)"
        )
    if renamed := _coalesce_renamed(known, aliases):
        source = f"SELECT * REPLACE ({renamed}) FROM ({source})"
    return f"(SELECT {names} FROM ({source}){condition})"


def _coalesce_renamed(schema: pa.Schema, aliases: Aliases) -> str:
    """Return what columns with earlier names read as, for those names that the table has."""
    parts = []
    for name, earlier in aliases.items():
        found = [old for old in reversed(earlier) if old in schema.names]
        if name in schema.names and found:
            type_ = duckdb_type(schema.field(name).type)
            values = ", ".join(f"TRY_CAST({quote_identifier(n)} AS {type_})" for n in found)
            column = quote_identifier(name)
            parts.append(f"COALESCE({column}, {values}) AS {column}")
    return ", ".join(parts)


@lru_cache(maxsize=64)
def duckdb_type(type_: pa.DataType) -> str:
    """Name DuckDB's type for an Arrow type of the store's tables.

    Raises:
        StoreError: If the store has no tables with such columns.
    """
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return f"{duckdb_type(type_.value_type)}[]"
    if pa.types.is_timestamp(type_):
        return "TIMESTAMPTZ" if type_.tz else "TIMESTAMP"
    names = {
        "string": "VARCHAR", "large_string": "VARCHAR", "string_view": "VARCHAR", "bool": "BOOLEAN",
        "int8": "TINYINT", "int16": "SMALLINT", "int32": "INTEGER", "int64": "BIGINT",
        "float": "REAL", "double": "DOUBLE", "date32[day]": "DATE", "binary": "BLOB",
    }  # fmt: skip
    if str(type_) not in names:
        raise StoreError(f"The store's tables have no columns of type {type_}.")
    return names[str(type_)]


def escape_glob(path: str) -> str:
    """Write a path so that the engine takes it as it is."""
    return path.translate(_LITERALLY)


_LITERALLY: Final = str.maketrans({char: f"[{char}]" for char in "*?["})


@dataclass(frozen=True)
class DeltaRows(DeltaFolder):
    """One Delta table of derived rows; partitioned by ``window_date`` if the rows have it.

    Attributes:
        engine: What reads it.
    """

    engine: QueryEngine = field(kw_only=True)

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
            dates = sorted({window_date(window) for window in windows})
            conditions.append(f"window_date IN ({literals(dates)})")
            if any(len(window.key) > len(window_date(window)) for window in windows):
                starts = ", ".join(f"'{w.start:%Y-%m-%dT%H:%M:%SZ}'" for w in windows)
                conditions.append(f"window_start IN ({starts})")
        where = " AND ".join(f"({condition})" for condition in conditions) or "TRUE"
        partition_by = ("window_date",) if "window_date" in rows.column_names else ()
        folder = DeltaFolder(self.path, rows.schema, partition_by)
        retry(lambda: folder.ensure().overwrite(rows, where), f"Writing {self.path.name}")

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
        return self.engine.query(f"SELECT {names} FROM {snapshot.from_sql(None, keep, where)}")
