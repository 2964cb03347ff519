"""Verdicts of monitors: a window's new data version adds rows, readers see the newest.

What stands are the verdicts that hold until there are newer ones. Every surface asks here for them:
the UI's checks, pages, the overview, ``/metrics``, gates and commands. Dashboards ask the view
``mlmon_standing``, which is the same statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.tasks import families_of
from mlmon_dagster.store.state.schema import IDENTITY, SQLITE_TIME, UtcDateTime, monitor_result
from mlmon_dagster.store.state.sql import (
    Bind,
    Query,
    between,
    fetch,
    fetch_rows,
    fetch_value,
    fetch_values,
    insert_or_ignore,
    read_frame,
)

if TYPE_CHECKING:
    import pandas as pd


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


def fetch_results(bind: Bind, query: Query) -> list[StoredResult]:
    """Run a query of whole rows of ``monitor_result``."""
    return cast("list[StoredResult]", fetch(bind, query))


def append(engine: sa.Engine, rows: Sequence[Mapping[str, object]]) -> int:
    """Insert verdicts that are not there yet; a repeated evaluation inserts nothing.

    On the same data a verdict is another one if a limit was changed, or if the last one was on
    other data: what goes back, such as to fewer windows that are judged together, is what holds
    again. It is inserted, too: its method says after which it came.

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
    about = (c.id, c.status, c.threshold, c.data_version)
    query = sa.select(*about, *keys).where(c.id.in_(newest_ids(mine)))
    known = {
        tuple(key): (id_, status, limit, data)
        for id_, status, limit, data, *key in fetch_rows(conn, query)
    }
    others = []
    for row in rows:
        id_, *said = known[tuple((defaults | dict(row))[name] for name in IDENTITY)]
        if [row["status"], row.get("threshold", ""), row.get("data_version", "")] != said:
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
    c = monitor_result.c
    conditions = [c.model == model, *between(c.window_start, start, end)]
    if family is not None:
        conditions.append(c.family.in_([family] if isinstance(family, str) else family))
    query = sa.select(monitor_result).where(c.id.in_(newest_ids(conditions)))
    in_order = (c.window_start, c.monitor, c.slice_key, c.slice_value)
    return read_frame(engine, query.order_by(*in_order))


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
    c = monitor_result.c
    last = newest_ids((c.model == model, c.family.in_(families), c.window_start < end))
    failed = sa.case((c.status == "OK", 0.0), else_=1.0)
    query = (
        sa.select(c.window_start, sa.func.avg(failed))
        .where(c.id.in_(last), c.status.in_(("OK", "WARN", "ERROR")))
        .group_by(c.window_start)
        .order_by(c.window_start)
    )
    return {start: float(share) for start, share in fetch_rows(engine, query)}


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
    c = monitor_result.c
    mine, name = [c.model == model, *between(c.window_start, start, end)], c.family
    if columns_of is not None:
        mine += [c.family == columns_of, c.slice_key == ALL]
        name = c.column_name
    rank = sa.case({"ERROR": 3, "WARN": 2, "OK": 1}, value=c.status, else_=0)
    query = sa.select(name, c.window_start, sa.func.max(rank)).where(c.id.in_(newest_ids(mine)))
    query = query.group_by(name, c.window_start)
    statuses = ("NO_DATA", "OK", "WARN", "ERROR")
    return {(what, when): statuses[worst] for what, when, worst in fetch_rows(engine, query)}


def newest_id(bind: Bind, model: str | None = None) -> int | None:
    """Return the number of the newest verdict, of all models or of one; None if there is none."""
    query = sa.select(sa.func.max(monitor_result.c.id))
    if model is not None:
        query = query.where(monitor_result.c.model == model)
    return fetch_value(bind, query)


def changed_since(engine: sa.Engine, seen: int) -> tuple[int, set[str]]:
    """Return the newest verdict's number, and the models with verdicts after another one's.

    Args:
        engine: The state database.
        seen: Number of that other verdict; -1 for all.
    """
    c = monitor_result.c
    newest = newest_id(engine)
    if newest is None or newest == seen:
        return seen, set()
    return newest, set(fetch_values(engine, sa.select(c.model).where(c.id > seen).distinct()))


