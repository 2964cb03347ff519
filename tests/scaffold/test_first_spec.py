"""What a new user's files look like, and the first spec that follows from them."""

from __future__ import annotations

import datetime as dt
import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.scaffold import notes_of
from mlmon_dagster.scaffold.proposal import propose
from mlmon_dagster.spec import ModelSpec, parse_model
from mlmon_dagster.spec.sources import FileSource

NOW = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
N = 600


def matches(**columns: Any) -> pd.DataFrame:
    """Return events of twelve days, fifty a day, the first at half past midnight in Berlin."""
    rng = np.random.default_rng(3)
    times = pd.date_range("2026-03-01T00:30", periods=N, freq="29min", tz="Europe/Berlin")
    frame = pd.DataFrame(
        {
            "match": [f"m-{i:05d}" for i in range(N)],
            "played": [moment.isoformat() for moment in times],
            "yhat": rng.normal(2.5, 1.2, N).round(3),
            "rest_days": rng.integers(2, 9, N),
            "form": rng.normal(0, 1, N).round(3),
            "home_share": rng.uniform(0.1, 0.9, N).round(3),
        }
    )
    return frame.assign(**columns)


def goals(frame: pd.DataFrame, key: str = "match", **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    truth = (frame["yhat"] + rng.normal(0, 0.5, N)).round(2)
    later = [f"2026-03-{i % 9 + 15:02d}T12:00:00Z" for i in range(N)]
    found = pd.DataFrame({key: frame["match"], "goals": truth, "seen": later})
    return found.assign(**columns).sample(frac=0.9, random_state=1)


def land(folder: Path, name: str, frame: pd.DataFrame) -> Path:
    path = folder / "landing" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows))
    else:
        frame.to_csv(path, index=False)
    return path


def proposed(folder: Path, *files: Path, **options: Any) -> tuple[str, ModelSpec]:
    zone = options.pop("zone", None)
    text = propose(folder, files, "football", zone, "team:ml", NOW, **options)
    return text, parse_model(text, "football.yaml")


def source_of_actuals(spec: ModelSpec) -> FileSource:
    assert isinstance(spec.source.actuals, FileSource)
    return spec.source.actuals


def test_offsets_of_json_lines_are_kept(tmp_path: Path) -> None:
    file = land(tmp_path, "a.jsonl", matches())
    text, spec = proposed(tmp_path, file, zone="Europe/Berlin")

    assert spec.time.start == dt.date(2026, 3, 1), "half past midnight there"
    assert spec.time.naive == "refuse"
    assert "naive" not in text
    in_utc, utc = proposed(tmp_path, file)
    assert utc.time.start == dt.date(2026, 2, 28)
    assert any("Europe/Berlin" in note for note in notes_of(in_utc))


def test_json_lines_without_offsets_are_read_as_times_of_the_zone(tmp_path: Path) -> None:
    frame = matches()
    file = land(tmp_path, "a.jsonl", frame.assign(played=frame["played"].str[:19]))
    text, spec = proposed(tmp_path, file)
    assert spec.time.naive == "zone"
    assert spec.time.start == dt.date(2026, 3, 1)
    assert any("played has no offset and is read as UTC" in note for note in notes_of(text))
    asked, _ = proposed(tmp_path, file, zone="Europe/Berlin")
    assert not any("no offset" in note for note in notes_of(asked)), "the zone was said"


def hint_of(text: str, feature: str) -> str:
    """Return the comment lines below a feature as one."""
    _, _, below = text.partition(f"\n  {feature}: ")
    lines = below.splitlines()[1:]
    hint = takewhile(lambda line: line.startswith("  # "), lines)
    return " ".join(line.removeprefix("  # ") for line in hint)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_words_for_null_among_numbers_are_declared(tmp_path: Path, ending: str) -> None:
    """Where texts have the same word it may mean something, and a person decides."""
    frame = matches(
        wait=[str(i % 37) if i % 11 else "N/A" for i in range(N)],
        crowd=[str(i % 300) if i % 13 else "NULL" for i in range(N)],
        delay=[f"{i % 50}.5" if i % 7 else "-" for i in range(N)],
        grade=[("A", "B", "-")[i % 3] for i in range(N)],
    )
    text, spec = proposed(tmp_path, land(tmp_path, f"a.{ending}", frame))

    assert isinstance(spec.source.predictions, FileSource)
    assert spec.source.predictions.null_tokens == ("N/A", "NULL")
    features = spec.features
    assert [features[name].type for name in ("wait", "crowd")] == ["numeric", "numeric"]
    assert features["wait"].nullable
    assert features["crowd"].nullable
    assert features["delay"].type == "categorical"
    assert "write '-' under null_tokens" in hint_of(text, "delay")
    assert not hint_of(text, "grade")


