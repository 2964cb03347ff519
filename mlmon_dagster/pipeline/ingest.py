"""What the asset `event_log` does: take in landing files, say what came of them and what waits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mlmon_dagster.alerts.lifecycle.pipeline_failures import settle_failures
from mlmon_dagster.project import Project
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state import model_history
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.work import Numbers, Work

if TYPE_CHECKING:
    from mlmon_dagster.ingest import IngestReport


def ingest(
    work: Work,
    on_progress: Callable[[str], None] | None = None,
    max_bytes: int | None = None,
    time_is_up: Callable[[], bool] | None = None,
    wait_seconds: float = 600,
    written_by: Mapping[Stream, dt.datetime] | None = None,
) -> IngestReport:
    """Take in the landing files that are new, as many as there is time for; look who serves.

    Of a model whose rows stay where they are, look which windows have other rows.
    """
    if work.spec.source.predictions.in_place:
        from mlmon_dagster.warehouse.look import look_at_tables

        report = look_at_tables(work.project.find_owner(work.spec), wait_seconds)
    else:
        from mlmon_dagster.ingest import ingest_new, readers

        report = ingest_new(
            work.project.store,
            work.spec,
            work.project.folder,
            readers(work.project.variables),
            now=work.now,
            run_id=work.run_id,
            max_bytes=max_bytes,
            time_is_up=time_is_up,
            on_progress=on_progress,
            wait_seconds=wait_seconds,
            written_by=written_by,
        )
    note_unreadable(work.project, work.spec.model, report)
    if work.spec.has_actuals and any(file.status == "done" for file in report.files):
        from mlmon_dagster.store.upkeep.maintenance import settle_unmatched

        settle_unmatched(work.project.store, work.spec, work.now)
    if work.spec.registry is not None:
        from mlmon_dagster.pipeline.model_registry import look_at_registry

        look_at_registry(work.project, work.spec)
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
    refused = [file.message for file in quarantined]
    refused += [
        f"{counted(file.n_bad, 'row')} refused, such as {file.bad_rows[0]}"
        for file in files
        if file.status == "done" and file.bad_rows
    ]
    if refused:
        totals["refused"] = "\n".join(refused[:20])
    return totals


def schema_changes_now(work: Work) -> Numbers:
    """Return the changes of the files' columns that this ingest saw first; nothing if none."""
    seen = model_history.load_changes(work.project.store.state, work.spec.model, since=work.now)
    lines = [f"{item.change.text()} ({item.stream}, {item.path})" for item in seen]
    return {"schema_changes": "\n".join(lines[:20])} if lines else {}


def table_sizes(work: Work) -> Numbers:
    """Return rows and bytes of the model's tables, as of their newest versions."""
    from mlmon_dagster.store.reading import describe_tables

    numbers: Numbers = {}
    for row in describe_tables(work.project.store, work.spec.model):
        numbers |= {f"rows/{row['table']}": row["rows"], f"bytes/{row['table']}": row["bytes"]}
    return numbers


def note_unreadable(project: Project, model: str, report: IngestReport) -> None:
    """Record which landing folders and files of a model cannot be read, or that all can be again.

    Args:
        project: Where the state is.
        model: Whose files.
        report: What the ingest found.
    """
    found: dict[str, str] = {}
    for file in report.files:
        if file.reason == "no_access":
            found.setdefault(file.stream, file.message)
    real_now = project.clock()
    settle_failures(project.store, model, "source", found, when=real_now, now=project.now())


BACKLOG_AFTER = dt.timedelta(minutes=10)


def note_backlog(
    project: Project, model: str, before: Mapping[str, Backlog], now: Mapping[str, Backlog]
) -> None:
    """Record that a model's files arrive faster than they are taken in, or no longer.

    Files count once they could have been read for ten minutes. While there are fewer at every
    look, as after many came at once, nothing is wrong.

    Args:
        project: Where the state is.
        model: Whose files.
        before: What the look before left, by stream.
        now: What this look left.
    """
    real_now = project.clock()
    late = {}
    for stream, left in now.items():
        if left.left_since is None or real_now - left.left_since < BACKLOG_AFTER:
            continue
        minutes = (real_now - left.left_since).total_seconds() / 60
        grows = left.n_left >= before.get(stream, Backlog()).n_left
        said = (
            f"{left.n_left:,} complete files of {stream} wait, the oldest for {minutes:.0f} "
            "min: they come faster than they are read. Fewer and larger files, or "
            f"mlmon ingest {model}, which takes its time, help."
        )
        late[stream] = said if grows else ""
    settle_failures(
        project.store, model, "backlog", late, when=real_now, now=project.now(), in_a_row=2
    )
