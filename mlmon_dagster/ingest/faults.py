"""What is wrong with files and rows: reason codes, next steps, and the faulty rows by rule."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.spec.sources import FORMATS

_FORMATS: Final = " or ".join(", ".join(FORMATS).rsplit(", ", 1))
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
# Whole files; `no_rows` is a warning, the file is done.
FILE_REASONS: Final = {
    "empty_file": "Write the file again with at least its header, or delete it",
    "truncated": "The file is cut off: write it again under a temporary name, then rename it",
    "unreadable": "Write the file again, and check which program made it",
    "cut_line": "Write the file again with a line end after its last row",
    "malformed_line": "Correct that line and write the file again",
    "malformed_json": "Correct that line and write the file again, one JSON object a line",
    "missing_column": "Add the column, or correct its name under 'columns' or 'features'",
    "duplicate_column": "Give every column its own name and write the file again",
    "not_utf8": "Save the file as UTF-8 and write it again",
    "wrong_column_type": "Write the column with the expected type",
    "too_large": "Split the file, or raise the limit under 'source'",
    "too_many_bad": "Correct the rows and write the file again, or the spec, or raise max_bad_rate",
    "unknown_format": f"Set 'format' under 'source' to {_FORMATS}",
    "no_access": "Give the user that ingests the right to read it, or mount the disk again",
    "source_failed": "Mend that; it is tried again at the next ingest, and nothing is lost",
    "failed": "See the recorded errors; replay the file once the cause is removed",
    "no_rows": "Nothing to do if no rows were expected",
}
# Single rows, kept in the dead letter.
ROW_REASONS: Final = {
    "null_required": "Fill the value in at the producer",
    "wrong_type": "Write the value with the expected type",
    "score_out_of_range": "Write the score as a probability",
    "naive_time": "Write times with an offset, or set 'naive: zone' under 'time'",
    "ambiguous_time": "Write times with an offset",
    "future_time": "Check the producer's clock, or raise skew_tolerance under 'time'",
    "before_start": "Check the producer's clock, or set 'start' under 'time' to an earlier day",
    "bad_actual": "Write the actual as 0 or 1, or say under 'labels' what its words mean",
    "bad_dataset": "Write a known dataset, or say under 'datasets' what its name means",
    "expectation": "Correct the row at the producer, or the expectation under 'expectations'",
    "malformed_line": "Correct that line at the producer, and write its rows into another file",
    "unpaired": "Write a request and its response into the same file",
    "malformed_payload": "Log requests and responses in the documented format",
    "erased": "Nothing to do: this prediction was erased on request",
}
MAX_SHOWN = 80


@dataclass(frozen=True)
class Fault:
    """Rows that break one rule in one column.

    Attributes:
        rows: Row numbers (0-based), ascending.
        reason: A code of `ROW_REASONS`.
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
        wanted = expected or column.expected
        return (Fault(rows, reason, column.name, column.source, wanted),) if rows.size else ()

    def message(self, place: str) -> str:
        """Say where, what was expected and what to do; never the value itself."""
        return (
            f"{place}, column {shown(self.source)}: {_FOUND[self.reason]}; "
            f"expected {self.expected}. {ROW_REASONS[self.reason]}."
        )


_FOUND = {
    "null_required": "no value",
    "wrong_type": "a value of another type",
    "score_out_of_range": "a score out of range",
    "naive_time": "a time without an offset",
    "ambiguous_time": "a local time that clocks show twice or never",
    "future_time": "a time in the future",
    "before_start": "a time before production started",
    "bad_actual": "an actual of another value",
    "bad_dataset": "an unknown dataset",
    "expectation": "a row that an expectation of the spec does not allow",
    "malformed_line": "a line that is no row",
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


def shown(name: str) -> str:
    """Quote a name from outside so that it cannot break a line, a terminal or a message."""
    text = json.dumps(name, ensure_ascii=False)[1:-1].replace("'", "\\'")
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return f"'{text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + '…'}'"


def names(found: Iterable[str], limit: int = 8) -> str:
    """List names for a message, at most ``limit`` of them."""
    quoted = [shown(name) for name in found]
    more = f" and {len(quoted) - limit} more" if len(quoted) > limit else ""
    return ", ".join(quoted[:limit]) + more


def did_you_mean(wanted: str, present: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest present name, or an empty text."""
    by_folded = {name.casefold(): name for name in present}
    near = get_close_matches(wanted.casefold(), by_folded, n=1, cutoff=0.6)
    return f" Did you mean {shown(by_folded[near[0]])}?" if near else ""


def file_message(place: str, reason: str, found: str) -> str:
    """Write the message of a refused file: where, what was found and expected, next step."""
    return f"{place}: {found} {FILE_REASONS[reason]}."
