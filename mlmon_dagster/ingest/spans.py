"""Taking in the landing files of spans and log records, which `mlmon collect` writes.

Their rows were judged before they were answered. A file is deleted once its rows are in the table
and the windows of their events are marked; killed in between, it is read again and adds nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.spans import TRACE_ID, landing_folder
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import erased_ids, window_state
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.state.writing import reached
from mlmon_dagster.store.tables import spans

_LOG = logging.getLogger("mlmon_dagster.ingest")
_BATCH_BYTES, _BATCH_FILES = 32 << 20, 500
_START = "start_us"
_LANDED = pa.schema(
    [
        pa.field(_START, pa.int64()) if field.name == "start_time" else field
        for field in spans.SCHEMA
        if field.name != "window_date"
    ]
)
REFUSED = ".refused"  # ends the name of a file that nobody can read


@dataclass(frozen=True)
class SpanReport:
    """What became of the landing files of spans.

    Attributes:
        n_rows: Rows that are new.
        windows: Windows whose events have new spans.
        unread: Files that nobody can read; they are set aside, see `set_aside`.
    """

    n_rows: int = 0
    windows: tuple[Window, ...] = ()
    unread: tuple[str, ...] = ()


def take_spans(store: Store, spec: ModelSpec, project: Path, now: dt.datetime) -> SpanReport:
    """Take in the spans and log records that have landed, as a part of the model's ingest.

    Args:
        store: Where to.
        spec: The model.
        project: The folder that landing folders are below.
        now: When.

    Raises:
        StoreError: If the store fails.
    """
    folder = project / landing_folder(spec.model)
    n_rows = 0
    windows: set[Window] = set()
    unread: list[str] = []
    for batch in _batches(sorted(folder.glob("*.jsonl"))):
        files = _read(batch, spec)
        unread += [path.name for path in batch if path.name not in files]
        if files:
            found = _take(store, spec, files, now)
            n_rows += found.n_rows
            windows.update(found.windows)
        reached("spans.marked")
        for path in batch:
            path.unlink(missing_ok=True)
    return SpanReport(n_rows, tuple(sorted(windows)), tuple(unread))


def set_aside(project: Path, model: str) -> dict[Path, str]:
    """Return the files of a model's spans that nobody could read, and why."""
    folder = project / landing_folder(model)
    return {path: _why_unreadable(path) for path in sorted(folder.glob(f"*{REFUSED}"))}


def _why_unreadable(path: Path) -> str:
    try:
        _lines(path)
    except (pa.ArrowInvalid, OSError) as error:
        return str(error).partition("\n")[0]
    return "it can be read by now"


def _lines(path: Path) -> pa.Table:
    """Read a landing file.

    Raises:
        pa.ArrowInvalid: If it holds no lines of JSON, or not those of spans.
    """
    options = pj.ParseOptions(explicit_schema=_LANDED, unexpected_field_behavior="ignore")
    return pj.read_json(path, pj.ReadOptions(block_size=1 << 24), options)


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size
        if batch and (size > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], path.stat().st_size
        batch.append(path)
    if batch:
        yield batch


def _read(batch: Sequence[Path], spec: ModelSpec) -> dict[str, pa.Table]:
    files = {}
    for path in batch:
        try:
            rows = _lines(path)
        except pa.ArrowInvalid:
            path.rename(path.with_name(path.name + REFUSED))
            _LOG.error("%s: %s cannot be read and is set aside", spec.model, path.name)
            continue
        files[path.name] = _placed(rows, spec)
    return files


def _placed(rows: pa.Table, spec: ModelSpec) -> pa.Table:
    """Return landed rows as the table has them, with the local date on which each began."""
    start = rows[_START].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    local = start.cast(pa.timestamp("us", spec.time.zone))
    columns = {name: rows[name] for name in spans.SCHEMA.names if name in rows.column_names}
    columns |= {"start_time": start, "window_date": pc.strftime(local, "%Y-%m-%d")}
    return pa.table({name: columns[name] for name in spans.SCHEMA.names}, schema=spans.SCHEMA)


