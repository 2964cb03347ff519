"""Every metric ever computed: recomputation adds a version, readers see the newest.

The newest version of each metric of each window is a row of ``sample``. One that is computed
again, or not found any more, moves to ``sample_history`` with the time at which it was replaced.

A sample is a few numbers; the texts that it repeats in every window stand in tables of their own,
once. Whoever adds to these holds the lock of the model, see `lock_models`.
"""

from __future__ import annotations

import io
import json
import operator
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.dialects.postgresql import ARRAY

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.schema import METRIC_COLUMNS
from mlmon_dagster.store.state.sql import between, frame_of, insert, quote_identifier

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


SERIES = ("model", "metric", "column_name", "slice_key", "slice_value", "dataset",
          "model_version", "method_version")  # fmt: skip
WINDOW = ("model", "window_start", "window_end", "granularity")
SHARED = {"run": "run_id", "baseline": "baseline_id"}  # columns with numbers of shared texts
PROVENANCE = ("baseline_kind", "data_version", "maturity", "reason", "actual_coverage",
              "computed_at")  # fmt: skip
_LOCK = 0x6D6C6D  # of PostgreSQL's advisory locks; the second number is the model's
_ROWS_A_STATEMENT = 500  # rows a statement


class _Known(NamedTuple):
    """The series of a model, as last read; numbers are never given twice, so two of them tell."""

    size: int
    last: int
    numbers: dict[tuple[str, ...], int]


_known: weakref.WeakKeyDictionary[sa.Engine, dict[str, _Known]] = weakref.WeakKeyDictionary()


def lock_models(conn: sa.Connection, models: Sequence[str]) -> None:
    """Hold other writers of these models' metrics off until the transaction ends.

    On SQLite a write transaction holds off everybody already.
    """
    if conn.dialect.name == "postgresql":
        for model in sorted(models):
            lock = sa.func.pg_advisory_xact_lock(_LOCK, sa.func.hashtext(model))
            conn.execute(sa.select(lock))


