"""Every metric ever computed: recomputation adds a version, readers see the newest.

The newest version of each metric of each window is a row of ``sample``. One that is computed
again, or not found any more, moves to ``sample_history`` with the time at which it was replaced.

A sample is a few numbers; the texts that it repeats in every window stand in tables of their own,
once. Whoever adds to these holds the lock of the model, see `lock_models`.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects.postgresql import ARRAY

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.schema import METRIC_COLUMNS, SERIES, WINDOW
from mlmon_dagster.store.state.sql import (
    Bind,
    Columns,
    Query,
    between,
    fetch_rows,
    fetch_value,
    fetch_values,
    insert,
    make_frame,
    make_texts,
    quote_identifier,
    read_columns,
)

if TYPE_CHECKING:
    import pandas as pd


SHARED = {"run": "run_id", "baseline": "baseline_id"}  # columns with numbers of shared texts
PROVENANCE = ("baseline_kind", "data_version", "maturity", "reason", "actual_coverage",
              "computed_at")  # fmt: skip
_LOCK = 0x6D6C6D  # of PostgreSQL's advisory locks; the second number is the model's
_ROWS_A_STATEMENT = 500  # rows a statement


_Key = tuple[Any, ...]  # of values that tell rows apart


def lock_models(conn: sa.Connection, models: Sequence[str]) -> None:
    """Hold other writers of these models' metrics off until the transaction ends.

    On SQLite a write transaction holds off everybody already.
    """
    if conn.dialect.name == "postgresql":
        for model in sorted(models):
            lock = sa.func.pg_advisory_xact_lock(_LOCK, sa.func.hashtext(model))
            conn.execute(sa.select(lock))


def series_numbers(conn: sa.Connection, wanted: Sequence[_Key]) -> list[int]:
    """Return the number of each series, new ones for those that are new.

    Args:
        conn: A write transaction that holds the models' locks.
        wanted: The texts `SERIES` of each.
    """
    chosen = {name: sorted({key[at] for key in wanted}) for at, name in enumerate(SERIES[:2])}
    query = _select_series(*chosen)
    known = _find_numbers(conn, schema.series, SERIES, wanted, query, chosen)
    return [known[key] for key in wanted]


def _number_rows(
    conn: sa.Connection, query: Query, parameters: Mapping[str, object]
) -> dict[_Key, int]:
    """Return the number of each row, which comes first, by the rest of the row."""
    return {tuple(key): number for number, *key in fetch_rows(conn, query, parameters)}


# Statements are made once, as making one costs more than executing it on a few rows.
@cache
def _select_series(*names: str) -> Query:
    """Select the series by some of their texts, of each of which parameters are a list."""
    c = schema.series.c
    chosen = (c[name].in_(sa.bindparam(name, expanding=True)) for name in names)
    return sa.select(c.id, *(c[name] for name in SERIES)).where(*chosen)


@cache
def _select_provenance(*names: str) -> Query:
    """Select what samples have in common, with their windows and texts, by conditions."""
    c, w = schema.provenance.c, schema.metric_window.c
    conditions = {
        "model": w.model.in_(sa.bindparam("model", expanding=True)),
        "granularity": w.granularity == sa.bindparam("granularity"),
        "start": w.window_start >= sa.bindparam("start"),
        "end": w.window_start < sa.bindparam("end"),
        "as_of": c.computed_at <= sa.bindparam("as_of"),
    }
    texts = {column: schema.shared_text.alias() for column in SHARED}
    query = (
        sa.select(c.id, w.window_start, w.window_end, w.granularity, c.n, c.n_baseline)
        .add_columns(*(c[name] for name in PROVENANCE))
        .add_columns(*(texts[column].c.text.label(name) for column, name in SHARED.items()))
        .join_from(schema.provenance, schema.metric_window, w.id == c.window_id)
        .where(*(conditions[name] for name in names))
    )
    for column, table in texts.items():
        query = query.join(table, table.c.id == c[column])
    return query


_SAMPLE = tuple(schema.sample.c.keys())
_VERSIONS = (schema.sample, schema.sample_history)


@cache
def _select_samples(dialect: str, table: sa.Table, by: str) -> Query:
    """Select samples of some series and provenances, of the history those replaced after a time.

    PostgreSQL takes numbers as an array and knows by itself which index is the better one. SQLite
    takes them as JSON, and the index of the one column that is not made an expression.
    """
    c = table.c
    query = sa.select(*(c[name] for name in _SAMPLE))
    for name in _NUMBERS:
        if dialect == "postgresql":
            query = query.where(c[name] == sa.any_(sa.bindparam(name, type_=ARRAY(sa.Integer))))
        else:
            some = sa.func.json_each(sa.bindparam(name)).table_valued("value")
            query = query.where(
                (c[name] if name == by else c[name] + 0).in_(sa.select(some.c.value))
            )
    if table is schema.sample_history:
        query = query.where(c.replaced_at > sa.bindparam("as_of"))
    return query


_NUMBERS = ("provenance_id", "series_id")


def _note_provenance(
    conn: sa.Connection, rows: Columns
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Note what samples have in common; return the number of each row's, and the counts noted.

    Args:
        conn: A write transaction that holds the models' locks.
        rows: The columns `WINDOW`, `PROVENANCE`, those of `SHARED`, ``n`` and ``n_baseline``, of
            which the most frequent one is noted.
    """
    names = (*WINDOW, *SHARED.values(), *PROVENANCE)
    keys = _list_rows(rows, names)
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    codes = [places[key] for key in keys]
    distinct = [dict(zip(names, key, strict=True)) for key in places]
    for row in distinct:
        row |= {name: row[name].replace(tzinfo=UTC) for name in _TIMES}
    keys_of = [tuple(row[name] for name in WINDOW) for row in distinct]
    starts = [row["window_start"] for row in distinct]
    models = sorted({row["model"] for row in distinct})
    among = {"models": models, "first": min(starts), "last": max(starts)}
    windows = _find_numbers(conn, schema.metric_window, WINDOW, keys_of, _SOME_WINDOWS, among)
    named = sorted({(row[name],) for name in SHARED.values() for row in distinct})
    some = {"t": [text for (text,) in named]}
    texts = _find_numbers(conn, schema.shared_text, ("text",), named, _SOME_TEXTS, some)
    counts = {name: _most_frequent(codes, rows[name]) for name in _COUNTS}
    records = [
        {
            "window_id": windows[keys_of[place]],
            **{column: texts[row[name],] for column, name in SHARED.items()},
            **{name: row[name] for name in PROVENANCE},
            **{name: counts[name][place] for name in _COUNTS},
        }
        for place, row in enumerate(distinct)
    ]
    numbers = np.array(list(conn.scalars(_ADD_PROVENANCE, records)), dtype=np.int64)
    return numbers[codes], {name: np.array(counts[name])[codes] for name in _COUNTS}


