import datetime as dt
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store
from mlmon_dagster.store.clocks import LONGEST_LEASE
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state import writing as locks
from mlmon_dagster.store.state.writing import Lease, writer_lock


def hold_as(store: Store, host: str, pid: int, seconds: float) -> None:
    """Leave a lease behind, as a process that holds it or died with it would."""
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    row = {"name": "a", "owner": "other", "host": host, "pid": pid, "expires_at": expires_at}
    with store.state.begin() as conn:
        conn.execute(sa.insert(schema.writer_lock).values(row))


def holders(store: Store) -> list[Any]:
    with store.state.connect() as conn:
        return list(conn.execute(sa.select(schema.writer_lock.c.name)).scalars())


def test_a_lock_is_free_again_after_its_block(any_store: Store) -> None:
    with writer_lock(any_store.state, "a"), writer_lock(any_store.state, "b"):
        assert sorted(holders(any_store)) == ["a", "b"]
    with pytest.raises(ZeroDivisionError), writer_lock(any_store.state, "a"):
        raise ZeroDivisionError
    assert holders(any_store) == []


def test_a_held_lock_is_waited_for_and_then_refused_by_name(any_store: Store) -> None:
    hold_as(any_store, "elsewhere", 42, 60)
    with (
        pytest.raises(StoreError, match="'a' is held by process 42 on elsewhere"),
        writer_lock(any_store.state, "a", wait_seconds=0),
    ):
        raise AssertionError


def test_a_lease_that_ended_is_taken_over(any_store: Store) -> None:
    hold_as(any_store, "elsewhere", 42, -1)
    with writer_lock(any_store.state, "a", wait_seconds=0):
        assert holders(any_store) == ["a"]


def test_a_holder_that_died_on_this_host_is_displaced_at_once(any_store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold_as(any_store, socket.gethostname(), dead.pid, 3600)
    with writer_lock(any_store.state, "a", wait_seconds=0):
        assert holders(any_store) == ["a"]


def test_only_one_of_many_holds_a_lock_at_a_time(any_store: Store) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with writer_lock(any_store.state, "a"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@contextmanager
def failing_renewals(engine: sa.Engine, n: int) -> Iterator[None]:
    """Let the first n renewals of a lease fail as if the connection had gone."""
    left = [n]

    def fail(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("UPDATE writer_lock") and left[0] > 0:
            left[0] -= 1
            raise sa.exc.OperationalError(statement, {}, Exception("connection reset by peer"))

    sa.event.listen(engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", fail)


def expiry(store: Store) -> dt.datetime:
    with store.state.connect() as conn:
        found: dt.datetime = conn.scalar(sa.select(schema.writer_lock.c.expires_at))
    return found


def test_no_end_of_a_lease_is_believed_beyond_the_longest_that_is_asked_for(
    any_store: Store,
) -> None:
    hold_as(any_store, "elsewhere", 42, 365 * 86_400)
    with (
        pytest.raises(StoreError, match="is held by process 42 on elsewhere"),
        writer_lock(any_store.state, "a", wait_seconds=0),
    ):
        raise AssertionError
    left = expiry(any_store) - dt.datetime.now(dt.UTC)
    assert left <= LONGEST_LEASE


def test_who_waits_is_told_once_who_holds_the_lock(
    any_store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "TOLD_AFTER", 0.1)
    hold_as(any_store, "elsewhere", 42, 1)

    with writer_lock(any_store.state, "a", wait_seconds=30):
        pass

    [told] = [record.getMessage() for record in caplog.records]
    assert "held by process 42 on elsewhere" in told


def test_renewing_goes_on_after_errors_of_the_database(any_store: Store) -> None:
    engine = any_store.state
    with failing_renewals(engine, 2), writer_lock(engine, "a", lease_seconds=0.6) as lease:
        first, deadline = expiry(any_store), time.monotonic() + 30
        while expiry(any_store) == first and not lease.is_lost:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not lease.is_lost


def test_a_holder_that_cannot_renew_its_lease_is_told(any_store: Store) -> None:
    engine = any_store.state
    with (
        pytest.raises(StoreError, match="'a' was lost"),
        failing_renewals(engine, 10**6),
        writer_lock(engine, "a", lease_seconds=0.3) as lease,
    ):
        await_loss(lease)
    with pytest.raises(StoreError, match="run the command again"):
        lease.check()


def test_a_holder_whose_lock_was_taken_over_is_told(any_store: Store) -> None:
    def hold() -> None:
        with writer_lock(any_store.state, "a", lease_seconds=0.3) as lease:
            with any_store.state.begin() as conn:
                conn.execute(sa.update(schema.writer_lock).values(owner="other"))
            await_loss(lease)

    with pytest.raises(StoreError, match="'a' was lost"):
        hold()
    assert holders(any_store) == ["a"]  # the other's


def await_loss(lease: Lease) -> None:
    deadline = time.monotonic() + 30
    while not lease.is_lost:
        assert time.monotonic() < deadline
        time.sleep(0.02)
