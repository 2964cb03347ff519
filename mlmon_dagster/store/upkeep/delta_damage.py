"""What is wrong with one Delta table: its log, its checkpoints, its live files, and strangers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.addresses import place_at
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.tables.delta import DeltaFolder, LiveFile, why_commit_is_bad

LOG = "_delta_log/"
_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint(\.\d+\.\d+)?\.parquet")
# Names that the writer gives; those with a # or in tmp form are what a killed one left.
_OURS = (
    _COMMIT,
    _CHECKPOINT,
    re.compile(r"_delta_log/(_last_checkpoint|_commit_[^/]+|_staged_commits/.+|.*\.tmp|.*#\d+)"),
    re.compile(r"([^/=]+=[^/]*/)*part-\d+-[0-9a-f-]+(-c\d+)?\.(\w+\.)?parquet(#\d+)?"),
)


def faults(table: Location, sizes: dict[str, int]) -> Iterator[str]:
    """Say what is wrong with a table, a line each; nothing if it is whole."""
    of_log = list(_faults_of_log(table, sizes))
    yield from of_log
    yield from _faults_of_files(table, sizes, is_told=bool(of_log))


def strangers(sizes: dict[str, int]) -> tuple[str, ...]:
    """Return the files that no writer of tables makes, neither a living nor a killed one."""
    return tuple(name for name in sizes if not any(p.fullmatch(name) for p in _OURS))


def bad_commits(table: Location, sizes: dict[str, int]) -> dict[int, str]:
    """Return version -> what is wrong with its commit, of those that the newest version needs."""
    versions = sorted(int(m[1]) for name in sizes if (m := _COMMIT.fullmatch(name)))
    start = _newest_checkpoint(table, sizes) + 1
    needed = [version for version in versions if version >= start]
    bad = {version: why for version in needed if (why := _why_bad(table, version))}
    if needed:
        missing = sorted({*range(start, needed[-1])} - set(needed))
        bad |= dict.fromkeys(missing, "is missing")
    elif start == 0:
        bad[0] = "is missing"
    return dict(sorted(bad.items()))


def whole_log(table: Location, sizes: dict[str, int], before: int | None) -> list[str]:
    """Return the commits and readable checkpoints of a log, those before a version."""
    found = []
    for name in sizes:
        commit, checkpoint = _COMMIT.fullmatch(name), _CHECKPOINT.fullmatch(name)
        match = commit or checkpoint
        is_wanted = match is not None and (before is None or int(match[1]) < before)
        if is_wanted and not (checkpoint and _why_no_parquet(table / name)):
            found.append(name)
    return found


def whole_files(table: Location, files: Iterable[LiveFile]) -> list[LiveFile]:
    """Return those of a version's files that are there, and whose footer opens."""
    sizes = sizes_below(table)
    return [file for file in files if _why_unreadable(table, file, sizes) == ""]


def sizes_below(place: Location) -> dict[str, int]:
    """Return the files below a place with their sizes."""
    if not place.is_local:
        from mlmon_dagster.store.places import objects

        return {found.key: found.size for found in objects.listed(place)}
    found = {}
    for name in place.below():
        try:
            found[name] = (place.path / name).stat().st_size
        except FileNotFoundError:
            continue  # a writer's own, gone meanwhile
    return found


def _faults_of_log(table: Location, sizes: dict[str, int]) -> Iterator[str]:
    for version, why in bad_commits(table, sizes).items():
        yield f"commit {version:020}.json {why}"
    for name in sizes:
        if (match := _CHECKPOINT.fullmatch(name)) and (why := _why_no_parquet(table / name)):
            yield f"checkpoint {match[1]} {why}"
    pointer = (table / f"{LOG}_last_checkpoint").read()
    if pointer is not None:
        named = _checkpoint_named(pointer)
        if named is None:
            yield "_last_checkpoint cannot be parsed"
        elif not any(n.startswith(f"{LOG}{named:020}.checkpoint") for n in sizes):
            yield f"_last_checkpoint names version {named}, whose checkpoint is missing"


def _why_bad(table: Location, version: int) -> str:
    content = (table / f"{LOG}{version:020}.json").read()
    return "is missing" if content is None else why_commit_is_bad(content)


def _newest_checkpoint(table: Location, sizes: dict[str, int]) -> int:
    """Return the version of the newest checkpoint that can be read, -1 for none."""
    found: dict[int, list[str]] = {}
    for name in sizes:
        if match := _CHECKPOINT.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    for version in sorted(found, reverse=True):
        if not any(_why_no_parquet(table / name) for name in found[version]):
            return version
    return -1


def _checkpoint_named(pointer: bytes) -> int | None:
    try:
        return int(json.loads(pointer)["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _why_no_parquet(place: Location) -> str:
    content = place.read()
    if content is None:
        return "is missing"
    try:
        pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError):
        return "is cut off or damaged"
    return ""


def _faults_of_files(table: Location, sizes: dict[str, int], is_told: bool) -> Iterator[str]:
    try:
        snapshot = DeltaFolder(table, pa.schema([])).snapshot()
        files = [] if snapshot is None else snapshot.files
    except StoreError as error:
        if not is_told:
            yield f"cannot be opened: {str(error).partition('cannot be read: ')[2] or error}"
        return
    for file in files:
        if why := _why_unreadable(table, file, sizes):
            yield f"data file {_below(table, file)} {why}"


def _below(table: Location, file: LiveFile) -> str:
    return file.path.removeprefix(f"{table}/")


def _why_unreadable(table: Location, file: LiveFile, sizes: dict[str, int]) -> str:
    size = sizes.get(_below(table, file))
    if size is None:
        return "is missing"
    if file.size is not None and size != file.size:
        return f"has {size:,} bytes, not {file.size:,}"
    try:
        if table.is_local:
            rows = pq.read_metadata(file.path).num_rows
        else:
            rows = pq.read_metadata(
                pa.BufferReader(place_at(file.path, table.options).read() or b"")
            ).num_rows
    except (pa.ArrowException, OSError, ValueError):
        return "has no readable footer"
    return "" if rows == file.n_rows or not file.n_rows else f"has {rows:,} rows, not {file.n_rows}"