_ADD_PROVENANCE = sa.insert(schema.provenance).returning(
    schema.provenance.c.id, sort_by_parameter_order=True
)


def _most_frequent(codes: Sequence[int], values: NDArray[np.int64]) -> list[int]:
    """Return the most frequent value of each code."""
    best: dict[int, tuple[int, int]] = {}
    for (code, number), size in Counter(zip(codes, values.tolist(), strict=True)).items():
        best[code] = max(best.get(code, (0, 0)), (size, number))
    return [best[code][1] for code in sorted(best)]


def _find_numbers(
    conn: sa.Connection,
    table: sa.Table,
    names: Sequence[str],
    wanted: Iterable[_Key],
    query: Query,
    parameters: Mapping[str, object],
) -> dict[_Key, int]:
    """Return the numbers of rows that a query finds, those of new rows too."""
    known = _number_rows(conn, query, parameters)
    if new := sorted(set(wanted) - known.keys()):
        _insert_missing(conn, table, names, new)
        known = _number_rows(conn, query, parameters)
    return known


_SOME_WINDOWS = sa.select(
    schema.metric_window.c.id, *(schema.metric_window.c[name] for name in WINDOW)
).where(
    schema.metric_window.c.model.in_(sa.bindparam("models", expanding=True)),
    schema.metric_window.c.window_start.between(sa.bindparam("first"), sa.bindparam("last")),
)
_SOME_TEXTS = sa.select(schema.shared_text.c.id, schema.shared_text.c.text).where(
    schema.shared_text.c.text.in_(sa.bindparam("t", expanding=True))
)


