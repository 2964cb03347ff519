"""Removing a model: its declaration, its rows and its folders, for good.

The declaration goes first, so that no process goes on with the model; then the rows in one
transaction, then one folder after the other. After a crash the same call deletes what is left.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.schema import METADATA, alert, alert_event, silence

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


def declaration_of(models: Path, model: str) -> Path:
    """Return the file that declares a model.

    Raises:
        ConfigError: If no file of the folder is named after it.
    """
    for ending in (".yaml", ".yml"):
        if (path := models / f"{model}{ending}").is_file():
            return path
    raise ConfigError(
        f"{models} has no {model}.yaml. This command deletes the declaration too, so the file must "
        "be named after its model. Delete one that is elsewhere by hand first."
    )


def folders_of(store: Store, model: str) -> list[Path]:
    """Return the folders that belong to a model: tables, quarantine, staging, index.

    Raises:
        StoreError: If the tables are in object storage, where this program deletes no model.
    """
    if not store.root.is_local:
        raise StoreError(
            f"The tables are in object storage ({store.root}), where this command deletes nothing. "
            f"Delete its declaration by hand, and the folders named {model} there with the "
            "bucket's own means."
        )
    kinds = {p for place in (store.root.path, store.folder) for p in place.iterdir() if p.is_dir()}
    return sorted(kind / model for kind in kinds if (kind / model).is_dir())


def count_rows(store: Store, model: str) -> dict[str, int]:
    """Return how many rows of the state database are a model's, by table; none left out."""
    with store.state.connect() as conn:
        counts = {
            table.name: conn.scalar(sa.select(sa.func.count()).select_from(table).where(mine))
            for table, mine in _rows_of(model)
        }
    return {name: int(n) for name, n in counts.items() if n}


def remove_model(
    store: Store, declaration: Path, model: str, *, author: str, now: datetime
) -> None:
    """Delete everything of a model, or what an interrupted removal has left of it.

    Its alerts have been ended by then. Silences that name it end.

    Args:
        store: The store.
        declaration: The model's file, which may be gone.
        model: Its name.
        author: Who removes it.
        now: When.
    """
    declaration.unlink(missing_ok=True)
    reached("remove.declaration")
    with store.state.begin() as conn:
        for table, mine in _rows_of(model):
            conn.execute(sa.delete(table).where(mine))
        for number in _silences_naming(conn, model):
            active = (silence.c.id == number, silence.c.ends_at > now)
            conn.execute(sa.update(silence).where(*active).values(ends_at=now, ended_by=author))
    reached("remove.rows")
    for folder in folders_of(store, model):
        shutil.rmtree(folder)
        reached("remove.folder")


def _rows_of(model: str) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Return the tables with rows of models, and which are this one's; events before alerts."""
    alerts = sa.select(alert.c.fingerprint).where(alert.c.model == model)
    tables = [METADATA.tables[name] for name in sorted(METADATA.tables)]
    return [
        (alert_event, alert_event.c.fingerprint.in_(alerts)),
        *((table, table.c.model == model) for table in tables if "model" in table.c),
    ]


def _silences_naming(conn: sa.Connection, model: str) -> list[int]:
    """Return the silences that name exactly this model."""
    rows = conn.execute(sa.select(silence.c.id, silence.c.matcher).order_by(silence.c.id))
    return [number for number, matcher in rows if json.loads(matcher).get("model") == model]
