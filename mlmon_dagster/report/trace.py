"""The performance trace of a model, from its stored profiles: what changed, and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.statistics import ColumnStatistics, select
from mlmon_dagster.profiles import Baseline, baseline_in_force, load_baseline
from mlmon_dagster.spec import (
    Granularity,
    ModelSpec,
    Window,
    window_containing,
    windows_between,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import BINARY
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import window_state
from mlmon_dagster.trace.coding import Coded, code, predicate_of
from mlmon_dagster.trace.expected import WRONG, Searched, excess
from mlmon_dagster.trace.explain import Explained, explain
from mlmon_dagster.trace.raw_score import RawScore, explain_score, raw_score_columns
from mlmon_dagster.trace.search import Rows, search
from mlmon_dagster.trace.slices import MIN_ROWS, compare_slices, default_metrics, profiled_for
from mlmon_dagster.trace.tell import tell

BASELINE = "baseline"
F1 = "f1"
CODED = ("numeric", "categorical", "boolean")
Against = str | tuple[dt.datetime, dt.datetime]  # the baseline, a version, or a period
SPAN: dict[Granularity, int] = {"hour": 336, "day": 14, "week": 8, "month": 3}


def performance_trace(
    store: Store,
    spec: ModelSpec,
    start: dt.datetime,
    end: dt.datetime,
    metrics: Sequence[str] | None = None,
    *,
    min_rows: int = MIN_ROWS,
) -> pd.DataFrame:
    """Explain the change of metrics between the baseline and some windows, worst slices first.

    Args:
        store: The store.
        spec: The model.
        start: Windows that start at or after this moment, all of them taken together.
        end: Windows that start before this moment.
        metrics: Names of the model's metrics; by default those that the spec monitors, then the
            plainest ones of the task.
        min_rows: See `compare_slices`, as what is returned.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    baseline = load_baseline(store, spec, start if spec.baseline.is_rolling else None)
    wanted = list(metrics or default_metrics(spec))
    columns = profiled_for(spec, wanted)
    now = baseline_in_force(store, spec).profiles(
        start=start, end=end, dataset=PRODUCTION, columns=columns
    )
    return compare_slices(spec, now, baseline.windows, wanted, min_rows=min_rows)


def explained(
    store: Store,
    spec: ModelSpec,
    metric: str,
    period: tuple[dt.datetime, dt.datetime],
    against: Against = BASELINE,
) -> Explained | None:
    """Explain the change of one metric between two sets of windows.

    Args:
        store: The store.
        spec: The model.
        metric: One that it has.
        period: Start and end of the windows in question.
        against: What they are compared with: the baseline, another period, or the rows of one
            model version, which are then left out of the windows in question.

    Returns:
        None if a side has no ground truth.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    columns = profiled_for(spec, [metric, *([F1] if spec.task == BINARY else [])])
    return explain(spec, metric, *_sides(store, spec, columns, period, against))


def score_explained(
    store: Store,
    spec: ModelSpec,
    period: tuple[dt.datetime, dt.datetime],
    against: Against = BASELINE,
) -> RawScore | None:
    """Split the change of the mean raw score between two sets of windows over the features.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows in question.
        against: What they are compared with, as in `explained`.

    Returns:
        None without SHAP values of all features, or where a side has none.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    columns = raw_score_columns(spec)
    return explain_score(spec, *_sides(store, spec, columns, period, against)) if columns else None


def _sides(
    store: Store,
    spec: ModelSpec,
    columns: Sequence[str],
    period: tuple[dt.datetime, dt.datetime],
    against: Against,
) -> tuple[dict[str, ColumnStatistics], dict[str, ColumnStatistics]]:
    """Return the profiles of two sets of windows, the ones in question first."""
    newest = baseline_in_force(store, spec)

    def loaded(start: dt.datetime | None, end: dt.datetime | None) -> dict[str, ColumnStatistics]:
        return newest.profiles(start=start, end=end, dataset=PRODUCTION, columns=columns)

    now = loaded(*period)
    if isinstance(against, str) and against != BASELINE:
        then = _of_version(loaded(None, None), against, True)
        return _of_version(now, against, False), then
    if isinstance(against, str):
        baseline = load_baseline(store, spec, period[0] if spec.baseline.is_rolling else None)
        return now, {n: stats for n, stats in baseline.windows.items() if n in columns}
    return now, loaded(*against)


