"""Every format of docs/sources.md is read as the page says, and its broken rows are named."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats import read_jsonl
from mlmon_dagster.ingest.formats.parse import cast_column
from mlmon_dagster.ingest.formats.read_jsonl import read_any, read_flat
from mlmon_dagster.ingest.raw import Options, RawFile
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from tests.ingest.landing import (
    PREDICTIONS,
    World,
    credit_spec,
    events,
    jsonl_bytes,
)

NOW = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
PAGE = (Path(__file__).parents[2] / "docs/sources.md").read_text()
EXAMPLES = {
    title: (yaml.safe_load(declared), name, content)
    for title, declared, name, content in re.findall(
        r"^## ([^\n]+)\n(?:(?!^## ).)*?```yaml\n(.*?)```\n\n`(landing/\S+)`:\n\n```\n(.*?)```",
        PAGE,
        re.DOTALL | re.MULTILINE,
    )
}
KSERVE = next(content for title, (_, _, content) in EXAMPLES.items() if "KServe" in title)
SAGEMAKER = next(content for title, (_, _, content) in EXAMPLES.items() if "SageMaker" in title)


def example_spec(title: str, **source: Any) -> ModelSpec:
    """Return the model of an example, with more keys for its predictions."""
    declared = next(d for t, (d, _, _) in EXAMPLES.items() if title in t)
    predictions = {**declared["source"]["predictions"], "settle": "0s", **source}
    return spec_from_mapping({
        "model": "credit", "task": "binary_classification", "owners": ["team:risk"],
        "time": {"start": "2026-01-01"}, **declared, "source": {"predictions": predictions},
    })  # fmt: skip


def take_in(
    world: World, spec: ModelSpec, content: str, name: str = "landing/a.jsonl"
) -> FileReport:
    """Ingest one file."""
    world.land(name, content.encode())
    return world.ingest(spec, now=NOW).files[0]


def rows_of(world: World, spec: ModelSpec) -> list[dict[str, Any]]:
    """Return the events in the order of their ids."""
    return sorted(world.rows(spec), key=lambda row: str(row["prediction_id"]))


def test_the_page_has_an_example_of_every_text_format() -> None:
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_of_a_format_is_read_as_two_good_events(world: World, title: str) -> None:
    spec = example_spec(title)
    _, name, content = EXAMPLES[title]

    file = take_in(world, spec, content, name)

    assert (file.status, file.n_new, file.n_bad) == ("done", 2, 0), file
    assert file.warnings == ()
    rows = rows_of(world, spec)
    assert [row["score"] for row in rows] == [0.91, 0.12] or [row["score"] for row in rows] == [
        0.12,
        0.91,
    ]
    assert {row["country"] for row in rows} == {"NA", "DE"}
    assert {row["event_time"].isoformat()[:16] for row in rows} <= {
        "2026-03-01T08:00",
        "2026-03-01T08:01",
    }


def test_rows_of_a_kserve_batch_get_the_request_id_with_their_number(world: World) -> None:
    spec = example_spec("KServe")
    take_in(world, spec, KSERVE)

    first, second = rows_of(world, spec)

    assert (first["prediction_id"], second["prediction_id"]) == ("4f2c-0", "4f2c-1")
    assert (first["age"], first["score"], second["age"], second["score"]) == (34, 0.91, 51, 0.12)
    assert (first["model_version"], first["status"], first["latency_ms"]) == ("7", "ok", 12.0)


def test_kserve_bodies_may_be_packed_nested_reversed_and_listed(world: World) -> None:
    request, response = map(json.loads, KSERVE.splitlines())
    request["data"]["inputs"][0]["data"] = [[34], [51]]
    body = base64.b64encode(json.dumps(request["data"]).encode()).decode()
    stored = {"Id": "4f2c", "ReqType": request["type"], "Bytes": body, "Time": request["time"]}
    response["data"] = json.dumps(response["data"])
    spec = example_spec("KServe")

    file = take_in(world, spec, json.dumps([response, stored]) + "\n")

    assert (file.n_new, file.n_bad) == (2, 0)
    assert [row["age"] for row in rows_of(world, spec)] == [34, 51]


def _changed(change: str) -> str:
    request, response = map(json.loads, KSERVE.splitlines())
    tensor = request["data"]["inputs"][0]
    match change:
        case "shape":
            tensor["shape"] = [3, 1]
        case "no shape":
            del tensor["shape"]
        case "binary":
            del tensor["data"]
        case "rows":
            response["data"]["outputs"][0] |= {"shape": [1, 2], "data": [0.1, 0.9]}
        case "body":
            request["data"] = "[not JSON"
        case "no response":
            return json.dumps(request) + "\n"
        case "no type":
            request["type"] = ""
    return "".join(json.dumps(event) + "\n" for event in (request, response))


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ("shape", "malformed_payload", "as many values as the shape"),
        ("no shape", "malformed_payload", "a shape for every tensor"),
        ("binary", "malformed_payload", "binary extension"),
        ("rows", "malformed_payload", "same first dimension"),
        ("body", "malformed_payload", "a body of UTF-8 JSON"),
        ("no response", "unpaired", "in one file"),
        ("no type", "malformed_payload", "a type that ends in"),
    ],
)
def test_broken_kserve_event_is_a_bad_row_and_hurts_no_other(
    world: World, change: str, reason: str, said: str
) -> None:
    spec = example_spec("KServe")

    file = take_in(world, spec, _changed(change).replace("4f2c", "dead") + KSERVE)

    assert (file.status, file.n_new) == ("done", 2)
    letters = world.letters(spec)
    assert {(x["reason"]) for x in letters} <= {reason, "unpaired"}
    assert any(said in x["message"] and "line " in x["message"] for x in letters)


def test_failed_request_is_an_event_without_a_score(world: World) -> None:
    request, response = map(json.loads, KSERVE.splitlines())
    response["data"] = {"error": "out of memory"}
    spec = example_spec("KServe")
    failed = "".join(json.dumps(e) + "\n" for e in (request, response)).replace("4f2c", "bad")

    file = take_in(world, spec, failed + KSERVE)

    assert (file.n_new, file.n_bad) == (4, 0)
    assert {row["status"] for row in rows_of(world, spec)} == {"ok", "error"}


def test_sagemaker_ids_are_inference_ids_and_else_event_ids(world: World) -> None:
    spec = example_spec("SageMaker")
    take_in(world, spec, SAGEMAKER)

    assert [row["prediction_id"] for row in rows_of(world, spec)] == ["b3c2", "r1"]


def _captured(data: str, answer: str, content: str = "text/csv", encoding: str = "CSV") -> str:
    line = json.loads(SAGEMAKER.splitlines()[0])
    line["captureData"]["endpointInput"] |= {
        "data": data, "encoding": encoding, "observedContentType": content,
    }  # fmt: skip
    line["captureData"]["endpointOutput"]["data"] = answer
    return json.dumps(line) + "\n"


@pytest.mark.parametrize(
    "line",
    [
        _captured("34,NA\n51,DE\n", "0.91\n0.12"),
        _captured("34,NA\n51,DE\n", "0.91,0.12"),
        _captured('[[34, "NA"], [51, "DE"]]', "0.91,0.12", "application/json", "JSON"),
        _captured(
            '{"instances": [{"features": [34, "NA"]}, {"features": [51, "DE"]}]}',
            "0.91,0.12", "application/json", "JSON",
        ),
        _captured(
            '{"age": 34, "country": "NA"}\n{"age": 51, "country": "DE"}\n',
            "0.91,0.12", "application/jsonlines", "JSON",
        ),
    ],
)  # fmt: skip
def test_sagemaker_batches_are_read_row_by_row(world: World, line: str) -> None:
    spec = example_spec("SageMaker")

    file = take_in(world, spec, line)

    assert (file.n_new, file.n_bad) == (2, 0), file.bad_rows
    found = [
        (row["prediction_id"], row["age"], row["country"], row["score"])
        for row in rows_of(world, spec)
    ]
    assert found == [("r1-0", 34, "NA", 0.91), ("r1-1", 51, "DE", 0.12)]


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        (_captured("34", "0.5"), "malformed_payload", "2 cells a row"),
        (_captured("34,NA", "0.5\n0.6"), "malformed_payload", "as many outputs as inputs"),
        (_captured("%%", "0.5", encoding="BASE64"), "malformed_payload", "base64"),
        (_captured("AAAA", "1", "image/png", "BASE64"), "malformed_payload", "CSV or JSON"),
        ('{"eventMetadata": {"eventId": "x"}}\n', "unpaired", "capture both"),
    ],
)
def test_broken_sagemaker_capture_is_a_bad_row(
    world: World, line: str, reason: str, said: str
) -> None:
    spec = example_spec("SageMaker")

    file = take_in(world, spec, line + SAGEMAKER)

    assert (file.n_new, file.n_bad) == (2, 1)
    assert [x["reason"] for x in world.letters(spec)] == [reason]
    assert said in file.bad_rows[0]


def test_column_that_no_payload_holds_refuses_the_file(world: World) -> None:
    spec = example_spec("SageMaker", outputs=["p"])

    file = take_in(world, spec, SAGEMAKER)

    assert (file.status, file.reason) == ("quarantined", "missing_column")
    assert "'outputs.probability' not found" in file.message
    assert "'outputs.p'" in file.message


def test_zstandard_files_are_read_and_bounded(world: World) -> None:
    content = (EXAMPLES["CSV"][2] * 1).encode()
    packed = pa.compress(content, "zstd", asbytes=True)
    bomb = pa.compress(b"0" * 1_000_000, "zstd", asbytes=True)
    spec = example_spec("CSV", path="landing/*", max_bytes=50_000)
    world.land("landing/bomb.csv.zst", bomb)
    world.land("landing/cut.csv.zst", packed[:-9])
    world.land("landing/good.csv.zst", packed)
    world.land("landing/good.csv.gz", gzip.compress(content.replace(b"r", b"s")))

    report = world.ingest(spec, now=NOW)

    found = {Path(f.path).name: (f.status, f.reason) for f in report.files}
    assert found["bomb.csv.zst"] == ("quarantined", "too_large")
    assert found["cut.csv.zst"][0] == "quarantined"
    assert found["cut.csv.zst"][1] in ("truncated", "unreadable")
    assert (found["good.csv.zst"], found["good.csv.gz"]) == (("done", ""), ("done", ""))


def test_bad_cell_of_a_headerless_csv_is_named_by_its_line(world: World) -> None:
    spec = example_spec("CSV")
    content = EXAMPLES["CSV"][2] + "r3;1772352060;0.5;old;DE\n"

    file = take_in(world, spec, content, "landing/a.csv")

    assert "a.csv, line 3, column 'age'" in file.bad_rows[0]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_column_may_have_two_roles(world: World, ending: str) -> None:
    features = {"age": {"type": "numeric"}, "risk": {"type": "numeric", "from": "score"}}
    spec = credit_spec(features=features)
    world.land(f"{PREDICTIONS}/a.{ending}", events(3))

    (file,) = world.ingest(spec).files

    rows = world.store.event_log(spec).rows("predictions")
    assert (file.status, file.n_new, file.n_bad) == ("done", 3, 0)
    assert rows["risk"].to_pylist() == rows["score"].to_pylist()


SPEC = credit_spec()
WANTED = columns_of(SPEC, "predictions")
OPTIONS = Options(max_rows=100_000)


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_jsonl, "_LEAST_BYTES", 0)


def typed(raw: RawFile) -> dict[str, Any]:
    """Return the cells as the ingest sees them: with their declared types."""
    found = {}
    for column in WANTED:
        if column.source in raw.columns:
            cast = cast_column(raw.columns[column.source], column, SPEC.time, "a")
            faults = [(f.reason, f.rows.tolist()) for f in cast.faults]
            found[column.source] = (cast.values.to_pylist(), faults, sorted(cast.not_finite))
    return found


def flat(path: Path) -> RawFile | None:
    parts = read_flat(path, "a", WANTED, OPTIONS)
    return None if parts is None else next(parts)


def both(path: Path) -> tuple[RawFile | None, RawFile]:
    return flat(path), read_any(path, "a", WANTED, OPTIONS)


def test_plain_lines_are_read_the_fast_way(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl_bytes(events(50)))

    fast, careful = both(path)

    assert fast is not None
    assert typed(fast) == typed(careful)
    assert (fast.n_rows, fast.present) == (careful.n_rows, careful.present)
    assert fast.place_of([0, 7]) == careful.place_of([0, 7]) == ["line 1", "line 8"]


GOOD = json.loads(jsonl_bytes(events(1)))
CELLS = {
    "id": st.one_of(st.text(max_size=6), st.integers(-(2**70), 2**70), st.none()),
    "score": st.one_of(
        st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans(), st.just([1])
    ),
    "region": st.one_of(st.text(max_size=4), st.integers(), st.floats(), st.none()),
    "member": st.one_of(st.booleans(), st.none(), st.integers(0, 1), st.just("true")),
    "extra": st.one_of(st.text(max_size=4), st.just({"a": [{}]}), st.lists(st.integers())),
}


@settings(max_examples=150)
@given(st.lists(st.fixed_dictionaries({}, optional=CELLS), min_size=1, max_size=6), st.data())
def test_both_ways_give_the_same_cells(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.jsonl"
    ascii_only = data.draw(st.booleans())
    lines = [json.dumps({**GOOD, **row}, ensure_ascii=ascii_only) for row in rows]
    try:
        path.write_bytes("".join(line + "\n" for line in lines).encode())
    except UnicodeEncodeError:
        return

    fast, careful = both(path)

    assert fast is None or typed(fast) == typed(careful)


GOOD_LINE = json.dumps(GOOD)


@pytest.mark.parametrize(
    "content",
    [
        GOOD_LINE + GOOD_LINE + "\n" + GOOD_LINE + "\n",
        GOOD_LINE.replace(", ", ",\n") + "\n",
        GOOD_LINE + "\n\n" + GOOD_LINE + "\n",
        GOOD_LINE[:-1] + ', "id": "again"}\n',
        GOOD_LINE + "\n" + GOOD_LINE.replace('"score": ', '"score": "high", "x": ') + "\n",
        GOOD_LINE + "\n" + GOOD_LINE.replace('"score": ', '"score": [0.5], "x": ') + "\n",
        GOOD_LINE[:-9],
        GOOD_LINE + "\n" + GOOD_LINE[:-1] + ', "deep": ' + "[" * 200_000 + "\n",
    ],
    ids=["two on a line", "one on many", "blank", "twice", "mixed", "nested", "cut", "deep"],
)
def test_unusual_lines_are_left_to_the_careful_way(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)

    assert read_flat(path, "a", WANTED, OPTIONS) is None


def test_deep_values_nobody_asked_for_do_not_end_the_program(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * 200_000 + "]" * 200_000
    path.write_text(GOOD_LINE + "\n" + GOOD_LINE[:-1] + f', "deep": {deep}}}\n')

    fast = flat(path)

    assert fast is None or fast.n_rows == 2


def test_key_that_comes_late_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_jsonl, "_SAMPLE", 1)
    path = tmp_path / "a.jsonl"
    first = json.dumps({k: v for k, v in GOOD.items() if k != "latency_ms"})
    path.write_text(first + "\n" + GOOD_LINE + "\n")

    fast, careful = both(path)

    assert fast is None
    assert "latency_ms" in careful.present


def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps({**GOOD, "region": "Zürich€"}, ensure_ascii=False) + "\n") * 3)
    for size in range(150, 200):
        monkeypatch.setattr(read_jsonl, "_BLOCK", size)
        assert read_jsonl._count_lines(path) == 3
