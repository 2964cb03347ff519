"""What was refused is read again: by itself once the spec that refused it changed, or when asked.

A file that was refused as a whole goes through the ingest anew. Of a file that was taken in, only
the refused rows are read, from where they are kept, under the moment at which that was begun: a
crash repeats the same reading, and the log knows it by that moment.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import reading_of
from mlmon_dagster.ingest.landing.staging import Again, Staged, staging_folder
from mlmon_dagster.ingest.queue import Queued
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.writer_lock import writer_lock
from mlmon_dagster.store.tables import kept_rows


def reopen(
    store: Store, spec: ModelSpec, stream: Stream, project: Path, now: dt.datetime, *, all_: bool
) -> tuple[int, list[Queued]]:
    """Let what was refused under other declarations be read again.

    Args:
        store: The store.
        spec: The model.
        stream: What the files hold.
        project: The folder that paths of landing files are relative to.
        now: The moment that event times may not lie ahead of.
        all_: Everything that was refused, not only under other declarations.

    Returns:
        How many refused files were opened, and the files whose refused rows are to be read.
    """
    reading = reading_of(spec, stream)
    due = [
        row
        for row in manifest.with_refusals(store.state, spec.model, stream)
        if all_ or row["read_with"] != reading or row["again_at"] is not None
    ]
    whole = [row for row in due if row["status"] == "quarantined"]
    if whole:
        copies = {name.split(".")[0] for name in kept_rows.folder_of(store, spec.model).below()}
    n_opened = 0
    for row in whole:
        # A copy that an erasure or retention removed cannot be read; its landing file may be.
        is_there = row["sha256"] in copies or "://" in row["path"]
        if is_there or (project / row["path"]).is_file():
            open_again(store, spec, row, now)
            n_opened += 1
        else:
            _note(store, spec, row, read_with=reading)
    rows = [_queued(stream, row, reading, now) for row in due if row["status"] != "quarantined"]
    return n_opened, rows


def open_again(store: Store, spec: ModelSpec, row: dict[str, Any], now: dt.datetime) -> None:
    """Make a refused file one that is still to be ingested; its copy stays until it is."""
    with store.state.begin() as conn:
        manifest.forget_refused(conn, spec.model, row["stream"], row["sha256"])
        manifest.update_file(
            conn, spec.model, row["stream"], row["sha256"], status="discovered", reason="",
            error="", attempts=0, rows_in=0, n_bad=0, again_at=now, finished_at=None,
        )  # fmt: skip


def _queued(stream: Stream, row: dict[str, Any], reading: str, now: dt.datetime) -> Queued:
    # What a crash interrupted goes on as it began, unless it is read differently by now.
    is_same = row["read_with"] == reading and row["again_at"] is not None
    moment = row["again_at"] if is_same else now
    size, mtime_ns = int(row["size_bytes"]), int(row["mtime_ns"])
    staged = Staged(stream, row["path"], None, row["sha256"], size, mtime_ns)
    return Queued(
        stream, row["path"], size, (mtime_ns, row["path"]), moment, int(row["attempts"]),
        staged=staged, kept=row["kept"], arrived=row["finished_at"],
    )  # fmt: skip


def stage_again(store: Store, spec: ModelSpec, item: Queued) -> Queued | None:
    """Write the refused rows of a file into the staging folder; None if none are kept any more."""
    assert item.staged is not None
    kept = kept_rows.read(kept_rows.folder_of(store, spec.model) / item.kept)
    if kept is None:
        row = {"stream": item.stream, "sha256": item.staged.sha256}
        _note(store, spec, row, kept="", again_at=None, read_with=reading_of(spec, item.stream))
        return None
    staged = replace(
        item.staged, again=Again(kept, item.first_seen, item.arrived or item.first_seen)
    )
    folder = staging_folder(store, spec.model, item.stream)
    folder.mkdir(parents=True, exist_ok=True)
    # Without the landing file's ending, which may promise a compression that this one has not.
    path = folder / f"{staged.log_id}.again"
    kept.write_as_landed(path)
    return item.with_copy(replace(staged, path=path, size=path.stat().st_size))


def replay_file(store: Store, spec: ModelSpec, sha256: str, *, now: dt.datetime) -> str:
    """Let a refused file, or the refused rows of one, be read by the next ingest once more.

    Args:
        store: The store.
        spec: The model, as corrected.
        sha256: The file's content hash, or its beginning.
        now: The moment that its event times may not lie ahead of.

    Returns:
        The file's name.

    Raises:
        ConfigError: If no such file, or more than one, begins with that hash.
    """
    with writer_lock(store.state, f"ingest/{spec.model}"):
        rows = [
            row
            for stream in ("predictions", "actuals")
            for row in manifest.with_refusals(store.state, spec.model, stream)
            if row["sha256"].startswith(sha256)
        ]
        if len(rows) != 1 or not sha256:
            raise ConfigError(
                f"{len(rows)} files of {spec.model} with something refused have a hash that begins "
                f"with {sha256!r}; expected exactly one. They are named by their hash in "
                f"{kept_rows.folder_of(store, spec.model)}."
            )
        if rows[0]["status"] == "quarantined":
            open_again(store, spec, rows[0], now)
        else:
            _note(store, spec, rows[0], read_with="")
    return str(rows[0]["path"])


def _note(store: Store, spec: ModelSpec, row: dict[str, Any], **values: object) -> None:
    with store.state.begin() as conn:
        manifest.update_file(conn, spec.model, row["stream"], row["sha256"], **values)
