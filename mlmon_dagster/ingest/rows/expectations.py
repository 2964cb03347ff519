"""The user's own Great Expectations: what is wrong with their declaration, and what they find.

Names, arguments and custom classes are the library's to judge, which is not imported when a spec
is loaded. One that is wrong in spite of ``mlmon validate``, or fails on the rows that came, is a
result that says so: never a pass, and never in the way of the file.
"""

from __future__ import annotations

import atexit
import datetime as dt
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from mlmon_dagster.errors import MlmonError
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.report import Fault, Rows
from mlmon_dagster.ingest.rows.canonical import Draft
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.checks import Problem
from mlmon_dagster.spec.declaration import Expectation
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state.manifest import BY_RULE

_MOST_VALUES, _WIDTH = 3, 80


class Result(TypedDict):
    """What one expectation found in one file, ready for JSON.

    Attributes:
        expectation: As it is declared.
        columns: Those that it is about.
        severity: As it is declared.
        kept: Whether it holds; False if it could not be evaluated.
        rows: Rows that it saw.
        unexpected: Rows that it did not expect; None for one about the whole file.
        values: A few of what it did not expect, of columns whose values may be shown.
        error: Why it could not be evaluated; empty if it was.
    """

    expectation: str
    columns: list[str]
    severity: str
    kept: bool
    rows: int
    unexpected: int | None
    values: list[str]
    error: str


@dataclass(frozen=True)
class Finding:
    """What the library says of one expectation.

    Attributes:
        columns: Those that it is about.
        kept: Whether it holds.
        rows: Rows that it did not expect, ascending; None for one about the whole file.
        values: What it did not expect, as text; of rows one each.
        error: Why it could not be evaluated, which may quote values; empty if it was.
        kind: The same without any value.
    """

    columns: tuple[str, ...] = ()
    kept: bool = False
    rows: Rows | None = None
    values: tuple[str, ...] = ()
    error: str = ""
    kind: str = ""

    def of_rows(self, begin: int, end: int) -> Finding:
        """Return what it says of some of the rows, numbered from the first of them."""
        assert self.rows is not None
        low, high = np.searchsorted(self.rows, [begin, end])
        rows = self.rows[low:high] - begin
        return replace(self, kept=not rows.size, rows=rows, values=self.values[low:high])


_BROKEN = "Great Expectations cannot be imported; its process has written why"
_NO_ANSWER = (EOFError, OSError, pickle.UnpicklingError)


class _EndedError(MlmonError):
    """The process ended without an answer."""


class _BrokenError(MlmonError):
    """Great Expectations cannot be imported, whatever is asked."""


class _Worker:
    """A process that has imported Great Expectations; started when needed, and again if it ended.

    It ends by itself if nothing is asked for a while, or once this process has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._is_ready = self.is_broken = False

    def start(self) -> subprocess.Popen[bytes]:
        """Start it unless it runs; importing goes on in the background."""
        if self._process is not None and (not self._is_own or self._process.poll() is not None):
            self.stop()
        if self._process is None:
            program = (
                f"import gc, sys; gc.disable(); sys.path[:] = {sys.path!r}; "
                "from mlmon_dagster.ingest.rows.expectation_worker import serve; serve()"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._owner, self._is_ready = os.getpid(), False
        return self._process

    @property
    def _is_own(self) -> bool:
        """Whether this process started it, and was not forked from the one that did."""
        return self._owner == os.getpid()

    def ask(self, name: str, *arguments: object) -> Any:
        """Return what a function of `expectation_worker` answers.

        Raises:
            _BrokenError: If the library cannot be imported.
            _EndedError: If the process ended twice before it answered.
            Exception: Whatever the function raised.
        """
        with self._lock:
            for is_last in (False, True):
                try:
                    answer = self._exchange(name, arguments)
                    break
                except _NO_ANSWER:  # idle for long, or killed
                    code = self.stop()
                    if is_last:
                        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
                        said = f"Great Expectations ended with {how} while it judged these rows"
                        raise _EndedError(said) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _exchange(self, name: str, arguments: Sequence[object]) -> object:
        if self.is_broken:
            raise _BrokenError(_BROKEN)
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        if not self._is_ready:
            try:
                pickle.load(process.stdout)
            except _NO_ANSWER:
                self.stop()
                self.is_broken = True
                raise _BrokenError(_BROKEN) from None
            self._is_ready = True
        pickle.dump((name, arguments), process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)

    def stop(self) -> int:
        """End it, or let go of that of a parent; return with what it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if self._is_own:
            process.terminate()
        else:
            process.returncode = 0  # nobody here is to wait for it
        with suppress(OSError), process:  # closes its pipes and waits
            pass
        return process.returncode


_WORKER = _Worker()
atexit.register(_WORKER.stop)


