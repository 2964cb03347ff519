"""A model under another name: its folders and its rows, one step after the other.

Meanwhile the declaration is parked, so that no process takes the half-renamed model for a new
one. Every step can be repeated; a rename that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.schema import model_event, silence
from mlmon_dagster.store.upkeep.export import tables_of_models

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

RENAMED = "renamed"


def declaration_of(models: Path, model: str) -> Path:
    """Return the file that declares a model.

    Raises:
        ConfigError: If no file of the folder is named after it.
    """
    for ending in (".yaml", ".yml"):
        if (path := models / f"{model}{ending}").is_file():
            return path
    raise ConfigError(
        f"{models} has no {model}.yaml. This command changes the declaration too, so the file "
        "must be named after its model; one that is declared elsewhere is renamed there."
    )


def parked(declaration: Path) -> Path:
    """Return where a declaration waits while its model is being moved: no YAML file any more."""
    return declaration.with_name(f"{declaration.name}.parked")


def folders_of(store: Store, model: str) -> list[Path]:
    """Return the folders that belong to a model: tables, quarantine, staging, index.

    Raises:
        StoreError: If the tables are in object storage, where nothing can be moved at once.
    """
    if not store.root.is_local:
        raise StoreError(
            f"The tables are in object storage ({store.root}), where a folder cannot be moved. "
            "Declare the model under its new name beside the old one instead."
        )
    kinds = {p for place in (store.root.path, store.folder) for p in place.iterdir() if p.is_dir()}
    return sorted(kind / model for kind in kinds if (kind / model).is_dir())


def count_rows(store: Store, model: str) -> dict[str, int]:
    """Return how many rows of the state database are a model's, by table; none left out."""
    with store.state.connect() as conn:
        counts = {
            table.name: conn.scalar(
                sa.select(sa.func.count()).select_from(table).where(table.c.model == model)
            )
            for table in tables_of_models()
        }
    return {name: int(n) for name, n in counts.items() if n}


def pending_rename(store: Store, old: str, new: str) -> bool:
    """Tell whether a rename of these two names was begun and not finished."""
    c = model_event.c
    query = sa.select(c.id).where(
        c.kind == RENAMED, c.other == old, c.model == new, c.finished_at.is_(None)
    )
    with store.state.connect() as conn:
        return conn.scalar(query) is not None


def rename_model(
    store: Store,
    declaration: Path,
    text: str,
    names: tuple[str, str],
    rename_alerts: Callable[[sa.Connection, str, str], object],
    *,
    author: str,
    now: datetime,
) -> None:
    """Move everything of a model to its new name, or go on with what was interrupted.

    Args:
        store: The store.
        declaration: The file of the old name; parked already if this goes on.
        text: What the file of the new name is to hold.
        names: The old and the new name.
        rename_alerts: Changes the alerts, in the transaction that changes all other rows.
        author: Who does it.
        now: When.
    """
    old, new = names
    if not pending_rename(store, old, new):
        with store.state.begin() as conn:
            conn.execute(
                model_event.insert().values(
                    model=new, kind=RENAMED, other=old, author=author,
                    note=f"before: {old}", happened_at=now,
                )
            )  # fmt: skip
    reached("rename.noted")
    if declaration.exists():
        declaration.rename(parked(declaration))
    reached("rename.parked")
    for folder in folders_of(store, old):
        move(folder, folder.with_name(new))
        reached("rename.folder")
    with store.state.begin() as conn:
        rename_alerts(conn, old, new)
        for table in tables_of_models():
            conn.execute(sa.update(table).where(table.c.model == old).values(model=new))
        _rename_silences(conn, old, new)
    reached("rename.rows")
    write_whole(declaration.with_name(f"{new}{declaration.suffix}"), text)
    reached("rename.declared")
    parked(declaration).unlink(missing_ok=True)
    c = model_event.c
    with store.state.begin() as conn:
        conn.execute(
            sa.update(model_event)
            .where(c.kind == RENAMED, c.other == old, c.model == new, c.finished_at.is_(None))
            .values(finished_at=now)
        )


def silences_naming(conn: sa.Connection, model: str) -> list[tuple[int, dict[str, str]]]:
    """Return the silences that name exactly this model: their ids and labels."""
    rows = conn.execute(sa.select(silence.c.id, silence.c.matcher).order_by(silence.c.id))
    found = [(int(number), json.loads(matcher)) for number, matcher in rows]
    return [(number, labels) for number, labels in found if labels.get("model") == model]


def _rename_silences(conn: sa.Connection, old: str, new: str) -> None:
    for number, labels in silences_naming(conn, old):
        matcher = json.dumps({**labels, "model": new}, sort_keys=True)
        conn.execute(sa.update(silence).where(silence.c.id == number).values(matcher=matcher))


def move(source: Path, target: Path) -> None:
    """Move a folder, also to another disk; repeated after a crash it finishes what was begun."""
    partial = target.with_name(f".{target.name}.partial")
    if target.exists():  # copied whole by a run that died before it removed the source
        shutil.rmtree(source)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
        partial.rename(target)
        shutil.rmtree(source)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
