"""What a stored moment is worth, although clocks jump.

Every table with a moment that something waits for, or is decided by, asks here. docs/guarantees.md
lists them.

- A moment to wait for is believed up to now and the longest wait that its kind can ask for. What
  lies beyond was written by a clock that was ahead, and its time has come.
- A moment of the past that lies ahead of now was written by such a clock, too. It counts as long
  past, so that nothing waits for it.
- Nothing is deleted because the clock says so, see `Ages`.

Machines whose clocks differ by up to `SKEW` are well. On PostgreSQL the server's clock counts
wherever processes share a moment, so that of the machines does not matter.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

SKEW: Final = dt.timedelta(minutes=5)
LONGEST_LEASE: Final = dt.timedelta(seconds=60)  # of a lock, or of a message while it is sent
LONGEST_PAUSE: Final = dt.timedelta(hours=1)  # of a channel or a message; a server may ask for it
CLOCK: Final = "mlmon_clock"  # the execution option of an engine that holds the machine's clock
_LONG: Final = dt.timedelta(days=36_500)

Clock = Callable[[], dt.datetime]


def read_machine_clock() -> dt.datetime:
    """Return the time by the clock of this machine."""
    return dt.datetime.now(dt.UTC)


def read_clock(bind: sa.Engine | sa.Connection) -> dt.datetime:
    """Return the time by the clock that processes share: the server's, on SQLite the machine's.

    Args:
        bind: The state database, or a connection to it.
    """
    if isinstance(bind, sa.Engine):
        with bind.connect() as conn:
            return read_clock(conn)
    if bind.dialect.name == "postgresql":
        found: dt.datetime = bind.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return found.astimezone(dt.UTC)
    return machine_clock_of(bind)()


def machine_clock_of(bind: sa.Engine | sa.Connection) -> Clock:
    """Return the machine's clock that a state database was opened with."""
    found: Clock = bind.get_execution_options().get(CLOCK, read_machine_clock)
    return found


def has_come(due: dt.datetime, now: dt.datetime, longest: dt.timedelta) -> bool:
    """Tell whether a moment to wait for has come, or could not have been asked for.

    Args:
        due: What is waited for.
        now: The present moment.
        longest: The longest wait of this kind.
    """
    return due <= now or due > now + longest


def select_come(
    due: sa.ColumnElement[dt.datetime], now: dt.datetime, longest: dt.timedelta
) -> sa.ColumnElement[bool]:
    """Say in SQL what `has_come` says."""
    return sa.or_(due <= now, due > now + longest)


def is_ahead(moment: dt.datetime, now: dt.datetime) -> bool:
    """Tell whether a moment that has been lies in the future, by more than clocks may differ."""
    return moment > now + SKEW


def measure_age(moment: dt.datetime, now: dt.datetime) -> dt.timedelta:
    """Return how long a moment has been past; a hundred years if it lies in the future."""
    return _LONG if is_ahead(moment, now) else now - moment


def select_past(
    moment: sa.ColumnElement[dt.datetime], limit: dt.datetime, now: dt.datetime
) -> sa.ColumnElement[bool]:
    """Say in SQL that a moment lies at or before a limit, or in the future and so long past."""
    return sa.or_(moment <= limit, moment > now + SKEW)


@dataclass(frozen=True)
class Ages:
    """From when the ages of what is to be deleted are counted, and why from then.

    Attributes:
        now: The earliest of the clock, the newest events and an earlier look at the clock.
        why: What holds it back from the clock, in words; empty if nothing does.
    """

    now: dt.datetime
    why: str = ""


def count_ages(
    now: dt.datetime, newest_event: dt.datetime | None, earlier: dt.datetime | None
) -> Ages | None:
    """Decide from when ages are counted: a clock alone deletes nothing.

    Args:
        now: What the clock says.
        newest_event: When the newest event was; None if there is none.
        earlier: What the clock said at an earlier look; None if there was none.

    Returns:
        The earliest of the three; None if one is not known, so that nothing has an age.
    """
    if newest_event is None or earlier is None:
        return None
    limit = min(newest_event, earlier)
    if limit >= now:
        return Ages(now)
    what = "the newest events" if newest_event <= earlier else "the look at the clock before this"
    return Ages(limit, f"ages are counted from {limit:%Y-%m-%d %H:%M} UTC, when {what} was")
