"""A program's own spans and evaluations, sent by OpenTelemetry's SDK: what is stored equals it."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from mlmon_dagster.collect.otlp import JSON, PROTOBUF
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.windows import windows_between
from mlmon_dagster.store import Store, open_store
from tests.push.collecting import Running, running
from tests.push.otlp import START, as_json, pair

EVALUATION = "gen_ai.evaluation.result"
NOW = dt.datetime.now(dt.UTC)
CALLS = 60


def assistant(**changes: object) -> ModelSpec:
    """Return a model whose calls are spans and whose evaluations are spans' or logs'."""
    return spec_from_mapping({
        "model": "assistant", "task": "generation", "owners": ["team:support"],
        "time": {"start": "2024-01-01"},
        "source": {
            "predictions": {"path": "landing/predictions/*", "spans": "invoke_agent*",
                            "settle": "0s"},
            "actuals": {"path": "landing/actuals/*", "settle": "0s"},
        },
        "columns": {
            "prediction_id": "span_id", "event_time": "start_time", "latency_ms": "duration_ms",
            "status": "status", "model_version": "gen_ai.response.model", "trace_id": "trace_id",
            "group": "gen_ai.conversation.id",
        },
        "evaluations": {
            "correct": {"by": "human", "good": ["correct"]},
            "faithful": {"by": "judge", "of": "correct", "good": {"at_least": 4},
                         "evaluator": "judge.version"},
        },
        "spans": {"sampling": "unbiased", "tokens": True, "stages": {"chat": "chat*"}},
        "features": {
            "output_tokens": {"type": "numeric", "from": "gen_ai.usage.output_tokens"},
            "ended": {"type": "categorical", "from": "gen_ai.response.finish_reasons"},
            "question": {"type": "text", "pii": True,
                         "from": "gen_ai.input.messages.last_user"},
        },
        **changes,
    })  # fmt: skip


def records_of(collector: Running) -> list[dict[str, object]]:
    """Ingest what has landed and return the records of all windows."""
    spec, store = collector.spec, collector.store
    now = dt.datetime.now(dt.UTC)  # the calls' times are the clock's
    ingest_new(store, spec, collector.folder, readers(), now=now + dt.timedelta(minutes=5))
    windows = windows_between(spec.time, NOW - dt.timedelta(days=1), now + dt.timedelta(days=1))
    records = store.inference_records(spec)
    records.rebuild(windows)
    return sorted(records.read(windows).to_pylist(), key=lambda row: str(row["prediction_id"]))


@pytest.fixture
def collecting(tmp_path: Path, store: Store):  # type: ignore[no-untyped-def]
    with running(store, tmp_path, spec=assistant()) as found:
        yield found


def test_what_the_sdk_sends_is_counted_as_by_hand(collecting: Running) -> None:
    """Calls, tokens, versions, evaluations of both kinds: equal to what the program did."""
    address = f"http://127.0.0.1:{collecting.port}/v1"
    resource = Resource.create({"service.name": "assistant"})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address}/traces")))
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{address}/logs")))
    tracer, logger = spans.get_tracer("test"), logs.get_logger("test")
    draw, did = random.Random(3), Counter[str]()
    for i in range(CALLS):
        with tracer.start_as_current_span("invoke_agent support") as call:
            tokens = draw.randrange(20, 400)
            did["tokens"] += tokens
            call.set_attribute("gen_ai.usage.output_tokens", tokens)
            call.set_attribute("gen_ai.response.model", "llm-2")
            if i % 3:
                call.set_attribute("gen_ai.conversation.id", f"talk {i % 3}")
            call.set_attribute("gen_ai.response.finish_reasons", ["stop"])
            said = [{"role": "user", "parts": [{"type": "text", "content": f"question {i}"}]}]
            call.set_attribute("gen_ai.input.messages", json.dumps(said))
            with tracer.start_as_current_span("chat llm") as chat:
                chat.set_attribute("gen_ai.usage.output_tokens", tokens)
            score = draw.randrange(1, 6)
            did["faithful"] += score >= 4
            judged = {"gen_ai.evaluation.name": "faithful", "judge.version": "judge/7",
                      "gen_ai.evaluation.score.value": float(score)}  # fmt: skip
            if i % 2:  # some emitters still write the event of a span
                call.add_event(EVALUATION, judged)
            else:
                emit(logger, call, judged)
            if i % 5 == 0:
                word = draw.choice(["correct", "wrong"])
                did["labelled"] += 1
                did["correct"] += word == "correct"
                emit(logger, call, {"gen_ai.evaluation.name": "correct",
                                    "gen_ai.evaluation.score.label": word})  # fmt: skip
            if i == 7:
                emit(logger, call, {"gen_ai.evaluation.name": "toxicity",
                                    "gen_ai.evaluation.score.value": 0.1})  # fmt: skip
    assert spans.force_flush()
    assert logs.force_flush()
    spans.shutdown()
    logs.shutdown()

    rows = records_of(collecting)
    assert len(rows) == CALLS
    assert sum(row["output_tokens"] for row in rows) == did["tokens"]  # type: ignore[misc]
    assert {row["model_version"] for row in rows} == {"llm-2"}
    assert {row["ended"] for row in rows} == {"stop"}
    talks = Counter(row["group"] for row in rows)
    assert talks == {None: 20, "talk 1": 20, "talk 2": 20}
    assert sorted(str(row["question"]) for row in rows) == sorted(
        f"question {i}" for i in range(CALLS)
    )
    assert sum(row["faithful"] for row in rows) == did["faithful"]  # type: ignore[misc]
    assert {row["faithful.evaluator"] for row in rows} == {"judge/7"}
    known = [row["correct"] for row in rows if row["correct"] is not None]
    assert (len(known), sum(known)) == (did["labelled"], did["correct"])  # type: ignore[arg-type]
    assert [row["actual"] for row in rows if row["actual"] is not None] == known
    assert all(row["stage.chat_ms"] is not None for row in rows)
    assert [row["tokens.output"] for row in rows] == [row["output_tokens"] for row in rows]


def emit(logger, call, attributes: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    """Send an evaluation as the event that OpenTelemetry has for it."""
    context = call.get_span_context()
    logger.emit(LogRecord(
        timestamp=int(dt.datetime.now(dt.UTC).timestamp() * 1e9), event_name=EVALUATION,
        trace_id=context.trace_id, span_id=context.span_id, trace_flags=context.trace_flags,
        severity_number=SeverityNumber.INFO, attributes=attributes,
    ))  # fmt: skip


def logs_of(evaluations: list[dict[str, object]]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for i, attributes in enumerate(evaluations):
        log = scope.log_records.add(
            event_name=EVALUATION, time_unix_nano=int(NOW.timestamp()) * 10**9 + i,
            trace_id=bytes.fromhex(f"{i + 1:032x}"), span_id=bytes.fromhex(f"{i + 1:016x}"),
        )  # fmt: skip
        log.attributes.extend(pair(key, value) for key, value in attributes.items())
    return request


def test_json_and_protobuf_give_the_same_lines(collecting: Running) -> None:
    draw = random.Random(1)
    request = logs_of([
        {
            "gen_ai.evaluation.name": draw.choice(["faithful", "correct", "other"]),
            "gen_ai.evaluation.score.value": draw.choice([1.0, 4.5, -2.0]),
            "gen_ai.evaluation.score.label": draw.choice(["correct", "é", ""]),
            "gen_ai.evaluation.explanation": "because " * draw.randrange(9),
        }
        for _ in range(500)
    ])  # fmt: skip
    taker = collecting.app._spans
    assert taker is not None
    one = taker.read("logs", PROTOBUF, request.SerializeToString())
    other = taker.read("logs", JSON, as_json(request))
    assert one.lines == other.lines
    assert {target.stream: len(lines) for target, lines in one.lines.items()} == {"actuals": 500}


def test_an_evaluation_that_names_no_call_is_counted_and_named(
    tmp_path: Path, store: Store
) -> None:
    """Calls are known by the response's id here, which one evaluation lacks."""
    base = assistant().columns
    named = {"prediction_id": "gen_ai.response.id", "event_time": "start_time",
             "trace_id": "trace_id"}  # fmt: skip
    assert base.prediction_id == "span_id"
    with running(store, tmp_path, spec=assistant(columns=named)) as collector:
        request = logs_of([
            {"gen_ai.evaluation.name": "faithful", "gen_ai.evaluation.score.value": 5.0,
             "gen_ai.response.id": "resp-1"},
            {"gen_ai.evaluation.name": "faithful", "gen_ai.evaluation.score.value": 5.0},
        ])  # fmt: skip
        for log in request.resource_logs[0].scope_logs[0].log_records:
            log.ClearField("trace_id")
            log.ClearField("span_id")
        answer = collector.request(
            "POST", "/v1/logs", as_json(request), content_type="application/json"
        )
        assert answer.status == 200
        partial = answer.json["partialSuccess"]
        assert int(partial["rejectedLogRecords"]) == 1
        assert "names no call (gen_ai.response.id)" in partial["errorMessage"]
        [row] = collector.landed("actuals")
        assert (row["gen_ai.response.id"], row["name"], row["value"]) == (
            "resp-1", "faithful", "5.0",
        )  # fmt: skip


def test_evaluations_pushed_as_rows_are_judged_before_the_answer(collecting: Running) -> None:
    path = "/v1/models/assistant/actuals"
    well = {"span_id": "ab", "name": "faithful", "value": 4, "at": "2024-02-29T10:00:00Z"}
    assert collecting.post([well], path).status == 202
    answer = collecting.post([well, well | {"name": "toxicity"}, well | {"value": "much"}], path)
    assert answer.status == 422
    errors = {(error["row"], error["reason"]) for error in answer.json["errors"]}
    assert errors == {(1, "bad_evaluation"), (2, "bad_evaluation")}


def test_a_span_that_is_no_call_makes_no_event(collecting: Running) -> None:
    from tests.push.otlp import request_of

    request = request_of([{"trace": "ab" * 16, "name": "chat", "at": START}])
    taker = collecting.app._spans
    assert taker is not None
    found = taker.read("traces", PROTOBUF, request.SerializeToString())
    assert [target.stream for target in found.lines] == ["spans"]


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    found = open_store(tmp_path / "store")
    yield found
    found.close()
