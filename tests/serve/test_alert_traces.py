"""The page of an alert leads to traces: the slowest and the failed ones of its last window."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Models, ModelSpec, spec_from_mapping, window_from_key
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.tables.alerts import list_alerts
from mlmon_dagster.work import Work
from tests.pipeline.test_spans import NOW, SPEC, N, all_spans, events, ingest, land, trace
from tests.report.worlds import World
from tests.serve.conftest import client_of

BY_ATTRIBUTE = {"join": "mlmon.prediction_id"}


def declared(monitors: dict[str, Any] | None = None, **spans: Any) -> ModelSpec:
    columns = dict(SPEC["columns"])
    if spans.get("join"):
        del columns["trace_id"]
    limits = {"service": {"p95_latency_ms": {"above": 50}, **(monitors or {})}}
    return spec_from_mapping(
        SPEC | {"columns": columns, "monitors": limits, "spans": SPEC["spans"] | spans}
    )


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    yield found
    found.store.close()


def judged(project: Project, spec: ModelSpec, lines: list[dict[str, Any]]) -> None:
    land(project, events(), "e.jsonl", "landing")
    land(project, lines, "s.jsonl", "spans/loan")
    ingest(project, spec)
    windows = (window_from_key(spec.time, "2024-03-01"),)
    run(Work(project, spec, windows, NOW, "run", False), ("baseline", *windowed_of(spec)))
    fold_results(project.store, [spec], NOW)


def page_of(project: Project, spec: ModelSpec, monitor: str, asked: str = "") -> str:
    [alert] = [a for a in list_alerts(project.store, "loan") if a.monitor == monitor]
    get = client_of(World(project, spec, pd.DataFrame(), ()), Models((spec,), ()))
    return get(f"/m/loan/alerts/{alert.fingerprint}{asked}").text


@pytest.mark.parametrize("spans", [{}, BY_ATTRIBUTE], ids=["by trace id", "by attribute"])
def test_it_shows_the_slowest_and_the_failed_traces_and_one_beside_each_row(
    project: Project, spans: dict[str, Any]
) -> None:
    spec = declared(**spans)
    lines = [one | {"prediction_id": f"p{int(one['trace_id'], 16) - 1}"} for one in all_spans()]
    judged(project, spec, lines)
    html = page_of(project, spec, "service/p95_latency_ms", "?rows=1")

    slow, failed = html.split('id="traces"')[1].split('id="rows"')[0].split(" failed, or")
    known = [i for i in range(N) if spans == {} or i % 4 != 1]  # those with spans, where needed
    slowest = sorted(known, reverse=True)[:10]
    assert re.findall(r">(p\d+)</td>", slow) == [f"p{i}" for i in slowest]
    assert f'<a href="https://traces.example.com/{trace(slowest[0])}"' in slow
    assert "stage.score_ms" in slow
    bad = sorted((i for i in known if i % 10 == 0 or i % 8 == 0), reverse=True)
    assert re.findall(r">(p\d+)</td>", failed) == [f"p{i}" for i in bad[:10]]
    assert f"{len(bad)}" in slow[-40:]  # how many there are
    rows = html.split('id="rows"')[1]
    assert rows.count("https://traces.example.com/") >= 30
    assert re.findall(r">(p\d+)</td>", rows) == [f"p{N - 1 - i}" for i in range(50)]
    assert "the slowest 50" in rows


def test_an_alert_on_errors_shows_failed_traces_alone(project: Project) -> None:
    judged(project, declared(), all_spans())
    html = page_of(project, declared(), "service/error_rate", "?rows=1")
    shown = re.findall(r">p(\d+)</td>", html.split('id="traces"')[1].split('id="rows"')[0])
    assert shown
    assert all(int(i) % 10 == 0 for i in shown)
    rows = [int(i) for i in re.findall(r">p(\d+)</td>", html.split('id="rows"')[1])]
    assert rows == list(range(N - 10, -1, -10))


STAGES = {
    "stages": {
        "fetch": {"timeout_rate": {"above": 0.1}, "error_rate": {"above": 0.9}},
        "score": {"p95_ms": {"above": 20, "error_at": 1000}, "p99_ms": {"above": 100}},
    },
    "span_coverage": {"below": 0.8},
}


@pytest.mark.parametrize("sampling", ["unbiased", "tail"])
def test_stages_and_coverage_are_judged_unless_spans_are_sampled(
    project: Project, sampling: str
) -> None:
    """Of 200 requests 150 have spans; 25 time out fetching; scoring takes 5 to 25 ms."""
    spec = declared(STAGES, sampling=sampling)
    judged(project, spec, all_spans())
    found = monitor_results.newest(
        project.store.state, "loan", dt.datetime(2024, 3, 1, tzinfo=dt.UTC), family="service"
    ).set_index("monitor")
    stages = {
        "service/stage_timeout_rate/stage.fetch_ms": "ERROR",  # the monitor's severity
        "service/stage_error_rate/stage.fetch_ms": "OK",
        "service/p95_stage_ms/stage.score_ms": "ERROR",
        "service/p99_stage_ms/stage.score_ms": "OK",
    }
    for monitor, status in stages.items():
        assert found.loc[monitor, "status"] == (status if sampling == "unbiased" else "NO_DATA")
        assert found.loc[monitor, "reason"] == ("" if sampling == "unbiased" else "sampled")
    assert found.loc["service/span_coverage", "status"] == "OK"  # .75, but not surely below .8
    if sampling == "unbiased":
        html = page_of(project, spec, "service/stage_timeout_rate/stage.fetch_ms")
        shown = re.findall(r">p(\d+)</td>", html.split('id="traces"')[1])
        assert shown
        assert all(int(i) % 8 == 0 for i in shown)
        slow = page_of(project, spec, "service/p95_stage_ms/stage.score_ms", "?rows=1")
        rows = [int(i) for i in re.findall(r">p(\d+)</td>", slow.split('id="rows"')[1])]
        assert rows == [i for i in range(N - 1, -1, -1) if i % 4 != 1][:50]
