"""One writer at a time: a lease in the state database. And the named steps of writing.

The end of a lease that is stored is believed no further than the longest lease that anybody asks
for, see `clocks`: a clock that was a year ahead once would otherwise hold a lock for a year.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.clocks import LONGEST_LEASE, read_clock
from mlmon_dagster.store.state.schema import writer_lock as lock_table
from mlmon_dagster.store.state.sql import insert_or_ignore

TOLD_AFTER: Final = 5.0
_TOLD_AGAIN: Final = 60.0
_LOG = logging.getLogger(__name__)
Held = sa.Row[tuple[str, str, str, int, datetime]]


class BusyError(StoreError):
    """Another process holds the lock."""


@dataclass
class Lease:
    """What the holder of a lock has.

    Attributes:
        name: What is locked.
        ends: Until when it is held for sure, by the monotonic clock.
        is_lost: Whether it ended without having been renewed, or another process has it.
    """

    name: str
    ends: float
    is_lost: bool = False

    def check(self) -> None:
        """Raise StoreError if the lock is lost; a holder asks before a new piece of work."""
        if self.is_lost:
            raise StoreError(
                f"The lock {self.name!r} was lost: the state database could not be reached for the "
                "length of its lease, or another process took it over. What was begun is whole or "
                "not there; run the command again."
            )


@contextmanager
def writer_lock(
    engine: sa.Engine,
    name: str,
    *,
    wait_seconds: float = 600,
    lease_seconds: float = LONGEST_LEASE.total_seconds(),
) -> Iterator[Lease]:
    """Hold the lock ``name`` while the block runs; the lease is renewed in the background.

    A holder that died is displaced: at once if it ran on this host, else when its lease ends. Who
    waits for longer than five seconds logs a warning that names the holder.
    While the database cannot be reached, renewing is tried again until the lease is over. A block
    that outlives its lease does not end well. Not reentrant.

    Args:
        engine: The state database.
        name: What is locked, such as ``ingest/<model>``.
        wait_seconds: How long to wait for another holder.
        lease_seconds: How long a holder on another host is believed to live without renewing.

    Raises:
        BusyError: If the lock was not free in time; it names the holder.
        StoreError: At the end of the block, if the lock was lost in it.
    """
    owner = uuid.uuid4().hex
    begun = time.monotonic()
    told_at = begun + TOLD_AFTER
    while not _take(engine, name, owner, lease_seconds):
        if (now := time.monotonic()) >= told_at:
            _LOG.warning("Waiting for %s", _describe_holder(engine, name))
            told_at = now + _TOLD_AGAIN
        if now >= begun + wait_seconds:
            raise BusyError(f"{_describe_holder(engine, name)}; waited {wait_seconds:g} s for it.")
        time.sleep(random.uniform(0.02, 0.2))
    released, lease = Event(), Lease(name, time.monotonic() + lease_seconds)
    renewing = Thread(
        target=_renew, args=(engine, lease, owner, lease_seconds, released), daemon=True
    )
    renewing.start()
    try:
        yield lease
        lease.check()
    finally:
        released.set()
        renewing.join()
        with engine.begin() as conn:
            conn.execute(
                sa.delete(lock_table).where(lock_table.c.name == name, lock_table.c.owner == owner)
            )


def _take(engine: sa.Engine, name: str, owner: str, lease_seconds: float) -> bool:
    with engine.begin() as conn:
        now = read_clock(conn)
        held = conn.execute(sa.select(lock_table).where(lock_table.c.name == name)).first()
        if held is not None:
            if held.expires_at > now and not process_died(held.host, held.pid):
                _shorten(conn, held, now)
                return False
            _remove(conn, held)
        row = {
            "name": name,
            "owner": owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "expires_at": now + timedelta(seconds=lease_seconds),
        }
        return insert_or_ignore(conn, lock_table, [row]) == 1


def _shorten(conn: sa.Connection, held: Held, now: datetime) -> None:
    """Bring the end of a lease to what can have been asked for; a living holder renews it."""
    latest = now + LONGEST_LEASE
    if held.expires_at > latest:
        same = (lock_table.c.name == held.name, lock_table.c.owner == held.owner)
        conn.execute(sa.update(lock_table).where(*same).values(expires_at=latest))


def _remove(conn: sa.Connection, held: Held) -> None:
    # Compared by owner, so that of two who displace a dead holder only one goes on.
    same = (lock_table.c.name == held.name, lock_table.c.owner == held.owner)
    conn.execute(sa.delete(lock_table).where(*same))


def _renew(
    engine: sa.Engine, lease: Lease, owner: str, lease_seconds: float, released: Event
) -> None:
    mine = (lock_table.c.name == lease.name, lock_table.c.owner == owner)
    pause = lease_seconds / 3
    while not released.wait(pause):
        until = time.monotonic() + lease_seconds
        try:
            with engine.begin() as conn:
                ends = read_clock(conn) + timedelta(seconds=lease_seconds)
                renewed = sa.update(lock_table).where(*mine)
                is_ours = conn.execute(renewed.values(expires_at=ends)).rowcount
        except (SQLAlchemyError, StoreError):
            pause = lease_seconds / 30
            if time.monotonic() < lease.ends:
                continue
            is_ours = 0
        if not is_ours:
            lease.is_lost = True
            return
        lease.ends, pause = until, lease_seconds / 3


def process_died(host: str, pid: int) -> bool:
    """Tell whether a process of this machine has ended; of another machine nobody knows."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # it lives and belongs to someone else
    return False


def _describe_holder(engine: sa.Engine, name: str) -> str:
    with engine.connect() as conn:
        held = conn.execute(sa.select(lock_table).where(lock_table.c.name == name)).first()
    if held is None:
        return f"The lock {name!r} was always taken by others"
    return (
        f"The lock {name!r} is held by process {held.pid} on {held.host} "
        f"until {held.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    )


on_reached: Callable[[str], None] | None = None  # tests stop a process at a step that is named


def reached(step: str) -> None:
    """Tell the hook, if there is one, that a step of a writing path was reached."""
    if on_reached is not None:
        on_reached(step)
