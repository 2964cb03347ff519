"""What is asked of a store beside its tables: sizes, how late ground truth is, one free SELECT."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import MULTILABEL, NAMED
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import exempt_sql
from mlmon_dagster.spec.tasks import BETWEEN, task_of
from mlmon_dagster.spec.windows import Window, age_step, age_unit
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.state.schema import dead_letter, ingest_file
from mlmon_dagster.store.state.sql import fetch_rows, fetch_value, literal, quote_identifier
from mlmon_dagster.store.tables.columns import UNMATCHED, by_date
from mlmon_dagster.store.tables.inference_records import groups_of
from mlmon_dagster.store.tables.part_files import EVERY_ID
from mlmon_dagster.store.tables.rows import KINDS, folder_of

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store
    from mlmon_dagster.store.tables.inference_records import Group, PinnedRecords, RecordsLog


MOST_CLASSES = 10  # whose arrivals are counted one by one
LAGS_AT_ONCE = 250_000  # predictions whose ground truth is looked up at once
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class TableSize(TypedDict):
    """How large a table of a model is, in its newest version."""

    table: str
    rows: int
    files: int
    bytes: int
    version: int
    oldest: str
    newest: str
    windows: int
    datasets: str


class StateSize(TypedDict):
    """What the state database holds of a model."""

    files: dict[str, int]
    n_duplicate: int
    n_conflict: int
    n_refused: int
    n_metrics: int
    computed_at: dt.datetime | None


def describe_tables(store: Store, model: str) -> list[TableSize]:
    """Return one row per table of a model: rows, files, bytes, versions, oldest and newest date.

    Sizes are those of the newest version; a table that was never written has no row.
    """
    found: list[TableSize] = []
    for kind in KINDS:
        snapshot = folder_of(store, kind, model).snapshot()
        if snapshot is None:
            continue
        files = snapshot.files
        dates = sorted(d for f in files if (d := f.partition["window_date"])[:1].isdigit())
        by_dataset: Counter[str] = Counter()
        for file in files:
            by_dataset[file.partition.get("dataset", ALL)] += file.n_rows
        found.append(
            {
                "table": kind,
                "rows": sum(file.n_rows for file in files),
                "files": len(files),
                "bytes": sum(file.size or 0 for file in files),
                "version": snapshot.version,
                "oldest": dates[0] if dates else "",
                "newest": dates[-1] if dates else "",
                "windows": len(set(dates)),
                "datasets": ", ".join(f"{d} {n:,}" for d, n in sorted(by_dataset.items())),
            }
        )
    return found


def describe_state(store: Store, model: str) -> StateSize:
    """Return what the state database says of a model.

    Returns:
        ``files`` by status, ``n_duplicate`` and ``n_conflict`` of all files, ``n_refused`` notes,
        ``n_metrics`` in their newest versions and ``computed_at``, the newest computation or None.
    """
    c = ingest_file.c
    sums = (sa.func.sum(c.n_duplicate), sa.func.sum(c.n_conflict))
    query = sa.select(c.status, sa.func.count(), *sums).where(c.model == model).group_by(c.status)
    files = fetch_rows(store.state, query)
    refused = sa.select(sa.func.count()).where(dead_letter.c.model == model)
    n_metrics, computed_at = metric_log.size_of(store.state, model)
    return {
        "files": {status: int(n) for status, n, _, _ in files},
        "n_duplicate": sum(int(n) for _, _, n, _ in files),
        "n_conflict": sum(int(n) for _, _, _, n in files),
        "n_refused": fetch_value(store.state, refused) or 0,
        "n_metrics": n_metrics,
        "computed_at": computed_at,
    }


def select(
    store: Store, model: str, text: str, limit: int | None = None, seconds: float | None = None
) -> pa.Table:
    """Run one SELECT over the views predictions, actuals, records, profiles and metrics.

    The engine reads files below the tables of this model only, reaches no network, loads no
    extension, and its settings are locked.

    Args:
        store: The store.
        model: The model's name.
        text: One SELECT statement; the session's zone is UTC.
        limit: At most so many rows.
        seconds: It is broken off after so long; None lets it run.

    Raises:
        ConfigError: If it is not exactly one SELECT, the engine refuses it, or it takes too long.
        StoreError: If the store is in object storage.
    """
    import duckdb

    if not store.root.is_local:
        raise StoreError(
            "SQL of your own runs on a store on this machine only; read this one with "
            'open_store(...).records("MODEL").to_arrow() and query that.'
        )
    _refuse_other_statements(text)
    database: Any = duckdb.connect(":memory:")
    try:
        _lock_down(database, store, model)
        names = _make_views(database, store, model)
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        with _time_limit(database, seconds):
            relation = database.sql(text)
            if relation is None:
                raise ConfigError("The statement returned no rows to show; expected one SELECT.")
            some = relation if limit is None else relation.limit(limit)
            found: pa.Table = some.to_arrow_table()
        return found
    except duckdb.InterruptException:
        raise ConfigError(
            f"The query was broken off after {seconds:g} seconds. Select less, such as one window "
            "with WHERE, or give it longer with --timeout."
        ) from None
    except duckdb.CatalogException as error:
        raise ConfigError(
            f"The query failed: {str(error).splitlines()[0]} There are {', '.join(sorted(names))}. "
            "A table is there once it has rows. Predictions and actuals of a model in place stay "
            "in tables of their own; records has both."
        ) from error
    except duckdb.Error as error:
        raise ConfigError(f"The query failed: {error}") from error
    finally:
        database.close()


@contextmanager
def _time_limit(database: Any, seconds: float | None) -> Iterator[None]:
    """Interrupt what the database does once the time is over."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, database.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _refuse_other_statements(text: str) -> None:
    import duckdb

    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise ConfigError(f"The query cannot be read: {error}") from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        listed = ", ".join(kinds) or "nothing"
        raise ConfigError(f"Expected exactly one SELECT statement, found {listed}.")


