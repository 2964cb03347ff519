"""An assistant that gets worse, from files to the message: what is said of it is so."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.files.loader import load_model
from mlmon_dagster.store.state import metric_log, monitor_results
from tests.defs.small_model import make_project
from tests.pipeline.looking import look

FIRST, DAYS, WORSE = dt.date(2026, 1, 1), 40, 5
NOW = dt.datetime(2026, 2, 10, 6, tzinfo=dt.UTC)
YAML = """
model: assistant
task: generation
owners: [team:support]
time: {start: 2026-01-01}
source:
  predictions: {path: "landing/calls/*", settle: 0s}
  actuals: {path: "landing/evaluations/*", settle: 0s}
columns: {prediction_id: id, event_time: at}
evaluations:
  correct: {by: human, good: [correct]}
  faithful: {by: judge, of: correct, good: {at_least: 4}}
features: {channel: {type: categorical}}
slices: [channel]
actuals: {expected_within: 2d, closed_after: 3d, min_coverage: 0.03, min_rows: 20}
baseline: {moving: 21d, gap: 7d}
"""


def draw_day(
    seed: int, day: dt.date, rate: float, judge: str = "judge/1"
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return a day's 600 calls and their evaluations: a judge's of all, people's of 50."""
    rng = np.random.default_rng([seed, day.toordinal()])
    n = 600
    good = rng.random(n) < rate
    passed = np.where(good, rng.random(n) < 0.92, rng.random(n) < 0.15)
    at = pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.sort(rng.uniform(0, 24, n)), unit="h")
    ids = [f"{day:%m%d}-{i}" for i in range(n)]
    calls = [
        {"id": name, "at": moment.isoformat(), "channel": str(channel)}
        for name, moment, channel in zip(ids, at, rng.choice(["chat", "mail"], n), strict=True)
    ]
    said: list[dict[str, object]] = [
        {"id": name, "name": "faithful", "value": 5 if ok else 2, "evaluator": judge,
         "at": (moment + pd.Timedelta(minutes=1)).isoformat()}
        for name, moment, ok in zip(ids, at, passed, strict=True)
    ]  # fmt: skip
    said += [
        {"id": ids[i], "name": "correct", "label": "correct" if good[i] else "wrong",
         "at": (at[i] + pd.Timedelta(hours=2)).isoformat()}
        for i in rng.choice(n, 50, replace=False)
    ]  # fmt: skip
    return calls, said


def land(folder: Path, day: dt.date, *streams: list[dict[str, object]]) -> None:
    for name, rows in zip(("calls", "evaluations"), streams, strict=True):
        path = folder / "landing" / name / f"{day}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def declare(folder: Path) -> ModelSpec:
    path = folder / "models" / "assistant.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(YAML)
    return load_model(path)


def live(
    folder: Path, rates: dict[int, float], judges: dict[int, str]
) -> tuple[Project, ModelSpec]:
    """Land and look at all days; of some the rate of good answers and the judge are others."""
    spec, project = declare(folder), make_project(folder, lambda: NOW)
    for i in range(DAYS):
        day = FIRST + dt.timedelta(days=i)
        land(folder, day, *draw_day(1, day, rates.get(i, 0.85), judges.get(i, "judge/1")))
    look(project, spec, "one")
    look(project, spec, "two")
    return project, spec


def test_a_worse_assistant_is_told_by_people_and_judge_and_its_bad_calls_are_named(
    tmp_path: Path,
) -> None:
    project, spec = live(tmp_path, {DAYS - 1 - i: 0.55 for i in range(WORSE)}, {})
    said = io.StringIO()
    console = ConsoleReceiver(said, hint="")
    dispatch(project.store, [spec], NOW, {"console": console, "slack": console})
    assert "Good share of correct is" in said.getvalue()
    assert "Good share of faithful is" in said.getvalue()

    frame = metric_log.newest(project.store.state, "assistant", slice_key="all")
    rows = frame.set_index(["metric", "column_name", "window_start"]).sort_index()
    days = rows.loc["good_rate", "correct"].index[-WORSE:]
    truth = {"good_rate": 0.55, "judge_agreement": 0.55 * 0.92 + 0.45 * 0.85}
    for metric, column in (("good_rate", "correct"), ("judge_agreement", "faithful")):
        mine = rows.loc[metric, column].loc[days]
        held = (mine["lower"] <= truth[metric]) & (truth[metric] <= mine["upper"])
        assert held.sum() >= WORSE - 1
        assert set(mine["method_version"]) <= {"post-stratified-2@judge", "post-stratified-2"}
    assert set(rows.loc["good_rate", "faithful"].loc[days, "n"]) == {600}


