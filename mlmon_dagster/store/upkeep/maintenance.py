"""Keeping the tables of a model fit: rows past their age, many small files, old versions.

Safe beside writers and readers. Merging small files is a commit of its own, after which a writer
decides anew; the files it replaces stay until no version of ``retention.versions`` needs them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING

from deltalake.exceptions import CommitFailedError

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.baselines import baseline_files
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.state.writer_lock import writer_lock
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.tables.delta import DeltaFolder, open_table
from mlmon_dagster.store.upkeep.retention import Removal, let_go, live_files

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

SMALL = 32 * 1024**2
MANY = 4  # small files of one partition
_TARGET = 128 * 1024**2


def maintain(
    store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool = False
) -> list[Removal]:
    """Finish interrupted erasures, delete by age, merge small files, remove old versions.

    Args:
        store: The store.
        spec: The model.
        now: What ages are counted from. Versions are aged by the clock of the machine.
        dry_run: Only say what would be done.

    Returns:
        What was removed or merged; steps with nothing to do are left out.
    """
    if not dry_run:
        erase.resume(store, spec, now)
    with writer_lock(store.state, f"ingest/{spec.model}"):
        # Not beside an ingest, which reads refused rows and writes what is left of them.
        removals = let_go(store, spec, now, dry_run=dry_run)
        if not dry_run:
            n_swept = kept_rows.sweep(store, spec.model)
            removals.append(Removal("refused files and rows taken in meanwhile", files=n_swept))
    for name, folder in tables_of(store, spec).items():
        if folder.snapshot() is None:
            continue
        removals.append(_merge(name, folder, dry_run=dry_run))
        removals.append(_remove_versions(name, folder, spec.retention.versions, dry_run=dry_run))
    unnamed = baseline_files.tidy(store, spec.model, dry_run=dry_run)
    removals.append(Removal("files of baselines that nothing names", files=len(unnamed)))
    return [removal for removal in removals if removal.rows or removal.files]


def tables_of(store: Store, spec: ModelSpec) -> dict[str, DeltaFolder]:
    """Return a model's tables by name."""
    return {
        **store.event_log(spec).folders,
        "records": store.inference_records(spec).folder,
        "profiles": store.table("profiles", spec.model).folder,
    }


def _merge(name: str, folder: DeltaFolder, *, dry_run: bool) -> Removal:
    files = live_files(folder)
    keys = [key for key in (files[0] if files else {}) if key.startswith("partition.")]
    small = Counter(tuple(f[k] for k in keys) for f in files if f["size_bytes"] < SMALL)
    crowded = {partition for partition, n in small.items() if n >= MANY}
    merged = [f for f in files if tuple(f[k] for k in keys) in crowded and f["size_bytes"] < SMALL]
    what = f"small files of {name}, merged"
    removal = Removal(what, 0, len(merged) - len(crowded), sum(f["size_bytes"] for f in merged))
    if crowded and not dry_run:
        try:
            open_table(folder.path).optimize.compact(target_size=_TARGET, max_concurrent_tasks=2)
        except CommitFailedError:
            return Removal(what)  # a writer replaced the same files meanwhile; the next time
    return removal


def _remove_versions(
    name: str, folder: DeltaFolder, kept: dt.timedelta, *, dry_run: bool
) -> Removal:
    hours = int(kept.total_seconds() // 3600)
    if not dry_run:
        _set_retention(folder, hours)
    table = open_table(folder.path)
    if not dry_run:
        table.create_checkpoint()
        table.cleanup_metadata()
    unused = table.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False)
    size = 0
    if folder.path.is_local:
        sizes = [p.stat().st_size for f in unused if (p := folder.path.path / f).is_file()]
        size = sum(sizes)
    if unused and not dry_run:
        table.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
    return Removal(f"old versions of {name}", 0, len(unused), size)


def _set_retention(folder: DeltaFolder, hours: int) -> None:
    """Write into the table what it is to keep, so that other programs keep it too."""
    wanted = {
        "delta.logRetentionDuration": f"interval {hours} hours",
        "delta.deletedFileRetentionDuration": f"interval {hours} hours",
        "delta.dataSkippingNumIndexedCols": "0",
    }
    table = open_table(folder.path)
    known = table.metadata().configuration
    if any(known.get(key) != value for key, value in wanted.items()):
        try:
            table.alter.set_table_properties(wanted)
        except CommitFailedError:
            return  # the next time