def declared_for(spec: ModelSpec, stream: Stream) -> list[Expectation]:
    """Return what the spec itself expects of the rows of a stream."""
    return [one for one in spec.expectations if one.stream == stream]


def prepare_to_judge(spec: ModelSpec, stream: Stream) -> None:
    """Have Great Expectations imported while files are read, if the spec expects anything."""
    if declared_for(spec, stream) and not _WORKER.is_broken:
        _WORKER.start()


def expectation_problems(spec: ModelSpec) -> list[Problem]:
    """Return what is wrong with the declared expectations: names, arguments, columns."""
    if not spec.expectations:
        return []
    found = _WORKER.ask("find_problems", spec)
    return [Problem(("expectations", *path), said) for path, said in found]


def export_suite(spec: ModelSpec, stream: Stream) -> dict[str, object]:
    """Return the suite of a stream as Great Expectations stores it: its rules and declarations."""
    suite: dict[str, object] = _WORKER.ask("build_suite", spec, stream)
    return suite


def write_data_docs(
    spec: ModelSpec, windows: Sequence[tuple[str, dt.datetime, Sequence[Result]]], folder: Path
) -> str:
    """Write the Data Docs of Great Expectations about what was found; return their first page."""
    page: str = _WORKER.ask("write_data_docs", spec, windows, folder.absolute())
    return page


def judge_declared(
    drafts: Sequence[Draft], spec: ModelSpec, stream: Stream
) -> list[tuple[tuple[Fault, ...], list[Result]]]:
    """Judge the rows of files that are good so far, and are not passed over; each file alone.

    Args:
        drafts: The rows of files of one stream, with all that the rules of the store found.
        spec: The model.
        stream: What the files hold.

    Returns:
        For each file the rows to refuse, and one result per expectation.
    """
    declared = declared_for(spec, stream)
    # Of a part of a file the whole was judged: only what refuses rows is asked again.
    refusing = [one for one in declared if one.severity == "refuse"]
    found: dict[int, tuple[tuple[Fault, ...], list[Result]]] = {}
    for asked, is_again in ((declared, False), (refusing, True)):
        mine = {
            position: rows
            for position, draft in enumerate(drafts)
            if (draft.parsed.staged.again is not None) is is_again
            and (rows := _rows_to_judge(draft)).size
        }
        if asked and mine:
            tables = [
                pa.table({name: v.take(rows) for name, v in drafts[position].columns.items()})
                for position, rows in mine.items()
            ]
            for (position, rows), each in zip(
                mine.items(), _find(tables, asked, spec), strict=True
            ):
                found[position] = _sum_up(asked, each, rows, spec)
    return [found.get(position, ((), [])) for position in range(len(drafts))]


def _rows_to_judge(draft: Draft) -> Rows:
    return np.flatnonzero(~draft.bad() & ~draft.parsed.staged.passed_over(draft.parsed.n_rows))


def _find(
    tables: Sequence[pa.Table], declared: Sequence[Expectation], spec: ModelSpec
) -> list[list[Finding]]:
    try:
        found: list[list[Finding]] = _WORKER.ask("judge_files", tables, declared, spec)
    except _BrokenError as error:
        return [[Finding(error=str(error), kind=str(error)) for _ in declared] for _ in tables]
    except _EndedError as error:
        if len(tables) > 1:  # one file may have ended it
            return [each for table in tables for each in _find([table], declared, spec)]
        return [[Finding(error=str(error), kind=str(error)) for _ in declared]]
    return found


def _sum_up(
    declared: Sequence[Expectation], found: Sequence[Finding], rows: Rows, spec: ModelSpec
) -> tuple[tuple[Fault, ...], list[Result]]:
    faults: tuple[Fault, ...] = ()
    results = [
        _result(one, each, spec, rows.size) for one, each in zip(declared, found, strict=True)
    ]
    for one, each, result in zip(declared, found, results, strict=True):
        if one.severity == "refuse" and not result["kept"] and not result["error"]:
            columns = {column.name: column for column in columns_of(spec, one.stream)}
            faults += Fault.of(rows[each.rows], BY_RULE, columns[each.columns[0]], one.expect)
    return faults, results


def _result(declared: Expectation, found: Finding, spec: ModelSpec, n_rows: int) -> Result:
    # What a library says may quote values.
    may_show = all(spec.shows_values_of(name) for name in found.columns)
    error = found.error if may_show else found.kind
    rows = found.rows
    if not error and not found.kept and declared.severity == "refuse" and rows is None:
        error = "it does not say which rows it did not expect"
    texts = [text[:_WIDTH] for text in dict.fromkeys(found.values)]
    return Result(
        expectation=declared.expect,
        columns=list(found.columns),
        severity=declared.severity,
        kept=found.kept,
        rows=n_rows,
        unexpected=None if rows is None else len(rows),
        values=texts[:_MOST_VALUES] if may_show and not found.kept else [],
        error=error,
    )
