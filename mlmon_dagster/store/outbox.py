"""The outbox: messages to be sent, who is sending them, and what waits, piles up or was refused.

```
queued --claim--> sending --accepted--> sent
                     |--surely not posted--> queued      |--refused for good--> dead
                     '--cannot tell, or the lease ran out--> unknown --claim--> sending (look it up)
```
Before a worker calls the receiver it renews its lease, so that one which was frozen does not post
what another has taken over. While a channel fails, only messages of unclear fate are tried: asking
for them changes nothing, and what was never tried can still be summarised.
A row that a newer one has made pointless before it was sent is ``superseded``. Leases and due
times are real time by the clock of the database, so that a worker whose own clock is wrong takes
nobody's lease away, and are believed as `clocks` says; ``created_at`` is the time of the flush
that wrote the row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import sqlalchemy as sa

from mlmon_dagster.store.clocks import (
    LONGEST_LEASE,
    LONGEST_PAUSE,
    has_come,
    is_ahead,
    select_come,
    select_past,
)
from mlmon_dagster.store.state.schema import alert_group, channel_gate, outbox
from mlmon_dagster.store.state.sql import (
    Bind,
    Query,
    fetch,
    fetch_row,
    fetch_rows,
    fetch_value,
    fetch_values,
    insert_or_ignore,
    upsert,
)

AT_ONCE = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # due whatever the clocks say
UNSETTLED = ("queued", "sending", "unknown")
OUTAGE = "outage"  # the kind of a summary, and the end of its group
FAILING = 3  # failures in a row after which a channel counts as down
_NEWS = ("opened", "resolved", "late", "summary", OUTAGE)


class NewMessage(TypedDict):
    """One message for one place, as it is written into the outbox."""

    idempotency_key: str
    group_key: str
    queue: str
    receiver: str
    channel: str
    head_key: str
    kind: str
    payload: str
    created_at: dt.datetime


class OutboxRow(NewMessage):
    """A row of ``outbox``: a message, and what became of it."""

    id: int
    status: str
    attempts: int
    next_at: dt.datetime
    lease_owner: str
    lease_until: dt.datetime | None
    attempt_at: dt.datetime | None
    after_ts: str
    error: str
    slack_ts: str
    slack_channel: str
    sent_at: dt.datetime | None


@dataclass(frozen=True)
class Claim:
    """A row that this worker alone may act on until its lease runs out.

    Attributes:
        row: The outbox row.
        is_lookup: Whether an earlier attempt may have been accepted, so that the channel's
            history must be asked before anything is posted.
        head: The settled row that opened the thread; None for a row that opens one.
    """

    row: OutboxRow
    is_lookup: bool
    head: OutboxRow | None


def _fetch(bind: Bind, query: Query) -> list[OutboxRow]:
    return cast("list[OutboxRow]", fetch(bind, query))


def enqueue(conn: sa.Connection, rows: Sequence[NewMessage], due: dt.datetime = AT_ONCE) -> int:
    """Add messages, due at once or later; those whose idempotency key is known are left out."""
    return insert_or_ignore(conn, outbox, [{"next_at": due, **row} for row in rows])


def claim_next(
    engine: sa.Engine,
    *,
    owner: str,
    receivers: Sequence[str],
    now: dt.datetime,
    lease: dt.timedelta,
) -> Claim | None:
    """Lease the oldest message that may be sent now; None if there is none.

    A message waits for the earlier ones of its group, for the one that opened its thread, and for
    its channel's gate. Two workers never get the same row.

    Args:
        engine: The state database.
        owner: Unique name of this worker; settling is refused to anyone else.
        receivers: Names of the receivers that can be served.
        now: Real time.
        lease: Must be longer than a request may take; at most `LONGEST_LEASE`.
    """
    o, gate = outbox.c, channel_gate.c
    is_due = sa.or_(
        sa.and_(o.status == "sending", o.lease_until <= now),
        sa.and_(o.status != "sending", select_come(o.next_at, now, LONGEST_PAUSE)),
    )
    is_closed = ~select_come(gate.not_before, now, LONGEST_PAUSE)
    query = (  # of the key alone: what a long queue holds must not be sorted with it
        sa.select(o.id)
        .where(_is_one_of(o.status, *UNSETTLED), o.receiver.in_(receivers), is_due, *_in_turn())
        .where(~sa.exists().where(gate.channel == o.channel, is_closed))
        .order_by(o.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=outbox)
    )
    with engine.begin() as conn:
        _shorten_leases(conn, now)
        row_id = fetch_value(conn, query)
        if row_id is None:
            return None
        row = _fetch(conn, sa.select(outbox).where(o.id == row_id))[0]
        is_lookup = row["status"] != "queued"
        changes: dict[str, object] = {"lease_owner": owner, "lease_until": now + lease}
        if not is_lookup:
            changes |= {"attempts": row["attempts"] + 1, "attempt_at": now}
            changes["after_ts"] = _newest_ts(conn, row)
        conn.execute(outbox.update().where(o.id == row["id"]).values(status="sending", **changes))
        return Claim(
            row=cast("OutboxRow", {**row, **changes}),
            is_lookup=is_lookup,
            head=get_message(conn, row["head_key"]) if row["head_key"] else None,
        )


def _newest_ts(conn: sa.Connection, row: OutboxRow) -> str:
    """Return Slack's name of a channel's newest message, which is a time by Slack's clock."""
    if row["receiver"] != "slack":
        return ""
    o = outbox.c
    mine = (o.channel == row["channel"], o.receiver == row["receiver"], o.kind != "plot")
    query = sa.select(o.slack_ts).where(*mine, o.slack_ts != "")
    return fetch_value(conn, query.order_by(o.id.desc()).limit(1)) or ""


