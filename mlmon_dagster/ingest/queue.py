"""What there is to do: what an interrupted run left, what is read again, and new landing files.

What was refused is read again: by itself once the spec that refused it changed, or what lay ahead
of now may do so no more, or when asked. A
file that was refused as a whole goes through the ingest anew. Of a file that was taken in, only
the refused rows are read, from where they are kept, under the moment at which that was begun: a
crash repeats the same reading, and the log knows it by that moment.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.ingest.declared_columns import reading_of
from mlmon_dagster.ingest.formats.known import ending_of
from mlmon_dagster.ingest.landing import (
    Again,
    Candidate,
    Listing,
    Staged,
    clear_staging,
    find_staged,
    list_landing,
    staging_folder,
)
from mlmon_dagster.ingest.report import FileReport, Status, file_message
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import STREAMS, FileSource, PolledSource, Source, Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.manifest import UNFINISHED, FileRow
from mlmon_dagster.store.state.writing import writer_lock
from mlmon_dagster.store.tables import kept_rows

# Rows that lay ahead of now are tried again after an hour, then after as long as they were refused
# for, at most a day.
AHEAD_AGAIN = (dt.timedelta(hours=1), dt.timedelta(days=1))
# Stages what is new in a source that is no folder of files.
PollSource = Callable[[Store, ModelSpec, Stream, PolledSource, Path, dt.datetime], list[FileReport]]


@dataclass(frozen=True)
class Queued:
    """A file to be ingested.

    Attributes:
        name: Its path below the project folder.
        order: Oldest first.
        first_seen: The moment that its event times may not lie ahead of.
        attempts: How often an ingest of it was begun and not ended.
        is_in_log: Its rows are in the log already, only the manifest does not say so.
        candidate: The landing file; None if only the private copy is left.
        staged: The private copy; None until it is made.
        error: What was recorded of earlier attempts.
        kept: Where the refused rows are, if only these are to be read, for the second time.
        arrived: When the file was taken in, of which these are the rows.
    """

    stream: Stream
    name: str
    size: int
    order: tuple[int, str]
    first_seen: dt.datetime
    attempts: int = 0
    is_in_log: bool = False
    candidate: Candidate | None = None
    staged: Staged | None = None
    error: str = ""
    kept: str = ""
    arrived: dt.datetime | None = None

    def with_copy(self, staged: Staged) -> Queued:
        """Return it with its private copy."""
        return replace(self, staged=staged)

    def without_copy(self) -> Queued:
        """Return it to be copied again, if the landing file is there."""
        return self if self.candidate is None else replace(self, staged=None)

    def report(
        self, status: Status, reason: str, message: str, *, is_again: bool = False
    ) -> FileReport:
        """Report what became of a file that is staged."""
        sha256 = self.staged.sha256 if self.staged else ""
        return FileReport(
            self.stream, self.name, status, sha256, reason, message, is_again=is_again
        )

    def as_noted(self, row: FileRow | None) -> Queued:
        """Return it with what its row of the manifest, if there is one, says of earlier runs."""
        if row is None or row["status"] not in UNFINISHED:
            return self
        return replace(
            self,
            first_seen=moment_of(row),
            attempts=row["attempts"],
            error=row["error"],
        )


@dataclass(frozen=True)
class Work:
    """The queue of one ingest, and what is known of the files that are not in it.

    Attributes:
        queue: What is to be ingested, in this order.
        reports: What became of files that need no ingest.
        left: Complete files beyond the limit.
        waiting: Files that may still be written to.
    """

    queue: tuple[Queued, ...]
    reports: tuple[FileReport, ...]
    left: tuple[Queued, ...]
    waiting: tuple[Candidate, ...]


def source_of(spec: ModelSpec, stream: Stream) -> Source:
    """Return the declared source of a stream that has one."""
    source = spec.source.of(stream)
    if source is None:
        raise ValueError(f"{spec.model} has no source of {stream}")
    return source


def find_work(
    store: Store,
    spec: ModelSpec,
    project: Path,
    now: dt.datetime,
    max_files: int | None,
    poll: PollSource,
    again: Sequence[Queued] = (),
    written_by: Mapping[Stream, dt.datetime] | None = None,
) -> Work:
    """List what is to be ingested.

    Rows that are in the log already come first and always; files that failed before come last,
    so that they hold up nobody; the rest by age, with the refused rows that are read again.
    """
    queue = list(again)
    reports: list[FileReport] = []
    waiting: list[Candidate] = []
    for stream in STREAMS:
        if stream == "actuals" and not spec.has_actuals:
            continue
        source = source_of(spec, stream)
        if not isinstance(source, FileSource):
            reports += poll(store, spec, stream, source, project, now)
        found, told, unsettled = _find_stream_work(
            store, spec, stream, project, now, (written_by or {}).get(stream)
        )
        queue += found
        reports += told
        waiting += unsettled
    queue.sort(key=lambda item: (not item.is_in_log, item.attempts > 1, item.order))
    n_certain = sum(item.is_in_log for item in queue)
    limit = len(queue) if max_files is None else max(max_files, n_certain)
    return Work(tuple(queue[:limit]), tuple(reports), tuple(queue[limit:]), tuple(waiting))


def may_have_work(store: Store, spec: ModelSpec, project: Path, now: dt.datetime) -> bool:
    """Tell whether an ingest of a model might find anything to do or to tell, and touch nothing.

    Where only asking tells, as of tables, topics, spans and what other assets write, it might.
    """
    if spec.spans is not None or spec.source.assets():
        return True
    for stream in STREAMS:
        if stream == "actuals" and not spec.has_actuals:
            continue
        source, reading = source_of(spec, stream), reading_of(spec, stream)
        if not isinstance(source, FileSource):
            return True
        if manifest.load_files(store.state, spec.model, stream, status=UNFINISHED):
            return True
        if _due_again(store, spec, stream, reading, now):
            return True
        seen = manifest.load_paths(store.state, spec.model, stream)
        known = {name: path.look for name, path in seen.items()}
        found = list_landing(
            project, source, stream, known, store.storage_options, clock=store.machine_clock
        )
        if found.ready or found.waiting or found.skipped or found.unreadable:
            return True
    return False


def _find_stream_work(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    project: Path,
    now: dt.datetime,
    written_by: dt.datetime | None,
) -> tuple[list[Queued], list[FileReport], tuple[Candidate, ...]]:
    unfinished = {
        row["sha256"]: row
        for row in manifest.load_files(store.state, spec.model, stream, status=UNFINISHED)
    }
    seen = manifest.load_paths(store.state, spec.model, stream)
    known = {name: path.look for name, path in seen.items() if path.sha256 not in unfinished}
    source = source_of(spec, stream)
    listing = (
        list_landing(
            project, source, stream, known, store.storage_options, written_by, store.machine_clock
        )
        if isinstance(source, FileSource)
        else Listing()
    )
    folder = staging_folder(store, spec.model, stream)
    clear_staging(folder, unfinished)
    committed = store.event_log(spec).committed(stream, list(unfinished)) if unfinished else set()
    resumed = {
        sha: _queue_row(stream, unfinished[sha], copy, is_in_log=sha in committed)
        for sha, copy in _find_copies(store, spec, folder, unfinished.keys()).items()
    }
    landing = {c.name: c for c in (*listing.ready, *listing.waiting)}
    reports = _report_listing(listing, stream)
    for sha, row in unfinished.items():
        place = landing.get(row["path"])
        is_gone = sha not in resumed and not (place and _find_seen(place, seen) == sha)
        if is_gone and sha in committed:
            resumed[sha] = _queue_row(stream, row, None, is_in_log=True)
        elif is_gone and row["status"] != "missing":
            reports.append(_mark_missing(store, spec, stream, row))
    taken = {(item.name, *_stamp(item.staged)) for item in resumed.values()}
    queue = list(resumed.values())
    for candidate in listing.ready:
        if (candidate.name, candidate.size, candidate.mtime_ns) not in taken:
            item = Queued(
                stream, candidate.name, candidate.size, (candidate.mtime_ns, candidate.name), now,
                candidate=candidate,
            )  # fmt: skip
            queue.append(item.as_noted(unfinished.get(_find_seen(candidate, seen))))
    return queue, reports, listing.waiting


def _find_seen(candidate: Candidate, seen: Mapping[str, manifest.SeenPath]) -> str:
    """Return the content that a landing file had when it last looked like this; "" if never."""
    path = seen.get(candidate.name)
    return path.sha256 if path is not None and path.look == candidate.look else ""


def _find_copies(
    store: Store, spec: ModelSpec, folder: Path, unfinished: Set[str]
) -> dict[str, Path]:
    """Return the private copies of files: an interrupted run left them, or they were refused."""
    found = {sha: copy for sha in unfinished if (copy := find_staged(folder, sha)) is not None}
    lost = unfinished - found.keys()
    refused = kept_rows.locate_folder(store, spec.model)
    for name in refused.below() if lost else []:
        sha, ending = name.split(".")[0], ending_of(name)
        if sha in lost and name == f"{sha}{ending}":
            folder.mkdir(parents=True, exist_ok=True)
            # A copy that was damaged is of no use; the landing file is looked for instead.
            if (refused / name).fetch(folder / name) == sha:
                found[sha] = folder / name
            else:
                (folder / name).unlink()
                (refused / name).delete()
    return found


def moment_of(row: FileRow) -> dt.datetime:
    """Return the moment that a file is read under: it came, or it was let be read again."""
    return row["again_at"] or row["first_seen"]


def _queue_row(stream: Stream, row: FileRow, copy: Path | None, *, is_in_log: bool) -> Queued:
    size, mtime_ns = row["size_bytes"], row["mtime_ns"]
    return Queued(
        stream=stream,
        name=row["path"],
        size=size,
        order=(mtime_ns, row["path"]),
        first_seen=moment_of(row),
        attempts=row["attempts"],
        is_in_log=is_in_log,
        staged=Staged(stream, row["path"], copy, row["sha256"], size, mtime_ns),
        error=row["error"],
    )


def _stamp(staged: Staged | None) -> tuple[int, int]:
    return (-1, -1) if staged is None else (staged.size, staged.mtime_ns)


def _report_listing(listing: Listing, stream: Stream) -> list[FileReport]:
    waiting = [
        FileReport(
            stream, c.name, "waiting",
            message=f"{c.name}: changed {max(c.age, 0):.0f} s ago and may not be complete. "
            "It is read once it has settled, or has a .done file next to it.",
        )
        for c in listing.waiting
    ]  # fmt: skip
    skipped = [
        FileReport(stream, name, "skipped", message=f"{name}: not read, since {why}.")
        for name, why in listing.skipped
    ]
    unreadable = [report_unreadable(stream, name, why) for name, why in listing.unreadable]
    return waiting + skipped + unreadable


def report_unreadable(stream: Stream, name: str, why: str) -> FileReport:
    """Report a landing file, or a folder, that cannot be read; it is tried at each ingest."""
    message = file_message(name, "no_access", f"it cannot be read ({why}).")
    return FileReport(stream, name, "failed", reason="no_access", message=message)


def _mark_missing(store: Store, spec: ModelSpec, stream: Stream, row: FileRow) -> FileReport:
    is_polled = row["path"].startswith(("sql:", "delta:", "kafka:"))
    next_step = "Its rows are read again." if is_polled else "Write it again if it is needed."
    message = f"{row['path']}: vanished before it was ingested. {next_step}"
    with store.state.begin() as conn:
        manifest.update_file(
            conn, spec.model, stream, row["sha256"], status="missing", error=message
        )
    return FileReport(stream, row["path"], "missing", row["sha256"], "missing", message)


def reopen(
    store: Store, spec: ModelSpec, stream: Stream, project: Path, now: dt.datetime, *, all_: bool
) -> tuple[int, list[Queued]]:
    """Let what was refused under other declarations be read again.

    Args:
        store: The store.
        spec: The model.
        stream: What the files hold.
        project: The folder that paths of landing files are relative to.
        now: The moment that event times may not lie ahead of.
        all_: Everything that was refused, not only under other declarations.

    Returns:
        How many refused files were opened, and the files whose refused rows are to be read.
    """
    reading = reading_of(spec, stream)
    due = _due_again(store, spec, stream, reading, now, all_=all_)
    whole = [row for row in due if row["status"] == "quarantined"]
    if whole:
        copies = {name.split(".")[0] for name in kept_rows.locate_folder(store, spec.model).below()}
    n_opened = 0
    for row in whole:
        # A copy that an erasure or retention removed cannot be read; its landing file may be.
        is_there = row["sha256"] in copies or "://" in row["path"]
        if is_there or (project / row["path"]).is_file():
            open_again(store, spec, row, now)
            n_opened += 1
        else:
            _note(store, spec, stream, row["sha256"], read_with=reading)
    rows = [
        _queue_again(stream, row, reading, now) for row in due if row["status"] != "quarantined"
    ]
    return n_opened, rows


def _due_again(
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    reading: str,
    now: dt.datetime,
    *,
    all_: bool = False,
) -> list[FileRow]:
    """Return the files of which something refused is to be read again: the spec changed, or time.

    When the events of rows that lie ahead of now are is not kept, so these are tried again at
    longer and longer intervals. A clock that was behind refuses rows, too.
    """
    refused = manifest.load_refused_files(store.state, spec.model, stream)
    ahead = manifest.load_refused_as_ahead(store.state, spec.model, stream) if refused else {}
    return [
        row
        for row in refused
        if all_
        or row["read_with"] != reading
        or row["again_at"] is not None
        or _is_time_again(row["first_seen"], ahead.get(row["sha256"]), now)
    ]


def _is_time_again(seen: dt.datetime, refused: dt.datetime | None, now: dt.datetime) -> bool:
    if refused is None:
        return False
    return now - refused >= max(AHEAD_AGAIN[0], min(refused - seen, AHEAD_AGAIN[1]))


def open_again(store: Store, spec: ModelSpec, row: FileRow, now: dt.datetime) -> None:
    """Make a refused file one that is still to be ingested; its copy stays until it is."""
    with store.state.begin() as conn:
        manifest.forget_refused(conn, spec.model, row["stream"], row["sha256"])
        manifest.update_file(
            conn, spec.model, row["stream"], row["sha256"], status="discovered", reason="",
            error="", attempts=0, rows_in=0, n_bad=0, again_at=now, finished_at=None,
        )  # fmt: skip


def _queue_again(stream: Stream, row: FileRow, reading: str, now: dt.datetime) -> Queued:
    # What a crash interrupted goes on as it began, unless it is read differently by now.
    again = row["again_at"] if row["read_with"] == reading else None
    item = _queue_row(stream, row, None, is_in_log=False)
    moment = now if again is None else again
    return replace(item, first_seen=moment, error="", kept=row["kept"], arrived=row["finished_at"])


def stage_again(store: Store, spec: ModelSpec, item: Queued) -> Queued | None:
    """Write the refused rows of a file into the staging folder; None if none are kept any more."""
    assert item.staged is not None
    kept = kept_rows.read_rows(kept_rows.locate_folder(store, spec.model) / item.kept)
    if kept is None:
        reading = reading_of(spec, item.stream)
        _note(
            store, spec, item.stream, item.staged.sha256, kept="", again_at=None, read_with=reading
        )
        return None
    staged = replace(
        item.staged, again=Again(kept, item.first_seen, item.arrived or item.first_seen)
    )
    folder = staging_folder(store, spec.model, item.stream)
    folder.mkdir(parents=True, exist_ok=True)
    # Without the landing file's ending, which may promise a compression that this one has not.
    path = folder / f"{staged.log_id}.again"
    kept.write_as_landed(path)
    return item.with_copy(replace(staged, path=path, size=path.stat().st_size))


def replay_file(store: Store, spec: ModelSpec, sha256: str, *, now: dt.datetime) -> str:
    """Let a refused file, or the refused rows of one, be read by the next ingest once more.

    Args:
        store: The store.
        spec: The model, as corrected.
        sha256: The file's content hash, or its beginning.
        now: The moment that its event times may not lie ahead of.

    Returns:
        The file's name.

    Raises:
        ConfigError: If no such file, or more than one, begins with that hash.
    """
    with writer_lock(store.state, f"ingest/{spec.model}"):
        rows = [
            row
            for stream in ("predictions", "actuals")
            for row in manifest.load_refused_files(store.state, spec.model, stream)
            if row["sha256"].startswith(sha256)
        ]
        if len(rows) != 1 or not sha256:
            raise ConfigError(
                f"{len(rows)} files of {spec.model} with something refused have a hash that begins "
                f"with {sha256!r}; expected exactly one. They are named by their hash in "
                f"{kept_rows.locate_folder(store, spec.model)}."
            )
        if rows[0]["status"] == "quarantined":
            open_again(store, spec, rows[0], now)
        else:
            _note(store, spec, rows[0]["stream"], rows[0]["sha256"], read_with="")
    return str(rows[0]["path"])


def _note(store: Store, spec: ModelSpec, stream: str, sha256: str, **values: object) -> None:
    with store.state.begin() as conn:
        manifest.update_file(conn, spec.model, stream, sha256, **values)
