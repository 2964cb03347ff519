"""What is wrong with the rows of a file, by rule: the rows, the column, the reason, the wording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import EXPECTED, Column
from mlmon_dagster.ingest.reasons import ROW_REASONS, shown

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Fault:
    """Rows that break one rule in one column.

    Attributes:
        rows: Row numbers (0-based), ascending.
        reason: A code of `reasons.ROW_REASONS`.
        name: The column's name in the store.
        source: The column's name in the file.
        expected: What the rule asks for.
    """

    rows: Rows
    reason: str
    name: str
    source: str
    expected: str

    @staticmethod
    def where(
        mask: Mask, reason: str, column: Column, expected: str | None = None
    ) -> tuple[Fault, ...]:
        """Return the fault of the rows in the mask; nothing if there are none."""
        return Fault.of(np.flatnonzero(mask), reason, column, expected)

    @staticmethod
    def of(
        rows: Rows, reason: str, column: Column, expected: str | None = None
    ) -> tuple[Fault, ...]:
        """Return the fault of the given rows; nothing if there are none."""
        wanted = expected or EXPECTED[column.kind]
        return (Fault(rows, reason, column.name, column.source, wanted),) if rows.size else ()

    def message(self, place: str) -> str:
        """Say where, what was expected and what to do; never the value itself."""
        return (
            f"{place}, column {shown(self.source)}: {_FOUND[self.reason]}; "
            f"expected {self.expected}. {ROW_REASONS[self.reason]}."
        )


_FOUND = {
    "null_required": "no value",
    "null_not_allowed": "no value",
    "wrong_type": "a value of another type",
    "score_out_of_range": "a score out of range",
    "naive_time": "a time without an offset",
    "ambiguous_time": "a local time that clocks show twice or never",
    "future_time": "a time in the future",
    "before_start": "a time before production started",
    "bad_actual": "an actual of another value",
    "bad_dataset": "an unknown dataset",
    "unpaired": "a request without its response, or the other way round",
    "malformed_payload": "a request or response that is not readable",
    "erased": "an erased prediction",
}


def mask_of(values: pa.Array | pa.ChunkedArray) -> Mask:
    """Return an Arrow boolean array without nulls as a numpy mask."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    mask: Mask = values.to_numpy(zero_copy_only=False).astype(bool)
    return mask


def rows_at_fault(faults: Iterable[Fault], n_rows: int) -> Mask:
    """Return which of a file's rows are bad by any rule."""
    bad = np.zeros(n_rows, dtype=bool)
    for fault in faults:
        bad[fault.rows] = True
    return bad
