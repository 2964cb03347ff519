"""What may be sent: every form of body, within limits; rows are judged as ingest would.

All reasons are told; and ingest takes what was accepted.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.collect import body
from mlmon_dagster.collect.collector import Judge, Limits
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.formats.parse import typed_columns
from mlmon_dagster.ingest.formats.read_jsonl import read_jsonl
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import Options
from mlmon_dagster.ingest.rows.canonical import draft_rows
from mlmon_dagster.ingest.rows.judge import judge_files
from mlmon_dagster.store import Store
from tests.push.collecting import ACTUALS, PREDICTIONS, Running, actual, row, running
from tests.push.worlds import NOW, push_spec

LINES = "application/x-ndjson"


def ndjson(rows: list[dict[str, Any]]) -> bytes:
    """Write rows one a line."""
    return b"".join(json.dumps(r).encode() + b"\n" for r in rows)


def test_every_form_is_durable_when_answered_and_ingested_alike(collector: Running) -> None:
    moment = dt.datetime(2024, 2, 29, 10, tzinfo=dt.UTC)
    bodies = [
        (json.dumps(row(0)).encode(), "application/json", "identity"),
        (json.dumps([row(1), row(2)], indent=1).encode(), "application/json", "gzip"),
        (ndjson([row(3), row(4)]), LINES, "zstd"),
        (ndjson([row(5)]).replace(b"\n", b"\r\n\r\n"), LINES, "identity"),
    ]
    pack = {"gzip": gzip.compress, "zstd": lambda b: pa.compress(b, "zstd", asbytes=True)}
    for content, media_type, encoding in bodies:
        packed = pack.get(encoding, bytes)(content)
        answer = collector.post(packed, content_type=media_type, content_encoding=encoding)
        assert answer.status == 202, answer.body
        n = answer.json["accepted"]
        assert len(collector.landed()) >= n
    assert collector.post([actual(i) for i in range(6)], ACTUALS).status == 202

    report = ingest_new(collector.store, collector.spec, collector.folder, readers(), now=NOW)

    assert sum(f.n_new for f in report.files if f.stream == "predictions") == 6
    assert sum(f.n_new for f in report.files if f.stream == "actuals") == 6
    assert {f.status for f in report.files} == {"done"}
    assert sum(f.n_bad + f.n_duplicate + f.n_conflict + f.n_unmatched for f in report.files) == 0
    log = collector.store.event_log(collector.spec).rows("predictions").to_pylist()
    cells = {(r["event_time"], r["score"], r["age"], r["region"]) for r in log}
    assert cells == {(moment, 0.5, 30.0, "a")}


def test_numbers_keep_their_digits_and_undeclared_columns_are_named(collector: Running) -> None:
    text = json.dumps(row(0, region=None, id=None)).replace('"region": null', '"region": 1.10')
    body = text.replace('"id": null', '"id": 12345678901234567890123').encode()
    assert collector.post(body).json == {"accepted": 1, "refused": 0}
    extra = collector.post(body.replace(b"{", b'{"Age": 1, "other": [], '))

    assert extra.json["warnings"] == ["columns 'Age', 'other' are not declared and not kept"]
    ingest_new(collector.store, collector.spec, collector.folder, readers(), now=NOW)
    log = collector.store.event_log(collector.spec).rows("predictions").to_pylist()
    assert {(r["prediction_id"], r["region"]) for r in log} == {("12345678901234567890123", "1.10")}


TINY = Limits(max_body=2_000, max_plain=4_000, max_rows=5, body_seconds=0.3, head_seconds=0.3)
REFUSED = [
    (b"{", "application/json", "", 400, "malformed"),
    (b'[{"a": 1},]', "application/json", "", 400, "malformed"),
    (b'{"a": 1} x', "application/json", "", 400, "malformed"),
    (b"7", "application/json", "", 400, "malformed"),
    (b"[]", "application/json", "", 400, "malformed"),
    (b"", LINES, "", 400, "malformed"),
    (b'{"a": "\xff"}', "application/json", "", 400, "malformed"),
    (b"[" * 1_900, "application/json", "", 400, "malformed"),
    (b'{"a":' * 300 + b"1" + b"}" * 300, LINES, "", 422, "rows_refused"),
    (b"x" * 2_001, "application/json", "", 413, "too_large"),
    (gzip.compress(b" " * 4_001), "application/json", "gzip", 413, "too_large"),
    (pa.compress(b" " * 10**7, "zstd", asbytes=True), LINES, "zstd", 413, "too_large"),
    (gzip.compress(b"{}")[:-4], "application/json", "gzip", 400, "malformed"),
    (b"{}", "application/json", "gzip", 400, "malformed"),
    (ndjson([{}] * 6), LINES, "", 413, "too_large"),
    (b"\x00", LINES, "", 422, "rows_refused"),
    (b'{"id":"\\ud800"}', LINES, "", 422, "rows_refused"),
    (b'{"\\ud800": 1}', "application/json", "", 422, "rows_refused"),
    (b"[[[]]]", "application/json", "", 422, "rows_refused"),
    (b"{}", "application/json", "br", 415, "unsupported_media_type"),
    (b"{}", "text/plain", "", 415, "unsupported_media_type"),
    (b"{}", "application/json; charset=latin-1", "", 415, "unsupported_media_type"),
]


def test_a_body_that_cannot_be_taken_is_refused_with_a_problem(store: Store, tmp_path: Any) -> None:
    with running(store, tmp_path, limits=TINY) as collector:
        for sent, media_type, encoding, status, code in REFUSED:
            answer = collector.post(sent, content_type=media_type, content_encoding=encoding)
            assert (answer.status, answer.json["type"]) == (status, f"/docs#{code}"), sent[:60]
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json["status"] == status
            assert answer.json["detail"]
        for method, path, status in (
            ("GET", PREDICTIONS, 405), ("POST", "/v1/models/loan/labels", 404),
            ("POST", "/v1/models/none/actuals", 404), ("GET", "/", 404),
            ("POST", f"{PREDICTIONS}?accept=some", 400),
        ):  # fmt: skip
            answer = collector.request(method, path, b"{}", content_type="application/json")
            assert answer.status == status, path
            assert answer.json["status"] == status
        assert collector.landed() == []


def test_a_client_that_sends_far_too_much_reads_why(store: Store, tmp_path: Any) -> None:
    chunks = [b" " * (1 << 20)] * 15
    with running(store, tmp_path, limits=Limits(max_body=2 << 20)) as collector:
        for body in (b"".join(chunks), iter(chunks)):
            answer = collector.request("POST", PREDICTIONS, body, content_type="application/json")
            assert (answer.status, answer.json["type"]) == (413, "/docs#too_large")
        assert collector.post({}).status == 422


SPEC = push_spec(
    columns={
        "prediction_id": "id", "event_time": "at", "score": "score", "prediction": "decision",
        "actual": "bad", "actual_time": "known", "dataset": "dataset", "status": "status",
    },
    features={
        "age": {"type": "numeric", "nullable": True}, "region": {"type": "categorical"},
        "member": {"type": "boolean", "nullable": True},
    },
)  # fmt: skip


def test_all_reasons_of_a_bad_batch_are_told_and_nothing_is_stored(collector: Running) -> None:
    rows = [row(0), row(1, score=1.5, age="old"), row(2, at="2024-02-29T10:00:00"),
            row(3, at="2030-01-01T00:00:00Z", region=None, id=None)]  # fmt: skip
    answer = collector.post(rows)

    assert answer.status == 422
    told = {(e["row"], e["column"], e["reason"]) for e in answer.json["errors"]}
    assert told == {
        (1, "score", "score_out_of_range"), (1, "age", "wrong_type"), (2, "at", "naive_time"),
        (3, "at", "future_time"), (3, "id", "null_required"),
    }  # fmt: skip
    assert answer.json["n_errors"] == 5
    assert {e["expected"] for e in answer.json["errors"] if e["column"] == "score"} == {
        "a number from 0 to 1"
    }
    assert b"old" not in answer.body
    assert collector.landed() == []


def test_a_missing_column_is_named_with_its_likely_name(collector: Running) -> None:
    without = {**row(0), "Score": 0.5}
    del without["score"]
    answer = collector.post([without])

    assert answer.status == 422
    (error,) = answer.json["errors"]
    assert (error["column"], error["reason"]) == ("score", "missing_column")
    assert "Did you mean 'Score'?" in error["detail"]
    assert collector.post([without], f"{PREDICTIONS}?accept=partial").status == 422


def test_partial_acceptance_stores_the_good_rows_and_lists_the_others(collector: Running) -> None:
    body = b"\n".join(
        [json.dumps(row(0)).encode(), b"not json", json.dumps(row(2, score=7)).encode(),
         b'{"id": 1, "id": 2}', json.dumps(row(4)).encode()]
    )  # fmt: skip
    path, kind = f"{PREDICTIONS}?accept=partial", "application/x-ndjson"
    answer = collector.post(body, path, content_type=kind)

    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["refused"]) == (2, 3)
    assert [(e["row"], e["reason"]) for e in answer.json["errors"]] == [
        (1, "malformed_json"), (2, "score_out_of_range"), (3, "duplicate_column")
    ]  # fmt: skip
    assert [r["id"] for r in collector.landed()] == ["p0", "p4"]
    none_good = collector.post([row(0, score=7)], path)
    assert none_good.status == 422


def test_only_so_many_errors_are_told_but_all_are_counted(collector: Running) -> None:
    answer = collector.post([row(i, score=2) for i in range(250)])
    assert (len(answer.json["errors"]), answer.json["n_errors"]) == (100, 250)


def test_actuals_may_be_withdrawn_but_not_be_anything(collector: Running) -> None:
    assert collector.post([actual(0), actual(1, bad=None)], ACTUALS).status == 202
    answer = collector.post([actual(0, bad=2), actual(1, known="2031-01-01T00:00:00Z")], ACTUALS)
    assert [(e["row"], e["reason"]) for e in answer.json["errors"]] == [
        (0, "bad_actual"), (1, "future_time")
    ]  # fmt: skip


ODD: dict[str, list[Any]] = {
    "id": ["p", 7, None, "", "\0", [1]],
    "at": ["2024-02-29T10:00:00Z", "2024-02-29", None, "2031-01-01T00:00:00Z", "x", 5],
    "score": [0.5, 1.5, None, float("nan"), "0.5", "x", True],
    "decision": [0, 1, 2, None, "true", "x"],
    "dataset": ["production", "training", None, "other"],
    "status": ["ok", "error", None],
    "age": [1, None, float("inf"), "x", "3"],
    "region": ["a", None, 1.5, {}],
    "member": [True, None, 1, 2, "x"],
}


@settings(max_examples=12)
@given(st.lists(st.fixed_dictionaries({k: st.sampled_from(v) for k, v in ODD.items()}),
                min_size=20, max_size=40))  # fmt: skip
def test_the_door_refuses_the_rows_that_the_suite_of_ingest_refuses(rows: list[Any]) -> None:
    judge = Judge(SPEC, "predictions")
    raw = body.raw_file(body.read_array(json.dumps(rows), 1_000), judge.wanted)
    judged = judge.judge(raw, {}, NOW)

    staged = Staged("predictions", "a", None, "", 0, 0)
    parsed = typed_columns(
        staged, raw, columns_of(SPEC, "predictions"), SPEC, SPEC.source.predictions
    )
    [(draft, _)] = judge_files([draft_rows(parsed, SPEC, NOW)], SPEC, "predictions")
    expected = {(int(i), fault.source, fault.reason) for fault in draft.faults for i in fault.rows}
    assert {(e["row"], e["column"], e["reason"]) for e in judged.errors} == expected
    assert np.array_equal(judged.bad, draft.bad())


@given(st.lists(st.fixed_dictionaries({k: st.sampled_from(v) | st.text(max_size=4)
                                       for k, v in ODD.items()},
                                      optional={"more": st.text(max_size=3)}),
                min_size=1, max_size=6), st.sampled_from([None, 1]))  # fmt: skip
def test_a_file_reads_back_as_the_cells_that_were_judged(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None
) -> None:
    wanted = Judge(SPEC, "predictions").wanted
    read = body.read_array(json.dumps(rows, indent=indent, ensure_ascii=False), 1_000)
    judged = body.raw_file(read, wanted)
    path = tmp_path_factory.mktemp("landing") / "a.jsonl"
    kept = range(len(read))
    path.write_bytes(b"".join(body.json_lines_of(read, wanted, kept, judged.present)))

    [found] = read_jsonl(path, "a.jsonl", wanted, Options(max_rows=100))
    assert found.columns == judged.columns
    assert found.n_rows == judged.n_rows


def test_columns_inside_objects_are_found_and_written_under_their_dotted_names(
    store: Store, tmp_path: Path
) -> None:
    features = {"age": {"type": "numeric", "from": "inputs.age"}, "region": {"type": "categorical"}}
    spec = push_spec(features=features)
    nested = {**row(0), "inputs": {"age": 1.50, "more": 1}}
    del nested["age"]
    with running(store, tmp_path, spec=spec) as collector:
        answer = collector.post(json.dumps(nested).replace("1.5", "1.50").encode())
        assert answer.json == {"accepted": 1, "refused": 0}
        report = ingest_new(store, spec, tmp_path, readers(), now=NOW)
    assert [(f.status, f.n_new) for f in report.files] == [("done", 1)]
    assert store.event_log(spec).rows("predictions")["age"].to_pylist() == [1.5]
    (path,) = (tmp_path / "landing/predictions").iterdir()
    assert '"inputs.age": 1.50' in path.read_text()


def test_events_may_be_identified_by_columns_that_are_no_features(
    store: Store, tmp_path: Path
) -> None:
    columns = {"prediction_id": ["shop", "till"], "event_time": "at", "score": "score",
               "actual": "bad", "actual_time": "known"}  # fmt: skip
    spec = push_spec(columns=columns)
    sent = [{**row(i), "shop": "north", "till": i} for i in range(3)]
    for event in sent:
        del event["id"]
    with running(store, tmp_path, spec=spec) as collector:
        answer = collector.post(sent)
        assert (answer.status, answer.json) == (202, {"accepted": 3, "refused": 0})
        without = [{name: cell for name, cell in sent[0].items() if name != "till"}]
        errors = collector.post(without).json["errors"]
        assert ("till", "missing_column") in {(e["column"], e["reason"]) for e in errors}, errors
        report = ingest_new(store, spec, tmp_path, readers(), now=NOW)

    assert [(f.status, f.n_new) for f in report.files] == [("done", 3)]
    ids = store.event_log(spec).rows("predictions")["prediction_id"].to_pylist()
    assert len(set(ids)) == 3


def test_decisions_that_are_words_arrive_as_declared(store: Store, tmp_path: Path) -> None:
    columns = {"prediction_id": "id", "event_time": "at", "prediction": "decision",
               "actual": "bad", "actual_time": "known"}  # fmt: skip
    spec = push_spec(columns=columns, labels={"positive": ["Ja", 1], "negative": "nein"})
    sent = [{**row(i), "decision": said} for i, said in enumerate(["ja", "Nein", None, "oft"])]
    with running(store, tmp_path, spec=spec) as collector:
        answer = collector.post(sent, f"{PREDICTIONS}?accept=partial")
        report = ingest_new(store, spec, tmp_path, readers(), now=NOW)

    assert [(e["row"], e["expected"]) for e in answer.json["errors"]][-1] == (
        3, "one of ja, 1, nein"
    )  # fmt: skip
    assert [(f.status, f.n_new, f.n_bad) for f in report.files] == [("done", 2, 0)]
    assert store.event_log(spec).rows("predictions")["prediction"].to_pylist() == [1, 0]


def test_vectors_arrive_as_lists_of_numbers(store: Store, tmp_path: Path) -> None:
    """With what is no number among them as NaN; a text that is no list is refused."""
    spec = push_spec(features={"asked": {"type": "embedding", "nullable": True}})
    vectors = [[0.5, -1.25, 3e-05], [0.5, None], [], None]
    sent = [
        {**{k: v for k, v in row(n).items() if k not in ("age", "region", "member")}, "asked": x}
        for n, x in enumerate(vectors)
    ]
    with running(store, tmp_path, spec=spec) as collector:
        answer = collector.post(sent)
        refused = collector.post([{**sent[0], "asked": "none"}])
        assert [e["expected"] for e in refused.json["errors"]] == ["a list of numbers"]
        assert (answer.status, answer.json) == (202, {"accepted": 4, "refused": 0})
        report = ingest_new(store, spec, tmp_path, readers(), now=NOW)
    assert [(f.status, f.n_new) for f in report.files] == [("done", 4)]
    rows = store.event_log(spec).rows("predictions").sort_by("prediction_id")
    found = rows["asked"].to_pylist()
    assert found[0] == pytest.approx(vectors[0])
    assert (found[1][0], np.isnan(found[1][1])) == (0.5, True)
    assert found[2:] == [[], None]
