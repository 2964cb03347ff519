"""``mlmon init``: from events to a spec that loads and takes them in."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlmon_dagster.spec import load_model
from tests.cli.conftest import Command
from tests.scaffold import events
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


LAYOUTS = {
    "two kinds of files": events.apart,
    "one file": churn,
    "reference and analysis": events.reference_and_analysis,
    "probabilities of classes": events.card_types,
    "ranking": events.searches,
    "regression with dates": events.deliveries,
}
EXPECTED = {
    "two kinds of files": {
        "task": "binary_classification", "prediction_id": "request_id", "score": "p_churn",
        "actual": "left", "actual_time": "seen",
    },
    "one file": {"dataset": "dataset", "actual": "label", "score": "p_churn"},
    "reference and analysis": {"dataset": None, "actual": "label", "without": {"period"}},
    "probabilities of classes": {
        "task": "multiclass_classification", "prediction": "y_pred", "actual": "y_true",
        "scores": {
            "prepaid card": "y_pred_proba_prepaid_card",
            "upmarket_card": "y_pred_proba_upmarket_card",
            "highstreet_card": "y_pred_proba_highstreet_card",
        },
        "features": {"app_channel": "categorical", "credit_score": "numeric"},
    },
    "ranking": {
        "task": "ranking", "group": "query_id", "rank": "position", "actual": "relevance",
        "features": {"price": "numeric"},
    },
    "regression with dates": {
        "task": "regression", "prediction": "prediction", "actual": "actual",
        "features": {
            "promised_at": "datetime", "season": "categorical", "day_of_week": "categorical",
            "weight": "numeric",
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_people_have_gives_a_spec_that_computes_without_a_typed_line(
    tmp_path: Path, mlmon: Command, layout: str
) -> None:
    made = LAYOUTS[layout]()
    tables = made if isinstance(made, tuple) else (made,)
    files = []
    for name, table in zip(("predictions", "actuals"), tables, strict=False):
        files.append(tmp_path / "landing" / "shop" / name / "all.parquet")
        files[-1].parent.mkdir(parents=True)
        pq.write_table(table, files[-1])
        files[-1].with_suffix(".parquet.done").touch()
    at = ("--project", tmp_path, "--now", "2026-05-01T00:00:00Z")
    written = mlmon(*at, "init", *files)
    assert written.code == 0, written.err
    spec = load_model(tmp_path / "models" / "shop.yaml")
    ended = mlmon(*at, "ingest", "shop")

    assert ended.code == 0, ended.out
    assert f"{N:,} new" in ended.out
    assert spec.source.actuals is not None
    expected = dict(EXPECTED[layout])
    kinds = {name: feature.type for name, feature in spec.features.items()}
    assert expected.pop("task", spec.task) == spec.task
    assert expected.pop("features", kinds) == kinds
    assert not expected.pop("without", set()) & set(kinds)
    assert {role: getattr(spec.columns, role) for role in expected} == expected


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


def test_files_that_share_no_id_or_are_of_three_kinds_are_refused_with_what_to_name(
    tmp_path: Path, mlmon: Command
) -> None:
    predictions, truth = events.apart()
    for name, table in (
        ("predictions", predictions),
        ("truth", truth.rename_columns(["key", "seen", "left"])),
        ("third", events.searches()),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("predictions", "truth", "third")]
    apart = mlmon("--project", tmp_path, "init", *files[:2])
    three = mlmon("--project", tmp_path, "init", *files)

    assert (apart.code, three.code) == (2, 2)
    assert "no column in common" in apart.err
    assert "--actuals FILE" in three.err
