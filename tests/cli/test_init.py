"""``mlmon init``: from events to a spec that loads and takes them in."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlmon_dagster.spec import load_model
from tests.cli.conftest import Command
from tests.scaffold.events import N, churn


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
    assert [p.stem for p in (project / "models").iterdir()] == [model]


def test_files_without_a_time_are_refused_with_the_reason(project: Path, mlmon: Command) -> None:
    file = project / "timeless.parquet"
    pq.write_table(churn().drop_columns(["scored_at"]), file)
    ended = mlmon("--project", project, "init", file)

    assert ended.code == 2
    assert "no column of times" in ended.err
