"""What a store holds, in numbers."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.schema import dead_letter, ingest_file, metric
from mlmon_dagster.store.tables.delta import open_table
from mlmon_dagster.store.tables.rows import KINDS, folder_of
from mlmon_dagster.store.upkeep.retention import live_files

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


def describe_tables(store: Store, model: str) -> list[dict[str, Any]]:
    """Return one row per table of a model: rows, files, bytes, versions, oldest and newest date.

    Sizes are those of the newest version; a table that was never written has no row.
    """
    found = []
    for kind in KINDS:
        folder = folder_of(store, kind, model)
        if folder.snapshot() is None:
            continue
        files = live_files(folder)
        dates = [f["partition.window_date"] for f in files]
        dates = sorted(date for date in dates if date[:1].isdigit())
        by_dataset: Counter[str] = Counter()
        for file in files:
            by_dataset[file.get("partition.dataset", ALL)] += file["num_records"] or 0
        found.append(
            {
                "table": kind,
                "rows": sum(file["num_records"] or 0 for file in files),
                "files": len(files),
                "bytes": sum(file["size_bytes"] for file in files),
                "version": open_table(folder.path).version(),
                "oldest": dates[0] if dates else "",
                "newest": dates[-1] if dates else "",
                "windows": len(set(dates)),
                "datasets": ", ".join(f"{d} {n:,}" for d, n in sorted(by_dataset.items())),
            }
        )
    return found


def describe_state(store: Store, model: str) -> dict[str, Any]:
    """Return what the state database says of a model.

    Returns:
        ``files`` by status, ``n_duplicate`` and ``n_conflict`` of all files, ``n_refused`` notes,
        ``n_metrics`` rows and ``computed_at``, the newest computation or None.
    """
    c = ingest_file.c
    with store.state.connect() as conn:
        by_status = conn.execute(
            sa.select(c.status, sa.func.count()).where(c.model == model).group_by(c.status)
        ).all()
        duplicate, conflict = conn.execute(
            sa.select(sa.func.sum(c.n_duplicate), sa.func.sum(c.n_conflict)).where(c.model == model)
        ).one()
        refused = conn.scalar(
            sa.select(sa.func.count()).select_from(dead_letter).where(dead_letter.c.model == model)
        )
        newest = sa.func.max(metric.c.computed_at, type_=metric.c.computed_at.type)
        n_metrics, computed_at = conn.execute(
            sa.select(sa.func.count(), newest).where(metric.c.model == model)
        ).one()
    moment: dt.datetime | None = computed_at
    return {
        "files": {status: int(n) for status, n in by_status},
        "n_duplicate": int(duplicate or 0),
        "n_conflict": int(conflict or 0),
        "n_refused": int(refused or 0),
        "n_metrics": int(n_metrics),
        "computed_at": moment,
    }
