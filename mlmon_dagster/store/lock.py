"""One writer at a time: a lease in the state database."""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.schema import writer_lock as lock_table
from mlmon_dagster.store.upsert import insert_or_ignore


class BusyError(StoreError):
    """Another process holds the lock."""


@contextmanager
def writer_lock(
    engine: sa.Engine, name: str, *, wait_seconds: float = 600, lease_seconds: float = 60
) -> Iterator[None]:
    """Hold the lock ``name`` while the block runs; the lease is renewed in the background.

    A holder that died is displaced: at once if it ran on this host, else when its lease ends.
    Not reentrant.

    Args:
        engine: The state database.
        name: What is locked, such as ``ingest/<model>``.
        wait_seconds: How long to wait for another holder.
        lease_seconds: How long a holder on another host is believed to live without renewing.

    Raises:
        BusyError: If the lock was not free in time; it names the holder.
    """
    owner = uuid.uuid4().hex
    deadline = time.monotonic() + wait_seconds
    while not _take(engine, name, owner, lease_seconds):
        if time.monotonic() >= deadline:
            raise BusyError(f"{_holder(engine, name)}; waited {wait_seconds:g} s for it.")
        time.sleep(random.uniform(0.02, 0.2))
    released = Event()
    renewing = Thread(
        target=_renew, args=(engine, name, owner, lease_seconds, released), daemon=True
    )
    renewing.start()
    try:
        yield
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


def _renew(engine: sa.Engine, name: str, owner: str, lease_seconds: float, released: Event) -> None:
    while not released.wait(lease_seconds / 3):
        with engine.begin() as conn:
            conn.execute(
                sa.update(lock_table)
                .where(lock_table.c.name == name, lock_table.c.owner == owner)
                .values(expires_at=_after(lease_seconds))
            )


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
