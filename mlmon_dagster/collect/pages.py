"""The page /docs: the OpenAPI document for people, without anything from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlmon_dagster.collect.problem import PROBLEMS

CONTENT_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;"
    "padding:.3rem .6rem;text-align:left;vertical-align:top}code,pre{background:#f4f4f4}"
    "pre{padding:.8rem;overflow:auto}"
)
_INTRODUCTION = (
    "An answer of <code>202</code> means that the events are on the disk. Send a JSON object, an "
    "array of objects, one object a line (<code>application/x-ndjson</code>) or an Arrow IPC "
    "stream (<code>application/vnd.apache.arrow.stream</code>). Times are ISO 8601 with an offset."
)


def page(document: Mapping[str, Any]) -> str:
    """Return the page."""
    return "".join(_parts(document))


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
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


def _post(document: Mapping[str, Any], path: str, post: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>POST {_safe(path)}</code></h2><p>{_safe(post['description'])}"
    yield f"<p>{_safe(post['requestBody']['description'])}"
    yield "<table><tr><th>option<th>where<th>meaning"
    for option in post["parameters"]:
        where, meaning = _safe(option["in"]), _safe(option.get("description", ""))
        yield f"<tr><td><code>{_safe(option['name'])}</code><td>{where}<td>{meaning}"
    yield "</table>"
    reference = post["requestBody"]["content"]["application/x-ndjson"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    if "properties" not in schema:
        return
    yield "<table><tr><th>column<th>required<th>what"
    for name, cell in schema["properties"].items():
        needed = "yes" if name in schema["required"] else ""
        yield f"<tr><td><code>{_safe(name)}</code><td>{needed}<td>{_safe(cell['description'])}"
    yield "</table>"


def _safe(text: object) -> str:
    return html.escape(str(text))
