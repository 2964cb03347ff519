"""What is known of a model's registered versions, and how the last look at the registry went."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from pydantic import BaseModel

from mlmon_dagster.store.clocks import select_past
from mlmon_dagster.store.mlflow_registry import Version
from mlmon_dagster.store.state.model_history import note_event
from mlmon_dagster.store.state.schema import registry_state
from mlmon_dagster.store.state.statements import insert_or_ignore

AUTHOR: Final = "MLflow"


class Move(BaseModel):
    """An alias was seen to name a version, or none any more (an empty one)."""

    alias: str
    version: str
    at: dt.datetime


class Known(BaseModel):
    """Versions and moves of aliases, oldest first.

    Attributes:
        name: The registered model; of another one nothing here holds.
        address: Where the registry is, for links; it holds no secret.
        versions: Those that an alias has named, or that were asked for, by their number.
    """

    name: str = ""
    address: str = ""
    versions: dict[str, Version] = {}
    moves: tuple[Move, ...] = ()

    def now(self, alias: str) -> str:
        """Return the version that an alias names, empty if it names none."""
        return next((move.version for move in reversed(self.moves) if move.alias == alias), "")

    def since(self, alias: str) -> dt.datetime | None:
        """Return when an alias was first seen to name what it names; None if it names nothing."""
        found = [move for move in self.moves if move.alias == alias]
        return found[-1].at if found and found[-1].version else None

    def at(self, alias: str, start: dt.datetime, end: dt.datetime) -> str:
        """Return the version that an alias named throughout a window; empty if nobody can tell.

        Before the first look it is that look's, if it was registered before the window.
        """
        mine = [move for move in self.moves if move.alias == alias]
        before = [move.version for move in mine if move.at <= start]
        within = [move for move in mine if start < move.at < end]
        if before and not within:
            return before[-1]
        if before or not mine:
            return ""
        first = self.versions.get(mine[0].version)
        is_one = not within or within == mine[:1]
        return first.number if first and is_one and first.created_at <= start else ""


@dataclass(frozen=True)
class RegistryLook:
    """The last look at a model's registry.

    Attributes:
        looked_at: When, by the real clock.
        problem: Why it found nothing out; empty if it did.
        known: What is known by now, of this look or of earlier ones.
    """

    looked_at: dt.datetime
    problem: str
    known: Known


def last_look(engine: sa.Engine, model: str) -> RegistryLook | None:
    """Return what is known of a model's versions; None before the first look."""
    c = registry_state.c
    with engine.connect() as conn:
        query = sa.select(c.looked_at, c.problem, c.known).where(c.model == model)
        row = conn.execute(query).first()
    if row is None:
        return None
    return RegistryLook(row.looked_at, row.problem, Known.model_validate_json(row.known))


def is_away(engine: sa.Engine, server: str, since: dt.datetime, now: dt.datetime) -> bool:
    """Tell whether a server has lately let another model's look wait in vain."""
    c = registry_state.c
    away = (c.server == server, c.is_away, ~select_past(c.looked_at, since, now))
    with engine.connect() as conn:
        return conn.execute(sa.select(c.model).where(*away).limit(1)).first() is not None


def note_problem(
    engine: sa.Engine, model: str, server: str, problem: str, now: dt.datetime, *, away: bool
) -> None:
    """Write down that a look failed, or a tag could not be written; what is known stays."""
    row = {"server": server, "looked_at": now, "problem": problem, "is_away": away}
    c = registry_state.c
    with engine.begin() as conn:
        insert_or_ignore(conn, registry_state, [{"model": model, **row}])
        conn.execute(sa.update(registry_state).where(c.model == model).values(row))


def note_known(
    engine: sa.Engine,
    model: str,
    server: str,
    before: Known,
    after: Known,
    now: dt.datetime,
) -> None:
    """Write down what a look found, and an event for each move; of two at once, the first counts.

    Args:
        engine: The state database.
        model: The model.
        server: The variable that holds the registry's address.
        before: What was known.
        after: What is known now, with ``before`` in it.
        now: The real time of the look.
    """
    c = registry_state.c
    row = {"server": server, "looked_at": now, "problem": "", "is_away": False}
    blank = Known().model_dump_json()
    with engine.begin() as conn:
        insert_or_ignore(conn, registry_state, [{"model": model, "known": blank, **row}])
        same = (c.model == model, c.known == before.model_dump_json())
        values = {**row, "known": after.model_dump_json()}
        if not conn.execute(sa.update(registry_state).where(*same).values(values)).rowcount:
            return
        for n, move in enumerate(after.moves):
            if n < len(before.moves):
                continue
            earlier = Known(moves=after.moves[:n]).now(move.alias)
            note_event(
                conn,
                model,
                f"alias {move.alias}",
                author=AUTHOR,
                note=_told(after.versions.get(move.version), move.version, earlier),
                now=move.at,
            )


def _told(version: Version | None, number: str, before: str) -> str:
    moved = f"version {number}" if number else "no version"
    moved += f", before version {before}" if before else ""
    where = version.text() if version is not None else ""
    return f"{moved}; {where}" if where else moved
