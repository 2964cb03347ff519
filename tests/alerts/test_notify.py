"""When a group speaks: Alertmanager's order."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.alerts.messages.group_state import Told, distance
from mlmon_dagster.alerts.messages.incidents import News, choose_case


def told(firing: str = "", resolved: str = "") -> Told:
    return Told(frozenset(firing), frozenset(resolved))


@pytest.mark.parametrize(
    ("news", "kind"),
    [
        (News(told()), None),
        (News(told(), {"a"}), "opened"),
        (News(told(), {"a"}, missed={"b"}), "opened"),
        (News(told("a"), {"a", "b"}), "updated"),
        (News(told("a"), {"b"}, ended={"a"}), "updated"),
        (News(told("a"), {"b"}, ended_quietly={"a"}), "opened"),
        (News(told("a"), ended={"a"}), "resolved"),
        (News(told("a"), held={"a"}), None),
        (News(told("a"), ended_quietly={"a"}, quiet={"a"}), ""),
        (News(told("", "a")), None),
        (News(told("ab"), {"a"}, ended={"b"}), "updated"),
        (News(told("a", "b"), {"a"}), None),
        (News(told("a"), {"a"}), None),
        (News(told("a"), {"a"}, missed={"b"}, is_due=True), "resolved"),
        (News(told(), missed={"b"}), "resolved"),
        (News(told("a"), {"a"}, late={"b"}, is_due=True), "late"),
        (News(told("a"), {"a"}, is_due=True), "repeated"),
        (News(told("ab"), {"a"}, ended={"b"}, is_due=True), "updated"),
    ],
)
def test_a_group_speaks_for_the_first_case_that_holds(news: News, kind: str | None) -> None:
    case = choose_case(news)

    assert (case and case.kind) == kind


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
