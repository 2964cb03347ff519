"""Removing what is known of some ids: their rows, and numbers that still tell of them.

Rows go from the newest version of a table and from every older one.

A file of a table never changes. So each is searched once; those that hold rows to be removed are
replaced by a commit, beside which writers and readers see either state, and are then deleted,
whatever version has them. It is the same on this machine and in object storage.

Numbers about so few rows that they still tell something of an erased one are deleted in all their
versions. Their windows are marked as having new inputs, so that they are computed again without
the erased rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import Window, window_containing
from mlmon_dagster.store.baselines import REDACTED
from mlmon_dagster.store.state import metric_log, schema
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.sql import literal, literals, quote_identifier
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.tables.columns import window_date
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    Snapshot,
    escape_glob,
    in_partitions,
    retry,
    select_sql,
)

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store
from mlmon_dagster.store.tables.derived_columns import name_row

T = TypeVar("T")
_AT_ONCE = 100
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


def search_table(
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
    listed = list_files(purge.folder)
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


def read_rows(store: Store, purge: Purge, hits: Hits) -> pa.Table:
    """Read the rows of the newest version that the purge would remove."""
    snapshot = purge.folder.snapshot()
    if snapshot is None:
        return purge.folder.schema.empty_table()
    found = hits.of(store, purge)
    files = found.filter(found.column("is_live")).column("path").to_pylist()
    source = select_sql(files, snapshot.schema, None, None, snapshot.aliases)
    return store.query(f"SELECT t.* FROM {source} AS t WHERE {purge.condition}", purge.tables)


def list_files(folder: DeltaFolder) -> set[str]:
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
        rewrite_files(store, purge.folder, paths, purge.kept, purge.tables)
        hits = search_table(store, purge, searched)
        if not hits.rows.num_rows:
            return
        searched |= hits.searched


def rewrite_files(
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
    n_rows_of = Counter[tuple[tuple[str, str], ...]]()
    for file in snapshot.files:
        n_rows_of[tuple(file.partition.items())] += file.n_rows
    todo = {tuple(file.partition.items()) for file in snapshot.files if file.path in paths}
    if not todo:
        snapshot.append(snapshot.schema.empty_table())
        return True
    chosen: list[tuple[tuple[str, str], ...]] = []
    n_rows = 0
    for partition in sorted(todo):
        n_rows += n_rows_of[partition]
        if chosen and (n_rows > _ROWS_A_COMMIT or len(chosen) == _PARTITIONS_A_COMMIT):
            break
        chosen.append(partition)
    source = snapshot.from_sql(None, lambda partition: tuple(partition.items()) in chosen)
    rows = store.query(edit(source), tables)
    kept = pa.schema([snapshot.schema.field(name) for name in rows.column_names])
    snapshot.overwrite(rows.cast(kept), " OR ".join(map(_write_predicate, chosen)))
    return len(chosen) == len(todo)


def _write_predicate(partition: tuple[tuple[str, str], ...]) -> str:
    parts = [f"{quote_identifier(key)} = {literal(value)}" for key, value in partition]
    return f"({' AND '.join(parts) or 'TRUE'})"


def split_in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that make no pattern and no statement too long."""
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


SHORTEST = 3  # texts shorter than this tell nobody apart, and occur inside of others
_TEXTS: tuple[tuple[sa.Table, tuple[str, ...]], ...] = (
    (schema.monitor_result, ("message", "details")),
    (schema.alert, ("message", "details", "slice_value")),
    (schema.alert_event, ("message",)),
    (schema.alert_group, ()),
    (schema.outbox, ()),
)


