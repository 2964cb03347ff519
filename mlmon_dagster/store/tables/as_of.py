"""A table as it was at a past moment, as long as its old versions are kept."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from deltalake import DeltaTable

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.tables.delta import DeltaFolder, Snapshot, open_table


def snapshot_as_of(folder: DeltaFolder, moment: dt.datetime) -> Snapshot | None:
    """Pin the version that was the newest at a moment; None if there was no table yet.

    Moments are those of the commits, by the clock of the machine that made them. Rows that were
    erased since are missing in it.

    Args:
        folder: The table.
        moment: A past moment, aware.

    Raises:
        StoreError: If the version is not kept any more.
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
    if folder.path.is_local and not all(Path(f.path).exists() for f in snapshot.files):
        raise StoreError(_too_old(folder.path, moment, None))
    return snapshot


def _too_old(path: Location, moment: dt.datetime, oldest: int | None) -> str:
    known = ""
    if oldest is not None:
        first = dt.datetime.fromtimestamp(oldest / 1000, dt.UTC)
        known = f" The oldest version still kept is of {first:%Y-%m-%dT%H:%M:%SZ}."
    return (
        f"Rows as of {moment:%Y-%m-%dT%H:%M:%SZ} are not kept any more in {path}: old versions "
        f"were removed after retention.versions.{known} Metrics as of then still are: "
        "mlmon metrics MODEL --as-of TIME."
    )
