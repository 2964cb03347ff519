"""From stored profiles to stored metrics, one family of metrics per asset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.families.family import Family, Plotted
from mlmon_dagster.families.measuring import add_origin, compared, name_maturity, pick_cells
from mlmon_dagster.families.registry import MEASURED_BY
from mlmon_dagster.spec import Window, maturity_of
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.steps import of_actuals
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark
from mlmon_dagster.work import (
    Numbers,
    Part,
    Work,
    earlier_marks,
    mark_compared,
    mark_of,
    mark_step,
    parts_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics


def measure_windows(work: Work, step: str) -> dict[str, Numbers]:
    """Compute and store the metrics of one family, with the baseline in force for each window.

    Returns:
        Window key -> the numbers of slice ``all``, named for the UI's plots; without the windows
        that the planner's run left as they were, since their numbers are made from the same.
    """
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        kept = _keep_metrics(part, step) if work.is_planned else {}
        if kept:
            mark_step(work, step, kept)
        for some in part.without(kept).in_runs():
            numbers |= _measure_part(some, step)
    return numbers


def _keep_metrics(part: Part, step: str) -> dict[dt.datetime, StepMark]:
    """Return the new marks of the windows whose metrics are made from what there is now."""
    family, spec, kept = MEASURED_BY[step], part.work.spec, {}
    compared = earlier_marks(part, family.name) if family.made.against(spec) == "baseline" else {}
    for start, wanted in _marks(part, step).items():
        state = part.states.get(start)
        made = state.steps.get(step) if state else None
        if state is None or made is None or made.revision < state.events_revision:
            continue
        wanted = mark_compared(wanted, compared.get(start, ""))
        # A window without a baseline says so before what it is compared with.
        if (made.data_version, made.maturity.removeprefix(f"{NO_BASELINE}:")) == (
            wanted.data_version,
            wanted.maturity,
        ):
            kept[start] = replace(made, revision=wanted.revision)
    return kept


def _measure_part(part: Part, step: str) -> dict[str, Numbers]:
    from mlmon_dagster.metrics.frames import concat_frames

    family, work = MEASURED_BY[step], part.work
    store, spec = work.project.store, work.spec
    marks = _marks(part, step)
    slices: list[SliceKey] | None = None if family.made.slices(spec) == "stored" else [()]
    profiles = part.profiles(family.columns(spec), slices=slices)
    if not part.is_gapless:
        profiles = pick_cells(profiles, work)
    frames, alone = [], list[Window]()
    for comparison in compared(part, family):
        some, baseline = comparison.work, comparison.baseline
        marks |= comparison.marked(marks)
        mine = profiles if len(some.windows) == len(work.windows) else pick_cells(profiles, some)
        frame = family.made.frame(comparison, mine)
        if len(frame):
            metric_log.append(store.state, add_origin(comparison, frame, marks))
            frames.append(frame)
        if baseline is None and family.made.against(spec) != "nothing":
            alone += some.windows
    void_emptied(work, profiles, marks)
    void_uncompared(work, family, alone, marks)
    mark_step(work, step, marks)
    return numbers_of(work.windows, concat_frames(frames), family.made.plotted)


def _marks(part: Part, step: str) -> dict[dt.datetime, StepMark]:
    """Return what this step of each window is made from; of those about actuals also maturity."""
    marks, work, states = {}, part.work, part.states
    timing = window_state.timing_of(work.project.store.state, work.spec.model)
    for window in work.windows:
        mark = replace(mark_of(states, window, "profiles"), maturity="")
        if step in of_actuals(work.spec):
            state = states.get(window.start)
            n, n_actual = (state.n_expected, state.n_actual) if state else (0, 0)
            maturity = maturity_of(work.spec, window, n, n_actual, work.now, timing)
            version = f"{mark.data_version}:{maturity}"
            mark = replace(mark, data_version=version, maturity=maturity)
        marks[window.start] = mark
    return marks


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
    work: Work, profiles: Mapping[str, ColumnStatistics], marks: Mapping[dt.datetime, StepMark]
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
    for frame in {id(stats.cells): stats.cells for stats in profiles.values()}.values():
        named = frame[["window_start", "dataset"]].drop_duplicates()
        cells |= set(zip(named["window_start"], named["dataset"], strict=True))
    datasets = {PRODUCTION, *(dataset for _, dataset in cells)}
    wanted = {(window.start, dataset) for window in work.windows for dataset in datasets}
    if not profiles or not wanted - cells:
        return
    stored = metric_log.newest(
        work.project.store.state, work.spec.model, slice_key=ALL, start=work.start, end=work.end
    )
    empty = [
        start.to_pydatetime() in marks and (start, dataset) not in cells
        for start, dataset in zip(stored["window_start"], stored["dataset"], strict=True)
    ]
    stale = stored[(stored["reason"] != NO_RECORDS) & pd.Series(empty, stored.index, dtype=bool)]
    _void(work, stale, marks, NO_RECORDS)


def void_uncompared(
    work: Work, family: Family, windows: Sequence[Window], marks: Mapping[dt.datetime, StepMark]
) -> None:
    """Say of what windows were compared with once that there is nothing to compare with now.

    Earlier windows that a baseline was made of may be gone, such as when their rows were erased.

    Args:
        work: What the run works on.
        family: Whose metrics.
        windows: Those without a baseline.
        marks: What the metrics of each window are made from.
    """
    names = list(family.metrics(work.spec))
    if not windows or not names:
        return
    start, end = windows[0].start, windows[-1].end
    stored = metric_log.newest(
        work.project.store.state, work.spec.model, metric=names, start=start, end=end
    )
    is_alone = stored["window_start"].isin([window.start for window in windows])
    was_compared = (stored["baseline_kind"] != "none") & (stored["reason"] != NO_BASELINE)
    _void(work, stored[is_alone & was_compared], marks, NO_BASELINE)


def _void(
    work: Work, stale: pd.DataFrame, marks: Mapping[dt.datetime, StepMark], reason: str
) -> None:
    """Store that numbers are no more."""
    if stale.empty:
        return
    nothing = dict.fromkeys(("value", "lower", "upper", "p_value", "by_chance", "actual_coverage"))
    mine = [marks[start.to_pydatetime()] for start in stale["window_start"]]
    voided = stale.assign(
        **nothing,
        n=0 if reason == NO_RECORDS else stale["n"],
        reason=reason,
        data_version=[mark.data_version for mark in mine],
        maturity=[name_maturity(mark) for mark in mine],
        run_id=work.run_id,
        computed_at=work.now,
    )
    metric_log.append(work.project.store.state, voided)
