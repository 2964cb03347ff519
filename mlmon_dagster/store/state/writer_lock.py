"""One writer at a time: a lease in the state database."""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state.schema import writer_lock as lock_table
from mlmon_dagster.store.state.statements import insert_or_ignore


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
    engine: sa.Engine, name: str, *, wait_seconds: float = 600, lease_seconds: float = 60
) -> Iterator[Lease]:
    """Hold the lock ``name`` while the block runs; the lease is renewed in the background.

    A holder that died is displaced: at once if it ran on this host, else when its lease ends.
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
    deadline = time.monotonic() + wait_seconds
    while not _take(engine, name, owner, lease_seconds):
        if time.monotonic() >= deadline:
            raise BusyError(f"{_holder(engine, name)}; waited {wait_seconds:g} s for it.")
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
    row = {
        "name": name,
        "owner": owner,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "expires_at": _after(lease_seconds),
    }
    with engine.begin() as conn:
        held = conn.execute(sa.select(lock_table).where(lock_table.c.name == name)).first()
        if held is not None:
            if held.expires_at > datetime.now(UTC) and not process_died(held.host, held.pid):
                return False
            # Compared by owner, so that of two who displace a dead holder only one goes on.
            conn.execute(
                sa.delete(lock_table).where(
                    lock_table.c.name == name, lock_table.c.owner == held.owner
                )
            )
        return insert_or_ignore(conn, lock_table, [row]) == 1


def _renew(
    engine: sa.Engine, lease: Lease, owner: str, lease_seconds: float, released: Event
) -> None:
    mine = (lock_table.c.name == lease.name, lock_table.c.owner == owner)
    pause = lease_seconds / 3
    while not released.wait(pause):
        until = time.monotonic() + lease_seconds
        try:
            with engine.begin() as conn:
                renewed = sa.update(lock_table).where(*mine)
                is_ours = conn.execute(renewed.values(expires_at=_after(lease_seconds))).rowcount
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


def _holder(engine: sa.Engine, name: str) -> str:
    with engine.connect() as conn:
        held = conn.execute(sa.select(lock_table).where(lock_table.c.name == name)).first()
    if held is None:
        return f"The lock {name!r} was always taken by others"
    return (
        f"The lock {name!r} is held by process {held.pid} on {held.host} "
        f"until {held.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    )


def _after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
