"""Every call of an ingest to files, tables, the database and the engine, made to fail once.

Imported by the failing processes too.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import sqlalchemy as sa
from deltalake.exceptions import DeltaError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.tables import delta
from mlmon_dagster.store.tables.engine import QueryEngine
from tests.ingest.landing import (
    credit_spec,
    files_of,
    ingest,
    letters_of,
    log_content,
    record_content,
    revisions,
)

Watch = Callable[[str], None]
_FILE_CALLS = ("open", "replace", "rename", "unlink", "mkdir", "link", "stat", "lstat", "scandir")


class Boundary:
    """Counts the calls that cross the boundary below a folder and lets one of them fail.

    Attributes:
        fail_at: The number of the call that fails, from 1; 0 for none.
        calls: The kind of each call so far.
    """

    def __init__(self, folder: Path, fail_at: int = 0) -> None:
        self._folder = str(folder)
        self.fail_at = fail_at
        self.calls: list[str] = []

    def crossed(self, kind: str, error: Callable[[], Exception]) -> None:
        """Count a call, and fail if it is the one."""
        self.calls.append(kind)
        if len(self.calls) == self.fail_at:
            raise error()

    def _file(self, name: str, path: Any) -> None:
        if str(path).startswith(self._folder) and "state.db" not in str(path):
            self.crossed(f"file {name}", lambda: OSError(5, "Input/output error", str(path)))

    @contextlib.contextmanager
    def watched(self, store: Store) -> Iterator[None]:
        """Stand between the program and files, tables, the database and the engine."""
        with contextlib.ExitStack() as undo:

            def put(owner: Any, name: str, wrapped: Any) -> None:
                undo.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, wrapped)

            for name in _FILE_CALLS:
                put(os, name, self._watching_file(name, getattr(os, name)))
            put(io, "open", self._watching_file("open", io.open))
            put(builtins, "open", io.open)
            put(delta, "write_deltalake", self._watching("table write", delta.write_deltalake))
            put(delta, "DeltaTable", self._watching_table())
            put(QueryEngine, "query", self._watching("query", QueryEngine.query))
            for event in ("before_cursor_execute", "commit"):
                undo.enter_context(self._database(store.state, event))
            yield

    def _watching_file(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self._file(name, args[0] if args else "")
            return call(*args, **options)

        return wrapped

    def _watching(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            error = DeltaError if kind.startswith("table") else StoreError
            self.crossed(kind, lambda: error(f"{kind} failed"))
            return call(*args, **options)

        return wrapped

    def _watching_table(self) -> type:
        crossed = self.crossed

        class Table(deltalake.DeltaTable):
            def __init__(self, *args: Any, **options: Any) -> None:
                crossed("table open", lambda: DeltaError("table open failed"))
                super().__init__(*args, **options)

            @classmethod
            def create(cls, *args: Any, **options: Any) -> Any:
                crossed("table create", lambda: OSError(28, "No space left on device"))
                return deltalake.DeltaTable.create(*args, **options)

        return Table

    @contextlib.contextmanager
    def _database(self, engine: sa.Engine, event: str) -> Iterator[None]:
        def listen(*_: Any) -> None:
            kind = "database commit" if event == "commit" else "database statement"
            self.crossed(
                kind, lambda: sa.exc.OperationalError(kind, {}, Exception("disk I/O error"))
            )

        sa.event.listen(engine, event, listen)
        yield
        sa.event.remove(engine, event, listen)


def left_behind(store: Store) -> dict[str, Any]:
    """Return what may not depend on the order of files: a failure lets others go first."""
    spec = credit_spec()
    files = files_of(store, spec)
    counters = ("rows_in", "n_new", "n_duplicate", "n_conflict", "n_bad")
    return {
        "log": log_content(store, spec, provenance=False),
        "records": record_content(store, spec),
        "windows": sorted(revisions(store, spec)),
        "files": [(f["stream"], f["sha256"], f["status"], f["rows_in"], f["error"]) for f in files],
        "counters": {name: sum(int(f[name]) for f in files) for name in counters},
        "letters": sorted(
            (x["sha256"], x["row_number"], x["reason"]) for x in letters_of(store, spec)
        ),
        "staging": sorted(p.name for p in (store.folder / "staging").rglob("*") if p.is_file()),
    }


def calls_of(folder: Path, land: Callable[[Path], None]) -> tuple[list[str], dict[str, Any]]:
    """Return the calls of a clean ingest, in order, and what it leaves behind."""
    land(folder / "project")
    store = open_store(folder / "store")
    boundary = Boundary(folder)
    with boundary.watched(store):
        ingest(store, credit_spec(), folder / "project")
    found = left_behind(store)
    store.close()
    return boundary.calls, found


def ingest_with_failure(folder: str, fail_at: int) -> None:
    """Ingest, with one call failing; the process then ends, whatever became of it."""
    home = Path(folder)
    store = open_store(home / "store")
    boundary = Boundary(home, fail_at)
    with contextlib.suppress(Exception), boundary.watched(store):
        ingest(store, credit_spec(), home / "project")
    (home / "reached").write_text(str(len(boundary.calls) >= fail_at))


def fails_once(
    context: Any, template: Path, folder: Path, land: Callable[[Path], None], n: int
) -> dict[str, Any]:
    """Let call n of an ingest fail, ingest again, and return what is left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder / "store")
    land(folder / "project")
    process = context.Process(target=ingest_with_failure, args=(str(folder), n))
    process.start()
    process.join()
    assert process.exitcode == 0, f"call {n}: exit {process.exitcode}"
    assert (folder / "reached").read_text() == "True", f"call {n} was not made"
    store = open_store(folder / "store")
    ingest(store, credit_spec(), folder / "project")
    found = left_behind(store)
    store.close()
    return found


def kinds_of(calls: list[str]) -> Counter[str]:
    """Count calls by kind."""
    return Counter(calls)
