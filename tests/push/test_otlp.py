"""Spans and logs in OpenTelemetry's protocol: equal in both forms, durable, answered as it says."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status, StatusCode

from mlmon_dagster.collect import admission
from mlmon_dagster.collect.otlp import JSON, PROTOBUF
from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.tables import spans
from tests.push.collecting import Running, running
from tests.push.otlp import START, as_json, pair, random_spans, request_of
from tests.push.worlds import NOW, push_spec

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPANS = {
    "join": "mlmon.prediction_id", "sampling": "unbiased", "stages": {"fetch": "fetch*"},
    "columns": {"node": "k8s.node.name", "cached": "cache.hit"},
}  # fmt: skip
SPEC = push_spec(spans=SPANS)


@pytest.fixture(scope="module")
def tracing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("tracing")
    store = open_store(folder / "store")
    with running(store, folder, spec=SPEC) as found:
        yield found
    store.close()


def post(
    collector: Running, body: bytes, form: str = PROTOBUF, path: str = "/v1/traces", **more: str
):  # type: ignore[no-untyped-def]
    return collector.request("POST", path, body, content_type=form, **more)


def taken_in(collector: Running) -> list[dict[str, object]]:
    """Ingest what has landed, and return everything that is stored."""
    ingest_new(collector.store, collector.spec, collector.folder, readers(), now=NOW)
    snapshot = spans.folder_of(collector.store.root, collector.spec.model).snapshot()
    assert snapshot is not None
    return collector.store.query(f"SELECT * FROM {snapshot.from_sql()}").to_pylist()


def test_10_000_random_spans_give_equal_rows_in_both_forms(tracing: Running) -> None:
    taker = tracing.app._spans
    assert taker is not None
    request = request_of(random_spans(10_000, seed=7))
    one = taker.read("traces", PROTOBUF, request.SerializeToString())
    other = taker.read("traces", JSON, as_json(request))
    assert not one.refused
    assert one.n_rows == 10_000
    assert one.lines == other.lines


def test_a_real_exporter_sends_and_what_it_sent_is_stored(tracing: Running) -> None:
    named = {"service.name": "sdk", "k8s.node.name": "n1", "host.name": "kept by nobody"}
    provider = TracerProvider(resource=Resource.create(named))
    address = f"http://127.0.0.1:{tracing.port}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address)))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("predict") as root:
        root.set_attribute("mlmon.prediction_id", "p1")
        root.set_attribute("cache.hit", True)
        with tracer.start_as_current_span("fetch features") as child:
            child.set_status(Status(StatusCode.ERROR, "deadline exceeded"))
    assert provider.force_flush()
    provider.shutdown()

    rows = {row["name"]: row for row in taken_in(tracing) if row["service"] == "sdk"}
    assert rows["predict"]["prediction_id"] == "p1"
    assert rows["predict"]["attributes"] == ["cache.hit=true", "k8s.node.name=n1"]
    assert rows["fetch features"]["attributes"] == ["k8s.node.name=n1"]
    assert rows["fetch features"]["parent_id"] == rows["predict"]["span_id"]
    assert rows["fetch features"]["status"] == "timeout"


@pytest.mark.parametrize("form", [JSON, PROTOBUF])
def test_bad_rows_are_refused_alone_and_the_answer_is_in_the_form_of_the_request(
    tracing: Running, form: str
) -> None:
    request = request_of([
        {"trace": TRACE}, {"trace": "00" * 16}, {"trace": TRACE, "span": "00"},
        {"trace": TRACE, "ms": -5.0}, {"trace": TRACE, "at": 0}, {"trace": TRACE, "ms": 1e12},
        {"trace": TRACE, "attributes": {"mlmon.model": "other"}},
    ])  # fmt: skip
    body = as_json(request) if form == JSON else request.SerializeToString()
    answer = post(tracing, gzip.compress(body), form, content_encoding="gzip")
    assert (answer.status, answer.headers["content-type"]) == (200, form)
    if form == JSON:
        n = int(answer.json["partialSuccess"]["rejectedSpans"])
    else:
        n = ExportTraceServiceResponse.FromString(answer.body).partial_success.rejected_spans
    assert n == 6
    well = request_of([{"trace": TRACE}])
    body = as_json(well) if form == JSON else well.SerializeToString()
    assert post(tracing, body, form).body == (b"{}" if form == JSON else b"")


def test_whatever_is_in_a_span_its_line_is_short_enough_for_ingest(tracing: Running) -> None:
    taker = tracing.app._spans
    assert taker is not None
    many = 10**6
    named = {"k8s.node.name": "é" * many, "mlmon.prediction_id": "z" * many}
    long = {"trace": TRACE, "name": "x" * many, "error": "y" * many, "attributes": named}
    request = request_of([long | {"flag": ("ui", "b")}])
    events = request.resource_spans[0].scope_spans[0].spans[0].events
    for i in range(20_000):
        events.add().CopyFrom(events[0])
        events[-1].attributes[0].value.string_value = f"flag {i}"
    [[line]] = taker.read("traces", PROTOBUF, request.SerializeToString()).lines.values()
    assert len(line) < 20_000
    assert len(json.loads(line)["flags"]) == 100


def test_logs_come_with_their_trace(tracing: Running) -> None:
    request = ExportLogsServiceRequest()
    log = request.resource_logs.add().scope_logs.add().log_records.add()
    log.trace_id, log.span_id = bytes.fromhex(TRACE), bytes.fromhex("00000000000000aa")
    log.time_unix_nano, log.severity_number = START, 17
    log.event_name, log.body.string_value = "feature_flag.evaluation", "no features for the key"
    log.attributes.extend(
        [pair("feature_flag.key", "ui"), pair("feature_flag.result.variant", "b")]
    )
    for body, form in ((request.SerializeToString(), PROTOBUF), (as_json(request), JSON)):
        assert post(tracing, body, form, "/v1/logs").status == 200
    rows = [row for row in taken_in(tracing) if row["kind"] == "log"]
    assert len(rows) == 1  # of equal content, sent twice
    assert (rows[0]["status"], rows[0]["flags"], rows[0]["duration_ms"]) == (
        "error",
        ["ui=b"],
        None,
    )
    assert rows[0]["message"] == "no features for the key"


def test_3_000_malformed_bodies_make_no_server_error(tracing: Running) -> None:
    draw = random.Random(3)
    request = request_of(random_spans(4, seed=1))
    whole = {PROTOBUF: request.SerializeToString(), JSON: as_json(request)}
    odd = [b"", b"{}", b"[]", b"null", b'{"resourceSpans": 1}', b'{"resourceSpans": [null]}',
           b"[" * 99_999, b'{"resourceSpans":[{"scopeSpans":[{"spans":[7]}]}]}',
           b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":7}]}]}]}',
           b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"\xd9\xa3"}]}]}]}',
           b'{"resourceSpans":[{"resource":{"attributes":[{}]}}]}',
           b'{"resourceSpans":[{"resource":{"attributes":[{"key":"mlmon.model","value":'
           b'{"doubleValue":1' + b"0" * 400 + b"}}]}}]}"]  # fmt: skip
    taker, refusals = tracing.app._spans, 0
    assert taker is not None
    for i in range(3_000):
        form = (PROTOBUF, JSON)[i % 2]
        body = bytearray(whole[form])
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(body))
            match draw.randrange(3):
                case 0:
                    body[place] = draw.randrange(256)
                case 1:
                    del body[place : place + draw.randrange(1, 50)]
                case _:
                    body[place:place] = draw.randbytes(3)
        content = odd[i // 2 % len(odd)] if i % 50 < 2 else bytes(body)
        path = "/v1/logs" if i % 10 == 3 else "/v1/traces"
        if i % 10 > 3:  # most of them without the way over HTTP
            try:
                taker.read("traces", form, content)
            except Problem as problem:
                refusals += problem.code == "malformed"
            continue
        status = post(tracing, content, form, path).status
        assert status in (200, 400)
        refusals += status == 400
    assert 1_000 < refusals < 3_000
    taken_in(tracing)  # and ingest reads whatever was taken


def test_refusals_are_said_in_the_codes_that_exporters_know(store: Store, tmp_path: Path) -> None:
    body = request_of([{"trace": TRACE}]).SerializeToString()
    with running(store, tmp_path, spec=SPEC) as collector:
        assert post(collector, body, "text/plain").status == 415
        assert post(collector, body, content_encoding="br").status == 415
        assert post(collector, b"\xff", PROTOBUF).status == 400
        collector.app.is_draining = True
        late = post(collector, body)
        assert (late.status, late.headers["retry-after"]) == (503, "5")
        collector.app.is_draining = False
        (tmp_path / "spans").rename(tmp_path / "away") if (tmp_path / "spans").exists() else None
        (tmp_path / "spans").write_text("in the way")
        assert post(collector, body).status == 503
    token = admission.create_token(store.state, "another", now=NOW, expires_at=None, note="")
    with running(store, tmp_path, spec=SPEC) as collector:
        assert post(collector, body).status == 401
        assert post(collector, body, authorization=f"Bearer {token}").status == 403
        shown = collector.request("GET", "/openapi.json", authorization=f"Bearer {token}")
        assert b"/v1/traces" not in shown.body


def test_a_model_without_spans_takes_none(store: Store, tmp_path: Path, tracing: Running) -> None:
    paths = tracing.request("GET", "/openapi.json").json["paths"]
    assert set(paths["/v1/logs"]["post"]["requestBody"]["content"]) == {JSON, PROTOBUF}
    assert b"POST /v1/traces" in tracing.request("GET", "/docs").body
    with running(store, tmp_path) as collector:
        assert post(collector, b"{}", JSON).status == 404
        assert "/v1/traces" not in collector.request("GET", "/openapi.json").json["paths"]


def test_a_request_of_400_days_makes_32_partitions_and_says_what_it_refused(
    store: Store, tmp_path: Path
) -> None:
    day = 86_400 * 10**9
    sent = [{"trace": f"{n + 1:032x}", "at": START - n * day} for n in range(400)]
    with running(store, tmp_path, spec=SPEC) as collector:
        answer = post(collector, as_json(request_of(sent)), JSON)
        stored = taken_in(collector)
        rest = post(collector, as_json(request_of(sent[32:60])), JSON)

        assert answer.status == 200
        assert answer.json["partialSuccess"] == {
            "rejectedSpans": "368",
            "errorMessage": "368: a request holds 32 days at most; send others apart",
        }
        assert len(stored) == len({row["window_date"] for row in stored}) == 32
        assert "partialSuccess" not in rest.json
        assert len(taken_in(collector)) == 60  # what was refused may be sent again, apart


def test_spans_that_retention_would_delete_are_refused_by_that_name(
    store: Store, tmp_path: Path
) -> None:
    spec = push_spec(spans=SPANS, retention={"spans": "30d"})
    now = time.time_ns()
    ages = {"a": 1, "b": 29, "c": 31, "d": 400}
    sent = [
        {"trace": name * 32, "at": now - age * 86_400 * 10**9, "ms": 1.0}
        for name, age in ages.items()
    ]
    with running(store, tmp_path, spec=spec) as collector:
        answer = post(collector, as_json(request_of(sent)), JSON)
    assert answer.json["partialSuccess"]["rejectedSpans"] == "2"
    assert (
        "older than what the model keeps (retention)"
        in answer.json["partialSuccess"]["errorMessage"]
    )
