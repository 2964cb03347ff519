"""Labels as words, dates and decimals as other countries write them: declared, not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    World,
    credit_spec,
    events,
    truths,
)

N = 12


def by_id(
    world: World, spec: ModelSpec, stream: Stream = "predictions"
) -> dict[str, dict[str, Any]]:
    return {row["prediction_id"]: row for row in world.rows(spec, stream)}


def said_as(frame: pd.DataFrame, column: str, words: tuple[object, object]) -> pd.DataFrame:
    """Write the labels of a column as (what 0 is called, what 1 is called)."""
    return frame.assign(**{column: [words[value] for value in frame[column]]})


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("no", "yes"),
    [("nein", "ja"), ("stayed", "churned"), ("N", "Y"), (2, 1), (1.0, 2.0), ("ok", "Betrug ß"),
     (True, False), ("0", "1")],
)  # fmt: skip
def test_declared_words_are_read_alike_in_every_format_and_stream(
    world: World, ending: str, no: object, yes: object
) -> None:
    word = {True: "true", False: "false"} if isinstance(no, bool) else {}
    spec = credit_spec(labels={"positive": word.get(yes, yes), "negative": word.get(no, no)})
    world.land(f"{PREDICTIONS}/a.{ending}", said_as(events(N), "decision", (no, yes)))
    world.land(f"{ACTUALS}/a.{ending}", said_as(truths(N), "defaulted", (no, yes)))
    report = world.ingest(spec)

    assert [(f.n_new, f.n_bad) for f in report.files] == [(N, 0), (N, 0)], report.files
    assert {i: r["prediction"] for i, r in by_id(world, spec).items()} == {
        f"p{i}": i % 2 for i in range(N)
    }
    assert {i: r["actual"] for i, r in by_id(world, spec, "actuals").items()} == {
        f"p{i}": i % 2 for i in range(N)
    }


def test_words_of_several_columns_may_be_declared_together(world: World) -> None:
    spec = credit_spec(labels={"positive": ["ja", 1, "JA!"], "negative": ["nein", 0]})
    world.land(f"{PREDICTIONS}/a.csv", events(N))
    world.land(f"{ACTUALS}/a.csv", said_as(truths(N), "defaulted", (" Nein", "JA")))
    report = world.ingest(spec)

    assert [f.n_bad for f in report.files] == [0, 0]
    assert [r["actual"] for r in by_id(world, spec, "actuals").values()] == [0, 1] * (N // 2)


def test_labels_that_are_numbers_may_have_a_decimal_comma(world: World) -> None:
    actuals = {"path": f"{ACTUALS}/*", "settle": "0s", "decimal": "comma"}
    spec = credit_spec(labels={"positive": 2, "negative": 1}, source__actuals=actuals)
    world.land(f"{ACTUALS}/a.csv", said_as(truths(N), "defaulted", ("1,0", "2,0")))
    (file,) = world.ingest(spec).files

    assert (file.n_new, file.n_bad) == (N, 0)


def test_an_unknown_word_is_a_bad_row_that_says_which_are_known(world: World) -> None:
    spec = credit_spec(labels={"positive": "ja", "negative": "nein"})
    frame = said_as(truths(N), "defaulted", ("nein", "ja"))
    frame.loc[3, "defaulted"] = "vielleicht"
    frame.loc[4, "defaulted"] = "1"
    frame.loc[5, "defaulted"] = None
    world.land(f"{ACTUALS}/a.csv", frame)
    (file,) = world.ingest(spec).files

    assert (file.n_new, file.n_bad) == (N - 2, 2)
    assert all("expected one of ja, nein." in message for message in file.bad_rows)
    assert "vielleicht" not in str(file)


def test_without_a_declaration_the_file_is_refused_and_the_key_named(world: World) -> None:
    words = said_as(truths(N), "defaulted", ("nein", "ja"))
    world.land(f"{ACTUALS}/words.csv", words)
    commas = events(N).assign(score=[f"0,{i:02d}" for i in range(N)])
    world.land(f"{PREDICTIONS}/commas.csv", commas)
    german = events(N, first=50).assign(at="14.03.2024 13:05")
    world.land(f"{PREDICTIONS}/german.csv", german)
    files = {Path(f.path).stem: f for f in world.ingest().files}

    assert {f.reason for f in files.values()} == {"too_many_bad"}
    assert "labels: {positive: ..., negative: ...}" in files["words"].message
    assert "decimal: comma" in files["commas"].message
    assert "time_format: '%d.%m.%Y %H:%M'" in files["german"].message


GERMAN = {"time_format": ["%d.%m.%Y %H:%M", "%d.%m.%Y"], "decimal": "comma", "thousands": "point"}


def test_semicolons_decimal_commas_and_local_dates_are_read_as_declared(world: World) -> None:
    spec = credit_spec(
        time__naive="zone",
        source__predictions={"path": f"{PREDICTIONS}/*", "settle": "0s", "delimiter": "semicolon",
                             **GERMAN},
    )  # fmt: skip
    times = ["14.02.2024 13:05", "14.02.2024", "2024-02-14T12:05:00Z"]
    scores, ages = ["0,25", "1", ",5"], ["1.234,5", "-2.000.000", "7"]
    frame = events(3, at=times, score=scores, age=ages, latency_ms="12,5")
    file = world.take_in(frame.to_csv(index=False, sep=";").encode(), spec)
    rows = list(by_id(world, spec).values())

    assert (file.n_new, file.n_bad) == (3, 0), file
    assert [r["score"] for r in rows] == [0.25, 1.0, 0.5]
    assert [r["age"] for r in rows] == [1234.5, -2e6, 7.0]
    assert [r["event_time"].isoformat() for r in rows] == [
        "2024-02-14T12:05:00+00:00", "2024-02-13T23:00:00+00:00", "2024-02-14T12:05:00+00:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "cell"),
    [("at", "2024-02-14"), ("at", "31.02.2024"), ("at", "02/14/2024"), ("age", "0.5"),
     ("age", "1.23"), ("age", "1,2,3")],
)  # fmt: skip
def test_a_cell_in_another_notation_than_the_declared_one_is_a_bad_row(
    world: World, column: str, cell: str
) -> None:
    spec = credit_spec(
        time__naive="zone",
        source__predictions={"path": f"{PREDICTIONS}/*", "settle": "0s", **GERMAN},
    )
    frame = events(3, at=["14.02.2024"] * 3, score="0,5", age="1", latency_ms=3)
    frame.loc[1, column] = cell
    file = world.take_in(frame, spec)

    assert (file.n_new, file.n_bad) == (2, 1)
    assert "wrong_type" not in file.warnings
    assert f"column '{column}'" in file.bad_rows[0]


def test_a_format_with_an_offset_and_one_of_two_are_tried_in_their_order(world: World) -> None:
    spec = credit_spec(
        time__naive="zone",
        source__predictions={"path": f"{PREDICTIONS}/*", "settle": "0s",
                             "time_format": ["%d/%m/%Y %H:%M %z", "ISO8601", "%m/%d/%Y"]},
    )  # fmt: skip
    times = ["03/02/2024 08:00 +0500", "2024-02-03 04:00", "02/03/2024"]
    world.land(f"{PREDICTIONS}/a.csv", events(3, at=times))
    world.ingest(spec)
    found = [r["event_time"].isoformat() for r in by_id(world, spec).values()]

    assert found == [
        "2024-02-03T03:00:00+00:00", "2024-02-03T03:00:00+00:00", "2024-02-02T23:00:00+00:00",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_what_a_dataset_is_called_in_its_column_is_declared(world: World, ending: str) -> None:
    spec = credit_spec(
        datasets={"validation": ["reference", "holdout"], "production": "Analysis"},
        columns__dataset="part",
    )
    said = ["Reference", " analysis", "holdout", "validation", None, "nonsense"]
    world.land(f"{PREDICTIONS}/a.{ending}", events(6, part=said))
    (file,) = world.ingest(spec).files

    found = {i: row["dataset"] for i, row in by_id(world, spec).items()}
    assert found == {
        "p0": "validation", "p1": "production", "p2": "validation", "p3": "validation",
        "p4": "production",
    }  # fmt: skip
    assert (file.n_new, file.n_bad) == (5, 1)
    assert "say under 'datasets' what its name means" in file.bad_rows[0]


def test_words_of_a_files_path_say_which_dataset_its_events_and_ground_truth_are_of(
    world: World,
) -> None:
    spec = credit_spec(
        datasets={"validation": "reference", "canary": "small"},
        columns__dataset=None,
        source__predictions={"path": f"{PREDICTIONS}/**/*.csv", "settle": "0s"},
    )
    for name, first in (("2024_Reference-v2", 0), ("small/x", 3), ("preference", 6), ("x", 9)):
        frame = events(12)[first : first + 3]
        world.land(f"{PREDICTIONS}/{name}.csv", frame)
    world.land(f"{PREDICTIONS}/small_reference.csv", events(15)[12:])
    world.land(f"{ACTUALS}/reference.csv", truths(3))
    files = {file.path: file for file in world.ingest(spec).files}

    found = {i: row["dataset"] for i, row in by_id(world, spec).items()}
    assert [found[f"p{i}"] for i in range(0, 12, 3)] == [
        "validation", "canary", "production", "production",
    ]  # fmt: skip
    both = files[f"{PREDICTIONS}/small_reference.csv"]
    assert (both.n_new, both.n_bad) == (0, 3)
    told = {row["dataset"] for row in by_id(world, spec, "actuals").values()}
    assert told == {"validation"}


def test_files_that_both_streams_name_are_taken_for_what_their_columns_say(world: World) -> None:
    source = {"path": "in/*.csv", "settle": "0s"}
    spec = credit_spec(source__predictions=source, source__actuals=source)
    whole = events(6).merge(truths(6), on="id")
    world.land("in/both.csv", whole)
    world.land("in/events.csv", events(12)[6:])
    world.land("in/truth.csv", truths(12)[6:])
    world.land("in/neither.csv", events(3)[["id", "age"]])
    files = [(f.path, f.stream, f.status, f.n_new) for f in world.ingest(spec).files]

    assert sorted(files) == [
        ("in/both.csv", "actuals", "done", 6),
        ("in/both.csv", "predictions", "done", 6),
        ("in/events.csv", "actuals", "done", 0),
        ("in/events.csv", "predictions", "done", 6),
        ("in/neither.csv", "actuals", "quarantined", 0),
        ("in/neither.csv", "predictions", "quarantined", 0),
        ("in/truth.csv", "actuals", "done", 6),
        ("in/truth.csv", "predictions", "done", 0),
    ]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"labels": {"positive": "ja"}}, "negative"),
        ({"labels": {"positive": ["ja", "x"], "negative": "JA"}}, "stands there twice"),
        ({"labels": {"positive": "", "negative": "x"}}, "empty"),
        ({"labels": {"positive": [], "negative": "x"}}, "at least 1"),
        ({"labels": {"positive": True, "negative": "x"}}, "text"),
        ({"source__predictions__decimal": ";"}, "decimal is point or comma"),
        ({"source__predictions__thousands": "."}, "another sign than decimal"),
        ({"source__predictions__time_format": "%H:%M"}, "names no day of a year"),
        ({"source__predictions__time_format": "%d.%m.%Q"}, "has %Q"),
        ({"source__predictions__time_format": "%d.%m.%Y %"}, "a lone %"),
        ({"datasets": {"validation": ["a", "A"]}}, "stands there twice"),
        ({"datasets": {"validation": "x", "canary": "x"}}, "stands there twice"),
        ({"datasets": {"validation": "production"}}, "cannot mean validation"),
        ({"datasets": {"validation": ""}}, "names no dataset"),
        ({"datasets": {"valid": "x"}}, "valid"),
    ],
)
def test_a_declaration_that_says_nothing_or_two_things_is_refused(
    declared: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        credit_spec(**declared)
