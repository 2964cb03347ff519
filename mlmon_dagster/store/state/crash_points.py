"""Named steps of the writing paths, so that tests can stop a process exactly there."""

from __future__ import annotations

from collections.abc import Callable

STEPS = (
    "append.moved_ids_noted",
    "append.committed",
    "rebuild.computed",
    "rebuild.committed",
    "baseline.written",
    "baseline.named",
    "fold.before_commit",
    "fold.committed",
    "flush.before_commit",
    "flush.committed",
    "dispatch.written",
    "deliver.claimed",
    "deliver.fenced",
    "deliver.posted",
    "deliver.looked_up",
    "deliver.counted",
    "deliver.settled",
    "source.staged",
    "source.noted",
    "ingest.staged",
    "ingest.admitted",
    "ingest.parsed",
    "ingest.validated",
    "ingest.before_append",
    "ingest.after_append",
    "ingest.before_manifest",
    "ingest.kept",
    "ingest.after_manifest",
    "erase.noted",
    "erase.partition",
    "erase.whole_copies",
    "erase.copies",
    "erase.baselines",
    "erase.state",
    "erase.profiles",
    "erase.records",
    "erase.log",
    "erase.cleaned",
    "remove.declaration",
    "remove.rows",
    "remove.folder",
    "repair.marked",
    "repair.moved",
    "repair.replaced",
)

on_reached: Callable[[str], None] | None = None


def reached(step: str) -> None:
    """Tell the hook, if there is one, that a step was reached."""
    if on_reached is not None:
        on_reached(step)
