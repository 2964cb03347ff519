"""Delta tables of users: which rows came with the versions since the one that was read last.

The files that a version added are named in its entry of the table's log; those that only arrange
known rows anew, as OPTIMIZE does, are marked there and left out. Where entries or files are gone,
by the table's own retention, what is left of the rows is in the newest version: it is read as a
whole then, since known rows count as duplicates and a gap would not be seen at all.

A number of a version says little by itself: a table that was restored from a copy counts on from an
earlier one. So the entry of the version that was read is noted too, and compared.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from mlmon_dagster.errors import ConfigError, StoreError, quote_error
from mlmon_dagster.ingest.raw import in_parts
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.sources.polling import (
    Polled,
    Surroundings,
    check_present,
    poll,
    stage_rows,
    wanted_names,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import DeltaSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import Position

Rows = Iterator[tuple[str, pa.Table]]
Added = tuple[int, pads.Fragment, pa.Schema]  # a version and a file of it
_MAPPED = "delta.columnMapping.mode"
_COMPARED = 2**16  # bytes at either end of an entry


@dataclass(frozen=True)
class DeltaSourceTable:
    """An open Delta table at its newest version."""

    uri: str
    options: Mapping[str, str]
    label: str
    table: DeltaTable

    @property
    def position(self) -> dict[str, object]:
        """Where a reader of everything stands."""
        version = self.table.version()
        return {
            "table": str(self.table.metadata().id),
            "version": version,
            "entry": self._entry_mark(version),
        }

    def check_columns(self, wanted: Sequence[str], required: Sequence[str]) -> int:
        """Return how many of the wanted columns exist.

        Raises:
            ConfigError: If a required one does not, with the nearest name that does.
        """
        present = [field.name for field in self.table.schema().fields]
        return check_present(self.label, present, wanted, required)

    def rows_after(self, position: Position, columns: Sequence[str]) -> tuple[Rows, str]:
        """Return the rows that came after a position, with their version, and what is to be told.

        Args:
            position: What an earlier look gave; {} is before the first version.
            columns: The columns to read, of each version those that it has.
        """
        newest = self.table.version()
        read = position.get("version")
        if read is None:
            return self._whole(columns), ""
        if told := self.find_rewrite(position, newest):
            told += (
                f"; version {newest} is read as a whole. Rows that came after version {read} and "
                "are not in it are lost, an unknown number."
            )
            return self._whole(columns), told
        added = self._added(range(read + 1, newest + 1))
        if added is None:
            told = (
                f"versions {read + 1} to {newest} are no longer all there: their log or files "
                "were removed before they were read. The newest version is read as a whole; rows "
                "that were deleted or replaced meanwhile are lost, an unknown number. Read more "
                "often, or let the table keep its versions for longer "
                "(delta.logRetentionDuration, VACUUM)."
            )
            return self._whole(columns), told
        return (_read(f, schema, columns, version) for version, f, schema in added), ""

    def find_rewrite(self, position: Position, newest: int) -> str:
        """Say what is not the table of a position any more; "" if it is."""
        if position.get("table") != str(self.table.metadata().id):
            return "another table is at its place"
        read = int(position["version"])
        if read > newest:
            return f"it went back from version {read} to {newest}"
        if position.get("entry") != self._entry_mark(read):
            return f"version {read} is not the one that was read: it was restored, or lost its log"
        return ""

    def _entry_mark(self, version: int) -> str:
        """Return a hash of both ends of a version's entry; "" if the log has none."""
        files = pafs.PyFileSystem(DeltaStorageHandler(self.uri, dict(self.options)))
        try:
            with files.open_input_file(f"_delta_log/{version:020d}.json") as file:
                size = file.size()
                ends = file.read(_COMPARED) + file.read_at(
                    min(size, _COMPARED), max(size - _COMPARED, 0)
                )
        except FileNotFoundError:
            return ""
        return hashlib.blake2b(b"%d " % size + ends, digest_size=12).hexdigest()

    def _whole(self, columns: Sequence[str]) -> Rows:
        dataset = self.table.to_pyarrow_dataset()
        for fragment in dataset.get_fragments():
            yield _read(fragment, dataset.schema, columns, self.table.version())

    def _added(self, versions: range) -> list[Added] | None:
        """Return the files that some versions added; None if the log or a file is gone."""
        files = pafs.PyFileSystem(DeltaStorageHandler(self.uri, dict(self.options)))
        found: list[Added] = []
        for version in versions:
            try:
                with files.open_input_file(f"_delta_log/{version:020d}.json") as file:
                    actions = [json.loads(line) for line in file.read().splitlines()]
            except FileNotFoundError:
                return None
            paths = {
                unquote(action["add"]["path"])
                for action in actions
                if action.get("add", {}).get("dataChange")
            }
            if not paths:
                continue
            try:
                table = DeltaTable(self.uri, version=version, storage_options=dict(self.options))
            except DeltaError:  # an entry that it builds upon is gone
                return None
            dataset = table.to_pyarrow_dataset()
            mine = [f for f in dataset.get_fragments() if unquote(f.path) in paths]
            there = files.get_file_info([f.path for f in mine])
            if any(info.type == pafs.FileType.NotFound for info in there):
                return None
            found += [(version, fragment, dataset.schema) for fragment in mine]
        return found


