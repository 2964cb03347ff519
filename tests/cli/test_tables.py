"""What commands print: tables in every format, help that fits, and the schema of specs."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from mlmon_dagster.cli import COMMANDS
from mlmon_dagster.spec.files.meanings import read_meanings
from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW, ROWS, customers, drop, landing

AT = ("--now", NOW.isoformat())
TABLES = (
    ("status",),
    ("status", MODEL),
    ("alerts", "list"),
    ("alerts", "history"),
    ("metrics", MODEL, "--metric", "roc_auc"),
    ("rows", MODEL, "--worst", "5"),
    ("store", "head", MODEL),
    ("store", "sql", MODEL, "SELECT count(*) AS n FROM records"),
    ("backtest", MODEL, "--all"),
    ("store", "describe", MODEL),
    ("effect", MODEL, "--of", "actual"),
)


@pytest.mark.parametrize("asked", TABLES, ids=" ".join)
def test_a_table_is_text_json_lines_or_csv_and_goes_into_a_file(
    folder: Path, mlmon: Command, tmp_path: Path, asked: tuple[str, ...]
) -> None:
    mlmon("--project", folder, *AT, "alerts", "deliver")
    command = ("--project", folder, *AT, *asked)
    text = mlmon(*command)
    records = [json.loads(line) for line in mlmon(*command, "--format", "json").out.splitlines()]
    rows = list(csv.DictReader(io.StringIO(mlmon(*command, "--format", "csv").out)))
    to = tmp_path / "deep" / "found.csv"
    written = mlmon(*command, "--format", "csv", "--output", to)

    assert text.code == 0, text.err
    assert records
    assert [set(record) for record in records] == [set(row) for row in rows]
    assert len(text.out.splitlines()) >= len(records)
    assert written.out == ""
    assert list(csv.DictReader(io.StringIO(to.read_text()))) == rows


def test_a_file_that_cannot_be_written_is_code_2(folder: Path, mlmon: Command) -> None:
    ended = mlmon("--project", folder, *AT, "status", "--output", folder / "models" / "x" / "y")
    assert ended.code == 0
    blocked = folder / "models" / f"{MODEL}.yaml" / "y"
    ended = mlmon("--project", folder, *AT, "status", "--output", blocked)
    assert ended.code == 2
    assert "cannot be written" in ended.err


def test_help_lists_every_command_in_one_line_of_a_narrow_terminal(
    mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = mlmon("--help").out.splitlines()
    listed = {line.split()[0]: line for line in lines if line.startswith("  ") and line.split()}

    for name, command in COMMANDS.items():
        assert listed[name].endswith(command.line)
    assert [line for line in lines[1:] if line.endswith("...")] == []


@pytest.mark.proof
def test_run_computes_every_model_and_one_that_fails_stops_no_other(
    folder: Path, mlmon: Command
) -> None:
    spec = folder / "models" / f"{MODEL}.yaml"
    other = spec.read_text().replace(f"model: {MODEL}", "model: other", 1)
    (folder / "models" / "other.yaml").write_text(
        other.replace(f"landing/{MODEL}", "landing/other")
    )
    shutil.copytree(folder / "landing" / MODEL, folder / "landing" / "other")
    ended = mlmon("--project", folder, *AT, "run")

    assert ended.code == 0, ended.err
    assert f"{MODEL}: " in ended.out
    assert "other: reading new files" in ended.out

    ended = mlmon("--project", folder, *AT, "run", MODEL, "other", "--from", "2030-01-01")
    assert ended.code == 1
    assert "no complete window" in ended.err
    assert f"2 of 2 models not done: {MODEL}, other" in ended.err


def test_the_schema_of_specs_takes_real_ones_and_refuses_a_misspelt_key(
    folder: Path, mlmon: Command
) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(mlmon("schema").out))
    validator.check_schema(validator.schema)
    for path in [*folder.glob("models/*.yaml"), *Path("mlmon_dagster/demo").rglob("models/*.yaml")]:
        spec = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
        assert [error.message for error in validator.iter_errors(spec)] == [], path
        [error] = validator.iter_errors(spec | {"featurs": {}})
        assert "featurs" in error.message


def test_the_schema_as_text_has_every_key_that_the_site_explains(mlmon: Command) -> None:
    text = mlmon("schema", "--format", "text").out
    parts = dict(part.split("\n\n") for part in text.strip().split("\n\n\n"))
    assert parts.keys() == {part.replace(" ", ", with ") for part in read_meanings()}
    for part, meanings in read_meanings().items():
        lines = parts[part.replace(" ", ", with ")].splitlines()
        assert {*meanings} <= {line.split(" ")[0] for line in lines}, part
    assert re.search(r"^granularity +day +hour \(at most 25,000 windows\)", parts["time"], re.M)
    assert not re.search(r"`|\]\(", text), "neither marks of code nor links"


def test_init_writes_the_schema_that_the_spec_names(
    folder: Path, mlmon: Command, tmp_path: Path
) -> None:
    landed = next((folder / "landing" / MODEL / "predictions").glob("*.parquet"))
    ended = mlmon("--project", folder, "init", landed, "--model", "another")
    first = (folder / "models" / "another.yaml").read_text().splitlines()[0]

    assert ended.code == 0, ended.err
    name = first.rpartition("=")[2]
    assert json.loads((folder / "models" / name).read_text()) == json.loads(mlmon("schema").out)
    assert mlmon("--project", folder, "validate").code in (0, 2)  # the file is no spec
    assert name not in mlmon("--project", folder, "validate").err


def test_status_says_when_windows_are_judged_by_what_is_declared_and_what_was_learnt(
    folder: Path, mlmon: Command
) -> None:
    ended = mlmon("--project", folder, *AT, "status", "churn")

    assert "100 % of predictions get it (learnt from its own times in 13 windows)" in ended.out
    assert "judged at 3d: expected_within is 1d, and rows may be 2d late." in ended.out


def test_the_report_shows_the_newest_number_that_could_be_judged_and_says_what_still_comes(
    folder: Path, mlmon: Command
) -> None:
    predictions, actuals = customers(NOW.date())
    drop(predictions, landing(folder, "predictions") / "newest.parquet")
    drop(actuals.head(ROWS // 2), landing(folder, "actuals") / "newest.parquet")
    now = ("--project", folder, "--now", (NOW + dt.timedelta(days=1)).isoformat())
    page = folder / "page.html"

    mlmon(*now, "run", MODEL)
    assert mlmon(*now, "report", MODEL, "--output", page).code == 0

    found = re.search(
        r'<span class="name">ROC AUC</span> <span class="newest">(.*?)</span> '
        r'<span class="soft small">of (.*?); ground truth of 1 newer window still comes</span>',
        page.read_text(),
    )
    assert found is not None
    rows = mlmon(*now, "metrics", MODEL, "--metric", "roc_auc", "--slice", "all").out
    assert f"{found[2]}  all    :table  roc_auc  {found[1]} " in rows
    (line,) = [line for line in rows.splitlines() if line.startswith(str(NOW.date()))]
    assert found[1] not in line