def searched(
    store: Store, spec: ModelSpec, period: tuple[dt.datetime, dt.datetime], depth: int = 3
) -> Searched | None:
    """Search the rows of some windows for slices, by all features, declared as slices or not.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows.
        depth: Most predicates of a slice.

    Returns:
        None for models whose rows are not wrong one by one, see `trace.expected`.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    baseline = load_baseline(store, spec, period[0] if spec.baseline.is_rolling else None)
    windows = windows_between(spec.time, *period)
    known = _judged_rows(store, spec, baseline, windows, PRODUCTION)
    if known is None:
        return None
    rows, target, means = known
    names = [n for n in _searchable(spec) if n in baseline.binnings]
    if not names or not len(rows):
        return Searched((), means, means == WRONG, len(rows), tuple(names))

    def coded(of: pd.DataFrame) -> list[Coded]:
        return [code(n, of[n], baseline.binnings[n]) for n in names]

    def table(of: pd.DataFrame, values: pd.Series[float]) -> Rows:
        codes = np.stack([column.codes for column in coded(of)], axis=1)
        places = np.unique(of["window_start"].to_numpy(), return_inverse=True)[1]
        return Rows(codes, np.asarray(values, np.float64), places)

    starts = next(iter(baseline.windows.values())).cells["window_start"].drop_duplicates()
    earlier = [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]
    before = _judged_rows(store, spec, baseline, earlier, baseline.dataset)
    usual = table(*before[:2]) if before is not None and len(before[0]) else None
    slices = search(table(rows, target), usual, depth=depth)
    columns = coded(rows)
    return Searched(
        tuple((predicate_of(columns, one.terms), one) for one in slices),
        means,
        means == WRONG,
        len(rows),
        tuple(names),
    )


def _searchable(spec: ModelSpec) -> list[str]:
    return [n for n, f in spec.features.items() if f.type in CODED and not f.pii]


def _judged_rows(
    store: Store, spec: ModelSpec, baseline: Baseline, windows: Sequence[Window], dataset: str
) -> tuple[pd.DataFrame, pd.Series[float], str] | None:
    """Return labelled rows, how much worse each is than the baseline's like it, and what that is.

    None for models whose rows are not wrong one by one.
    """
    outputs = [c for c in ("score", "prediction") if getattr(spec.columns, c) is not None]
    read = store.inference_records(spec).read(
        windows, [dataset], ["window_start", "actual", *outputs, *_searchable(spec)]
    )
    rows = read.to_pandas()
    found = excess(spec, rows, baseline.windows)
    return None if found is None else (rows.loc[found[0].index], *found)


def told(
    store: Store,
    spec: ModelSpec,
    period: tuple[dt.datetime, dt.datetime],
    found: Explained | None = None,
) -> list[str]:
    """Say in plain sentences why the first metric that is monitored changed; [] if nobody knows.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows that are compared with the baseline.
        found: What `explained` said of it, where that is known.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    first = default_metrics(spec)[0]
    if found is None or found.metric != first:
        found = explained(store, spec, first, period)
    if found is None:
        return []
    windows = windows_between(spec.time, *period)
    first, last = windows[0].key, windows[-1].key
    name = first if first == last else f"{first} to {last}"
    scored = score_explained(store, spec, period)
    return tell(spec, found, name, "the baseline", raw_score=scored)


def _of_version(
    profiles: Mapping[str, ColumnStatistics], version: str, is_it: bool
) -> dict[str, ColumnStatistics]:
    return {
        name: select(stats, ((stats.cells["model_version"] == version) == is_it).to_numpy())
        for name, stats in profiles.items()
    }


def newest_mature(store: Store, spec: ModelSpec) -> tuple[dt.datetime, dt.datetime] | None:
    """Return start and end of the newest windows whose performance may be trusted.

    Two weeks of days or hours, eight weeks, or three months, as far as there are so many; the
    windows between the oldest and the newest of them. None if there is none.
    """
    states = window_state.load(store.state, spec.model)
    mature = sorted(
        start
        for start, state in states.items()
        if state.n_actual
        and "performance" in state.steps
        and state.steps["performance"].maturity in ("mature", "closed")
    )[-SPAN[spec.time.granularity] :]
    if not mature:
        return None
    return mature[0], window_containing(spec.time, mature[-1]).end
