"""Which message told which event of an alert, and what nobody has been told yet."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable

import sqlalchemy as sa

from mlmon_dagster.store.alerting.alert_state import ACTIVE
from mlmon_dagster.store.state.schema import alert, alert_event, alert_group, outbox

_BATCH = 500  # values per IN (...)
# Written out, as the partial index is declared.
_UNTOLD = sa.text(
    "alert_event.message_key = '' AND alert_event.muted_reason = ''"
    " AND alert_event.kind <> 'acknowledged'"
)


def models_to_flush(engine: sa.Engine) -> list[str]:
    """Return the models with something to tell.

    An alert is active, or a receiver believes so, or has not been told of what is over.
    """
    g, same = alert_group.c, alert.c.fingerprint == alert_event.c.fingerprint
    firing = sa.select(alert.c.model).where(alert.c.state.in_(ACTIVE))
    told = sa.select(g.model).where(sa.or_(g.firing != "[]", g.owed != "[]"))
    untold = sa.select(alert.c.model).join(alert_event, same).where(_UNTOLD)
    with engine.connect() as conn:
        return sorted(conn.scalars(firing.union(told, untold)))


def models_of(conn: sa.Connection, fingerprints: Collection[str]) -> list[str]:
    """Return the models of some alerts."""
    wanted = sorted(fingerprints)
    found: set[str] = set()
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        query = sa.select(alert.c.model).where(alert.c.fingerprint.in_(batch))
        found.update(conn.scalars(query))
    return sorted(found)


def untold_episodes(conn: sa.Connection, model: str) -> dict[str, set[int]]:
    """Return the episodes with an unmuted event that is in no message, by fingerprint."""
    e = alert_event.c
    query = (
        sa.select(e.fingerprint, e.episode)
        .join(alert, alert.c.fingerprint == e.fingerprint)
        .where(_UNTOLD, alert.c.model == model)
        .distinct()
    )
    found: dict[str, set[int]] = {}
    for fingerprint, episode in conn.execute(query):
        found.setdefault(fingerprint, set()).add(episode)
    return found


def mark_told(conn: sa.Connection, episodes: Iterable[tuple[str, int]], message_key: str) -> None:
    """Record that a message tells all that has happened in some episodes so far."""
    e = alert_event.c
    for fingerprint, episode in episodes:
        mine = (e.fingerprint == fingerprint, e.episode == episode, e.message_key == "")
        conn.execute(alert_event.update().where(*mine).values(message_key=message_key))


def mute_untold(conn: sa.Connection, episodes: Iterable[tuple[str, int]], reason: str) -> None:
    """Record why what nobody was told of some episodes will not be told."""
    e = alert_event.c
    for fingerprint, episode in episodes:
        mine = (e.fingerprint == fingerprint, e.episode == episode, _UNTOLD)
        conn.execute(alert_event.update().where(*mine).values(muted_reason=reason))


def hand_over(
    conn: sa.Connection,
    head_key: str,
    message_key: str,
    *,
    episodes: Iterable[tuple[str, int]] | None = None,
) -> None:
    """Let a message take the place of a thread that was withdrawn: it tells what that told.

    Args:
        conn: The transaction.
        head_key: The message that opened the thread.
        message_key: The message that takes its place.
        episodes: What that tells; None for all that the thread told.
    """
    o = outbox.c
    withdrawn = sa.select(o.idempotency_key).where(
        sa.or_(o.idempotency_key == head_key, o.head_key == head_key), o.status == "superseded"
    )
    if episodes is not None:
        retell(conn, episodes, list(conn.scalars(withdrawn)), message_key)
        return
    told_there = alert_event.c.message_key.in_(withdrawn)
    conn.execute(alert_event.update().where(told_there).values(message_key=message_key))


def retell(
    conn: sa.Connection,
    episodes: Iterable[tuple[str, int]],
    message_keys: Collection[str],
    message_key: str,
) -> None:
    """Let a message take the place of some others as far as they told of some episodes."""
    e = alert_event.c
    for fingerprint, episode in episodes:
        mine = (e.fingerprint == fingerprint, e.episode == episode)
        keys = sorted(message_keys)
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            there = alert_event.update().where(*mine, e.message_key.in_(batch))
            conn.execute(there.values(message_key=message_key))


def count_untold(engine: sa.Engine, models: Collection[str], before: dt.datetime) -> int:
    """Count the unmuted events from before a time that no message tells of.

    A message that was withdrawn tells nothing; what takes its place does.

    Args:
        engine: The state database.
        models: Whose events.
        before: Younger events may still wait for the next flush of their group.
    """
    e, o = alert_event.c, outbox.c
    withdrawn = sa.exists().where(o.idempotency_key == e.message_key, o.status == "superseded")
    query = (
        sa.select(sa.func.count())
        .select_from(alert_event.join(alert, alert.c.fingerprint == e.fingerprint))
        .where(
            alert.c.model.in_(models),
            e.kind != "acknowledged",
            e.muted_reason == "",
            e.created_at < before,
            sa.or_(e.message_key == "", withdrawn),
        )
    )
    with engine.connect() as conn:
        return conn.scalar(query) or 0
