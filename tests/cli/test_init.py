"""``mlmon init``: from events to a spec that loads and takes them in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.spec import load_model
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.store.state import manifest
from tests.cli.conftest import Command
from tests.defs.small_model import make_project
from tests.scaffold.events import N, apart, churn
from tests.scaffold.test_first_spec import land, matches


@pytest.fixture
def project(tmp_path: Path) -> Path:
    landing = tmp_path / "empty" / "landing" / "churn"
    landing.mkdir(parents=True)
    pq.write_table(churn(), landing / "events.parquet")
    (landing / "events.parquet.done").touch()  # complete, no need to wait
    return tmp_path / "empty"


def test_the_spec_of_a_file_loads_and_its_events_are_taken_in(
    project: Path, mlmon: Command
) -> None:
    file = project / "landing" / "churn" / "events.parquet"
    at = ("--project", project, "--now", "2026-04-01T00:00:00Z")
    assert mlmon(*at, "init", file, "--model", "churn", "--owner", "team:growth").code == 0
    spec = load_model(project / "models" / "churn.yaml")
    ended = mlmon(*at, "ingest", "churn")

    assert spec.owners == ("team:growth",)
    assert spec.source.predictions.path == "landing/churn/*.parquet"
    assert ended.code == 0, ended.out
    assert f"{N:,} new" in ended.out


def test_an_existing_spec_is_not_replaced_unasked(project: Path, mlmon: Command) -> None:
    file = project / "landing" / "churn" / "events.parquet"
    path = project / "models" / "events.yaml"
    path.parent.mkdir()
    path.write_text("mine")
    refused = mlmon("--project", project, "init", file)

    assert refused.code == 2
    assert "--force" in refused.err
    assert path.read_text() == "mine"
    assert mlmon("--project", project, "init", file, "--force").code == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("landing/churn/2026-03-01.parquet", "churn"),
        ("landing/churn/predictions/2026-03-01.parquet", "churn"),
        ("landing/churn/predictions.parquet", "churn"),
        ("landing/2026-03/2026-03-01.parquet", "model_2026_03_01"),
        ("landing/churn/late flights.parquet", "late_flights"),
    ],
)
def test_a_model_is_named_after_its_file_or_else_its_folder(
    project: Path, mlmon: Command, path: str, model: str
) -> None:
    file = project / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(churn(), file)

    assert mlmon("--project", project, "init", file).code == 0
    assert [p.stem for p in (project / "models").glob("*.yaml")] == [model]


def test_files_without_a_time_are_refused_with_the_reason(project: Path, mlmon: Command) -> None:
    file = project / "timeless.parquet"
    pq.write_table(churn().drop_columns(["scored_at"]), file)
    ended = mlmon("--project", project, "init", file)

    assert ended.code == 2
    assert "no column of times" in ended.err


def test_a_file_without_a_column_for_a_feature_is_refused_with_what_to_add(
    tmp_path: Path, mlmon: Command
) -> None:
    file = tmp_path / "scores.parquet"
    pq.write_table(churn().select(["request_id", "scored_at", "p_churn", "label"]), file)
    ended = mlmon("--project", tmp_path, "init", file)

    assert ended.code == 2
    assert "no column is left for a feature" in ended.err
    assert "Add a column that the model reads" in ended.err


def test_windows_start_with_production_and_a_place_for_ground_truth_is_shown(
    tmp_path: Path, mlmon: Command
) -> None:
    table = churn().drop_columns(["label"])
    named = ["validation"] * (N // 2) + ["production"] * (N - N // 2)
    at = table.schema.get_field_index("dataset")
    file = tmp_path / "churn.parquet"
    pq.write_table(table.set_column(at, "dataset", [named]), file)

    assert mlmon("--project", tmp_path, "init", file).code == 0
    text = (tmp_path / "models" / "churn.yaml").read_text()
    assert str(load_model(tmp_path / "models" / "churn.yaml").time.start) == "2026-03-07"
    assert "# actuals: {path: landing/churn/actuals/*.parquet}" in text
    assert "actual: ..., actual_time: ..." in text


def office_days() -> pd.DataFrame:
    """Binary: truth values as 0.0 and 1.0, times as text."""
    rng = np.random.default_rng(12)
    score = rng.beta(2, 2, N).round(2)
    return pd.DataFrame(
        {
            "id": range(N),
            "timestamp": pd.date_range("2026-03-01", periods=N, freq="10min").astype(str),
            "distance": rng.gamma(2, 3, N),
            "workday": rng.choice(["Monday", "Tuesday", "Friday"], N),
            "y_pred_proba": score,
            "y_pred": (score > 0.5).astype(float),
            "work_home_actual": (rng.uniform(size=N) < score).astype(float),
        }
    )


def test_three_files_named_after_reference_analysis_and_target_become_a_baseline_and_production(
    tmp_path: Path, mlmon: Command
) -> None:
    table = office_days()
    half, truth = N // 2, ["id", "work_home_actual"]
    folder = tmp_path / "in"
    folder.mkdir()
    for name, part in (
        ("office_reference", table[:half]),
        ("office_analysis", table[half:].drop(columns="work_home_actual")),
        ("office_analysis_target", table[half:][truth]),
    ):
        part.to_csv(folder / f"{name}.csv", index=False)
        (folder / f"{name}.csv.done").touch()
    at = ("--project", tmp_path, "--now", "2026-05-01T00:00:00Z")
    assert mlmon(*at, "init", *sorted(folder.glob("*.csv")), "--model", "office").code == 0
    spec = load_model(tmp_path / "models" / "office.yaml")
    ended = mlmon(*at, "ingest", "office")

    assert ended.code == 0, ended.out
    assert spec.baseline.dataset == "validation"
    assert spec.time.start == dt.date.fromisoformat(table["timestamp"][half][:10])
    assert spec.datasets is not None
    assert spec.datasets.meaning() == (("analysis", "production"), ("reference", "validation"))
    assert f"{2 * N:,} new, 0 duplicate, 0 conflicting, 0 bad rows" in ended.out
    project = make_project(tmp_path, lambda: dt.datetime(2026, 5, 1, tzinfo=dt.UTC))
    rows = project.store.event_log(spec).rows("predictions").to_pandas()
    refused = manifest.load_files(project.store.state, "office", "predictions")
    project.store.close()
    assert rows["dataset"].value_counts().to_dict() == {"validation": half, "production": N - half}
    assert {row["status"] for row in refused} == {"done"}


def test_files_that_share_no_id_or_are_of_three_kinds_are_refused_with_what_to_name(
    tmp_path: Path, mlmon: Command
) -> None:
    predictions, truth = apart()
    other = pa.array([f"k{i}" for i in range(N)])
    for name, table in (
        ("predictions", predictions),
        ("truth", truth.rename_columns(["key", "seen", "left"]).set_column(0, "key", other)),
        ("third", pa.table({"query": ["q"], "place": [1], "shown": [2]})),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("predictions", "truth", "third")]
    unrelated = mlmon("--project", tmp_path, "init", *files[:2])
    three = mlmon("--project", tmp_path, "init", *files)

    assert (unrelated.code, three.code) == (2, 2)
    assert "no column in common" in unrelated.err
    assert "--actuals FILE" in three.err


def test_line_ends_in_cells_of_the_sample_are_declared(tmp_path: Path, mlmon: Command) -> None:
    table = churn().to_pandas()
    table["note"] = ["asked twice,\nthen left", "content"] * (len(table) // 2)
    table.to_csv(tmp_path / "churn.csv", index=False)

    assert mlmon("--project", tmp_path, "init", tmp_path / "churn.csv").code == 0

    source = load_model(tmp_path / "models" / "churn.yaml").source.predictions
    assert isinstance(source, FileSource)
    assert source.multiline


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("xg", "write COLUMN=ROLE"),
        ("xg=predicton", "did you mean 'prediction'?"),
        ("xq=prediction", "no file has a column 'xq'"),
    ],
)
def test_a_role_that_cannot_be_is_refused_with_what_there_is(
    tmp_path: Path, mlmon: Command, said: str, expected: str
) -> None:
    file = land(tmp_path, "a.csv", matches().rename(columns={"yhat": "xg"}))
    ended = mlmon("--project", tmp_path, "init", file, "--role", said)
    assert ended.code == 2
    assert expected in ended.err
    named = mlmon("--project", tmp_path, "init", file, "--output", "-", "--role", "xg=prediction")
    assert "prediction: xg" in named.out


def test_validate_warns_of_what_is_left_to_decide(tmp_path: Path, mlmon: Command) -> None:
    file = land(tmp_path, "a.jsonl", matches())
    assert mlmon("--project", tmp_path, "init", file, "--model", "football").code == 0
    warned = mlmon("--project", tmp_path, "validate")
    path = tmp_path / "models" / "football.yaml"
    path.write_text(
        "".join(
            line
            for line in path.read_text().splitlines(keepends=True)
            if not line.startswith("# DECIDE:")
        )
    )
    decided = mlmon("--project", tmp_path, "validate")

    assert (warned.code, decided.code) == (0, 0)
    assert "football.yaml: to be decided: played is written at +01:00" in warned.err
    assert decided.err == ""
