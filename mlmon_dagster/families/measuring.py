"""A family's metrics of some windows, beside what they are compared with and were made from.

Distances and shares of columns in slices are as many as features times slices times windows. Those
that no monitor judges are not stored: the profiles hold all that they are made from, and they are
measured when somebody asks, or when a verdict on the whole is to say which slices it is about.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from mlmon_dagster.families.family import Family
from mlmon_dagster.spec import Maturity, ModelSpec
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.window_state import StepMark
from mlmon_dagster.work import Comparison, Part, Work, comparisons, fixed_comparison, mark_of

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics

_IDENTITY = [
    "window_start", "dataset", "model_version", "slice_key", "slice_value", "column_name", "metric"
]  # fmt: skip


def compared(
    part: Part, family: Family, columns: Sequence[str] | None = None
) -> Iterable[Comparison]:
    """Return windows in parts, each with the baseline if a family's metrics need one.

    Args:
        part: The windows.
        family: The family.
        columns: The profiled columns that are compared; by default all that the family reads.
    """
    spec = part.work.spec
    against = family.made.against(spec)
    if against == "baseline":
        return comparisons(part, family.name, columns or family.columns(spec))
    return [fixed_comparison(part) if against == "fixed" else Comparison(part)]


def pick_cells(profiles: Mapping[str, ColumnStatistics], work: Work) -> dict[str, ColumnStatistics]:
    """Return the cells of some windows."""
    from mlmon_dagster.metrics.statistics import select_columns

    wanted = [window.start for window in work.windows]
    return select_columns(profiles, lambda cells: cells["window_start"].isin(wanted))


def name_maturity(mark: StepMark) -> str:
    """Return the maturity of a number; the mark of a step may say what it was compared with."""
    return mark.maturity if mark.maturity in get_args(Maturity) else ""


def add_origin(
    comparison: Comparison, frame: pd.DataFrame, marks: Mapping[dt.datetime, StepMark]
) -> pd.DataFrame:
    """Return a MetricFrame with what its numbers were made from, as the metric table has it.

    Args:
        comparison: The windows and their baseline.
        frame: MetricFrame of these windows.
        marks: What the metrics of each window are made from.
    """
    import pandas as pd

    rows, work, baseline = [], comparison.work, comparison.baseline
    for window in work.windows:
        state, mark = comparison.part.states.get(window.start), marks[window.start]
        rows.append(
            {
                "window_start": window.start,
                "window_end": window.end,
                "data_version": mark.data_version,
                "maturity": name_maturity(mark),
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


def measure_slices(
    part: Part,
    family: Family,
    columns: Sequence[str] = (),
    keys: Sequence[SliceKey] = (),
) -> pd.DataFrame:
    """Return numbers of slices that are not stored, from the profiles; nothing is written.

    Args:
        part: The windows.
        family: One whose slices are measured when asked for.
        columns: Only of these, as metrics name them; by default of all.
        keys: Only of these slice keys; by default of all that the spec declares.

    Returns:
        MetricFrame of production with the columns of the metric table; empty without profiles.
    """
    from mlmon_dagster.metrics.frames import concat_frames

    spec, made = part.work.spec, family.made
    known = family.columns(spec)
    wanted = known if not columns else sorted({b for c in columns for b in made.behind(spec, c)})
    frames = []
    for some in part.in_runs():
        every = some.profiles(wanted, dataset=PRODUCTION, slices=list(keys or spec.slices))
        for comparison in compared(some, family, wanted) if every else ():
            mine = pick_cells(every, comparison.work)
            frame = made.frame(comparison, {c: stats for c, stats in mine.items() if len(stats)})
            marks = {
                window.start: replace(mark_of(some.states, window, "profiles"), maturity="")
                for window in comparison.work.windows
            }
            marks |= comparison.marked(marks)
            frames.append(add_origin(comparison, frame[frame["slice_key"] != ALL], marks))
    return concat_frames(frames)


def join_measured(stored: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Add measured numbers to stored ones; what a monitor of then had stored is there once."""
    from mlmon_dagster.metrics.frames import concat_frames

    joined = concat_frames([stored, measured])
    return joined.drop_duplicates(_IDENTITY, keep="last", ignore_index=True)


def list_unstored(spec: ModelSpec, families: Iterable[Family]) -> list[Family]:
    """Return the families whose slices are measured when asked for, of a model that has slices."""
    mine = [family for family in families if family.measure is not None]
    return [family for family in mine if spec.slices and family.made.slices(spec) == "asked"]
