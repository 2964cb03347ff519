"""Faulty copies of healthy rows, what the product's own steps make of them, and who notices.

The rows are read once. A copy with a fault in one column is profiled, measured and judged by the
functions that a run calls; nothing of it is stored. Everything else of a window (other columns'
metrics, the baseline, what is known of the window) is what the store holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.alerts.lifecycle.backtest import backtest
from mlmon_dagster.drill.faults import Fault, facts_of, inject
from mlmon_dagster.drill.past import Past, judges_slices
from mlmon_dagster.families.measuring import compared
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.frames import METRIC_COLUMNS, concat_frames
from mlmon_dagster.metrics.statistics import ColumnStatistics, concat, select
from mlmon_dagster.pipeline.judge_inputs import JudgeInputs
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.names import DRIFT, ESTIMATED_PERFORMANCE, PERFORMANCE
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.columns import record_schema
from mlmon_dagster.work import Comparison, Part, baseline_of, parts_of

MOST_ROWS = 20_000  # of a window; larger ones are sampled
_ROWS_AT_ONCE = 3_000_000  # faulty rows that are profiled together
_COPIES = "drilled"
Profiles = dict[str, ColumnStatistics]
HORIZON = 7  # windows that a fault lasts; what is noticed later counts as not noticed
OFTEN = 0.9  # of the windows that a fault may begin with
Alert = tuple[str, str]


@dataclass(frozen=True)
class Probe:
    """A fault of some size, and the family that may notice it."""

    fault: Fault
    family: str
    size: float


@dataclass(frozen=True)
class Slice:
    """A declared slice of one column."""

    column: str
    value: str

    def __str__(self) -> str:
        """Name it as alerts do."""
        return f"{self.column}={self.value}"


class _Copies:
    """Runs SQL over a table in memory, which it calls ``drilled``."""

    def __init__(self, store: Store, table: pa.Table) -> None:
        self._store, self._table = store, table
        self.threads = store.threads

    def query(self, sql: str, /) -> pa.Table:
        return self._store.query(sql, {_COPIES: self._table})

    def batches(self, sql: str, rows: int, /) -> Iterator[pa.Table]:
        return self._store.batches(sql, rows, {_COPIES: self._table})


class Trial:
    """One column of a model's healthy rows, with faults in it.

    Args:
        past: The newest windows as they are.
        column: A feature, or the role ``actual``, ``latency_ms`` or ``status``.
        windows: Family -> healthy windows, oldest first.
        seed: Of which rows are hit.
        slice_: Only rows of this slice are hit.
    """

    def __init__(
        self,
        past: Past,
        column: str,
        windows: Mapping[str, tuple[Window, ...]],
        seed: int,
        slice_: Slice | None = None,
    ) -> None:
        self.past, self.column, self.windows, self.slice = past, column, dict(windows), slice_
        every = sorted({window for mine in self.windows.values() for window in mine})
        self._work = replace(past.work, windows=tuple(every))
        spec = past.work.spec
        # Slices double the work; without a verdict on them they only explain.
        self._spec = spec if judges_slices(spec) else spec.model_copy(update={"slices": ()})
        self.share_read, self._rows = self._read()
        self.values: pd.Series = self._rows.column(column).to_pandas()
        self.facts = facts_of(past.work.spec, column, self.values)
        self._luck = self._hits(seed)
        self._parts = parts_of(self._work, past.states)
        self._profiles: list[tuple[Part, Profiles]] = []
        self._measured: dict[str, pd.DataFrame] = {}

    @cached_property
    def rows_per_window(self) -> int:
        """Rows of a window that were looked at, on average."""
        n: int = self._rows.num_rows
        return round(n / max(len(self._work.windows), 1))

    def notices(self, probes: Sequence[Probe]) -> dict[Probe, Notice]:
        """Tell how each of some faults is noticed; their copies are profiled together."""
        copies = sorted({(p.fault.name, s) for p in probes for s in _signed(p)})
        labels = {copy: str(i) for i, copy in enumerate(copies)}
        faults = {p.fault.name: p.fault for p in probes}
        found: dict[Probe, list[Notice]] = {probe: [] for probe in probes}
        most = max(1, _ROWS_AT_ONCE // max(self._rows.num_rows, 1))
        for begin in range(0, len(copies), most):
            some = copies[begin : begin + most]
            self._profile({labels[c]: (faults[c[0]], c[1]) for c in some})
            self._measured = {}
            for probe in probes:
                for size in _signed(probe):
                    if (copy := (probe.fault.name, size)) in some:
                        found[probe].append(self._notice(probe.family, labels[copy]))
        # Of two directions the one that is harder to see.
        return {p: min(mine, key=lambda n: (n.share, -n.after)) for p, mine in found.items()}

    def _notice(self, family: str, label: str) -> Notice:
        windows = self.windows[family]
        healthy = self._healthy[family]
        if family == ESTIMATED_PERFORMANCE:  # it looks back over several windows
            return notice(windows, healthy, lambda place: self._judge(family, label, place))
        faulty = self._judge(family, label, 0)
        if not _is_previous(self.past.work.spec, family):
            return notice(windows, healthy, lambda _: faulty)

        def only_first(place: int) -> list[MonitorResult]:
            # From the second window on the fault is what windows are compared with.
            start = windows[place].start
            mine = [row for row in faulty if row["window_start"] == start]
            return mine + [row for row in healthy if row["window_start"] > start]

        return notice(windows, healthy, only_first)

    def _judge(self, family: str, label: str, place: int) -> list[MonitorResult]:
        """Return the verdicts on a family's windows if a fault begins in a place of them."""
        begin = self.windows[family][place].start
        frame = self._measure(family)
        mine = frame[(frame["dataset"] == label) & (frame["window_start"] >= begin)]
        mine = mine.assign(dataset=PRODUCTION)
        rows = [r for one in self._inputs[family] for r in _with(one, mine, self._scope).verdicts()]
        return [row for row in rows if self._is_about(row)]

    @cached_property
    def _inputs(self) -> dict[str, list[JudgeInputs]]:
        return {family: self.past.inputs(family, mine) for family, mine in self.windows.items()}

    @cached_property
    def _healthy(self) -> dict[str, list[MonitorResult]]:
        return {
            family: [row for row in self.past.verdicts(family) if self._is_about(row)]
            for family in self.windows
        }

    @property
    def _scope(self) -> str | None:
        """The feature whose metrics are replaced; None for those of the whole model."""
        return self.column if self.column in self.past.work.spec.features else None

    def _is_about(self, row: MonitorResult) -> bool:
        return self._scope is None or bool(row["column_name"] == self._scope)

    @cached_property
    def _comparisons(self) -> dict[str, list[Comparison]]:
        return {
            family: [
                comparison
                for part in self._parts
                if (some := [window for window in part.work.windows if window in mine])
                for comparison in compared(
                    part.only(some), JUDGED_BY[family], self._columns_of(family)
                )
            ]
            for family, mine in self.windows.items()
        }

    def _measure(self, family: str) -> pd.DataFrame:
        """Return a family's metrics of all copies, which are datasets of their own."""
        if family not in self._measured:
            made = JUDGED_BY[family].made
            self._measured[family] = concat_frames(
                [
                    made.frame(comparison, self._profiles_of(family, comparison.part))
                    for comparison in self._comparisons[family]
                ]
            )
        return self._measured[family]

    def _profiles_of(self, family: str, part: Part) -> Profiles:
        """Return the copies' profiles of some windows; of other columns those in the store."""
        starts = [window.start for window in part.work.windows]
        columns = self._columns_of(family)
        found: Profiles = {}
        for whole, profiles in self._profiles:
            if whole.work.start <= starts[0] <= whole.work.windows[-1].start:
                found = {n: _of_windows(s, starts) for n, s in profiles.items() if n in columns}
        missing = [name for name in columns if name not in found]
        if not missing or self._scope is not None or not found:
            return found
        labels = sorted(next(iter(found.values())).cells["dataset"].unique())
        stored = {n: _of_windows(stats, starts) for n, stats in part.whole(missing).items()}
        return found | {name: _for_each(stats, labels) for name, stats in stored.items()}

    def _columns_of(self, family: str) -> list[str]:
        if self._scope is not None:
            return [self._scope]
        return JUDGED_BY[family].columns(self.past.work.spec)

    def _profile(self, copies: Mapping[str, tuple[Fault, float]]) -> None:
        """Profile copies of the rows, each as a dataset that its label names."""
        store = self._work.project.store
        table = pa.concat_tables(self._copy(label, *copy) for label, copy in copies.items())
        wanted = {name for family in self.windows for name in self._columns_of(family)}
        if self._scope is None:
            wanted -= set(self.past.work.spec.features)
        self._profiles = []
        key = erased_ids.personal_key(store.state, self._work.spec.model)
        for part in self._parts:
            binnings = part.in_force.binnings
            mine = {name: binning for name, binning in binnings.items() if name in wanted}
            starts = pa.array(
                [w.start for w in part.work.windows], table.schema.field("window_start").type
            )
            rows = table.filter(pc.is_in(table.column("window_start"), starts))
            engine = _Copies(store, rows)
            self._profiles.append(
                (part, build_profiles(engine, self._spec, _COPIES, mine, key=key))
            )

    def _copy(self, label: str, fault: Fault, size: float) -> pa.Table:
        values = inject(self.values, fault, self.facts, size, self._luck)
        table = self._rows
        place = table.schema.get_field_index(self.column)
        field = table.schema.field(place)
        changed = pa.array(values, type=field.type, from_pandas=True)
        table = table.set_column(place, field, changed)
        dataset = table.schema.get_field_index("dataset")
        named = pa.repeat(pa.scalar(label, pa.string()), table.num_rows)
        return table.set_column(dataset, pa.field("dataset", pa.string()), named)

    def _hits(self, seed: int) -> Floats:
        """Draw the luck of each row; rows of other slices, or without a truth, are never hit."""
        luck: Floats = np.random.default_rng(seed).uniform(size=len(self.values))
        if self.column == "actual":
            luck[self.values.isna().to_numpy()] = 2.0
        if self.slice is not None:
            mine = self._rows.column(self.slice.column).to_pandas().astype(str) == self.slice.value
            luck[~mine.to_numpy()] = 2.0
        return luck

    def _read(self) -> tuple[float, pa.Table]:
        """Read the columns that profiles need, of all rows or of a share of them."""
        spec, store = self.past.work.spec, self._work.project.store
        unneeded = {*spec.features, *attributed(spec).values()} - {self.column}
        unneeded -= {name for key in self._spec.slices for name in key}
        if self.slice is not None:
            unneeded -= {self.slice.column}
        names = [n for n in record_schema(spec).names if n not in unneeded and "hash" not in n]
        most = max((self.past.states[w.start].n for w in self._work.windows), default=0)
        share = min(1.0, MOST_ROWS / most) if most else 1.0
        source = store.inference_records(spec).from_sql(self._work.windows, [PRODUCTION])
        starts = ", ".join(literal(window.start) for window in self._work.windows)
        sql = (
            f"SELECT {', '.join(map(quote_identifier, names))} FROM {source} AS records "
            f"WHERE window_start IN ({starts}) AND hash(prediction_id) % 1000000 "
            f"< {round(share * 1e6)} ORDER BY window_start, prediction_id"
        )
        return share, store.query(sql)


