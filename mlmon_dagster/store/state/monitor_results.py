"""Verdicts of monitors; a window's new data version adds rows, readers see the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypedDict, cast

import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.schema import monitor_result
from mlmon_dagster.store.state.statements import Query, between, fetch, insert_or_ignore, read_frame

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = ("model", "monitor", "dataset", "slice_key", "slice_value", "window_start")
Status = Literal["OK", "WARN", "ERROR", "NO_DATA"]


class Finding(TypedDict):
    """Of a verdict what says whether something is broken."""

    window_start: datetime
    monitor: str
    dataset: str
    slice_key: str
    slice_value: str
    family: str
    metric: str
    column_name: str
    status: Status
    value: float | None
    details: str


class MonitorResult(Finding):
    """A verdict: what one monitor says of one window, as a row of ``monitor_result``.

    What the columns mean stands beside the table.
    """

    model: str
    window_end: datetime
    granularity: str
    lower: float | None
    upper: float | None
    baseline_value: float | None
    n: int
    threshold: str
    excess: float | None
    excess_error: float | None
    p_value: float | None
    p_adjusted: float | None
    family_size: int
    maturity: str
    reason: str
    message: str
    k: int
    of_n: int
    owner: str
    runbook: str
    method_version: str
    data_version: str
    run_id: str
    is_backfill: bool
    created_at: datetime


class StoredResult(MonitorResult):
    """A verdict as it is read back."""

    id: int
    folded_at: datetime | None


def fetch_results(conn: sa.Connection, query: Query) -> list[StoredResult]:
    """Run a query of whole rows of ``monitor_result``."""
    return cast("list[StoredResult]", fetch(conn, query))


def append(engine: sa.Engine, rows: Sequence[Mapping[str, object]]) -> int:
    """Insert verdicts that are not there yet; a repeated evaluation inserts nothing.

    On the same data a verdict is another one if a limit was changed, or if it goes back to what it
    was before the last one. It is inserted, too: its method says after which it came.

    Args:
        engine: The state database.
        rows: Mappings with columns of ``monitor_result`` except ``id`` and ``folded_at``; all
            with the same keys.

    Returns:
        The number of rows inserted.
    """
    with engine.begin() as conn:
        n = insert_or_ignore(conn, monitor_result, rows)
        if n < len(rows):
            n += insert_or_ignore(conn, monitor_result, _other(conn, rows))
        return n


def _other(conn: sa.Connection, rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return the verdicts that are not what the last one of their window says, under new keys."""
    defaults = {"dataset": PRODUCTION, "slice_key": ALL, "slice_value": ALL}
    c = monitor_result.c
    starts = [cast("datetime", row["window_start"]) for row in rows]
    mine = (
        c.model.in_({row["model"] for row in rows}),
        c.monitor.in_({row["monitor"] for row in rows}),
        c.window_start.between(min(starts), max(starts)),
    )
    keys = [c[name] for name in IDENTITY]
    last = sa.select(sa.func.max(c.id)).where(*mine).group_by(*keys)
    query = sa.select(c.id, c.status, c.threshold, *keys).where(c.id.in_(last))
    known = {tuple(key): (id_, status, limit) for id_, status, limit, *key in conn.execute(query)}
    others = []
    for row in rows:
        id_, *said = known[tuple((defaults | dict(row))[name] for name in IDENTITY)]
        if [row["status"], row.get("threshold", "")] != said:
            method = row.get("method_version", "")
            others.append({**row, "method_version": f"{method}, after {id_}"})
    return others


