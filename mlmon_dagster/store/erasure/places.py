"""Where rows of some ids are: in tables, in private copies, in notes of refused rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.erasure.numbers import Trace, trace_of
from mlmon_dagster.store.erasure.proof import in_parts, may_hold
from mlmon_dagster.store.erasure.tables import Hits, Purge, rows_of, search
from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state import erased_ids, schema
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.tables import kept_rows, spans
from mlmon_dagster.store.tables.delta import select_sql
from mlmon_dagster.store.tables.raw_search import word_finder

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


@dataclass(frozen=True)
class Search:
    """What one pass over the tables found.

    Attributes:
        purges: What removes the rows, by table: predictions, actuals, moved_ids, records, and
            traces where spans were taken in.
        hits: Which files hold them.
        trace: What numbers may still show of them.
        rare: Texts of theirs that too few other records share.
        shas: Content hashes of the landing files that they came from.
    """

    purges: Mapping[str, Purge]
    hits: Mapping[str, Hits]
    trace: Trace
    rare: frozenset[str]
    shas: frozenset[str]

    def is_current(self) -> bool:
        """Tell whether no table has changed since."""
        newest = {name: purge.folder.snapshot() for name, purge in self.purges.items()}
        return all(
            self.hits[name].version == (None if snapshot is None else snapshot.version)
            for name, snapshot in newest.items()
        )


@dataclass(frozen=True)
class Places:
    """Where rows of some ids are.

    Attributes:
        rows: Place -> rows of the newest version: predictions, actuals, records, traces (their
            spans), dead_letter, and refused_rows, which are kept to be read again.
        copies: Where private copies of landing files are that hold an id.
        landing: Names of the landing files that rows came from; they are never touched.
        n_windows: Windows with such predictions.
        search: What was found in tables.
    """

    rows: dict[str, int]
    copies: tuple[str, ...]
    landing: tuple[str, ...]
    n_windows: int
    search: Search

    @property
    def counts(self) -> dict[str, int]:
        """Counts only, fit to be kept."""
        return {**self.rows, "copies": len(self.copies), "windows": self.n_windows}


def look(store: Store, spec: ModelSpec, ids: Sequence[str], dataset: str = ALL) -> Places:
    """Count what an erasure would remove; nothing is changed."""
    with store.state.begin() as conn:
        salt = erased_ids.salt_of(conn, spec.model)
    hashes = [erased_ids.id_hash(salt, id_) for id_ in dict.fromkeys(ids)]
    named = erased_ids.hash_table([(dataset, id_hash) for id_hash in hashes])
    found = search_tables(store, spec, Erased(salt, named))
    rows = {}
    for name in ("predictions", "actuals", "records", "traces"):
        if name not in found.hits:
            continue
        files = found.hits[name].of(store, found.purges[name])
        rows[name] = sum(row["n"] for row in files.to_pylist() if row["is_live"])
    copies = copies_with(store, spec, ids)
    shas = found.shas | {copy.name.split(".")[0] for copy in copies}
    letter, rows["dead_letter"] = schema.dead_letter, 0
    with store.state.connect() as conn:
        for some in in_parts(hashes):
            mine = letters_of(spec, some)
            rows["dead_letter"] += conn.scalar(sa.select(sa.func.count()).where(*mine)) or 0
            shas |= set(conn.scalars(sa.select(letter.c.sha256).where(*mine)))
    rows["refused_rows"] = kept_rows.count_of_ids(store, spec.model, set(hashes), list(ids))
    table = schema.ingest_file
    landed = sa.select(table.c.path).where(table.c.model == spec.model, table.c.sha256.in_(shas))
    with store.state.connect() as conn:
        landing = tuple(sorted(set(conn.scalars(landed))))
    return Places(rows, tuple(map(str, copies)), landing, len(found.trace.windows), found)


def search_tables(store: Store, spec: ModelSpec, ids: Erased) -> Search:
    """Find the rows to be erased, in one pass over the files of each table."""
    log = store.event_log(spec).folders
    mine = f"e.dataset IN ({literal(ALL)}, t.dataset)"
    predictions = Purge(log["predictions"], ids, mine)
    hits = {"predictions": search(store, predictions)}
    gone = rows_of(store, predictions, hits["predictions"])
    trace = trace_of(spec, gone)
    # Ground truth and moves that name no dataset stay as long as another dataset has the id.
    ids = Erased(ids.salt, _with_everywhere(store, ids.hashes, hits["predictions"]))
    purges = {
        "predictions": predictions,
        "actuals": Purge(log["actuals"], ids, "e.dataset = t.dataset OR e.everywhere"),
        "moved_ids": Purge(log["moved_ids"], ids, "e.everywhere"),
        "records": Purge(store.inference_records(spec).folder, ids, mine),
    }
    hits["records"] = search(store, purges["records"], asked=trace.texts)
    for name in ("actuals", "moved_ids"):
        hits[name] = search(store, purges[name])
    if traces := _of_traces(store, spec, ids, trace):
        purges["traces"], hits["traces"] = traces, search(store, traces)
    rare = trace.rare(hits["records"].shared, spec.retention.min_cell)
    shas: set[str] = set(gone.column("file_sha").to_pylist())
    shas |= set(rows_of(store, purges["actuals"], hits["actuals"]).column("file_sha").to_pylist())
    # Rows that were refused at first have a longer name, see `Staged.log_id`.
    landed = frozenset(sha.split(".")[0] for sha in shas)
    return Search(purges, hits, trace, rare, landed)


def _of_traces(store: Store, spec: ModelSpec, ids: Erased, trace: Trace) -> Purge | None:
    """Return what removes the traces that name an erased id, or that its events log.

    A trace that several predictions share goes with the first of them. Of one dataset alone, those
    stay that name an id of which another dataset has an event.
    """
    folder = spans.folder_of(store.root, spec.model)
    if folder.snapshot() is None:
        return None
    named = Purge(folder, ids, "e.everywhere")
    files = search(store, named).of(store, named)["path"].unique().to_pylist()
    source = select_sql(files, folder.schema, None, None)
    own = store.query(
        f"SELECT DISTINCT t.trace_id FROM {source} AS t WHERE {named.condition}", named.tables
    )
    texts = {*own["trace_id"].to_pylist(), *trace.texts["trace_id"].to_pylist()}
    hashes = {erased_ids.id_hash(ids.salt, text) for text in texts}
    noted = pc.equal(ids.hashes["dataset"], erased_ids.TRACE)
    hashes.update(ids.hashes.filter(noted)["id_hash"].to_pylist())
    table = erased_ids.hash_table([(erased_ids.TRACE, id_hash) for id_hash in sorted(hashes)])
    return Purge(folder, Erased(ids.salt, table, "trace_id"), "TRUE")


def _with_everywhere(store: Store, named: pa.Table, predictions: Hits) -> pa.Table:
    """Tell of each id whether no dataset has it besides the one that it is named for."""
    return store.query(
        f"""SELECT e.*, e.dataset = {literal(ALL)} OR NOT EXISTS (
            SELECT 1 FROM hits AS h
            WHERE h.is_live AND h.id_hash = e.id_hash AND h.dataset <> e.dataset
        ) AS everywhere FROM named AS e""",
        {"named": named, "hits": predictions.rows},
    )


def letters_of(spec: ModelSpec, hashes: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on the dead letters of some ids."""
    return [schema.dead_letter.c.model == spec.model, schema.dead_letter.c.id_hash.in_(hashes)]


def copies_with(store: Store, spec: ModelSpec, ids: Sequence[str] | None) -> list[Location]:
    """Return private copies that hold an id, or cannot be read to their end.

    All of them where the ids are not known any more.

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
    find = word_finder(ids)
    return [copy for copy in copies if ids and may_hold(copy.read(), find)]