def _lock_down(database: Any, store: Store, model: str) -> None:
    folders = [str(folder_of(store, kind, model).path) + "/" for kind in KINDS]
    listed = ", ".join(literal(folder) for folder in folders)
    for statement in (
        "SET TimeZone = 'UTC'",
        "SET threads = 2",
        "SET memory_limit = '2GB'",
        f"SET temp_directory = {literal(str(store.folder / '.spill'))}",
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET python_enable_replacements = false",
        f"SET allowed_directories = [{listed}]",
    ):
        database.execute(statement)


def _make_views(database: Any, store: Store, model: str) -> list[str]:
    """Make what a SELECT may read, and return the names."""
    names = ["metrics"]
    for kind in KINDS:
        snapshot = folder_of(store, kind, model).snapshot()
        if snapshot is not None:
            name = quote_identifier(kind)
            database.execute(f"CREATE VIEW {name} AS SELECT * FROM {snapshot.from_sql()}")
            names.append(kind)
    metrics = pa.Table.from_pandas(metric_log.newest(store.state, model), preserve_index=False)
    database.register("metrics", metrics)
    return names


@dataclass(frozen=True)
class GroundTruthLag:
    """Ground truth of one window of production.

    Attributes:
        n_exempt: Predictions without ground truth that ``actuals.no_actual_when`` picks.
        lags: JSON, ``{"known_hours": {"p50": ...}, "arrived_hours": {...}}``: hours from the event
            until the actual was known (``actual_time``), and until it came to this store.
        arrivals: JSON: how many predictions ground truth is expected for (``n``), and how many
            actuals came by each age of the window (``arrived``, ``known``: class -> [[age, count],
            ...]), in hours of hourly windows, else days. Those that ``arrived`` are counted by band
            where the task has bands ([age, count, count, ...]): quarters of the scores of a class,
            or of the errors of a regression; decisions, or whether they are right. ``future`` and
            ``early`` are those known later than now, or before their prediction, which are not
            counted as known.
    """

    n_exempt: int
    lags: str
    arrivals: str = "{}"


def measure_lags(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    now: datetime,
    dataset: str = PRODUCTION,
    log: RecordsLog | None = None,
) -> dict[datetime, GroundTruthLag]:
    """Measure the ground truth of windows from their records and the event log.

    Of a date with more than 250,000 predictions, quantiles are those of 125,000 to 250,000, chosen
    by their ids: the same however often they are measured.

    Args:
        store: The store.
        spec: The model.
        windows: Windows whose records are up to date.
        now: The present moment.
        dataset: Whose records.
        log: What the records were made from, if it is at hand.

    Returns:
        Window start -> what was measured; a window without records is absent, and so is every
        window of a model without ground truth.
    """
    if not windows or not spec.has_actuals:
        return {}
    pinned = (log or store.records_log(spec)).pinned()
    of_date = by_date(windows)
    found = (
        store.query(
            _lags_sql(store, spec, pinned, group, of_date, now, dataset),
            pinned.arrival_tables(group),
        )
        for group in groups_of(pinned.count_rows(set(of_date)), LAGS_AT_ONCE)
        if not group.bucket.first  # of so many, the first bucket of the ids is sample enough
    )
    rows = [row for table in found for row in table.to_pylist()]
    return {
        row["window_start"].astimezone(UTC): GroundTruthLag(
            row["exempt"],
            json.dumps(
                {
                    f"{name}_hours": dict(
                        zip(QUANTILES, (round(hours, 2) for hours in row[name]), strict=True)
                    )
                    for name in ("known", "arrived")
                    if row[name] and None not in row[name]
                }
            ),
            _encode_arrivals(
                row["expected"],
                {name: row[f"{name}_ages"] or () for name in ("arrived", "known")},
                {name: row[name] for name in ("future", "early")},
            ),
        )
        for row in rows
    }


