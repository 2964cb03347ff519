"""From stored profiles to stored metrics, one family of metrics per asset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.baseline_choice import Comparison, comparisons, fixed_comparisons
from mlmon_dagster.pipeline.steps import OF_ACTUALS
from mlmon_dagster.pipeline.work import Numbers, Work, mark_of, mark_step, parts_of
from mlmon_dagster.spec import ALL, Window, maturity_of
from mlmon_dagster.spec.attribution import ATTRIBUTION
from mlmon_dagster.spec.baseline import LIVE, PRODUCTION
from mlmon_dagster.spec.multivariate import SHIFT
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.state.window_steps import StepMark, WindowInputs

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.pipeline.work import Work
    from mlmon_dagster.profiles import Baseline


FAMILY_OF = {
    "data_quality": "quality",
    "drift": "drift",
    "performance": "performance",
    "estimated_performance": "estimated_performance",
    "service_health": "service",
}


def measure_windows(work: Work, step: str) -> dict[str, Numbers]:
    """Compute and store the metrics of one family, with the baseline in force for each window.

    Returns:
        Window key -> the numbers of slice ``all``, named for the UI's plots.
    """
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        numbers |= _measure_part(part, step)
    return numbers


def _measure_part(work: Work, step: str) -> dict[str, Numbers]:
    from mlmon_dagster.metrics.frames import concat_frames
    from mlmon_dagster.profiles import load_profiles
    from mlmon_dagster.profiles.measure.estimates import estimate_columns
    from mlmon_dagster.profiles.measure.measures import columns_of

    family = FAMILY_OF[step]
    store, spec = work.project.store, work.spec
    states = work.states()
    marks = _marks(work, step, states)
    is_estimate = family == "estimated_performance"
    columns = estimate_columns(spec) if is_estimate else columns_of(spec, family)
    profiles = load_profiles(
        store,
        spec,
        start=work.start,
        end=work.end,
        columns=columns,
        slices=[()] if is_estimate else None,
        at=work.start,
    )
    frames = []
    for comparison in compared(work, family, columns):
        part, baseline = comparison.work, comparison.baseline
        marks |= comparison.marked(marks)
        mine = profiles if len(part.windows) == len(work.windows) else _of(profiles, part)
        frame = measured(comparison, family, mine)
        if len(frame):
            stored = _with_provenance(part, frame, marks, states, baseline)
            metric_log.append(store.state, stored)
            frames.append(frame)
    void_emptied(work, profiles, marks)
    mark_step(work, step, marks)
    return numbers_of(work.windows, concat_frames(frames), PLOTTED[step])


def compared(work: Work, family: str, columns: Sequence[str]) -> Iterable[Comparison]:
    """Return a run's windows in parts, each with the baseline if a family's metrics need one."""
    needs_baseline = family in ("drift", "estimated_performance") or (
        family == "performance" and work.spec.task == "regression"
    )
    if needs_baseline:
        return comparisons(work, family, columns)
    # Quality asks which share of unseen values is usual.
    return fixed_comparisons(work) if family == "quality" else [Comparison(work)]


def measured(
    comparison: Comparison, family: str, profiles: Mapping[str, ColumnStatistics]
) -> pd.DataFrame:
    """Return one family's metrics of some windows that share a baseline, and store nothing.

    Args:
        comparison: The windows and what they are compared with.
        family: One of those that are computed from profiles.
        profiles: Column -> statistics of the windows.
    """
    from mlmon_dagster.metrics.frames import concat_frames
    from mlmon_dagster.profiles.measure.estimates import estimate
    from mlmon_dagster.profiles.measure.measures import measure, measure_versions

    work, baseline = comparison.work, comparison.baseline
    if family == "estimated_performance":
        # Earlier windows were not split in halves, so they cannot teach and be measured on.
        learnt = None if comparison.mark else baseline
        return estimate(work.project.store, work.spec, profiles, learnt, work.windows, LIVE)
    windows = baseline.windows if baseline else None
    found = [m(work.spec, family, profiles, windows) for m in (measure, measure_versions)]
    return concat_frames(found)


def _of(profiles: Mapping[str, ColumnStatistics], work: Work) -> dict[str, ColumnStatistics]:
    """Return the cells of some windows."""
    from mlmon_dagster.metrics.statistics import select

    wanted = [window.start for window in work.windows]
    return {
        name: select(stats, stats.cells["window_start"].isin(wanted).to_numpy())
        for name, stats in profiles.items()
    }


def _marks(
    work: Work, step: str, states: Mapping[dt.datetime, WindowInputs]
) -> dict[dt.datetime, StepMark]:
    """Return what this step of each window is made from; of those about actuals also maturity."""
    marks = {}
    for window in work.windows:
        mark = replace(mark_of(states, window, "profiles"), maturity="")
        if step in OF_ACTUALS:
            state = states.get(window.start)
            n, n_actual = (state.n_expected, state.n_actual) if state else (0, 0)
            maturity = maturity_of(work.spec, window, n, n_actual, work.now)
            version = f"{mark.data_version}:{maturity}"
            mark = replace(mark, data_version=version, maturity=maturity)
        marks[window.start] = mark
    return marks


def _with_provenance(
    work: Work,
    frame: pd.DataFrame,
    marks: Mapping[dt.datetime, StepMark],
    states: Mapping[dt.datetime, WindowInputs],
    baseline: Baseline | None,
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for window in work.windows:
        state, mark = states.get(window.start), marks[window.start]
        rows.append(
            {
                "window_start": window.start,
                "window_end": window.end,
                "data_version": mark.data_version,
                "maturity": mark.maturity,
                "actual_coverage": state.coverage if state else None,
            }
        )
    known = pd.DataFrame(rows)
    for name in ("window_start", "window_end"):
        known[name] = pd.to_datetime(known[name], utc=True).astype("datetime64[us, UTC]")
    stored = frame.assign(window_start=frame["window_start"].astype("datetime64[us, UTC]"))
    stored = stored.merge(known, on="window_start", how="inner")
    return stored.assign(
        model=work.spec.model,
        granularity=work.spec.time.granularity,
        baseline_id=baseline.baseline_id if baseline else "none",
        baseline_kind=baseline.kind if baseline else "none",
        run_id=work.run_id,
        computed_at=work.now,
    )


Plotted = Callable[[str, str], str | None]


def _per_column(*metrics: str) -> Plotted:
    return lambda metric, column: f"{metric}/{column}" if metric in metrics else None


def _of_table(metric: str, column: str) -> str | None:
    return metric if column == ":table" else None


PLOTTED: dict[str, Plotted] = {
    "data_quality": _per_column("null_rate", "unseen_rate"),
    "drift": lambda metric, column: (
        SHIFT if metric == SHIFT else _per_column("psi", ATTRIBUTION)(metric, column)
    ),
    "performance": _of_table,
    "estimated_performance": _of_table,
    "service_health": _of_table,
}


def numbers_of(
    windows: Sequence[Window], frame: pd.DataFrame, plotted: Plotted
) -> dict[str, Numbers]:
    """Return the numbers that the UI plots per window."""
    numbers: dict[str, Numbers] = {window.key: {} for window in windows}
    keys = {window.start: window.key for window in windows}
    whole = frame[frame["slice_key"] == "all"]
    columns = ("window_start", "dataset", "model_version", "metric", "column_name", "value")
    rows: Iterable[tuple[pd.Timestamp, str, str, str, str, float]] = zip(
        *(whole[name] for name in columns), strict=True
    )
    for start, dataset, version, metric, column, value in rows:
        name = plotted(metric, column)
        key = keys.get(start.to_pydatetime())
        if name is None or key is None:
            continue
        name = name if dataset == PRODUCTION else f"{dataset}/{name}"
        numbers[key][name if version == ALL else f"{name}/version {version}"] = value
    return numbers


NO_RECORDS = "no_records"


def void_emptied(
    work: Work,
    profiles: Mapping[str, ColumnStatistics],
    marks: Mapping[dt.datetime, StepMark],
) -> None:
    """Say of each metric that a window without any rows still has that it has none.

    Nothing is measured in such a window, so its older numbers would stay the newest for ever.

    Args:
        work: The windows.
        profiles: Their profiles, of some columns at least.
        marks: What the metrics of each window are made from.
    """
    import pandas as pd

    cells: set[tuple[dt.datetime, str]] = set()
    for stats in profiles.values():
        named = stats.cells[["window_start", "dataset"]].drop_duplicates()
        cells |= set(zip(named["window_start"], named["dataset"], strict=True))
    datasets = {PRODUCTION, *(dataset for _, dataset in cells)}
    wanted = {(window.start, dataset) for window in work.windows for dataset in datasets}
    if not profiles or not wanted - cells:
        return
    state = work.project.store.state
    stored = metric_log.newest(
        state, work.spec.model, slice_key=ALL, start=work.start, end=work.end
    )
    empty = [
        start.to_pydatetime() in marks and (start, dataset) not in cells
        for start, dataset in zip(stored["window_start"], stored["dataset"], strict=True)
    ]
    stale = stored[(stored["reason"] != NO_RECORDS) & pd.Series(empty, stored.index, dtype=bool)]
    if len(stale):
        metric_log.append(state, _voided(work, stale, marks))


def _voided(work: Work, stale: pd.DataFrame, marks: Mapping[dt.datetime, StepMark]) -> pd.DataFrame:
    nothing = dict.fromkeys(("value", "lower", "upper", "p_value", "actual_coverage"))
    mine = [marks[start.to_pydatetime()] for start in stale["window_start"]]
    return stale.assign(
        **nothing,
        n=0,
        reason=NO_RECORDS,
        data_version=[mark.data_version for mark in mine],
        maturity=[mark.maturity for mark in mine],
        run_id=work.run_id,
        computed_at=work.now,
    )
