"""Requests and their traces: one from end to end, and the slow and failed ones of a window."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mlmon_dagster.pipeline.asking.rows import ANSWERED, LATENCY, Rows, Verdict, rows_of, together
from mlmon_dagster.spec import ModelSpec, Predicate
from mlmon_dagster.spec.predicate import Comparison, Membership, Not, NullTest, Some
from mlmon_dagster.spec.spans import FAILED, TRACE_ID, stage_status
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


def traces_behind(
    store: Store, spec: ModelSpec, verdict: Verdict, *, limit: int
) -> tuple[Rows, Rows]:
    """Return the slowest and the failed requests that a verdict is about, of those with a trace.

    Failed are those without an answer and those with a stage that failed; the slowest of them come
    first. Both as `rows_of` gives them, without features.

    Args:
        store: The store.
        spec: A model that declares spans.
        verdict: Whose window, slice and version.
        limit: At most so many of each.
    """
    assert spec.spans is not None
    traced = NullTest("n_spans" if spec.columns.trace_id is None else TRACE_ID, negated=True)
    stages = (Membership(stage_status(n), FAILED) for n in spec.spans.stages)
    failed = Some((Not(Membership("status", ANSWERED)), *stages))

    def found(picked: Predicate) -> Rows:
        return rows_of(
            store,
            spec,
            (verdict.window,),
            together(verdict.picked, picked),
            limit=limit,
            version=verdict.version,
            slowest=verdict.time or LATENCY,
            brief=True,
        )

    return found(traced), found(together(traced, failed) or traced)
