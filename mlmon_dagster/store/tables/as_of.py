"""A table as it was at a past moment, as long as its old versions are kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from deltalake import DeltaTable

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    LiveFile,
    Partition,
    Snapshot,
    open_table,
)


def snapshot_as_of(
    folder: DeltaFolder, moment: dt.datetime, keep: Callable[[Partition], bool] | None = None
) -> Snapshot | None:
    """Pin the version that was the newest at a moment; None if there was no table yet.

    Moments are those of the commits, by the clock of the machine that made them.

    Args:
        folder: The table.
        moment: A past moment, aware.
        keep: Which partitions will be read, all by default.

    Raises:
        StoreError: If the version is not kept any more, or a file of these partitions is not.
    """
    if folder.snapshot() is None:
        return None
    commits = {c["version"]: c["timestamp"] for c in open_table(folder.path).history()}
    at = moment.timestamp() * 1000
    known = [version for version, timestamp in commits.items() if timestamp <= at]
    if not known:
        if 0 in commits:
            return None
        raise StoreError(_too_old(folder.path, moment, min(commits.values(), default=None)))
    version = max(known)
    table = DeltaTable(folder.path.url, version, storage_options=dict(folder.path.options))
    snapshot = Snapshot(table, folder.path, folder.schema)
    there = {f"{folder.path}/{name}" for name in folder.path.below()}
    wanted = [file for file in snapshot.files if keep is None or keep(file.partition)]
    gone = [file for file in wanted if file.path not in there]
    if gone:
        raise StoreError(_too_old(folder.path, moment, None, gone))
    return snapshot


def _too_old(
    path: Location, moment: dt.datetime, oldest: int | None, gone: Sequence[LiveFile] = ()
) -> str:
    known = ""
    if dates := sorted({file.partition.get("window_date", "") for file in gone}):
        more = f" and {len(dates) - 3:,} more" if len(dates) > 3 else ""
        known = f" Gone are files of {', '.join(dates[:3])}{more}."
    if oldest is not None:
        first = dt.datetime.fromtimestamp(oldest / 1000, dt.UTC)
        known = f" The oldest version still kept is of {first:%Y-%m-%dT%H:%M:%SZ}."
    return (
        f"Rows as of {moment:%Y-%m-%dT%H:%M:%SZ} are not kept any more in {path}: old versions "
        f"were removed after retention.versions, or by an erasure.{known} Metrics as of then still "
        "are: "
        "mlmon metrics MODEL --as-of TIME."
    )