def searched_since(row: OutboxRow, now: dt.datetime) -> float:
    """Return from when on a channel is searched for a message, in seconds since 1970.

    That is the newest message before the attempt, by the clock of the channel itself; else the
    attempt, if it does not lie ahead of now; else everything is searched.
    """
    if row["after_ts"]:
        return float(row["after_ts"])
    attempt = row["attempt_at"] or row["created_at"]
    return 0.0 if is_ahead(attempt, now) else attempt.timestamp()


def _shorten_leases(conn: sa.Connection, now: dt.datetime) -> None:
    """Bring leases to the longest that can have been asked for: a living worker has that long."""
    o, latest = outbox.c, now + LONGEST_LEASE
    too_long = (_is_one_of(o.status, "sending"), o.lease_until > latest)
    if fetch_row(conn, sa.select(o.id).where(*too_long).limit(1)) is not None:
        conn.execute(outbox.update().where(*too_long).values(lease_until=latest))


def _is_one_of(status: sa.ColumnElement[str], *names: str) -> sa.ColumnElement[bool]:
    """Compare with names that are written out, as the partial indexes are declared."""
    return status.in_([sa.literal_column(f"'{name}'") for name in names])


def _in_turn() -> list[sa.ColumnElement[bool]]:
    """Leave out what waits for other messages, rather than for a time."""
    o, earlier, head = outbox.c, outbox.alias("earlier"), outbox.alias("head")
    summary = outbox.alias("summary")
    return [
        ~sa.exists().where(
            earlier.c.queue == o.queue,
            earlier.c.id < o.id,
            earlier.c.status.in_(UNSETTLED),
        ),
        ~sa.exists().where(
            head.c.idempotency_key == o.head_key,
            head.c.id != o.id,
            head.c.status.in_(UNSETTLED),
        ),
        # A summary is about many groups: what came before it goes first, what came after it later.
        ~sa.exists().where(
            summary.c.group_key == o.receiver + "|" + o.channel + f"|{OUTAGE}",
            summary.c.id < o.id,
            summary.c.status.in_(UNSETTLED),
        ),
        ~sa.and_(
            o.kind == OUTAGE,
            sa.exists().where(
                earlier.c.receiver == o.receiver,
                earlier.c.channel == o.channel,
                earlier.c.id < o.id,
                earlier.c.kind != "plot",
                earlier.c.status.in_(UNSETTLED),
            ),
        ),
        ~sa.and_(o.status == "queued", _is_down(o.channel), _has_unclear(o.receiver, o.channel)),
    ]


