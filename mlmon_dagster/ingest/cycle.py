"""One ingest of a model: list, stage, judge, append; every file on its own terms.

A file that is refused, or that the program fails on, never stops another.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from mlmon_dagster.errors import SchemaError, StoreError
from mlmon_dagster.ingest.commit import Committed, Refusals, commit_batch, settle_from_log
from mlmon_dagster.ingest.formats.parse import Parsed, parse_file
from mlmon_dagster.ingest.landing import (
    Candidate,
    StillChangingError,
    UnreadableError,
    clear_incoming,
    stage,
    staging_folder,
)
from mlmon_dagster.ingest.queue import (
    PollSource,
    Queued,
    find_work,
    reopen,
    report_unreadable,
    source_of,
    stage_again,
)
from mlmon_dagster.ingest.report import FileReport, IngestReport
from mlmon_dagster.ingest.rows.canonical import Draft, draft_rows
from mlmon_dagster.ingest.rows.expectations import declared_for, prepare_to_judge
from mlmon_dagster.ingest.rows.judge import (
    Part,
    Prepared,
    Verdict,
    drop_erased,
    judge_files,
    prepare,
    whole,
)
from mlmon_dagster.ingest.spans import SpanReport, take_spans
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.sources import STREAMS, FileSource, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.erasure.erase import repeat_undone
from mlmon_dagster.store.moments import begin_moment, check_tables
from mlmon_dagster.store.sources import forget_notice
from mlmon_dagster.store.state import erased_ids, manifest
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.manifest import Backlog
from mlmon_dagster.store.state.model_history import check_declared
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.tables.part_files import PartedRows, Spill

# Of files that are appended together: a commit takes as long, however few rows.
BATCH_BYTES = 8 * 1024**2
BATCH_FILES = 500
ROWS_A_PART = 100_000  # of a file, two parts of which are in memory at a time
HURRIED_FILES = 100  # of a batch where time is short: it is asked for between batches only
Progress = Callable[[str], None]
TimeIsUp = Callable[[], bool]
Result = TypeVar("Result")


def ingest_new(
    store: Store,
    spec: ModelSpec,
    project: Path,
    readers: PollSource,
    *,
    now: dt.datetime,
    run_id: str = "",
    max_files: int | None = None,
    max_bytes: int | None = None,
    time_is_up: TimeIsUp | None = None,
    on_progress: Progress | None = None,
    wait_seconds: float = 600,
    retry: bool = False,
    written_by: Mapping[Stream, dt.datetime] | None = None,
) -> IngestReport:
    """Ingest the new and complete landing files of a model, and the new rows of its tables.

    Running it again, in another order, or after a crash at any point leads to the same store.

    Args:
        store: Where to.
        spec: The model.
        project: The folder that the spec's landing paths are relative to.
        readers: What reads its sources that are no folders of files.
        now: The present moment, aware; event times may not lie ahead of it.
        run_id: Who asks, noted with files that fail.
        max_files: At most so many files, the oldest first; the rest is left for the next call.
        max_bytes: Files larger than this are left for a call that has the time for them.
        time_is_up: Asked before each batch of files but the first; what is left when it says so
            is left for the next call. The stream that has waited longest then comes first.
        on_progress: Called with a line of text before each batch of files.
        wait_seconds: How long to wait for another ingest of the model.
        retry: Read all again that was refused, even if the spec is what it was.
        written_by: When whatever writes a stream last said that it was done, if it says so: its
            files that have not changed since need not settle.

    Returns:
        What became of each file, and the windows to compute again.

    Raises:
        ConfigError: If the spec was changed in a way that the stored events do not allow.
        BusyError: If another ingest of the model goes on for longer than that.
        StoreError: If the store fails, or is not the one that the state database is about, or
            one of the two does not know the other's erasures.
    """
    if now.tzinfo is None:
        raise ValueError(f"naive time {now!r}; pass UTC")
    with writer_lock(store.state, f"ingest/{spec.model}", wait_seconds=wait_seconds) as lease:
        check_declared(store.state, spec)
        check_tables(store, spec)
        repeat_undone(store, spec, now)

        def progress(text: str) -> None:
            lease.check()  # before each batch
            (on_progress or _silent)(text)

        ingest = _Ingest(
            store, spec, project, readers, now, run_id, progress, time_is_up, written_by or {}
        )
        # First, since records take from spans what is there when they are rebuilt.
        found = take_spans(store, spec, project, now) if spec.spans is not None else SpanReport()
        report = ingest.run(max_files, max_bytes, retry=retry)
        windows = sorted({*report.windows, *found.windows})
        return replace(report, windows=windows, n_spans=found.n_rows, unread=found.unread)


def _changed_at(looked_at: dt.datetime, candidate: Candidate) -> dt.datetime:
    return looked_at - dt.timedelta(seconds=candidate.age)


def _silent(_text: str) -> None:
    """Report progress to nobody."""


@dataclass
class _Ingest:
    store: Store
    spec: ModelSpec
    project: Path
    readers: PollSource
    now: dt.datetime
    run_id: str
    on_progress: Progress
    time_is_up: TimeIsUp | None
    written_by: Mapping[Stream, dt.datetime]
    reports: list[FileReport] = field(default_factory=list)
    unsettled: list[Candidate] = field(default_factory=list)  # they were thought complete
    windows: set[Window] = field(default_factory=set)
    n_done: int = 0
    n_total: int = 0
    again: str = ""

    def run(self, max_files: int | None, max_bytes: int | None, *, retry: bool) -> IngestReport:
        self.refusals = Refusals(self.store, self.spec, self.now, self.run_id)
        again = self._reopen(retry)
        work = find_work(
            self.store, self.spec, self.project, self.now, max_files, self.readers, again,
            self.written_by,
        )  # fmt: skip
        looked_at = self.store.machine_clock()  # ages of files are of the real clock
        self.reports += work.reports
        self.n_total = len(work.queue)
        large = [f for f in work.queue if max_bytes is not None and f.size > max_bytes]
        left = [*work.left, *large]
        queue = [item for item in work.queue if item not in large] if large else work.queue
        if queue:
            begin_moment(self.store, self.spec.model, self.now)
        for n, (stream, batch) in enumerate(self._in_batches(queue)):
            if n and self.time_is_up is not None and self.time_is_up():
                left += batch
            else:
                self._batch(stream, batch)
        is_resuming = any(item.staged for item in work.queue)
        if self.again or is_resuming or self.store.root.is_local:  # else the daily upkeep does it
            kept_rows.sweep_settled(self.store, self.spec.model)
        for stream in {report.stream for report in work.reports if report.status == "skipped"}:
            forget_notice(self.store.state, self.spec.model, stream, self.now)
        n_waiting = sum(report.status == "waiting" for report in self.reports)
        manifest.note_backlog(
            self.store.state, self.spec.model, self._backlog(left, work.waiting, looked_at)
        )
        return IngestReport(
            tuple(self.reports),
            sorted(self.windows),
            n_waiting,
            len(left),
            len(large),
            again=self.again,
        )

    def _in_batches(self, queue: Sequence[Queued]) -> Iterator[tuple[Stream, list[Queued]]]:
        streams: Sequence[Stream] = STREAMS
        at_most = BATCH_FILES
        if self.time_is_up is not None:
            at_most = HURRIED_FILES
            oldest = {item.stream: item.order for item in reversed(queue)}
            streams = sorted(oldest, key=lambda stream: oldest[stream])
        for stream in streams:
            mine = [item for item in queue if item.stream == stream]
            if interrupted := [item for item in mine if item.is_in_log]:
                yield stream, interrupted
            for batch in _batches([item for item in mine if not item.is_in_log], at_most):
                yield stream, batch

    def _backlog(
        self, left: Sequence[Queued], waiting: Sequence[Candidate], looked_at: dt.datetime
    ) -> dict[str, Backlog]:
        """Return what this look leaves, by stream; a file that failed has its own report."""
        waiting = [*waiting, *self.unsettled]
        found: dict[str, Backlog] = {}
        for stream in STREAMS:
            source = source_of(self.spec, stream) if self._has(stream) else None
            settle = source.settle if isinstance(source, FileSource) else dt.timedelta()
            late = [
                _changed_at(looked_at, item.candidate)
                for item in left
                if item.stream == stream and item.candidate is not None
            ]
            new = [_changed_at(looked_at, c) for c in waiting if c.stream == stream]
            found[stream] = Backlog(
                n_waiting=len(new),
                n_left=sum(item.stream == stream for item in left),
                oldest_at=min([*late, *new], default=None),
                newest_at=max([*late, *new], default=None),
                left_since=min(late, default=looked_at) + settle if late else None,
            )
        return found

    def _has(self, stream: Stream) -> bool:
        return stream == "predictions" or self.spec.has_actuals

    def _reopen(self, retry: bool) -> list[Queued]:
        """Let what was refused be read again, and say so."""
        opened = 0
        items: list[Queued] = []
        for stream in STREAMS:
            if self._has(stream):
                n, found = reopen(self.store, self.spec, stream, self.project, self.now, all_=retry)
                opened += n
                items += found
        if opened or items:
            why = "as asked" if retry else "since the spec changed or their time came"
            self.again = (
                f"reading again what was refused, {why}: {opened} whole files, and the refused "
                f"rows of {len(items)} files"
            )
            self.on_progress(f"{self.spec.model}: {self.again}")
        return items

    def _batch(self, stream: Stream, queued: Sequence[Queued]) -> None:
        self.on_progress(
            f"{self.spec.model}: {len(queued)} files of {stream} "
            f"from {queued[0].name} on, {self.n_done} of {self.n_total} done"
        )
        prepare_to_judge(self.spec, stream)
        staged = [found for item in queued if (found := self._stage(item))]
        ready, twins = self.refusals.admit(staged, self.reports)
        reached("ingest.staged")
        prepared = self._prepare(stream, ready)
        clear_incoming(staging_folder(self.store, self.spec.model, stream))
        shas = [file.staged.log_id for file in prepared]
        committed = self.store.event_log(self.spec).committed(stream, shas) if shas else set()
        for is_in_log in (True, False):
            mine = [f for f in prepared if (f.staged.log_id in committed) == is_in_log]
            if mine:
                self._commit(stream, mine, is_in_log=is_in_log)
        self.n_done += len(queued) - len(twins)
        if twins:
            self._batch(stream, twins)

    def _commit(self, stream: Stream, files: Sequence[Prepared], *, is_in_log: bool) -> None:
        self._settled(
            commit_batch(self.store, self.spec, stream, files, is_in_log=is_in_log, now=self.now)
        )
        for file in files:
            file.staged.discard()
        for spilled in staging_folder(self.store, self.spec.model, stream).glob("*.good_rows"):
            spilled.unlink()

    def _settled(self, done: Committed) -> None:
        self.reports += done.reports
        self.windows.update(done.windows)

    def _stage(self, item: Queued) -> Queued | None:
        """Copy a landing file, unless an interrupted run left its copy."""
        if item.kept:
            return stage_again(self.store, self.spec, item)
        if item.staged is not None or item.candidate is None:
            return item
        source = source_of(self.spec, item.stream)
        folder = staging_folder(self.store, self.spec.model, item.stream)
        try:
            return item.with_copy(stage(item.candidate, folder, source.max_bytes))
        except StillChangingError as error:
            waiting = FileReport(item.stream, item.name, "waiting", message=f"{error}.")
            self.reports.append(waiting)
            self.unsettled.append(item.candidate)
            return None
        except UnreadableError as error:
            self.reports.append(report_unreadable(item.stream, item.name, str(error)))
            return None

    def _prepare(self, stream: Stream, items: Sequence[Queued]) -> list[Prepared]:
        small: list[tuple[Queued, Parsed]] = []
        prepared: list[Prepared] = []
        for item in items:
            parts = self._attempt(item, partial(self._parse, item))
            if parts is None:
                continue
            if not parts.are_many:
                small.append((item, parts.begun[0]))
            elif found := self._attempt(item, partial(self._prepare_parts, item, parts)):
                prepared.append(found)
        reached("ingest.parsed")
        prepared += self._judge(stream, small)
        reached("ingest.validated")
        return prepared

    def _parse(self, item: Queued) -> _Parts:
        assert item.staged is not None
        # What a spec expects of a file may be about all of its rows; refused ones are few.
        is_whole = item.kept or declared_for(self.spec, item.stream)
        source = source_of(self.spec, item.stream)
        at_once = None if is_whole else ROWS_A_PART
        rest = parse_file(item.staged, self.spec, source, at_once)
        is_large = at_once is not None and item.size > BATCH_BYTES
        # Of a large file the second part is read while the first is judged.
        begun = list(islice(rest, 1 if is_large else 2))
        return _Parts(begun, rest, is_large or len(begun) > 1)

    def _prepare_parts(self, item: Queued, parts: _Parts) -> Prepared:
        """Judge a large file part by part; its good rows wait on the disk for all to be judged.

        While one part is judged and prepared, the next is read.
        """
        assert item.staged is not None
        erased = erased_ids.load_erased(self.store.state, self.spec.model)
        folder = staging_folder(self.store, self.spec.model, item.stream)
        spill = Spill(folder / f"{item.staged.sha256}.good_rows")
        judged: list[Part] = []
        try:
            for draft in ahead(map(partial(self._draft, item), parts.every())):
                [(draft, verdict)] = judge_files([draft], self.spec, item.stream)
                part = self._prepared(draft, verdict, erased)
                spill.add(part.rows)
                # Not a slice of no rows: it would hold the memory of all.
                judged.append(replace(part, rows=part.rows.schema.empty_table()))
            return whole(judged, spill.rows(), source_of(self.spec, item.stream))
        except Exception:
            spill.discard()
            raise

    def _attempt(self, item: Queued, work: Callable[[], Result]) -> Result | None:
        """Return what work on a file finds; None if the file is refused or failed, and noted."""
        assert item.staged is not None
        try:
            return work()
        except SchemaError as error:
            # A cut last line may still be completed, if nobody said that the file is complete.
            patience = 10 * source_of(self.spec, item.stream).settle.total_seconds()
            if error.reason == "cut_line" and not item.staged.is_final(patience):
                self.reports.append(self.refusals.postpone(item, error))
                self.unsettled += [item.candidate] if item.candidate else []
            else:
                self._refuse(item, error)
        except StoreError:
            raise
        except Exception as error:
            self.reports.append(self.refusals.fail(item, error))
        return None

    def _refuse(self, item: Queued, error: SchemaError) -> None:
        """Quarantine a file, unless its rows are in the log already."""
        assert item.staged is not None
        log = self.store.event_log(self.spec)
        if not item.kept and log.committed(item.stream, [item.staged.sha256]):
            self._settled(settle_from_log(self.store, self.spec, item.staged, str(error), self.now))
        else:
            self.reports.append(self.refusals.quarantine(item, error))

    def _judge(self, stream: Stream, batch: Sequence[tuple[Queued, Parsed]]) -> list[Prepared]:
        if not batch:
            return []
        try:
            erased = erased_ids.load_erased(self.store.state, self.spec.model)
            parts = self._judged(batch, erased)
        except StoreError:
            raise
        except Exception as error:
            # One file may have spoilt the batch: look at each alone.
            if len(batch) > 1:
                return [file for one in batch for file in self._judge(stream, [one])]
            self.reports.append(self.refusals.fail(batch[0][0], error))
            return []
        source = source_of(self.spec, stream)
        found = [
            self._attempt(item, partial(whole, [part], PartedRows.of(part.rows), source))
            for (item, _), part in zip(batch, parts, strict=True)
        ]
        return [file for file in found if file is not None]

    def _judged(self, batch: Sequence[tuple[Queued, Parsed]], erased: Erased) -> list[Part]:
        drafts = [self._draft(item, parsed) for item, parsed in batch]
        judged = judge_files(drafts, self.spec, batch[0][0].stream)
        return [self._prepared(*one, erased) for one in judged]

    def _draft(self, item: Queued, parsed: Parsed) -> Draft:
        return draft_rows(parsed, self.spec, item.first_seen)

    def _prepared(self, draft: Draft, verdict: Verdict, erased: Erased) -> Part:
        draft = drop_erased(draft, erased, self.store.query, self.spec)
        return prepare(draft, verdict, self.spec, self.now)


def ahead(items: Iterable[Result]) -> Iterator[Result]:
    """Yield items in their order, of which another thread makes the next one meanwhile.

    So both of two processors are busy where one makes parts and one uses them up; two items are
    in memory then. None ends them.
    """
    rest = iter(items)
    with ThreadPoolExecutor(1, "ahead") as maker:
        coming = maker.submit(next, rest, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, rest, None)
            yield item
            del item


class _Parts(NamedTuple):
    """A file being parsed: its first parts, the rest, and whether it is judged part by part."""

    begun: list[Parsed]
    rest: Iterator[Parsed]
    are_many: bool

    def every(self) -> Iterator[Parsed]:
        """Yield all parts, none of which is held on to."""
        while self.begun:
            yield self.begun.pop(0)
        yield from self.rest


def _batches(items: Sequence[Queued], at_most: int) -> Iterator[list[Queued]]:
    """Group small files; large ones, and those that failed before, go alone."""
    batch: list[Queued] = []
    size = 0
    for item in items:
        is_alone = item.attempts > 1 or item.size > BATCH_BYTES
        if batch and (is_alone or size + item.size > BATCH_BYTES or len(batch) >= at_most):
            yield batch
            batch, size = [], 0
        if is_alone:
            yield [item]
            continue
        batch.append(item)
        size += item.size
    if batch:
        yield batch
