"""Where rows of some ids are: in tables, in private copies, in notes of refused rows.

`find_traces` proves that nothing is left: it looks for texts in every file of the store and every
table of the state. Files are read whole: unpacked where they are packed, decoded where they are
Parquet. It is slow and thorough, on this machine and in object storage alike.

A text such as `17` stands in any store: as a size, a count, a day. Such a text is looked for as a
whole value of columns that hold ids, and as a word of what others wrote: copies of landing files
and refused rows. Any other text is looked for everywhere, as a part of any longer one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.erasure.purge import (
    Hits,
    Purge,
    Trace,
    find_trace,
    read_rows,
    search_table,
    split_in_parts,
)
from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state import erased_ids, schema
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.schema import METADATA
from mlmon_dagster.store.state.sql import fetch_values, literal
from mlmon_dagster.store.tables import kept_rows, spans
from mlmon_dagster.store.tables.delta import select_sql
from mlmon_dagster.store.tables.kept_rows import Find, needles_of, unpack, word_finder

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


def find_places(store: Store, spec: ModelSpec, ids: Sequence[str], dataset: str = ALL) -> Places:
    """Count what an erasure would remove; nothing is changed."""
    salt = erased_ids.ensure_salt(store.state, spec.model)
    hashes = [erased_ids.hash_id(salt, id_) for id_ in dict.fromkeys(ids)]
    named = erased_ids.make_hash_table([(dataset, id_hash) for id_hash in hashes])
    found = search_tables(store, spec, Erased(salt, named))
    rows = {}
    for name in ("predictions", "actuals", "records", "traces"):
        if name not in found.hits:
            continue
        files = found.hits[name].of(store, found.purges[name])
        rows[name] = sum(row["n"] for row in files.to_pylist() if row["is_live"])
    copies = find_copies(store, spec, ids)
    shas = found.shas | {copy.name.split(".")[0] for copy in copies}
    letters: list[str] = []
    for some in split_in_parts(hashes):
        query = sa.select(schema.dead_letter.c.sha256).where(*select_letters(spec, some))
        letters += fetch_values(store.state, query)
    rows["dead_letter"] = len(letters)
    shas |= set(letters)
    rows["refused_rows"] = kept_rows.count_ids(store, spec.model, set(hashes), list(ids))
    table = schema.ingest_file
    landed = sa.select(table.c.path).where(table.c.model == spec.model, table.c.sha256.in_(shas))
    landing = tuple(sorted(set(fetch_values(store.state, landed))))
    return Places(rows, tuple(map(str, copies)), landing, len(found.trace.windows), found)


def search_tables(store: Store, spec: ModelSpec, ids: Erased) -> Search:
    """Find the rows to be erased, in one pass over the files of each table."""
    log = store.event_log(spec).folders
    mine = f"e.dataset IN ({literal(ALL)}, t.dataset)"
    predictions = Purge(log["predictions"], ids, mine)
    hits = {"predictions": search_table(store, predictions)}
    gone = read_rows(store, predictions, hits["predictions"])
    of_records = Purge(store.inference_records(spec).folder, ids, mine)
    traced = gone
    if spec.source.predictions.in_place:  # no log has them
        traced = read_rows(store, of_records, search_table(store, of_records))
    trace = find_trace(spec, traced)
    # Ground truth and moves that name no dataset stay as long as another dataset has the id.
    ids = Erased(ids.salt, _add_everywhere(store, ids.hashes, hits["predictions"]))
    purges = {
        "predictions": predictions,
        "actuals": Purge(log["actuals"], ids, "e.dataset = t.dataset OR e.everywhere"),
        "moved_ids": Purge(log["moved_ids"], ids, "e.everywhere"),
        "records": Purge(store.inference_records(spec).folder, ids, mine),
    }
    hits["records"] = search_table(store, purges["records"], asked=trace.texts)
    for name in ("actuals", "moved_ids"):
        hits[name] = search_table(store, purges[name])
    if traces := _purge_traces(store, spec, ids, trace):
        purges["traces"], hits["traces"] = traces, search_table(store, traces)
    rare = trace.rare(hits["records"].shared, spec.retention.min_cell)
    shas: set[str] = set(gone.column("file_sha").to_pylist())
    shas |= set(read_rows(store, purges["actuals"], hits["actuals"]).column("file_sha").to_pylist())
    # Rows that were refused at first have a longer name, see `Staged.log_id`.
    landed = frozenset(sha.split(".")[0] for sha in shas)
    return Search(purges, hits, trace, rare, landed)


def _purge_traces(store: Store, spec: ModelSpec, ids: Erased, trace: Trace) -> Purge | None:
    """Return what removes the traces that name an erased id, or that its events log.

    A trace that several predictions share goes with the first of them. Of one dataset alone, those
    stay that name an id of which another dataset has an event.
    """
    folder = spans.folder_of(store.root, spec.model)
    if folder.snapshot() is None:
        return None
    named = Purge(folder, ids, "e.everywhere")
    files = search_table(store, named).of(store, named)["path"].unique().to_pylist()
    source = select_sql(files, folder.schema, None, None)
    own = store.query(
        f"SELECT DISTINCT t.trace_id FROM {source} AS t WHERE {named.condition}", named.tables
    )
    texts = {*own["trace_id"].to_pylist(), *trace.texts["trace_id"].to_pylist()}
    hashes = {erased_ids.hash_id(ids.salt, text) for text in texts}
    noted = pc.equal(ids.hashes["dataset"], erased_ids.TRACE)
    hashes.update(ids.hashes.filter(noted)["id_hash"].to_pylist())
    table = erased_ids.make_hash_table([(erased_ids.TRACE, id_hash) for id_hash in sorted(hashes)])
    return Purge(folder, Erased(ids.salt, table, "trace_id"), "TRUE")


def _add_everywhere(store: Store, named: pa.Table, predictions: Hits) -> pa.Table:
    """Tell of each id whether no dataset has it besides the one that it is named for."""
    return store.query(
        f"""SELECT e.*, e.dataset = {literal(ALL)} OR NOT EXISTS (
            SELECT 1 FROM hits AS h
            WHERE h.is_live AND h.id_hash = e.id_hash AND h.dataset <> e.dataset
        ) AS everywhere FROM named AS e""",
        {"named": named, "hits": predictions.rows},
    )


def select_letters(spec: ModelSpec, hashes: Sequence[str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on the dead letters of some ids."""
    return [schema.dead_letter.c.model == spec.model, schema.dead_letter.c.id_hash.in_(hashes)]


