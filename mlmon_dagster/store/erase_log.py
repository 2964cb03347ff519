"""What a table's log says of its files, made true again and stripped of values.

The log may hold the smallest and the largest value of every column and file, which may be a
person's id. They are optional, nothing here reads them, and new tables have none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.store.delta import DeltaFolder


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
