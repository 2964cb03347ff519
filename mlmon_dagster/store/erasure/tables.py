"""Removing rows from a table for good: from its newest version, and from every older one.

The newest version is changed by commits, so that writers and readers beside us see either state.
Files of older versions are no part of any coming commit; they are rewritten where they are, so
that rows as of a past moment can still be read, without the erased ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlmon_dagster.store.state.crash_points import reached
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.delta import DeltaFolder, LiveFile, retry, vacuum

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


Mask = NDArray[np.bool_]
Edit = Callable[[pa.Table, Mask], pa.Table]


def without(rows: pa.Table, mask: Mask) -> pa.Table:
    """Return the rows that are not in the mask."""
    return rows.filter(pa.array(~mask))


@dataclass(frozen=True)
class Purge:
    """What to remove from one table.

    Attributes:
        folder: The table.
        condition: SQL on the alias ``t``, true for rows to remove.
        tables: Arrow tables that the condition reads.
        edit: Makes of rows and a mask what remains of them.
    """

    folder: DeltaFolder
    condition: str
    tables: Mapping[str, pa.Table]
    edit: Edit = without


def count_rows(store: Store, purge: Purge) -> int:
    """Count the rows of the newest version that the purge would remove."""
    snapshot = purge.folder.snapshot()
    if snapshot is None or not snapshot.files:
        return 0
    sql = f"SELECT count(*) AS n FROM {snapshot.from_sql()} AS t WHERE {purge.condition}"
    return int(store.query(sql, purge.tables).column("n")[0].as_py())


def purge_rows(store: Store, purge: Purge) -> int:
    """Remove the rows from all versions; safe to repeat. Return how many files were rewritten.

    In object storage, files cannot be rewritten in place: all older versions are deleted there.

    Raises:
        StoreError: If other writers kept getting in the way.
    """
    while True:
        changed = retry(lambda: _purge_one_partition(store, purge), "Erasing")
        if not changed:
            break
        reached("erase.partition")
    if not purge.folder.path.is_local:
        if purge.folder.snapshot() is not None:
            vacuum(purge.folder.path, 0)
        return 0
    return sum(1 for file in _older_files(purge.folder) if _rewrite(store, purge, file))


def _purge_one_partition(store: Store, purge: Purge) -> bool:
    snapshot = purge.folder.snapshot()
    if snapshot is None:
        return False
    paths = _with_matches(store, purge, [file.path for file in snapshot.files])
    file = next((file for file in snapshot.files if file.path in paths), None)
    if file is None:
        return False
    keep, predicate = _partition(file)
    sql = f'SELECT t.*, {purge.condition} AS "#gone" FROM {snapshot.from_sql(None, keep)} AS t'
    rows = store.query(sql, purge.tables)
    mask = rows.column("#gone").fill_null(False).to_numpy().astype(bool)
    kept = purge.edit(rows.drop_columns(["#gone"]), mask)
    snapshot.overwrite(kept.cast(snapshot.schema), predicate)
    return True


def _partition(file: LiveFile) -> tuple[Callable[[Mapping[str, str]], bool], str]:
    values = dict(file.partition)
    parts = [f"{quote_identifier(k)} = {literal(v)}" for k, v in values.items()]
    return lambda p: dict(p) == values, " AND ".join(parts) or "TRUE"


def _with_matches(store: Store, purge: Purge, paths: list[str]) -> set[str]:
    """Return the files that hold rows to be removed."""
    if not paths:
        return set()
    found = store.query(
        f"SELECT DISTINCT t.filename AS filename FROM {_scan(purge.folder, paths)} AS t "
        f"WHERE {purge.condition}",
        purge.tables,
    )
    return set(found.column("filename").to_pylist())


def _scan(folder: DeltaFolder, paths: list[str]) -> str:
    from mlmon_dagster.store.tables.delta_sql import escape_glob

    listed = ", ".join(literal(escape_glob(path)) for path in paths)
    return (
        f"(SELECT * FROM read_parquet([{listed}], filename=true, file_row_number=true, "
        "union_by_name=true, hive_partitioning=true, hive_types_autocast=false))"
    )


def _older_files(folder: DeltaFolder) -> list[Path]:
    snapshot = folder.snapshot()
    if snapshot is None:
        return []
    live = {file.path for file in snapshot.files}
    found = sorted(folder.path.path.rglob("*.parquet"))
    return [f for f in found if str(f) not in live and f.parent.name != "_delta_log"]


def _rewrite(store: Store, purge: Purge, file: Path) -> bool:
    rows = store.query(
        f"SELECT t.file_row_number AS i FROM {_scan(purge.folder, [str(file)])} AS t "
        f"WHERE {purge.condition}",
        purge.tables,
    )
    if not rows.num_rows:
        return False
    with pq.ParquetFile(file) as source:
        table = source.read()
        codec: Any = source.metadata.row_group(0).column(0).compression
    mask = np.zeros(table.num_rows, dtype=bool)
    mask[rows.column("i").to_numpy()] = True
    incoming = file.with_name(f".{file.name}.incoming")
    pq.write_table(purge.edit(table, mask), incoming, compression=codec)
    with incoming.open("rb") as written:
        os.fsync(written.fileno())
    incoming.replace(file)
    return True


def scrub_log(folder: DeltaFolder) -> int:
    """Take values out of a table's log; return how many of its files were rewritten.

    Sizes and row counts are set to those of the files as they are. Repeating it changes nothing.
    A log in object storage is left as it is.
    """
    if not folder.path.is_local or not folder.path.path.exists():
        return 0
    root = folder.path.path
    changed = 0
    for file in sorted((root / "_delta_log").glob("*.json")):
        changed += _scrub_commit(root, file)
    for file in sorted((root / "_delta_log").glob("*.parquet")):
        changed += _scrub_checkpoint(root, file)
    return changed


def _scrub_commit(root: Path, file: Path) -> bool:
    lines = file.read_text().splitlines()
    scrubbed = [_scrub_line(root, line) for line in lines]
    if scrubbed == lines:
        return False
    _replace(file, "".join(f"{line}\n" for line in scrubbed).encode())
    return True


def _scrub_line(root: Path, line: str) -> str:
    action = json.loads(line)
    before = json.dumps(action)
    for kind in ("add", "remove"):
        if action.get(kind):
            _scrub_file(root, action[kind])
    return line if json.dumps(action) == before else json.dumps(action, separators=(",", ":"))


def _scrub_file(root: Path, entry: dict[str, Any]) -> None:
    path = root / unquote(entry["path"])
    exists = path.is_file()
    if entry.get("stats"):
        n = pq.read_metadata(path).num_rows if exists else json.loads(entry["stats"])["numRecords"]
        stats = json.dumps({"numRecords": n}, separators=(",", ":"))
        if json.loads(entry["stats"]) != json.loads(stats):
            entry["stats"] = stats
    if entry.get("stats_parsed"):
        entry["stats_parsed"] = None
    if exists and entry.get("size"):
        entry["size"] = path.stat().st_size


def _scrub_checkpoint(root: Path, file: Path) -> bool:
    table = pq.read_table(file)
    rows = table.to_pylist()
    before = repr(rows)
    for row in rows:
        for kind in ("add", "remove"):
            if row.get(kind):
                _scrub_file(root, row[kind])
    if repr(rows) == before:
        return False
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), sink)
    _replace(file, sink.getvalue().to_pybytes())
    return True


def _replace(file: Path, content: bytes) -> None:
    """Replace a file at once; its time stays, by which versions are told apart."""
    info = file.stat()
    incoming = file.with_name(f".{file.name}.incoming")
    with incoming.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.utime(incoming, ns=(info.st_atime_ns, info.st_mtime_ns))
    incoming.replace(file)
