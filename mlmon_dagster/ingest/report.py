"""What an ingest did, file by file, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlmon_dagster.spec import Window
from mlmon_dagster.spec.sources import Stream

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
        again: Why what was refused before is read again, and how much; empty if nothing is.
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


def render_report(report: IngestReport) -> str:
    """Write a report as plain text for people, problems with their next step."""
    lines = [_summary(report)]
    if report.again:
        lines.append(f"  {report.again}.")
    for file in report.files:
        lines += _file_lines(file)
    lines += [f"  set aside   spans       {name}: mlmon doctor says why" for name in report.unread]
    return "\n".join(lines) + "\n"


def _summary(report: IngestReport) -> str:
    n_done, n_refused = len(report.of("done")), len(report.of("quarantined"))
    counts = ", ".join(
        f"{report.total(counter):,} {word}"
        for counter, word in (
            ("n_new", "new"),
            ("n_duplicate", "duplicate"),
            ("n_conflict", "conflicting"),
            ("n_bad", "bad"),
        )
    )
    text = f"{n_done} files ingested ({counts} rows), {len(report.windows)} windows touched"
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
        head += f"{', refused rows read again' if file.is_again else ''}: {_counts(file)}"
    lines = [head]
    if file.message and file.status != "done":
        code = f"[{file.reason}] " if file.reason else ""
        lines.append(f"      {code}{file.message}")
    lines += [f"      warning: {warning}" for warning in file.warnings]
    lines += _bad_row_lines(file.bad_rows, file.n_bad)
    return lines


def _counts(file: FileReport) -> str:
    text = (
        f"{file.rows_in:,} rows = {file.n_new:,} new + {file.n_duplicate:,} duplicate "
        f"+ {file.n_conflict:,} conflicting + {file.n_bad:,} bad"
    )
    return text + (f"; {file.n_unmatched:,} without a prediction yet" if file.n_unmatched else "")


def _bad_row_lines(messages: Sequence[str], n_bad: int) -> list[str]:
    lines = [f"      bad: {message}" for message in messages[:_MOST_SHOWN]]
    if messages and n_bad > len(lines):
        lines.append(f"      {n_bad:,} bad rows in all; the dead letter lists them")
    return lines
