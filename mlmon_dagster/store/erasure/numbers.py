"""Numbers about so few rows that they still tell something of an erased one.

They are deleted in all their versions, and their windows are marked as having new inputs, so
that they are computed again without the erased rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.spec.model import PRODUCTION, ModelSpec
from mlmon_dagster.spec.windows import Window, window_containing
from mlmon_dagster.store.baselines.baseline_files import REDACTED
from mlmon_dagster.store.erasure.tables import Mask, Purge
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.sql import literal, literals, quote_identifier

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
        rare: Texts of theirs that fewer than the minimum of other rows share.
        extremes: Feature -> their values, of which one may be the smallest or largest.
        in_baseline: Whether the baseline was fitted on some of them.
        datasets: Those that they are in.
    """

    windows: Mapping[Window, int]
    rare: tuple[str, ...]
    extremes: Mapping[str, tuple[float, ...]]
    in_baseline: bool
    datasets: frozenset[str] = frozenset()

    @property
    def telling(self) -> tuple[str, ...]:
        """The rare texts that are long enough to be told apart."""
        return tuple(value for value in self.rare if len(value) >= SHORTEST)


def trace_of(store: Store, spec: ModelSpec, predictions: Purge) -> Trace:
    """Look at the rows that are about to be removed from the log of predictions."""
    snapshot = predictions.folder.snapshot()
    if snapshot is None:
        return Trace({}, (), {}, in_baseline=False)
    source = f"{snapshot.from_sql()} AS t"
    tables = predictions.tables
    gone = store.query(f"SELECT t.* FROM {source} WHERE {predictions.condition}", tables)
    windows: dict[Window, int] = {}
    for start in gone.column("window_start").to_pylist():
        window = window_containing(spec.time, start)
        windows[window] = windows.get(window, 0) + 1
    texts = [n for n, f in spec.features.items() if f.type in ("categorical", "text")]
    rare: set[str] = set()
    for name in [*texts, "trace_id", "status"]:
        values = sorted(set(gone.column(name).drop_null().to_pylist()))
        if values:
            column = f"t.{quote_identifier(name)}"
            shared = store.query(
                f"SELECT {column} AS v, count(*) AS n FROM {source} WHERE {column} IN "
                f"({literals(values)}) AND NOT COALESCE({predictions.condition}, FALSE) GROUP BY 1",
                tables,
            ).to_pylist()
            common = {row["v"] for row in shared if row["n"] >= spec.retention.min_cell}
            rare |= set(values) - common
    numeric = [n for n, f in spec.features.items() if f.type == "numeric"] + ["score", "latency_ms"]
    extremes = {n: tuple(set(gone.column(n).drop_null().to_pylist())) for n in numeric}
    datasets = frozenset(gone.column("dataset").to_pylist())
    in_baseline = spec.baseline.dataset in datasets
    return Trace(windows, tuple(sorted(rare)), extremes, in_baseline, datasets)


def telling_windows(
    store: Store, spec: ModelSpec, trace: Trace, *, recompute: bool
) -> dict[Window, int]:
    """Return those windows of a trace whose numbers have to be computed again."""
    if recompute or trace.rare or trace.in_baseline or not trace.windows:
        return dict(trace.windows)
    snapshot = store.table("profiles", spec.model).folder.snapshot()
    if snapshot is None:
        return {}
    bounds = _bounds_sql(spec, trace.windows)
    values = [
        f"(t.column_name = {literal(name)} AND (t.minimum IN ({literals(v)}) "
        f"OR t.maximum IN ({literals(v)})))"
        for name, v in trace.extremes.items()
        if v
    ]
    found = store.query(
        f"SELECT DISTINCT t.window_start FROM {snapshot.from_sql()} AS t JOIN {bounds} AS b "
        f"ON b.window_start = t.window_start WHERE {' OR '.join(['t.n < b.bound', *values])}"
    )
    starts = {start.timestamp() for start in found.column("window_start").to_pylist()}
    return {w: n for w, n in trace.windows.items() if w.start.timestamp() in starts}


def _bounds_sql(spec: ModelSpec, windows: Mapping[Window, int]) -> str:
    least = spec.retention.min_cell
    rows = ", ".join(f"({literal(w.start)}, {literal(n + least)})" for w, n in windows.items())
    return f"(SELECT * FROM (VALUES {rows}) AS v(window_start, bound))"