@dataclass(frozen=True)
class Trace:
    """What numbers may still show of the rows to be erased.

    Attributes:
        windows: Windows that hold them, with how many.
        texts: Column -> their texts.
        extremes: Feature -> their values, of which one may be the smallest or largest.
        datasets: Those that they are in.
        rows: What a baseline may keep of single rows, by name: of embeddings alone.
    """

    windows: Mapping[Window, int]
    texts: Mapping[str, pa.Array]
    extremes: Mapping[str, Sequence[float]]
    datasets: frozenset[str]
    rows: frozenset[str] = frozenset()

    def rare(self, shared: Mapping[str, Mapping[str, int]], least: int) -> frozenset[str]:
        """Return the texts that too few other rows share, of column -> text -> how many do."""
        texts = ((n, text) for n, texts in self.texts.items() for text in texts.to_pylist())
        return frozenset(text for n, text in texts if shared.get(n, {}).get(text, 0) < least)


def find_trace(spec: ModelSpec, gone: pa.Table) -> Trace:
    """Look at the rows that are about to be removed from the log of predictions."""
    windows: Counter[Window] = Counter()
    for start, n in Counter(gone.column("window_start").to_pylist()).items():
        windows[window_containing(spec.time, start)] += n
    logged = spec.logged_features
    categories = [n for n, f in logged.items() if f.type in ("categorical", "text")]
    numbers = [n for n, f in logged.items() if f.type == "numeric"]
    distinct = {
        name: gone.column(name).drop_null().unique()
        for name in (*categories, "trace_id", "status", *numbers, "score", "latency_ms")
    }
    return Trace(
        windows,
        {name: distinct[name] for name in (*categories, "trace_id", "status")},
        {name: distinct[name].to_pylist() for name in (*numbers, "score", "latency_ms")},
        frozenset(gone.column("dataset").to_pylist()),
        _name_rows(gone) if any(f.type == "embedding" for f in logged.values()) else frozenset(),
    )


def _name_rows(gone: pa.Table) -> frozenset[str]:
    both = (gone.column(name).to_pylist() for name in ("dataset", "prediction_id"))
    return frozenset(name_row(dataset, id_) for dataset, id_ in zip(*both, strict=True))


def find_telling_windows(
    store: Store, spec: ModelSpec, trace: Trace, rare: Collection[str], *, recompute: bool
) -> dict[Window, int]:
    """Return those windows of a trace whose numbers have to be computed again."""
    # The shortest text's length is its writer's, and no column of the log has it.
    recompute |= bool(spec.derived_features)
    if recompute or rare or spec.baseline.dataset in trace.datasets or not trace.windows:
        return dict(trace.windows)
    snapshot = store.table("profiles", spec.model).snapshot()
    if snapshot is None:
        return {}
    dates = {window_date(window) for window in trace.windows}
    source = snapshot.from_sql(None, in_partitions(dates))
    values = [
        f"(t.column_name = {literal(name)} AND (t.minimum IN ({literals(v)}) "
        f"OR t.maximum IN ({literals(v)})))"
        for name, v in trace.extremes.items()
        if v
    ]
    found = store.query(
        f"SELECT DISTINCT t.window_start FROM {source} AS t JOIN bounds AS b "
        f"ON b.window_start = t.window_start WHERE {' OR '.join(['t.n < b.bound', *values])}",
        _make_bounds(spec, trace.windows),
    )
    starts = set(found.column("window_start").to_pylist())
    return {window: n for window, n in trace.windows.items() if window.start in starts}


def _make_bounds(spec: ModelSpec, windows: Mapping[Window, int]) -> dict[str, pa.Table]:
    """Return how many rows a number must be about to be kept, by window."""
    starts = pa.array([window.start for window in windows], pa.timestamp("us", "UTC"))
    bounds = pa.array([n + spec.retention.min_cell for n in windows.values()], pa.int64())
    return {"bounds": pa.table({"window_start": starts, "bound": bounds})}