def values_since(engine: sa.Engine, row: MonitorResult, start: datetime) -> list[float]:
    """Return what a monitor judged in the windows since one, oldest first; NaN where nothing.

    Args:
        engine: The state database.
        row: A verdict of the monitor.
        start: Windows that start at or after this time, up to the verdict's.
    """
    c = monitor_result.c
    told: Mapping[str, object] = row
    same = ("model", "monitor", "dataset", "slice_key", "slice_value", "family")
    query = sa.select(c.window_start, c.value).where(
        *(c[name] == told[name] for name in same),
        c.window_start.between(start, row["window_start"]),
    )
    found = {when: value for when, value in fetch_rows(engine, query.order_by(c.id))}
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
    c = monitor_result.c
    query = sa.select(c.monitor, c.window_start, c.data_version, c.details).where(
        c.model == model,
        c.monitor.in_(monitors),
        c.dataset == PRODUCTION,
        c.slice_key == ALL,
        *between(c.window_start, start, end),
    )
    return {
        (monitor, window): (version, details)
        for monitor, window, version, details in fetch_rows(engine, query.order_by(c.id))
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
    c = monitor_result.c
    mine = [c[name] == value for name, value in identity.items()]
    last = (
        sa.select(sa.func.max(c.id))
        .where(*mine, c.window_start <= until)
        .group_by(c.window_start)
        .order_by(c.window_start.desc())
        .limit(limit)
    )
    query = sa.select(monitor_result).where(c.id.in_(last)).order_by(c.window_start)
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
    last = newest_ids([*mine, c.window_start.between(start, until)])
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
    c = monitor_result.c
    mine = [c[name] == value for name, value in identity.items()]
    query = sa.select(monitor_result).where(*mine, c.status.in_(("WARN", "ERROR")))
    query = query.order_by(c.window_start.desc(), c.id.desc()).limit(1)
    return next(iter(fetch_results(engine, query)), None)


NOT_JUDGED = "-"  # instead of a status: there is nothing to judge
PIPELINE = "pipeline"  # the family of what fails outside the data
WORST_FIRST = ("ERROR", "WARN", "OK")
LOOK_BACK = 40  # windows before a family's newest one in which a verdict is looked for

_WHOLE: Final = f"r.dataset = '{PRODUCTION}' AND r.slice_key = '{ALL}'"
_NOT_REPLACED: Final = """NOT EXISTS (
            SELECT 1 FROM monitor_result AS later
            WHERE later.model = r.model AND later.monitor = r.monitor AND later.dataset = r.dataset
                AND later.slice_key = r.slice_key AND later.slice_value = r.slice_value
                AND later.window_start = r.window_start AND later.id > r.id
        )"""
_JUDGED: Final = f"r.status <> 'NO_DATA' AND {_NOT_REPLACED}"
_WAITS: Final = "reason = 'labels_still_coming'"  # ground truth may take more windows than that
_NEWEST: Final = "ORDER BY r.window_start DESC LIMIT 1"
_LAST: Final = "PARTITION BY r.model, r.monitor, r.slice_key, r.slice_value, r.window_start"
# Models are found by one descent of the index each: to group verdicts of years reads them all.
_EVERY_MODEL: Final = f"""
    SELECT min(r.model) FROM monitor_result AS r WHERE {_WHOLE}
    UNION ALL
    SELECT (SELECT min(r.model) FROM monitor_result AS r WHERE {_WHOLE} AND r.model > asked.model)
    FROM asked WHERE model IS NOT NULL
"""
_MODELS_ASKED: Final = {
    "sqlite": "SELECT value FROM json_each(:models)",
    "postgresql": "SELECT json_array_elements_text(CAST(:models AS json))",
}


def write_standing(
    dialect: str, columns: Sequence[str], models: str = _EVERY_MODEL, before: str = ""
) -> str:
    """Write the statement that selects the verdicts that stand.

    Args:
        dialect: ``sqlite`` or ``postgresql``.
        columns: Of ``monitor_result``.
        models: A query of the models; by default all that were ever judged.
        before: A condition on the windows ``r``; by default none.
    """
    wanted = ", ".join(columns)
    # SQLite reads what stands to the left of CROSS JOIN first, so that it goes by the indexes.
    before = before and f"AND {before}"
    earliest = _write_earliest(dialect)
    return f"""
WITH RECURSIVE
asked (model) AS ({models}),
family (model, family) AS (
    SELECT model, (
        SELECT min(r.family) FROM monitor_result AS r WHERE {_WHOLE} AND r.model = asked.model
    ) FROM asked
    UNION ALL
    SELECT model, (
        SELECT min(r.family) FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family > family.family
    ) FROM family WHERE family IS NOT NULL
),
-- Of each family the newest window of which it said anything, and the newest that it could judge.
said AS (
    SELECT model, family, (
        SELECT r.granularity FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {_NEWEST}
    ) AS granularity, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {before} {_NEWEST}
    ) AS newest, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.model = family.model AND r.family = family.family {before}
            AND {_JUDGED} {_NEWEST}
    ) AS judged
    FROM family WHERE family IS NOT NULL AND family <> '{PIPELINE}'
),
chosen AS (
    SELECT model, family, granularity,
        CASE WHEN judged >= {earliest.format("newest")} OR judged IS NOT NULL AND EXISTS (
            SELECT 1 FROM monitor_result AS r
            WHERE {_WHOLE} AND r.model = said.model AND r.family = said.family
                AND r.window_start = said.newest AND r.{_WAITS} AND {_NOT_REPLACED}
        ) THEN judged ELSE newest END AS window_start
    FROM said WHERE newest IS NOT NULL
),
verdict AS (
    SELECT *, max(CASE WHEN status = 'NO_DATA' THEN 0 ELSE 1 END)
        OVER (PARTITION BY model, family) AS is_judged
    FROM (
        SELECT r.*, max(r.id) OVER ({_LAST}) AS last_id
        FROM chosen CROSS JOIN monitor_result AS r
        WHERE r.model = chosen.model AND r.window_start = chosen.window_start
            AND r.family = chosen.family AND r.dataset = '{PRODUCTION}'
    ) AS every WHERE id = last_id
),
-- A monitor that waits while others of its family judge keeps what it judged last.
waiting AS (
    SELECT model, monitor, granularity, window_start, reason, (
        SELECT r.window_start FROM monitor_result AS r
        WHERE {_WHOLE} AND r.slice_value = verdict.slice_value AND r.model = verdict.model
            AND r.monitor = verdict.monitor AND r.window_start <= verdict.window_start
            AND {_JUDGED} {_NEWEST}
    ) AS judged
    FROM verdict WHERE slice_key = '{ALL}' AND status = 'NO_DATA' AND is_judged = 1
),
earlier AS (
    SELECT model, monitor, judged FROM waiting
    WHERE judged >= {earliest.format("window_start")} OR judged IS NOT NULL AND {_WAITS}
)
SELECT {wanted} FROM verdict WHERE NOT EXISTS (
    SELECT 1 FROM earlier
    WHERE earlier.model = verdict.model AND earlier.monitor = verdict.monitor
)
UNION ALL
SELECT {wanted} FROM (
    SELECT r.*, max(r.id) OVER ({_LAST}) AS last_id
    FROM earlier CROSS JOIN monitor_result AS r
    WHERE r.model = earlier.model AND r.monitor = earlier.monitor
        AND r.window_start = earlier.judged AND r.dataset = '{PRODUCTION}'
) AS every WHERE id = last_id
UNION ALL
-- What failed outside the data, until it has gone well again; it has no window.
SELECT {wanted} FROM (
    SELECT r.*, row_number() OVER (
        PARTITION BY r.model, r.monitor ORDER BY r.window_start DESC, r.id DESC
    ) AS place
    FROM family CROSS JOIN monitor_result AS r
    WHERE family.family = '{PIPELINE}' AND r.model = family.model AND r.family = family.family
        AND {_WHOLE}
) AS failure WHERE place = 1 AND status <> 'OK'
"""


def _write_earliest(dialect: str) -> str:
    """Write the start of the earliest window that counts beside a newest one, whose place is {}."""
    spans = {name: int((LOOK_BACK * grain).total_seconds()) for name, grain in GRAINS.items()}
    if dialect == "postgresql":
        cases = " ".join(f"WHEN '{name}' THEN {seconds}" for name, seconds in spans.items())
        return f"{{}} - (CASE granularity {cases} END) * interval '1 second'"
    cases = " ".join(f"WHEN '{name}' THEN '-{seconds} seconds'" for name, seconds in spans.items())
    written = SQLITE_TIME.replace("%f", "000000")  # windows start at whole seconds
    return f"strftime('{written}', {{}}, CASE granularity {cases} END)"


def write_standing_view(dialect: str, columns: Sequence[str]) -> str:
    """Write the statement that creates the view: what stands, each beside its family's status.

    Args:
        dialect: ``sqlite`` or ``postgresql``.
        columns: Of ``monitor_result``.
    """
    ranked = " ".join(f"WHEN '{status}' THEN {n}" for n, status in enumerate(WORST_FIRST))
    named = " ".join(f"WHEN {n} THEN '{status}'" for n, status in enumerate(WORST_FIRST))
    # As `worst_of` has it, slices that are well say nothing of the whole.
    return f"""CREATE VIEW mlmon_standing AS
SELECT
    {", ".join(columns)},
    CASE min(
        CASE WHEN status = 'OK' AND slice_key <> '{ALL}' THEN NULL ELSE CASE status {ranked} END END
    ) OVER (PARTITION BY model, family) {named} ELSE 'NO_DATA' END AS family_status
FROM ({write_standing(dialect, columns)}) AS stands
"""


def load_standing(
    engine: sa.Engine, specs: Sequence[ModelSpec], now: datetime
) -> dict[str, list[StoredResult]]:
    """Return the verdicts that stand of some models.

    Of each family the monitors of the newest window in which it could judge anything, and of each
    of them the verdict on the newest window that it could judge itself: a window that waits for its
    ground truth hides none, however long it waits. What could judge none of the family's newest 40
    windows for another reason is NO_DATA. A family keeps its last verdicts when its data has ended.
    What failed outside the data (family ``pipeline``) comes on top until it is well again.

    Args:
        engine: The state database.
        specs: The models; families that one does not have are left out.
        now: Windows that start before this moment. What failed outside the data has no window,
            and counts whenever it was.

    Returns:
        Model -> rows of ``monitor_result`` about production, those about everything before those
        of slices.
    """
    found: dict[str, list[StoredResult]] = {spec.model: [] for spec in specs}
    if not specs:
        return found
    families = {spec.model: {*families_of(spec), PIPELINE} for spec in specs}
    dialect = engine.dialect.name
    text = write_standing(
        dialect, monitor_result.c.keys(), _MODELS_ASKED[dialect], "r.window_start < :now"
    )
    asked = {"models": json.dumps(list(found)), "now": now}
    query = sa.text(text).bindparams(sa.bindparam("now", type_=UtcDateTime))
    for row in fetch_rows(engine, query.columns(*monitor_result.c), asked):
        if row.family in families[row.model]:
            found[row.model].append(cast("StoredResult", dict(row._mapping)))
    for verdicts in found.values():
        verdicts.sort(
            key=lambda r: (r["slice_key"] != ALL, r["monitor"], r["slice_key"], r["slice_value"])
        )
    return found


def worst_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the worst verdict of a family, slices included; NO_DATA if it judged nothing whole."""
    failed = {row["status"] for row in rows} & {"ERROR", "WARN"}
    judged = {row["status"] for row in rows if row["slice_key"] == ALL} & {"OK"}
    return next((status for status in WORST_FIRST if status in failed | judged), "NO_DATA")


def name_window(spec: ModelSpec, start: datetime) -> str:
    """Write the start of a window in the model's zone: a date, with the time for hours."""
    local = start.astimezone(ZoneInfo(spec.time.zone))
    return local.strftime("%Y-%m-%d %H:%M" if spec.time.granularity == "hour" else "%Y-%m-%d")