def _take(
    store: Store, spec: ModelSpec, files: Mapping[str, pa.Table], now: dt.datetime
) -> SpanReport:
    folder = spans.folder_of(store.root, spec.model)
    files = {name: _not_erased(store, spec, rows) for name, rows in files.items()}
    files = _not_resent(store, spec, files)
    if not files:
        return SpanReport()
    n_rows = spans.append(folder, files)
    reached("spans.committed")
    arrivals = _arrivals(store, spec, pa.concat_tables(files.values()))
    with store.state.begin() as conn:
        frozen = window_state.mark_arrivals(conn, spec, arrivals, now)
    return SpanReport(n_rows, tuple(window for window in arrivals if window not in frozen))


def _not_resent(
    store: Store, spec: ModelSpec, files: Mapping[str, pa.Table]
) -> dict[str, pa.Table]:
    """Leave out rows that the table has word for word, and files of which none is left.

    Exporters send again what they have no answer for; no window has to be computed for that. A
    file that the table has stays whole: its windows may not be marked yet.
    """
    snapshot = spans.folder_of(store.root, spec.model).snapshot()
    fresh = [n for n in files if snapshot is not None and not snapshot.has_transaction(n)]
    if snapshot is None or not fresh:
        return dict(files)
    given = pa.concat_tables(
        [files[n].append_column("file", pa.array([n] * len(files[n]), pa.string())) for n in fresh]
    )
    if not given.num_rows:
        return dict(files)
    dates = set(given["window_date"].unique().to_pylist())
    ends = pc.min_max(given["start_time"]).as_py()
    stored = snapshot.from_sql(
        None,
        lambda p: p["window_date"] in dates,
        f"start_time BETWEEN TIMESTAMPTZ '{ends['min']}' AND TIMESTAMPTZ '{ends['max']}'",
    )
    same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM g.{name}" for name in spans.SCHEMA.names)
    left = store.query(
        f"SELECT g.* FROM given AS g WHERE NOT EXISTS (SELECT 1 FROM {stored} AS s WHERE {same})",
        {"given": given},
    )
    kept = {n: rows for n, rows in files.items() if n not in fresh}
    for name in fresh:
        rows = left.filter(pc.equal(left["file"], name)).drop_columns(["file"])
        if rows.num_rows:
            kept[name] = rows.cast(spans.SCHEMA)
    return kept


def _not_erased(store: Store, spec: ModelSpec, rows: pa.Table) -> pa.Table:
    erased = erased_ids.load_erased(store.state, spec.model)
    if not erased:
        return rows
    # A trace that a prediction without a dataset is part of goes wherever that was erased.
    return store.query(
        f"""SELECT r.* FROM given AS r WHERE NOT EXISTS (SELECT 1 FROM erased AS e
            WHERE (e.id_hash = {erased.hash_sql("r")} AND e.dataset <> {literal(erased_ids.TRACE)})
            OR (e.id_hash = {erased.hash_sql("r", "trace_id")}
                AND e.dataset = {literal(erased_ids.TRACE)}))""",
        {"given": rows, "erased": erased.hashes},
    ).cast(spans.SCHEMA)


def _arrivals(store: Store, spec: ModelSpec, rows: pa.Table) -> dict[Window, int]:
    """Find the windows whose records take something from these spans, and how many do.

    No record takes anything from a log.
    """
    assert spec.spans is not None
    rows = rows.filter(pc.equal(rows["kind"], "span"))
    records = store.inference_records(spec).folder.snapshot()
    if records is None or not rows.num_rows:
        return {}
    first, last = spans.reach(spec, set(rows["window_date"].unique().to_pylist()))
    source = records.from_sql(
        ["window_start", TRACE_ID if spec.spans.attribute is None else "prediction_id"],
        lambda p: first <= p["window_date"] <= last,
    )
    keys = "SELECT trace_id FROM given"
    if spec.spans.attribute is not None:
        known = spans.from_sql(
            spans.folder_of(store.root, spec.model), spec, {first, last},
            "prediction_id IS NOT NULL",
        )  # fmt: skip
        keys = f"SELECT prediction_id FROM {known} AS s WHERE trace_id IN ({keys})"
    name = TRACE_ID if spec.spans.attribute is None else "prediction_id"
    found = store.query(
        f"SELECT window_start, COUNT(*) AS n FROM {source} AS r WHERE {name} IN ({keys}) "
        "AND window_start IS NOT NULL GROUP BY 1 ORDER BY 1",
        {"given": rows.select([TRACE_ID])},
    )
    return {
        window_containing(spec.time, row["window_start"].astimezone(dt.UTC)): int(row["n"])
        for row in found.to_pylist()
    }
