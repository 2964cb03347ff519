"""What the asset `event_log` does: take in landing files, and say what came of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.work import Numbers, Work
from mlmon_dagster.store.state import model_history

if TYPE_CHECKING:
    from mlmon_dagster.ingest import IngestReport


def ingest(
    work: Work,
    on_progress: Callable[[str], None] | None = None,
    max_bytes: int | None = None,
    time_is_up: Callable[[], bool] | None = None,
    wait_seconds: float = 600,
) -> IngestReport:
    """Take in the landing files that are new, as many as there is time for."""
    from mlmon_dagster.ingest import ingest_new

    report = ingest_new(
        work.project.store,
        work.spec,
        work.project.folder,
        now=work.now,
        run_id=work.run_id,
        max_bytes=max_bytes,
        time_is_up=time_is_up,
        on_progress=on_progress,
        variables=work.project.variables,
        wait_seconds=wait_seconds,
    )
    if work.spec.has_actuals and any(file.status == "done" for file in report.files):
        from mlmon_dagster.store.upkeep.maintenance import settle_unmatched

        settle_unmatched(work.project.store, work.spec, work.now)
    return report


def ingest_numbers(report: IngestReport) -> Numbers:
    """Return the counters of an ingest for the asset's metadata."""
    files = report.files
    totals: Numbers = {
        name: sum(getattr(file, name) for file in files)
        for name in ("n_new", "n_duplicate", "n_conflict", "n_bad")
    }
    quarantined = [file for file in files if file.status == "quarantined"]
    totals |= {
        "n_files": len(files),
        "n_quarantined": len(quarantined),
        "n_waiting": report.n_waiting,
        "n_windows": len(report.windows),
    }
    if report.again:
        totals["read_again"] = report.again
    if failed := [file.message for file in files if file.status == "failed"]:
        totals["failed"] = "\n".join(failed[:20])
    if quarantined:
        totals["quarantined"] = "\n".join(file.message for file in quarantined[:20])
    return totals


def schema_changes_now(work: Work) -> Numbers:
    """Return the changes of the files' columns that this ingest saw first; nothing if none."""
    seen = model_history.changes(work.project.store.state, work.spec.model, since=work.now)
    lines = [f"{item.change.text()} ({item.stream}, {item.path})" for item in seen]
    return {"schema_changes": "\n".join(lines[:20])} if lines else {}


def table_sizes(work: Work) -> Numbers:
    """Return rows and bytes of the model's tables, as of their newest versions."""
    from mlmon_dagster.store.reading import describe_tables

    numbers: Numbers = {}
    for row in describe_tables(work.project.store, work.spec.model):
        numbers |= {f"rows/{row['table']}": row["rows"], f"bytes/{row['table']}": row["bytes"]}
    return numbers
