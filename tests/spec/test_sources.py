"""Sources are refused with the line, the right keys and the next step."""

from __future__ import annotations

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import parse_model
from mlmon_dagster.spec.sources import FileSource, SqlSource

YAML = """\
model: churn
task: binary_classification
owners: [team:growth]
time: {start: 2024-01-01}
source:
  predictions: %s
columns: {prediction_id: id, event_time: at, score: s}
features: {age: {type: numeric, from: input.age}}
"""
CURSOR = "cursor: {column: xmin, kind: xmin}"


def test_a_source_is_files_or_a_table() -> None:
    files = parse_model(YAML % "{path: a/*.csv, delimiter: tab}").source.predictions
    table = parse_model(YAML % f"{{sql: a.b, url_env: X, {CURSOR}}}").source.predictions

    assert isinstance(files, FileSource)
    assert files.delimiter == "\t"
    assert isinstance(table, SqlSource)


@pytest.mark.parametrize("written", ["/lake/a", "file:///lake/a", "file://localhost/lake/a"])
def test_a_place_outside_the_project_is_written_from_the_root_on(written: str) -> None:
    files = parse_model(YAML % f"{{path: '{written}/*.csv'}}").source.predictions
    table = parse_model(YAML % f"{{delta: '{written}'}}").source.predictions

    assert isinstance(files, FileSource)
    assert (files.path, table.label) == ("/lake/a/*.csv", "Delta table /lake/a")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{path: a, delimitr: x}", "6: source.predictions.delimitr: unknown key; did you mean"),
        ("{sql: a, url_env: X, cursr: 1}", "did you mean 'cursor'? Known keys: "),
        ("{delta: ~/a}", "must be a path below the project folder, or begin with /"),
        ("{path: /a/../b/*.csv}", "a place outside the project is written from / on"),
        ("{delta: 'file:///'}", "is all of the machine; name the folder"),
        ("{delta: a/*}", "delta: 'a/*' is one table, the folder that holds _delta_log"),
        ("{kafka: a b, config_env: X}", "is not the name of a topic"),
        ("{kafka: a, config_env: 'k:1'}", "config_env is the name of an environment variable"),
        ("{kafka: a, config_env: X, grup: b}", "did you mean 'group'?"),
        (f"{{sql: select 1, url_env: X, {CURSOR}}}", "not the name of a table or view"),
        (f"{{sql: a, url_env: a-b, {CURSOR}}}", "url_env is the name of an environment variable"),
        ("{sql: a, url_env: X, cursor: {column: c, kind: xmi}}", "did you mean 'xmin'?"),
        ("{path: a, format: jsonl, quote: tab}", "quote is for csv, not for jsonl"),
        ("{path: a, inputs: [a]}", "inputs is for format: sagemaker only"),
        ("{path: a, delimiter: ab}", "delimiter is one ASCII character"),
        ("{path: a, header: [a, a]}", "header names 'a' twice"),
        ("{path: a, epoch: m}", "'m' is not one of 's', 'ms', 'us' or 'ns'"),
        ("{path: a, columns: {scor: x}}", "'scor' is not under 'columns'; did you mean 'score'?"),
    ],
)
def test_a_wrong_source_is_told_with_its_place(source: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_model(YAML % source)

    assert said in str(raised.value)
    assert "<text>:6: source.predictions" in str(raised.value)
    assert "SqlSource" not in str(raised.value)
