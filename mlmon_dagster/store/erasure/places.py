"""Where rows of some ids are, and what removes them from each table."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.erasure.numbers import trace_of
from mlmon_dagster.store.erasure.proof import file_holds
from mlmon_dagster.store.erasure.tables import Purge, count_rows
from mlmon_dagster.store.places.local import LocalPlace
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import erased_ids, schema
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.tables import kept_rows

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


@dataclass(frozen=True)
class Places:
    """Where rows of some ids are.

    Attributes:
        rows: Place -> rows of the newest version: predictions, actuals, records, dead_letter, and
            refused_rows, which are kept to be read again.
        copies: Where private copies of landing files are that hold an id.
        landing: Names of the landing files that rows came from; they are never touched.
        n_windows: Windows with such predictions.
    """

    rows: dict[str, int]
    copies: tuple[str, ...]
    landing: tuple[str, ...]
    n_windows: int

    @property
    def counts(self) -> dict[str, int]:
        """Counts only, fit to be kept."""
        return {**self.rows, "copies": len(self.copies), "windows": self.n_windows}


def look(store: Store, spec: ModelSpec, ids: Sequence[str], dataset: str = ALL) -> Places:
    """Count what an erasure would remove; nothing is changed."""
    with store.state.begin() as conn:
        salt = erased_ids.salt_of(conn, spec.model)
    hashes = [(dataset, erased_ids.id_hash(salt, id_)) for id_ in dict.fromkeys(ids)]
    purges = purges_of(store, spec, salt, hashes)
    names = ("predictions", "actuals", "records")
    rows = {name: count_rows(store, purges[name]) for name in names}
    with store.state.connect() as conn:
        rows["dead_letter"] = sum(
            conn.scalar(sa.select(sa.func.count()).where(*letters_of(spec, h))) or 0
            for _, h in hashes
        )
    rows["refused_rows"] = kept_rows.count_of_ids(
        store, spec.model, {h for _, h in hashes}, list(ids)
    )
    trace = trace_of(store, spec, purges["predictions"])
    return Places(
        rows,
        tuple(map(str, copies_with(store, spec, ids))),
        _landing_files(store, spec, purges),
        len(trace.windows),
    )


def purges_of(
    store: Store, spec: ModelSpec, salt: str, hashes: Sequence[tuple[str, str]]
) -> dict[str, Purge]:
    """Return what to remove from the tables of rows, by name."""
    log, records = store.event_log(spec).folders, store.inference_records(spec).folder
    named = erased_ids.hash_table(hashes)
    hashed = erased_ids.Erased(salt, named).hash_sql("t")
    elsewhere = _elsewhere(store, log["predictions"].snapshot(), named, hashed)
    everywhere = pa.array([d == ALL or h not in elsewhere for d, h in hashes], pa.bool_())
    tables = {"erased": named.append_column("everywhere", everywhere)}
    known = f"{hashed} IN (SELECT id_hash FROM erased)"

    def condition(test: str) -> str:
        one = f"SELECT 1 FROM erased AS e WHERE e.id_hash = {hashed} AND ({test})"
        return f"({known} AND EXISTS ({one}))"

    mine = condition(f"e.dataset IN ({literal(ALL)}, t.dataset)")
    # Ground truth and moves that name no dataset stay as long as another dataset has the id.
    orphaned = condition("e.dataset = t.dataset OR e.everywhere")
    return {
        "predictions": Purge(log["predictions"], mine, tables),
        "actuals": Purge(log["actuals"], orphaned, tables),
        "moved_ids": Purge(log["moved_ids"], condition("e.everywhere"), tables),
        "records": Purge(records, mine, tables),
    }


def _elsewhere(store: Store, snapshot: Any, named: pa.Table, hashed: str) -> set[str]:
    """Return the hashes, named for one dataset, of ids that another dataset has as well."""
    if snapshot is None or set(named.column("dataset").to_pylist()) <= {ALL}:
        return set()
    found = store.query(
        f"SELECT DISTINCT e.id_hash FROM {snapshot.from_sql()} AS t JOIN erased AS e "
        f"ON e.id_hash = {hashed} WHERE e.dataset <> t.dataset",
        {"erased": named},
    )
    return set(found.column(0).to_pylist())


def letters_of(spec: ModelSpec, id_hash: str) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on the dead letters of an id."""
    return [schema.dead_letter.c.model == spec.model, schema.dead_letter.c.id_hash == id_hash]


def copies_with(store: Store, spec: ModelSpec, ids: Sequence[str] | None) -> list[Location]:
    """Return private copies that hold an id; all of them where the ids are not known any more.

    Not those of refused rows, out of which `kept_rows` takes single ones.
    """
    places = [
        kept_rows.folder_of(store, spec.model),
        LocalPlace(f"{store.folder}/staging/{spec.model}"),
    ]
    rows = {place.url for place in kept_rows.places_of(store, spec.model)}
    found = [place / name for place in places for name in place.below()]
    copies = [copy for copy in found if copy.url not in rows]
    if ids is None:
        return copies
    return [copy for copy in copies if ids and _holds(store, copy, ids)]


def _holds(store: Store, copy: Location, ids: Sequence[str]) -> bool:
    if copy.is_local:
        return file_holds(copy.path, ids)
    with tempfile.TemporaryDirectory(dir=store.folder) as folder:
        fetched = Path(folder) / "copy"
        copy.fetch(fetched)
        return file_holds(fetched, ids)


def _landing_files(store: Store, spec: ModelSpec, purges: dict[str, Purge]) -> tuple[str, ...]:
    shas: set[str] = set()
    for name in ("predictions", "actuals"):
        snapshot = purges[name].folder.snapshot()
        if snapshot is not None and snapshot.files:
            found = store.query(
                f"SELECT DISTINCT t.file_sha FROM {snapshot.from_sql()} AS t "
                f"WHERE {purges[name].condition}",
                purges[name].tables,
            )
            # Rows that were refused at first have a longer name, see `Staged.log_id`.
            shas |= {sha.split(".")[0] for sha in found.column(0).to_pylist()}
    table = schema.ingest_file
    query = sa.select(table.c.path).where(table.c.model == spec.model, table.c.sha256.in_(shas))
    with store.state.connect() as conn:
        return tuple(sorted({row.path for row in conn.execute(query)}))