def find_copies(store: Store, spec: ModelSpec, ids: Sequence[str] | None) -> list[Location]:
    """Return private copies that hold an id, or cannot be read to their end.

    All of them where the ids are not known any more.

    Not those of refused rows, out of which `kept_rows` takes single ones.
    """
    places = [
        kept_rows.locate_folder(store, spec.model),
        LocalPlace(f"{store.folder}/staging/{spec.model}"),
    ]
    rows = {place.url for place in kept_rows.list_places(store, spec.model)}
    found = [place / name for place in places for name in place.below()]
    copies = [copy for copy in found if copy.url not in rows]
    if ids is None:
        return copies
    find = word_finder(ids)
    return [copy for copy in copies if ids and may_hold(copy.read(), find)]


_ROWS = 10_000
_WRITTEN_BY_OTHERS: Final = ("quarantine", "staging")  # folders
_ID_COLUMNS: Final = frozenset({"prediction_id", "trace_id", "span_id", "parent_id"})
_SHORTEST = 6  # characters of a text that is found only where it is meant


@dataclass(frozen=True)
class Proof:
    """What was searched, and where something was found.

    Attributes:
        n_files: Files that were read.
        n_tables: Tables of the state database.
        traces: Files and ``table.column`` that hold one of the texts.
        unread: Copies of landing files that cannot be read to their end, so that they may.
        n_common: How many of the texts were looked for only where ids stand.
    """

    n_files: int
    n_tables: int
    traces: tuple[str, ...]
    unread: tuple[str, ...] = ()
    n_common: int = 0


