"""Numbers about so few rows that they still tell something of an erased one.

They are deleted in all their versions, and their windows are marked as having new inputs, so
that they are computed again without the erased rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.windows import Window, window_containing
from mlmon_dagster.store.baselines import REDACTED
from mlmon_dagster.store.erasure.proof import in_parts
from mlmon_dagster.store.erasure.tables import files_of, rewrite
from mlmon_dagster.store.state import metric_log, schema
from mlmon_dagster.store.state.sql import literal, literals
from mlmon_dagster.store.tables.columns import window_date

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

SHORTEST = 3  # texts shorter than this tell nobody apart, and occur inside of others
_TEXTS: tuple[tuple[sa.Table, tuple[str, ...]], ...] = (
    (schema.monitor_result, ("message", "details")),
    (schema.alert, ("message", "details", "slice_value")),
    (schema.alert_event, ("message",)),
    (schema.alert_group, ()),
    (schema.outbox, ()),
)


@dataclass(frozen=True)
class Trace:
    """What numbers may still show of the rows to be erased.

    Attributes:
        windows: Windows that hold them, with how many.
        texts: Column -> their texts.
        extremes: Feature -> their values, of which one may be the smallest or largest.
        datasets: Those that they are in.
    """

    windows: Mapping[Window, int]
    texts: Mapping[str, pa.Array]
    extremes: Mapping[str, Sequence[float]]
    datasets: frozenset[str]

    def rare(self, shared: Mapping[str, Mapping[str, int]], least: int) -> frozenset[str]:
        """Return the texts that too few other rows share, of column -> text -> how many do."""
        texts = ((n, text) for n, texts in self.texts.items() for text in texts.to_pylist())
        return frozenset(text for n, text in texts if shared.get(n, {}).get(text, 0) < least)


def trace_of(spec: ModelSpec, gone: pa.Table) -> Trace:
    """Look at the rows that are about to be removed from the log of predictions."""
    windows: Counter[Window] = Counter()
    for start, n in Counter(gone.column("window_start").to_pylist()).items():
        windows[window_containing(spec.time, start)] += n
    categories = [n for n, f in spec.features.items() if f.type in ("categorical", "text")]
    numbers = [n for n, f in spec.features.items() if f.type == "numeric"]
    distinct = {
        name: gone.column(name).drop_null().unique()
        for name in (*categories, "trace_id", "status", *numbers, "score", "latency_ms")
    }
    return Trace(
        windows,
        {name: distinct[name] for name in (*categories, "trace_id", "status")},
        {name: distinct[name].to_pylist() for name in (*numbers, "score", "latency_ms")},
        frozenset(gone.column("dataset").to_pylist()),
    )


def telling_windows(
    store: Store, spec: ModelSpec, trace: Trace, rare: Collection[str], *, recompute: bool
) -> dict[Window, int]:
    """Return those windows of a trace whose numbers have to be computed again."""
    if recompute or rare or spec.baseline.dataset in trace.datasets or not trace.windows:
        return dict(trace.windows)
    snapshot = store.table("profiles", spec.model).folder.snapshot()
    if snapshot is None:
        return {}
    dates = {window_date(window) for window in trace.windows}
    source = snapshot.from_sql(None, lambda partition: partition["window_date"] in dates)
    values = [
        f"(t.column_name = {literal(name)} AND (t.minimum IN ({literals(v)}) "
        f"OR t.maximum IN ({literals(v)})))"
        for name, v in trace.extremes.items()
        if v
    ]
    found = store.query(
        f"SELECT DISTINCT t.window_start FROM {source} AS t JOIN bounds AS b "
        f"ON b.window_start = t.window_start WHERE {' OR '.join(['t.n < b.bound', *values])}",
        _bounds(spec, trace.windows),
    )
    starts = set(found.column("window_start").to_pylist())
    return {window: n for window, n in trace.windows.items() if window.start in starts}


def _bounds(spec: ModelSpec, windows: Mapping[Window, int]) -> dict[str, pa.Table]:
    """Return how many rows a number must be about to be kept, by window."""
    starts = pa.array([window.start for window in windows], pa.timestamp("us", "UTC"))
    bounds = pa.array([n + spec.retention.min_cell for n in windows.values()], pa.int64())
    return {"bounds": pa.table({"window_start": starts, "bound": bounds})}


def purge_profiles(store: Store, spec: ModelSpec, windows: Mapping[Window, int]) -> None:
    """Remove small cells, smallest and largest values and names from the profiles of windows.

    Those that a baseline keeps of its own windows too, of earlier baselines as well. What is left
    of a baseline that is not fitted again, such as a promoted one, stays in use.
    """
    dates = {f"/window_date={window_date(window)}/" for window in windows}
    blank = ", ".join(
        f"CASE WHEN b.bound IS NULL THEN t.{name} {otherwise}END AS {name}"
        for name, otherwise in (
            ("minimum", ""), ("maximum", ""), ("unseen", "ELSE [] "), ("unseen_counts", "ELSE [] ")
        )
    )  # fmt: skip

    def kept(source: str) -> str:
        return (
            f"SELECT t.* REPLACE ({blank}) FROM {source} AS t LEFT JOIN bounds AS b "
            "ON b.window_start = t.window_start WHERE b.bound IS NULL OR t.n >= b.bound"
        )

    by_date = store.table("profiles", spec.model).folder
    dated = {path for path in files_of(by_date) if any(date in path for date in dates)}
    whole = store.table("baseline_profiles", spec.model).folder
    for folder, paths in ((by_date, dated), (whole, files_of(whole) if windows else set())):
        rewrite(store, folder, paths, kept, _bounds(spec, windows))


def forget_numbers(conn: sa.Connection, spec: ModelSpec, windows: Mapping[Window, int]) -> None:
    """Delete all versions of metrics and verdicts about too few rows."""
    by_bound: dict[int, list[datetime]] = {}
    for window, n in windows.items():
        by_bound.setdefault(n + spec.retention.min_cell, []).append(window.start)
    verdict = schema.monitor_result.c
    for bound, starts in by_bound.items():
        metric_log.forget_rare(conn, spec.model, PRODUCTION, starts, bound)
        conn.execute(
            sa.delete(schema.monitor_result).where(
                verdict.model == spec.model,
                verdict.dataset == PRODUCTION,
                verdict.window_start.in_(starts),
                verdict.n < bound,
                verdict.folded_at.is_not(None),
            )
        )


def redact(conn: sa.Connection, spec: ModelSpec, texts: Collection[str]) -> None:
    """Replace texts in verdicts, alerts and messages, and delete numbers of slices named so."""
    if not texts:
        return
    for table in (schema.series, schema.monitor_result):
        mine = table.c.model == spec.model
        names = conn.scalars(sa.select(table.c.slice_value).where(mine).distinct()).all()
        told = [name for name in names if any(text in name for text in texts)]
        for some in in_parts(told):
            if table is schema.series:
                metric_log.forget_slices(conn, spec.model, some)
            else:
                conn.execute(sa.delete(table).where(mine, table.c.slice_value.in_(some)))
    spelled = sorted({s for text in texts for s in _spellings(text)})
    for table, columns in _TEXTS:
        for some in in_parts(spelled):
            _redact_table(conn, table, columns, some)


def _redact_table(
    conn: sa.Connection, table: sa.Table, names: Iterable[str], spelled: Sequence[str]
) -> None:
    texts = [table.c[n] for n in names] or [
        c for c in table.c if isinstance(c.type, sa.Text) and not c.primary_key
    ]
    keys = list(table.primary_key)
    pattern = _pattern(spelled)
    hit = sa.or_(*(c.contains(s, autoescape=True) for c in texts for s in spelled))
    for row in conn.execute(sa.select(*keys, *texts).where(hit)).all():
        found = {c.name: pattern.sub(REDACTED, getattr(row, c.name) or "") for c in texts}
        same = [key == getattr(row, key.name) for key in keys]
        conn.execute(sa.update(table).where(*same).values(found))


def _spellings(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


def _pattern(spelled: Sequence[str]) -> re.Pattern[str]:
    listed = "|".join(re.escape(s) for s in sorted(spelled, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{listed})(?!\w)")


def no_older_than(windows: Iterable[Window], mark: datetime | None) -> list[Window]:
    """Return the windows whose rows have not been deleted by age."""
    return sorted(w for w in windows if mark is None or w.start >= mark)
