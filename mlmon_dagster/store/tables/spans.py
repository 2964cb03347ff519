"""Spans and log records of a model's requests: a Delta table, partitioned by local date.

They are kept as they came; what prediction events take from them is joined when records are
rebuilt, so that late spans and late events meet in any order.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from mlmon_dagster.spec.derived import Prices
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.spans import (
    TOKEN_ATTRIBUTES,
    TOKENS,
    VERSION,
    Spans,
    stage_calls,
    stage_column,
    stage_status,
)
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literal, literals, quote_identifier
from mlmon_dagster.store.tables.columns import TIME, span_fields
from mlmon_dagster.store.tables.delta import DeltaFolder, retry, select_sql
from mlmon_dagster.store.tables.derived_columns import price_sql

KIND: Final = "spans"
SCHEMA: Final = pa.schema(
    [
        ("kind", pa.string()),  # span or log
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_id", pa.string()),
        ("name", pa.string()),
        ("service", pa.string()),
        ("start_time", TIME),
        ("duration_ms", pa.float64()),
        ("status", pa.string()),  # ok, error or timeout
        ("message", pa.string()),
        ("prediction_id", pa.string()),
        ("model_version", pa.string()),
        ("flags", pa.list_(pa.string())),  # key=variant
        ("attributes", pa.list_(pa.string())),  # key=value, of those that the spec names
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("window_date", pa.string()),
    ]
)


def folder_of(root: Location, model: str) -> DeltaFolder:
    """Return the table of a model."""
    return DeltaFolder(root / "event_log" / model / KIND, SCHEMA, ("window_date",))


def append(folder: DeltaFolder, files: Mapping[str, pa.Table]) -> int:
    """Commit the rows of some files, each once, however often it is handed over.

    Args:
        folder: The table.
        files: Name, which stands for the content, and rows.

    Returns:
        How many rows are new.
    """

    def attempt() -> int:
        snapshot = folder.ensure()
        new = {name: rows for name, rows in files.items() if not snapshot.has_transaction(name)}
        if not new:
            return 0
        rows = pa.concat_tables(new.values())
        snapshot.append(rows, list(new))
        return int(rows.num_rows)

    return retry(attempt, "Appending spans")


def from_sql(
    folder: DeltaFolder, spec: ModelSpec, dates: Sequence[str] | set[str], where: str | None = None
) -> str:
    """Return the spans that may belong to events of some dates, as a subquery.

    Args:
        folder: The table.
        spec: Its model, whose lateness says how far a span may lie from its event.
        dates: Local dates of windows.
        where: A condition on the rows.
    """
    snapshot = folder.snapshot()
    if snapshot is None or not dates:
        return select_sql([], SCHEMA, None, where)
    first, last = reach(spec, dates)
    return snapshot.from_sql(None, lambda p: first <= p["window_date"] <= last, where)


def reach(spec: ModelSpec, dates: Sequence[str] | set[str]) -> tuple[str, str]:
    """Return the first and last date on which spans of events of some dates may lie.

    A window that begins on a date may be as long as a month; and the same the other way round.
    """
    length = {"hour": 1, "day": 1, "week": 7, "month": 31}[spec.time.granularity]
    days = dt.timedelta(days=length) + spec.time.allowed_lateness
    first, last = (dt.date.fromisoformat(date) for date in (min(dates), max(dates)))
    return (first - days).isoformat(), (last + days).isoformat()


def join_sql(spec: ModelSpec, source: str) -> str:
    """Return the statement that adds their spans to the table ``records``.

    A stage's time is that of all its spans in the trace together, its calls are their number. An
    event that logs no version has that of its trace, and a declared column its value, if all spans
    that know one agree. A span that came twice counts once. Sums are of whole microseconds, so that
    they do not depend on the order of rows.

    Args:
        spec: The model.
        source: The spans that may belong to them, see `from_sql`.
    """
    assert spec.spans is not None
    parts = []
    for name, pattern in spec.spans.stages.items():
        mine = f"FILTER (name GLOB {literal(pattern)})"
        column, status = quote_identifier(stage_column(name)), quote_identifier(stage_status(name))
        # In the alphabet a timeout comes last, and an error before ok.
        worst = f"CASE WHEN BOOL_OR(status = 'timeout') {mine} THEN 'timeout' "
        worst += f"WHEN BOOL_OR(status = 'error') {mine} THEN 'error' "
        worst += f"WHEN COUNT(*) {mine} > 0 THEN 'ok' END"
        parts.append(f"CAST(SUM(us) {mine} AS DOUBLE) / 1000 AS {column}, {worst} AS {status}")
        calls = f"CAST(NULLIF(COUNT(*) {mine}, 0) AS DOUBLE)"
        parts.append(f"{calls} AS {quote_identifier(stage_calls(name))}")
    if spec.spans.tokens:
        own = f"FILTER ({_TELLS_ITS_OWN})"
        for column, name in TOKENS.items():
            parts.append(f"CAST(SUM({name}) {own} AS DOUBLE) AS {quote_identifier(column)}")
    told = [_told_sql(key) for key in spec.spans.columns.values()]
    of_each = "".join(f"MAX({sql}) AS told{i}, " for i, sql in enumerate(told))
    for i, name in enumerate(spec.spans.columns):
        parts.append(f"{_agree_sql(f'told{i}')} AS {quote_identifier(name)}")
    stages = "".join(f", {part}" for part in parts)
    names = [field.name for field in span_fields(spec)]
    selected = ", ".join(f"t.{quote_identifier(name)}" for name in names)
    version = 'COALESCE(r.model_version, t.":version") AS model_version'
    if spec.spans.attribute is None:
        keys, on = "SELECT DISTINCT trace_id AS key, trace_id FROM records", "r.trace_id"
    else:
        keys = "SELECT DISTINCT prediction_id AS key, trace_id FROM given"
        keys += " WHERE prediction_id IN (SELECT prediction_id FROM records)"
        on = "r.prediction_id"
    once = _once_sql(spec.spans, of_each, "trace_id IN (SELECT trace_id FROM keys)")
    return f"""WITH given AS MATERIALIZED (SELECT * FROM {source} AS s WHERE kind = 'span'),
    keys AS MATERIALIZED ({keys}),
    {once},
    traces AS (
        SELECT k.key AS ":key", COUNT(*) AS n_spans{stages}, {_agree_sql("version")} AS ":version"
        FROM once JOIN keys AS k USING (trace_id) GROUP BY k.key
    )
    SELECT r.* REPLACE ({version}), {selected} FROM records AS r
    LEFT JOIN traces AS t ON t.":key" = {on}"""


# Of a span that tells its tokens and the one that called it, only the former counts.
_TELLS_ITS_OWN = "span_id NOT IN (SELECT parent_id FROM callers)"


def _once_sql(declared: Spans, of_each: str, where: str) -> str:
    """Return spans that came twice once, as ``once``, and those that called others, ``callers``."""
    return f"""once AS (
        SELECT trace_id, span_id, MAX(name) AS name, MAX(status) AS status,
            MAX({_version_sql(declared)}) AS version, {of_each}MAX(parent_id) AS parent_id,
            MAX(input_tokens) AS input_tokens, MAX(output_tokens) AS output_tokens,
            MAX(CAST(ROUND(duration_ms * 1000) AS BIGINT)) AS us
        FROM given WHERE {where} GROUP BY trace_id, span_id
    ),
    callers AS (
        SELECT DISTINCT parent_id FROM once
        WHERE parent_id IS NOT NULL AND (input_tokens IS NOT NULL OR output_tokens IS NOT NULL)
    )"""


def stages_sql(spec: ModelSpec, source: str, window: Window) -> str:
    """Return the statement that adds up the stages of a window's spans, a row each, as declared.

    Its columns: stage; requests, with at least one span of it; share, of all requests; calls, of a
    request; p50_ms, p95_ms, of all its spans in a request together; failed, share of the requests;
    input_tokens, output_tokens and cost of a request, NULL where no span tells them.

    Args:
        spec: The model.
        source: The spans that may belong to it, see `from_sql`.
        window: When they began.
    """
    assert spec.spans is not None
    _, prices = find_priced(spec) or ("", None)
    cost = "CAST(NULL AS DOUBLE)" if prices is None else price_sql(prices)
    amounts = [] if prices is None else prices.amounts
    begun = (
        f"start_time >= TIMESTAMPTZ '{window.start}' AND start_time < TIMESTAMPTZ '{window.end}'"
    )
    stages = " UNION ALL ".join(
        f"""SELECT {place} AS place, {literal(name)} AS stage, trace_id, COUNT(*) AS calls,
            CAST(SUM(us) AS DOUBLE) / 1000 AS ms, BOOL_OR(status <> 'ok') AS has_failed,
            SUM(input_tokens) FILTER ({_TELLS_ITS_OWN}) AS input_tokens,
            SUM(output_tokens) FILTER ({_TELLS_ITS_OWN}) AS output_tokens,
            SUM(cost) FILTER ({_TELLS_ITS_OWN}) AS cost
        FROM priced WHERE name GLOB {literal(pattern)} GROUP BY trace_id"""
        for place, (name, pattern) in enumerate(spec.spans.stages.items())
    )
    of_request = ", ".join(
        f"CAST(SUM({name}) AS DOUBLE) / COUNT(*) AS {name}"
        for name in ("input_tokens", "output_tokens", "cost")
    )
    return f"""WITH given AS MATERIALIZED (
        SELECT * FROM {source} AS s WHERE kind = 'span' AND {begun}
    ),
    {_once_sql(spec.spans, "", "TRUE")},
    priced AS (SELECT *, {cost} AS cost FROM ({_with_amounts(spec, amounts)}) AS once),
    stages AS ({stages})
    SELECT stage, COUNT(*) AS requests,
        COUNT(*) / (SELECT COUNT(DISTINCT trace_id) FROM once) AS share,
        SUM(calls) / COUNT(*) AS calls, QUANTILE_CONT(ms, 0.5) AS p50_ms,
        QUANTILE_CONT(ms, 0.95) AS p95_ms,
        AVG(CASE WHEN has_failed THEN 1e0 ELSE 0e0 END) AS failed, {of_request}
    FROM stages GROUP BY place, stage ORDER BY place"""


def find_priced(spec: ModelSpec) -> tuple[str, Prices] | None:
    """Return the feature that is the cost of a call by its model, and its prices; None without."""
    if spec.spans is None or not spec.spans.version:
        return None
    for name, feature in spec.derived_features.items():
        if feature.prices is not None and feature.prices.by == "model_version":
            return name, feature.prices
    return None


def _with_amounts(spec: ModelSpec, amounts: Sequence[str]) -> str:
    """Return spans with what has a price, under the names of features; unknown amounts are NULL."""
    parts = ["*", "version AS model_version"]
    for amount in amounts:
        told = spec.features[amount].from_ or amount
        column = next((c for c, names in TOKEN_ATTRIBUTES.items() if told in names), "NULL")
        parts.append(f"CAST({column} AS DOUBLE) AS {quote_identifier(amount)}")
    return f"SELECT {', '.join(parts)} FROM once"


def _version_sql(declared: Spans) -> str:
    """Return the version that a span names."""
    if declared.version is None:
        return "CAST(NULL AS VARCHAR)"
    return "model_version" if declared.version == VERSION else _told_sql(declared.version)


def _told_sql(name: str) -> str:
    """Return what a span says under a name: an attribute's value, or a feature flag's variant."""
    mark = f"{name}="
    first = [
        f"([f[{len(mark) + 1}:] FOR f IN {listed} IF starts_with(f, {literal(mark)})])[1]"
        for listed in ("attributes", "flags")
    ]
    return f"NULLIF(COALESCE({', '.join(first)}), '')"


def _agree_sql(column: str) -> str:
    return f"CASE WHEN MIN({column}) = MAX({column}) THEN MIN({column}) END"


def of_traces_sql(source: str, trace_ids: Sequence[str]) -> str:
    """Return the statement that reads everything of some traces, each span once, in time."""
    names = ", ".join(name for name in SCHEMA.names if name != "window_date")
    return (
        f"SELECT DISTINCT {names} FROM {source} AS s "
        f"WHERE trace_id IN ({literals(trace_ids)}) "
        "ORDER BY trace_id, start_time, span_id, kind, name"
    )


def with_trace_sql(events: str, source: str) -> str:
    """Return the statement that says of which trace some events are, in their order.

    Args:
        events: A statement whose rows have a prediction_id and an empty trace_id.
        source: Spans, see `from_sql`.
    """
    return (
        "SELECT w.* EXCLUDE (place) REPLACE (t.trace_id AS trace_id) "
        f"FROM (SELECT *, ROW_NUMBER() OVER () AS place FROM ({events}) AS e) AS w LEFT JOIN ("
        f"SELECT prediction_id, MIN(trace_id) AS trace_id FROM {source} AS s "
        "WHERE prediction_id IS NOT NULL GROUP BY prediction_id"
        ") AS t ON t.prediction_id = w.prediction_id ORDER BY place"
    )
