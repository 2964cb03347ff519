"""A program that calls a language model, watched by OpenTelemetry's own instrumentation of it."""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.windows import windows_between
from mlmon_dagster.store import Store
from mlmon_dagster.tables.rows import rows_of
from tests.push.collecting import Running, running
from tests.push.test_evaluations import NOW, records_of

CALLS = 40
PRICES = {"small": {"read": 0.25, "written": 2.0}, "large": {"read": 2.5, "written": 10.0}}


def assistant() -> ModelSpec:
    """Return a model whose calls are the spans of an instrumented client."""
    return spec_from_mapping({
        "model": "assistant", "task": "generation", "owners": ["team:support"],
        "time": {"start": "2024-01-01"},
        "source": {
            "predictions": {"path": "landing/predictions/*", "spans": "chat*", "settle": "0s"},
            "actuals": {"path": "landing/actuals/*", "settle": "0s"},
        },
        "columns": {
            "prediction_id": "gen_ai.response.id", "event_time": "start_time",
            "latency_ms": "duration_ms", "status": "status",
            "model_version": "gen_ai.response.model", "trace_id": "trace_id",
        },
        "spans": {"sampling": "unbiased"},
        "evaluations": {"correct": {"by": "human", "good": ["correct"]}},
        "features": {
            "read": {"type": "numeric", "from": "gen_ai.usage.input_tokens"},
            "written": {"type": "numeric", "from": "gen_ai.usage.output_tokens"},
            "ended": {"type": "categorical", "from": "gen_ai.response.finish_reasons"},
            "question": {"type": "text", "pii": True, "from": "gen_ai.input.messages.last_user"},
            "cost": {"type": "numeric", "unit": "USD",
                     "prices": {"of": {f"{name}*": own for name, own in PRICES.items()}}},
        },
    })  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    """Answers as an API of chat completions does, with the usage that the question asks for."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name, read, written = asked["messages"][-1]["content"].split()
        answer = {
            "id": name, "object": "chat.completion", "created": 1, "model": f"{asked['model']}-1",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": "Yes."}}],
            "usage": {"prompt_tokens": int(read), "completion_tokens": int(written),
                      "total_tokens": int(read) + int(written)},
        }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    yield openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1")
    server.shutdown()
    server.server_close()


@pytest.fixture
def collecting(tmp_path: Path, store: Store) -> Iterator[Running]:
    with running(store, tmp_path, spec=assistant()) as found:
        yield found


def test_tokens_and_costs_of_an_instrumented_client_are_those_of_a_hand_count(
    collecting: Running, client: openai.OpenAI
) -> None:
    provider = TracerProvider()
    address = f"http://127.0.0.1:{collecting.port}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address)))
    watching = OpenAIInstrumentor()
    watching.instrument(tracer_provider=provider)
    draw, did, cost = random.Random(5), Counter[str](), {}
    try:
        for i in range(CALLS):
            model = draw.choice(["small", "small", "large", "unpriced"])
            read, written = draw.randrange(100, 4000), draw.randrange(10, 900)
            said = [{"role": "user", "content": f"call-{i} {read} {written}"}]
            client.chat.completions.create(model=model, messages=said)  # type: ignore[arg-type]
            did += Counter(read=read, written=written, **{model: 1})
            if own := PRICES.get(model):
                cost[f"call-{i}"] = (read * own["read"] + written * own["written"]) / 1e6
    finally:
        watching.uninstrument()
    assert provider.force_flush()
    provider.shutdown()

    rows = records_of(collecting)
    assert {row["prediction_id"] for row in rows} == {f"call-{i}" for i in range(CALLS)}
    for name in ("read", "written"):
        assert sum(row[name] for row in rows) == did[name]  # type: ignore[misc]
    versions = Counter(row["model_version"] for row in rows)
    assert versions == {f"{name}-1": did[name] for name in ("small", "large", "unpriced")}
    assert {row["ended"] for row in rows} == {"stop"}
    assert all(str(row["question"]).startswith(str(row["prediction_id"])) for row in rows)
    spec = collecting.spec
    windows = windows_between(spec.time, NOW - dt.timedelta(days=1), NOW + dt.timedelta(days=1))
    table = rows_of(collecting.store, spec, windows, limit=CALLS).table
    found = dict(zip(*(table[name].to_pylist() for name in ("prediction_id", "cost")), strict=True))
    assert {name: value for name, value in found.items() if value is not None} == pytest.approx(
        cost
    )
