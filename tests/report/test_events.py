"""What happened to a model is marked in its charts; its page explains the incident's windows."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape

import pytest

from mlmon_dagster.report.charts import Chart, Event, Line, place_events
from mlmon_dagster.report.events import find_events
from mlmon_dagster.report.health import health_report
from mlmon_dagster.report.incident import find_period, pick_labelled
from mlmon_dagster.report.page import Places
from mlmon_dagster.store import baselines
from mlmon_dagster.store.state.model_history import Change, note_changes, note_event
from mlmon_dagster.tables.alerts import list_alerts, pick_standing
from tests.report.worlds import DAY, NOW, START, World, build


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which a version was replaced, a baseline promoted, a column renamed."""
    world = build(tmp_path_factory.mktemp("events"), replaced=5)
    renamed = Change("renamed", "age", "years", "age")
    period = (START, START + 3 * DAY)
    with world.store.state.begin() as conn:
        note_changes(
            conn, "credit", "predictions", [renamed],
            sha256="sha", path="landing/new.csv", window_start=START + 2 * DAY, now=NOW,
        )  # fmt: skip
        note_event(conn, "credit", "reopened", author="ana", note="4 windows", now=START + 4 * DAY)
        baselines.promote_baseline(
            conn, "credit", period, "id", author="bob", note="new prices", now=NOW
        )
    yield world
    world.store.close()


def test_versions_baselines_columns_and_people_are_events_of_their_windows(told: World) -> None:
    found = find_events(told.store, told.spec, START, NOW)

    assert [((event.at - START) // DAY, event.mark, event.author) for event in found] == [
        (2, "columns", "landing/new.csv"),
        (3, "baseline", "bob"),
        (4, "reopened", "ana"),
        (5, "v2", ""),
    ]
    texts = [event.text for event in found]
    assert texts[0] == "age was called years before."
    assert texts[1] == "Compared with 2024-01-01 to 2024-01-03: new prices."
    assert texts[3] == "Version 2 serves most predictions, before 1."
    inside = find_events(told.store, told.spec, START + 3 * DAY, START + 5 * DAY)
    assert [event.mark for event in inside] == ["baseline", "reopened"]


def test_the_page_lists_events_and_marks_them_in_every_chart(told: World) -> None:
    html = health_report(told.store, told.spec, NOW).html
    figures = re.findall(r'<figure class="chart"[^>]*>', html)
    listed = html[html.index('<h2 id="events">') :]

    assert len(figures) > 5
    assert all('[5, "v2"]' in unescape(figure) for figure in figures)
    assert html.count('<svg class="notes"') == len(figures)
    assert listed.index("Version 2 serves") < listed.index("age was called years before")


def test_a_chart_says_its_events_and_writes_words_that_are_near_below_each_other() -> None:
    days = [START + n * DAY for n in range(100)]
    events = [Event(START + n * DAY + dt.timedelta(hours=3), f"<v{n}>", "") for n in (1, 2, 50, 99)]
    values = [0.5] * len(days)
    labels = [f"{day:%Y-%m-%d}" for day in days]
    chart = Chart("x", labels, [Line("x", "value", values)], events=place_events(events, days))

    assert chart.events == [(1, "<v1>"), (2, "<v2>"), (50, "<v50>"), (99, "<v99>")]
    assert "<v50> at 2024-02-20" in chart.said
    assert re.findall(r'y="(\d+)"', chart.notes) == ["10", "22", "10", "10"]
    assert "&lt;v1&gt;" in chart.notes
    assert chart.notes.count('class="left"') == 1


def test_an_event_before_the_first_window_has_no_place_and_two_of_one_window_share_it() -> None:
    starts = [START, START + DAY]
    events = [Event(START - DAY, "early", ""), Event(START, "a", ""), Event(START, "b", "")]

    assert place_events(events, starts) == [(0, "a, b")]
    assert place_events(events, []) == []


def test_a_page_explains_the_windows_of_the_incident_and_offers_the_newest(told: World) -> None:
    html = health_report(told.store, told.spec, NOW, places=Places("/")).html
    worst, *_ = pick_standing(list_alerts(told.store, "credit"))

    assert worst.opened_window == START
    assert "are of the incident's windows: 2024-01-01 to 2024-01-08" in unescape(html)
    offered = re.findall(r'<a href="\?from=([\d-]+)&amp;to=([\d-]+)">(\w+):', html)
    assert offered == [
        ("2024-01-01", "2024-01-08", "Incident"),
        ("2024-01-01", "2024-01-08", "Newest"),
    ]


def test_an_incident_lasts_to_the_newest_window_and_one_without_windows_is_no_period(
    told: World,
) -> None:
    worst, *_ = pick_standing(list_alerts(told.store, "credit"))
    later = replace(worst, opened_window=START + 5 * DAY)

    assert find_period(told.spec, [later, worst], START + 7 * DAY) == (
        START + 5 * DAY, START + 8 * DAY,
    )  # fmt: skip
    assert find_period(told.spec, [later], START + 4 * DAY) is None
    assert find_period(told.spec, [later], None) is None
    assert find_period(told.spec, [], START) is None


@pytest.mark.parametrize(
    ("incident", "mature", "wanted"),
    [
        ((3, 9), (0, 6), (3, 6)),
        ((3, 5), (0, 6), (3, 5)),
        ((0, 9), (4, 6), (0, 6)),
        ((6, 9), (0, 6), (0, 6)),
        (None, (0, 6), (0, 6)),
        ((3, 9), None, None),
    ],
)
def test_ground_truth_is_of_the_incident_as_far_as_it_has_come(
    incident: tuple[int, int] | None,
    mature: tuple[int, int] | None,
    wanted: tuple[int, int] | None,
) -> None:
    days = [
        None if pair is None else (START + pair[0] * DAY, START + pair[1] * DAY)
        for pair in (incident, mature, wanted)
    ]
    assert pick_labelled(days[0], days[1]) == days[2]


@pytest.mark.parametrize(
    ("provisional", "newest", "waits"),
    [
        ([], "0.300", ""),
        ([True, False, False], "0.300", ""),
        ([False, False, True], "0.200", "of b; ground truth of 1 newer window still comes"),
        ([False, True, True], "0.100", "of a; ground truth of 2 newer windows still comes"),
        ([True, True, True], "0.300", "provisional: ground truth still comes"),
    ],
)
def test_a_chart_names_the_newest_number_that_no_ground_truth_will_change(
    provisional: list[bool], newest: str, waits: str
) -> None:
    values = [0.1, 0.2, 0.3]
    chart = Chart("x", ["a", "b", "c"], [Line("x", "value", values)], provisional=provisional)

    assert (chart.newest, chart.waits) == (newest, waits)
    assert f"newest {newest}" in chart.said
    assert waits in chart.said
