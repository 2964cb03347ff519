"""What cannot be judged looks like that wherever people look, and is told once, after some days."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import Models, ModelSpec, load_model, window_from_key
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store.baselines import baselines_in_force
from mlmon_dagster.store.state import monitor_results
from tests.cli.conftest import Command
from tests.defs.small_model import NOW as SMALL_NOW
from tests.defs.small_model import make_project

pytestmark = pytest.mark.slow

FIRST = dt.date(2026, 3, 1)
SPEC = """
model: {name}
task: binary_classification
owners: [team:x]
time: {{zone: UTC, start: 2026-03-01}}
source:
  predictions: {{path: landing/{name}/predictions/*.parquet}}
  actuals: {{path: landing/{name}/actuals/*.parquet}}
columns: {{prediction_id: id, event_time: at, dataset: dataset, score: p, prediction: decision,
          actual: y, actual_time: known}}
actuals: {{expected_within: 1d}}
features:
  age: {{type: numeric, nullable: true}}
  temp: {{type: numeric}}
  month: {{type: numeric}}
  day_of_week: {{type: numeric}}
"""


def events(day: dt.date, n: int, dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a day's predictions and ground truth; it gets warmer from day to day."""
    rng = np.random.default_rng(day.toordinal())
    score = rng.beta(2, 3, n)
    at = pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.sort(rng.uniform(0, 86_399, n)), unit="s")
    ids = [f"{dataset}{day}-{i}" for i in range(n)]
    known = {"id": ids, "dataset": dataset}
    inputs = {
        "age": np.where(rng.random(n) < 0.05, np.nan, rng.normal(40, 10, n)),
        "temp": rng.normal((day - FIRST).days / 2, 2, n),
        "month": float(day.month),
        "day_of_week": float(day.weekday()),
    }
    predictions = {**known, "at": at, "p": score, "decision": (score > 0.5).astype(int), **inputs}
    truth = {
        **known, "y": (rng.random(n) < score).astype(int), "known": at + pd.Timedelta(hours=6),
    }  # fmt: skip
    return pd.DataFrame(predictions), pd.DataFrame(truth)


def declare(folder: Path, name: str) -> None:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / f"{name}.yaml").write_text(SPEC.format(name=name))


def land(folder: Path, name: str, n: int, days: range, dataset: str, *, actuals: bool) -> None:
    for number in days:
        day = FIRST + dt.timedelta(days=number)
        both = zip(("predictions", "actuals"), events(day, n, dataset), strict=True)
        for stream, frame in both:
            if stream == "actuals" and not actuals:
                continue
            path = folder / "landing" / name / stream / f"{dataset}{day}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path, index=False)
            path.with_name(f"{path.name}.done").touch()


def declare_with_baseline(folder: Path, name: str) -> None:
    declare(folder, name)
    land(folder, name, 200, range(-30, -5), "validation", actuals=True)


def run_and_tell(folder: Path, mlmon: Command, name: str, day: int) -> tuple[str, str]:
    """Run a model in the morning of a day; return what that said, and what was delivered then."""
    ran = mlmon(*at(folder, day), "run", name)
    return ran.out, mlmon(*at(folder, day), "alerts", "deliver").out


def at(folder: Path, day: int) -> tuple[object, ...]:
    """Look in the morning of a day of March."""
    return "--project", folder, "--now", f"2026-03-{day:02}T06:00:00Z"


def heads(said: str, model: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(("WARN", "ERROR")) and
            f" {model}: " in line]  # fmt: skip


def test_a_model_without_a_baseline_says_so_at_once_and_its_nulls_are_judged_from_the_first_day(
    tmp_path: Path, mlmon: Command
) -> None:
    declare(tmp_path, "unbased")
    land(tmp_path, "unbased", 200, range(9), "production", actuals=True)
    assert mlmon(*at(tmp_path, 10), "run", "unbased").code == 0
    told = mlmon(*at(tmp_path, 10), "alerts", "deliver").out
    doctor = mlmon(*at(tmp_path, 10), "doctor").out
    report = mlmon(*at(tmp_path, 10), "report", "unbased")

    assert len(heads(told, "unbased")) == 1
    assert "no baseline yet to compare with" in told
    assert alerts_of(tmp_path, mlmon, "unbased") == [("FIRING", "no_verdict/no_baseline")]
    assert "unbased has events and no baseline" in doctor
    assert "unbased, drift: nothing could be judged" in doctor
    assert report.code == 0
    look = seen(tmp_path, "unbased")
    assert look.status == "NO_DATA"
    assert look.unjudged == {"drift", "performance", "estimated_performance"}
    assert look.layers == {"Data": "NO_DATA", "Model": "NO_DATA"}
    for family in look.unjudged:
        assert look.checks[family].startswith("No verdict: learning; there is no baseline yet")
    assert look.checks["quality"] == ""
    assert heads(mlmon(*at(tmp_path, 10), "alerts", "deliver").out, "unbased") == []
    project = make_project(tmp_path, lambda: dt.datetime(2026, 3, 10, 6, tzinfo=dt.UTC))
    verdicts = monitor_results.newest(project.store.state, "unbased", family="quality")
    project.store.close()
    nulls = verdicts[verdicts["monitor"] == "quality/null_rate/age"]
    assert list(nulls["status"]) == ["OK"] * 9


@pytest.mark.proof
def test_a_model_whose_labels_never_come_says_so_once_when_they_are_overdue(
    tmp_path: Path, mlmon: Command
) -> None:
    declare_with_baseline(tmp_path, "unlabelled")
    land(tmp_path, "unlabelled", 200, range(3), "production", actuals=False)
    first, early = run_and_tell(tmp_path, mlmon, "unlabelled", 4)
    assert heads(early, "unlabelled") == []
    assert "performance" in seen(tmp_path, "unlabelled", day=4).unjudged
    land(tmp_path, "unlabelled", 200, range(3, 15), "production", actuals=False)
    second, said = run_and_tell(tmp_path, mlmon, "unlabelled", 16)
    again = mlmon(*at(tmp_path, 16), "alerts", "deliver").out
    doctor = mlmon(*at(tmp_path, 16), "doctor").out

    assert first.count("The baseline is shorter than a year") == 1
    assert "differ much in temp: a season" in first
    assert "shorter than a year" not in second  # it is the same baseline
    assert "Ground truth is late: 0 of 200 predictions of " in said
    assert said.count("Ground truth is late") == 2  # the title and a line of one message
    # It gets warmer, which is news; the month and the day of the week are not.
    assert sorted(alerts_of(tmp_path, mlmon, "unlabelled", day=16)) == [
        ("FIRING", "drift/psi/temp"),
        ("FIRING", "freshness/actuals_missing"),
    ]
    assert heads(again, "unlabelled") == []
    assert "unlabelled, performance: nothing could be judged: its ground truth is still" in doctor
    look = seen(tmp_path, "unlabelled", day=16)
    assert look.report["performance"] == "NO_DATA"
    assert look.checks["performance"] == "No verdict: its ground truth is still coming."


@dataclass(frozen=True)
class Seen:
    """What people see of a model: the page of all models, its own report, and Dagster's checks."""

    status: str
    layers: dict[str, str]
    report: dict[str, str]
    checks: dict[str, str]

    @property
    def unjudged(self) -> set[str]:
        return {family for family, status in self.report.items() if status == "NO_DATA"}


def seen(folder: Path, model: str, day: int = 10) -> Seen:
    """Look in every place where a model's status stands."""
    now = dt.datetime(2026, 3, day, 6, tzinfo=dt.UTC)
    project = make_project(folder, lambda: now)
    spec = load_model(folder / "models" / f"{model}.yaml")
    (line,) = Overview(project.store, lambda: Models((spec,), ()), lambda: now).lines()
    checks = {}
    with open_instance(project) as instance:
        for family, declared in FAMILIES.items():
            key = dg.AssetCheckKey(dg.AssetKey([model, declared.asset]), family)
            found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
            if key in found and (event := found[key].event) and (said := event.dagster_event):
                check = said.asset_check_evaluation_data
                checks[family] = "" if check.passed else str(check.description)
    project.store.close()
    html = (folder / ".mlmon" / "reports" / model / "health.html").read_text()
    status = r'<th scope="row"[^>]*>([\w ]+)</th><td[^>]*><span class="pill (\w+)"'
    return Seen(
        line.status,
        {one.name: one.status for one in line.layers},
        {name.replace(" ", "_"): said for name, said in re.findall(status, html)},
        checks,
    )


def alerts_of(folder: Path, mlmon: Command, model: str, day: int = 10) -> list[tuple[str, str]]:
    """Return state and monitor of a model's alerts as they are listed."""
    listed = mlmon(*at(folder, day), "alerts", "list", "--model", model, "--format", "json").out
    return [(one["state"], one["monitor"]) for one in map(json.loads, listed.splitlines())]


def test_a_baseline_without_events_is_said_and_never_replaced_by_the_old_one(
    folder: Path, mlmon: Command
) -> None:
    at = ("--project", folder, "--now", SMALL_NOW.isoformat())
    spec_file = folder / "models" / "churn.yaml"
    spec_file.write_text(spec_file.read_text() + "baseline: {dataset: training}\n")

    ran = mlmon(*at, "run", "churn")
    looked = mlmon(*at, "doctor")

    assert "events of dataset 'training', and there are none" in ran.out
    assert "drift and performance are not judged" in ran.out
    assert "FIX  baselines: churn has events and no baseline" in looked.out
    spec, project = load_model(spec_file), make_project(folder)
    window = window_from_key(spec.time, "2024-03-14")
    for family in ("drift", "performance"):
        rows = monitor_results.newest(
            project.store.state, "churn", window.start, window.end, family
        )
        assert set(rows["status"]) == {"NO_DATA"}, family
    assert baselines_in_force(project.store.state, spec).newest is None
    assert baselines_in_force(project.store.state, load_old(spec_file)).newest is not None
    project.store.close()


def load_old(spec_file: Path) -> ModelSpec:
    """Return the spec as it was before its baseline was changed."""
    spec_file.write_text(spec_file.read_text().replace("baseline: {dataset: training}\n", ""))
    return load_model(spec_file)
