"""Read payload logs of KServe: requests and responses of the Open Inference Protocol, version 2.

One JSON value a line, as KServe's inference logger emits them: a CloudEvent (CloudEvents 1.0, JSON
event format) of type ``org.kubeflow.serving.inference.request`` or ``...response`` with the body
in ``data`` or ``data_base64``, or a record of its blob-storage logger (``ReqType``, ``Id``,
``Bytes``), or a list of either. A request and its response have one id. Bodies are those of the
Open Inference Protocol (V2), section "Inference": named tensors with shape, datatype and data.

Names of columns: ``inputs.NAME`` or ``outputs.NAME`` for a tensor of one value a row,
``inputs.NAME.K`` for the K-th value of a wider one; ``id``, ``time``, ``latency_ms``, ``status``,
``model_name``, ``model_version``; ``parameters.NAME`` of the request, and every other attribute of
the request's event, in lower case. A name alone means the input tensor of that name.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl import (
    PayloadError,
    PayloadRows,
    cell_text,
    decode_json,
    json_lines,
    row_id,
)
from mlmon_dagster.ingest.raw import MAX_COLUMNS, Options, RawFile

ENDINGS: Final[tuple[str, ...]] = ()  # its files look like any JSON Lines
_ENDS = ("request", "response")
Row = dict[str, Any]


@dataclass(frozen=True)
class _Event:
    line: int
    end: str
    id: str
    attributes: Row
    body: Row


def read_kserve(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a payload log; a row is one prediction, a request of several rows gives several.

    Raises:
        SchemaError: If a line is no JSON, or a column is in no row.
    """
    rows = PayloadRows(place, wanted, options)
    half: dict[str, _Event] = {}
    for line, value in json_lines(path, place):
        for item in value if isinstance(value, list) else [value]:
            try:
                event = _event(item, line)
            except PayloadError as error:
                rows.refuse((line,), "malformed_payload", str(error))
                continue
            other = half.pop(event.id, None)
            if other is None or other.end == event.end:
                if other is not None:
                    _refuse_half(rows, other)
                half[event.id] = event
            else:
                _add_pair(rows, *sorted((other, event), key=lambda e: _ENDS.index(e.end)))
    for event in half.values():
        _refuse_half(rows, event)
    yield rows.finish()


def _refuse_half(rows: PayloadRows, event: _Event) -> None:
    rows.refuse((event.line,), "unpaired", "a request and its response in one file", event.id)


def _event(item: object, line: int) -> _Event:
    if not isinstance(item, dict):
        raise PayloadError("a logged request or response, which is a JSON object")
    fields = {key.lower().removeprefix("ce-"): value for key, value in item.items()}
    kind = str(fields.get("type") or fields.get("reqtype") or "")
    end = next((end for end in _ENDS if kind.lower().endswith(end)), None)
    if end is None or not isinstance(fields.get("id"), str):
        raise PayloadError("a type that ends in 'request' or 'response', and an id")
    attributes = {k: v for k, v in fields.items() if not isinstance(v, dict | list)}
    return _Event(line, end, fields["id"], attributes, _body(fields))


def _body(fields: Row) -> Row:
    body = fields.get("data")
    packed = fields.get("data_base64") or fields.get("bytes")
    try:
        if body is None and isinstance(packed, str):
            body = base64.b64decode(packed, validate=True).decode("utf-8")
        if isinstance(body, str):
            body = decode_json(body)
    except (ValueError, binascii.Error) as error:
        raise PayloadError("a body of UTF-8 JSON in data, data_base64 or Bytes") from error
    if not isinstance(body, dict):
        raise PayloadError("a body that is a JSON object with 'inputs' or 'outputs'")
    return body


def _add_pair(rows: PayloadRows, request: _Event, response: _Event) -> None:
    lines = (request.line, response.line)
    try:
        shared = _shared(request, response)
        inputs = list(_tensors(request.body, "inputs"))
        is_ok = "outputs" in response.body
        outputs = list(_tensors(response.body, "outputs")) if is_ok else []
        tensors = inputs + outputs
        lengths = {len(values) // width for _, width, values in tensors if width}
        if not inputs or len(lengths) != 1:
            raise PayloadError("tensors with the same first dimension, the number of rows")
    except PayloadError as error:
        rows.refuse(lines, "malformed_payload", str(error), request.id)
        return
    n_rows = lengths.pop()
    for number in range(n_rows):
        row = {**shared, "id": row_id(request.id, number, n_rows)}
        for name, width, values in tensors:
            if width == 1:
                row[name] = values[number]
            else:
                start = number * width
                row.update((f"{name}.{k}", values[start + k]) for k in range(width))
        rows.add(lines, number, row)


def _shared(request: _Event, response: _Event) -> Row:
    """Return what all rows of a request have in common."""
    found = {k: cell_text(v) for k, v in request.attributes.items()}
    for name in ("model_name", "model_version"):
        found[name] = cell_text(response.body.get(name))
    parameters = request.body.get("parameters")
    if isinstance(parameters, dict):
        found |= {f"parameters.{name}": cell_text(v) for name, v in parameters.items()}
    found["status"] = "ok" if "outputs" in response.body else "error"
    found["latency_ms"] = _latency(found.get("time"), cell_text(response.attributes.get("time")))
    return found


def _latency(start: str | None, end: str | None) -> str | None:
    try:
        begun, ended = (dt.datetime.fromisoformat(t or "") for t in (start, end))
        return repr((ended - begun) / dt.timedelta(milliseconds=1))
    except (ValueError, TypeError):  # no time, or one with and one without an offset
        return None


def _tensors(body: Row, key: str) -> Iterator[tuple[str, int, list[object]]]:
    """Yield name, values a row and all values of each tensor, row after row."""
    listed = body.get(key)
    for tensor in listed if isinstance(listed, list) else []:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise PayloadError(f"{key} that are tensors with a name")
        name = tensor["name"]
        shape = [int(n) for n in tensor.get("shape") or [] if str(n).isdecimal()]
        if not shape or len(shape) != len(tensor["shape"]):
            raise PayloadError(f"a shape for every tensor of {key}, the number of rows first")
        width = math.prod(shape[1:])
        if "data" not in tensor:
            raise PayloadError("tensors with their data as JSON; the binary extension is not read")
        values = _flat(tensor["data"])
        if len(values) != math.prod(shape) or not 1 <= width <= MAX_COLUMNS:
            raise PayloadError(f"as many values as the shape of every tensor of {key} says")
        yield f"{key}.{name}", width, values


def _flat(data: object) -> list[object]:
    """Return row-major values; the protocol allows them flat or nested."""
    level = data if isinstance(data, list) else [data]
    while any(isinstance(item, list) for item in level):
        level = [v for item in level for v in (item if isinstance(item, list) else [item])]
    return level