def purge_profiles(store: Store, spec: ModelSpec, windows: Mapping[Window, int]) -> None:
    """Remove small cells, smallest and largest values and names from the profiles of windows.

    Those that a baseline keeps of its own windows too, of earlier baselines as well. What is left
    of a baseline that is not fitted again, such as a promoted one, stays in use.
    """
    dates = {f"/window_date={window_date(window)}/" for window in windows}
    blank = ", ".join(
        f"CASE WHEN b.bound IS NULL THEN t.{name} {otherwise}END AS {name}"
        for name, otherwise in (
            ("minimum", ""), ("maximum", ""), ("unseen", "ELSE [] "), ("unseen_counts", "ELSE [] ")
        )
    )  # fmt: skip

    def kept(source: str) -> str:
        return (
            f"SELECT t.* REPLACE ({blank}) FROM {source} AS t LEFT JOIN bounds AS b "
            "ON b.window_start = t.window_start WHERE b.bound IS NULL OR t.n >= b.bound"
        )

    by_date = store.table("profiles", spec.model)
    dated = {path for path in list_files(by_date) if any(date in path for date in dates)}
    whole = store.table("baseline_profiles", spec.model)
    for folder, paths in ((by_date, dated), (whole, list_files(whole) if windows else set())):
        rewrite_files(store, folder, paths, kept, _make_bounds(spec, windows))


def forget_numbers(conn: sa.Connection, spec: ModelSpec, windows: Mapping[Window, int]) -> None:
    """Delete all versions of metrics and verdicts about too few rows."""
    by_bound: dict[int, list[datetime]] = {}
    for window, n in windows.items():
        by_bound.setdefault(n + spec.retention.min_cell, []).append(window.start)
    verdict = schema.monitor_result.c
    for bound, starts in by_bound.items():
        metric_log.forget_rare(conn, spec.model, PRODUCTION, starts, bound)
        conn.execute(
            sa.delete(schema.monitor_result).where(
                verdict.model == spec.model,
                verdict.dataset == PRODUCTION,
                verdict.window_start.in_(starts),
                verdict.n < bound,
                verdict.folded_at.is_not(None),
            )
        )


def redact_texts(conn: sa.Connection, spec: ModelSpec, texts: Collection[str]) -> None:
    """Replace texts in verdicts, alerts and messages, and delete numbers of slices named so."""
    if not texts:
        return
    for table in (schema.series, schema.monitor_result):
        mine = table.c.model == spec.model
        names = conn.scalars(sa.select(table.c.slice_value).where(mine).distinct()).all()
        told = [name for name in names if any(text in name for text in texts)]
        for some in split_in_parts(told):
            if table is schema.series:
                metric_log.forget_slices(conn, spec.model, some)
            else:
                conn.execute(sa.delete(table).where(mine, table.c.slice_value.in_(some)))
    spelled = sorted({s for text in texts for s in _spell(text)})
    for table, columns in _TEXTS:
        for some in split_in_parts(spelled):
            _redact_table(conn, table, columns, some)


def _redact_table(
    conn: sa.Connection, table: sa.Table, names: Iterable[str], spelled: Sequence[str]
) -> None:
    texts = [table.c[n] for n in names] or [
        c for c in table.c if isinstance(c.type, sa.Text) and not c.primary_key
    ]
    keys = list(table.primary_key)
    pattern = _compile_pattern(spelled)
    hit = sa.or_(*(c.contains(s, autoescape=True) for c in texts for s in spelled))
    for row in conn.execute(sa.select(*keys, *texts).where(hit)).all():
        found = {c.name: pattern.sub(REDACTED, getattr(row, c.name) or "") for c in texts}
        same = [key == getattr(row, key.name) for key in keys]
        conn.execute(sa.update(table).where(*same).values(found))


def _spell(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


def _compile_pattern(spelled: Sequence[str]) -> re.Pattern[str]:
    listed = "|".join(re.escape(s) for s in sorted(spelled, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{listed})(?!\w)")


def drop_older(windows: Iterable[Window], mark: datetime | None) -> list[Window]:
    """Return the windows whose rows have not been deleted by age."""
    return sorted(w for w in windows if mark is None or w.start >= mark)
