"""Is everything there that was kept? Tables, their logs and files, the state, and both together.

Nothing is changed and no lock is taken; writers may go on. What a running ingest is about to
settle is no damage.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.places.objects import place_at
from mlmon_dagster.store.state.schema import (
    baseline,
    erasure,
    ingest_file,
    metric_window,
    provenance,
    retention_mark,
    sample,
    sample_history,
    series,
)
from mlmon_dagster.store.tables.delta import DeltaFolder, LiveFile, why_commit_is_bad

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

BASELINES = "baseline_profiles"
DERIVED = ("inference_records", "profiles", BASELINES)
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


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was kept.

    Attributes:
        place: Which table, file or database.
        found: What is wrong with it.
        cure: The next step.
        model: The model concerned; empty if it is not one.
        names: Files below the place that are no part of it.
        is_whole: Whether nothing is wrong with the table by itself.
    """

    place: str
    found: str
    cure: str
    model: str = ""
    names: tuple[str, ...] = ()
    is_whole: bool = False


def examine_store(store: Store) -> Iterator[Damage]:
    """Look at the state database, every table, and the files of baselines and refused files."""
    yield from examine_state(store)
    yield from _examine_samples(store)
    done = _done(store)
    for table in store.root.tables():
        yield from examine_table(store, table)
    yield from _examine_log(store, done)
    yield from _examine_baselines(store)
    yield from _examine_quarantine(store)


def examine_state(store: Store, seconds: float | None = None) -> Iterator[Damage]:
    """Have SQLite check its file; PostgreSQL looks after its own pages.

    Args:
        store: The store.
        seconds: Only look at the pages, not whether indexes fit their tables, and no longer.
    """
    if store.state.dialect.name != "sqlite":
        return
    cure = (
        "Restore a backup into a new store (mlmon restore); without one, see "
        "docs/inference-store.md#when-something-goes-wrong."
    )
    try:
        with store.state.connect() as conn:
            if seconds is None:
                told = list(conn.scalars(sa.text("PRAGMA integrity_check(5)")))
            else:
                told = _quick_check(conn, time.monotonic() + seconds)
    except sa.exc.DatabaseError as error:
        told = [str(error.orig)]
    if told != ["ok"]:
        place = str(store.state.url.database)
        yield Damage(place, f"the state database is damaged: {'; '.join(told)[:300]}", cure)


def _quick_check(conn: sa.Connection, ends: float) -> list[str]:
    """Have SQLite look at its pages until a moment of the monotonic clock."""
    raw: Any = conn.connection.dbapi_connection
    is_over = False

    def give_up() -> bool:
        nonlocal is_over
        is_over = time.monotonic() > ends
        return is_over

    raw.set_progress_handler(give_up, 10_000)
    try:
        return list(conn.scalars(sa.text("PRAGMA quick_check(5)")))
    except sa.exc.OperationalError:
        if not is_over:
            raise
        return ["ok"]  # as far as it came
    finally:
        raw.set_progress_handler(None, 0)


def _examine_samples(store: Store) -> Iterator[Damage]:
    """Find metrics of which it is not known what they are, when, or of what: no view shows them.

    Only numbers tie the tables together, since a foreign key would take an index more.
    """
    lost = (
        (sample, sample.c.series_id, series, "which metric they are"),
        (sample, sample.c.provenance_id, provenance, "what they were computed from"),
        (sample_history, sample_history.c.series_id, series, "which metric they were"),
        (sample_history, sample_history.c.provenance_id, provenance, "what they came from"),
        (provenance, provenance.c.window_id, metric_window, "which window they are of"),
    )
    with store.state.connect() as conn:
        for table, number, told_by, what in lost:
            numbers = sa.select(number).distinct().except_(sa.select(told_by.c.id)).subquery()
            missing = sa.select(sa.func.count()).where(number.in_(sa.select(numbers)))
            if n := conn.scalar(missing.select_from(table)):
                yield Damage(
                    table.name,
                    f"{n:,} rows do not say {what}: the rows of {told_by.name} that they name "
                    "are gone",
                    "No view shows them. Restore a backup into a new store (mlmon restore), or "
                    "compute the windows again: mlmon run MODEL --from DAY --to DAY.",
                )


def examine_table(store: Store, table: Location) -> Iterator[Damage]:
    """Look at one Delta table: its log, its checkpoints, its live files, and what is no part."""
    kind, model = _named(store, table)
    cure = f"Run mlmon store repair {model}." if model else "Move it away."
    sizes = sizes_below(table)
    yield from (Damage(str(table), found, cure, model) for found in table_faults(table, sizes))
    if foreign := strangers(sizes):
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        yield Damage(
            str(table),
            f"{len(foreign)} files are no part of the table {kind}: {shown}",
            f"They are not read. Run mlmon store repair {model}, which moves them out.",
            model,
            foreign,
        )


def _named(store: Store, table: Location) -> tuple[str, str]:
    """Return the kind of a table, and its model; no model if the store has no such table."""
    kind, _, rest = str(table).removeprefix(f"{store.root}/").partition("/")
    known = kind in DERIVED or kind == "event_log"
    return rest.replace("/", " ") if kind == "event_log" else kind, (
        rest.split("/")[0] if known else ""
    )