def _signed(probe: Probe) -> tuple[float, ...]:
    return (probe.size, -probe.size) if probe.fault.is_signed else (probe.size,)


def _is_previous(spec: ModelSpec, family: str) -> bool:
    return family in (DRIFT, PERFORMANCE) and bool(baseline_of(spec, family).previous)


def _with(inputs: JudgeInputs, metrics: pd.DataFrame, column: str | None) -> JudgeInputs:
    """Return what judges are given with other metrics of a column, or of the whole model."""
    known = inputs.metrics
    windows = [known["window_start"] for known in inputs.windows]
    mine = metrics[metrics["window_start"].isin(windows)]
    begin = mine["window_start"].min() if len(mine) else None
    replaced = known["window_start"] >= begin if begin is not None else known["n"] < 0
    if column is not None:
        replaced &= known["column_name"] == column
    kept = [known[~replaced], mine[list(METRIC_COLUMNS)]]
    return replace(inputs, metrics=concat_frames(kept))


def _of_windows(stats: ColumnStatistics, starts: Sequence[dt.datetime]) -> ColumnStatistics:
    return select(stats, stats.cells["window_start"].isin(starts).to_numpy())


def _for_each(stats: ColumnStatistics, labels: Sequence[str]) -> ColumnStatistics:
    return concat([replace(stats, cells=stats.cells.assign(dataset=name)) for name in labels])


