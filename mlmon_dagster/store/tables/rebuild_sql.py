"""The SQL that turns rows of the event log into inference records."""

from __future__ import annotations

import pyarrow as pa

from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.erased_ids import Erased
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.tables.columns import UNMATCHED
from mlmon_dagster.store.tables.pinned_log import PinnedLog

_ACTUAL_COLUMNS = (
    "prediction_id",
    "dataset",
    "actual",
    "actual_time",
    "outcome",
    "deleted",
    "row_hash",
    "ingested_at",
    "row_number",
)
_BY_TIME = "k.actual_time DESC NULLS LAST, k.row_hash DESC"
_BY_ARRIVAL = "k.ingested_at DESC, k.row_number DESC, k.row_hash DESC"
_JOINED = ("actual", "actual_time", "outcome", "actual_row_hash")


def records_sql(
    schema: pa.Schema,
    log: PinnedLog,
    dates: set[str],
    other_dates: set[str],
    datasets: set[str] | None,
    erased: Erased,
    *,
    by_arrival: bool = False,
) -> str:
    """Return the statement that computes the records of some window dates.

    The winner of several prediction rows with one dataset and prediction_id is the one with the
    smallest (event_time, row_hash); the newest ground truth is the one with the largest
    (actual_time, row_hash), or the one that arrived last where it has no time. Both are found
    among all rows of an id, wherever they lie: an id with rows on ``other_dates`` too is in the
    table ``moved``.

    Args:
        schema: Columns of the records.
        log: The pinned event log.
        dates: Window dates whose records are wanted.
        other_dates: Further dates on which ids of the table ``moved`` have rows.
        datasets: Only these; None for all.
        erased: Ids that must not be seen again; if any, their hashes are the table ``erased``.
        by_arrival: Ground truth has no time of its own.
    """
    columns = [name for name in schema.names if name not in (*_JOINED, "n_prediction_rows")]
    selected = ", ".join(
        f"{'a' if name in _JOINED else 'w'}.{quote_identifier(name)}" for name in schema.names
    )
    predictions = log.sql("predictions", columns, dates, datasets)
    actuals = log.sql("actuals", _ACTUAL_COLUMNS, dates | {UNMATCHED})
    if other_dates:
        semi_join = "WHERE prediction_id IN (SELECT prediction_id FROM moved)"
        elsewhere = log.sql("predictions", columns, other_dates, datasets)
        predictions = f"({predictions[1:-1]} UNION ALL SELECT * FROM {elsewhere} {semi_join})"
        elsewhere = log.sql("actuals", _ACTUAL_COLUMNS, other_dates)
        actuals = f"({actuals[1:-1]} UNION ALL SELECT * FROM {elsewhere} {semi_join})"
    on_dates = ", ".join(f"'{date}'" for date in sorted(dates))
    not_erased = f"AND NOT {erased.matches_sql('l')}" if erased else ""
    return f"""WITH logged AS MATERIALIZED (SELECT * FROM {predictions}),
    repeated AS MATERIALIZED (
        SELECT dataset, prediction_id, COUNT(DISTINCT row_hash) AS n_prediction_rows FROM logged
        WHERE prediction_id IN (
            SELECT prediction_id FROM logged GROUP BY prediction_id HAVING COUNT(*) > 1)
        GROUP BY dataset, prediction_id
    ),
    winners AS MATERIALIZED (
        SELECT l.*, 1::BIGINT AS n_prediction_rows FROM logged AS l
        WHERE prediction_id NOT IN (SELECT prediction_id FROM repeated) {not_erased}
        UNION ALL
        SELECT l.*, r.n_prediction_rows FROM logged AS l
        JOIN repeated AS r ON r.dataset = l.dataset AND r.prediction_id = l.prediction_id
        WHERE TRUE {not_erased}
        QUALIFY ROW_NUMBER() OVER (
            PARTITION BY l.dataset, l.prediction_id ORDER BY l.event_time, l.row_hash) = 1
    ),
    known AS (
        SELECT w.dataset, w.prediction_id, k.actual, k.actual_time, k.outcome, k.deleted,
            k.row_hash AS actual_row_hash
        FROM {actuals} AS k
        JOIN winners AS w ON w.prediction_id = k.prediction_id
            AND (k.dataset = '{ALL}' OR k.dataset = w.dataset)
        QUALIFY ROW_NUMBER() OVER (PARTITION BY w.dataset, w.prediction_id
            ORDER BY {_BY_ARRIVAL if by_arrival else _BY_TIME}) = 1
    )
    SELECT {selected} FROM winners AS w
    LEFT JOIN known AS a ON a.dataset = w.dataset AND a.prediction_id = w.prediction_id
        AND NOT COALESCE(a.deleted, FALSE)
    WHERE w.window_date IN ({on_dates})"""


def fingerprint_sql() -> str:
    """Return the statement that counts and fingerprints the table ``records`` by window.

    Sums and parities do not depend on the order of rows; md5 is the same in every version of
    every engine, which the engine's own hash is not.
    """
    return """SELECT window_start, dataset, COUNT(*) AS n, COUNT(actual) AS n_actual,
        COUNT(*) FILTER (n_prediction_rows > 1) AS n_conflict,
        CAST(SUM(hash) AS VARCHAR) AS total, CAST(BIT_XOR(hash) AS VARCHAR) AS parity
    FROM (SELECT window_start, dataset, actual, n_prediction_rows, CAST('0x' || md5(CONCAT_WS('|',
            prediction_id, row_hash, n_prediction_rows, COALESCE(actual_row_hash::VARCHAR, '')
        ))[1:15] AS BIGINT) AS hash FROM records)
    GROUP BY window_start, dataset"""
