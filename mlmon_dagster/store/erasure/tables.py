"""Removing rows of some ids from a table: from its newest version, and from every older one.

A file of a table never changes. So each is searched once; those that hold rows to be removed are
replaced by a commit, beside which writers and readers see either state, and are then deleted,
whatever version has them. It is the same on this machine and in object storage.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.delta import DeltaFolder, Snapshot, escape_glob, retry, select_sql
from mlmon_dagster.store.tables.opening import LiveFile

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

# Every partition being written has buffers of its own, and its rows are in memory.
_PARTITIONS_A_COMMIT = 30
_ROWS_A_COMMIT = 250_000
_HITS = pa.schema(
    [
        ("path", pa.string()),
        ("is_live", pa.bool_()),
        ("dataset", pa.string()),
        ("id_hash", pa.string()),
        ("n", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Purge:
    """What to remove from one table.

    Attributes:
        folder: The table.
        ids: The ids, by their hashes.
        test: SQL on the aliases ``e``, an erased id, and ``t``, a row with that id: whether it is
            to be removed.
    """

    folder: DeltaFolder
    ids: Erased
    test: str

    def kept(self, source: str) -> str:
        """SQL for the rows of a subquery that stay."""
        return f"SELECT t.* FROM {source} AS t WHERE NOT COALESCE({self.condition}, FALSE)"

    @property
    def tables(self) -> dict[str, pa.Table]:
        """What the conditions read."""
        return {"erased": self.ids.hashes}

    @property
    def condition(self) -> str:
        """SQL on the alias ``t``, true for rows to remove."""
        return self.condition_of(self.ids.hash_sql("t"))

    def condition_of(self, id_hash: str) -> str:
        """As `condition`, for rows whose id has a given hash."""
        one = f"SELECT 1 FROM erased AS e WHERE e.id_hash = {id_hash} AND ({self.test})"
        return f"({id_hash} IN (SELECT id_hash FROM erased) AND EXISTS ({one}))"


@dataclass(frozen=True)
class Hits:
    """Which files of a table hold some ids.

    Attributes:
        version: The table's newest version; None if nothing was ever written.
        rows: For each file, dataset and id: path, is_live (part of that version), dataset,
            id_hash, n.
        searched: Paths of all files that were searched.
        shared: Column -> text -> how many rows of that version have it, those to be removed left
            out; of the texts that were asked about.
    """

    version: int | None
    rows: pa.Table
    searched: frozenset[str]
    shared: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, store: Store, purge: Purge) -> pa.Table:
        """Return those that the purge would remove: path, is_live, n."""
        return store.query(
            "SELECT t.path, t.is_live, sum(t.n)::BIGINT AS n FROM hits AS t "
            f"WHERE {purge.condition_of('t.id_hash')} GROUP BY ALL",
            {**purge.tables, "hits": self.rows},
        )


def search(
    store: Store,
    purge: Purge,
    searched: Collection[str] = (),
    asked: Mapping[str, pa.Array] | None = None,
) -> Hits:
    """Search the files of all versions, and those that a crash left, for ids in any dataset.

    Args:
        store: The store.
        purge: Where and for what.
        searched: Files to leave out.
        asked: Column -> texts that other rows may share.
    """
    # Listed first, so that what is committed meanwhile is not taken for left over.
    listed = files_of(purge.folder)
    snapshot = purge.folder.snapshot()
    if snapshot is None:
        return Hits(None, _HITS.empty_table(), frozenset())
    live = [file.path for file in snapshot.files]
    files = sorted({*listed, *live}.difference(searched))
    if not files:
        return Hits(snapshot.version, _HITS.empty_table(), frozenset())
    asked = {name: texts for name, texts in (asked or {}).items() if len(texts)}
    tables = {f"asked_{i}": pa.table({"v": texts}) for i, texts in enumerate(asked.values())}
    tables |= {**purge.tables, "live": pa.table({"path": pa.array(live, pa.string())})}
    found = store.query(_search_sql(snapshot, purge, files, list(asked)), tables)
    is_hit = found.column("id_hash").is_valid()
    hits = found.filter(is_hit).select(_HITS.names).cast(_HITS)
    others = found.filter(pc.invert(is_hit)).to_pylist()
    shared = {
        name: {row[f"v_{i}"]: row["n"] for row in others if row[f"v_{i}"] is not None}
        for i, name in enumerate(asked)
    }
    return Hits(snapshot.version, hits, frozenset(files), shared)


def _search_sql(snapshot: Snapshot, purge: Purge, files: list[str], asked: list[str]) -> str:
    """Return one pass over the files, which finds ids and counts texts."""
    if asked:
        source = select_sql(files, snapshot.schema, None, None, snapshot.aliases, has_paths=True)
    else:  # every file has the id, so their columns need not be compared
        listed = ", ".join(literal(escape_glob(file)) for file in files)
        options = "filename=true, hive_partitioning=true, hive_types_autocast=false"
        source = f"read_parquet([{listed}], {options})"
    dataset = "t.dataset" if "dataset" in purge.folder.partition_by else "''"
    id_hash = purge.ids.hash_sql("t")
    names = [quote_identifier(name) for name in asked]
    columns = [
        "t.filename AS path",
        "t.filename IN (SELECT path FROM live) AS is_live",
        f"{dataset} AS dataset",
        f"CASE WHEN {id_hash} IN (SELECT id_hash FROM erased) THEN {id_hash} END AS id_hash",
    ]
    if names:
        columns += [f"COALESCE({purge.condition}, FALSE) AS is_gone", *(f"t.{n}" for n in names)]
    texts = [
        f"CASE WHEN is_live AND NOT is_gone AND {name} IN (SELECT v FROM asked_{i}) "
        f"THEN {name} END AS v_{i}"
        for i, name in enumerate(names)
    ]
    sets = ["(path, is_live, dataset, id_hash)", *(f"(v_{i})" for i in range(len(names)))]
    where = "" if names else " WHERE id_hash IS NOT NULL"
    return (
        "SELECT *, count(*) AS n FROM ("
        f"SELECT {', '.join(['path', 'is_live', 'dataset', 'id_hash', *texts])} "
        f"FROM (SELECT {', '.join(columns)} FROM {source} AS t){where}"
        f") GROUP BY GROUPING SETS ({', '.join(sets)})"
    )


def rows_of(store: Store, purge: Purge, hits: Hits) -> pa.Table:
    """Read the rows of the newest version that the purge would remove."""
    snapshot = purge.folder.snapshot()
    if snapshot is None:
        return purge.folder.schema.empty_table()
    found = hits.of(store, purge)
    files = found.filter(found.column("is_live")).column("path").to_pylist()
    source = select_sql(files, snapshot.schema, None, None, snapshot.aliases)
    return store.query(f"SELECT t.* FROM {source} AS t WHERE {purge.condition}", purge.tables)


def files_of(folder: DeltaFolder) -> set[str]:
    """Return the paths of all data files below a table's folder."""
    return {
        f"{folder.path}/{name}"
        for name in folder.path.below()
        if name.endswith(".parquet") and not name.startswith("_delta_log/")
    }


