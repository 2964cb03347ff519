"""Embeddings: their topic and their novelty are judged, sliced and shown as any feature."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics.embeddings import EXEMPLARS, Vectors
from mlmon_dagster.metrics.statistics import select
from mlmon_dagster.monitors.wording import subject
from mlmon_dagster.profiles.baseline import ensure_baseline
from mlmon_dagster.profiles.embedded import FITTED
from mlmon_dagster.profiles.storage import load_profiles, to_rows
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import parse_predicate, predicate_columns, window_from_key
from mlmon_dagster.spec.files.loader import parse_model
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.erasure.places import find_traces
from mlmon_dagster.store.tables.derived_columns import name_row
from mlmon_dagster.tables.rows import rows_of
from tests.pipeline.looking import Place

D, ROWS, TOPICS = 24, 400, 12
FIRST, DAY = dt.date(2024, 2, 1), dt.date(2024, 3, 1)
NOW = dt.datetime(2024, 3, 2, 6, tzinfo=dt.UTC)
SPEC = """\
model: assistant
task: binary_classification
owners: [team:support]
time: {start: 2024-03-01}
source:
  predictions: {path: landing/predictions/*, settle: 0s}
columns: {prediction_id: id, event_time: at, score: p, dataset: dataset}
features:
  asked: {type: embedding, embedder: "static 24"}
slices: [asked.topic]
monitors: {drift: {windows: 1 of 1}}
"""
Change = Callable[[Vectors, np.random.Generator], list[object]]


def plain(vectors: Vectors, _: np.random.Generator) -> list[object]:
    return vectors.tolist()


def requests(day: dt.date, dataset: str = "production", change: Change = plain) -> pd.DataFrame:
    """Return the requests of a day, whose vectors lie around twelve topics."""
    rng = np.random.default_rng([day.toordinal(), len(dataset)])
    middle = np.random.default_rng(99).normal(size=(TOPICS, D))
    share = np.arange(1, TOPICS + 1) ** -1.0
    of = rng.choice(TOPICS, ROWS, p=share / share.sum())
    vectors = (middle[of] + 0.5 * rng.normal(size=(ROWS, D))).astype(np.float32)
    return pd.DataFrame(
        {
            "id": [f"{dataset[:1]}{day:%m%d}-{i}" for i in range(ROWS)],
            "at": pd.Timestamp(day, tz="UTC") + pd.to_timedelta(np.arange(ROWS) * 200, unit="s"),
            "p": rng.random(ROWS),
            "dataset": dataset,
            "asked": change(vectors, rng),
        }
    )


def make_desk(folder: Path, change: Change = plain) -> Place:
    """Return a project with twenty days of baseline and one day of production, computed."""
    desk = Place(folder, SPEC, NOW)
    usual = [requests(FIRST + dt.timedelta(days=n), "validation") for n in range(20)]
    desk.land("predictions", "validation", pd.concat(usual))
    desk.land("predictions", "day", requests(DAY, change=change))
    desk.look()
    return desk


def of_a_new_topic(share: float) -> Change:
    def change(vectors: Vectors, rng: np.random.Generator) -> list[object]:
        new = rng.random(ROWS) < share
        away = np.random.default_rng(5).normal(size=D)
        vectors[new] = away + 0.5 * rng.normal(size=(int(new.sum()), D))
        return vectors.tolist()

    return change


def broken(vectors: Vectors, _: np.random.Generator) -> list[object]:
    """Make some vectors unusable, each in its own way."""
    found: list[object] = vectors.tolist()
    for row in range(ROWS):
        if row % 20 == 0:
            found[row] = [1.0] * (D + 2)
        elif row % 20 == 1:
            found[row] = [float("nan"), *[0.5] * (D - 1)]
        elif row % 20 == 2:
            found[row] = [0.0] * D
    return found


def test_a_usual_day_is_judged_and_nothing_fires(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    store, spec = desk.store, desk.spec
    assert desk.firing() == {}
    found = desk.newest()
    found = found[found["slice_key"] == "all"].set_index("monitor")
    for name in ("asked", "asked.topic", "asked.novelty"):
        assert found.loc[f"drift/psi/{name}", "status"] == "OK", name
    assert list(spec.features) == ["asked", "asked.topic", "asked.novelty"]
    page = health_report(store, spec, NOW).html
    assert "asked.novelty" in page
    assert "Topics of asked" in page


def test_a_topic_that_the_baseline_never_saw_is_drift_of_novelty(tmp_path: Path) -> None:
    said = make_desk(tmp_path, of_a_new_topic(0.25)).firing()
    told = said["drift/psi/asked.novelty"]
    said_so = r"asked is unlike the baseline's in at least \d\.\d+ % of rows, "
    assert re.fullmatch(said_so + r"most of all near topic \d+\.", told)
    assert subject("psi", "asked.novelty") == "Novelty of asked"


def test_few_rows_of_a_new_topic_are_told_though_no_distance_is_large(tmp_path: Path) -> None:
    said = make_desk(tmp_path, of_a_new_topic(0.05)).firing()
    assert list(said) == ["drift/psi/asked.novelty"]
    assert (
        "asked is unlike the baseline's in at least 2.01 % of rows"
        in said["drift/psi/asked.novelty"]
    )


def test_unusable_vectors_are_counted_named_and_have_no_topic(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, broken)
    store, spec = desk.store, desk.spec
    said = desk.firing()["quality/unseen_rate/asked"]
    assert said.startswith("asked has vectors unlike the baseline's in 15 % of rows: ")
    assert all(name in said for name in ("26 numbers", "not finite", "all zeros"))
    windows = [window_from_key(spec.time, str(DAY))]
    picked = parse_predicate("asked.topic is null", predicate_columns(spec))
    found = rows_of(store, spec, windows, picked, limit=1_000)
    assert found.n == 60
    assert set(found.table["asked"].to_pylist()) == {"26 numbers", "not finite", "all zeros"}
    assert set(found.table["asked.novelty"].to_pylist()) == {None}


def test_another_dimension_is_told_as_such(tmp_path: Path) -> None:
    said = make_desk(tmp_path, lambda vectors, _: np.hstack([vectors, vectors]).tolist()).firing()
    assert said["quality/unseen_rate/asked"] == (
        "asked has vectors unlike the baseline's in every row: 48 numbers."
    )


def test_slices_by_topic_are_profiled_of_every_row(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    store, spec = desk.store, desk.spec
    binnings = ensure_baseline(store, spec, NOW).binnings
    found = load_profiles(store, spec, binnings, start=NOW - dt.timedelta(3))["score"]
    cells = found.cells.assign(n=found.n)
    by_topic = cells[cells["slice_key"] == "asked.topic"]
    assert len(by_topic) >= TOPICS
    assert by_topic["n"].sum() == ROWS
    assert by_topic["slice_value"].str.startswith("topic ").all()


@pytest.mark.proof
def test_the_same_vectors_as_json_lines_and_csv_give_the_same_profiles(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    store, spec = desk.store, desk.spec
    binnings = ensure_baseline(store, spec, NOW).binnings
    names = ["asked", "asked.topic", "asked.novelty"]

    def counted() -> list[list[int]]:
        found = load_profiles(store, spec, binnings, start=NOW - dt.timedelta(3))
        return [found[name].counts[0].tolist() for name in names]

    before = counted()
    landing = tmp_path / "landing" / "predictions"
    rows = requests(DAY)
    rows["at"] = rows["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows["id"] += "-again"
    rows.head(200).to_json(landing / "day.jsonl", orient="records", lines=True, double_precision=15)
    rows.tail(200).assign(asked=rows["asked"].map(json.dumps)).to_csv(
        landing / "day.csv", index=False
    )
    desk.look()
    assert counted() == [[2 * n for n in one] for one in before]


def size_of(rows: pa.Table) -> int:
    """Return the bytes that the counts of profiles take in a file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.select(["codes", "counts"]), sink)
    group = pq.read_metadata(pa.BufferReader(sink.getvalue())).row_group(0)
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def test_no_division_of_the_rows_changes_what_is_counted(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, broken)
    once, twice = desk.profile_twice()
    spec = desk.spec
    for column in spec.features:
        assert np.array_equal(once[column].counts, twice[column].counts), column
    assert once["asked.novelty"].n[0] == 340
    kept = to_rows({name: select(once[name], np.array([0])) for name in spec.features})
    assert size_of(kept) < 2_048
    assert once["asked"].n[0] == ROWS


@pytest.mark.proof
def test_an_erased_row_is_no_exemplar_any_more(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    store, spec = desk.store, desk.spec

    def exemplars() -> list[str]:
        binnings = ensure_baseline(store, spec, NOW).binnings
        return [entry.partition("\x1f")[0] for entry in binnings[f"{FITTED}asked"].tail]

    known = exemplars()
    assert len(known) == EXEMPLARS
    ids = requests(FIRST, "validation")["id"].tolist()[100:]  # which no other id begins with
    gone = next(id_ for id_ in ids if name_row("validation", id_) in known)
    held = [path for path in (tmp_path / ".mlmon").rglob("*") if path.is_file()]
    name = name_row("validation", gone).encode()
    assert any(name in path.read_bytes() for path in held)
    erase(store, spec, [gone], now=NOW)
    held = [path for path in (tmp_path / ".mlmon").rglob("*") if path.is_file()]
    assert not any(name in path.read_bytes() for path in held)
    desk.look()
    assert name.decode() not in exemplars()
    assert find_traces(store, [gone]).traces == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("type: embedding", "type: numeric", "embedder is for embeddings, not for numeric"),
        ("slices: [asked.topic]", "slices: [asked]", "'asked' is embedding; slices are by"),
        ("slices: [asked.topic]", "slices: [asked.topik]", "did you mean 'asked.topic'?"),
    ],
)
def test_a_wrong_declaration_is_refused(before: str, after: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        parse_model(SPEC.replace(before, after))
