"""The performance trace of a model, from its stored profiles: what changed, and why."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.embeddings import find_usable
from mlmon_dagster.metrics.statistics import ColumnStatistics, select_columns
from mlmon_dagster.monitors.evidence import N_TOGETHER
from mlmon_dagster.profiles import Baseline, baseline_in_force, load_baseline
from mlmon_dagster.profiles.embedded import draw_vectors, gather_vectors, know_fits
from mlmon_dagster.spec import ModelSpec, Window, window_containing, windows_between
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity, is_slow
from mlmon_dagster.spec.metric_registry import BINARY
from mlmon_dagster.spec.names import ALL, PERFORMANCE, TABLE
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.tables.asked import Against
from mlmon_dagster.trace.alike import Alike, Judged, find_alike
from mlmon_dagster.trace.explain import AREA, Explained, explain
from mlmon_dagster.trace.raw_score import RawScore, explain_score, raw_score_columns
from mlmon_dagster.trace.rows import WRONG, Coded, Searched, code_column, excess, predicate_of
from mlmon_dagster.trace.search import Rows, has_enough, search
from mlmon_dagster.trace.sentences import describe_trace
from mlmon_dagster.trace.slices import compare_slices, default_metrics, profiled_for

BASELINE = "baseline"
F1 = "f1"
CODED = ("numeric", "categorical", "boolean")
SPAN: dict[Granularity, int] = {"hour": 336, "day": 14, "week": 8, "month": 3}


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
    found = explain(spec, metric, *_sides(store, spec, _columns_of(spec, metric), period, against))
    if found is None or against != BASELINE:
        return found
    return replace(found, worse_slices=_find_verdict(store, spec, metric, period))


def _find_verdict(
    store: Store, spec: ModelSpec, metric: str, period: tuple[dt.datetime, dt.datetime]
) -> tuple[tuple[str, str], ...] | None:
    """Return the slices that a failed verdict on just these windows names; None without one."""
    last = windows_between(spec.time, *period)[-1]
    name, _, outcome = metric.partition("/")
    about = {
        "model": spec.model, "metric": name, "column_name": outcome or TABLE, "slice_key": ALL,
        "dataset": PRODUCTION,
    }  # fmt: skip
    with store.state.connect() as conn:
        rows = monitor_results.failed(conn, about, last.start, last.start)
    for row in rows:
        details = json.loads(row["details"])
        asked = name_traced(spec, *period)
        is_of_one = last.start == period[0] and row["threshold"].startswith(("drop", "change of"))
        is_alone = is_of_one and "traced" not in details and N_TOGETHER not in details
        if is_alone or details.get("traced") == asked:
            return read_worse_slices(row["details"])
    return None


def read_worse_slices(details: str) -> tuple[tuple[str, str], ...]:
    """Return key and value of the slices that a verdict names as worse than the whole.

    Args:
        details: Of the verdict, as JSON.
    """
    worse = json.loads(details).get("worst_slices", ())
    return tuple((part["slice_key"], part["slice_value"]) for part in worse)


def name_traced(spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> dict[str, str]:
    """Name windows as ``mlmon trace`` takes them: one by its key, several by their days.

    Args:
        spec: The model.
        start: Of the first window.
        end: Of the last one.
    """
    first = window_containing(spec.time, start)
    if first.end >= end:
        return {"window": first.key}
    return dict(zip(("from", "to"), name_days(spec, start, end), strict=True))


def name_days(spec: ModelSpec, start: dt.datetime, end: dt.datetime) -> tuple[str, str]:
    """Name the first and the last day of some windows.

    Args:
        spec: The model.
        start: Of the first window.
        end: Of the last one.
    """
    zone, last = ZoneInfo(spec.time.zone), end - dt.timedelta(microseconds=1)
    first, final = (moment.astimezone(zone).date().isoformat() for moment in (start, last))
    return first, final


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
    known: Baseline | None = None,
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
        at = period[0] if spec.baseline.is_rolling else None
        baseline = known if known and at is None else load_baseline(store, spec, at)
        return now, {n: stats for n, stats in baseline.windows.items() if n in columns}
    return now, loaded(*against)


def searched(
    store: Store, spec: ModelSpec, period: tuple[dt.datetime, dt.datetime]
) -> Searched | None:
    """Search the rows of some windows for slices, by all features, declared as slices or not.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows.

    Returns:
        None for models whose rows are not wrong one by one, see `trace.rows`.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    baseline = load_baseline(store, spec, period[0] if spec.baseline.is_rolling else None)
    know_fits(spec, baseline.binnings)
    windows = windows_between(spec.time, *period)
    known = _judged_rows(store, spec, baseline, windows, PRODUCTION)
    if known is None:
        return None
    rows, target, means = known
    names = [n for n in _searchable(spec) if n in baseline.binnings]
    if not names or not len(rows):
        return Searched((), means, means == WRONG, len(rows), tuple(names), False)

    def coded(of: pd.DataFrame) -> list[Coded]:
        return [code_column(n, of[n], baseline.binnings[n]) for n in names]

    def table(of: pd.DataFrame, values: pd.Series[float]) -> Rows:
        codes = np.stack([column.codes for column in coded(of)], axis=1)
        places = np.unique(of["window_start"].to_numpy(), return_inverse=True)[1]
        return Rows(codes, np.asarray(values, np.float64), places)

    before = _judged_rows(store, spec, baseline, _windows_of(spec, baseline), baseline.dataset)
    usual = table(*before[:2]) if before is not None and len(before[0]) else None
    asked = table(rows, target)
    slices = search(asked, usual)
    columns = coded(rows)
    return Searched(
        tuple((predicate_of(columns, one.terms), one) for one in slices),
        means,
        means == WRONG,
        len(rows),
        tuple(names),
        has_enough(asked.windows),
    )


