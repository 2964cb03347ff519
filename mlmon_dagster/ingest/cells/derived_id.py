"""Identify events that have no id of their own by several columns together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from mlmon_dagster.ingest.cells.row_hash import row_hashes
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import RawFile
from mlmon_dagster.spec import ModelSpec


def columns_to_read(wanted: Sequence[Column], spec: ModelSpec) -> list[Column]:
    """Return the columns that stand in the files: the parts of a derived id instead of the id."""
    parts = spec.columns.id_parts
    if not parts:
        return list(wanted)
    known = {column.source for column in wanted}
    kept = [column for column in wanted if column.name != "prediction_id"]
    return kept + [Column(part, part, "text") for part in parts if part not in known]


def with_derived_id(raw: RawFile, wanted: Sequence[Column], spec: ModelSpec) -> RawFile:
    """Return the file with the id that its rows do not have, 32 hexadecimal digits.

    The id depends on the text of the cells and on the names of the columns, so the same event
    must be written the same way wherever it occurs. A row whose parts are all null gets none.

    Args:
        raw: A file; one that lacks a part is returned as it is.
        wanted: The declared columns.
        spec: The model; so is any file if an id is one column.
    """
    parts = spec.columns.id_parts
    if not parts or not raw.columns.keys() >= set(parts):
        return raw
    [column] = [column for column in wanted if column.name == "prediction_id"]
    cells = {part: _text(raw.columns[part]) for part in parts}
    halves = [
        row_hashes(pa.table({f"{seed}{part}": cells[part] for part in parts}), names)
        for seed, names in ((seed, [f"{seed}{part}" for part in parts]) for seed in ("1:", "2:"))
    ]
    words = np.stack([half.view(np.uint64) for half in halves], axis=1)
    ids = pa.array([f"{high:016x}{low:016x}" for high, low in words.tolist()], pa.string())
    if all(values.null_count for values in cells.values()):
        empty = np.logical_and.reduce(
            [values.is_null().to_numpy(False) for values in cells.values()]
        )
        ids = pa.array(ids.to_pylist(), pa.string(), mask=empty)
    columns = {**raw.columns, column.source: ids}
    return replace(raw, columns=columns, present=(*raw.present, column.source))


def _text(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string())