def test_a_word_that_names_a_category_of_parquet_is_not_declared_as_null(tmp_path: Path) -> None:
    wait = [str(i % 37) if i % 11 else "NA" for i in range(N)]
    country = pd.Categorical([("NA", "DE")[i % 2] for i in range(N)])
    file = tmp_path / "landing.parquet"
    for others, declared in (({}, ("NA",)), ({"country": country}, ())):
        matches(wait=wait, **others).to_parquet(file, index=False)
        _, spec = proposed(tmp_path, file)
        assert isinstance(spec.source.predictions, FileSource)
        assert spec.source.predictions.null_tokens == declared


def test_numbers_that_are_written_as_texts_are_told(tmp_path: Path) -> None:
    frame = matches(
        fee=[f"€{i % 90}.42" for i in range(N)],
        budget=[f"${i * 3:,}" for i in range(N)],
        seats=[f"{i * 3 + 0.5:,}" for i in range(N)],
        price=[f"{i % 50}.5" if i % 7 else "free" for i in range(N)],
        sku=[f"AB{i % 40}" for i in range(N)],
    )
    text, _ = proposed(tmp_path, land(tmp_path, "a.csv", frame))

    assert "€ next to them. No key reads that" in hint_of(text, "fee")
    assert "  # budget: left out: a different value in every row" in text
    assert "$ next to them" in text
    assert "comma under thousands at source.predictions" in text.replace("\n  # ", " ")
    assert "Numbers but for free, so read as text." in hint_of(text, "price")
    assert not hint_of(text, "sku")


def test_a_word_that_comes_late_or_in_a_later_file_makes_a_column_of_texts(tmp_path: Path) -> None:
    whole = pd.concat([matches(wait=[str(i % 37) for i in range(N)])] * 40, ignore_index=True)
    whole["match"] = [f"m-{i:06d}" for i in range(len(whole))]
    late = whole.assign(wait=[*whole["wait"][:-2], "n.a.", "n.a."])
    first = land(tmp_path, "a.csv", whole.iloc[:N].assign(wait=range(N)))
    for files in ((land(tmp_path, "b.csv", late),), (first, tmp_path / "landing/b.csv")):
        _, spec = proposed(tmp_path, *files)
        assert isinstance(spec.source.predictions, FileSource)
        assert spec.source.predictions.null_tokens == ("n.a.",)
        assert spec.features["wait"].type == "numeric"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("more", [{}, {"form": 0.5}], ids=["alone", "with a shared column"])
def test_ids_under_two_names_are_matched_by_their_values(
    tmp_path: Path, ending: str, more: dict[str, Any]
) -> None:
    frame = matches()
    predictions = land(tmp_path, f"predictions/a.{ending}", frame)
    actuals = land(tmp_path, f"actuals/a.{ending}", goals(frame, "Match Ref", **more))
    text, spec = proposed(tmp_path, predictions, actuals)

    assert spec.columns.prediction_id == "match"
    assert source_of_actuals(spec).columns == {"prediction_id": "Match Ref"}
    assert spec.columns.actual == "goals"
    assert not [note for note in notes_of(text) if "cannot find its prediction" in note]


def test_whole_numbers_that_only_count_rows_are_no_ids_of_each_other(tmp_path: Path) -> None:
    frame = matches(match=range(N))
    predictions = land(tmp_path, "predictions/a.csv", frame)
    truth = goals(frame).rename(columns={"match": "line"}).assign(line=range(540))
    actuals = land(tmp_path, "actuals/a.csv", truth)
    with pytest.raises(ConfigError, match="no two columns with the same ids"):
        proposed(tmp_path, predictions, actuals)

    # A name says that they are.
    named = land(tmp_path, "named/a.csv", truth.rename(columns={"line": "match_no"}))
    _, spec = proposed(tmp_path, predictions, named)
    assert source_of_actuals(spec).columns == {"prediction_id": "match_no"}


@pytest.mark.parametrize("name", ["yhat", "y_hat", "yHat", "Y-Hat", "goals_yhat", "ŷ", "goals_hat"])
def test_a_prediction_is_known_by_the_ways_to_write_y_hat(tmp_path: Path, name: str) -> None:
    frame = matches()
    predictions = land(tmp_path, "predictions/a.csv", frame.rename(columns={"yhat": name}))
    actuals = land(tmp_path, "actuals/a.csv", goals(frame))
    _, spec = proposed(tmp_path, predictions, actuals)
    assert (spec.task, spec.columns.prediction) == ("regression", name)