def slices_of(past: Past, windows: Sequence[Window]) -> Iterator[Slice]:
    """Yield the commonest value of every column that rows are sliced by."""
    spec, store = past.work.spec, past.work.project.store
    source = store.inference_records(spec).from_sql(list(windows), [PRODUCTION])
    for key in spec.slices:
        if len(key) != 1 or not windows:
            continue
        text = f"CAST({quote_identifier(key[0])} AS VARCHAR)"
        found = store.query(
            f"SELECT {text} AS value, COUNT(*) AS n FROM {source} AS records "
            "WHERE value IS NOT NULL GROUP BY value ORDER BY n DESC, value LIMIT 1"
        )
        for value in found.column("value").to_pylist():
            yield Slice(key[0], value)


@dataclass(frozen=True)
class Notice:
    """How surely and how fast a fault is noticed.

    Attributes:
        share: Of the windows that the fault may begin with, those from which an alert opens
            within `HORIZON` windows.
        after: Windows until then in the worst of these cases, 1 being the fault's first; 0 if it
            is never noticed.
        monitor: The monitor whose alert opens first, most often.
        slice_name: Of that alert, such as ``origin=JFK``; empty for the whole.
    """

    share: float = 0.0
    after: int = 0
    monitor: str = ""
    slice_name: str = ""

    @property
    def is_sure(self) -> bool:
        """Whether the fault is noticed in nearly all cases."""
        return self.share >= OFTEN


