"""A Delta table as one of a lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest.sources.delta import DeltaSourceTable, open_source
from mlmon_dagster.ingest.sources.polling import Surroundings
from mlmon_dagster.spec.sources import PER_SECOND, DeltaSource, Stream
from mlmon_dagster.warehouse.lake import Difference, Lake, choose_files
from mlmon_dagster.warehouse.owner import Owner, OwnerTables

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position

_MOMENT = pa.timestamp("us", "UTC")


@contextmanager
def open_tables(owner: Owner, at: Mapping[Stream, Position]) -> Iterator[OwnerTables]:
    """Open the tables of a model, see `Owner.opened`."""
    sources: dict[Stream, DeltaSource] = {}
    for stream in owner.wanted:
        source = owner.spec.source.of(stream)
        assert isinstance(source, DeltaSource)
        sources[stream] = source
    tables = {
        stream: _open(source, owner.around, at.get(stream)) for stream, source in sources.items()
    }
    epoch = sources["predictions"].epoch
    per_second = PER_SECOND[epoch] if epoch else None
    yield Lake(owner.store.queries, tables, owner.wanted, per_second)


def _open(source: DeltaSource, around: Surroundings, at: Position | None) -> _DeltaLake:
    """Open a table at a position; at the newest one, if that is no longer kept."""
    newest = _DeltaLake(source, around, open_source(source, around))
    if not at or at["version"] == newest.opened.table.version():
        return newest
    return newest if newest.explain_gap(at) else newest.at_version(int(at["version"]))


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

    def at_version(self, version: int) -> _DeltaLake:
        """Return the table as it was at a version.

        Raises:
            StoreError: If its log does not reach back to it.
        """
        opened = open_source(self.source, self.around, version)
        return replace(self, opened=opened)

    def explain_gap(self, since: Position) -> str:
        """Say why an earlier version cannot be read any more; empty if it can."""
        newest = self.opened.table.version()
        if told := self.opened.find_rewrite(since, newest):
            return told
        try:
            earlier = self.at_version(int(since["version"]))
        except (ConfigError, StoreError):
            return f"the log of version {since['version']} is gone"
        gone = set(_paths(earlier.dataset)) - set(_paths(self.dataset))
        there = earlier.dataset.filesystem.get_file_info(sorted(gone))
        if any(info.type == pafs.FileType.NotFound for info in there):
            return f"files of version {since['version']} were removed (VACUUM)"
        return ""

    def find_difference(self, since: Position) -> Difference | str:
        """Return the files that only this version or an earlier one has."""
        if told := self.explain_gap(since):
            return f"{told}; all windows are computed again."
        earlier = self.at_version(int(since["version"])).dataset
        before, now = set(_paths(earlier)), set(_paths(self.dataset))
        return Difference(
            choose_files(self.dataset, now - before), choose_files(earlier, before - now)
        )

    def list_arrivals(self) -> pa.Table:
        """Return when each file was committed."""
        actions = pa.table(self.opened.table.get_add_actions())
        millis = actions["modification_time"].cast(pa.int64())
        moments = pc.multiply(millis, 1_000).cast(_MOMENT)
        return pa.table({"file": actions["path"].cast(pa.string()), "moment": moments})


def _paths(dataset: pads.FileSystemDataset) -> list[str]:
    return [fragment.path for fragment in dataset.get_fragments()]
