"""A hash of a row's content that is the same in any file format, column order and program run.

Two deliveries of one row are recognised by it, so it may never change: the test pins its values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
    for name in columns:
        values = rows.column(name).combine_chunks()
        if values.null_count == len(values):
            continue
        term = _mix(_codes(values) ^ _seed(name))
        if values.null_count:
            term[values.is_null().to_numpy(zero_copy_only=False)] = 0
        total += term
    return _mix(total).view(np.int64)


def _codes(values: pa.Array) -> U64:
    """Return 64 bits per cell that stand for its value; anything for a null."""
    kind = values.type
    if pa.types.is_list(kind):
        values = pc.binary_join(values, "\x1f")
        kind = values.type
    if pa.types.is_string(kind):
        return _text_codes(values)
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8()).cast(pa.int64())
    if values.null_count:
        values = pc.fill_null(values, pa.scalar(0, values.type))
    return _mix(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).view(np.uint64))


def _text_codes(values: pa.Array) -> U64:
    if not _repeats(values):
        return _word_hashes(pc.fill_null(values, ""))
    coded = values.dictionary_encode()
    hashes = _word_hashes(coded.dictionary)
    positions = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False)
    found: U64 = hashes[positions]
    return found


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


def _mix(bits: U64) -> U64:
    """Spread every bit over all others (the finalizer of SplitMix64)."""
    mixed = bits + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