def _insert_missing(
    conn: sa.Connection, table: sa.Table, names: Sequence[str], rows: Sequence[_Key]
) -> None:
    """Insert rows, sorted ones so that no two writers wait for each other, that are not there."""
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        some = [
            dict(zip(names, row, strict=True)) for row in rows[start : start + _ROWS_A_STATEMENT]
        ]
        conn.execute(insert(conn, table).values(some).on_conflict_do_nothing())


_REQUIRED = ("model", "dataset", "window_start", "window_end", "granularity", "metric",
             "method_version", "data_version", "computed_at")  # fmt: skip
_DEFAULTS: dict[str, str | int | float] = {
    "model_version": ALL, "slice_key": ALL, "slice_value": ALL, "column_name": TABLE,
    "baseline_kind": "none", "baseline_id": "none", "maturity": "", "reason": "", "run_id": "",
    "n": 0, "n_baseline": 0,
    **dict.fromkeys(
        ("value", "lower", "upper", "p_value", "by_chance", "actual_coverage"), float("nan")
    ),
}  # fmt: skip
_TIMES = ("window_start", "window_end", "computed_at")
_COUNTS = ("n", "n_baseline")
_FLOATS = ("value", "lower", "upper", "p_value", "by_chance", "actual_coverage")
# Metrics of a window that are computed together, and which one of them a row is.
_TOGETHER = ("model", "dataset", "window_start", "granularity", "metric")
_IDENTITY = (*_TOGETHER, "model_version", "slice_key", "slice_value", "column_name")
# What a row says beside when and by which run.
_SAID = ("baseline_id", "method_version", "data_version", "value", "lower", "upper", "n",
         "n_baseline", "baseline_kind", "p_value", "by_chance", "actual_coverage", "maturity",
         "reason", "window_end")  # fmt: skip
_CHUNK = 50_000  # rows a statement that copies them
_AT_ONCE = 10_000  # numbers a statement
_FEW = 4  # fewer series than a quarter of the provenances are looked up by series


