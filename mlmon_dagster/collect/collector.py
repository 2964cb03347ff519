"""One request from its bytes to its answer: read, judged, durable, answered once.

It is judged by its model before anything of it is stored, by the rules of ingest.
What the spec itself expects, only ingest judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime as dt
import errno
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa

from mlmon_dagster.collect.body import Form, json_lines_of, raw_file, read_rows, unpacked
from mlmon_dagster.collect.landing import Committer, Target
from mlmon_dagster.collect.problem import Problem, limited
from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column, columns_of
from mlmon_dagster.ingest.formats.parse import Parsed, typed_columns
from mlmon_dagster.ingest.formats.read_evaluations import columns_as_written, spread_rows
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.raw import (
    MAX_COLUMNS,
    RawFile,
    columns_to_read,
    with_aliases,
    with_derived_id,
    with_nulls,
)
from mlmon_dagster.ingest.report import (
    FILE_REASONS,
    ROW_REASONS,
    Fault,
    Mask,
    did_you_mean,
    names,
    rows_at_fault,
)
from mlmon_dagster.ingest.rows.canonical import draft_rows
from mlmon_dagster.ingest.rows.judge import judge_by_rules
from mlmon_dagster.ingest.rows.rules import rules_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import Stream

_LOG = logging.getLogger("mlmon_dagster.collect")
_LARGE = 2 << 20  # bytes of a batch once unpacked
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_KEPT_SECONDS = 24 * 3600.0
_MOST_ANSWERS = 50_000
_MOST_ERRORS = 10  # an answer with more of them is not kept
_PLACE = "the batch"
_UNREAD: Final = {
    "malformed_json": "a JSON object",
    "duplicate_column": "every key once",
    "too_large": "at most 4 Mi characters a row",
}
Key = tuple[str, ...]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What one request may not exceed.

    Attributes:
        max_body: Bytes as they come.
        max_plain: Bytes once unpacked.
        max_rows: Rows.
        body_seconds: Time until the whole body is there.
        head_seconds: Time until the whole head is there.
    """

    max_body: int = 8 << 20
    max_plain: int = 32 << 20
    max_rows: int = 100_000
    body_seconds: float = 30.0
    head_seconds: float = 10.0


@dataclass(frozen=True)
class Ask:
    """A request to take in a batch.

    Attributes:
        caller: Id of its token, or empty.
        key: Its Idempotency-Key, or empty.
        takes_part: Good rows are wanted even if others are bad.
    """

    target: Target
    form: Form
    body: bytes
    caller: str = ""
    key: str = ""
    takes_part: bool = False


@dataclass(frozen=True)
class _Accepted:
    lines: list[bytes]
    answer: dict[str, object]


