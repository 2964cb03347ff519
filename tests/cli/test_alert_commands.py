"""``mlmon alerts`` and ``mlmon watchdog``, as people type them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mlmon_dagster.alerts import fold_results
from mlmon_dagster.store import Store, heartbeats, monitor_results, open_store
from tests.alerts.worlds import day, observe, result, settle, spec_of
from tests.cli.conftest import Command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A project with one alert that fires."""
    folder = tmp_path / "home"
    folder.mkdir()
    store = open_store(folder / ".mlmon" / "store")
    settle(store, [spec_of()], day(2), result(1))
    store.close()
    return folder


def state_of(home: Path) -> Store:
    return open_store(home / ".mlmon" / "store")


def test_a_silence_is_made_listed_and_ended(home: Path, mlmon: Command) -> None:
    options = ("--model", "credit", "--monitor", "drift/*", "--for", "2h", "--comment", "feed")
    base = ("--project", home, "--now", "2024-01-02T00:00:00Z", "alerts")
    made = mlmon(*base, "silence", *options, "--author", "ana")
    assert made.code == 0, made.err
    assert "1 alerts fire that it matches" in made.out
    listed = mlmon(*base, "silences")
    assert "active" in listed.out
    assert "2024-01-02 02:00  ana     feed" in listed.out
    assert mlmon(*base, "unsilence", "1", "--author", "bo").code == 0
    assert mlmon(*base, "silences").out == "No silences.\n"
    assert "ended by bo" in mlmon(*base, "silences", "--all").out
    assert mlmon(*base, "unsilence", "1", "--author", "bo").code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "credit"), "Say how long"),
        (("--model", "credit", "--for", "2h", "--until", "2024-01-03"), "Say how long"),
        (("--model", "credit", "--until", "2023-01-01"), "ended already"),
        (("--for", "2h"), "needs a label"),
        (("--for", "2h", "--slice", "origin"), "KEY=VALUE"),
        (("--model", "credit", "--for", "soon"), "neither a day"),
    ],
)
def test_a_silence_that_makes_no_sense_is_refused(
    home: Path, mlmon: Command, options: tuple[str, ...], said: str
) -> None:
    base = ("--project", home, "--now", "2024-01-02T00:00:00Z", "alerts", "silence")
    ended = mlmon(*base, *options, "--author", "ana")

    assert ended.code == 2
    assert said in ended.err


def test_an_alert_is_acknowledged_by_the_id_that_the_list_shows(
    home: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "ana")
    listed = mlmon("--project", home, "alerts", "list")
    short_id = listed.out.splitlines()[1].split()[0]

    assert "acknowledged by ana" in mlmon("--project", home, "alerts", "ack", short_id).out
    assert "acked by ana" in mlmon("--project", home, "alerts", "list").out
    assert "acknowledged" in mlmon("--project", home, "alerts", "history").out
    assert mlmon("--project", home, "alerts", "requeue").out == "No message was refused.\n"


def test_the_list_says_whose_verdicts_no_delivery_has_taken_in(home: Path, mlmon: Command) -> None:
    assert mlmon("--project", home, "alerts", "list").err == ""
    store = state_of(home)
    model = result(2)["model"]
    monitor_results.append(store.state, [result(2)])
    store.close()

    assert f"New verdicts of {model} are not in this list yet" in (
        mlmon("--project", home, "alerts", "list").err
    )
    assert mlmon("--project", home, "alerts", "list", "--model", "other").err == ""


def test_the_watchdog_barks_when_nobody_dispatches(home: Path, mlmon: Command) -> None:
    never = mlmon("--project", home, "watchdog")
    store = state_of(home)
    now = dt.datetime.now(dt.UTC)
    heartbeats.beat(store.state, heartbeats.DISPATCHER, now - dt.timedelta(hours=1))
    late = mlmon("--project", home, "watchdog", "--max-age", "10m")
    heartbeats.beat(store.state, heartbeats.DISPATCHER, now)
    fine = mlmon("--project", home, "watchdog", "--max-age", "1d")
    store.close()

    assert (never.code, late.code, fine.code) == (1, 1, 0)
    assert "never dispatched" in never.err
    assert "more than 10m ago" in late.err
    assert fine.out.startswith("Alerts were dispatched at")


SPEC = """
model: credit
task: binary_classification
owners: [team:risk]
time: {zone: UTC, start: 2024-01-01}
source: {predictions: {path: landing/*.csv}}
columns: {prediction_id: id, event_time: at, score: p}
features: {age: {type: numeric}}
"""


def test_the_doctor_counts_events_that_no_message_tells_of(home: Path, mlmon: Command) -> None:
    (home / "models").mkdir()
    (home / "models" / "credit.yaml").write_text(SPEC)
    store = state_of(home)
    observe(store, result(2, column_name="b"), result(3, "OK", column_name="b"))
    fold_results(store, [spec_of()], day(4))  # age is gone; and then the dispatcher dies
    store.close()

    base = ("--project", home, "--now", "2024-01-09T00:00:00Z")
    sick = mlmon(*base, "doctor").out
    mlmon(*base, "alerts", "deliver")
    well = mlmon(*base, "doctor").out
    assert "FIX  alerts: 3 events without a message" in sick
    assert "ok   alerts: 0 events without a message" in well
