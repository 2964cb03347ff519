"""What an ingest did, file by file, for programs and for people.

What is wrong with files and rows has a reason code and a next step; faults are the rows by rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.spec import Window
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.sources import FORMATS, Stream

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
    "source_failed": "Repair that; it is tried again at the next ingest, and nothing is lost",
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
    "after_end": "Delete 'end' under 'time' if the model goes on; these rows are then read again",
    "bad_actual": "Write the actual as 0 or 1, or say under 'labels' what its words mean",
    "bad_dataset": "Write a known dataset, or say under 'datasets' what its name means",
    "expectation": "Correct the row at the producer, or the expectation under 'expectations'",
    "malformed_line": "Correct that line at the producer, and write its rows into another file",
    "unpaired": "Write a request and its response into the same file",
    "bad_evaluation": "Declare that evaluation, or correct its value",
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
    "after_end": "a time after production ended",
    "bad_actual": "an actual of another value",
    "bad_dataset": "an unknown dataset",
    "expectation": "a row that an expectation of the spec does not allow",
    "malformed_line": "a line that is no row",
    "unpaired": "a request without its response, or the other way round",
    "bad_evaluation": "no evaluation that is declared, or no value",
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


Status = Literal["done", "quarantined", "duplicate", "waiting", "failed", "skipped", "missing"]
_MOST_SHOWN = 5


@dataclass(frozen=True)
class FileReport:
    """What became of one landing file.

    Attributes:
        stream: ``predictions`` or ``actuals``.
        path: The file below the project folder.
        status: ``done``, ``quarantined`` (refused as a whole), ``duplicate`` (its content is
            known under another name), ``waiting`` (may still be written to), ``failed`` (will be
            tried again), ``skipped`` (never read: a link, a pipe) or ``missing`` (vanished).
        sha256: Its content, if it was read.
        reason: Why it was refused or what is odd about it: a code of `faults.FILE_REASONS`.
        message: The file, line, column, what was expected and the next step.
        rows_in: Rows read = n_new + n_duplicate + n_conflict + n_bad.
        n_unmatched: Of the new actuals, those whose prediction has not arrived; they are kept.
        n_erased: Of the bad rows, those whose prediction was erased on request.
        n_windows: Of a table in place, the windows that have other rows; None of a file.
        is_again: These are rows of the file that were refused before, read again.
        warnings: What is odd but not refused.
        bad_rows: Messages of the first bad rows.
    """

    stream: Stream
    path: str
    status: Status
    sha256: str = ""
    reason: str = ""
    message: str = ""
    rows_in: int = 0
    n_new: int = 0
    n_duplicate: int = 0
    n_conflict: int = 0
    n_bad: int = 0
    n_unmatched: int = 0
    n_erased: int = 0
    n_windows: int | None = None
    is_again: bool = False
    warnings: tuple[str, ...] = ()
    bad_rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did.

    Attributes:
        files: Every file that was looked at.
        windows: Windows whose records, counts or ground truth changed, ascending.
        n_waiting: Files that are not complete yet.
        n_left: Complete files beyond the limit, for the next ingest.
        n_large: Those of them that are too large for a call like this one.
        n_spans: New spans and log records.
        unread: Files of spans that nobody can read, and that are set aside.
        again: Why what was refused or read before is read again, and how much; empty if nothing is.
    """

    files: tuple[FileReport, ...] = ()
    windows: list[Window] = field(default_factory=list)
    n_waiting: int = 0
    n_left: int = 0
    n_large: int = 0
    n_spans: int = 0
    unread: tuple[str, ...] = ()
    again: str = ""

    @property
    def has_refusals(self) -> bool:
        """Whether rows or files were refused or failed, save rows of erased predictions."""
        return bool(self.unread) or any(
            file.status in ("quarantined", "failed") or file.n_bad > file.n_erased
            for file in self.files
        )

    def total(self, counter: str) -> int:
        """Sum a counter, such as ``n_new``, over the files that are done."""
        return sum(getattr(file, counter) for file in self.files if file.status == "done")

    def of(self, *statuses: Status) -> tuple[FileReport, ...]:
        """Return the files of the given statuses."""
        return tuple(file for file in self.files if file.status in statuses)


def render_report(report: IngestReport, *, in_place: bool = False) -> str:
    """Write a report as plain text for people, problems with their next step.

    Args:
        report: What became of files, or what a look at tables found.
        in_place: Whether it is of tables whose rows stay there, so that none are new here.
    """
    lines = [_write_summary(report, in_place=in_place)]
    if report.again:
        lines.append(f"  {report.again}.")
    for file in report.files:
        lines += _file_lines(file)
    lines += [f"  set aside   spans       {name}: mlmon doctor says why" for name in report.unread]
    return "\n".join(lines) + "\n"


def _write_summary(report: IngestReport, *, in_place: bool) -> str:
    n_done, n_refused = len(report.of("done")), len(report.of("quarantined"))
    if in_place and not report.files:
        return "its tables have the rows that they had at the last look."
    counts = ", ".join(
        f"{report.total(counter):,} {word}"
        for counter, word in (
            ("n_new", "new"),
            ("n_duplicate", "duplicate"),
            ("n_conflict", "conflicting"),
            ("n_bad", "bad"),
        )
    )
    text = f"{n_done} files ingested ({counts} rows)"
    if in_place:
        text = f"{n_done} tables with other rows"
    text += f", {len(report.windows)} windows touched"
    text += f", {report.n_spans:,} spans" if report.n_spans else ""
    for number, words in (
        (n_refused, "quarantined"),
        (len(report.of("failed", "missing")), "failed"),
        (report.n_waiting, "not complete yet"),
        (report.n_left, "left for the next run"),
    ):
        text += f", {number} {words}" if number else ""
    return text + "."


def _file_lines(file: FileReport) -> list[str]:
    head = f"  {file.status:<11} {file.stream:<11} {file.path}"
    if file.status == "done":
        head += f"{', refused rows read again' if file.is_again else ''}: {_write_counts(file)}"
    lines = [head]
    if file.message and file.status != "done":
        code = f"[{file.reason}] " if file.reason else ""
        lines.append(f"      {code}{file.message}")
    lines += [f"      warning: {warning}" for warning in file.warnings]
    lines += _bad_row_lines(file.bad_rows, file.n_bad)
    return lines


def _write_counts(file: FileReport) -> str:
    text = (
        f"{counted(file.n_windows, 'window')} with other rows, {file.n_bad:,} rows of no window"
        if file.n_windows is not None
        else f"{file.rows_in:,} rows = {file.n_new:,} new + {file.n_duplicate:,} duplicate "
        f"+ {file.n_conflict:,} conflicting + {file.n_bad:,} bad"
    )
    return text + (f"; {file.n_unmatched:,} without a prediction yet" if file.n_unmatched else "")


def _bad_row_lines(messages: Sequence[str], n_bad: int) -> list[str]:
    lines = [f"      bad: {message}" for message in messages[:_MOST_SHOWN]]
    if messages and n_bad > len(lines):
        lines.append(f"      {n_bad:,} bad rows in all; the dead letter lists them")
    return lines
