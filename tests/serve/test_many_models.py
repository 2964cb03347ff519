"""The first page of many models."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from mlmon_dagster.collect.admission import Access
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import Models, Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.tables.openmetrics import Exporter
from tests.report.worlds import declare
from tests.serve.conftest import asked

N, WINDOWS = 300, 20
DAY = dt.timedelta(days=1)
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NOW = START + (WINDOWS + 1) * DAY
FAMILIES = {"drift": "psi", "quality": "null_rate", "performance": "accuracy", "service": "n"}


def verdict(model: str, number: int, family: str, status: str = "OK") -> dict[str, object]:
    start = START + number * DAY
    return {
        "model": model, "monitor": f"{family}/{FAMILIES[family]}", "family": family,
        "metric": FAMILIES[family], "window_start": start, "window_end": start + DAY,
        "granularity": "day", "status": status, "value": 0.1 + number / 100, "n": 500,
        "threshold": "above 0.90", "data_version": "1", "method_version": "1", "created_at": NOW,
    }  # fmt: skip


@pytest.mark.proof
def test_the_first_page_of_many_models_is_answered_from_what_was_read_before(
    store: Store,
) -> None:
    base = declare()
    specs = [base.model_copy(update={"model": f"model_{i:04}"}) for i in range(N)]
    for spec in specs:
        windows = [Window(START + i * DAY, START + (i + 1) * DAY, "") for i in range(WINDOWS)]
        with store.state.begin() as conn:
            window_state.mark_inputs(conn, spec, windows[-1:], NOW)
        worst = "ERROR" if spec.model.endswith("77") else "OK"
        monitor_results.append(
            store.state,
            [
                verdict(spec.model, i, family, worst if family == "drift" else "OK")
                for i in range(WINDOWS)
                for family in FAMILIES
            ],
        )
    models = Models(tuple(specs), ())
    overview = Overview(store, lambda: models, lambda: NOW, fresh_seconds=0)
    exporter = Exporter(store, lambda: models, lambda: NOW)
    pages = Pages(
        store, overview, Access(store.state, "127.0.0.1", lambda: NOW), exporter, lambda: NOW
    )
    began = time.perf_counter()
    overview.lines()  # read before the server listens
    first = time.perf_counter() - began
    took = []
    for path in ("/", "/?page=6", "/?q=0277", "/?status=OK", "/"):
        began = time.perf_counter()
        answer = asked(pages, "GET", path)
        took.append(time.perf_counter() - began)
        assert answer.status_code == 200

    assert min(took) < first / 4
    assert len(answer.content) < 200_000

    # What is new costs what is new: one model's verdicts, read in the background.
    monitor_results.append(store.state, [verdict("model_0005", WINDOWS, "drift", "ERROR")])
    began = time.perf_counter()
    overview.read()
    assert time.perf_counter() - began < first / 4
    listed = {line.model: line for line in overview.lines()}
    said = {layer.name: (layer.status, layer.said) for layer in listed["model_0005"].layers}
    assert said["Data"] == ("ERROR", "drift ERROR")
    assert listed["model_0005"].metric == "Accuracy"
    assert "<path" in listed["model_0006"].spark
