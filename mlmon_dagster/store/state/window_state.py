"""Which inputs each window has, and which of them its metrics were computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import Window, closes_at, first_window
from mlmon_dagster.store.state.schema import window_state
from mlmon_dagster.store.state.statements import insert

if TYPE_CHECKING:
    pass


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
            "first_input_at": now,
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
            "first_input_at": sa.func.coalesce(
                window_state.c.first_input_at, statement.excluded.first_input_at
            ),
            "attempts": 0,
        },
    )
    conn.execute(statement, rows)


def mark_arrivals(
    conn: sa.Connection, spec: ModelSpec, arrivals: Mapping[Window, int], now: datetime
) -> set[Window]:
    """Mark windows that new rows touch; in a frozen window the rows are only counted.

    Args:
        conn: A write transaction, the one in which the ingested files become ``done``.
        spec: The windows' model.
        arrivals: Window -> rows and actuals that arrived for it.
        now: When.

    Returns:
        The windows that are frozen.
    """
    frozen = frozen_among(conn, spec, list(arrivals), now)
    mark_inputs(conn, spec, [window for window in arrivals if window not in frozen], now)
    late = [
        {"the_window": window.start, "n_late": arrivals[window]}
        for window in sorted(frozen)
        if arrivals[window]
    ]
    if late:
        table = window_state
        conn.execute(
            sa.update(table)
            .where(table.c.model == spec.model, table.c.window_start == sa.bindparam("the_window"))
            .values(n_late_after_close=table.c.n_late_after_close + sa.bindparam("n_late")),
            late,
        )
    return frozen


def frozen_among(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window], now: datetime
) -> set[Window]:
    """Return those of some windows that closed and were not reopened.

    A window that never had any rows is not frozen, and neither are the windows before production
    began, which belong to the baseline.
    """
    first = first_window(spec.time).start
    live = {window.start: window for window in windows if window.start >= first}
    if not live:
        return set()
    c = window_state.c
    query = sa.select(c.window_start, c.window_end, c.first_input_at).where(
        c.model == spec.model,
        c.window_start.between(min(live), max(live)),
        c.input_revision > 0,
        c.reopened_at.is_(None),
    )
    return {
        live[row.window_start]
        for row in conn.execute(query)
        if row.window_start in live and now >= closes_at(spec, row.window_end, row.first_input_at)
    }


def reopen(conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window], now: datetime) -> int:
    """Let frozen windows take in what arrived after they closed, and what still will.

    Returns:
        How many windows were frozen and are open now.
    """
    frozen = frozen_among(conn, spec, windows, now)
    late = [w for w in frozen if w.start in _with_late(conn, spec.model)]
    _set_reopened(conn, spec.model, frozen, now)
    mark_inputs(conn, spec, late, now)
    return len(frozen)


def close_again(conn: sa.Connection, spec: ModelSpec, windows: Sequence[Window]) -> int:
    """Freeze reopened windows again; return how many there were."""
    c = window_state.c
    query = sa.select(c.window_start).where(c.model == spec.model, c.reopened_at.is_not(None))
    reopened = set(conn.scalars(query))
    mine = {window for window in windows if window.start in reopened}
    _set_reopened(conn, spec.model, mine, None)
    return len(mine)


def _with_late(conn: sa.Connection, model: str) -> set[datetime]:
    c = window_state.c
    query = sa.select(c.window_start).where(c.model == model, c.n_late_after_close > 0)
    return set(conn.scalars(query))


def _set_reopened(
    conn: sa.Connection, model: str, windows: Iterable[Window], when: datetime | None
) -> None:
    rows = [{"the_window": window.start} for window in windows]
    if rows:
        conn.execute(
            sa.update(window_state)
            .where(
                window_state.c.model == model,
                window_state.c.window_start == sa.bindparam("the_window"),
            )
            .values(reopened_at=when),
            rows,
        )


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
