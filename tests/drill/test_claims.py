"""What the drill says is noticed, put into raw files that land next, through the real pipeline."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.drill.passes import Inbox, take_in
from mlmon_dagster.drill.drill import Drill, Finding
from mlmon_dagster.drill.faults import FAULTS, facts_of, inject
from mlmon_dagster.spec import load_model
from mlmon_dagster.store import alert_state
from mlmon_dagster.work import Work
from tests.defs.small_model import DAYS, END, MODEL, NOW, customers, drop, landing, make_project
from tests.defs.worlds import processed_fortnight

pytestmark = pytest.mark.xdist_group("fortnight")
BY_NAME = {fault.name: fault for fault in FAULTS}
# Faults of different columns happen together; each is watched by monitors of its column alone.
TOGETHER = (
    {"age": "shift", "balance": "nulls", "region": "stuck"},
    {"age": "unit", "balance": "stuck", "region": "swap"},
)
FAMILIES = {"nulls": "quality"}  # the others are noticed by drift


@dataclass(frozen=True)
class Said:
    """What the drill says of the fortnight: (column, fault) -> its finding."""

    folder: Path
    found: Mapping[tuple[str, str], Finding]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    folder = processed_fortnight(tmp_path_factory.getbasetemp())
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    project = make_project(folder)
    work = Work(project, spec, (), NOW, "drill", is_backfill=True)
    found = {}
    for faults in TOGETHER:
        for column, fault in faults.items():
            (subject,) = Drill(work, 14, 0, [fault]).columns([column])
            family = FAMILIES.get(fault, "drift")
            found[column, fault] = next(f for f in subject.findings if f.family == family)
    project.store.close()
    return Said(folder, found)


def opened_in_files(
    said: Said, folder: Path, faults: Mapping[str, str], factor: float
) -> dict[str, int]:
    """Land days with faults of some times the sizes said, or of all rows where it says never.

    Returns:
        Column -> in which of the faulty days its alert opened, 1 being the first; 0 for none of
        the days in which the drill says that it does, or of all these days if it says never.
    """
    shutil.copytree(said.folder, folder)
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    usual = pd.concat(customers(day)[0] for day in DAYS)
    rng = np.random.default_rng(5)
    findings = {column: said.found[column, fault] for column, fault in faults.items()}
    days = [END + dt.timedelta(days=i) for i in range(max(f.after for f in findings.values()))]
    for day in days:
        predictions, actuals = customers(day)
        for column, finding in findings.items():
            luck = rng.uniform(size=len(predictions))
            facts = facts_of(spec, column, usual[column])
            fault, size = BY_NAME[finding.fault], factor * (finding.size or finding.largest)
            predictions[column] = inject(predictions[column], fault, facts, size, luck)
        drop(predictions, landing(folder, "predictions") / f"{day}.parquet")
        drop(actuals, landing(folder, "actuals") / f"{day}.parquet")
    moment = dt.datetime.combine(days[-1] + dt.timedelta(days=1), dt.time(16), dt.UTC)
    project = make_project(folder, lambda: moment)
    take_in(project, spec, Inbox())
    with project.store.state.connect() as conn:
        alerts = alert_state.all_alerts(conn, MODEL)
        events = alert_state.all_events(conn, MODEL)
    project.store.close()
    midnight = dt.datetime.combine(days[0], dt.time(), dt.UTC)
    opened: dict[str, int] = {}
    for column, finding in findings.items():
        places = [
            (event["window_start"] - midnight).days + 1
            for key, rows in events.items()
            for event in rows
            if alerts[key]["monitor"] == (finding.monitor or f"drift/psi/{column}")
            and event["kind"] == "opened"
            and event["window_start"] >= midnight
        ]
        in_time = [n for n in places if n <= (finding.after or len(days))]
        opened[column] = min(in_time, default=0)
    return opened


@pytest.mark.proof
@pytest.mark.parametrize("faults", TOGETHER, ids=" ".join)
def test_faults_of_the_size_said_open_their_alerts_in_time_and_of_half_of_it_do_not(
    said: Said, tmp_path: Path, faults: dict[str, str]
) -> None:
    sizes = {column: said.found[column, fault].size for column, fault in faults.items()}
    never = {column for column, size in sizes.items() if size is None}
    # By luck half of a share this small is as many rows as are noticed.
    least = {
        c for c, fault in faults.items() if BY_NAME[fault].unit == "share" and sizes[c] == 0.01
    }
    whole = opened_in_files(said, tmp_path / "whole", faults, 1.0)
    half = opened_in_files(said, tmp_path / "half", faults, 0.5)

    assert {column for column, place in whole.items() if not place} == never
    assert {column for column, place in half.items() if place} <= least, half


@pytest.mark.proof
def test_the_drill_calls_a_swap_of_regions_too_small_to_be_noticed(said: Said) -> None:
    sizes = {fault: finding.size for (_, fault), finding in said.found.items()}

    assert [fault for fault, size in sizes.items() if size is None] == ["swap"]
