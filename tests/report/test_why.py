"""The sentence of a trace in the message of an alert, by way of a real store and a Slack."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.alerts.receivers.slack import SlackReceiver
from mlmon_dagster.pipeline.judge_inputs import JudgeInputs, judge_inputs
from mlmon_dagster.pipeline.why import verdicts_with_why
from mlmon_dagster.profiles.in_force import BaselineInForce
from mlmon_dagster.report.trace import explained
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.schema import monitor_result
from mlmon_dagster.trace.sentences import cause, describe_trace, value
from mlmon_dagster.work import Work
from tests.alerts.fake_slack import FakeSlack, fake_slack
from tests.alerts.worlds import send
from tests.report.worlds import DAY, DAYS, NOW, World, build, declare

pytestmark = pytest.mark.xdist_group("report")  # they share a world


@pytest.fixture(autouse=True)
def _whatever_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every trace made, however busy the machine."""
    monkeypatch.setattr("mlmon_dagster.pipeline.why._SECONDS", float("inf"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose alerts go to Slack."""
    spec = declare(
        alerts={"slack": {"channel": "#ml-alerts"}, "group_wait": "0s"},
        actuals={
            "expected_within": "30d",
            "closed_after": "60d",
            "min_coverage": 0.9,
        },  # no window is history yet
    )
    made = build(tmp_path_factory.mktemp("told"), spec=spec)
    yield made
    made.store.close()


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as fake:
        yield fake


def verdicts(world: World, family: str = "performance") -> list[dict[str, Any]]:
    query = sa.select(monitor_result).where(monitor_result.c.family == family)
    with world.store.state.connect() as conn:
        rows = [dict(row) for row in conn.execute(query.order_by("window_start")).mappings()]
    return [row | json.loads(row["details"]) for row in rows]


def parts(world: World, last: int = 1) -> list[JudgeInputs]:
    """Return what the last days are judged by, once more."""
    windows = world.windows[-last:]
    work = Work(world.project, world.spec, windows, NOW, "again", is_backfill=False)
    states = window_state.load(
        world.store.state, world.spec.model, windows[0].start, windows[-1].end
    )
    return list(judge_inputs(work, "performance", windows, states))


def of_area(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in reversed(rows) if row["metric"] == "roc_auc")


def test_the_newest_failed_window_of_each_monitor_says_why_and_no_other(told: World) -> None:
    rows = [row for row in verdicts(told) if row["status"] in ("WARN", "ERROR")]
    said = {row["metric"]: row for row in rows if "why" in row or "no_why" in row}

    assert len(rows) > DAYS
    assert said.keys() == {row["metric"] for row in rows}
    for metric, row in said.items():
        mine = [one["window_start"] for one in rows if one["metric"] == metric]
        assert row["window_start"] == max(mine)
    assert sum("why" in row or "no_why" in row for row in rows) == len(said)


def test_it_is_a_sentence_of_the_trace_of_the_judged_window_alone(told: World) -> None:
    row = of_area([row for row in verdicts(told) if "traced" in row])
    found = explained(told.store, told.spec, "roc_auc", (row["window_start"], row["window_end"]))

    assert found is not None
    assert found.now.n == row["n"]
    # Of one window no part has an interval; the slices of the verdict are tested by its rows.
    assert cause(told.spec, found) == ""
    assert row["no_why"] == "no part of the change stands out"
    assert row["traced"] == {"window": f"{row['window_start']:%Y-%m-%d}"}
    said = describe_trace(told.spec, found, "this window", "the baseline")
    worst = {(part["slice_key"], part["slice_value"]) for part in row["worst_slices"]}
    assert ("region", "north") in worst
    assert any(line.startswith("By region it is above all north, from .") for line in said)


def test_slack_gets_it_once_and_a_second_look_sends_nothing(told: World, slack: FakeSlack) -> None:
    receiver = SlackReceiver(slack.token, base_url=slack.url, timeout_seconds=30)
    for _ in range(2):
        fold_results(told.store, [told.spec], NOW)
        flush_groups(told.store, [told.spec], NOW)
        send(told.store, receiver)
    texts = [json.dumps(m.body, ensure_ascii=False) for m in slack.messages]

    (text,) = [
        text for text in texts if f"mlmon trace credit --window {told.windows[-1].key}" in text
    ]
    assert "ROC AUC for region,member = north,false is 0." in text.partition("*Why:* ")[2]
    assert len({m.key for m in slack.messages}) == len(slack.messages)


def test_a_missed_estimate_is_traced_over_the_windows_it_was_judged_by(told: World) -> None:
    (row,) = [row for row in verdicts(told, "estimated_performance") if "why" in row]
    over = told.spec.monitors.estimated_performance[0].over
    start = row["window_end"] - over * DAY
    found = explained(told.store, told.spec, "roc_auc", (start, row["window_end"]))

    assert found is not None
    assert (found.now.windows, found.now.n) == (over, row["n"])
    assert row["why"].startswith(f"ROC AUC is {value(found.now.value)}, the baseline's ")
    last = row["window_start"]
    assert row["traced"] == {"from": f"{start:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}


def test_a_trace_that_fails_is_logged_and_the_verdict_stays(
    told: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no such table")

    before = of_area(parts(told)[0].verdicts())
    monkeypatch.setattr(BaselineInForce, "profiles", broken)
    with caplog.at_level(logging.WARNING, "mlmon_dagster.pipeline.why"):
        after = of_area(verdicts_with_why(parts(told)))

    assert json.loads(after["details"])["no_why"] == "the trace failed: OSError"
    assert after | {"details": ""} == before | {"details": ""}
    assert "credit: no trace for an alert of performance/roc_auc" in caplog.text


def test_profiles_of_other_rows_than_the_verdict_give_no_sentence(told: World) -> None:
    inputs = parts(told)[0]
    metrics = inputs.metrics.assign(n=inputs.metrics["n"] + 7)
    row = of_area(verdicts_with_why([replace(inputs, metrics=metrics)]))
    details = json.loads(row["details"])

    assert "why" not in details
    assert details["no_why"].startswith("the stored profiles are of ")


def test_no_further_trace_is_begun_when_time_is_up(
    told: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlmon_dagster.pipeline.why._SECONDS", -1.0)
    rows = verdicts_with_why(parts(told))

    said = [json.loads(row["details"]).get("no_why") for row in rows if row["status"] == "ERROR"]
    assert set(said) == {"the traces before took too long"}
