"""Events that people added, beside those of the spec."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.known_events import KnownEvent
from mlmon_dagster.store.state.schema import known_event
from mlmon_dagster.store.state.sql import fetch_rows


@dataclass(frozen=True)
class StoredEvent:
    """An event that somebody added.

    Attributes:
        event: What is known.
        author: Who added it.
        added_at: When; None of one that the spec declares.
    """

    event: KnownEvent
    author: str
    added_at: dt.datetime | None


def load_stored(conn: sa.Connection, model: str) -> list[StoredEvent]:
    """Return the events that were added to a model, oldest first."""
    query = sa.select(known_event).where(known_event.c.model == model).order_by(known_event.c.id)
    return [
        StoredEvent(KnownEvent.model_validate_json(row.declared), row.author, row.added_at)
        for row in fetch_rows(conn, query)
    ]


def load_known(conn: sa.Connection, spec: ModelSpec) -> list[KnownEvent]:
    """Return all events of a model: those of its spec, then those that were added."""
    return [*spec.events, *(stored.event for stored in load_stored(conn, spec.model))]


def add_event(
    conn: sa.Connection,
    model: str,
    event: KnownEvent,
    author: str,
    now: dt.datetime,
    declared: Iterable[KnownEvent] = (),
) -> None:
    """Add an event to a model.

    Args:
        conn: A transaction.
        model: Name of the model.
        event: What is known.
        author: Who says so.
        now: When.
        declared: The events of its spec.

    Raises:
        ConfigError: If it has one of that name.
    """
    known = [*declared, *(stored.event for stored in load_stored(conn, model))]
    if event.name in {one.name for one in known}:
        raise ConfigError(
            f"{model} has an event {event.name!r} already. Give this one another name, or remove "
            f"that one: mlmon event remove {model} {event.name!r}"
        )
    text = event.model_dump_json(by_alias=True)
    row = {"model": model, "declared": text, "author": author, "added_at": now}
    conn.execute(sa.insert(known_event), [row])


def remove_event(conn: sa.Connection, spec: ModelSpec, name: str) -> None:
    """Take back an event that was added; windows that it explained are not told again.

    Raises:
        ConfigError: If none of that name was added.
    """
    query = sa.select(known_event).where(known_event.c.model == spec.model)
    rows = fetch_rows(conn, query)
    mine = [row.id for row in rows if json.loads(row.declared)["name"] == name]
    if not mine:
        is_declared = name in {event.name for event in spec.events}
        where = "It stands in the model's file." if is_declared else "mlmon event list shows them."
        raise ConfigError(f"No event {name!r} was added to {spec.model}. {where}")
    conn.execute(sa.delete(known_event).where(known_event.c.id.in_(mine)))
