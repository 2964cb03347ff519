"""The table of stages: calls, time, failures, tokens and cost, as counted from the spans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.report.stages import measure_stages
from mlmon_dagster.spec import ModelSpec, spec_from_mapping, window_from_key
from tests.pipeline.test_spans import NOW, SPEC, N, land_all, look, span, spec_with

PRICED: dict[str, Any] = {
    "features": {
        "read": {"type": "numeric", "nullable": True, "from": "gen_ai.usage.input_tokens"},
        "written": {"type": "numeric", "nullable": True, "from": "gen_ai.usage.output_tokens"},
        "cost": {
            "type": "numeric", "unit": "USD",
            "prices": {"of": {"mini*": {"read": 2.0, "written": 10.0}}},
        },
    },
    "slices": [],
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    yield found
    found.store.close()


def priced() -> ModelSpec:
    declared = {**SPEC["spans"], "tokens": True, "version": "llm"}
    declared["stages"] = {"plan": "plan", "chat": "chat*", "never": "nothing"}
    return spec_from_mapping({**SPEC, **PRICED, "spans": declared})


def draw_spans() -> list[dict[str, Any]]:
    """Return a plan of each request and, of every other one, two chats; one span came twice."""
    found = []
    for i in range(N):
        plan = span(i, "plan", 10.0, 1, input_tokens=500, output_tokens=70)
        found.append({**plan, "attributes": ["llm=mini-3"], "status": "error" if i < 20 else "ok"})
        for k in (2, 3) if i % 2 else ():
            # The plan passes on what the chats took: its tokens are theirs.
            chat = span(i, f"chat {k}", 20.0 + i, k, input_tokens=100 * k, output_tokens=i)
            version = "large" if i % 3 == 0 else "mini-3"
            found.append({**chat, "parent_id": plan["span_id"], "attributes": [f"llm={version}"]})
    return [*found, found[-1]]


def test_calls_time_failures_tokens_and_cost_are_those_of_the_spans(project: Project) -> None:
    spec = priced()
    land_all(project, draw_spans())
    look(project, spec)
    found = measure_stages(project.store, spec, window_from_key(spec.time, "2024-03-01"))
    assert found is not None
    assert (found.window, [name for name, _ in found.rows]) == ("2024-03-01", ["plan", "chat"])
    plan, chat = (dict(zip(found.headings, row, strict=True)) for _, row in found.rows)
    odd = np.arange(1, N, 2)
    times = 2 * (20.0 + odd)
    assert chat == {
        "Share of requests": "50.0%",
        "Calls in a request": "2",
        "Time, median ms": f"{np.median(times):,.0f}",
        "95 % within ms": f"{np.quantile(times, 0.95):,.0f}",
        "Failed": "0.0%",
        "Input tokens": "500",
        "Output tokens": f"{np.mean(2 * odd):,.0f}",
        # Of a model without a price nothing is known.
        "Cost, USD": f"{np.sum(500 * 2e-6 + 2 * odd[odd % 3 > 0] * 1e-5) / len(odd):.3g}",
    }
    assert (plan["Share of requests"], plan["Failed"]) == ("100.0%", "10.0%")
    # Of the even requests alone, whose plans called nobody.
    assert (plan["Input tokens"], plan["Output tokens"]) == ("250", "35")
    page = health_report(project.store, spec, NOW).html
    assert "Stages of a request" in page
    assert "Cost, USD" in page


def test_without_prices_or_tokens_their_columns_are_left_out(project: Project) -> None:
    spec = spec_with()
    land_all(project)
    look(project, spec)
    found = measure_stages(project.store, spec, window_from_key(spec.time, "2024-03-01"))
    assert found is not None
    assert found.headings[-1] == "Failed"
    assert [name for name, _ in found.rows] == ["fetch", "score"]


def test_a_sample_and_a_window_without_spans_have_no_table(project: Project) -> None:
    land_all(project)
    spec = spec_with()
    look(project, spec)
    day = window_from_key(spec.time, "2024-03-01")
    empty = window_from_key(spec.time, "2024-02-01")
    assert measure_stages(project.store, spec, empty) is None
    assert measure_stages(project.store, spec, None) is None
    assert measure_stages(project.store, spec_with(sampling="tail"), day) is None
    assert measure_stages(project.store, spec_with(stages={}), day) is None
    assert (
        "Stages of a request"
        not in health_report(project.store, spec_with(sampling="tail"), NOW).html
    )