def test_a_role_that_is_said_is_not_guessed(tmp_path: Path) -> None:
    frame = matches()
    predictions = land(tmp_path, "predictions/a.csv", frame.rename(columns={"yhat": "xg"}))
    other = {"goals": 1.0, "xg_true": goals(frame)["goals"]}
    actuals = land(tmp_path, "actuals/a.csv", goals(frame, **other))
    given = {"prediction": "xg", "actual": "xg_true"}
    text, spec = proposed(tmp_path, predictions, actuals, given=given)

    assert (spec.columns.prediction, spec.columns.actual) == ("xg", "xg_true")
    assert "prediction: xg  # as it was said" in text


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("a.csv", {"dataset": "validation"}),
        ("a.csv", {"period": "reference"}),
        ("reference.csv", {}),
    ],
    ids=["a column dataset", "a column of other words", "the file's name"],
)
def test_a_file_of_validation_rows_alone_does_not_end_production(
    tmp_path: Path, name: str, columns: dict[str, Any]
) -> None:
    frame = matches()
    old = frame["played"].str.replace("2026", "2025")
    file = land(tmp_path, name, frame.assign(played=old, goals=frame["yhat"] + 0.1, **columns))
    text, spec = proposed(tmp_path, file)

    assert spec.time.end is None
    assert spec.time.start == dt.date(2025, 3, 14), "the day after the last event"
    assert spec.baseline.dataset == "validation"
    assert any("none of production" in note for note in notes_of(text))


def test_limits_that_all_values_keep_by_nature_are_written_and_judge_no_row(tmp_path: Path) -> None:
    frame = matches()
    _, spec = proposed(tmp_path, land(tmp_path, "a.csv", frame.assign(goals=frame["yhat"] + 0.1)))
    found = {name: (f.min, f.max, f.nullable) for name, f in spec.features.items()}
    assert found == {
        "rest_days": (0, None, False),
        "form": (None, None, False),
        "home_share": (0, 1, False),
    }


RNG = np.random.default_rng(8)
CHANCE = RNG.beta(1, 4, N).round(2)
TRUTH = (RNG.random(N) < CHANCE).astype(int)
# What the model said, what came true, and the task and role that follow.
OUTPUTS = {
    "decimals of two outcomes": (CHANCE, TRUTH, "binary", "score"),
    "one decimal place": (CHANCE.round(1), TRUTH, "binary", "score"),
    "outcomes in words": (CHANCE, np.where(TRUTH == 1, "yes", "no"), "binary", "score"),
    "nothing came true yet": (CHANCE, 0 * TRUTH, "binary", "score"),
    "decisions": ((CHANCE > 0.2).astype(int), TRUTH, "binary", "prediction"),
    "decisions as decimals": ((CHANCE > 0.2) * 1.0, TRUTH * 1.0, "binary", "prediction"),
    "classes": (RNG.integers(0, 4, N), RNG.integers(0, 4, N), "multiclass", "prediction"),
    "shares": (CHANCE, CHANCE + RNG.normal(0, 0.1, N), "regression", "prediction"),
    "whole numbers": (CHANCE, RNG.integers(0, 3, N), "regression", "prediction"),
    "percent": ((100 * CHANCE).round(), TRUTH, "binary", ""),
}


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "truth apart"])
@pytest.mark.parametrize("case", OUTPUTS)
def test_decimals_of_two_outcomes_are_a_score_and_no_class(
    tmp_path: Path, case: str, *, apart: bool
) -> None:
    said, truth, task, role = OUTPUTS[case]
    frame = matches(prediction=said, actual=truth).drop(columns=["yhat", "home_share"])
    if apart:
        files = [
            land(tmp_path, "predictions/a.csv", frame.drop(columns="actual")),
            land(tmp_path, "actuals/a.csv", frame[["match", "actual"]]),
        ]
    else:
        files = [land(tmp_path, "a.csv", frame)]
    text, spec = proposed(tmp_path, *files)
    columns = {"score": spec.columns.score, "prediction": spec.columns.prediction}

    assert spec.task == (task if task == "regression" else f"{task}_classification")
    assert [name for name, column in columns.items() if column] == ([role] if role else [])
    assert any("in percent" in note for note in notes_of(text)) == (case == "percent")


def test_decimals_that_are_said_to_be_the_prediction_of_two_outcomes_are_the_score(
    tmp_path: Path,
) -> None:
    frame = matches(p13=CHANCE, actual=TRUTH).drop(columns="yhat")
    _, spec = proposed(tmp_path, land(tmp_path, "a.csv", frame), given={"prediction": "p13"})

    assert (spec.columns.score, spec.columns.prediction) == ("p13", None)


def test_a_path_is_absolute_where_the_files_are_outside_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    inside = land(project, "in/a.csv", matches())
    outside = land(tmp_path / "lake", "in/a.csv", matches())
    found = {}
    for file in (inside, outside, project / ".." / "lake" / "landing" / "in" / "a.csv"):
        _, spec = proposed(project, file)
        assert isinstance(spec.source.predictions, FileSource)
        found[file] = spec.source.predictions.path

    assert [*found.values()] == ["landing/in/*.csv", *2 * [f"{outside.parent}/*.csv"]]
