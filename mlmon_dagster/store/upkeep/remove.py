"""Removed models: everything of them waits in a folder beside the store until its time is up.

A removal and its undoing can be repeated after a crash at any point: the declaration is parked
first, rows are exported whole before they are deleted, and folders move one at a time.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.model_events import note_event
from mlmon_dagster.store.state.schema import alert, alert_event, silence
from mlmon_dagster.store.upkeep.export import export_rows, import_rows, tables_of_models
from mlmon_dagster.store.upkeep.rename import (
    count_rows,
    folders_of,
    move,
    parked,
    silences_naming,
    write_whole,
)

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

_NOTE = "removed.json"


@dataclass(frozen=True)
class Removed:
    """A model in the trash.

    Attributes:
        folder: Where everything of it is.
        is_whole: Whether the removal came to its end; if not, the same command finishes it.
        n_rows: Rows of the state database.
        n_bytes: Of all its files.
    """

    model: str
    folder: Path
    removed_at: datetime
    purge_at: datetime
    author: str
    is_whole: bool
    n_rows: int
    n_bytes: int


def trash_of(store: Store) -> Path:
    """Return the folder of removed models: beside the store, so that nothing there reads it."""
    return store.root.path.with_name(f"{store.root.path.name}-trash")


def removed_models(store: Store) -> list[Removed]:
    """Return what is in the trash, oldest first."""
    if not store.root.is_local:
        return []
    notes = sorted(trash_of(store).glob(f"*/{_NOTE}"))
    found = [_read(note) for note in notes]
    return sorted(found, key=lambda removed: removed.removed_at)


def _read(note: Path) -> Removed:
    said = json.loads(note.read_text())
    files = (p for p in note.parent.rglob("*") if p.is_file())
    return Removed(
        said["model"],
        note.parent,
        datetime.fromisoformat(said["removed_at"]),
        datetime.fromisoformat(said["purge_at"]),
        said["author"],
        said["is_whole"],
        said["n_rows"],
        sum(path.stat().st_size for path in files),
    )


def find_removed(store: Store, model: str) -> Removed | None:
    """Return the newest removal of a model; None if it is not in the trash."""
    mine = [removed for removed in removed_models(store) if removed.model == model]
    return mine[-1] if mine else None


def remove_model(
    store: Store,
    declaration: Path,
    model: str,
    kept_for: timedelta,
    *,
    author: str,
    now: datetime,
) -> Removed:
    """Move everything of a model into the trash, or go on with what was interrupted.

    Its alerts have been ended by then. Silences that name it end.

    Args:
        store: The store.
        declaration: The model's file; parked already if this goes on.
        model: Its name.
        kept_for: After so long the daily upkeep deletes it for good.
        author: Who removes it.
        now: When.
    """
    before = find_removed(store, model)
    if before is None or before.is_whole:
        folder = trash_of(store) / f"{model}-{now:%Y%m%dT%H%M%SZ}"
        folder.mkdir(parents=True)
        note = {"model": model, "removed_at": now.isoformat(), "author": author,
                "purge_at": (now + kept_for).isoformat(), "is_whole": False,
                "declaration": declaration.name,
                "n_rows": sum(count_rows(store, model).values())}  # fmt: skip
        write_whole(folder / _NOTE, json.dumps(note))
    else:
        folder = before.folder
    if declaration.exists():
        declaration.rename(parked(declaration))
    reached("remove.parked")
    if not (folder / "state").exists():
        _export(store, model, folder)
    reached("remove.exported")
    with store.state.begin() as conn:
        _delete_rows(conn, model)
        for number, _ in silences_naming(conn, model):
            mine = (silence.c.id == number, silence.c.ends_at > now)
            conn.execute(sa.update(silence).where(*mine).values(ends_at=now, ended_by=author))
    reached("remove.rows")
    for source in folders_of(store, model):
        kind = source.parent.relative_to(_place_of(store, source))
        move(source, folder / "folders" / kind)
        reached("remove.folder")
    if parked(declaration).exists():
        parked(declaration).rename(folder / declaration.name)
    said = json.loads((folder / _NOTE).read_text())
    write_whole(folder / _NOTE, json.dumps({**said, "is_whole": True}))
    return _read(folder / _NOTE)


def _place_of(store: Store, folder: Path) -> Path:
    return store.root.path if folder.is_relative_to(store.root.path) else store.folder


def _export(store: Store, model: str, folder: Path) -> None:
    partial = folder / ".state.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with store.state.connect() as conn:
        for table in tables_of_models():
            export_rows(conn, table, partial / f"{table.name}.jsonl", model)
        events = _events_of(model)
        export_rows(conn, alert_event, partial / f"{alert_event.name}.jsonl", where=events)
    partial.rename(folder / "state")


def _events_of(model: str) -> sa.ColumnElement[bool]:
    mine = sa.select(alert.c.fingerprint).where(alert.c.model == model)
    return alert_event.c.fingerprint.in_(mine)


def _delete_rows(conn: sa.Connection, model: str) -> None:
    conn.execute(sa.delete(alert_event).where(_events_of(model)))
    for table in tables_of_models():
        conn.execute(sa.delete(table).where(table.c.model == model))


def restore_model(
    store: Store, models: Path, removed: Removed, *, author: str, now: datetime
) -> int:
    """Bring a removed model back; return how many rows of state that were.

    Ended silences and alerts stay ended; everything else is as it was.

    Raises:
        ConfigError: If its removal was not finished, or another model has its name by now.
    """
    model, folder = removed.model, removed.folder
    if not removed.is_whole:
        raise ConfigError(f"The removal of {model} was interrupted. Finish it first: "
                          f"mlmon model remove {model} --yes")  # fmt: skip
    said: dict[str, Any] = json.loads((folder / _NOTE).read_text())
    target = models / said["declaration"]
    begun = folder / "restoring"
    if not begun.exists():
        if target.exists() or count_rows(store, model) or folders_of(store, model):
            raise ConfigError(
                f"There is a model {model} again, in {models} or in the store. Rename that one "
                f"first: mlmon model rename {model} OTHER"
            )
        begun.touch()
    for source in sorted(p for p in (folder / "folders").glob("*") if p.is_dir()):
        move(source, store.root.path / source.name / model)
        reached("restore.folder")
    n_rows = 0
    with store.state.begin() as conn:
        # In one transaction: what a crash interrupted is not there, what was done is done again.
        conn.execute(sa.delete(alert_event).where(_events_of(model)))
        for table in tables_of_models():
            conn.execute(sa.delete(table).where(table.c.model == model))
        for table in [*tables_of_models(), alert_event]:
            path = folder / "state" / f"{table.name}.jsonl"
            if path.exists():
                n_rows += import_rows(conn, table, path, keep_ids=False)
        note = f"removed at {removed.removed_at:%Y-%m-%d %H:%M} UTC"
        note_event(conn, model, "restored", author=author, note=note, now=now)
    reached("restore.rows")
    if (folder / said["declaration"]).exists():
        write_whole(target, (folder / said["declaration"]).read_text())
    shutil.rmtree(folder)
    return n_rows


def purge(removed: Removed) -> None:
    """Delete a removed model for good."""
    shutil.rmtree(removed.folder)


def purge_expired(store: Store, now: datetime, *, dry_run: bool = False) -> list[Removed]:
    """Delete for good the removed models whose time is up; return them."""
    due = [removed for removed in removed_models(store) if removed.purge_at <= now]
    for removed in [] if dry_run else due:
        purge(removed)
    return due
