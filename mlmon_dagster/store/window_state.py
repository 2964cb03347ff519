"""Which inputs each window has, and which of them its metrics were computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.frames import read_frame
from mlmon_dagster.store.schema import window_state
from mlmon_dagster.store.upsert import insert

if TYPE_CHECKING:
    import pandas as pd


def mark_inputs(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window], now: datetime
) -> None:
    """Raise the input revision of windows by one; unknown windows begin at revision 1.

    Args:
        conn: A write transaction, the one in which the ingested files become ``done``.
        spec: The windows' model.
        windows: Windows that new rows or actuals touch; repeated ones count once.
        now: When.
    """
    rows = [
        {
            "model": spec.model,
            "window_start": window.start,
            "window_end": window.end,
            "input_revision": 1,
            "input_at": now,
        }
        for window in sorted(set(windows))
    ]
    if not rows:
        return
    statement = insert(conn, window_state)
    statement = statement.on_conflict_do_update(
        index_elements=["model", "window_start"],
        set_={
            "input_revision": window_state.c.input_revision + 1,
            "input_at": statement.excluded.input_at,
            "attempts": 0,
        },
    )
    conn.execute(statement, rows)


def mark_computed(conn: sa.Connection, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note what windows were computed from.

    Args:
        conn: A write transaction.
        model: The windows' model.
        rows: Mappings, all with the same keys: ``window_start`` and any of computed_revision,
            computed_at, maturity, data_version, n, n_actual, n_bad, attempts. A window without
            inputs needs ``window_end`` as well, since its row is made.
    """
    if not rows:
        return
    changed = [name for name in rows[0] if name not in ("model", "window_start")]
    if "window_end" in rows[0]:
        statement = insert(conn, window_state)
        statement = statement.on_conflict_do_update(
            index_elements=["model", "window_start"],
            set_={name: statement.excluded[name] for name in changed},
        )
        conn.execute(statement, [{**row, "model": model} for row in rows])
        return
    update = (
        sa.update(window_state)
        .where(
            window_state.c.model == model,
            window_state.c.window_start == sa.bindparam("the_window"),
        )
        .values({name: sa.bindparam(f"new_{name}") for name in changed})
    )
    conn.execute(
        update,
        [
            {"the_window": row["window_start"], **{f"new_{name}": row[name] for name in changed}}
            for row in rows
        ],
    )


def list_windows(engine: sa.Engine, model: str) -> pd.DataFrame:
    """Return all windows of a model that have a state, oldest first.

    Returns:
        The columns of ``window_state``; times are UTC. Without windows, no rows.
    """
    query = sa.select(window_state).where(window_state.c.model == model)
    return read_frame(engine, query.order_by(window_state.c.window_start))