class Collector:
    """Takes in batches; several at once, since reading and judging leave the event loop.

    Args:
        specs: The models.
        committer: Makes rows durable.
        limits: Of one request.
        now: The clock that event times may not lie ahead of.
        n_threads: Batches that are judged at once.
    """

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        targets: Mapping[tuple[str, Stream], Target],
        committer: Committer,
        limits: Limits,
        now: Callable[[], dt.datetime],
        n_threads: int = 2,
    ) -> None:
        by_name = {spec.model: spec for spec in specs}
        self.judges: dict[tuple[str, str], Judge] = {
            key: Judge(by_name[key[0]], key[1]) for key in targets
        }
        self.targets = targets
        self.limits = limits
        self._committer, self._now = committer, now
        self._repeats = Repeats()
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="mlmon-judge")
        self._large = threading.Lock()

    async def take(self, ask: Ask) -> tuple[dict[str, object], bool]:
        """Take in a batch; return the answer, and whether it is that of an earlier request.

        Raises:
            Problem: If nothing of it is accepted.
        """
        key, fingerprint = _key_of(ask)
        known = self._repeats.begin(key, fingerprint, is_named=bool(ask.key))
        if known is not None:
            return dict(known), True
        answer = None
        try:
            loop = asyncio.get_running_loop()
            accepted = await loop.run_in_executor(self._threads, self._judged, ask)
            await self.stored(ask.target, accepted.lines)
            answer = accepted.answer
        finally:
            self._repeats.end(key, answer)
        return answer, False

    def close(self) -> None:
        """Write what waits and stop."""
        self._threads.shutdown()
        self._committer.close()

    def _judged(self, ask: Ask) -> _Accepted:
        plain = unpacked(ask.body, ask.form.encoding, self.limits.max_plain)
        if len(plain) < _LARGE:
            return self._judged_plain(ask, plain)
        # Rows take several times the memory of their text: one large batch at a time.
        with self._large:
            try:
                return self._judged_plain(ask, plain)
            finally:
                del plain
                _give_back()

    def _judged_plain(self, ask: Ask, plain: bytes) -> _Accepted:
        target, limits = ask.target, self.limits
        judge = self.judges[target.model, target.stream]
        max_rows = min(limits.max_rows, target.max_rows)
        rows = read_rows(plain, ask.form.media_type, max_rows)
        raw = raw_file(rows, judge.wanted)
        unread = {i: row.fault for i, row in enumerate(rows) if row.fault}
        judged = judge.judge(raw, unread, self._now())
        kept = np.flatnonzero(~judged.bad).tolist()
        n_bad = len(rows) - len(kept)
        if judged.is_refused_whole or not kept or (n_bad and not ask.takes_part):
            raise Problem("rows_refused", _refusal(judged.is_refused_whole, n_bad, len(kept)),
                          judged.errors)  # fmt: skip
        lines = json_lines_of(rows, judge.wanted, kept, raw.present)
        if sum(map(len, lines)) > target.max_bytes:
            found = f"The rows are more than max_bytes = {target.max_bytes:,} under 'source'."
            raise Problem("too_large", found)
        answer: dict[str, object] = {"accepted": len(kept), "refused": n_bad}
        if judged.warnings:
            answer["warnings"] = list(judged.warnings)
        return _Accepted(lines, answer | (limited(judged.errors) if n_bad else {}))

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do work beside the event loop, in the threads that judge batches."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def stored(self, target: Target, lines: Sequence[bytes]) -> None:
        """Return once rows are durable.

        Raises:
            Problem: If they cannot be stored.
        """
        done = asyncio.wrap_future(self._committer.submit(target, lines))
        try:
            # A client that goes away does not stop what its neighbours wait for.
            await asyncio.shield(done)
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, "OSError")
            _LOG.error("%s %s: %d rows not stored: %s", target.model, target.stream, len(lines),
                       reason)  # fmt: skip
            if error.errno in _DISK_FULL:
                found = "The disk is full."
                raise Problem("overloaded", found, headers={"retry-after": "30"}) from None
            found = f"The landing file cannot be written ({reason}). Nothing was accepted."
            raise Problem("not_stored", found, headers={"retry-after": "5"}) from None


def _give_back() -> None:
    """Return freed memory to the system, which the allocators else keep for good."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _key_of(ask: Ask) -> tuple[Key, str]:
    target, form = ask.target, ask.form
    digest = hashlib.sha256(
        "\0".join((target.model, target.stream, form.media_type, form.encoding,
                   str(ask.takes_part), "")).encode()
    )  # fmt: skip
    digest.update(ask.body)
    fingerprint = digest.hexdigest()
    if ask.key:
        return ("named", ask.caller, target.model, target.stream, ask.key), fingerprint
    return ("content", fingerprint), fingerprint


def _refusal(is_whole: bool, n_bad: int, n_good: int) -> str:
    if is_whole:
        return "The batch does not have the columns that the model declares; nothing was stored."
    found = f"{n_bad:,} of {n_bad + n_good:,} rows are refused; nothing was stored. Correct them"
    return f"{found}, or send the batch with ?accept=partial." if n_good else f"{found}."


@dataclass
class _Known:
    fingerprint: str
    when: float
    answer: Mapping[str, object] | None = None  # None while it is being worked on


class Repeats:
    """Remembers what was answered, so that a retry is answered alike and stores nothing.

    After a restart a retry is stored again, and ingest drops its rows as duplicates.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Key, _Known] = OrderedDict()

    def begin(self, key: Key, fingerprint: str, *, is_named: bool) -> Mapping[str, object] | None:
        """Note that a request is being worked on; return its answer if it was given before.

        Args:
            key: What tells requests apart.
            fingerprint: Of the request's content.
            is_named: The client chose the key.

        Raises:
            Problem: If the client's key is at work, or belongs to another content.
        """
        self._forget_old()
        known = self._known.get(key)
        if known is not None:
            if known.fingerprint != fingerprint:
                raise Problem("key_reused", "Use a new Idempotency-Key for every batch.")
            if known.answer is not None:
                return known.answer
            if is_named:
                found = "Try again once the first request has its answer."
                raise Problem("in_progress", found, headers={"retry-after": "1"})
            return None
        self._known[key] = _Known(fingerprint, time.monotonic())
        return None

    def end(self, key: Key, answer: Mapping[str, Any] | None) -> None:
        """Note the answer; None forgets the request, which failed."""
        known = self._known.get(key)
        if answer is None or len(answer.get("errors", ())) > _MOST_ERRORS:
            if known is not None and known.answer is None:
                del self._known[key]
        elif known is not None:
            known.answer = answer

    def _forget_old(self) -> None:
        limit = time.monotonic() - _KEPT_SECONDS
        while self._known:
            oldest = next(iter(self._known.values()))
            if len(self._known) < _MOST_ANSWERS and oldest.when >= limit:
                return
            self._known.popitem(last=False)


