"""Marks, a row each: since when rows are kept, which keys are fixed, who last did work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.changes import Held, fixed_values, refused_changes
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.clocks import is_ahead
from mlmon_dagster.store.state.schema import declared_key, heartbeat, retention_mark
from mlmon_dagster.store.state.sql import insert_or_ignore, upsert

DISPATCHER = "dispatcher"
_UPKEEP = "upkeep/"  # and the model


def rows_from(engine: sa.Engine, model: str) -> dict[str, datetime]:
    """Return dataset -> start of its oldest window that still has all its rows.

    Datasets of which nothing was deleted are absent. Numbers of older windows cannot be computed
    again and stay as they are.
    """
    c = retention_mark.c
    with engine.connect() as conn:
        query = sa.select(c.dataset, c.rows_from).where(c.model == model)
        return {row.dataset: row.rows_from for row in conn.execute(query)}


def move_rows_from(
    conn: sa.Connection, model: str, dataset: str, moment: datetime, now: datetime
) -> None:
    """Note, before they are deleted, that rows of earlier windows go; it moves no mark back."""
    c = retention_mark.c
    known = conn.scalar(sa.select(c.rows_from).where(c.model == model, c.dataset == dataset))
    if known is None or known < moment:
        _write_rows_from(conn, model, dataset, moment, now)


def _write_rows_from(
    conn: sa.Connection, model: str, dataset: str, moment: datetime, now: datetime
) -> None:
    row = {"model": model, "dataset": dataset, "rows_from": moment, "deleted_at": now}
    upsert(conn, retention_mark, [row])


def marks_ahead(engine: sa.Engine, model: str, now: datetime) -> dict[str, datetime]:
    """Return dataset -> mark of rows_from that lies ahead of now, so that nothing is computed."""
    return {d: mark for d, mark in rows_from(engine, model).items() if is_ahead(mark, now)}


def check_marks(engine: sa.Engine, model: str, now: datetime) -> None:
    """Refuse to compute a model of which a mark lies ahead of now.

    Raises:
        StoreError: With the marks, and the command that moves them back.
    """
    if ahead := marks_ahead(engine, model, now):
        raise StoreError(describe_marks(model, ahead, now))


def describe_marks(model: str, ahead: Mapping[str, datetime], now: datetime) -> str:
    """Say which marks lie ahead of now, what follows from it, and what to do."""
    marks = ", ".join(f"{moment:%Y-%m-%d} ({dataset})" for dataset, moment in ahead.items())
    return (
        f"Rows of {model} count as deleted by retention up to {marks}, which lies ahead of now, "
        f"{now:%Y-%m-%d %H:%M} UTC, so that no window of it would be computed. If this clock is "
        "right, the mark was set by a clock that was ahead; move it back with: "
        f"mlmon store repair {model}"
    )


def move_marks(
    conn: sa.Connection, model: str, marks: Mapping[str, datetime], now: datetime
) -> None:
    """Move marks of rows_from, back too: a clock that was ahead has set them."""
    for dataset, moment in marks.items():
        _write_rows_from(conn, model, dataset, moment, now)


def check_declared(engine: sa.Engine, spec: ModelSpec) -> None:
    """Refuse a spec that does not fit the events that are stored.

    Raises:
        ConfigError: With every key that changed and may not, and the way to do it.
    """
    if problems := changed_keys(engine, spec):
        lines = "\n".join(f"  {key} {said}" for key, said in problems)
        raise ConfigError(
            f"models/{spec.model}.yaml was changed in a way that its stored events do not allow:\n"
            f"{lines}\nUntil then nothing of it is read or computed. "
            "docs/spec.md lists what may change."
        )


def changed_keys(engine: sa.Engine, spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the keys of a spec that do not fit the events that are stored, and what to do."""
    c = declared_key.c
    with engine.connect() as conn:
        query = sa.select(c.key, c.value).where(c.model == spec.model)
        stored = {key: value for key, value in conn.execute(query)}
    return list(refused_changes(spec, stored))


def remember_declared(
    conn: sa.Connection, spec: ModelSpec, held: Sequence[Held], now: datetime
) -> None:
    """Note what events rest on, in the transaction that takes them in; what is known stays."""
    rows = [
        {"model": spec.model, "key": key, "value": value, "since": now}
        for key, value in fixed_values(spec, *held).items()
    ]
    insert_or_ignore(conn, declared_key, rows)


def beat(engine: sa.Engine, name: str, at: dt.datetime, note: str = "") -> None:
    """Record that a part has just done its work."""
    with engine.begin() as conn:
        upsert(conn, heartbeat, [{"name": name, "beat_at": at, "note": note}])


def beats(engine: sa.Engine) -> dict[str, dt.datetime]:
    """Return when each part last did its work; parts that never did are absent."""
    with engine.connect() as conn:
        query = sa.select(heartbeat.c.name, heartbeat.c.beat_at)
        query = query.where(~heartbeat.c.name.startswith(_UPKEEP))
        return {name: at for name, at in conn.execute(query)}


def beat_upkeep(engine: sa.Engine, model: str, at: dt.datetime, machine: dt.datetime) -> None:
    """Record when a model's upkeep looked at the clock, and what the machine's said then."""
    beat(engine, _UPKEEP + model, at, machine.isoformat())


def last_upkeep(engine: sa.Engine, model: str) -> tuple[dt.datetime, dt.datetime] | None:
    """Return what the clock and the machine's said at a model's last upkeep; None without one."""
    at, machine = last_beat(engine, _UPKEEP + model), last_note(engine, _UPKEEP + model)
    return (at, dt.datetime.fromisoformat(machine)) if at is not None and machine else None


def last_note(engine: sa.Engine, name: str) -> str | None:
    """Return what a part noted when it last did its work; None if it never did."""
    with engine.connect() as conn:
        return conn.scalar(sa.select(heartbeat.c.note).where(heartbeat.c.name == name))


def last_beat(engine: sa.Engine, name: str) -> dt.datetime | None:
    """Return when a part last did its work; None if it never did."""
    with engine.connect() as conn:
        return conn.scalar(sa.select(heartbeat.c.beat_at).where(heartbeat.c.name == name))
