"""An Iceberg table as one of a lake.

Its files are read as they are, by the names of their columns. What would make that wrong is
refused: files of deleted rows beside them, and columns whose names have changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest.sources.iceberg import open_table
from mlmon_dagster.ingest.sources.polling import check_present
from mlmon_dagster.spec.sources import IcebergSource, Stream
from mlmon_dagster.warehouse.lake import Lake, has_lost_files
from mlmon_dagster.warehouse.owner import Owner, OwnerTables

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile, ManifestEntry
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from mlmon_dagster.store.sources import Position

_FIELD_ID = b"PARQUET:field_id"


@contextmanager
def open_tables(owner: Owner, at: Mapping[Stream, Position]) -> Iterator[OwnerTables]:
    """Open the tables of a model, see `Owner.opened`."""
    tables = {}
    for stream, source in owner.find_sources(IcebergSource).items():
        wanted = owner.wanted[stream]
        table = open_table(source, owner.around)
        tables[stream] = _open(source.label, table, wanted.time, at.get(stream))
        check_present(
            source.label, tables[stream].dataset.schema.names, wanted.names, wanted.required
        )
    yield Lake(owner.store.queries, tables, owner.wanted, owner.per_second)


def _open(label: str, table: Table, time: str, at: Position | None) -> _IcebergLake:
    """Open a table at a position; at the newest one, if that is no longer kept."""
    newest = _IcebergLake(label, table, time, table.current_snapshot())
    if not at or at == newest.position:
        return newest
    earlier = newest.find_earlier(at)
    return newest if isinstance(earlier, str) else earlier


@dataclass(frozen=True)
class _IcebergLake:
    """See `LakeTable`.

    Attributes:
        label: What people call the table.
        table: As its catalog has it now.
        time: The column that rows are looked up by; "" for none.
        snapshot: What is read of it; None before its first one.
    """

    label: str
    table: Table
    time: str
    snapshot: Snapshot | None

    @property
    def position(self) -> Position:
        """Which snapshot."""
        number = self.snapshot.snapshot_id if self.snapshot else 0
        return {"table": str(self.table.metadata.table_uuid), "snapshot": number}

    @cached_property
    def entries(self) -> list[ManifestEntry]:
        """What the snapshot says of its files."""
        if self.snapshot is None:
            return []
        manifests = self.snapshot.manifests(self.table.io)
        found = [e for m in manifests for e in m.fetch_manifest_entry(self.table.io)]
        for entry in found:
            self._check_file(entry.data_file)
        return found

    def _check_file(self, file: DataFile) -> None:
        from pyiceberg.manifest import DataFileContent, FileFormat

        if file.content != DataFileContent.DATA:
            raise StoreError(
                f"{self.label} cannot be read: it has files of deleted rows (merge on read). Set "
                "write.delete.mode, write.update.mode and write.merge.mode to copy-on-write and "
                "run rewrite_data_files with delete-file-threshold 1 on it."
            )
        if file.file_format != FileFormat.PARQUET:
            raise StoreError(
                f"{self.label} cannot be read: {file.file_path} is {file.file_format.value}, and "
                "only Parquet is read. Set write.format.default to parquet and run "
                "rewrite_data_files on it."
            )

    @cached_property
    def dataset(self) -> pads.FileSystemDataset:
        """Its rows."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        schemas = {schema.schema_id: schema for schema in self.table.metadata.schemas}
        mine = self.table.schema()
        if self.snapshot is not None and self.snapshot.schema_id is not None:
            mine = schemas.get(self.snapshot.schema_id, mine)
        schema = pa.schema(map(_as_plain, schema_to_pyarrow(mine, include_field_ids=False)))
        format_ = pads.ParquetFileFormat()
        fragments = [
            format_.make_fragment(
                _find_path(entry.data_file.file_path), self.files,
                partition_expression=self._describe(entry.data_file, schema),
            )
            for entry in self.entries
        ]  # fmt: skip
        self._check_names(fragments)
        return pads.FileSystemDataset(fragments, schema, format_, self.files)

    def _check_names(self, fragments: Sequence[pads.ParquetFileFragment]) -> None:
        """Refuse a table in whose older files a column has another name than now.

        Raises:
            StoreError: If there may be such a file.
        """
        schemas = self.table.metadata.schemas
        named = [(field.field_id, field.name) for schema in schemas for field in schema.fields]
        if len(schemas) <= max(schema.schema_id for schema in schemas):
            # Schemas that files were written with are gone, so the files are asked themselves.
            fields = (field for each in fragments for field in each.physical_schema)
            named += [
                (int(field.metadata[_FIELD_ID]), field.name)
                for field in fields
                if field.metadata and _FIELD_ID in field.metadata
            ]
        names: dict[int, str] = {}
        ids: dict[str, int] = {}
        for number, name in named:
            if names.setdefault(number, name) != name or ids.setdefault(name, number) != number:
                raise StoreError(
                    f"{self.label} cannot be read: its column {names[number]!r} was renamed, or "
                    f"dropped and added again, to {name!r}, which older files do not follow. Copy "
                    "it into a new table, such as with CREATE TABLE ... AS SELECT, and name that "
                    "one."
                )

    @cached_property
    def names(self) -> dict[int, str]:
        """The columns that the table has or had, by their numbers."""
        return {f.field_id: f.name for s in self.table.metadata.schemas for f in s.fields}

    @cached_property
    def files(self) -> pafs.FileSystem:
        """Where its files are."""
        from pyiceberg.io.pyarrow import PyArrowFileIO

        io: Any = self.table.io
        if not isinstance(io, PyArrowFileIO):
            io = PyArrowFileIO(io.properties)
        scheme, netloc, _ = PyArrowFileIO.parse_location(self.table.location())
        found: pafs.FileSystem = io.fs_by_scheme(scheme, netloc)
        return found

    def _describe(self, file: DataFile, schema: pa.Schema) -> pads.Expression:
        """Return what is known of all rows of a file.

        It is left out where nothing fits. A column of its partition need not be in it, as where a
        folder of another table was taken over.
        """
        from pyiceberg.conversions import from_bytes
        from pyiceberg.types import PrimitiveType

        known = [pads.scalar(True)]
        for name, value in self._list_partition(file).items():
            if name in schema.names:
                one = pads.field(name)
                exact = pa.scalar(value, schema.field(name).type)
                known.append(one.is_null() if value is None else one == exact)
        if self.time not in schema.names:
            return reduce(and_, known)
        kind, time = schema.field(self.time).type, self.table.schema().find_field(self.time)
        both = (file.lower_bounds or {}), (file.upper_bounds or {})
        ends = [each[time.field_id] for each in both if time.field_id in each]
        n_null = (file.null_value_counts or {}).get(time.field_id)
        is_ordered = (
            pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)
        )
        if len(ends) == 2 and n_null == 0 and is_ordered:
            assert isinstance(time.field_type, PrimitiveType)
            low, high = (pa.scalar(from_bytes(time.field_type, end), kind) for end in ends)
            known += [pads.field(self.time) >= low, pads.field(self.time) <= high]
        return reduce(and_, known)

    def _list_partition(self, file: DataFile) -> dict[str, Any]:
        """Return the columns that have one value in a file, with it."""
        from pyiceberg.transforms import IdentityTransform

        spec = self.table.specs()[file.spec_id]
        return {
            self.names[part.source_id]: file.partition[place]
            for place, part in enumerate(spec.fields)
            if isinstance(part.transform, IdentityTransform) and part.source_id in self.names
        }

    def find_earlier(self, position: Position) -> _IcebergLake | str:
        """Return the table at an earlier position; in words why that cannot be read any more."""
        if position.get("table") != self.position["table"]:
            return "another table is at its place"
        number = int(position["snapshot"])
        snapshot = self.table.snapshot_by_id(number) if number else None
        if number and snapshot is None:
            return f"snapshot {number} has expired"
        earlier = replace(self, snapshot=snapshot)
        if has_lost_files(earlier.dataset, self.dataset):
            return f"files of snapshot {number} were removed"
        return earlier

    def list_arrivals(self) -> dict[str, dt.datetime]:
        """Return when each file was committed, by its path; without those of expired snapshots."""
        moments = {
            snapshot.snapshot_id: dt.datetime.fromtimestamp(snapshot.timestamp_ms / 1000, dt.UTC)
            for snapshot in self.table.snapshots()
        }
        return {
            _find_path(entry.data_file.file_path): moments[entry.snapshot_id]
            for entry in self.entries
            if entry.snapshot_id in moments
        }


def _find_path(location: str) -> str:
    from pyiceberg.io.pyarrow import PyArrowFileIO

    return PyArrowFileIO.parse_location(location)[2]


def _as_plain(field: pa.Field) -> pa.Field:
    """Return a field with the type that Parquet files are read with."""
    if pa.types.is_large_string(field.type):
        return field.with_type(pa.string())
    return field.with_type(pa.binary()) if pa.types.is_large_binary(field.type) else field
