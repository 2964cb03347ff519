"""The manifest's part of an ingest: admit files, quarantine them, record failures."""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlmon_dagster.errors import MlmonError, SchemaError
from mlmon_dagster.ingest.commit import letter_rows
from mlmon_dagster.ingest.declared_columns import reading_of
from mlmon_dagster.ingest.landing import ending_of
from mlmon_dagster.ingest.queue import Queued
from mlmon_dagster.ingest.raw import refused
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.rows.judge import TooManyBadError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.manifest import UNFINISHED
from mlmon_dagster.store.tables import kept_rows

MAX_FAILURES: Final = 3  # recorded exceptions
MAX_ATTEMPTS: Final = 10  # begun and never ended, as when the machine runs out of memory
_MARK = "attempt "


@dataclass(frozen=True)
class Refusals:
    """Writes what becomes of files that are not simply ingested."""

    store: Store
    spec: ModelSpec
    now: dt.datetime
    run_id: str = ""

    def admit(
        self, items: Sequence[Queued], reports: list[FileReport]
    ) -> tuple[list[Queued], list[Queued]]:
        """Note staged files as being loaded, in one transaction.

        Contents that are settled already are only reported; files that ended the program too
        often are quarantined.

        Returns:
            The files to go on with, and those with the content of one of them, for later.
        """
        admitted: dict[str, Queued] = {}
        twins = []
        known = self._rows(items)
        for item in items:
            assert item.staged is not None
            if item.kept:
                admitted[item.staged.log_id] = item
                continue
            row = known.get(item.staged.sha256, {})
            if item.staged.sha256 in admitted:
                twins.append(item.without_copy())
            elif row and not _is_open(row, item):
                reports.append(self._known(item, row))
            else:
                admitted[item.staged.sha256] = item.as_noted(row)
        self._note(list(admitted.values()))
        reached("ingest.admitted")
        crashing = [i for i in admitted.values() if i.attempts >= MAX_ATTEMPTS and not i.is_in_log]
        for item in crashing:
            found = f"the program ended {item.attempts} times while it read this file."
            reports.append(self.quarantine(item, refused(item.name, "failed", found)))
        return [item for item in admitted.values() if item not in crashing], twins

    def quarantine(self, item: Queued, error: SchemaError) -> FileReport:
        """Refuse a whole file: keep a copy, say why, and leave it until it is read differently."""
        assert item.staged is not None
        if item.kept:
            return self._leave(item, error.reason, str(error))
        letters = error.letters if isinstance(error, TooManyBadError) else ()
        n_rows = error.n_rows if isinstance(error, TooManyBadError) else 0
        report = FileReport(
            item.stream, item.name, "quarantined", item.staged.sha256, error.reason, str(error),
            rows_in=n_rows, n_bad=n_rows,
            bad_rows=error.examples if isinstance(error, TooManyBadError) else (),
        )  # fmt: skip
        self._keep_copy(item)
        key = (self.spec.model, item.stream, item.staged.sha256)
        with self.store.state.begin() as conn:
            manifest.forget_refused(conn, *key)
            manifest.refuse_rows(conn, letter_rows(conn, self.spec, report, letters, self.now))
            manifest.update_file(
                conn, *key, status="quarantined", reason=error.reason, error=str(error),
                rows_in=n_rows, n_bad=n_rows, n_new=0, n_duplicate=0, n_conflict=0, attempts=0,
                again_at=None, finished_at=self.now, read_with=reading_of(self.spec, item.stream),
            )  # fmt: skip
        if item.staged.path is not None:
            item.staged.path.unlink(missing_ok=True)
        return report

    def fail(self, item: Queued, error: Exception) -> FileReport:
        """Record an unexpected exception; the third one quarantines the file."""
        assert item.staged is not None
        count = item.error.count(_MARK) + 1
        text = _described(error)
        if item.kept:
            return self._leave(item, "failed", f"{item.name}: {text}.")
        run = f" in run {self.run_id}" if self.run_id else ""
        errors = "\n".join(filter(None, [item.error, f"{_MARK}{count}{run}: {text}"]))
        if count >= MAX_FAILURES and not item.is_in_log:
            found = f"{count} attempts to read it failed, the last with {text}."
            return self.quarantine(item, refused(item.name, "failed", found))
        self._update(item, error=errors)
        message = f"{item.name}: {text}. It is tried again at the next ingest."
        return FileReport(item.stream, item.name, "failed", item.staged.sha256, "failed", message)

    def _leave(self, item: Queued, reason: str, why: str) -> FileReport:
        """Leave refused rows that cannot be read again where they are kept."""
        assert item.staged is not None
        self._update(item, again_at=None, attempts=0, read_with=reading_of(self.spec, item.stream))
        if item.staged.path is not None:
            item.staged.path.unlink(missing_ok=True)
        message = (
            f"{why} Its refused rows stay as they are, and are read again once the spec changes, "
            "or with --retry."
        )
        return FileReport(
            item.stream, item.name, "failed", item.staged.sha256, reason, message, is_again=True
        )

    def postpone(self, item: Queued, error: SchemaError) -> FileReport:
        """Forget a file that looks unfinished, so that it is looked at again."""
        assert item.staged is not None
        self._update(item, attempts=0, status="missing")
        if item.staged.path is not None:
            item.staged.path.unlink(missing_ok=True)
        message = f"{error} It is given more time to be completed."
        return FileReport(
            item.stream, item.name, "waiting", item.staged.sha256, error.reason, message
        )

    def _rows(self, items: Sequence[Queued]) -> dict[str, dict[str, object]]:
        """Return what the manifest says of the contents of some files of one stream."""
        shas = [item.staged.sha256 for item in items if item.staged is not None]
        if not shas:
            return {}
        stream = items[0].stream
        found = manifest.file_rows(self.store.state, self.spec.model, stream, shas=shas)
        return {row["sha256"]: row for row in found}

    def _note(self, items: Sequence[Queued]) -> None:
        for item in items:
            if item.kept:
                self._update(
                    item, again_at=item.first_seen, attempts=item.attempts + 1,
                    read_with=reading_of(self.spec, item.stream),
                )  # fmt: skip
        items = [item for item in items if not item.kept]
        if not items:
            return
        stream = items[0].stream
        rows: list[dict[str, object]] = []
        paths: dict[str, manifest.SeenPath] = {}
        for item in items:
            assert item.staged is not None
            rows.append(
                {
                    "model": self.spec.model,
                    "stream": stream,
                    "sha256": item.staged.sha256,
                    "path": item.name,
                    "size_bytes": item.staged.size,
                    "mtime_ns": item.staged.mtime_ns,
                    "first_seen": item.first_seen,
                }
            )
            paths |= self._seen(item)
        begun = [
            {"sha256": row["sha256"], "path": row["path"], "attempts": item.attempts + 1}
            for row, item in zip(rows, items, strict=True)
        ]
        with self.store.state.begin() as conn:
            manifest.discover(conn, rows)
            manifest.update_files(conn, self.spec.model, stream, begun, status="loading")
            manifest.note_paths(conn, self.spec.model, stream, paths)

    def _seen(self, item: Queued) -> dict[str, manifest.SeenPath]:
        """Return what was seen of a landing file, by its path."""
        if item.candidate is None or item.staged is None:
            return {}  # a copy that an earlier run made, and noted with what it saw of the file
        staged = item.staged
        seen = manifest.SeenPath(staged.size, staged.mtime_ns, staged.sha256, staged.mark)
        return {item.name: seen}

    def _known(self, item: Queued, row: dict[str, Any]) -> FileReport:
        """Report a file whose content was settled under this or another name."""
        assert item.staged is not None
        with self.store.state.begin() as conn:
            manifest.note_paths(conn, self.spec.model, item.stream, self._seen(item))
        if item.staged.path is not None:
            item.staged.path.unlink(missing_ok=True)
        if row["status"] == "quarantined":
            message = str(row["error"]).replace(row["path"], item.name)
            return FileReport(
                item.stream, item.name, "quarantined", item.staged.sha256, row["reason"], message
            )
        message = f"{item.name}: the content of {row['path']}, known already; nothing to do."
        if row["kept"]:
            message += (
                f" {row['n_bad']:,} of its rows were refused and are kept: correct the spec, or "
                "write the corrected rows into another file."
            )
        return FileReport(item.stream, item.name, "duplicate", item.staged.sha256, "", message)

    def _update(self, item: Queued, **values: object) -> None:
        assert item.staged is not None
        with self.store.state.begin() as conn:
            manifest.update_file(conn, self.spec.model, item.stream, item.staged.sha256, **values)

    def _keep_copy(self, item: Queued) -> None:
        if item.staged is None or item.staged.path is None:
            return
        name = f"{item.staged.sha256}{ending_of(item.name)}"
        (kept_rows.folder_of(self.store, self.spec.model) / name).keep(item.staged.path)


def _is_open(row: dict[str, Any], item: Queued) -> bool:
    """Say whether a content in the manifest is still to be ingested."""
    if row["status"] == "quarantined":
        # Another ending may be another format: the file was renamed to what it is.
        return ending_of(row["path"]) != ending_of(item.name)
    return row["status"] in UNFINISHED


def _described(error: Exception) -> str:
    """Say what failed and where; the message of an unforeseen error may quote a value of a row."""
    kind = type(error).__name__
    if isinstance(error, MlmonError):
        return " ".join(f"{kind}: {error}".split())[:500]
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mlmon_dagster" in frame.filename] or frames
    at = f" at {Path(ours[-1].filename).stem}:{ours[-1].lineno}" if ours else ""
    return f"{kind}{at}"
