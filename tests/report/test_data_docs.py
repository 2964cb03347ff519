"""What expectations found is a page that shows no value which may not be shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlmon_dagster.cli import cli
from mlmon_dagster.project import Project
from mlmon_dagster.report.data_docs import Judged, data_docs, judged_windows
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store.state import monitor_results
from tests.defs.small_model import DAYS, NOW, make_project, windows_of_days, write_declaration

HOSTILE = "</td><script>alert(1)</script>"


def result(name: str, *, kept: bool, **more: Any) -> dict[str, Any]:
    known = {"columns": ["age"], "severity": "WARN", "rows": 200, "unexpected": 0 if kept else 3}
    return {"expectation": name, "kept": kept, "values": [], "error": "", **known, **more}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    write_declaration(tmp_path)
    opened = make_project(tmp_path)
    yield opened
    opened.store.close()


@pytest.fixture
def spec(project: Project) -> ModelSpec:
    return write_declaration(project.folder)


@pytest.fixture
def judged(project: Project, spec: ModelSpec) -> list[Judged]:
    windows = windows_of_days(spec, DAYS)
    found = [
        [result("expect_a", kept=True), result("expect_b", kept=False, values=[HOSTILE])],
        [result("expect_a", kept=True), result("expect_c", kept=False, error="no such column")],
    ]
    rows = [
        {
            "model": spec.model, "monitor": "schema/expectations", "family": "schema",
            "metric": "expectations", "window_start": window.start, "window_end": window.end,
            "granularity": "day", "status": "WARN", "value": 1.0, "data_version": "v1",
            "method_version": "expectations-1", "created_at": NOW,
            "details": json.dumps({"expectations": results}),
        }
        for window, results in zip(windows[3:5], found, strict=True)
    ]  # fmt: skip
    monitor_results.append(project.store.state, rows)
    return judged_windows(project.store.state, spec, windows)


def test_the_newest_window_comes_first_and_the_others_beside_it(
    spec: ModelSpec, judged: list[Judged]
) -> None:
    assert [window.key for window in judged] == [str(DAYS[4]), str(DAYS[3])]
    page = data_docs(spec, judged, NOW)
    assert f"Newest window: {DAYS[4]}" in page
    assert "1 of 2 hold" in page
    assert "not evaluated: no such column" in page
    assert "1.50% unexpected" in page
    assert page.index(f'<th scope="col">{DAYS[3]}') < page.index(f'<th scope="col">{DAYS[4]}')


def test_the_page_asks_for_nothing_and_a_value_does_nothing(
    spec: ModelSpec, judged: list[Judged]
) -> None:
    page = data_docs(spec, judged[1:], NOW)
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert "http:" not in page
    assert "https:" not in page


def test_the_command_writes_the_page_or_lists_what_failed(
    project: Project, judged: list[Judged], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(project.folder))
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    page = project.folder / "page.html"

    listed = CliRunner().invoke(cli, ["expectations", "churn"]).output
    written = CliRunner().invoke(cli, ["expectations", "churn", "--html", str(page)]).output

    assert listed.startswith("churn: 2 of 4 held in 2 windows.")
    assert "expect_c" in listed
    assert "no such column" in listed
    assert "expect_a" not in listed
    assert written.startswith("churn: 2 of 4 held in 2 windows. ")
    assert "expect_a" in page.read_text()


def test_a_model_without_expectations_has_an_empty_page(spec: ModelSpec, project: Project) -> None:
    found = judged_windows(project.store.state, spec, windows_of_days(spec, DAYS))
    assert found == []
    assert "No window was judged" in data_docs(spec, found, NOW)
