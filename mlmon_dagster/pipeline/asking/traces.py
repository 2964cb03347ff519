"""One request from end to end: its events, its spans and its logs."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlmon_dagster.spec import ModelSpec, Predicate
from mlmon_dagster.spec.predicate import Comparison, Membership
from mlmon_dagster.spec.spans import TRACE_ID
from mlmon_dagster.store import Store
from mlmon_dagster.store.tables import spans


@dataclass(frozen=True)
class Trace:
    """What is known of a trace.

    Attributes:
        rows: Its spans and logs in time, each once.
        events: Picks its prediction events.
        link: Its address elsewhere, where the spec declares one.
    """

    rows: pa.Table
    events: Predicate
    link: str | None


def trace_of(store: Store, spec: ModelSpec, trace_id: str) -> Trace:
    """Return what is known of a trace; no rows if nothing of it was taken in."""
    snapshot = spans.folder_of(store.root, spec.model).snapshot()
    if snapshot is None:
        rows = spans.SCHEMA.empty_table()
    else:
        rows = store.query(spans.of_traces_sql(snapshot.from_sql(), [trace_id]))
    declared = spec.spans
    events: Predicate = Comparison(TRACE_ID, "=", trace_id)
    if declared is not None and declared.attribute is not None:
        ids = rows["prediction_id"].drop_null().unique().to_pylist()
        events = Membership("prediction_id", tuple(ids)) if ids else events
    return Trace(rows, events, declared.link_to(trace_id) if declared is not None else None)