def _searchable(spec: ModelSpec) -> list[str]:
    return [n for n, f in spec.features.items() if f.type in CODED and not f.pii and not is_slow(f)]


def _judged_rows(
    store: Store, spec: ModelSpec, baseline: Baseline, windows: Sequence[Window], dataset: str
) -> tuple[pd.DataFrame, pd.Series[float], str] | None:
    """Return labelled rows, how much worse each is than the baseline's like it, and what that is.

    None for models whose rows are not wrong one by one.
    """
    read = store.inference_records(spec).read(
        windows, [dataset], ["window_start", "actual", *spec.columns.outputs, *_searchable(spec)]
    )
    rows = read.to_pandas()
    found = excess(spec, rows, baseline.windows)
    return None if found is None else (rows.loc[found[0].index], *found)


def alike(
    store: Store,
    spec: ModelSpec,
    period: tuple[dt.datetime, dt.datetime],
    outcome: str = TABLE,
    known: Baseline | None = None,
) -> list[Alike]:
    """Find rows of some windows that are alike by an embedding and worse than the others.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows.
        outcome: The evaluation that says which rows are bad, of models that have some; else rows
            are bad that are decided wrongly.
        known: The baseline of windows to come, if it has been read already.

    Returns:
        Of all embeddings; none of models without any, or without evaluations and decisions.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    if not spec.embeddings:
        return []
    at = period[0] if spec.baseline.is_rolling else None
    baseline = known if known and at is None else load_baseline(store, spec, at)
    windows = windows_between(spec.time, *period)
    earlier = _windows_of(spec, baseline)
    found = []
    for column in spec.embeddings:
        now, then = (
            _judged_vectors(store, spec, baseline, column, outcome, *side)
            for side in ((windows, PRODUCTION), (earlier, baseline.dataset))
        )
        if now is not None and then is not None:
            found += find_alike(column, now, then)
    return found


def _windows_of(spec: ModelSpec, baseline: Baseline) -> list[Window]:
    starts = next(iter(baseline.windows.values())).cells["window_start"].drop_duplicates()
    return [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]


def _judged_vectors(
    store: Store,
    spec: ModelSpec,
    baseline: Baseline,
    column: str,
    outcome: str,
    windows: Sequence[Window],
    dataset: str,
) -> Judged | None:
    """Read vectors of rows of which it is known what came of them, by the hash of their ids."""
    label = outcome if outcome in spec.evaluations else "actual"
    texts = spec.shown_texts
    names = dict.fromkeys([label, "actual", *spec.columns.outputs, *texts])
    source = store.inference_records(spec).from_sql(windows, [dataset])
    wanted = {name: quote_identifier(name) for name in ("window_start", "prediction_id", *names)}
    is_known = f"{quote_identifier(label)} IS NOT NULL"
    table = draw_vectors(store.queries, source, column, wanted, is_known)
    rows = table.select(list(wanted)).to_pandas()
    if spec.evaluations:
        bad = 1.0 - rows[label].astype(float)
    else:
        known = excess(spec, rows, baseline.windows)
        if known is None or known[1] != WRONG:
            return None
        bad = known[0]
    places, vectors = gather_vectors(table)
    kept = find_usable(vectors) & np.isin(places, bad.index)
    places, vectors = places[kept], vectors[kept]
    mine = rows.iloc[places]
    return Judged(
        mine["prediction_id"].tolist(),
        vectors,
        bad.loc[places].to_numpy(np.float64),
        np.unique(mine["window_start"].to_numpy(), return_inverse=True)[1],
        mine[texts].fillna("").agg(" ".join, axis=1).tolist() if texts else (),
    )


@dataclass(frozen=True)
class Trace:
    """What changed between the baseline and some windows, and why.

    Attributes:
        slices: As `compare_slices` returns it, of the metrics that are traced unless asked.
        apart: The first of these metrics and ROC AUC taken apart, as far as there is ground truth.
        raw_score: See `score_explained`.
        said: Why the first metric changed, in plain sentences; [] if nobody knows.
    """

    slices: pd.DataFrame
    apart: Mapping[str, Explained]
    raw_score: RawScore | None
    said: Sequence[str]


def trace_of(
    store: Store,
    spec: ModelSpec,
    period: tuple[dt.datetime, dt.datetime],
    baseline: Baseline | None = None,
) -> Trace:
    """Trace what the spec monitors, from the baseline to some windows.

    Args:
        store: The store.
        spec: The model.
        period: Start and end of the windows that are compared with the baseline.
        baseline: What windows to come are compared with, if it has been read already.

    Raises:
        BaselineMissingError: If the model has no baseline yet.
    """
    wanted = default_metrics(spec)
    first = wanted[0]
    by_metric = {m: _columns_of(spec, m) for m in wanted if m in (first, AREA)}
    columns = {*profiled_for(spec, wanted), *chain.from_iterable(by_metric.values())}
    now, then = _sides(store, spec, sorted(columns), period, BASELINE, baseline)
    slices = compare_slices(spec, now, then, wanted)
    apart = {}
    for metric, mine in by_metric.items():
        one, other = ({n: side[n] for n in mine if n in side} for side in (now, then))
        of_metric = slices[slices["metric"] == metric].reset_index(drop=True)
        found = explain(spec, metric, one, other, of_metric)
        if found is not None:
            worse = _find_verdict(store, spec, metric, period)
            apart[metric] = replace(found, worse_slices=worse)
    raw_score = score_explained(store, spec, period)
    if first not in apart:
        return Trace(slices, apart, raw_score, [])
    windows = windows_between(spec.time, *period)
    keys = dict.fromkeys((windows[0].key, windows[-1].key))
    groups = alike(store, spec, period, first.partition("/")[2], baseline)
    said = describe_trace(
        spec, apart[first], " to ".join(keys), "the baseline", raw_score=raw_score, groups=groups
    )
    return Trace(slices, apart, raw_score, said)


def _columns_of(spec: ModelSpec, metric: str) -> list[str]:
    """Return the profiled columns that a metric is taken apart by."""
    return profiled_for(spec, [metric, *([F1] if spec.task == BINARY else [])])


def _of_version(
    profiles: Mapping[str, ColumnStatistics], version: str, is_it: bool
) -> dict[str, ColumnStatistics]:
    return select_columns(profiles, lambda cells: (cells["model_version"] == version) == is_it)


def newest_mature(
    store: Store, spec: ModelSpec, states: Mapping[dt.datetime, WindowInputs] | None = None
) -> tuple[dt.datetime, dt.datetime] | None:
    """Return start and end of the newest windows whose performance may be trusted.

    Two weeks of days or hours, eight weeks, or three months, as far as there are so many; the
    windows between the oldest and the newest of them. None if there is none.

    Args:
        store: The store.
        spec: The model.
        states: Of all its windows, if they have been read already.
    """
    if states is None:
        states = window_state.load(store.state, spec.model)
    return newest_period(
        spec,
        (
            start
            for start, state in states.items()
            if state.n_actual
            and PERFORMANCE in state.steps
            and state.steps[PERFORMANCE].maturity in ("mature", "closed")
        ),
    )


def newest_period(
    spec: ModelSpec, starts: Iterable[dt.datetime]
) -> tuple[dt.datetime, dt.datetime] | None:
    """Return start and end of the newest of some windows; None without any."""
    newest = sorted(starts)[-SPAN[spec.time.granularity] :]
    return (newest[0], window_containing(spec.time, newest[-1]).end) if newest else None
