"""``mlmon init``: from events to a spec that loads and takes them in."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.spec import load_model
from mlmon_dagster.spec.sources import FileSource
from mlmon_dagster.store.state import manifest, metric_log
from tests.cli.conftest import Command
from tests.defs.small_model import make_project
from tests.pipeline.looking import look
from tests.scaffold import events, other_words
from tests.scaffold.events import N, churn
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


LAYOUTS = {
    "two kinds of files": events.apart,
    "one file": churn,
    "reference and analysis": events.reference_and_analysis,
    "probabilities of classes": events.card_types,
    "ranking": events.searches,
    "regression with dates": events.deliveries,
    "two kinds of files in German": other_words.cancellations,
    "one file with times as numbers": other_words.frauds,
    "reference and analysis whose ids repeat": other_words.office_days,
    "probabilities of classes without a telling name": other_words.animals,
    "ranking without a telling name": other_words.shop_searches,
    "regression with dates of three kinds": other_words.house_prices,
}
COMPUTED = (
    "two kinds of files in German",
    "one file with times as numbers",
    "reference and analysis whose ids repeat",
    "probabilities of classes without a telling name",
    "ranking without a telling name",
    "regression with dates of three kinds",
)  # one of each layout; the others only take their rows in
PERFORMANCE = {
    "binary_classification": "roc_auc",
    "multiclass_classification": "accuracy",
    "regression": "mae",
    "ranking": "ndcg",
}
WRITTEN_AS = {
    "two kinds of files in German": "semicolons",
    "one file with times as numbers": "jsonl",
    "reference and analysis whose ids repeat": "csv",
}
EXPECTED = {
    "two kinds of files": {
        "task": "binary_classification", "prediction_id": "request_id", "score": "p_churn",
        "actual": "left", "actual_time": "seen",
    },
    "one file": {"dataset": "dataset", "actual": "label", "score": "p_churn"},
    "reference and analysis": {"dataset": "period", "actual": "label", "without": {"period"}},
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
    "two kinds of files in German": {
        "task": "binary_classification", "prediction_id": "vorgangsnummer",
        "event_time": "zeitpunkt", "score": "kuendigung_wk", "prediction": "kuendigung_vorhersage",
        "actual": "gekuendigt", "actual_time": "bekannt_am",
        "features": {
            "tarif": "categorical", "postleitzahl": "categorical", "umsatz_eur": "numeric",
        },
    },
    "one file with times as numbers": {
        "task": "binary_classification", "prediction_id": "txn_ref", "event_time": "ts_ms",
        "score": "fraud_score", "prediction": "blocked", "actual": "is_fraud",
        "features": {"mcc": "categorical", "amount": "numeric", "card_present": "categorical"},
    },
    "reference and analysis whose ids repeat": {
        "task": "binary_classification", "prediction_id": ("timestamp", "id"),
        "score": "y_pred_proba", "prediction": "y_pred", "actual": "work_home_actual",
        "dataset": "partition", "features": {"distance": "numeric", "workday": "categorical"},
    },
    "probabilities of classes without a telling name": {
        "task": "multiclass_classification", "prediction": "klasse", "actual": "wahre_klasse",
        "scores": {"Katze": "conf_Katze", "Hund": "conf_Hund", "Maus": "conf_Maus"},
        "features": {"helligkeit": "numeric"},
    },
    "ranking without a telling name": {
        "task": "ranking", "prediction_id": ("anfrage_uuid", "slot"), "group": "anfrage_uuid",
        "rank": "slot", "actual": "clicked",
        "features": {"artikel": "categorical", "preis": "numeric"},
    },
    "regression with dates of three kinds": {
        "task": "regression", "event_time": "valued_on", "prediction": "model_price_estimate",
        "actual": "sold_price", "actual_time": "close_date",
        "features": {
            "listed_date": "datetime", "yr_built": "numeric", "zip_code": "categorical",
            "sqft": "numeric",
        },
    },
}  # fmt: skip


def write_as(form: str, table: pa.Table, path: Path) -> Path:
    """Write a file of some form, which is complete then, and return where."""
    path.parent.mkdir(parents=True)
    if form == "parquet":
        pq.write_table(table, path := path.with_suffix(".parquet"))
    elif form == "jsonl":
        path = path.with_suffix(".jsonl")
        table.to_pandas().to_json(path, orient="records", lines=True)
    else:
        delimiter = ";" if form == "semicolons" else ","
        path = path.with_suffix(".csv")
        options = pyarrow.csv.WriteOptions(delimiter=delimiter)
        pyarrow.csv.write_csv(table, path, options)
    path.with_name(f"{path.name}.done").touch()
    return path


@pytest.mark.proof
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_people_have_gives_a_spec_that_computes_without_a_typed_line(
    tmp_path: Path, mlmon: Command, layout: str
) -> None:
    made = LAYOUTS[layout]()
    tables = made if isinstance(made, tuple) else (made,)
    form = WRITTEN_AS.get(layout, "parquet")
    files = [
        write_as(form, table, tmp_path / "landing" / "shop" / name / "all")
        for name, table in zip(("predictions", "actuals"), tables, strict=False)
    ]
    at = ("--project", tmp_path, "--now", "2026-05-01T00:00:00Z")
    written = mlmon(*at, "init", *files)
    assert written.code == 0, written.err
    spec = load_model(tmp_path / "models" / "shop.yaml")
    ended = mlmon(*at, "ingest", "shop")

    assert ended.code == 0, ended.out
    assert f"{N:,} new" in ended.out
    assert " bad" not in ended.out.replace(" 0 bad", "")
    assert spec.source.actuals is not None
    expected = dict(EXPECTED[layout])
    kinds = {name: feature.type for name, feature in spec.features.items()}
    assert expected.pop("task", spec.task) == spec.task
    assert expected.pop("features", kinds) == kinds
    assert not expected.pop("without", set()) & set(kinds)
    assert {role: getattr(spec.columns, role) for role in expected} == expected
    if layout not in COMPUTED:
        return
    project = make_project(tmp_path, lambda: dt.datetime(2026, 5, 1, tzinfo=dt.UTC))
    look(project, spec, "first")
    values = metric_log.newest(project.store.state, "shop", metric=PERFORMANCE[spec.task])["value"]
    project.store.close()
    assert values.notna().sum() >= 5


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


def test_three_files_named_after_reference_analysis_and_target_become_a_baseline_and_production(
    tmp_path: Path, mlmon: Command
) -> None:
    table = other_words.office_days().to_pandas().drop(columns="partition").assign(id=range(N))
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
    refused = manifest.file_rows(project.store.state, "office", "predictions")
    project.store.close()
    assert rows["dataset"].value_counts().to_dict() == {"validation": half, "production": N - half}
    assert {row["status"] for row in refused} == {"done"}


def test_files_that_share_no_id_or_are_of_three_kinds_are_refused_with_what_to_name(
    tmp_path: Path, mlmon: Command
) -> None:
    predictions, truth = events.apart()
    other = pa.array([f"k{i}" for i in range(N)])
    for name, table in (
        ("predictions", predictions),
        ("truth", truth.rename_columns(["key", "seen", "left"]).set_column(0, "key", other)),
        ("third", events.searches()),
    ):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("predictions", "truth", "third")]
    apart = mlmon("--project", tmp_path, "init", *files[:2])
    three = mlmon("--project", tmp_path, "init", *files)

    assert (apart.code, three.code) == (2, 2)
    assert "no column in common" in apart.err
    assert "--actuals FILE" in three.err


def test_line_ends_in_cells_of_the_sample_are_declared(tmp_path: Path, mlmon: Command) -> None:
    table = events.churn().to_pandas()
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
