"""Evaluations of calls: whoever wrote the file, the newest of each name counts and none is lost."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.windows import windows_between
from mlmon_dagster.store import Store, open_store

NOW = dt.datetime(2026, 3, 20, 12, tzinfo=dt.UTC)
DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
DECLARED: dict[str, Any] = {
    "model": "assistant", "task": "generation", "owners": ["team:support"],
    "time": {"start": "2026-01-01"},
    "source": {
        "predictions": {"path": "landing/calls/*", "settle": "0s"},
        "actuals": {"path": "landing/evaluations/*", "settle": "0s"},
    },
    "columns": {"prediction_id": "id", "event_time": "at"},
    "evaluations": {
        "correct": {"by": "human", "good": ["correct", "pass"]},
        "faithful": {"by": "judge", "of": "correct", "good": {"at_least": 4}},
        "length": {"by": "code"},
    },
    "features": {"channel": {"type": "categorical"}},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(tmp_path / "store")
    yield found
    found.close()


def assistant(**changes: Any) -> ModelSpec:
    return spec_from_mapping({**DECLARED, **changes})


def land_calls(folder: Path, n: int = 3) -> None:
    rows = [{"id": f"c{i}", "at": f"2026-03-02T0{i}:00:00Z", "channel": "chat"} for i in range(n)]
    write_lines(folder / "landing" / "calls" / "calls.jsonl", rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def land(folder: Path, rows: list[dict[str, Any]], name: str = "e.jsonl") -> None:
    path = folder / "landing" / "evaluations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path, index=False)
    else:
        write_lines(path, rows)


def ingest(store: Store, spec: ModelSpec, folder: Path):  # type: ignore[no-untyped-def]
    return ingest_new(store, spec, folder, readers(), now=NOW)


def records_of(store: Store, spec: ModelSpec, folder: Path) -> dict[str, dict[str, Any]]:
    """Ingest what has landed; return the records by call."""
    ingest(store, spec, folder)
    windows = windows_between(spec.time, DAY, DAY + dt.timedelta(days=1))
    table = store.inference_records(spec)
    table.rebuild(windows)
    return {str(row["prediction_id"]): row for row in table.read(windows).to_pylist()}


@pytest.mark.parametrize("name", ["e.jsonl", "e.csv", "e.parquet"])
def test_every_format_says_the_same(store: Store, tmp_path: Path, name: str) -> None:
    land_calls(tmp_path)
    land(tmp_path, [
        {"id": "c0", "name": "correct", "label": "Correct", "at": "2026-03-03T00:00:00Z"},
        {"id": "c1", "name": "correct", "label": "wrong", "at": "2026-03-03T00:00:00Z"},
    ], name)  # fmt: skip
    found = records_of(store, assistant(), tmp_path)
    assert [found[f"c{i}"]["correct"] for i in range(3)] == [1.0, 0.0, None]
    assert [found[f"c{i}"]["actual"] for i in range(3)] == [1, 0, None]


def test_exports_of_other_tools_are_read_by_their_own_names(store: Store, tmp_path: Path) -> None:
    """MLflow's assessments, OpenInference's annotations, Langfuse's scores, OpenTelemetry's."""
    land_calls(tmp_path, 4)
    names = {"prediction_id": "call", "actual_time": "when"}
    source = DECLARED["source"] | {
        "actuals": DECLARED["source"]["actuals"] | {"columns": names, "epoch": "ms"}
    }
    when = int(DAY.timestamp() * 1e3) + 86_400_000
    land(tmp_path, [
        {"call": "c0", "name": "faithful", "source": {"source_type": "LLM_JUDGE",
         "source_id": "gpt/1"}, "feedback": {"value": 5}, "rationale": "well", "when": when},
        {"call": "c1", "annotation.name": "faithful", "annotation.score": 2,
         "annotation.annotator_kind": "LLM", "annotation.identifier": "gpt/2", "when": when},
        {"call": "c2", "name": "correct", "stringValue": "pass", "dataType": "CATEGORICAL",
         "source": "ANNOTATION", "comment": "fine", "when": when},
        {"call": "c3", "gen_ai.evaluation.name": "length", "when": when,
         "gen_ai.evaluation.score.value": 41.5},
    ])  # fmt: skip
    found = records_of(store, assistant(source=source), tmp_path)
    assert (found["c0"]["faithful"], found["c0"]["faithful.evaluator"]) == (1.0, "gpt/1")
    assert found["c0"]["faithful.explanation"] == "well"
    assert (found["c1"]["faithful"], found["c1"]["faithful.evaluator"]) == (0.0, "gpt/2")
    assert (found["c2"]["correct"], found["c2"]["correct.explanation"]) == (1.0, "fine")
    assert found["c3"]["length"] == 41.5


def test_each_evaluation_is_corrected_by_itself_and_what_failed_takes_nothing_back(
    store: Store, tmp_path: Path
) -> None:
    land_calls(tmp_path)
    said = [
        {"id": "c0", "name": "correct", "label": "wrong", "at": "2026-03-03T00:00:00Z"},
        {"id": "c0", "name": "faithful", "value": 5, "at": "2026-03-03T01:00:00Z"},
        {"id": "c0", "name": "correct", "label": "pass", "at": "2026-03-05T00:00:00Z"},
        {"id": "c0", "name": "faithful", "error": "rate limit", "at": "2026-03-06T00:00:00Z"},
        {"id": "c1", "name": "faithful", "error": "rate limit", "at": "2026-03-06T00:00:00Z"},
    ]
    random.Random(2).shuffle(said)
    for i, row in enumerate(said):
        land(tmp_path, [row], f"{i}.jsonl")
        ingest(store, assistant(), tmp_path)
    found = records_of(store, assistant(), tmp_path)
    assert (found["c0"]["correct"], found["c0"]["actual"]) == (1.0, 1)
    assert found["c0"]["actual_time"] == dt.datetime(2026, 3, 5, tzinfo=dt.UTC)
    assert (found["c0"]["faithful"], found["c0"]["faithful.error"]) == (1.0, "rate limit")
    assert (found["c1"]["faithful"], found["c1"]["faithful.error"]) == (None, "rate limit")


def test_evaluations_before_their_call_twice_and_in_any_order_give_the_same_records(
    store: Store, tmp_path: Path
) -> None:
    rows = [
        {"id": f"c{i}", "name": name, "value": value, "label": "pass" if value > 3 else "wrong",
         "at": f"2026-03-0{day}T00:00:00Z"}
        for i in range(3)
        for name in ("correct", "faithful", "length")
        for day, value in ((3, 5), (4, 2), (6, 4 + i))
    ]  # fmt: skip
    land(tmp_path, rows, "first.jsonl")
    ingest(store, assistant(), tmp_path)  # no call is known yet
    land_calls(tmp_path)
    expected = records_of(store, assistant(), tmp_path)
    assert [expected[f"c{i}"]["length"] for i in range(3)] == [4.0, 5.0, 6.0]
    for seed in range(3):
        other = tmp_path / f"again{seed}"
        again = open_store(other / "store")
        random.Random(seed).shuffle(rows)
        land_calls(other)
        for part, name in ((rows[:9], "a.jsonl"), (rows[5:], "b.jsonl"), (rows, "c.jsonl")):
            land(other, part, name)
            ingest(again, assistant(), other)
        assert records_of(again, assistant(), other) == expected
        again.close()


def test_what_cannot_be_used_is_counted_and_named(store: Store, tmp_path: Path) -> None:
    land_calls(tmp_path)
    well = {"id": "c0", "name": "length", "value": 3, "at": "2026-03-03T00:00:00Z"}
    land(tmp_path, [
        *(well | {"id": f"c{i}", "at": f"2026-03-03T00:00:{i:02}Z"} for i in range(30)),
        well | {"name": "toxicity"}, well | {"value": "very"}, well | {"value": None},
        {"id": "c0", "value": 3, "at": "2026-03-03T00:00:00Z"},
    ])  # fmt: skip
    [report] = [f for f in ingest(store, assistant(), tmp_path).files if "evaluations" in f.path]
    assert report.rows_in == 33
    assert report.n_bad == 3
    assert "toxicity" in str(report)


def test_a_name_has_one_meaning_for_each_who_gives_it(store: Store, tmp_path: Path) -> None:
    """Tools name people's and judges' evaluations alike; who gave one tells them apart."""
    land_calls(tmp_path)
    spec = assistant(evaluations={
        "by_people": {"by": "human", "from": "correctness", "good": ["yes"]},
        "by_judge": {"by": "judge", "of": "by_people", "from": "correctness", "good": ["yes"]},
    })  # fmt: skip
    land(tmp_path, [
        {"id": "c0", "name": "correctness", "label": "yes", "by": "HUMAN", "at": "2026-03-03"},
        {"id": "c0", "name": "correctness", "label": "no", "by": "LLM_JUDGE", "at": "2026-03-03"},
    ])  # fmt: skip
    spec = spec.model_copy(update={"time": spec.time.model_copy(update={"naive": "zone"})})
    found = records_of(store, spec, tmp_path)["c0"]
    assert (found["by_people"], found["by_judge"]) == (1.0, 0.0)


@pytest.mark.parametrize(("evaluations", "said"), [
    ({}, "at least one is needed"),
    ({"a": {"by": "judge", "of": "b", "good": ["x"]}}, "'b' is no other evaluation"),
    ({"a": {"by": "human"}, "b": {"by": "judge", "of": "a", "good": ["x"]}}, "say what is good"),
    ({"channel": {"by": "human", "good": ["x"]}}, "is a feature"),
    ({"a": {"by": "human", "good": {}}}, "good needs at_least"),
])  # fmt: skip
def test_contradictions_are_sentences(evaluations: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        assistant(evaluations=evaluations)
