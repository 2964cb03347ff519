"""Spans of OpenTelemetry in both of its forms, made by its own messages."""

from __future__ import annotations

import json
import random
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

START = 1_709_200_800_000_000_000  # 2024-02-29 10:00 UTC, in nanoseconds
_IDS = ("traceId", "spanId", "parentSpanId")


def request_of(spans: list[dict[str, Any]], service: str = "scorer") -> ExportTraceServiceRequest:
    """Return the message that holds spans: name, trace, span, parent, at, ms, error, attributes."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.append(pair("service.name", service))
    for i, given in enumerate(spans):
        span = (
            group.scope_spans.add().spans.add() if not i % 3 else group.scope_spans[-1].spans.add()
        )
        span.trace_id = bytes.fromhex(given["trace"])
        span.span_id = bytes.fromhex(given.get("span", f"{i + 1:016x}"))
        span.parent_span_id = bytes.fromhex(given.get("parent", ""))
        span.name = given.get("name", "predict")
        span.start_time_unix_nano = given.get("at", START)
        span.end_time_unix_nano = span.start_time_unix_nano + round(given.get("ms", 1.0) * 1e6)
        if given.get("error") is not None:
            span.status.code = 2
            span.status.message = given["error"]
        span.attributes.extend(pair(k, v) for k, v in given.get("attributes", {}).items())
        if "flag" in given:
            event = span.events.add()
            event.name = "feature_flag"
            event.attributes.append(pair("feature_flag.key", given["flag"][0]))
            event.attributes.append(pair("feature_flag.variant", given["flag"][1]))
    return request


def pair(key: str, value: object) -> KeyValue:
    """Return an attribute."""
    found = KeyValue(key=key)
    if isinstance(value, bool):
        found.value.bool_value = value
    elif isinstance(value, int):
        found.value.int_value = value
    elif isinstance(value, float):
        found.value.double_value = value
    else:
        found.value.string_value = str(value)
    return found


def as_json(request: ExportTraceServiceRequest | ExportLogsServiceRequest) -> bytes:
    """Write a message as OTLP's JSON: ids are hexadecimal, which protobuf's own are not."""
    import base64

    def fix(value: Any) -> Any:
        if isinstance(value, list):
            return [fix(v) for v in value]
        if isinstance(value, dict):
            return {k: base64.b64decode(v).hex() if k in _IDS else fix(v) for k, v in value.items()}
        return value

    return json.dumps(fix(MessageToDict(request, use_integers_for_enums=True))).encode()


def random_spans(n: int, seed: int) -> list[dict[str, Any]]:
    """Return spans of every kind that a program may send."""
    draw = random.Random(seed)
    names = ["predict", "fetch features", "模型", "a" * 400, "", "\x00\x1f", "ok 🙂"]
    return [
        {
            "trace": f"{draw.getrandbits(128) or 1:032x}",
            "span": f"{draw.getrandbits(64) or 1:016x}",
            "parent": f"{draw.getrandbits(64):016x}" if draw.random() < 0.6 else "",
            "name": draw.choice(names),
            "at": START + draw.randrange(10**13),
            "ms": draw.lognormvariate(3, 2),
            "error": draw.choice([None, None, "", "request timed out", "no such key"]),
            "attributes": {
                "mlmon.prediction_id": draw.choice([f"p{draw.randrange(99)}", 17, True, 1.5, "é"]),
                "gen_ai.usage.input_tokens": draw.choice([0, 12, 10**12, "many"]),
                "gen_ai.usage.completion_tokens": draw.choice([3, -1]),
                "http.request.body.size": draw.randrange(10**6),
                "user.name": "nobody asks",
                **draw.choice([{}, {"k8s.node.name": "n1"}, {"cache.hit": False}]),
            },
            **({"flag": ("ui", draw.choice(["a", "b"]))} if draw.random() < 0.2 else {}),
        }
        for _ in range(n)
    ]