def starts_of(n_windows: int) -> range:
    """Return the places of the windows that a fault may begin with, so that all may last as long.

    Example:
        >>> list(starts_of(14)), list(starts_of(5)), list(starts_of(2))
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2], [0])
    """
    lasts = min(HORIZON, max(n_windows // 2 + 1, 1))
    return range(n_windows - lasts + 1)


def notice(
    windows: Sequence[Window],
    healthy: Sequence[MonitorResult],
    faulty: Callable[[int], Sequence[MonitorResult]],
) -> Notice:
    """Let a fault begin with one window after the other, and see when an alert opens.

    Alerts that open on the healthy windows already are left out: the fault is not their cause.

    Args:
        windows: Healthy windows, oldest first.
        healthy: Verdicts on them; any others are left out.
        faulty: Returns the verdicts on all of them if the fault begins with the window in a place.
    """
    starts = [window.start for window in windows]
    before = _by_window(healthy, starts)
    anyway = set(_opened([row for rows in before.values() for row in rows]))
    found: list[tuple[int, Alert]] = []
    tried = starts_of(len(windows))
    lasts = len(windows) - len(tried) + 1
    for place in tried:
        after = _by_window(faulty(place), starts[place : place + lasts])
        rows = [row for start in starts[:place] for row in before.get(start, [])]
        rows += [row for mine in after.values() for row in mine]
        opened = {
            alert: min(mine)
            for alert, moments in _opened(rows).items()
            if alert not in anyway and (mine := [m for m in moments if m >= starts[place]])
        }
        if opened:
            alert = min(opened, key=lambda one: (opened[one], one))
            found.append((starts.index(opened[alert]) - place + 1, alert))
    if not found:
        return Notice()
    alerts = [alert for _, alert in found]
    monitor, slice_name = max(sorted(set(alerts)), key=alerts.count)
    share = len(found) / len(tried)
    return Notice(share, max(delay for delay, _ in found), monitor, slice_name)


def _by_window(
    rows: Sequence[MonitorResult], starts: Sequence[dt.datetime]
) -> dict[dt.datetime, list[MonitorResult]]:
    wanted = set(starts)
    found: dict[dt.datetime, list[MonitorResult]] = {}
    for row in rows:
        if row["window_start"] in wanted:
            found.setdefault(row["window_start"], []).append(row)
    return found


def _opened(rows: Sequence[MonitorResult]) -> dict[Alert, tuple[dt.datetime, ...]]:
    return {(test.monitor, test.slice_name): test.opened for test in backtest(rows) if test.opened}