def _is_down(channel: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    gate = channel_gate.alias("failing").c
    return sa.exists().where(gate.channel == channel, gate.n_failures >= FAILING)


def _has_unclear(
    receiver: sa.ColumnElement[str], channel: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    other = outbox.alias("other")
    return sa.exists().where(
        other.c.receiver == receiver,
        other.c.channel == channel,
        other.c.kind != "plot",  # no text waits for a picture
        _is_one_of(other.c.status, "sending", "unknown"),
        other.c.attempts > 0,
    )


def next_due(engine: sa.Engine, receivers: Sequence[str]) -> dt.datetime | None:
    """Return the real time at which the next message may go, gates included; None if none waits.

    Messages that wait for others are not among them: their turn comes when those are settled.
    """
    o, gate = outbox.c, channel_gate.c
    due = sa.case((gate.not_before > o.next_at, gate.not_before), else_=o.next_at)
    query = (
        sa.select(sa.func.min(due))
        .select_from(outbox.outerjoin(channel_gate, gate.channel == o.channel))
        .where(o.status.in_(("queued", "unknown")), o.receiver.in_(receivers), *_in_turn())
    )
    return fetch_value(engine, query)


def settle(
    engine: sa.Engine,
    claim: Claim,
    status: str,
    *,
    copy: NewMessage | None = None,
    **values: object,
) -> bool:
    """Record how an attempt ended; False if the lease was lost to another worker.

    Args:
        engine: The state database.
        claim: What ``claim_next`` gave.
        status: ``sent``, ``queued``, ``unknown``, ``dead`` or ``superseded``.
        copy: A message that takes this one's place elsewhere, written in the same transaction.
        **values: Further columns, such as ``slack_ts``, ``error`` or ``next_at``.
    """
    changes = {"status": status, "lease_owner": "", "lease_until": None, **values}
    with engine.begin() as conn:
        is_ours = _change(conn, [_still_held(claim)], **changes) == 1
        if is_ours and copy is not None:
            enqueue(conn, [copy])
        return is_ours


def renew(engine: sa.Engine, claim: Claim, now: dt.datetime, lease: dt.timedelta) -> bool:
    """Extend a lease just before the call it is for; False if it has run out or was lost.

    That moment is also the one from which the channel's history is searched later.
    """
    held = [_still_held(claim), outbox.c.lease_until > now]
    with engine.begin() as conn:
        return _change(conn, held, lease_until=now + lease, attempt_at=now) == 1


def _change(conn: sa.Connection, which: Sequence[sa.ColumnElement[bool]], **values: object) -> int:
    """Set columns of some messages; return how many these are."""
    return conn.execute(outbox.update().where(*which).values(values)).rowcount


def _still_held(claim: Claim) -> sa.ColumnElement[bool]:
    """Match the claimed message while no other worker has taken it."""
    o = outbox.c
    row = claim.row
    return sa.and_(o.id == row["id"], o.lease_owner == row["lease_owner"], o.status == "sending")


def adopt(engine: sa.Engine, row_id: int, **values: object) -> bool:
    """Record a success that came after the lease was lost, if the row waits to be tried again.

    A row of unclear fate is left alone: whoever looks it up finds every copy.
    """
    o = outbox.c
    waiting = [o.id == row_id, o.status == "queued"]
    with engine.begin() as conn:
        return _change(conn, waiting, status="sent", error="", **values) == 1


def look_up_again(engine: sa.Engine, row_id: int, due: dt.datetime) -> bool:
    """Have a message looked up once more, as there may be a copy of it that nobody knows.

    Args:
        engine: The state database.
        row_id: Of the message, which was sent under a name that its receiver gave it, or is to be
            sent.
        due: When to look.

    Returns:
        False, and no change, if there is no such message.
    """
    o = outbox.c
    is_there = sa.or_(o.status == "queued", sa.and_(o.status == "sent", o.slack_ts != ""))
    with engine.begin() as conn:
        return _change(conn, [o.id == row_id, is_there], status="unknown", next_at=due) == 1


def known_channel_id(engine: sa.Engine, channel: str) -> str:
    """Return the id under which Slack last accepted a message for a channel; empty if never."""
    o = outbox.c
    query = sa.select(o.slack_channel).where(o.channel == channel, o.slack_channel != "")
    return fetch_value(engine, query.order_by(o.id.desc()).limit(1)) or ""


def last_of(conn: sa.Connection, group_key: str) -> int:
    """Return the number of a group's last message; 0 if there is none."""
    last = sa.select(sa.func.max(outbox.c.id)).where(outbox.c.group_key == group_key)
    return fetch_value(conn, last) or 0


def get_message(bind: Bind, key: str | int) -> OutboxRow | None:
    """Return a message as it is now, by its idempotency key or its number; None if it is gone."""
    column = outbox.c.id if isinstance(key, int) else outbox.c.idempotency_key
    return next(iter(_fetch(bind, sa.select(outbox).where(column == key))), None)


def supersede_unsent_thread(conn: sa.Connection, head_key: str) -> bool:
    """Withdraw a whole thread that nobody has seen; False, and no change, if it may be seen.

    Only a head that surely was not posted (``queued``) can be withdrawn.
    """
    o = outbox.c
    head = [o.idempotency_key == head_key, o.status == "queued"]
    if not _change(conn, head, status="superseded"):
        return False
    _change(conn, [o.head_key == head_key, o.status == "queued"], status="superseded")
    return True


def take_back(conn: sa.Connection, group_key: str) -> list[OutboxRow]:
    """Withdraw what waits in a group and surely was not posted; return it."""
    o = outbox.c
    is_news = o.kind.not_in(("acknowledged", "repeated"))
    waiting = [o.group_key == group_key, o.status == "queued", is_news]
    rows = _fetch(conn, sa.select(outbox).where(*waiting).order_by(o.id))
    _change(conn, waiting, status="superseded")
    return [row for row in rows if row["kind"] != "head"]


def supersede_head_updates(conn: sa.Connection, head_key: str) -> dt.datetime:
    """Withdraw the waiting updates of a head that a newer update makes pointless.

    Returns:
        When the newer one may go: not before the last of the others would have been tried again,
        since a request that was given up may still be on its way.
    """
    o = outbox.c
    waiting = [o.head_key == head_key, o.kind == "head", o.status == "queued"]
    last = fetch_value(conn, sa.select(sa.func.max(o.next_at)).where(*waiting))
    _change(conn, waiting, status="superseded")
    return last or AT_ONCE


def get_row(engine: sa.Engine, row_id: int) -> OutboxRow | None:
    """Return one message as it is now; None if it is gone."""
    with engine.connect() as conn:
        return next(iter(_fetch(conn, sa.select(outbox).where(outbox.c.id == row_id))), None)


def withdraw_test(engine: sa.Engine, idempotency_key: str) -> None:
    """Take back a test message that has not been delivered, whatever became of it."""
    o = outbox.c
    unsent = [o.idempotency_key == idempotency_key, o.status.in_((*UNSETTLED, "dead"))]
    with engine.begin() as conn:
        _change(conn, unsent, status="superseded", lease_owner="", lease_until=None)


def count_outcome(engine: sa.Engine, channel: str, *, is_failure: bool) -> int:
    """Count a channel's failures in a row; return how many they are now.

    Args:
        engine: The state database.
        channel: The channel.
        is_failure: Whether the call failed; an answer of any kind ends the row.
    """
    gate = channel_gate.c
    query = sa.select(gate.n_failures).where(gate.channel == channel)
    if not is_failure and not fetch_value(engine, query):
        return 0  # nearly always: no need to wait for the right to write
    with engine.begin() as conn:
        known = fetch_value(conn, query)
        if known is None:
            if not is_failure:
                return 0
            upsert(conn, channel_gate, [{"channel": channel, "not_before": AT_ONCE}])
        after = (known or 0) + 1 if is_failure else 0
        if after != known:
            statement = channel_gate.update().where(gate.channel == channel)
            conn.execute(statement.values(n_failures=after))
        return after


def close_gate(engine: sa.Engine, channel: str, now: dt.datetime, pause: dt.timedelta) -> None:
    """Let no worker post to a channel for some real time; an earlier opening time is ignored."""
    until = now + min(pause, LONGEST_PAUSE)
    with engine.begin() as conn:
        gate = sa.select(channel_gate.c.not_before).where(channel_gate.c.channel == channel)
        known = fetch_value(conn, gate)
        if known is None or known < until or has_come(known, now, LONGEST_PAUSE):
            upsert(conn, channel_gate, [{"channel": channel, "not_before": until}])


def channels_down(engine: sa.Engine, since: dt.datetime, now: dt.datetime) -> list[tuple[str, str]]:
    """Return (receiver, channel) of what fails and has a message waiting since a time."""
    o, gate = outbox.c, channel_gate.c
    query = (
        sa.select(o.receiver, o.channel)
        .join(channel_gate, gate.channel == o.channel)
        .where(gate.n_failures >= FAILING, o.status == "queued", o.kind.in_(_NEWS))
        .where(select_past(o.created_at, since, now))
        .distinct()
    )
    return sorted((receiver, channel) for receiver, channel in fetch_rows(engine, query))


def models_waiting(conn: sa.Connection, receiver: str, channel: str) -> list[str]:
    """Return the models with a group at a place."""
    g = alert_group.c
    query = sa.select(g.model).where(g.receiver == receiver, g.channel == channel).distinct()
    return sorted(fetch_values(conn, query))


def unseen_threads(conn: sa.Connection, receiver: str, channel: str) -> list[OutboxRow]:
    """Return the queued messages that would open a thread at a place, oldest first."""
    o = outbox.c
    there = (o.receiver == receiver, o.channel == channel)
    opening = (o.status == "queued", o.head_key == "", o.kind.in_(_NEWS))
    return _fetch(conn, sa.select(outbox).where(*there, *opening).order_by(o.id))


def waiting_replies(conn: sa.Connection, head_keys: Sequence[str]) -> list[OutboxRow]:
    """Return the queued answers in some threads, oldest first; plots are none."""
    o = outbox.c
    answers = (o.head_key.in_(head_keys), o.status == "queued", o.kind != "plot")
    return _fetch(conn, sa.select(outbox).where(*answers).order_by(o.id))


def kind_of(conn: sa.Connection, idempotency_key: str) -> str:
    """Return the kind of a message; empty if there is none of that key."""
    query = sa.select(outbox.c.kind).where(outbox.c.idempotency_key == idempotency_key)
    return fetch_value(conn, query) or ""


@dataclass(frozen=True)
class OutboxHealth:
    """What waits and what failed.

    Attributes:
        n_waiting: Rows not yet settled.
        n_dead: Rows that were refused for good.
        oldest_waiting_at: When the oldest of the waiting rows was written; None if none waits.
        last_error: Error of the newest dead row, else of the oldest waiting row with one.
        last_sent_at: Real time of the last success.
    """

    n_waiting: int
    n_dead: int
    oldest_waiting_at: dt.datetime | None
    last_error: str
    last_sent_at: dt.datetime | None


def dead_letters(engine: sa.Engine) -> list[OutboxRow]:
    """Return the messages that were refused for good, newest first."""
    query = sa.select(outbox).where(outbox.c.status == "dead").order_by(outbox.c.id.desc())
    return _fetch(engine, query)


def requeue_dead(conn: sa.Connection, ids: Sequence[int]) -> int:
    """Give dead messages another chance as they are; return how many."""
    return _change_dead(conn, ids, status="queued", next_at=AT_ONCE, attempts=0)


def supersede_dead(conn: sa.Connection, ids: Sequence[int]) -> int:
    """Take dead messages out of the way, for others say what they said; return how many."""
    return _change_dead(conn, ids, status="superseded")


def _change_dead(conn: sa.Connection, ids: Sequence[int], **values: object) -> int:
    o = outbox.c
    return sum(_change(conn, [o.id == row_id, o.status == "dead"], **values) for row_id in ids)


def outbox_health(engine: sa.Engine) -> OutboxHealth:
    """Return what waits and what failed, for a check that people see."""
    o = outbox.c
    waiting, dead = o.status.in_(UNSETTLED), o.status == "dead"
    counts = sa.select(
        sa.func.count().filter(waiting),
        sa.func.count().filter(dead),
        sa.func.min(o.created_at).filter(waiting),
        sa.func.max(o.sent_at),
    )
    error = (
        sa.select(o.error)
        .where(o.error != "", sa.or_(waiting, dead))
        .order_by(dead.desc(), sa.case((dead, -o.id), else_=o.id))
        .limit(1)
    )
    with engine.connect() as conn:
        n_waiting, n_dead, oldest, last_sent = conn.execute(counts).one()
        return OutboxHealth(n_waiting, n_dead, oldest, conn.scalar(error) or "", last_sent)