def profiles_purge(store: Store, spec: ModelSpec, windows: Mapping[Window, int]) -> Purge:
    """Return what removes small cells, smallest and largest values and names from profiles."""
    starts = [w.start for w in windows]
    bounds = {w.start: n + spec.retention.min_cell for w, n in windows.items()}

    def edit(rows: pa.Table, mask: Mask) -> pa.Table:
        least = np.array(
            [bounds.get(start, 0) for start in rows.column("window_start").to_pylist()]
        )
        is_small = rows.column("n").to_numpy() < least
        return _blank(rows, mask).filter(pa.array(~(mask & is_small)))

    condition = (
        f"t.window_start IN ({literals(starts)}) AND (t.n < COALESCE((SELECT any_value(b.bound) "
        f"FROM {_bounds_sql(spec, windows)} AS b WHERE b.window_start = t.window_start), 0) "
        "OR t.minimum IS NOT NULL OR t.maximum IS NOT NULL OR len(t.unseen) > 0)"
    )
    return Purge(store.table("profiles", spec.model).folder, condition, {}, edit)


def _blank(rows: pa.Table, mask: Mask) -> pa.Table:
    import pyarrow.compute as pc

    marked = pa.array(mask)
    for name in ("minimum", "maximum", "unseen", "unseen_counts"):
        column = rows.column(name)
        none: Any = pa.scalar([] if name.startswith("unseen") else None, column.type)
        blank = pc.if_else(marked, none, column)
        rows = rows.set_column(rows.schema.get_field_index(name), name, blank)
    return rows


def forget_numbers(conn: sa.Connection, spec: ModelSpec, windows: Mapping[Window, int]) -> int:
    """Delete all versions of metrics and verdicts about too few rows; return how many."""
    deleted = 0
    for table in (schema.metric, schema.metric_history, schema.monitor_result):
        for window, n in windows.items():
            statement = sa.delete(table).where(
                table.c.model == spec.model,
                table.c.dataset == PRODUCTION,
                table.c.window_start == window.start,
                table.c.n < n + spec.retention.min_cell,
            )
            if table is schema.monitor_result:
                statement = statement.where(table.c.folded_at.is_not(None))
            deleted += conn.execute(statement).rowcount
    return deleted


def redact(conn: sa.Connection, spec: ModelSpec, trace: Trace) -> int:
    """Replace rare texts of erased rows in verdicts, alerts and messages; return how many."""
    values = trace.telling
    if not values:
        return 0
    _forget_slices(conn, spec, values)
    return sum(_redact_table(conn, table, names, values) for table, names in _TEXTS)


def _forget_slices(conn: sa.Connection, spec: ModelSpec, values: Sequence[str]) -> None:
    for table in (schema.metric, schema.metric_history, schema.monitor_result):
        for value in values:
            conn.execute(
                sa.delete(table).where(
                    table.c.model == spec.model,
                    table.c.slice_value.contains(value, autoescape=True),
                )
            )


def _redact_table(
    conn: sa.Connection, table: sa.Table, names: Iterable[str], values: Sequence[str]
) -> int:
    texts = [table.c[n] for n in names] or [
        c for c in table.c if isinstance(c.type, sa.Text) and not c.primary_key
    ]
    keys = list(table.primary_key)
    pattern = _pattern(values)
    changed = 0
    for spelled in sorted({s for value in values for s in _spellings(value)}):
        hit = sa.or_(*(c.contains(spelled, autoescape=True) for c in texts))
        for row in conn.execute(sa.select(*keys, *texts).where(hit)).all():
            found = {c.name: pattern.sub(REDACTED, getattr(row, c.name) or "") for c in texts}
            same = [key == getattr(row, key.name) for key in keys]
            conn.execute(sa.update(table).where(*same).values(found))
            changed += 1
    return changed


def _spellings(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


def _pattern(values: Sequence[str]) -> re.Pattern[str]:
    spelled = {s for value in values for s in _spellings(value)}
    listed = "|".join(re.escape(s) for s in sorted(spelled, key=len, reverse=True))
    return re.compile(rf"(?<!\w)(?:{listed})(?!\w)")


def no_older_than(windows: Iterable[Window], mark: datetime | None) -> list[Window]:
    """Return the windows whose rows have not been deleted by age."""
    return sorted(w for w in windows if mark is None or w.start >= mark)
