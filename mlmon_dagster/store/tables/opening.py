"""Opening Delta tables: once for all who read a version, anew for whoever changes the table.

Opening reads the log, which takes longer the more was committed. A version that was read is kept as
long as it is the newest one: the next commit is not there, no checkpoint is newer, and its own
commit says what it said. So whatever others do to the table is seen at the next look: a commit, an
older version restored, another table in its place. Three small files tell, wherever the table is.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.tables.part_files import Bucket, bucket_of

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
            content = _commit(path, table.version()).read()
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
        content = _commit(path, number).read()
        if content is None or _digest(content) != kept.commit:
            return False
        if _commit(path, number + 1).read() is not None:
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
    content = _commit(path, table.version()).read()
    # None: a checkpoint of that version stands for it.
    if content is not None and (why := why_commit_is_bad(content)):
        raise StoreError(
            f"The table at {path} cannot be read: its newest commit {table.version():020}.json "
            f"{why}. Run mlmon store repair {_model_of(path)}."
        )
    return table, content


def _commit(path: Location, number: int) -> Location:
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


def _model_of(path: Location) -> str:
    _, is_log, rest = str(path).rpartition("/event_log/")
    return rest.split("/")[0] if is_log else path.name