def _done(store: Store) -> dict[tuple[str, str], dict[str, int]]:
    """Return (model, stream) -> content hash -> rows that the file added to the log."""
    c = ingest_file.c
    query = sa.select(c.model, c.stream, c.sha256, c.n_new + c.n_conflict).where(c.status == "done")
    found: dict[tuple[str, str], dict[str, int]] = {}
    with store.state.connect() as conn:
        for model, stream, sha, n in conn.execute(query):
            found.setdefault((model, stream), {})[sha] = int(n)
    return found


# Hash of the landing file: rows that were refused at first have a longer name, see `Staged.log_id`.
CONTENT = "split_part(file_sha, '.', 1)"


def rows_by_file(store: Store, table: Location) -> dict[str, int]:
    """Count the rows of a table of the log by the file that they came from."""
    snapshot = DeltaFolder(table, pa.schema([])).snapshot()
    if snapshot is None or "file_sha" not in snapshot.schema.names or not snapshot.files:
        return {}
    counted = store.query(
        f"SELECT {CONTENT} AS sha, count(*) AS n FROM {snapshot.from_sql(['file_sha'])} GROUP BY 1"
    )
    return dict(zip(*(counted.column(c).to_pylist() for c in ("sha", "n")), strict=True))


def _examine_log(store: Store, done: dict[tuple[str, str], dict[str, int]]) -> Iterator[Damage]:
    """Compare what the manifest says was added with what the log holds."""
    shrunk = _shrunk(store)
    places = {(t.url.split("/")[-2], t.name): t for t in (store.root / "event_log").tables()}
    for model, stream in sorted({*done, *(p for p in places if p[1] != "moved_ids")}):
        table = store.root / "event_log" / model / stream
        try:
            there = rows_by_file(store, table)
        except StoreError:
            continue  # told by examine_table
        said = done.get((model, stream), {})
        lost = [
            sha
            for sha, n in said.items()
            if n > there.get(sha, 0) and not (model in shrunk and _committed(table, sha))
        ]
        if lost:
            n_rows = sum(said[sha] - there.get(sha, 0) for sha in lost)
            yield Damage(
                str(table),
                f"{n_rows:,} rows of {len(lost)} files that the manifest calls done are missing",
                f"Run mlmon store repair {model}, then mlmon run {model}.",
                model,
            )
        if unknown := set(there) - _known(store, model, stream):
            yield Damage(
                str(table),
                f"the log has rows of {len(unknown)} files that the state database does not know "
                "(was it lost, or replaced by an older one?)",
                f"Restore its backup, or run mlmon store repair {model}, then mlmon run {model}.",
                model,
                is_whole=True,
            )


def _shrunk(store: Store) -> set[str]:
    """Return the models of which rows were deleted, on request or by age."""
    with store.state.connect() as conn:
        return {
            *conn.scalars(sa.select(erasure.c.model).distinct()),
            *conn.scalars(sa.select(retention_mark.c.model).distinct()),
        }


def _committed(table: Location, sha: str) -> bool:
    snapshot = DeltaFolder(table, pa.schema([])).snapshot()
    return snapshot is not None and snapshot.has_transaction(sha)


def _known(store: Store, model: str, stream: str) -> set[str]:
    c = ingest_file.c
    with store.state.connect() as conn:
        query = sa.select(c.sha256).where(c.model == model, c.stream == stream)
        return set(conn.scalars(query))


def _examine_baselines(store: Store) -> Iterator[Damage]:
    from mlmon_dagster.store import baselines

    with store.state.connect() as conn:
        rows = conn.execute(sa.select(baseline.c.model, baseline.c.baseline_id, baseline.c.payload))
        rows_: list[Any] = list(rows)
    for model, baseline_id, payload in rows_:
        if baselines.read_file(store, model, payload) is None:
            yield Damage(
                str(baselines.place_of_files(store, model, payload)),
                f"the file of baseline {baseline_id} is missing or damaged",
                f"Copy it from a backup, or run mlmon run {model}; a promoted one: "
                f"mlmon baseline promote {model} again.",
                model,
            )


def _examine_quarantine(store: Store) -> Iterator[Damage]:
    c = ingest_file.c
    with store.state.connect() as conn:
        query = sa.select(c.model, c.stream, c.sha256, c.path).where(c.status == "quarantined")
        rows = list(conn.execute(query))
    kept: dict[str, set[str]] = {}
    for model, _stream, sha, path in rows:
        if model not in kept:
            below = (store.root / "quarantine" / model).below()
            kept[model] = {name.rpartition("/")[2].split(".")[0] for name in below}
        if sha not in kept[model]:
            yield Damage(
                str(store.root / "quarantine" / model),
                f"the copy of the refused file {path} is gone",
                "Land the corrected file; the copy itself only a backup has.",
                model,
            )


def table_faults(table: Location, sizes: dict[str, int]) -> Iterator[str]:
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
        files = () if snapshot is None else snapshot.files
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
