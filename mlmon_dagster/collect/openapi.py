"""The OpenAPI document, made from the declarations of the models, and its page for people."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

from mlmon_dagster.collect.body import LINES
from mlmon_dagster.collect.collector import Judge, Limits
from mlmon_dagster.collect.otlp import PROTOBUF
from mlmon_dagster.collect.problem import MEDIA_TYPE, PROBLEMS
from mlmon_dagster.ingest.declared_columns import Column, Kind

_TYPES: Final[dict[Kind, dict[str, object]]] = {
    "id": {"type": ["string", "integer"]},
    "time": {"type": "string", "format": "date-time"},
    "number": {"type": ["number", "string"]},
    "label": {"type": ["integer", "boolean"], "enum": [0, 1, False, True]},
    "boolean": {"type": "boolean"},
    "text": {"type": ["string", "number", "boolean"]},
    "vector": {"type": "array", "items": {"type": "number"}},
}
Json = dict[str, Any]  # an object of the document
_TEXT: Final[Json] = {"type": "string"}
_HEADERS_ONLY: Final = {"not_found", "method_not_allowed", "not_read"}
CONTENT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;"
    "padding:.3rem .6rem;text-align:left;vertical-align:top}code,pre{background:#f4f4f4}"
    "pre{padding:.8rem;overflow:auto}"
)
_INTRODUCTION = (
    "An answer of <code>202</code> means that the events are on the disk. Send a JSON object, an "
    "array of objects, or one object a line (<code>application/x-ndjson</code>). Times are ISO "
    "8601 with an offset."
)


def describe(
    judges: Sequence[Judge], limits: Limits, *, needs_token: bool, takes_spans: bool = False
) -> Json:
    """Return the document.

    Args:
        judges: The streams to describe; without any, the paths have a placeholder.
        limits: Of one request.
        needs_token: Every request needs a token.
        takes_spans: Whether spans and logs are taken in, in OpenTelemetry's protocol.
    """
    schemas: Json = {
        "Problem": _problem_schema(), "Accepted": _accepted_schema(), "Probed": _probed_schema()
    }  # fmt: skip
    paths: Json = {}
    for judge in judges:
        name = f"{judge.spec.model}.{judge.stream}"
        schemas[name] = _row_schema(judge.wanted)
        paths[f"/v1/models/{judge.spec.model}/{judge.stream}"] = {
            "post": _operation(name, judge.spec.description, limits)
        }
    if not judges:
        schemas["Row"] = {"type": "object"}
        paths["/v1/models/{model}/{stream}"] = {"post": _operation("Row", "", limits) | {
            "parameters": [_path("model"), _path("stream"), *_PARAMETERS]
        }}  # fmt: skip
    if takes_spans:
        paths |= {f"/v1/{signal}": {"post": _of_otlp(signal, limits)} for signal in _SIGNALS}
    paths["/healthz"] = {"get": _probe("Does the server live?")}
    paths["/metrics"] = {"get": _numbers()}
    paths["/readyz"] = {"get": _probe("Is there room?", {"503": _answer("No", "Probed")})}
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "mlmon collect",
            "version": "1",
            "description": "An answer of 202 means that the events are on the disk.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if needs_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


_PARAMETERS: Final = [
    {
        "name": "accept",
        "in": "query",
        "description": "partial: good rows are stored even if others are refused.",
        "schema": {"type": "string", "enum": ["all", "partial"], "default": "all"},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and body within a day are answered alike and stored once.",
        "schema": {"type": "string", "maxLength": 255},
    },
]

_REPLAYED: Final = {
    "description": "The answer is that of an earlier request with this key.",
    "schema": {"type": "string", "enum": ["true"]},
}
_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    }
}
_HEADERS: Final[dict[str, Json]] = {
    "401": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    "429": _AFTER,
    "503": _AFTER,
}


def _operation(schema: str, description: str, limits: Limits) -> dict[str, object]:
    one = {"$ref": f"#/components/schemas/{schema}"}
    bodies: dict[str, object] = {
        "application/json": {"schema": {"oneOf": [one, {"type": "array", "items": one}]}},
        **{name: {"schema": one} for name in LINES},
    }
    return {
        "summary": f"Push {schema.rpartition('.')[2]}",
        "description": description,
        "parameters": list(_PARAMETERS),
        "requestBody": _body(bodies, limits),
        "responses": {
            "202": _answer("Durable", "Accepted") | {"headers": {"Idempotent-Replayed": _REPLAYED}},
            **_problem_responses(),
        },
    }


def _body(content: Json, limits: Limits) -> Json:
    most = (
        f"At most {limits.max_body:,} bytes, {limits.max_plain:,} once unpacked, and "
        f"{limits.max_rows:,} rows. Content-Encoding: gzip or zstd."
    )
    return {"required": True, "description": most, "content": content}


_SIGNALS: Final = ("traces", "logs")
# What is in them is OpenTelemetry's to describe.
_OTLP_BODIES: Final[Json] = {
    "application/json": {"schema": {"type": "object"}},
    PROTOBUF: {"schema": {"type": "string", "format": "binary"}},
}
_NEVER_OF_OTLP: Final = {"in_progress", "rows_refused", "key_reused", "not_read"} | _HEADERS_ONLY


def _of_otlp(signal: str, limits: Limits) -> Json:
    failed = _refusals(_OTLP_BODIES, _NEVER_OF_OTLP, {"too_slow": "503"})
    taken = {
        "description": "Durable; rows that were refused are counted in it",
        "content": _OTLP_BODIES,
    }
    return {
        "summary": f"Send {signal}",
        "description": f"OTLP/HTTP of OpenTelemetry: {signal} of every model that takes them.",
        "parameters": [],
        "requestBody": _body(_OTLP_BODIES, limits),
        "responses": {"200": taken, **failed},
    }


def _object(*required: str, **properties: Json) -> Json:
    needed = {"required": [*required]} if required else {}
    return {"type": "object", **needed, "properties": properties}


def _listed(items: Json) -> Json:
    return {"type": "array", "items": items}


def _answer(description: str, schema: str) -> dict[str, object]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _probe(summary: str, others: Mapping[str, object] | None = None) -> dict[str, object]:
    # Probes of load balancers have no token; an empty list takes the document's demand back.
    responses = {"200": _answer("Yes", "Probed"), **(others or {})}
    return {"summary": summary, "security": [], "responses": responses}


def _numbers() -> dict[str, object]:
    text = {"schema": {"type": "string"}}
    kinds = ("application/openmetrics-text", "text/plain")
    refusals = {
        status: answer
        for status, answer in _problem_responses().items()
        if status in ("401", "403", "503")
    }
    answer = {"description": "The numbers", "content": dict.fromkeys(kinds, text)}
    return {"summary": "Numbers for Prometheus", "responses": {"200": answer, **refusals}}


def _problem_responses() -> Json:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return _refusals(content, _HEADERS_ONLY, {})


def _refusals(content: Json, never: Set[str], other_status: Mapping[str, str]) -> Json:
    """Return an answer a status: its problems, but those that never come, maybe by another one."""
    titles: dict[str, list[str]] = {}
    for code, (status, title) in PROBLEMS.items():
        if code not in never:
            titles.setdefault(other_status.get(code, str(status)), []).append(title)
    responses: Json = {
        status: {"description": "; ".join(found), "content": content}
        for status, found in titles.items()
    }
    for refusal, header in _HEADERS.items():
        responses[refusal]["headers"] = header
    return responses


def _path(name: str) -> dict[str, object]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _row_schema(columns: Sequence[Column]) -> dict[str, object]:
    return {
        "type": "object",
        "required": [
            c.source for c in columns if c.must_exist and (c.is_feature or not c.nullable)
        ],
        "properties": {c.source: _cell_schema(c) for c in columns},
    }


def _cell_schema(column: Column) -> dict[str, object]:
    kind = dict(_TYPES["text" if column.words else column.kind])
    role = "" if column.is_feature else f"{column.name}: "
    schema = {"description": f"{role}{column.expected}"}
    if column.nullable:
        return schema | {"anyOf": [kind, {"type": "null"}]}
    return schema | kind


def _accepted_schema() -> Json:
    number = {"type": "integer", "minimum": 0}
    return _object(
        "accepted",
        "refused",
        accepted=number | {"description": "rows stored"},
        refused=number,
        n_errors=number,
        errors=_listed(_error_schema()),
        warnings=_listed(_TEXT),
    )


def _problem_schema() -> Json:
    return _object(
        "type",
        "title",
        "status",
        "detail",
        type=_TEXT | {"format": "uri-reference"},
        title=_TEXT,
        status={"type": "integer"},
        detail=_TEXT,
        n_errors={"type": "integer"},
        errors=_listed(_error_schema()),
    )


def _probed_schema() -> Json:
    return _object(
        "status",
        status=_TEXT | {"enum": ["ok", "not ready"]},
        reasons=_listed(_TEXT) | {"description": "why not"},
    )


def _error_schema() -> Json:
    return _object(
        "reason",
        row={"type": "integer", "minimum": 0, "description": "0 is the first row"},
        column=_TEXT,
        reason=_TEXT,
        expected=_TEXT,
        detail=_TEXT,
    )


def page(document: Json) -> str:
    """Return the page."""
    return "".join(_parts(document))


def _parts(document: Json) -> Iterator[str]:
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>mlmon collect</title>"
    yield f"<style>{_STYLE}</style>"
    yield f"<h1>mlmon collect</h1><p>{_INTRODUCTION} The same as <a href=/openapi.json>OpenAPI</a>."
    if "security" in document:
        yield "<p>Every request needs <code>Authorization: Bearer TOKEN</code>."
    for path, item in document["paths"].items():
        if "post" in item:
            yield from _post(document, path, item["post"])
    yield "<h2>Problems</h2><table><tr><th>status<th>code<th>meaning"
    for code, (status, title) in PROBLEMS.items():
        yield f"<tr id={code}><td>{status}<td><code>{code}</code><td>{title}"
    yield "</table>"


def _post(document: Json, path: str, post: Json) -> Iterator[str]:
    yield f"<h2><code>POST {_safe(path)}</code></h2><p>{_safe(post['description'])}"
    yield f"<p>{_safe(post['requestBody']['description'])}"
    yield "<table><tr><th>option<th>where<th>meaning"
    for option in post["parameters"]:
        where, meaning = _safe(option["in"]), _safe(option.get("description", ""))
        yield f"<tr><td><code>{_safe(option['name'])}</code><td>{where}<td>{meaning}"
    yield "</table>"
    row = post["requestBody"]["content"].get("application/x-ndjson")
    if row is None:  # OpenTelemetry's own forms
        return
    schema = document["components"]["schemas"][row["schema"]["$ref"].rpartition("/")[2]]
    if "properties" not in schema:
        return
    yield "<table><tr><th>column<th>required<th>what"
    for name, cell in schema["properties"].items():
        needed = "yes" if name in schema["required"] else ""
        yield f"<tr><td><code>{_safe(name)}</code><td>{needed}<td>{_safe(cell['description'])}"
    yield "</table>"


def _safe(text: object) -> str:
    return html.escape(str(text))
