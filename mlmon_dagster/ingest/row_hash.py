"""What identifies a row: a hash of its content, or several columns together where it has no id.

The hash is the same in any file format, column order and program run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import RawFile
from mlmon_dagster.spec import ModelSpec

_SIP_KEY = "mlmon row hash 1"  # 16 characters, as SipHash wants
_SAMPLE = 2_000  # cells that tell whether a column of text repeats itself
U64 = NDArray[np.uint64]


def row_hashes(rows: pa.Table, columns: Iterable[str]) -> NDArray[np.int64]:
    """Hash the content of each row.

    A null adds nothing, so a column that came to the spec later does not change the hash of
    rows without it; neither does the order of the columns.

    Args:
        rows: Canonical rows; floats are finite.
        columns: The columns that make up the content.

    Returns:
        int64, one per row.
    """
    total = np.zeros(rows.num_rows, dtype=np.uint64)
    # Two arrays for all columns: to get new memory for each takes longer than the arithmetic.
    term, spare = np.empty_like(total), np.empty_like(total)
    for name in columns:
        values = rows.column(name).combine_chunks()
        if values.null_count == len(values):
            continue
        _codes(values, term, spare)
        term ^= _seed(name)
        _mix(term, spare)
        if values.null_count:
            term[values.is_null().to_numpy(zero_copy_only=False)] = 0
        total += term
    return _mix(total, spare).view(np.int64)


def _codes(values: pa.Array, found: U64, spare: U64) -> None:
    """Find 64 bits per cell that stand for its value; anything for a null."""
    kind = values.type
    if pa.types.is_list(kind):
        values = pc.binary_join(values, "\x1f")
        kind = values.type
    if pa.types.is_string(kind):
        _text_codes(values, found)
        return
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8()).cast(pa.int64())
    # Not `to_numpy`, which makes floats of integers among nulls.
    bits = np.frombuffer(values.buffers()[1], np.uint64)
    found[:] = bits[values.offset : values.offset + len(values)]
    _mix(found, spare)


def _text_codes(values: pa.Array, found: U64) -> None:
    if not _repeats(values):
        found[:] = _word_hashes(pc.fill_null(values, ""))
        return
    coded = values.dictionary_encode()
    hashes = _word_hashes(coded.dictionary)
    positions = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False)
    np.take(hashes, positions, out=found, mode="clip")  # the only mode without a copy


def _repeats(values: pa.Array) -> bool:
    """Guess from the first cells whether hashing each distinct word once is cheaper."""
    sample = values.slice(0, _SAMPLE)
    return bool(2 * pc.count_distinct(sample).as_py() < len(sample))


def _word_hashes(words: pa.Array) -> U64:
    objects = words.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(objects, hash_key=_SIP_KEY, categorize=False).astype(np.uint64)


def _seed(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mix(bits: U64, spare: U64) -> U64:
    """Spread every bit over all others, in place (the finalizer of SplitMix64)."""
    bits += np.uint64(0x9E3779B97F4A7C15)
    bits ^= np.right_shift(bits, np.uint64(30), out=spare)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= np.right_shift(bits, np.uint64(27), out=spare)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= np.right_shift(bits, np.uint64(31), out=spare)
    return bits


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