def newest(
    engine: sa.Engine,
    model: str,
    start: datetime | None = None,
    end: datetime | None = None,
    family: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the last verdict of each monitor and slice on each window.

    Args:
        engine: The state database.
        model: The model's name.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
        family: One family of monitors or several; all by default.

    Returns:
        The columns of ``monitor_result``, ordered by window, monitor and slice.
    """
    table = monitor_result
    conditions = [table.c.model == model, *between(table.c.window_start, start, end)]
    if family is not None:
        conditions.append(table.c.family.in_([family] if isinstance(family, str) else family))
    last = newest_ids(conditions)
    query = sa.select(table).where(table.c.id.in_(last))
    return read_frame(
        engine,
        query.order_by(
            table.c.window_start, table.c.monitor, table.c.slice_key, table.c.slice_value
        ),
    )


def newest_ids(wanted: Sequence[sa.ColumnElement[bool]]) -> sa.Select[tuple[int]]:
    """Return the ids of the last verdicts of each monitor and slice on each window."""
    c = monitor_result.c
    by_identity = (c[name] for name in IDENTITY)
    return sa.select(sa.func.max(c.id)).where(*wanted).group_by(*by_identity)


def shares_failed(
    engine: sa.Engine, model: str, families: Sequence[str], end: datetime
) -> dict[datetime, float]:
    """Return which share of what some families judged of a window failed, by its start.

    Args:
        engine: The state database.
        model: The model's name.
        families: Families of monitors.
        end: Windows that start before this time.

    Returns:
        Between 0 and 1, oldest window first; windows of which nothing was judged are left out.
    """
    table = monitor_result
    mine = (table.c.model == model, table.c.family.in_(families), table.c.window_start < end)
    last = newest_ids(mine)
    failed = sa.case((table.c.status == "OK", 0.0), else_=1.0)
    query = (
        sa.select(table.c.window_start, sa.func.avg(failed))
        .where(table.c.id.in_(last), table.c.status.in_(("OK", "WARN", "ERROR")))
        .group_by(table.c.window_start)
        .order_by(table.c.window_start)
    )
    with engine.connect() as conn:
        return {start: float(share) for start, share in conn.execute(query)}


def worst_by_window(
    engine: sa.Engine,
    model: str,
    start: datetime,
    end: datetime,
    columns_of: str | None = None,
) -> dict[tuple[str, datetime], str]:
    """Return the worst status of each family, or column, in each window: (name, start) -> status.

    Args:
        engine: The state database.
        model: The model's name.
        start: Windows that start at or after this time.
        end: Windows that start before this time.
        columns_of: A family whose columns are told apart, of the rows as a whole; if None,
            families are.

    Returns:
        ERROR, WARN, OK, or NO_DATA where nothing could be judged.
    """
    table = monitor_result
    mine = [table.c.model == model, table.c.window_start >= start, table.c.window_start < end]
    name = table.c.family
    if columns_of is not None:
        mine += [table.c.family == columns_of, table.c.slice_key == ALL]
        name = table.c.column_name
    rank = sa.case({"ERROR": 3, "WARN": 2, "OK": 1}, value=table.c.status, else_=0)
    query = (
        sa.select(name, table.c.window_start, sa.func.max(rank))
        .where(table.c.id.in_(newest_ids(mine)))
        .group_by(name, table.c.window_start)
    )
    statuses = ("NO_DATA", "OK", "WARN", "ERROR")
    with engine.connect() as conn:
        return {(what, when): statuses[worst] for what, when, worst in conn.execute(query)}


def newest_id(conn: sa.Connection, model: str | None = None) -> int | None:
    """Return the number of the newest verdict, of all models or of one; None if there is none."""
    query = sa.select(sa.func.max(monitor_result.c.id))
    if model is not None:
        query = query.where(monitor_result.c.model == model)
    newest: int | None = conn.scalar(query)
    return newest


def changed_since(engine: sa.Engine, seen: int) -> tuple[int, set[str]]:
    """Return the newest verdict's number, and the models with verdicts after another one's.

    Args:
        engine: The state database.
        seen: Number of that other verdict; -1 for all.
    """
    c = monitor_result.c
    with engine.connect() as conn:
        newest = newest_id(conn)
        if newest is None or newest == seen:
            return seen, set()
        return newest, set(conn.scalars(sa.select(c.model).where(c.id > seen).distinct()))


def values_since(engine: sa.Engine, row: MonitorResult, start: datetime) -> list[float]:
    """Return what a monitor judged in the windows since one, oldest first; NaN where nothing.

    Args:
        engine: The state database.
        row: A verdict of the monitor.
        start: Windows that start at or after this time, up to the verdict's.
    """
    c = monitor_result.c
    query = sa.select(c.window_start, c.value).where(
        c.model == row["model"],
        c.monitor == row["monitor"],
        c.dataset == row["dataset"],
        c.slice_key == row["slice_key"],
        c.slice_value == row["slice_value"],
        c.family == row["family"],
        c.window_start.between(start, row["window_start"]),
    )
    with engine.connect() as conn:
        found = {when: value for when, value in conn.execute(query.order_by(c.id))}
    return [float("nan") if v is None else float(v) for _, v in sorted(found.items())]


def versions(
    engine: sa.Engine,
    model: str,
    monitors: Sequence[str],
    start: datetime | None = None,
    end: datetime | None = None,
) -> dict[tuple[str, datetime], tuple[str, str]]:
    """Return what the last verdict of some monitors on each window was about.

    Args:
        engine: The state database.
        model: The model's name.
        monitors: Monitors of whole windows of production.
        start: Windows that start at or after this time.
        end: Windows that start before this time.

    Returns:
        (monitor, window start) -> data version and details.
    """
    table = monitor_result
    query = (
        sa.select(table.c.monitor, table.c.window_start, table.c.data_version, table.c.details)
        .where(
            table.c.model == model,
            table.c.monitor.in_(monitors),
            table.c.dataset == PRODUCTION,
            table.c.slice_key == ALL,
        )
        .order_by(table.c.id)
    )
    query = query.where(*between(table.c.window_start, start, end))
    with engine.connect() as conn:
        return {
            (m, window): (version, details) for m, window, version, details in conn.execute(query)
        }


def series(
    conn: sa.Connection, identity: Mapping[str, str], until: datetime, limit: int
) -> list[StoredResult]:
    """Return the last verdict on each of the newest windows of one monitor and slice.

    Args:
        conn: A connection to the state database.
        identity: ``model``, ``monitor``, ``dataset``, ``slice_key`` and ``slice_value``.
        until: Windows that start at or before this time.
        limit: At most so many windows, the newest.

    Returns:
        Rows of ``monitor_result``, ordered by window.
    """
    table = monitor_result
    mine = [table.c[name] == value for name, value in identity.items()]
    last = (
        sa.select(sa.func.max(table.c.id))
        .where(*mine, table.c.window_start <= until)
        .group_by(table.c.window_start)
        .order_by(table.c.window_start.desc())
        .limit(limit)
    )
    query = sa.select(table).where(table.c.id.in_(last)).order_by(table.c.window_start)
    return fetch_results(conn, query)


def failed(
    conn: sa.Connection, about: Mapping[str, str], start: datetime, until: datetime
) -> list[StoredResult]:
    """Return the last verdicts of some windows that failed, ordered by window and monitor.

    Args:
        conn: A connection to the state database.
        about: Columns of ``monitor_result`` and their values, ``model`` among them.
        start: Windows that start at or after this time.
        until: Windows that start at or before this time.
    """
    c = monitor_result.c
    mine = [c[name] == value for name, value in about.items()]
    last = (
        sa.select(sa.func.max(c.id))
        .where(*mine, c.window_start.between(start, until))
        .group_by(*(c[name] for name in IDENTITY))
    )
    query = sa.select(monitor_result).where(c.id.in_(last), c.status.in_(("WARN", "ERROR")))
    return fetch_results(conn, query.order_by(c.window_start, c.monitor))


def last_failure(engine: sa.Engine, identity: Mapping[str, str]) -> StoredResult | None:
    """Return the verdict with which one monitor and slice last failed; None if there is none.

    Of the newest window that ever failed, and of its verdicts the newest that did: a later one on
    the same window may be better.

    Args:
        engine: The state database.
        identity: ``model``, ``monitor``, ``slice_key`` and ``slice_value``.
    """
    table = monitor_result
    query = (
        sa.select(table)
        .where(
            *(table.c[name] == value for name, value in identity.items()),
            table.c.status.in_(("WARN", "ERROR")),
        )
        .order_by(table.c.window_start.desc(), table.c.id.desc())
        .limit(1)
    )
    with engine.connect() as conn:
        return next(iter(fetch_results(conn, query)), None)
