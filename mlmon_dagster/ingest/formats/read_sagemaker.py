"""Read the files of SageMaker's data capture: one captured request and response a line.

The format is the one of "Capture data from real-time endpoint" and "Interpret captured data" in
the Amazon SageMaker AI developer guide: JSON Lines with ``captureData.endpointInput`` and
``endpointOutput`` (``observedContentType``, ``mode``, ``data``, ``encoding`` CSV, JSON or BASE64)
and ``eventMetadata`` (``eventId``, ``inferenceId``, ``inferenceTime``, ``customAttributes``).

Names of columns: ``inputs.NAME`` and ``outputs.NAME``, where NAME is a key of a JSON body (dotted
if nested), a name declared under ``inputs`` or ``outputs`` in the spec, or the number of the cell
from 0; ``id`` (the inference id, else the event id), ``time``, ``eventId``, ``inferenceId``,
``customAttributes.NAME``. A name alone means the input of that name.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl import (
    PayloadError,
    PayloadRows,
    as_object,
    cell_text,
    decode_json,
    json_lines,
    leaves,
    row_id,
)
from mlmon_dagster.ingest.raw import Options, RawFile

ENDINGS: Final[tuple[str, ...]] = ()  # its files look like any JSON Lines
_ENDS = ("endpointInput", "endpointOutput")
_LISTS = ("instances", "predictions", "inputs", "outputs", "data")
Cells = dict[str, Any]


def read_sagemaker(
    path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a capture file; a request of several rows gives several predictions.

    Raises:
        SchemaError: If a line is no JSON object, or a column is in no row.
    """
    rows = PayloadRows(place, wanted, options)
    for line, value in json_lines(path, place):
        captured = as_object(value, f"{place}, line {line}")
        meta = captured.get("eventMetadata")
        shared = _shared(meta if isinstance(meta, dict) else {})
        try:
            _add(rows, line, captured, shared, options)
        except PayloadError as error:
            rows.refuse((line,), "malformed_payload", str(error), shared.get("id"))
    yield rows.finish()


def _add(rows: PayloadRows, line: int, captured: Cells, shared: Cells, options: Options) -> None:
    data = captured.get("captureData")
    found = data if isinstance(data, dict) else {}
    ends = [end for name in _ENDS if isinstance(end := found.get(name), dict)]
    if len(ends) != len(_ENDS):
        expected = "captureData with endpointInput and endpointOutput; capture both"
        rows.refuse((line,), "unpaired", expected, shared.get("id"))
        return
    if not shared.get("id"):
        raise PayloadError("eventMetadata with an eventId or inferenceId")
    bodies = [_rows(end) for end in ends]
    inputs = [_named(row, options.inputs, "inputs") for row in bodies[0]]
    answers = _aligned(bodies[1], len(inputs))
    outputs = [_named(row, options.outputs, "outputs") for row in answers]
    for number, (taken, given) in enumerate(zip(inputs, outputs, strict=True)):
        row = {**shared, "id": row_id(shared["id"], number, len(inputs))}
        row.update((f"inputs.{name}", cell) for name, cell in taken.items())
        row.update((f"outputs.{name}", cell) for name, cell in given.items())
        rows.add((line,), number, row)


def _shared(meta: Cells) -> Cells:
    found = {name: cell_text(v) for name, v in meta.items() if not isinstance(v, list | dict)}
    found["id"] = found.get("inferenceId") or found.get("eventId")
    found["time"] = found.get("inferenceTime")
    attributes = meta.get("customAttributes")
    for text in attributes if isinstance(attributes, list) else []:
        name, sign, value = str(text).partition("=")
        if sign:
            found[f"customAttributes.{name.strip()}"] = value.strip()
    return found


def _rows(end: Cells) -> list[object]:
    """Return the rows of a request or response body."""
    data, encoding = end.get("data"), str(end.get("encoding", "")).upper()
    content = str(end.get("observedContentType") or "").lower()
    if not isinstance(data, str):
        raise PayloadError("a body as text in 'data'")
    if encoding == "BASE64":
        try:
            data = base64.b64decode(data, validate=True).decode("utf-8")
        except (ValueError, binascii.Error) as error:
            raise PayloadError("a body of base64 that holds UTF-8 text") from error
        encoding = "JSON" if "json" in content else "CSV" if "csv" in content else content
    if encoding == "CSV":
        return [cells for cells in csv.reader(io.StringIO(data)) if cells]
    if encoding != "JSON":
        raise PayloadError("a body whose content type is CSV or JSON")
    try:
        if "jsonlines" in content:
            return [decode_json(text) for text in data.splitlines() if text.strip()]
        return _items(decode_json(data))
    except ValueError as error:
        raise PayloadError("a body of JSON") from error


def _items(body: object) -> list[object]:
    """Return the rows of a JSON body: a list, the list under a well-known key, or one row."""
    if isinstance(body, dict):
        lists = [body[key] for key in _LISTS if isinstance(body.get(key), list)]
        return lists[0] if len(lists) == 1 and len(body) == 1 else [body]
    if isinstance(body, list) and not all(isinstance(item, list | dict) for item in body):
        return [body]  # one row of plain values
    return body if isinstance(body, list) else [body]


def _named(row: object, names: Sequence[str], key: str) -> Cells:
    if isinstance(row, dict):
        if list(row) == ["features"] and isinstance(row["features"], list):
            return _named(row["features"], names, key)
        return dict(leaves(row, ""))
    cells = row if isinstance(row, list) else [row]
    if names and len(cells) != len(names):
        raise PayloadError(f"{len(names)} cells a row, as declared under '{key}'")
    labels = names or [str(k) for k in range(len(cells))]
    return {name: None if cell == "" else cell for name, cell in zip(labels, cells, strict=True)}


def _aligned(answers: list[object], n_rows: int) -> list[object]:
    """Match answers with requests; some containers answer many rows with one line of cells."""
    if len(answers) == n_rows:
        return answers
    cells = answers[0] if len(answers) == 1 else None
    if not isinstance(cells, list) or len(cells) != n_rows:
        raise PayloadError("as many outputs as inputs")
    return [[cell] for cell in cells]
