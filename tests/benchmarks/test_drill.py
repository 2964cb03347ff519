"""The drill on a model of known truth: what it counts, and one fault through the whole pipeline."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from click.testing import CliRunner

from benchmarks.drill.__main__ import drill
from benchmarks.drill.faults import Fault
from benchmarks.drill.feed_faults import FAULTS, QUICK
from benchmarks.drill.lane import Episode, Event, Lane, live
from benchmarks.drill.score import render, score
from mlmon_dagster.spec.monitors import Monitors

START = dt.date(2024, 1, 10)
DAY = dt.timedelta(days=1)
NULLS = Fault("nulls", "", ("quality/null_rate/age",), ("drift/*/age",))


def event(night: int, monitor: str, window: int, *, is_told: bool = True) -> Event:
    at = dt.datetime.combine(START + night * DAY, dt.time(3), dt.UTC)
    return Event(at, "opened", monitor, START + window * DAY, is_told)


def lane(*events: Event, threads: int = 1, unresolved: tuple[str, ...] = ()) -> Lane:
    episode = Episode("nulls", START, START + 3 * DAY, START + 9 * DAY, threads, 4)
    episode.unresolved = list(unresolved)
    return Lane([episode], list(events))


def test_a_fault_is_detected_only_by_a_monitor_that_names_it() -> None:
    named = score([lane(event(1, "quality/null_rate/age@all", 0))], [NULLS])
    other = score([lane(event(2, "drift/psi/age@all", 1))], [NULLS])

    assert (named.recall, named.precision, named.outcomes[0].delay) == (1.0, 1.0, 0)
    assert (other.recall, other.precision) == (0.0, 1.0)
    assert other.problems == ["recall 0.00 is under 0.95"]


def test_what_a_fault_does_not_explain_is_a_false_alarm() -> None:
    found = score(
        [
            lane(
                event(1, "quality/null_rate/age@all", 0),
                event(2, "drift/psi/region@all", 1),
                event(6, "quality/null_rate/age@all", 5),
                event(2, "drift/psi/sex@all", 1, is_told=False),
            )
        ],
        [NULLS],
    )

    assert found.precision == pytest.approx(1 / 3)
    assert found.outcomes[0].muted == 1
    assert "false: drift/psi/region@all of 2024-01-11" in render(found)


def test_a_second_thread_and_one_that_stays_open_miss_the_goal() -> None:
    told = event(1, "quality/null_rate/age@all", 0)
    found = score([lane(told, threads=2, unresolved=("quality/null_rate/age@all",))], [NULLS])

    assert found.problems == ["nulls: 2 threads", "nulls: still firing: quality/null_rate/age@all"]


def test_every_fault_names_monitors_of_families_that_exist() -> None:
    families = {field.alias or name for name, field in Monitors.model_fields.items()}
    named = {pattern.split("/")[0] for fault in FAULTS for pattern in fault.found_by}

    assert len(FAULTS) >= 30
    assert named <= families
    assert set(QUICK) <= {fault.name for fault in FAULTS}


def test_the_faults_can_be_listed_and_an_unknown_one_is_refused() -> None:
    listed = CliRunner().invoke(drill, ["--list"]).output.splitlines()

    assert len(listed) == len(FAULTS)
    assert "No fault 'rain'" in str(CliRunner().invoke(drill, ["--only", "rain"]).exception)


@pytest.mark.proof
def test_a_null_burst_opens_one_thread_at_once_and_closes_it() -> None:
    """Faults in a real project: files land, windows are judged, messages are counted."""
    found = score([live(["null_burst"], 1, busy=300, warm_up=1)], FAULTS)

    assert found.problems == []
    assert json.loads(json.dumps(found.as_dict()))["recall"] == 1.0
    (fault,) = (outcome for outcome in found.outcomes if outcome.fault == "null_burst")
    assert (fault.delay, fault.threads, fault.false) == (0, 1, ())
