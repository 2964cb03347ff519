"""Whether a group of alerts has something new to say; the order is Alertmanager's.

Unlike there, what fired and ended between two looks is told: nobody may have been looking.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

Reason = Literal["first", "new_alerts", "all_resolved", "some_resolved", "missed", "repeat"]


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
        repeat: How long an unchanged group stays silent.

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
