"""``mlmon alerts`` and ``mlmon watchdog``, as people type them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import model_history, monitor_results
from tests.alerts.fake_slack import FakeSlack, fake_slack
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
    assert "It matches 1 open alert." in made.out
    listed = mlmon(*base, "silences")
    assert "active" in listed.out
    assert "2024-01-02 02:00  ana     feed" in listed.out
    assert mlmon(*base, "unsilence", "1", "--author", "bo").code == 0
    assert mlmon(*base, "silences").out == "No silences.\n"
    assert "ended by bo" in mlmon(*base, "silences", "--all").out
    assert mlmon(*base, "unsilence", "1", "--author", "bo").code == 2


def test_an_alert_is_acknowledged_by_the_id_that_the_list_shows(
    home: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "ana")
    listed = mlmon("--project", home, "alerts", "list")
    short_id = listed.out.splitlines()[1].split()[0]

    assert "acknowledged by ana" in mlmon("--project", home, "alerts", "ack", short_id).out
    assert "acknowledged by ana" in mlmon("--project", home, "alerts", "list").out
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
    model_history.note_beat(store.state, model_history.DISPATCHER, now - dt.timedelta(hours=1))
    late = mlmon("--project", home, "watchdog", "--max-age", "10m")
    model_history.note_beat(store.state, model_history.DISPATCHER, now)
    fine = mlmon("--project", home, "watchdog", "--max-age", "1d")
    store.close()

    assert (never.code, late.code, fine.code) == (1, 1, 0)
    assert "never dispatched" in never.err
    assert "more than 10m ago" in late.err
    assert fine.out.startswith("Alerts were dispatched at")


def test_the_watchdog_believes_no_dispatch_of_the_future(home: Path, mlmon: Command) -> None:
    store = state_of(home)
    now = dt.datetime.now(dt.UTC)
    model_history.note_beat(store.state, model_history.DISPATCHER, now + dt.timedelta(days=365))
    ahead = mlmon("--project", home, "watchdog")
    model_history.note_beat(store.state, model_history.DISPATCHER, now + dt.timedelta(seconds=30))
    skewed = mlmon("--project", home, "watchdog")
    store.close()

    assert (ahead.code, skewed.code) == (1, 0)
    assert "which lies ahead of now" in ahead.err
    assert "mlmon alerts deliver" in ahead.err


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


# Through Slack and back


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlack]:
    with fake_slack() as fake:
        monkeypatch.setenv("MLMON_SLACK_TOKEN", fake.token)
        monkeypatch.setenv("MLMON_SLACK_API_URL", fake.url)
        yield fake


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    """A project that declares a model whose alerts go to Slack at once."""
    folder = tmp_path / "declared"
    (folder / "models").mkdir(parents=True)
    alerts = (
        "alerts: {slack: {channel: '#ml-alerts', mention: '@here'}, "
        "group_wait: 0s, group_interval: 0s}\n"
    )
    (folder / "models" / "credit.yaml").write_text(SPEC + alerts)
    return folder


def at(project: Path, number: int, *verdicts: dict[str, object]) -> tuple[object, ...]:
    """Let monitors say something, and return how to type a command on that day."""
    store = state_of(project)
    observe(store, *verdicts)
    store.close()
    return ("--project", project, "--now", day(number).isoformat(), "alerts")


def test_alerts_of_a_model_that_is_removed_and_declared_again_are_told_again(
    declared: Path, mlmon: Command, slack: FakeSlack
) -> None:
    """Their messages had the keys of those that the first model of that name had sent."""
    declaration = declared / "models" / "credit.yaml"
    text = declaration.read_text()
    mlmon(*at(declared, 2, result(1)), "deliver")
    mlmon(*at(declared, 2)[:-1], "model", "remove", "credit", "--author", "a", "--yes")
    mlmon(*at(declared, 2), "deliver")
    declaration.write_text(text)

    again = mlmon(*at(declared, 4, result(3)), "deliver")

    assert "1 message written, 1 delivered" in again.out, again.out
    ended, firing = slack.heads()
    assert "psi of age is high" in firing.text
    assert ended.ts != firing.ts


@pytest.mark.parametrize("way", ["model remove", "deleted by hand"])
def test_the_end_of_the_last_model_is_delivered(
    declared: Path, mlmon: Command, slack: FakeSlack, way: str
) -> None:
    mlmon(*at(declared, 2, result(1)), "deliver")
    if way == "deleted by hand":
        (declared / "models" / "credit.yaml").unlink()
    removed = mlmon(*at(declared, 2)[:-1], "model", "remove", "credit", "--author", "a", "--yes")
    delivered = mlmon(*at(declared, 2), "deliver")
    nothing = mlmon(*at(declared, 2), "deliver")

    assert (removed.code, delivered.code, nothing.code) == (0, 0, 2), removed.err + delivered.err
    assert ("is gone already" in removed.out) == (way == "deleted by hand")
    (head,) = slack.heads()
    (reply,) = slack.replies(head)
    assert "model removed" in reply.text
    assert "has no *.yaml file" in nothing.err


def test_a_test_message_says_whom_it_notified_at_each_place(
    declared: Path, mlmon: Command, slack: FakeSlack
) -> None:
    """A route's mention counts like the default one, and of many teams five are called."""
    slack.channels |= {"#teams": "C0000003", "#free": "C0000004"}
    declaration = declared / "models" / "credit.yaml"
    teams = [f"S0{letter * 7}" for letter in "ABCDEF"]
    routes = [
        {"family": "service", "slack": {"channel": "#other"}},
        *({"owner": f"team:{t}", "slack": {"channel": "#teams", "mention": t}} for t in teams),
    ]
    text = declaration.read_text().replace(
        "group_interval: 0s}", f"group_interval: 0s, routes: {json.dumps(routes)}}}"
    )
    declaration.write_text(text)

    out = mlmon("--project", declared, "alerts", "test").out
    free = mlmon("--project", declared, "alerts", "test", "--channel", "#free").out

    five = ", ".join(f"the user group {team}" for team in teams[:5])
    assert "to #ml-alerts, notifying @here (everybody active in the channel)." in out
    assert "to #other, notifying nobody: no mention is declared." in out
    assert f"to #teams, notifying {five}; this test spares 1 more whom alerts may notify" in out
    assert "to #free, notifying nobody: no mention is declared." in free
    texts = {m.channel: m.text for m in slack.messages}
    assert [text.count("<!subteam^") for text in texts.values()].count(5) == 1
    assert sum(text.startswith("<!here> ") for text in texts.values()) == 1