def append(engine: sa.Engine, frame: pd.DataFrame) -> int:
    """Store metrics; repeating is harmless, and nothing that was ever read is lost.

    A row that says again what the newest one of its window says is left out, so that its time
    stays that of the first computation. What is computed together are the rows of a metric in a
    window: one of another data version replaces all that there are, also those of slices and
    columns that it does not have; one of the same data version joins the others.

    Args:
        engine: The state database.
        frame: Columns of the view ``mlmon_metric``; absent ones get defaults. Required: model,
            dataset, window_start, window_end (UTC), granularity, metric, method_version,
            data_version, computed_at. Not-a-number and infinite values are stored as NULL.

    Returns:
        The number of rows given, each of which is now the newest of its kind.

    Raises:
        StoreError: If a column is unknown or missing, or a key is null.
    """
    unknown = sorted(set(frame.columns) - set(METRIC_COLUMNS))
    missing = sorted(set(_REQUIRED) - set(frame.columns))
    if unknown or missing:
        raise StoreError(f"Metrics have unknown columns {unknown} and lack the columns {missing}.")
    if frame.empty:
        return 0
    rows = _check_frame(frame)
    is_distance = ~np.isnan(rows["by_chance"])
    rows = {**rows, "ends": np.where(is_distance, "chance", "").astype(object)}
    even = _even_end(rows["value"], rows["lower"])
    if not np.array_equal(even[is_distance], rows["upper"][is_distance], equal_nan=True):
        raise StoreError("The interval of a distance reaches not as far up as it does down.")
    newest = {key: at for at, key in enumerate(_list_rows(rows, (*_IDENTITY, "data_version")))}
    if len(newest) < len(frame):
        rows = _take(rows, sorted(newest.values()))
    by_version: dict[str, list[int]] = {}
    for place, version in enumerate(rows["data_version"].tolist()):
        by_version.setdefault(version, []).append(place)
    several = len({key[:-1] for key in newest}) < len(newest)
    with engine.begin() as conn:
        lock_models(conn, list(set(rows["model"].tolist())))
        numbers = np.array(series_numbers(conn, _list_rows(rows, SERIES)), dtype=np.int64)
        rows = {**rows, "series_id": numbers}
        for some in [_take(rows, places) for places in by_version.values()] if several else [rows]:
            _add(conn, some)
    return len(frame)


def _list_rows(columns: Columns, names: Sequence[str]) -> list[_Key]:
    """Return rows as tuples that can be compared: naive times in UTC, None for not-a-number."""
    return list(zip(*(_list_values(columns[name]) for name in names), strict=True))


