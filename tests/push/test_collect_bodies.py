"""What may be sent: every form of body, within limits; and what ingest makes of it."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from typing import Any

import pyarrow as pa
import pytest

from mlmon_dagster.collect.collector import Limits
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.store import Store
from tests.push.collecting import ACTUALS, PREDICTIONS, Running, actual, row, running
from tests.push.worlds import NOW

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
    for body, media_type, encoding in bodies:
        packed = pack.get(encoding, bytes)(body)
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
    content = {(r["event_time"], r["score"], r["age"], r["region"]) for r in log}
    assert content == {(moment, 0.5, 30.0, "a")}


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
    (b"{}", "application/json", "br", 415, "unsupported_media_type"),
    (b"{}", "text/plain", "", 415, "unsupported_media_type"),
    (b"{}", "application/json; charset=latin-1", "", 415, "unsupported_media_type"),
]


def test_a_body_that_cannot_be_taken_is_refused_with_a_problem(store: Store, tmp_path: Any) -> None:
    with running(store, tmp_path, limits=TINY) as collector:
        for body, media_type, encoding, status, code in REFUSED:
            answer = collector.post(body, content_type=media_type, content_encoding=encoding)
            assert (answer.status, answer.json["type"]) == (status, f"/docs#{code}"), body[:60]
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


@pytest.mark.parametrize(
    "body", [b"\x00", b'{"id":"\\ud800"}', b'{"\\ud800": 1}', b"[[[]]]", b"{}"]
)
def test_odd_rows_are_refused_and_never_a_failure_of_the_server(
    collector: Running, body: bytes
) -> None:
    assert collector.post(body, content_type=LINES).status == 422
    assert collector.post(body).status in (400, 422)