def is_common(text: str) -> bool:
    """Say whether a text may stand anywhere without being meant: a number, or a short one."""
    return len(text) < _SHORTEST or not any(c.isalpha() for c in text)


def find_traces(store: Store, texts: Sequence[str]) -> Proof:
    """Search the whole store for texts, such as the ids that were erased.

    Args:
        store: The store; if it is in object storage, its folder on this machine is searched too.
        texts: What to look for.
    """
    traces: list[str] = []
    unread: list[str] = []
    n_files = 0
    rare = [text for text in texts if not is_common(text)]
    find = word_finder(texts)
    needles = [needle for text in rare for needle in needles_of(text)]
    places: list[Location] = [store.root]
    if not store.root.is_local:
        places.append(LocalPlace(str(store.folder)))
    for place in places:
        for name in place.below():
            n_files += 1
            content = (place / name).read()
            if content is None:  # a writer's temporary file, which is gone
                continue
            if name.split("/")[0] in _WRITTEN_BY_OTHERS:
                layers = unpack(content)
                if any(map(find, layers.parts)):
                    traces.append(name)
                elif not layers.is_whole:
                    unread.append(name)
            elif any(needle in content for needle in needles) or (
                content[:4] == b"PAR1" and _parquet_holds(content, texts, needles)
            ):
                traces.append(name)
    tables = list(METADATA.sorted_tables)
    with store.state.connect() as conn:
        for table in tables:
            traces += [f"{table.name}.{c}" for c in _columns_with(conn, table, texts, rare)]
    return Proof(
        n_files, len(tables), tuple(traces), tuple(unread), len(set(texts)) - len(set(rare))
    )


def _columns_with(
    conn: sa.Connection, table: sa.Table, texts: Sequence[str], rare: Sequence[str]
) -> Iterator[str]:
    for column in table.c:
        if not isinstance(column.type, sa.String):
            continue
        wanted = set(texts) if column.name in _ID_COLUMNS else set[str]()
        # Most columns repeat a few values, so this is less than a search of every row.
        with conn.execute(sa.select(column).distinct()) as values:
            for some in values.partitions(_ROWS):
                found = [value for (value,) in some if value]
                joined = "\0".join(found)
                if not wanted.isdisjoint(found) or any(text in joined for text in rare):
                    yield column.name
                    break


def may_hold(content: bytes | None, find: Find) -> bool:
    """Tell whether a copy of a landing file holds an id as a word, or cannot be read to its end.

    Args:
        content: None of a writer's temporary file, which is gone, holds nothing.
        find: Of the ids, see `word_finder`.
    """
    if content is None:
        return False
    layers = unpack(content)
    return not layers.is_whole or any(map(find, layers.parts))


def _parquet_holds(content: bytes, texts: Sequence[str], needles: Sequence[bytes]) -> bool:
    patterns = [b"|".join(map(re.escape, some)) for some in split_in_parts(needles)]
    wanted = pa.array(texts, pa.string())
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as source:
            return any(
                (name in _ID_COLUMNS and pc.any(pc.is_in(values, wanted)).as_py())
                or any(
                    pc.any(pc.match_substring_regex(values, pattern)).as_py()
                    for pattern in patterns
                )
                for batch in source.iter_batches()
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
                for values in _texts_in(column)
            )
    except (pa.ArrowInvalid, OSError):
        return False  # a broken file; its bytes were searched


def _texts_in(array: pa.Array) -> Iterator[pa.Array]:
    """Yield every text inside of an array, however nested."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _texts_in(array.dictionary_decode())
    elif pa.types.is_struct(kind):
        for child in array.flatten():
            yield from _texts_in(child)
    elif pa.types.is_map(kind):
        yield from _texts_in(array.keys)
        yield from _texts_in(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts_in(array.values)
    elif (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    ):
        yield array
