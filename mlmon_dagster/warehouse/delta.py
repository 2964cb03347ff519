"""A Delta table as one of a lake."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.sources.delta import DeltaSourceTable, open_source
from mlmon_dagster.ingest.sources.polling import Surroundings
from mlmon_dagster.spec.sources import DeltaSource, Stream
from mlmon_dagster.warehouse.lake import Lake, has_lost_files
from mlmon_dagster.warehouse.owner import Owner, OwnerTables

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position


@contextmanager
def open_tables(owner: Owner, at: Mapping[Stream, Position]) -> Iterator[OwnerTables]:
    """Open the tables of a model, see `Owner.opened`."""
    tables = {
        stream: _open(source, owner.around, at.get(stream))
        for stream, source in owner.find_sources(DeltaSource).items()
    }
    for stream, wanted in owner.wanted.items():
        tables[stream].opened.check_columns(wanted.names, wanted.required)
    yield Lake(owner.store.queries, tables, owner.wanted, owner.per_second)


def _open(source: DeltaSource, around: Surroundings, at: Position | None) -> _DeltaLake:
    """Open a table at a position; at the newest one, if that is no longer kept."""
    newest = _DeltaLake(source, around, open_source(source, around))
    if not at or at.get("version") == newest.opened.table.version():
        return newest
    earlier = newest.find_earlier(at)
    return newest if isinstance(earlier, str) else earlier


@dataclass(frozen=True)
class _DeltaLake:
    """See `LakeTable`."""

    source: DeltaSource
    around: Surroundings
    opened: DeltaSourceTable

    @property
    def position(self) -> Position:
        """Which version."""
        return self.opened.position

    @cached_property
    def dataset(self) -> pads.FileSystemDataset:
        """Its rows."""
        return self.opened.table.to_pyarrow_dataset()

    def find_earlier(self, position: Position) -> _DeltaLake | str:
        """Return the table at an earlier position; in words why that cannot be read any more."""
        if told := self.opened.find_rewrite(position, self.opened.table.version()):
            return told
        version = int(position["version"])
        try:
            opened = open_source(self.source, self.around, version)
        except (ConfigError, StoreError):
            return f"the log of version {version} is gone"
        earlier = replace(self, opened=opened)
        if has_lost_files(earlier.dataset, self.dataset):
            return f"files of version {version} were removed (VACUUM)"
        return earlier

    def list_arrivals(self) -> dict[str, dt.datetime]:
        """Return when each file was committed, by its path."""
        actions = pa.table(self.opened.table.get_add_actions())
        moments = actions["modification_time"].cast(pa.int64()).to_pylist()
        return {
            unquote(path): dt.datetime.fromtimestamp(millis / 1000, dt.UTC)
            for path, millis in zip(actions["path"].to_pylist(), moments, strict=True)
        }