@dataclass(frozen=True)
class Judged:
    """A batch and what is wrong with it.

    Attributes:
        bad: Which rows are refused.
        errors: Every reason: row (0-based; absent if it concerns the whole batch), column, reason
            code, what is expected, and a sentence.
        warnings: What is odd without being wrong.
    """

    bad: Mask
    errors: tuple[dict[str, object], ...]
    warnings: tuple[str, ...]

    @property
    def is_refused_whole(self) -> bool:
        """Whether a reason concerns the batch and not single rows."""
        return any("row" not in error for error in self.errors)


class Judge:
    """Judges the batches of one stream of one model.

    Args:
        spec: The model.
        stream: The stream.
    """

    def __init__(self, spec: ModelSpec, stream: Stream) -> None:
        self.spec, self.stream = spec, stream
        self._columns = columns_of(spec, stream)
        self._read = columns_to_read(self._columns, spec)
        self._is_spread = bool(spec.evaluations) and stream == "actuals"
        self.wanted = with_aliases(self._read)
        if self._is_spread:
            self.wanted = columns_as_written(self._columns)
        source = spec.source.of(stream)
        if source is None:
            raise ValueError(f"model {spec.model} has no source of {stream}")
        self._source = source
        self._rules = rules_of(spec, stream)
        self._staged = Staged(stream, _PLACE, None, "", 0, 0)

    def judge(self, raw: RawFile, unread: Mapping[int, str], now: dt.datetime) -> Judged:
        """Return all that is wrong with a batch.

        Args:
            raw: The batch as it was read.
            unread: Row number -> reason code of rows that are no rows at all.
            now: The moment that times may not lie ahead of.

        Raises:
            Problem: If a column as a whole cannot be read, or there are too many.
        """
        if len(raw.present) > MAX_COLUMNS:
            raise Problem("too_large", f"More than {MAX_COLUMNS:,} columns.")
        if self._is_spread:
            raw = spread_rows(raw, self._columns, keeps_all=True)
        known = set(raw.columns)
        missing = [
            column
            for column in self._read
            if column.must_exist and not known & {column.source, *column.aliases}
        ]
        raw = with_nulls(raw, self._source.null_tokens)
        raw = with_derived_id(raw, self._columns, self.spec)
        if unread and len(unread) == raw.n_rows:
            missing = []
        try:
            parsed = typed_columns(self._staged, raw, self._columns, self.spec, self._source)
            draft = draft_rows(parsed, self.spec, now)
        except SchemaError as error:
            raise Problem("rows_refused", str(error), [{"reason": error.reason}]) from None
        draft, _ = judge_by_rules(draft, self._rules)
        absent = {column.name for column in missing}
        faults = [fault for fault in draft.faults if fault.name not in absent]
        bad = rows_at_fault(faults, raw.n_rows)
        bad[list(unread)] = True
        errors = [
            *(_missing(column, raw.present) for column in missing),
            *_unread_errors(unread),
            *_row_errors(faults, unread),
        ]
        errors.sort(key=lambda error: error.get("row", -1))
        return Judged(bad, tuple(errors), _warnings(parsed, self.wanted))


def _missing(column: Column, present: Iterable[str]) -> dict[str, Any]:
    expected = column.expected
    hint = did_you_mean(column.source, list(present)).strip()
    return {
        "column": column.source,
        "reason": "missing_column",
        "expected": expected,
        "detail": f"No row has it; expected {expected}. {hint or FILE_REASONS['missing_column']}",
    }


def _unread_errors(unread: Mapping[int, str]) -> list[dict[str, object]]:
    return [
        {"row": row, "reason": reason, "expected": _UNREAD[reason], "detail": FILE_REASONS[reason]}
        for row, reason in unread.items()
    ]


def _row_errors(faults: Iterable[Fault], unread: Mapping[int, str]) -> list[dict[str, object]]:
    found = {
        (int(row), fault.source, fault.reason): fault for fault in faults for row in fault.rows
    }
    return [
        {
            "row": row,
            "column": source,
            "reason": reason,
            "expected": found[row, source, reason].expected,
            "detail": ROW_REASONS[reason],
        }
        for row, source, reason in sorted(found)
        if row not in unread
    ]


def _warnings(parsed: Parsed, wanted: Iterable[Column]) -> tuple[str, ...]:
    ours = {column.source for column in wanted}
    dropped = [name for name in parsed.extra if name not in ours]
    if not dropped:
        return ()
    return (f"columns {names(dropped)} are not declared and not kept",)