def series_numbers(conn: sa.Connection, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Return the number of each row's series, new ones for those that are new.

    Args:
        conn: A write transaction that holds the models' locks.
        frame: The columns `SERIES`.
    """
    codes, distinct = _find_distinct(frame, SERIES)
    wanted = list(distinct.itertuples(index=False, name=None))
    known: dict[tuple[str, ...], int] = {}
    for model in {key[0] for key in wanted}:
        known |= _known_numbers(conn, model)
    if new := sorted(set(wanted) - known.keys()):
        _insert_missing(conn, schema.series, SERIES, new)
        # Not kept in mind: nobody knows yet whether the transaction will be committed.
        for model in {key[0] for key in new}:
            known |= _read_numbers(conn, model)
    return np.array([known[key] for key in wanted], dtype=np.int64)[codes]


def _known_numbers(conn: sa.Connection, model: str) -> dict[tuple[str, ...], int]:
    c = schema.series.c
    size, last = conn.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(c.id), 0)).where(c.model == model)
    ).one()
    cached = _known.setdefault(conn.engine, {}).get(model)
    if cached is None or (cached.size, cached.last) != (size, last):
        cached = _Known(size, last, _read_numbers(conn, model))
        _known[conn.engine][model] = cached
    return cached.numbers


def _read_numbers(conn: sa.Connection, model: str) -> dict[tuple[str, ...], int]:
    c = schema.series.c
    rows = conn.execute(sa.select(c.id, *(c[name] for name in SERIES)).where(c.model == model))
    return {tuple(key): number for number, *key in rows}


def provenance_numbers(
    conn: sa.Connection, frame: pd.DataFrame
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Note what samples have in common; return the number of each row's, and what was noted.

    Args:
        conn: A write transaction that holds the models' locks.
        frame: The columns `WINDOW`, `PROVENANCE`, those of `SHARED`, ``n`` and ``n_baseline``, of
            which the most frequent one is noted.
    """
    codes, distinct = _find_distinct(frame, (*WINDOW, *SHARED.values(), *PROVENANCE))
    windows = _window_numbers(conn, distinct)
    texts = _text_numbers(conn, {t for name in SHARED.values() for t in distinct[name]})
    rows = distinct[list(PROVENANCE)].assign(
        window_id=windows,
        **{column: distinct[name].map(texts) for column, name in SHARED.items()},
        **{name: _most_frequent(codes, frame[name]) for name in ("n", "n_baseline")},
    )
    rows["actual_coverage"] = rows["actual_coverage"].astype(object).where(
        rows["actual_coverage"].notna(), None
    )  # fmt: skip
    rows["computed_at"] = rows["computed_at"].dt.to_pydatetime()
    returning = sa.insert(schema.provenance).returning(
        schema.provenance.c.id, sort_by_parameter_order=True
    )
    records = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    numbers = np.array(list(conn.scalars(returning, records)), dtype=np.int64)
    return numbers[codes], rows[["n", "n_baseline"]].iloc[codes]


def _find_distinct(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return which of the distinct rows each row is, and these rows."""
    import pandas as pd

    codes = np.zeros(len(frame), dtype=np.int64)
    for name in names:
        column, values = pd.factorize(frame[name], use_na_sentinel=False)
        # Renumbered after every column, so that the products stay small.
        codes = pd.factorize(codes * len(values) + column)[0].astype(np.int64)
    _, first = np.unique(codes, return_index=True)
    distinct = frame[list(names)].iloc[first].reset_index(drop=True)
    for name in distinct.columns[distinct.dtypes == "object"]:
        wrong = [value for value in distinct[name] if not isinstance(value, str)]
        if any(value is None or value != value for value in wrong):
            raise StoreError(f"Column {name!r} of metrics must not be null.")
        if wrong:
            raise StoreError(f"Column {name!r} of metrics holds {wrong[0]!r}, which is no text.")
    return codes, distinct


def _most_frequent(codes: NDArray[np.int64], values: pd.Series[int]) -> list[int]:
    """Return the most frequent value of each code."""
    numbers = values.to_numpy(np.int64)
    order = np.lexsort((numbers, codes))
    codes, numbers = codes[order], numbers[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(codes) != 0) | (np.diff(numbers) != 0)])
    sizes = np.diff(np.r_[starts, len(codes)])
    best: dict[int, tuple[int, int]] = {}
    for code, number, size in zip(codes[starts], numbers[starts], sizes, strict=True):
        best[int(code)] = max(best.get(int(code), (0, 0)), (int(size), int(number)))
    return [best[code][1] for code in sorted(best)]


def _window_numbers(conn: sa.Connection, windows: pd.DataFrame) -> list[int]:
    c = schema.metric_window.c
    keys = [
        (model, start.to_pydatetime(), end.to_pydatetime(), granularity)
        for model, start, end, granularity in windows[list(WINDOW)].itertuples(index=False)
    ]
    starts = [key[1] for key in keys]
    query = sa.select(c.id, *(c[name] for name in WINDOW)).where(
        c.model.in_({key[0] for key in keys}), c.window_start.between(min(starts), max(starts))
    )

    def found() -> dict[tuple[object, ...], int]:
        return {tuple(key): number for number, *key in conn.execute(query)}

    known = found()
    if new := sorted(set(keys) - known.keys()):
        _insert_missing(conn, schema.metric_window, WINDOW, new)
        known = found()
    return [known[key] for key in keys]


def _text_numbers(conn: sa.Connection, texts: set[str]) -> dict[str, int]:
    c = schema.shared_text.c
    query = sa.select(c.text, c.id).where(c.text.in_(sorted(texts)))

    def found() -> dict[str, int]:
        return {row.text: row.id for row in conn.execute(query)}

    known = found()
    if new := sorted(texts - known.keys()):
        _insert_missing(conn, schema.shared_text, ("text",), [(text,) for text in new])
        known = found()
    return known


def _insert_missing(
    conn: sa.Connection, table: sa.Table, names: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows, sorted ones so that no two writers wait for each other, that are not there."""
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        some = [
            dict(zip(names, row, strict=True)) for row in rows[start : start + _ROWS_A_STATEMENT]
        ]
        conn.execute(insert(conn, table).values(some).on_conflict_do_nothing())


def series_frame(conn: sa.Connection, conditions: Sequence[sa.ColumnElement[bool]]) -> pd.DataFrame:
    """Return the series that meet conditions, by number, in the order that people read them in."""
    import pandas as pd

    c = schema.series.c
    order = ("slice_key", "slice_value", "column_name", "metric", "dataset", "model_version")
    query = sa.select(c.id, *(c[name] for name in SERIES)).where(*conditions)
    places = [query.selected_columns.keys().index(name) for name in order]
    # Pandas takes ten times as long to sort few rows by six texts.
    rows = sorted(conn.execute(query).all(), key=operator.itemgetter(*places))
    numbers, *texts = zip(*rows, strict=True) if rows else [()] * (1 + len(SERIES))
    columns = {n: pd.Index(t, dtype="object") for n, t in zip(SERIES, texts, strict=True)}
    return pd.DataFrame(columns, index=pd.Index(numbers, dtype="int64", name="id"))


def provenance_frame(
    conn: sa.Connection, conditions: Sequence[sa.ColumnElement[bool]]
) -> pd.DataFrame:
    """Return what samples have in common with their windows and texts, by number."""
    c, w = schema.provenance.c, schema.metric_window.c
    texts = {column: schema.shared_text.alias() for column in SHARED}
    query = (
        sa.select(c.id, w.window_start, w.window_end, w.granularity, c.n, c.n_baseline)
        .add_columns(*(c[name] for name in PROVENANCE))
        .add_columns(*(texts[column].c.text.label(name) for column, name in SHARED.items()))
        .join_from(schema.provenance, schema.metric_window, w.id == c.window_id)
        .where(*conditions)
    )
    for column, table in texts.items():
        query = query.join(table, table.c.id == c[column])
    return frame_of(conn, query).set_index("id")


_REQUIRED = ("model", "dataset", "window_start", "window_end", "granularity", "metric",
             "method_version", "data_version", "computed_at")  # fmt: skip
_DEFAULTS: dict[str, str | int | float] = {
    "model_version": ALL, "slice_key": ALL, "slice_value": ALL, "column_name": TABLE,
    "baseline_kind": "none", "baseline_id": "none", "maturity": "", "reason": "", "run_id": "",
    "n": 0, "n_baseline": 0,
    **dict.fromkeys(("value", "lower", "upper", "p_value", "actual_coverage"), float("nan")),
}  # fmt: skip
_TIMES = ("window_start", "window_end", "computed_at")
_COUNTS = ("n", "n_baseline")
_FLOATS = ("value", "lower", "upper", "p_value", "actual_coverage")
# Metrics of a window that are computed together, and which one of them a row is.
_TOGETHER = ["model", "dataset", "window_start", "granularity", "metric"]
_IDENTITY = [*_TOGETHER, "model_version", "slice_key", "slice_value", "column_name"]
# What a row says beside when and by which run.
_SAID = ("baseline_id", "method_version", "data_version", "value", "lower", "upper", "n",
         "n_baseline", "baseline_kind", "p_value", "actual_coverage", "maturity", "reason",
         "window_end")  # fmt: skip
_SAMPLE = tuple(schema.sample.c.keys())
_CHUNK = 50_000  # rows that are held as Python objects at a time
_AT_ONCE = 10_000  # numbers a statement
_FEW = 4  # fewer series than a quarter of the provenances are looked up by series
_VERSIONS = (schema.sample, schema.sample_history)


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
    rows = _check_frame(frame).drop_duplicates([*_IDENTITY, "data_version"], keep="last")
    with engine.begin() as conn:
        lock_models(conn, rows["model"].unique().tolist())
        rows["series_id"] = series_numbers(conn, rows)
        if rows.duplicated(_IDENTITY).any():
            for _, version in rows.groupby("data_version", sort=False):
                _add(conn, version)
        else:
            _add(conn, rows)
    return len(frame)


def _check_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return all columns in their types, absent ones as their defaults."""
    import pandas as pd

    columns: dict[str, object] = {}
    for name in METRIC_COLUMNS:
        if name not in frame:
            columns[name] = _DEFAULTS[name]
            continue
        try:
            columns[name] = _set_types(frame, name)
        except (TypeError, ValueError) as error:
            raise StoreError(f"Column {name!r} of metrics: {error}") from error
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def _set_types(frame: pd.DataFrame, name: str) -> object:
    import pandas as pd

    values = frame[name]
    if name in _FLOATS:
        numbers = values.to_numpy(dtype="float64", na_value=np.nan)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    if values.isna().any():
        raise ValueError("must not be null")
    if name in _COUNTS:
        return pd.to_numeric(values).to_numpy(dtype="int64")
    if name in _TIMES:
        times = pd.to_datetime(values)
        if times.dt.tz is None:
            raise ValueError("times must be timezone-aware; pass UTC")
        return times.dt.tz_convert("UTC").astype("datetime64[us, UTC]").array
    return values.astype(object).array


def _add(conn: sa.Connection, rows: pd.DataFrame) -> None:
    """Store rows of one data version each window and metric, and retire what they replace."""
    stored = _load_stored(conn, rows)
    if stored is not None and len(stored):
        rows = _retire_replaced(conn, rows, stored)
    if rows.empty:
        return
    numbers, noted = provenance_numbers(conn, rows)
    lower, upper = stored_ends(*(rows[name].to_numpy() for name in ("value", "lower", "upper")))
    samples = rows.assign(provenance_id=numbers, lower=lower, upper=upper)
    for name in _COUNTS:
        n = rows[name].to_numpy()
        samples[name] = np.where(n == noted[name].to_numpy(), np.nan, n)
    _write(conn, schema.sample, samples[list(_SAMPLE)].sort_values(["provenance_id", "series_id"]))


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


def _load_stored(conn: sa.Connection, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the newest rows of the windows and metrics of some rows, if there are any."""
    first, last = rows["window_start"].min(), rows["window_start"].max()
    models = rows["model"].unique().tolist()
    c, w = schema.series.c, schema.metric_window.c
    window = (
        w.model.in_(models),
        w.window_start.between(first.to_pydatetime(), last.to_pydatetime()),
    )
    series = (c.model.in_(models), c.metric.in_(rows["metric"].unique().tolist()))
    found = _read(conn, series, window)
    if found.samples.empty:
        return None
    frame = _join(found, ("series_id", "provenance_id"))
    windows = rows[["model", "window_start", "granularity"]].drop_duplicates()
    return frame.merge(windows, on=["model", "window_start", "granularity"])


def _retire_replaced(conn: sa.Connection, rows: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """Move what rows replace to the history; return those that say something new."""
    import pandas as pd

    together = (
        rows.groupby(_TOGETHER, sort=False, observed=True)
        .agg(version=("data_version", "last"), replaced_at=("computed_at", "max"))
        .reset_index()
    )
    stored = stored.merge(together, on=_TOGETHER)
    is_other = (stored["data_version"] != stored["version"]).to_numpy()
    if is_other.all():
        _retire(conn, stored)
        return rows
    pairs = rows.reset_index().merge(stored[~is_other], on=_IDENTITY, suffixes=("", "_before"))
    same = np.ones(len(pairs), dtype=bool)
    for name in _SAID:
        new, old = pairs[name], pairs[f"{name}_before"]
        equal = (new == old).to_numpy()
        same &= equal | (new.isna() & old.isna()).to_numpy() if name in _FLOATS else equal
    keys = ["provenance_id", "series_id"]
    replaced = pd.MultiIndex.from_arrays(
        [pairs.loc[~same, name] for name in ("provenance_id", "series_id_before")]
    )
    gone = stored[is_other | pd.MultiIndex.from_frame(stored[keys]).isin(replaced)]
    _retire(conn, gone)
    return rows[~rows.index.isin(pairs.loc[same, "index"])]


def _retire(conn: sa.Connection, gone: pd.DataFrame) -> None:
    """Move samples to the history."""
    c, history = schema.sample.c, schema.sample_history
    # Most windows have the same series, and those that do go by one statement.
    alike: dict[tuple[datetime, tuple[int, ...]], list[int]] = {}
    for _, one in gone.groupby("provenance_id"):
        moment, series = one["replaced_at"].iloc[0], sorted(one["series_id"].tolist())
        numbers = alike.setdefault((moment.to_pydatetime(), tuple(series)), [])
        numbers.append(int(one["provenance_id"].iloc[0]))
    for (moment, among), numbers in alike.items():
        for start in range(0, len(among), _AT_ONCE):
            some = among[start : start + _AT_ONCE]
            mine = (c.provenance_id.in_(numbers), c.series_id.in_(some))
            old = sa.select(*c, sa.literal(moment, history.c.replaced_at.type)).where(*mine)
            conn.execute(sa.insert(history).from_select([*_SAMPLE, "replaced_at"], old))
            conn.execute(sa.delete(schema.sample).where(*mine))


class _Found(NamedTuple):
    """Samples as they are stored, and what their numbers stand for."""

    samples: pd.DataFrame
    series: pd.DataFrame
    provenance: pd.DataFrame


def _read(
    conn: sa.Connection,
    of_series: Sequence[sa.ColumnElement[bool]],
    of_window: Sequence[sa.ColumnElement[bool]],
    as_of: datetime | None = None,
) -> _Found:
    """Read the newest samples of the series and of the windows that meet conditions."""
    series = series_frame(conn, of_series)
    known = provenance_frame(conn, of_window)
    numbers = {"provenance_id": known.index.tolist(), "series_id": series.index.tolist()}
    by = "series_id" if len(series) < len(known) / _FEW else "provenance_id"
    query = sa.select(*schema.sample.c).where(*_select_among(conn, schema.sample, numbers, by))
    if as_of is None:
        return _Found(frame_of(conn, query), series, known)
    table = schema.sample_history
    replaced = sa.select(*(table.c[name] for name in _SAMPLE)).where(
        table.c.replaced_at > as_of, *_select_among(conn, table, numbers, "provenance_id")
    )
    both = [frame_of(conn, one) for one in (query, replaced)]
    return _Found(_stack(both), series, known)


def _select_among(
    conn: sa.Connection, table: sa.Table, numbers: Mapping[str, list[int]], by: str
) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that choose samples.

    PostgreSQL takes numbers as an array and knows by itself which index is the better one. SQLite
    takes them as JSON, and the index of the one column that is not made an expression.
    """
    if conn.dialect.name == "postgresql":
        arrays = {name: sa.literal(some, ARRAY(sa.Integer)) for name, some in numbers.items()}
        return [table.c[name] == sa.any_(array) for name, array in arrays.items()]
    return [
        (table.c[name] if name == by else table.c[name] + 0).in_(
            sa.select(sa.func.json_each(json.dumps(some)).table_valued("value").c.value)
        )
        for name, some in numbers.items()
    ]


def _stack(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or frames)[0]


def _join(found: _Found, more: Sequence[str] = ()) -> pd.DataFrame:
    """Return samples with all that is known of them, ordered by window, slice, column and name."""
    import pandas as pd

    samples, series, known = found
    at = series.index.get_indexer(pd.Index(samples["series_id"]))
    under = known.index.get_indexer(pd.Index(samples["provenance_id"]))
    there = np.flatnonzero((at >= 0) & (under >= 0))
    starts = known["window_start"].to_numpy()
    there = there[np.lexsort((at[there], starts[under[there]]))]
    samples, at, under = samples.iloc[there], at[there], under[there]
    columns: dict[str, object] = {name: _take_rows(series, name, at) for name in SERIES}
    for name in (*WINDOW[1:], *SHARED.values(), *PROVENANCE):
        columns[name] = _take_rows(known, name, under)
    numbers = {name: samples[name].to_numpy() for name in (*_FLOATS[:4], *_COUNTS)}
    columns |= {name: numbers[name] for name in ("value", "p_value")}
    columns["lower"], columns["upper"] = read_ends(*(numbers[name] for name in _FLOATS[:3]))
    for name in _COUNTS:
        own = numbers[name].astype(np.float64)
        common = known[name].to_numpy()[under]
        columns[name] = np.where(np.isnan(own), common, own).astype(np.int64)
    columns |= {name: samples[name].to_numpy() for name in more}
    return pd.DataFrame({name: columns[name] for name in (*METRIC_COLUMNS, *more)})


def _take_rows(frame: pd.DataFrame, name: str, places: NDArray[np.intp]) -> object:
    import pandas as pd

    return pd.Series(frame[name].array.take(places), dtype=frame[name].dtype)


def read_ends(
    value: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of intervals as they were given to `stored_ends`."""
    no_lower, no_upper = np.isnan(lower), np.isnan(upper)
    found = (
        np.where(no_lower & ~no_upper, value, lower),
        np.where(no_upper & ~no_lower, value, upper),
    )
    return np.where(np.isinf(found[0]), np.nan, found[0]), np.where(
        np.isinf(found[1]), np.nan, found[1]
    )


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
    c, w = schema.series.c, schema.metric_window.c
    of_series = [c.model == model]
    for name, value in {
        "metric": metric, "column_name": column, "slice_key": slice_key,
        "slice_value": slice_value, "dataset": dataset, "model_version": model_version,
    }.items():  # fmt: skip
        if value is not None:
            one = isinstance(value, str)
            of_series.append(c[name] == value if one else c[name].in_(list(value)))
    of_window = [w.model == model]
    if granularity is not None:
        of_window.append(w.granularity == granularity)
    of_window += between(w.window_start, start, end)
    if as_of is not None:
        of_window.append(schema.provenance.c.computed_at <= as_of)
    with engine.connect() as conn:
        found = _join(_read(conn, of_series, of_window, as_of))
    if baseline_id is not None:
        found = found[found["baseline_id"] == baseline_id].reset_index(drop=True)
    return found


def list_series(engine: sa.Engine, model: str) -> set[tuple[str, str]]:
    """Return the metrics that a model has, each with the column that it is about."""
    c = schema.series.c
    query = sa.select(c.metric, c.column_name).distinct().where(c.model == model)
    with engine.connect() as conn:
        return {(metric, column) for metric, column in conn.execute(query)}


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
    with engine.connect() as conn:
        return list(conn.scalars(query))


def size_of(conn: sa.Connection, model: str) -> tuple[int, datetime | None]:
    """Return how many metrics of a model there are, in their newest versions, and the last time."""
    s, p, w = schema.series, schema.provenance, schema.metric_window
    n = sa.select(sa.func.count()).join_from(s, schema.sample, schema.sample.c.series_id == s.c.id)
    last = sa.select(sa.func.max(p.c.computed_at, type_=p.c.computed_at.type))
    last = last.join_from(p, w, w.c.id == p.c.window_id).where(w.c.model == model)
    return int(conn.scalar(n.where(s.c.model == model)) or 0), conn.scalar(last)


def forget_rare(
    conn: sa.Connection, model: str, dataset: str, starts: Sequence[datetime], bound: int
) -> None:
    """Delete all versions of the metrics of some windows that rest on fewer rows than a bound."""
    s, p, w = schema.series.c, schema.provenance.c, schema.metric_window.c
    series = sa.select(s.id).where(s.model == model, s.dataset == dataset)
    under = (
        sa.select(p.id, p.n)
        .join_from(schema.provenance, schema.metric_window, w.id == p.window_id)
        .where(w.model == model, w.window_start.in_(starts))
    )
    common = under.subquery()
    for table in _VERSIONS:
        c = table.c
        few = sa.or_(
            c.n < bound,
            sa.and_(
                c.n.is_(None), c.provenance_id.in_(sa.select(common.c.id).where(common.c.n < bound))
            ),
        )
        conn.execute(
            sa.delete(table).where(
                c.provenance_id.in_(sa.select(common.c.id)), c.series_id.in_(series), few
            )
        )


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


def _write(conn: sa.Connection, table: sa.Table, frame: pd.DataFrame) -> None:
    """Insert rows of numbers; not-a-number becomes NULL."""
    import pyarrow as pa

    write = _copy if conn.dialect.name == "postgresql" else _executemany
    for start in range(0, len(frame), _CHUNK):
        some = frame.iloc[start : start + _CHUNK]
        write(conn, table, pa.table({name: _make_array(table, some, name) for name in _SAMPLE}))


def _make_array(table: sa.Table, frame: pd.DataFrame, name: str) -> pa.Array:
    import pyarrow as pa

    is_float = isinstance(table.c[name].type, sa.Float)
    return pa.array(frame[name], pa.float64() if is_float else pa.int64(), from_pandas=True)


def _executemany(conn: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    names = rows.column_names
    listed = ", ".join(map(quote_identifier, names))
    marks = ", ".join("?" * len(names))
    conn.exec_driver_sql(
        f"INSERT INTO {quote_identifier(table.name)} ({listed}) VALUES ({marks})",
        list(zip(*(column.to_pylist() for column in rows.columns), strict=True)),
    )


def _copy(conn: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    from pyarrow import csv

    text = io.BytesIO()
    csv.write_csv(rows, text, csv.WriteOptions(include_header=False, quoting_style="needed"))
    text.seek(0)
    listed = ", ".join(map(quote_identifier, rows.column_names))
    cursor = conn.connection.cursor()
    cursor.copy_expert(
        f"COPY {quote_identifier(table.name)} ({listed}) FROM STDIN WITH (FORMAT csv)", text
    )
    cursor.close()
