"""Whether the tables of a model and the state database are of one moment.

Either may be restored without the other, and each looks whole by itself. So both hold a mark that
changes before anything is written to both: one of the two alone cannot go back, or go on, without
the marks being different. The new mark is announced beside the tables, then noted in the database,
then made the only one beside the tables; killed in between, the database has one of the two.

The database also knows a commit of each table, noted in the transaction that says what the table
holds: one table that was restored alone lacks it, or has another commit of that number.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import STREAMS
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.schema import store_mark
from mlmon_dagster.store.state.sql import Bind, fetch_row, fetch_rows, fetch_values, upsert
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.store import Store, refuse_half_restored
from mlmon_dagster.store.tables.delta import NEWEST, why_commit_is_bad

FOLDER: Final = "moments"
_COMMON: Final = ""  # the place of the mark that both have; other places are tables


@dataclass(frozen=True)
class Moment:
    """A mark: which one it is of all that a model had, what tells it from others, and since when.

    Attributes:
        number: Counted up; of two that differ the lower one is older.
        key: Random.
        since: ISO 8601; for people, nothing is decided by it.
    """

    number: int
    key: str
    since: str

    def text(self) -> str:
        """Return it as one line."""
        return f"{self.number} {self.key} {self.since}"


# What stands beside the first moment until the database has it: before it there was none.
_NOTHING: Final = Moment(0, "none", "-")


def _make_moment(number: int, now: datetime) -> Moment:
    return Moment(number, secrets.token_hex(8), now.isoformat(timespec="seconds"))


def _parse_moment(text: str) -> Moment:
    number, key, since = text.split(" ", 2)
    return Moment(int(number), key, since)


@dataclass(frozen=True)
class _Marks:
    """What the database holds, by place, and what is beside the tables.

    Attributes:
        noted: Place -> mark.
        beside: The moments beside the tables: none, one, or one and the announced next one.
    """

    noted: Mapping[str, str]
    beside: tuple[Moment, ...]

    @property
    def common(self) -> Moment | None:
        """The moment that the database holds."""
        text = self.noted.get(_COMMON)
        return None if text is None else _parse_moment(text)

    @property
    def are_different(self) -> bool:
        """Whether the database has none of the moments beside the tables."""
        is_new = self.common is None and (not self.beside or _NOTHING in self.beside)
        return not is_new and self.common not in self.beside


def check_tables(store: Store, spec: ModelSpec) -> None:
    """Refuse tables of a model that are not those that the state database is about.

    New files would be taken in beside rows that are elsewhere, and old ones never again. A log in
    object storage is not looked for.

    Raises:
        StoreError: If there are none, they are of another moment, or a restore was killed.
    """
    refuse_half_restored(store.folder)
    for stream in STREAMS:
        table = store.event_log(spec).folders[stream].path
        if not table.is_local or (table.path / "_delta_log").is_dir():
            continue
        if manifest.has_rows(store.state, spec.model, stream):
            raise StoreError(
                f"The state database has files of {spec.model!r}, but {table} with their "
                f"{stream} is not there. Is the store's disk mounted, and do "
                "MLMON_PROJECT, MLMON_STORE and MLMON_DB_URL belong together? Two projects "
                "with a model of one name need two databases. If the store is lost, restore a "
                "backup, or read the landing files again: mlmon store repair "
                f"{spec.model}. Until then the model is not read or rebuilt."
            )
    check_moment(store, spec.model)


def check_moment(store: Store, model: str) -> None:
    """Refuse tables and a state database that are not of the same moment.

    Costs one statement, and the reading of a small file and of one commit a table.

    Raises:
        StoreError: If they are not, with the command that puts it right.
    """
    if found := find_difference(store, model):
        raise StoreError(
            f"{found} Restore both from one backup; or run mlmon store repair {model}, then "
            f"mlmon run {model}: missing rows are read again from the other and from the "
            "landing files. Until then the model is not read or computed."
        )


def find_difference(store: Store, model: str) -> str:
    """Say how the tables of a model and the state database differ in time; nothing if not."""
    if not _describe_difference(store, model, _load_marks(store.state, store, model)):
        return ""
    # Another process may have changed both meanwhile; no process does within this transaction.
    with store.state.begin() as conn:
        return _describe_difference(store, model, _load_marks(conn, store, model, is_locking=True))


def find_other_tables(store: Store, model: str) -> dict[str, str]:
    """Return the places of tables that lack a commit that the database knows, and how."""
    return _find_other_tables(store, _load_marks(store.state, store, model))


def _find_other_tables(store: Store, marks: _Marks) -> dict[str, str]:
    tables = ((place, mark) for place, mark in sorted(marks.noted.items()) if place != _COMMON)
    return {
        place: why for place, mark in tables if (why := _describe_other(store.root / place, mark))
    }


def _describe_difference(store: Store, model: str, marks: _Marks) -> str:
    if marks.are_different:
        return _describe(model, marks.common, marks.beside)
    for place, why in _find_other_tables(store, marks).items():
        return (
            f"The rows of {place} in the store are not of the same moment as the state database: "
            f"{why}, as after they were restored alone."
        )
    return ""


def _describe(model: str, common: Moment | None, beside: Sequence[Moment]) -> str:
    if common is None:
        found = "the tables have a history that the database does not know"
        which = "the database was lost, or replaced by another or an older one"
    elif not beside:
        found = f"the database knows them since {common.since}, and they have no history"
        which = "they were lost, or replaced"
    else:
        found = f"the tables are of {beside[-1].since}, the database is of {common.since}"
        older = "database" if beside[-1].number > common.number else "tables"
        which = (
            "each was used with another copy of the other one"
            if beside[-1].number == common.number
            else f"the {older} alone went back to a copy"
        )
    return (
        f"The tables of {model!r} and the state database are not of the same moment: {found}. "
        f"It seems that {which}."
    )


def _describe_other(table: Location, mark: str) -> str:
    """Say how a table lacks a commit that the database knows; nothing if it has it."""
    number, _, digest = mark.partition(" ")
    try:
        content = _commit(table, int(number)).read()
    except NotADirectoryError:
        return ""  # something is in the table's way, which is said by whoever opens it
    if content is not None:
        same = hashlib.sha256(content).hexdigest() == digest
        # One that is damaged is named, with what mends it, by whoever opens the table.
        if same or why_commit_is_bad(content):
            return ""
        return f"its version {number} is another one than the database knows"
    # Old commits are tidied away once a checkpoint stands for them.
    pointer = (table / "_delta_log" / "_last_checkpoint").read()
    try:
        newest = -1 if pointer is None else int(json.loads(pointer)["version"])
    except (ValueError, LookupError, TypeError):
        newest = -1
    return "" if newest >= int(number) else f"it has no version {number}, which the database knows"


def _commit(table: Location, number: int) -> Location:
    return table / "_delta_log" / f"{number:020}.json"


def begin_moment(store: Store, model: str, now: datetime) -> None:
    """Let a new moment begin, before rows are written that both tables and database know of.

    Where the two differ already it stays so, until a repair.
    """
    place = _locate_mark(store, model)
    with store.state.begin() as conn:
        marks = _load_marks(conn, store, model, is_locking=True)
        if marks.are_different:
            return
        before = marks.common
        moment = _make_moment(before.number + 1 if before else 1, now)
        _write_moments(place, [before or _NOTHING, moment])
        reached("moment.announced")
        upsert(conn, store_mark, [{"model": model, "place": _COMMON, "mark": moment.text()}])
    reached("moment.noted")
    with store.state.begin() as conn:
        # Another process may have begun a later one.
        if _load_marks(conn, store, model, is_locking=True).common == moment:
            _write_moments(place, [moment])
    reached("moment.begun")


def join_moments(store: Store, model: str, now: datetime) -> None:
    """Take tables and database as they are now for one moment, after a repair or a restore."""
    with store.state.begin() as conn:
        known = _load_marks(conn, store, model, is_locking=True)
        last = max((m.number for m in (known.common, *known.beside) if m), default=0)
        moment = _make_moment(last + 1, now)
        conn.execute(sa.delete(store_mark).where(store_mark.c.model == model))
        conn.execute(sa.insert(store_mark).values(model=model, place=_COMMON, mark=moment.text()))
        _write_moments(_locate_mark(store, model), [moment])


def models_with_moments(store: Store) -> list[str]:
    """Return the models of which the database, or the folder of the tables, has a moment."""
    known = set(fetch_values(store.state, sa.select(store_mark.c.model).distinct()))
    return sorted(known | {name.partition("/")[0] for name in (store.root / FOLDER).below()})


def note_commits(conn: sa.Connection, store: Store, model: str, tables: Sequence[Location]) -> None:
    """Note the newest commits of some tables, in the transaction that says what they hold."""
    rows = []
    for table in tables:
        if (found := NEWEST.find_commit(table)) is not None:
            place = table.url.removeprefix(f"{store.root.url}/")
            rows.append({"model": model, "place": place, "mark": f"{found[0]} {found[1]}"})
    upsert(conn, store_mark, rows)


def _locate_mark(store: Store, model: str) -> Location:
    return store.root / FOLDER / model / "moment.json"


def _write_moments(place: Location, moments: Sequence[Moment]) -> None:
    place.write(json.dumps([moment.text() for moment in moments]).encode())


def _load_marks(bind: Bind, store: Store, model: str, *, is_locking: bool = False) -> _Marks:
    c = store_mark.c
    if is_locking and bind.dialect.name == "postgresql":
        # SQLite lets one process write at a time; here a row has to be there to be locked.
        fetch_row(
            bind, sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"moment/{model}")))
        )
    query = sa.select(c.place, c.mark).where(c.model == model)
    noted = {row.place: row.mark for row in fetch_rows(bind, query)}
    place = _locate_mark(store, model)
    content = place.read()
    try:
        beside = [] if content is None else [_parse_moment(text) for text in json.loads(content)]
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{place} cannot be read: {error}. It says whether tables and state database belong "
            f"together. Restore both from one backup, or delete it and run mlmon store repair "
            f"{model}."
        ) from error
    return _Marks(noted, tuple(beside))