def test_the_page_shows_the_judge_beside_people_call_by_call(tmp_path: Path) -> None:
    project, spec = live(tmp_path, {DAYS - 1 - i: 0.55 for i in range(WORSE)}, {})
    html = health_report(project.store, spec, NOW).html
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    shown = re.search(r"Windows (\S+) to (\S+) together, rows whose ground truth", text)
    assert shown is not None
    landed = (tmp_path / "landing" / "evaluations").glob("*.jsonl")
    files = [path for path in landed if shown[1] <= path.stem <= shown[2]]
    said = pd.concat(pd.read_json(path, lines=True) for path in files)
    people = said[said["name"] == "correct"].set_index("id")["label"] == "correct"
    judge = said[said["name"] == "faithful"].set_index("id")["value"].loc[people.index] >= 4
    assert len(people) == 50 * len(files)
    counts = pd.crosstab(judge, people).to_numpy()
    table = text[text.index("faithful against people (correct)") :]
    assert f"{counts.sum():,} rows;" in table
    share = r"([\d.]+)% ([\d.]+)% "
    cells = re.findall(r"(\d+) " + share, table)[:4]
    assert [int(n) for n, _, _ in cells] == counts.ravel().tolist()
    agreed = re.search(r"it agrees with people in ([\d.]+)%", table)
    assert agreed is not None
    assert float(agreed[1]) == pytest.approx(100 * (judge == people).mean(), abs=5)
    assert "faithful alone" in text
    project.store.close()


@pytest.mark.proof
def test_another_judge_is_never_an_alert_and_the_peoples_rate_goes_on(tmp_path: Path) -> None:
    """The new judge lets nearly everything pass: its share moves, the assistant's does not."""
    changed = {DAYS - 1 - i: "judge/2" for i in range(WORSE)}
    project, _ = live(tmp_path, {}, changed)
    state = project.store.state
    start = dt.datetime.combine(FIRST, dt.time(), dt.UTC)
    rows = monitor_results.newest(state, "assistant", start, NOW, "performance")
    newest = rows[rows["window_start"] >= pd.Timestamp(NOW) - pd.Timedelta(days=WORSE)]
    mine = newest[(newest["metric"] == "good_rate") & (newest["column_name"] == "faithful")]
    assert set(mine["status"]) == {"NO_DATA"}
    assert set(mine["reason"]) == {"other_judge"}
    people = newest[(newest["metric"] == "good_rate") & (newest["column_name"] == "correct")]
    assert "OK" in set(people["status"])
    assert not set(rows["status"]) & {"WARN", "ERROR"}


@pytest.mark.proof
@pytest.mark.parametrize("seed", [2])
def test_a_judges_word_is_judged_before_people_have_spoken(tmp_path: Path, seed: int) -> None:
    spec, project = declare(tmp_path), make_project(tmp_path, lambda: NOW)
    for i in range(DAYS):
        day = FIRST + dt.timedelta(days=i)
        calls, said = draw_day(seed, day, 0.6 if i == DAYS - 1 else 0.85)
        if i == DAYS - 1:
            said = [row for row in said if row["name"] == "faithful"]
        land(tmp_path, day, calls, said)
    look(project, spec, "one")
    last = dt.datetime.combine(FIRST + dt.timedelta(days=DAYS - 1), dt.time(), dt.UTC)
    rows = monitor_results.newest(project.store.state, "assistant", last, NOW, "performance")
    by_column = rows[rows["metric"] == "good_rate"].set_index("column_name")["status"]
    assert by_column["faithful"] == "ERROR"
    assert by_column["correct"] == "NO_DATA"


@pytest.mark.proof
def test_whom_a_judge_stands_in_for_fits_the_baseline_again_and_what_is_good_is_of_new_files(
    tmp_path: Path,
) -> None:
    spec, project = declare(tmp_path), make_project(tmp_path, lambda: NOW)
    for i in range(DAYS):
        day = FIRST + dt.timedelta(days=i)
        land(tmp_path, day, *draw_day(1, day, 0.85))
    look(project, spec, "one")
    assert plan(project, spec, NOW) == []

    def declared(faithful: str) -> ModelSpec:
        path = tmp_path / "models" / "assistant.yaml"
        path.write_text(YAML.replace("{by: judge, of: correct, good: {at_least: 4}}", faithful))
        return load_model(path)

    assert plan(project, declared("{by: judge, of: correct, good: {at_least: 5}}"), NOW) == []
    asked = plan(project, declared("{by: judge, good: {at_least: 4}}"), NOW)
    assert {request.assets for request in asked} == {("baseline",)}


def test_the_check_in_dagster_names_the_evaluations_that_its_limits_are_for(tmp_path: Path) -> None:
    from mlmon_dagster.families.performance import FAMILY

    said = FAMILY.limits(declare(tmp_path))
    assert "good_rate/correct drop 0.05; good_rate/faithful drop 0.05" in said
