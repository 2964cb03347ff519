"""How late the ground truth of a window is known and arrives, and how much of it never will."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlmon_dagster.spec.model import PRODUCTION, ModelSpec
from mlmon_dagster.spec.predicate import to_sql
from mlmon_dagster.spec.predicate_parser import parse_predicate, predicate_columns
from mlmon_dagster.spec.windows import Window
from mlmon_dagster.store.tables.columns import UNMATCHED
from mlmon_dagster.store.tables.event_log import window_date

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class GroundTruthLag:
    """Ground truth of one window of production.

    Attributes:
        n_exempt: Predictions without ground truth that ``actuals.no_actual_when`` picks.
        lags: JSON, ``{"known_hours": {"p50": ...}, "arrived_hours": {...}}``: hours from the event
            until the actual was known (``actual_time``), and until it came to this store.
    """

    n_exempt: int
    lags: str


def measure_lags(
    store: Store, spec: ModelSpec, windows: Sequence[Window]
) -> dict[datetime, GroundTruthLag]:
    """Measure the ground truth of windows from their records and the event log.

    Args:
        store: The store.
        spec: The model.
        windows: Windows whose records are up to date.

    Returns:
        Window start -> what was measured; a window without records is absent, and so is every
        window of a model without ground truth.
    """
    if not windows or not spec.has_actuals:
        return {}
    records = store.inference_records(spec).from_sql(windows, [PRODUCTION])
    log = store.event_log(spec).pinned()
    dates = {window_date(window) for window in windows} | {UNMATCHED}
    actuals = log.sql("actuals", ["prediction_id", "ingested_at"], dates)
    levels = list(QUANTILES.values())
    rows = store.query(
        f"""SELECT window_start,
            COUNT(*) FILTER (WHERE actual IS NULL AND {_never(spec)}) AS exempt,
            quantile_cont(epoch(actual_time - event_time) / 3600, {levels})
                FILTER (WHERE actual IS NOT NULL) AS known,
            quantile_cont(epoch(arrived - event_time) / 3600, {levels})
                FILTER (WHERE actual IS NOT NULL) AS arrived
        FROM {records} AS r LEFT JOIN (
            SELECT prediction_id, MIN(ingested_at) AS arrived FROM {actuals} GROUP BY prediction_id
        ) AS a ON a.prediction_id = r.prediction_id
        GROUP BY window_start"""
    ).to_pylist()
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
        )
        for row in rows
    }


def _never(spec: ModelSpec) -> str:
    """Return the condition that picks predictions of which no ground truth is expected."""
    text = spec.actuals.no_actual_when
    if text is None:
        return "FALSE"
    return to_sql(parse_predicate(text, predicate_columns(spec), spec.time.zone))