def purge_rows(store: Store, purge: Purge, hits: Hits) -> None:
    """Remove the rows from all versions; safe to repeat.

    Files that were written since the search, also those that this writes, are searched at the end.

    Args:
        store: The store.
        purge: Which rows.
        hits: What a search of the table found.

    Raises:
        StoreError: If other writers kept getting in the way.
    """
    searched = set(hits.searched)
    while True:
        paths = set(hits.of(store, purge).column("path").to_pylist())
        rewrite(store, purge.folder, paths, purge.kept, purge.tables)
        hits = search(store, purge, searched)
        if not hits.rows.num_rows:
            return
        searched |= hits.searched


def rewrite(
    store: Store,
    folder: DeltaFolder,
    paths: Collection[str],
    edit: Callable[[str], str],
    tables: Mapping[str, pa.Table],
) -> None:
    """Write the partitions of some files anew, and delete the files, whatever versions have them.

    Args:
        store: The store.
        folder: The table.
        paths: The files; none is fine.
        edit: Returns of a subquery with the rows of partitions what takes their place, as SQL.
        tables: What that reads.

    Raises:
        StoreError: If other writers kept getting in the way.
    """
    if not paths:
        return
    while not retry(lambda: _rewrite_some(store, folder, paths, edit, tables), "Erasing"):
        reached("erase.partition")
    reached("erase.partition")
    # A commit of ours is newer than all of these files. Whoever has written one and not yet
    # committed it began with an older version, and will be refused.
    live = {file.path for file in folder.ensure().files}
    for path in sorted(set(paths) - live):
        (folder.path / path.removeprefix(f"{folder.path}/")).delete()


def _rewrite_some(
    store: Store,
    folder: DeltaFolder,
    paths: Collection[str],
    edit: Callable[[str], str],
    tables: Mapping[str, pa.Table],
) -> bool:
    """Commit some of the partitions; return whether none is left."""
    snapshot = folder.ensure()
    by_partition: dict[tuple[tuple[str, str], ...], list[LiveFile]] = {}
    for file in snapshot.files:
        by_partition.setdefault(tuple(file.partition.items()), []).append(file)
    todo = {p: fs for p, fs in by_partition.items() if any(f.path in paths for f in fs)}
    if not todo:
        snapshot.append(snapshot.schema.empty_table())
        return True
    chosen: list[tuple[tuple[str, str], ...]] = []
    n_rows = 0
    for partition, files in sorted(todo.items()):
        n_rows += sum(file.n_rows for file in files)
        if chosen and (n_rows > _ROWS_A_COMMIT or len(chosen) == _PARTITIONS_A_COMMIT):
            break
        chosen.append(partition)
    source = snapshot.from_sql(None, lambda partition: tuple(partition.items()) in chosen)
    rows = store.query(edit(source), tables)
    kept = pa.schema([snapshot.schema.field(name) for name in rows.column_names])
    snapshot.overwrite(rows.cast(kept), " OR ".join(map(_predicate, chosen)))
    return len(chosen) == len(todo)


def _predicate(partition: tuple[tuple[str, str], ...]) -> str:
    parts = [f"{quote_identifier(key)} = {literal(value)}" for key, value in partition]
    return f"({' AND '.join(parts) or 'TRUE'})"