def _list_values(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind == "f" and (is_nan := np.isnan(values)).any():
        values = _leave_out(values, is_nan)
    listed: list[Any] = values.tolist()
    return listed


def _leave_out(values: NDArray[Any], is_out: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Return values, some of which become None."""
    kept = values.astype(object)
    kept[is_out] = None
    return kept


def _take(columns: Columns, places: Sequence[int] | NDArray[np.intp]) -> Columns:
    return {name: values[places] for name, values in columns.items()}


def _check_frame(frame: pd.DataFrame) -> Columns:
    """Return all columns in their types, absent ones as their defaults."""
    columns: dict[str, NDArray[Any]] = {}
    for name in METRIC_COLUMNS:
        if name not in frame:
            kind = object if isinstance(_DEFAULTS[name], str) else None
            columns[name] = np.full(len(frame), _DEFAULTS[name], dtype=kind)
            continue
        try:
            columns[name] = _set_types(frame[name], name)
        except (TypeError, ValueError) as error:
            raise StoreError(f"Column {name!r} of metrics: {error}") from error
    return columns


def _set_types(values: pd.Series[Any], name: str) -> NDArray[Any]:
    import pandas as pd

    if name in _FLOATS:
        numbers = values.to_numpy(dtype="float64", na_value=np.nan)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    if name not in (*_COUNTS, *_TIMES):
        texts = values.tolist()
        wrong = (
            [] if set(map(type, texts)) == {str} else [t for t in texts if not isinstance(t, str)]
        )
        if wrong and not pd.isna(wrong).any():
            raise ValueError(f"holds {wrong[0]!r}, which is no text")
        if wrong:
            raise ValueError("must not be null")
        return make_texts(texts)
    if values.isna().any():
        raise ValueError("must not be null")
    if name in _COUNTS:
        return pd.to_numeric(values).to_numpy(dtype="int64")
    times = pd.to_datetime(values)
    if times.dt.tz is None:
        raise ValueError("times must be timezone-aware; pass UTC")
    return times.to_numpy("datetime64[us]")  # in UTC, of which numpy knows nothing


def _add(conn: sa.Connection, rows: Columns) -> None:
    """Store rows of one data version each window and metric, and retire what they replace."""
    rows = _retire_replaced(conn, rows)
    if not len(rows["series_id"]):
        return
    numbers, noted = _note_provenance(conn, rows)
    lower, upper = stored_ends(*(rows[name] for name in _FLOATS[:3]))
    is_distance = rows["ends"] == "chance"
    lower = np.where(is_distance, rows["lower"], lower)
    upper = np.where(is_distance, rows["by_chance"], upper)
    own = {name: _leave_out(rows[name], rows[name] == noted[name]) for name in _COUNTS}
    samples = {**rows, **own, "provenance_id": numbers, "lower": lower, "upper": upper}
    order = np.lexsort((rows["series_id"], numbers))
    _write(conn, schema.sample, {name: _list_values(samples[name][order]) for name in _SAMPLE})


def stored_ends(
    value: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of intervals as they are stored: not at all where they are the value.

    Half of all intervals begin or end at the value, rates of nothing above all; two numbers less
    are a fifth of a sample. What is read back is the same to the last bit.
    """
    has_lower, has_upper = ~np.isnan(lower), ~np.isnan(upper)
    lower = np.where(has_upper & ~has_lower, -np.inf, lower)
    upper = np.where(has_lower & ~has_upper, np.inf, upper)
    bits = value.view(np.int64)
    at_lower = has_lower & (lower.view(np.int64) == bits) & (upper.view(np.int64) != bits)
    at_upper = has_upper & (upper.view(np.int64) == bits)
    return np.where(at_lower, np.nan, lower), np.where(at_upper, np.nan, upper)


def _even_end(value: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upper ends of intervals that reach as far up as they do down."""
    upper: NDArray[np.float64] = value + (value - lower)
    return upper


def _retire_replaced(conn: sa.Connection, rows: Columns) -> Columns:
    """Move what rows replace to the history; return those that say something new."""
    starts = rows["window_start"]
    models = sorted(set(rows["model"].tolist()))
    last = starts.max().item().replace(tzinfo=UTC) + timedelta(microseconds=1)
    stored = _read(
        conn,
        {"model": models, "metric": sorted(set(rows["metric"].tolist()))},
        {"model": models, "start": starts.min().item().replace(tzinfo=UTC), "end": last},
    )
    if not len(stored["series_id"]):
        return rows
    together: dict[_Key, tuple[str, datetime]] = {}
    for key, version, moment in zip(
        _list_rows(rows, _TOGETHER), rows["data_version"], rows["computed_at"].tolist(), strict=True
    ):
        before = together.get(key)
        together[key] = (version, max(moment, before[1]) if before else moment)
    places = {key: place for place, key in enumerate(_list_rows(rows, _IDENTITY))}
    said = _list_rows(rows, _SAID)
    again = np.zeros(len(starts), dtype=bool)
    gone: dict[int, tuple[datetime, list[int]]] = {}
    for identity, before, number, series in zip(
        _list_rows(stored, _IDENTITY),
        _list_rows(stored, _SAID),
        stored["provenance_id"].tolist(),
        stored["series_id"].tolist(),
        strict=True,
    ):
        version, moment = together.get(identity[: len(_TOGETHER)], (None, None))
        if moment is None:
            continue
        if before[_VERSION] == version:
            place = places.get(identity)
            if place is None:
                continue
            if said[place] == before:
                again[place] = True
                continue
        gone.setdefault(number, (moment, []))[1].append(series)
    _retire(conn, gone)
    return _take(rows, ~again)


_VERSION = _SAID.index("data_version")


def _retire(conn: sa.Connection, gone: Mapping[int, tuple[datetime, list[int]]]) -> None:
    """Move samples, the series of each provenance, to the history at a time."""
    # Most windows have the same series, and those that do go by one statement.
    alike: dict[tuple[datetime, tuple[int, ...]], list[int]] = {}
    for number, (moment, series) in gone.items():
        alike.setdefault((moment, tuple(sorted(series))), []).append(number)
    for (moment, among), numbers in alike.items():
        for start in range(0, len(among), _AT_ONCE):
            mine = {"numbers": numbers, "among": among[start : start + _AT_ONCE]}
            conn.execute(_KEEP, {**mine, "moment": moment.replace(tzinfo=UTC)})
            conn.execute(_DROP, mine)


_MINE = (
    schema.sample.c.provenance_id.in_(sa.bindparam("numbers", expanding=True)),
    schema.sample.c.series_id.in_(sa.bindparam("among", expanding=True)),
)
_MOMENT = sa.bindparam("moment", type_=schema.sample_history.c.replaced_at.type)
_KEEP = sa.insert(schema.sample_history).from_select(
    [*_SAMPLE, "replaced_at"], sa.select(*schema.sample.c, _MOMENT).where(*_MINE)
)
_DROP = sa.delete(schema.sample).where(*_MINE)


def _read(
    conn: sa.Connection,
    of_series: Mapping[str, Sequence[str]],
    of_window: Mapping[str, object],
) -> Columns:
    """Read the newest samples of some series and windows, with all that is known of them.

    Args:
        conn: Any transaction.
        of_series: What `_select_series` chooses by.
        of_window: What `_select_provenance` chooses by; ``as_of`` also takes in the history.

    Returns:
        `METRIC_COLUMNS` and the two numbers, ordered by window, slice, column and name.
    """
    known = read_columns(conn, _select_provenance(*of_window), of_window)
    series = _read_series(conn, of_series)
    numbers = {"provenance_id": known["id"].tolist(), "series_id": series["id"].tolist()}
    by = "series_id" if len(series["id"]) < len(known["id"]) / _FEW else "provenance_id"
    dialect = conn.dialect.name
    is_json = dialect != "postgresql"
    some: dict[str, object] = {n: json.dumps(v) if is_json else v for n, v in numbers.items()}
    samples = read_columns(conn, _select_samples(dialect, schema.sample, by), some)
    if "as_of" in of_window:
        query = _select_samples(dialect, schema.sample_history, "provenance_id")
        replaced = read_columns(conn, query, {**some, "as_of": of_window["as_of"]})
        samples = {name: np.concatenate([samples[name], replaced[name]]) for name in _SAMPLE}
    at, under = _places(series, samples["series_id"]), _places(known, samples["provenance_id"])
    order = np.lexsort((at, known["window_start"][under]))
    at, under = at[order], under[order]
    found = _take(samples, order)
    columns = {
        **found,
        **{name: series[name][at] for name in SERIES},
        **{name: known[name][under] for name in (*WINDOW[1:], *SHARED.values(), *PROVENANCE)},
    }
    value, stored_lower, stored_upper = (found[name] for name in _FLOATS[:3])
    lower, upper = read_ends(value, stored_lower, stored_upper)
    is_distance = columns["ends"] == "chance"
    columns["lower"] = np.where(is_distance, stored_lower, lower)
    columns["upper"] = np.where(is_distance, _even_end(value, stored_lower), upper)
    columns["by_chance"] = np.where(is_distance, stored_upper, np.nan)
    for name in _COUNTS:
        own = found[name].astype(np.float64)
        columns[name] = np.where(np.isnan(own), known[name][under], own).astype(np.int64)
    return {name: columns[name] for name in (*METRIC_COLUMNS, *_NUMBERS)}


def _places(table: Columns, numbers: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return where the row of each number is."""
    order = np.argsort(table["id"])
    return order[np.searchsorted(table["id"][order], numbers)]


def _read_series(conn: sa.Connection, chosen: Mapping[str, Sequence[str]]) -> Columns:
    """Return series in the order that people read them in."""
    order = ("slice_key", "slice_value", "column_name", "metric", "dataset", "model_version")
    series = read_columns(conn, _select_series(*chosen), chosen)
    keys = _list_rows(series, order)
    # Numpy takes ten times as long to sort few rows by six texts.
    return _take(series, sorted(range(len(keys)), key=keys.__getitem__))


def read_ends(
    value: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of intervals as they were given to `stored_ends`."""
    no_lower, no_upper = np.isnan(lower), np.isnan(upper)
    lower = np.where(no_lower & ~no_upper, value, lower)
    upper = np.where(no_upper & ~no_lower, value, upper)
    return np.where(np.isinf(lower), np.nan, lower), np.where(np.isinf(upper), np.nan, upper)


def newest(
    engine: sa.Engine,
    model: str,
    *,
    metric: str | Sequence[str] | None = None,
    column: str | Sequence[str] | None = None,
    slice_key: str | None = None,
    slice_value: str | None = None,
    dataset: str | None = None,
    model_version: str | None = None,
    granularity: str | None = None,
    baseline_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    as_of: datetime | None = None,
) -> pd.DataFrame:
    """Return the newest version of each metric.

    Of a window's data versions the one computed last counts: a slice or column that it no
    longer has is gone. Of several versions of the method or the baseline, again the last.

    Args:
        engine: The state database.
        model: The model's name.
        metric: One name or several; all by default.
        column: One ``column_name`` or several; all by default.
        slice_key: All slices by default; ``all`` for the whole.
        slice_value: As ``slice_key``.
        dataset: All by default.
        model_version: All by default; the value ``all`` is the metric over all versions.
        granularity: All by default.
        baseline_id: Only metrics against this baseline.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
        as_of: Only what was computed at or before this time.

    Returns:
        The columns of the view ``mlmon_metric``, ordered by window, slice, column and name.
    """
    of_series = {
        name: [value] if isinstance(value, str) else list(value)
        for name, value in {
            "model": model, "metric": metric, "column_name": column, "slice_key": slice_key,
            "slice_value": slice_value, "dataset": dataset, "model_version": model_version,
        }.items()
        if value is not None
    }  # fmt: skip
    limits = {"granularity": granularity, "start": start, "end": end, "as_of": as_of}
    of_window = {name: value for name, value in limits.items() if value is not None}
    with engine.connect() as conn:
        found = _read(conn, of_series, {"model": [model], **of_window})
    if baseline_id is not None:
        found = _take(found, found["baseline_id"] == baseline_id)
    return make_frame({name: found[name] for name in METRIC_COLUMNS})


def list_series(engine: sa.Engine, model: str) -> set[tuple[str, str]]:
    """Return the metrics that a model has, each with the column that it is about."""
    c = schema.series.c
    query = sa.select(c.metric, c.column_name).distinct().where(c.model == model)
    return {(metric, column) for metric, column in fetch_rows(engine, query)}


def window_starts(
    engine: sa.Engine, model: str, start: datetime | None = None, end: datetime | None = None
) -> list[datetime]:
    """Return the starts of a model's windows that have metrics, oldest first.

    Args:
        engine: The state database.
        model: The model's name.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
    """
    moment = schema.metric_window.c.window_start
    mine = schema.metric_window.c.model == model
    wanted = between(moment, start, end)
    query = sa.select(moment).distinct().where(mine, *wanted).order_by(moment)
    return fetch_values(engine, query)


def count_newest(engine: sa.Engine, model: str) -> tuple[int, int]:
    """Return how many numbers the newest window of a model has, and how many are of slices."""
    s, p, w = schema.series.c, schema.provenance.c, schema.metric_window.c
    last = sa.select(sa.func.max(w.window_start)).where(w.model == model).scalar_subquery()
    mine = (
        sa.select(sa.func.count(), sa.func.count().filter(s.slice_key != ALL))
        .select_from(schema.sample)
        .join(schema.series, s.id == schema.sample.c.series_id)
        .join(schema.provenance, p.id == schema.sample.c.provenance_id)
        .join(schema.metric_window, w.id == p.window_id)
        .where(w.model == model, w.window_start == last)
    )
    [(whole, of_slices)] = fetch_rows(engine, mine)
    return int(whole), int(of_slices)


def size_of(bind: Bind, model: str) -> tuple[int, datetime | None]:
    """Return how many metrics of a model there are, in their newest versions, and the last time."""
    s, p, w = schema.series, schema.provenance, schema.metric_window
    n = sa.select(sa.func.count()).join_from(s, schema.sample, schema.sample.c.series_id == s.c.id)
    last = sa.select(sa.func.max(p.c.computed_at, type_=p.c.computed_at.type))
    last = last.join_from(p, w, w.c.id == p.c.window_id).where(w.c.model == model)
    return int(fetch_value(bind, n.where(s.c.model == model)) or 0), fetch_value(bind, last)


def forget_rare(
    conn: sa.Connection, model: str, dataset: str, starts: Sequence[datetime], bound: int
) -> None:
    """Delete all versions of the metrics of some windows that rest on fewer rows than a bound."""
    s, p, w = schema.series.c, schema.provenance.c, schema.metric_window.c
    series = sa.select(s.id).where(s.model == model, s.dataset == dataset)
    under = sa.select(p.id).join_from(
        schema.provenance, schema.metric_window, w.id == p.window_id
    ).where(w.model == model, w.window_start.in_(starts))  # fmt: skip
    for table in _VERSIONS:
        c = table.c
        few = (c.n < bound) | (c.n.is_(None) & c.provenance_id.in_(under.where(p.n < bound)))
        mine = (c.provenance_id.in_(under), c.series_id.in_(series))
        conn.execute(sa.delete(table).where(*mine, few))


def forget_slices(conn: sa.Connection, model: str, values: Sequence[str]) -> None:
    """Delete all versions of the metrics of slices with some values, and these series."""
    s = schema.series.c
    _forget_series(conn, s.model == model, s.slice_value.in_(values))


def forget_model(conn: sa.Connection, model: str) -> None:
    """Delete all metrics of a model."""
    p, w = schema.provenance, schema.metric_window
    _forget_series(conn, schema.series.c.model == model)
    windows = sa.select(w.c.id).where(w.c.model == model)
    conn.execute(sa.delete(p).where(p.c.window_id.in_(windows)))
    conn.execute(sa.delete(w).where(w.c.model == model))


def _forget_series(conn: sa.Connection, *conditions: sa.ColumnElement[bool]) -> None:
    numbers = sa.select(schema.series.c.id).where(*conditions)
    for table in _VERSIONS:
        conn.execute(sa.delete(table).where(table.c.series_id.in_(numbers)))
    conn.execute(sa.delete(schema.series).where(*conditions))


def _write(conn: sa.Connection, table: sa.Table, columns: Mapping[str, list[Any]]) -> None:
    """Insert rows of numbers."""
    listed = ", ".join(map(quote_identifier, columns))
    into = f"{quote_identifier(table.name)} ({listed})"
    if conn.dialect.name == "postgresql":
        _copy(conn, table, into, columns)
        return
    marks = ", ".join("?" * len(columns))
    rows = list(zip(*columns.values(), strict=True))
    conn.exec_driver_sql(f"INSERT INTO {into} VALUES ({marks})", rows)


def _copy(
    conn: sa.Connection, table: sa.Table, into: str, columns: Mapping[str, list[Any]]
) -> None:
    import pyarrow as pa
    from pyarrow import csv

    types = {
        name: pa.float64() if isinstance(table.c[name].type, sa.Float) else pa.int64()
        for name in columns
    }
    rows = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    cursor = conn.connection.cursor()
    for start in range(0, len(rows), _CHUNK):
        text = io.BytesIO()
        csv.write_csv(
            rows.slice(start, _CHUNK),
            text,
            csv.WriteOptions(include_header=False, quoting_style="needed"),
        )
        text.seek(0)
        cursor.copy_expert(f"COPY {into} FROM STDIN WITH (FORMAT csv)", text)
    cursor.close()
