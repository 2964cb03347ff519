"""What expectations found is listed and shown as Data Docs; others load their suite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import monitor_results
from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, NOW, make_project, windows_of_days, write_declaration

HOSTILE = "</td><script>alert(1)</script>"
DECLARED = """
expectations:
  - {expect: expect_column_mean_to_be_between, arguments: {column: age, max_value: 90}}
  - expect: expect_column_values_to_be_in_set
    arguments: {column: region, value_set: [north, south, east, west]}
    severity: ERROR
  - {expect: expect_column_values_to_be_in_set, stream: actuals,
     arguments: {column: actual, value_set: [0.0, 1.0]}}
"""


def result(name: str, column: str, *, kept: bool, **more: Any) -> dict[str, Any]:
    known = {"columns": [column], "severity": "WARN", "rows": 200, "unexpected": 0 if kept else 3}
    return {"expectation": name, "kept": kept, "values": [], "error": "", **known, **more}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    spec = write_declaration(tmp_path)
    path = tmp_path / "models" / f"{spec.model}.yaml"
    path.write_text(path.read_text() + DECLARED)
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    opened = make_project(tmp_path)
    note_results(opened, spec)
    yield opened
    opened.store.close()


def note_results(project: Project, spec: ModelSpec) -> None:
    in_set = "expect_column_values_to_be_in_set"
    mean = result("expect_column_mean_to_be_between", "age", kept=True, unexpected=None)
    found = [
        [mean, result(in_set, "region", kept=False, values=[HOSTILE])],
        [mean, result(in_set, "region", kept=False, unexpected=None, error="no such column")],
    ]
    rows = [
        {
            "model": spec.model, "monitor": "schema/expectations", "family": "schema",
            "metric": "expectations", "window_start": window.start, "window_end": window.end,
            "granularity": "day", "status": "WARN", "value": 1.0, "data_version": "v1",
            "method_version": "expectations-1", "created_at": NOW,
            "details": json.dumps({"expectations": results}),
        }
        for window, results in zip(windows_of_days(spec, DAYS)[3:5], found, strict=True)
    ]  # fmt: skip
    monitor_results.append(project.store.state, rows)


def test_what_failed_is_listed_newest_window_first(project: Project, mlmon: Command) -> None:
    said = mlmon("expectations", "churn").out

    assert said.startswith("churn: 2 of 4 held in 2 windows.")
    assert said.index(str(DAYS[4])) < said.index(str(DAYS[3]))
    assert "no such column" in said
    assert "1.50% unexpected" in said
    assert "mean_to_be_between" not in said


def test_data_docs_have_a_page_a_window_and_a_value_does_nothing(
    project: Project, mlmon: Command
) -> None:
    folder = project.folder / "docs"

    said = mlmon("expectations", "churn", "--data-docs", folder).out

    assert said.startswith("churn: 2 of 4 held in 2 windows. ")
    assert said.strip().endswith("docs/index.html")
    [page] = (folder / "validations" / "churn" / "predictions" / str(DAYS[3])).rglob("*.html")
    text = page.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert HOSTILE not in text
    [failed] = (folder / "validations" / "churn" / "predictions" / str(DAYS[4])).rglob("*.html")
    assert "no such column" in failed.read_text()


# In a process of its own: whoever imports the library here would leave it to all other tests.
PLAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import great_expectations as gx, pandas as pd
context = gx.get_context(mode="file", project_root_dir=sys.argv[1])
suite = context.suites.get("churn.predictions")
frame = pd.read_pickle(sys.argv[2])
batch = context.data_sources.add_pandas("p").add_dataframe_asset("a")
batch = batch.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": frame})
found = batch.validate(suite)
print(len(suite.expectations))
for one in found.results:
    if not one.success:
        config = one.expectation_config
        print(config.type, config.kwargs.get("column"), config.severity.value)
"""


@pytest.mark.proof
def test_a_plain_project_of_great_expectations_loads_the_suite_and_validates_rows(
    folder: Path, mlmon: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLMON_PROJECT", str(folder))
    path = folder / "models" / "churn.yaml"
    path.write_text(path.read_text() + DECLARED)
    file = tmp_path / "plain" / "gx" / "expectations" / "churn" / "predictions.json"
    opened = make_project(folder)
    rows = opened.store.inference_records(load_model(path)).read().to_pandas()
    opened.store.close()
    rows.loc[1, "score"] = 7.0
    rows.loc[2, "region"] = "moon"
    rows.to_pickle(tmp_path / "rows.pkl")

    said = mlmon("expectations", "churn", "--export", file).out

    assert said.startswith("churn.predictions: ")
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "plain"), str(tmp_path / "rows.pkl")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    number, *failed = plain.stdout.splitlines()
    assert int(number) > 20
    assert failed == [
        "expect_column_values_to_be_between score critical",
        "expect_column_values_to_be_in_set region critical",
    ]