def _read(
    fragment: pads.Fragment, schema: pa.Schema, columns: Sequence[str], version: int
) -> tuple[str, pa.Table]:
    known = [name for name in columns if name in schema.names]
    return f"v{version}", fragment.to_table(schema=schema, columns=known)


def open_delta(
    uri: str, options: Mapping[str, str], label: str, version: int | None = None
) -> DeltaSourceTable:
    """Open a Delta table at a version, by default the newest.

    Raises:
        ConfigError: If there is none.
        StoreError: If it cannot be read.
    """
    try:
        table = DeltaTable(uri, version, storage_options=dict(options))
        mode = table.metadata().configuration.get(_MAPPED, "none")
        if mode != "none":  # its columns would be read as nulls
            raise StoreError(
                f"{label} cannot be read: it maps its columns to other names ({_MAPPED}), which "
                "this version does not follow. Copy it into a table without, such as with CREATE "
                "TABLE ... AS SELECT, and name that one."
            )
        table.to_pyarrow_dataset()
    except TableNotFoundError as error:
        raise ConfigError(
            f"{label} does not exist. Correct 'delta' under 'source': the folder that holds "
            "_delta_log."
        ) from error
    except (DeltaError, OSError, ValueError) as error:
        said = quote_error(error)
        if "deletionVectors" in said:
            said += (
                ". Set delta.enableDeletionVectors to false and run REORG TABLE ... APPLY (PURGE) "
                "on it"
            )
        raise StoreError(f"{label} cannot be read: {said}.") from error
    return DeltaSourceTable(uri, options, label, table)


def poll_source(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: DeltaSource,
    around: Surroundings,
    now: dt.datetime,
) -> list[FileReport]:
    """Stage the rows of a Delta table's new versions, and note them."""

    def read(position: Position, folder: Path) -> Polled:
        table = open_source(source, around)
        after = table.position
        if {**position, **after} == dict(position):
            return Polled(position, ())
        wanted, required = wanted_names(spec, stream)
        table.check_columns(wanted, required)
        try:
            rows, told = table.rows_after(position, wanted)
            batches = [
                stage_rows(folder, part, label)
                for label, part in _regrouped(rows, source.batch_rows)
            ]
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{source.label} cannot be read: {quote_error(error)}") from error
        return Polled(after, batches, told)

    identity = f"delta/{source.delta}"
    return poll(store, spec, stream, source.label, identity, f"delta:{source.delta}", read, now)


def check_source(spec: ModelSpec, stream: Stream, source: DeltaSource, around: Surroundings) -> str:
    """Open a source's table and say what was found.

    Raises:
        ConfigError: If there is no such table, or it lacks a column.
        StoreError: If it cannot be read.
    """
    table = open_source(source, around)
    n_columns = table.check_columns(*wanted_names(spec, stream))
    return f"{source.label}, version {table.position['version']}, {n_columns} columns"


def open_source(
    source: DeltaSource, around: Surroundings, version: int | None = None
) -> DeltaSourceTable:
    """Open the table of a source, see `open_delta`."""
    is_remote = "://" in source.delta
    uri = source.delta if is_remote else str(around.project / source.delta)
    return open_delta(uri, around.storage_options if is_remote else {}, source.label, version)


def _regrouped(rows: Rows, size: int) -> Iterator[tuple[str, pa.Table]]:
    """Put rows of a version together, or cut them, into batches of at most so many rows."""
    for version, parts in groupby(rows, key=itemgetter(0)):
        tables = (table for _, table in parts if len(table))
        for _, table in in_parts(tables, size):
            yield version, table