def _encode_arrivals(
    n: int, ages_of: Mapping[str, Iterable[tuple[str, int]]], odd: Mapping[str, int]
) -> str:
    """Return the arrivals of a window as JSON; of ages of the grid, with the fewest bytes.

    Args:
        n: Predictions that ground truth is expected for.
        ages_of: ``arrived`` and ``known``: age, band and class, as in ``12:4:1``, and how many.
        odd: How many are known in the ``future`` and too ``early``.
    """
    found: dict[str, object] = {"n": n}
    for name, counted in ages_of.items():
        split = [(key.split(":", 2), count) for key, count in counted]
        is_merged = len({actual for (_, _, actual), _ in split}) > MOST_CLASSES
        n_bands = max((int(band) for (_, band, _), _ in split), default=1)
        by_class: dict[str, dict[int, list[int]]] = {}
        for (age, band, actual), count in split:
            ages = by_class.setdefault("" if is_merged else actual, {})
            ages.setdefault(age_step(int(age)), [0] * n_bands)[int(band) - 1] += count
        found[name] = {
            actual: [[age, *counts] for age, counts in sorted(ages.items())]
            for actual, ages in sorted(by_class.items())
        }
    found |= {name: count for name, count in odd.items() if count}
    return json.dumps(found, separators=(",", ":"))


def _lags_sql(
    store: Store,
    spec: ModelSpec,
    log: PinnedRecords,
    group: Group,
    of_date: dict[str, list[Window]],
    now: datetime,
    dataset: str,
) -> str:
    """Return the statement that counts exempt records and measures lags of those in a bucket."""
    windows = [window for date in sorted(group.dates) for window in of_date[date]]
    records = store.inference_records(spec).from_sql(windows, [dataset])
    columns = ["prediction_id", "ingested_at"]
    actuals = log.sql("actuals", columns, group.dates | {UNMATCHED}, bucket=group.bucket)
    is_asked = "TRUE" if group.bucket == EVERY_ID else group.bucket.sql()
    levels = list(QUANTILES.values())
    ends = ", ".join(f"({literal(w.start)}, {literal(w.end)})" for w in windows)
    has_classes = task_of(spec).answer in ("label", "class")
    actual = "CAST(actual AS VARCHAR)" if has_classes else "''"
    unit = age_unit(spec.time).total_seconds()

    def key(moment: str, band: str = "1") -> str:
        age = f"greatest(ceil(epoch({moment} - window_end) / {unit}), 0)"
        return f"CAST(CAST({age} AS BIGINT) AS VARCHAR) || ':' || {band} || ':' || {actual}"

    exempt, where = exempt_sql(spec), ""
    if exempt is None:  # only of these is anything counted
        exempt, where, is_asked = "FALSE", f"WHERE {is_asked}", "TRUE"
    is_odd = f"(actual_time > {literal(now)} OR actual_time < event_time)"
    came = "actual IS NOT NULL AND is_asked"
    return f"""SELECT window_start,
            COUNT(*) FILTER (WHERE {exempt}) AS exempt,
            COUNT(*) FILTER (WHERE is_asked AND NOT coalesce({exempt}, FALSE)) AS expected,
            quantile_cont(epoch(actual_time - event_time) / 3600, {levels})
                FILTER (WHERE {came}) AS known,
            quantile_cont(epoch(arrived - event_time) / 3600, {levels})
                FILTER (WHERE {came}) AS arrived,
            histogram({key("actual_time")}) FILTER (
                WHERE {came} AND actual_time IS NOT NULL AND NOT {is_odd}) AS known_ages,
            histogram({key("arrived", "band")}) FILTER (
                WHERE {came} AND arrived IS NOT NULL) AS arrived_ages,
            COUNT(*) FILTER (WHERE {came} AND actual_time > {literal(now)}) AS future,
            COUNT(*) FILTER (WHERE {came} AND actual_time < event_time) AS early
        FROM (
            SELECT *, {is_asked} AS is_asked, {_band_sql(spec)} AS band FROM {records} {where}
        ) AS r
        JOIN (VALUES {ends}) AS w(begins, window_end) ON w.begins = r.window_start
        LEFT JOIN (
            SELECT prediction_id, MIN(ingested_at) AS arrived FROM {actuals} GROUP BY prediction_id
        ) AS a ON a.prediction_id = r.prediction_id
        GROUP BY window_start"""


def _band_sql(spec: ModelSpec) -> str:
    """Return the band of a labelled row among those of its class: its score, decision or error.

    Of a regression they are quarters of the errors; of sets of labels whether they are right, and
    whether there are several; tasks without such have one band.
    """
    has_decision = spec.columns.prediction is not None
    is_class = "actual"
    if spec.task == "binary_classification":
        if spec.columns.score is None:
            return "1 + CAST(coalesce(prediction, 0) AS INTEGER)" if has_decision else "1"
        value = "score"
    elif spec.task in NAMED:
        band = "1 + CAST(coalesce(prediction = actual, FALSE) AS INTEGER)"
        has_several = f"CAST(contains(actual, {literal(BETWEEN)}) AS INTEGER)"
        return f"{band} + 2 * {has_several}" if spec.task == MULTILABEL else band
    elif spec.task == "regression":
        value, is_class = "prediction - actual", "actual IS NULL"
    else:
        return "1"
    # Ties are told apart by the ids, which say nothing of when ground truth comes.
    return (
        f"ntile(4) OVER (PARTITION BY window_start, {is_class} "
        f"ORDER BY {value}, hash(prediction_id))"
    )
