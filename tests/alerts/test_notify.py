"""When a group speaks: Alertmanager's order."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.alerts.messages.group_state import Reason, Told, distance, needs_update

NOW = dt.datetime(2024, 1, 10, tzinfo=dt.UTC)
REPEAT = dt.timedelta(hours=24)


def told(firing: str = "", resolved: str = "", hours_ago: float = 1) -> Told:
    return Told(frozenset(firing), frozenset(resolved), NOW - dt.timedelta(hours=hours_ago))


@pytest.mark.parametrize(
    ("log", "firing", "resolved", "reason"),
    [
        (None, "", "", None),
        (None, "a", "", "first"),
        (None, "", "a", None),
        (told(""), "a", "", "first"),
        (told("a"), "ab", "", "new_alerts"),
        (told("a"), "b", "a", "new_alerts"),
        (told("a"), "", "a", "all_resolved"),
        (told("", "a"), "", "a", None),
        (told("ab"), "a", "b", "some_resolved"),
        (told("a", "b"), "a", "b", None),
        (told("a"), "a", "", None),
        (told("a", hours_ago=23.9), "a", "", None),
        (told("a", hours_ago=24), "a", "", "repeat"),
        (told("", hours_ago=99), "", "", None),
        (told("ab", hours_ago=99), "a", "b", "some_resolved"),
        (Told(frozenset("a")), "a", "", "repeat"),
    ],
)
def test_a_group_speaks_for_the_first_reason_that_holds(
    log: Told | None, firing: str, resolved: str, reason: Reason | None
) -> None:
    assert needs_update(log, set(firing), set(resolved), now=NOW, repeat=REPEAT) == reason


DAY, WEEK = dt.timedelta(days=1), dt.timedelta(weeks=1)


@pytest.mark.parametrize(
    ("window", "least", "days"),
    [
        (DAY, DAY, [1, 3, 7, 15, 45, 75, 105]),
        (dt.timedelta(hours=1), DAY, [1, 3, 7, 15, 45, 75, 105]),
        (WEEK, DAY, [7, 21, 49, 105, 315, 525, 735]),
        (DAY, 6 * DAY, [8, 38, 68, 98, 128, 158, 188]),
    ],
    ids=["days", "hours", "weeks", "a declared least distance"],
)
def test_reminders_come_at_growing_distances(
    window: dt.timedelta, least: dt.timedelta, days: list[int]
) -> None:
    distances = [distance(n, window, least) for n in range(len(days))]

    assert [sum(distances[: n + 1], dt.timedelta(0)).days for n in range(len(days))] == days
