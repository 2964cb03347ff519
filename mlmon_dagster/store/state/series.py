"""Metrics as numbers: what a series, a window and a provenance are called by in the samples.

A sample is a few numbers; the texts that it repeats in every window stand in tables of their own,
once. Whoever adds to these holds the lock of the model, see `lock_models`.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.statements import frame_of, insert

if TYPE_CHECKING:
    import pandas as pd

SERIES = ("model", "metric", "column_name", "slice_key", "slice_value", "dataset",
          "model_version", "method_version")  # fmt: skip
WINDOW = ("model", "window_start", "window_end", "granularity")
SHARED = {"run": "run_id", "baseline": "baseline_id"}  # columns with numbers of shared texts
PROVENANCE = ("baseline_kind", "data_version", "maturity", "reason", "actual_coverage",
              "computed_at")  # fmt: skip
_LOCK = 0x6D6C6D  # of PostgreSQL's advisory locks; the second number is the model's
_AT_ONCE = 500  # rows a statement


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
    codes, distinct = _distinct(frame, SERIES)
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
    codes, distinct = _distinct(frame, (*WINDOW, *SHARED.values(), *PROVENANCE))
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


def _distinct(frame: pd.DataFrame, names: Sequence[str]) -> tuple[NDArray[np.int64], pd.DataFrame]:
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
    for start in range(0, len(rows), _AT_ONCE):
        some = [dict(zip(names, row, strict=True)) for row in rows[start : start + _AT_ONCE]]
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
