"""Whether a group of alerts has something new to say; the order is Alertmanager's.

Unlike there, what fired and ended between two looks is told: nobody may have been looking. And
reminders follow news: they come after a window that has been judged since, at growing distances.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

Reason = Literal["first", "new_alerts", "all_resolved", "some_resolved", "missed", "repeat"]

DISTANCES = (1, 2, 4, 8, 30)  # of the reminders in a thread; the last one goes on
_DAY = dt.timedelta(days=1)


def distance(n_reminders: int, window: dt.timedelta, least: dt.timedelta) -> dt.timedelta:
    """Return how long after a thread's last message the next reminder may come.

    Args:
        n_reminders: How many the thread has had.
        window: Length of a window; the distances are counted in these, or in days if it is shorter.
        least: The declared least distance, ``alerts.repeat``; shorter ones are left out.
    """
    unit = max(window, _DAY)
    far = [times * unit for times in DISTANCES if times * unit >= least] or [least]
    return far[min(n_reminders, len(far) - 1)]


@dataclass(frozen=True)
class Told:
    """The notification log: what a receiver was last told about a group.

    Attributes:
        firing: Keys of the alerts that were announced and not yet resolved.
        resolved: Keys whose end was announced in the same thread.
        at: When; None if never.
    """

    firing: frozenset[str] = frozenset()
    resolved: frozenset[str] = frozenset()
    at: dt.datetime | None = None


def needs_update(
    told: Told | None,
    firing: Set[str],
    resolved: Set[str],
    *,
    missed: Set[str] = frozenset(),
    now: dt.datetime,
    repeat: dt.timedelta,
) -> Reason | None:
    """Decide whether to notify, and why.

    Args:
        told: What was said last; None for a group never notified about.
        firing: Keys of the alerts firing now.
        resolved: Keys of the alerts that ended.
        missed: Episodes that began and ended without anybody having been told.
        now: The time of this flush.
        repeat: How long an unchanged group stays silent, see `distance`.

    Returns:
        The first reason that holds, in this order; None to stay silent.
    """
    told = told or Told()
    if not firing <= told.firing:
        return "new_alerts" if told.firing else "first"
    if not firing and told.firing:
        return "all_resolved"
    if firing and not resolved <= told.resolved:
        return "some_resolved"
    if missed:
        return "missed"
    if not firing:
        return None
    return "repeat" if told.at is None or told.at <= now - repeat else None
