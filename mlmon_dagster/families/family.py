"""What a family of monitors does, as one record: how it measures, what it judges by, and how.

Each family is a module of this room that is called as the family is and ends in its record,
`FAMILY`. What the user declares, and what its asset is called, is its row in ``spec/monitors.py``.
These modules are loaded with the definitions, so they import what is heavy in functions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mlmon_dagster.monitors.evidence import (
    N_TOGETHER,
    NO_DATA,
    Case,
    Evidence,
    explain_unjudged,
    finite,
)
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.monitors import DeclaredFamily
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Comparison, Work

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics

Profiles = Mapping[str, "ColumnStatistics"]
Facts = Mapping[str, Any]  # of a window, as `fill_windows` takes them
Plotted = Callable[[str, str], str | None]
References = Mapping[str, Any]  # attributes of `Evidence`
Sample = dict[str, object]  # a row of a MetricFrame
Against = Literal["baseline", "fixed", "nothing"]
Slices = Literal["stored", "asked", "none"]


@dataclass(frozen=True)
class Measure:
    """How a family's metrics come from profiles.

    Attributes:
        columns: The profiled columns that are read.
        frame: Metrics of some windows that share a baseline.
        against: What the metrics need: the ``baseline`` of each window, only one that is
            ``fixed`` (earlier windows are not split in halves, so that estimates could learn from
            one and be held against the other), or nothing.
        plotted: Metric and column -> name of its plot in the UI; None if it has none, or is another
            family's.
        slices: Whether metrics of slices are ``stored``, measured from profiles when they are
            ``asked`` for, or there are ``none``.
        behind: A column that metrics name -> the profiled columns that those are made from.
    """

    columns: Callable[[ModelSpec], list[str]]
    frame: Callable[[Comparison, Profiles], pd.DataFrame]
    against: Callable[[ModelSpec], Against]
    plotted: Plotted
    slices: Callable[[ModelSpec], Slices] = lambda spec: "stored"
    behind: Callable[[ModelSpec, str], Sequence[str]] = lambda spec, column: [column]


@dataclass(frozen=True)
class Family:
    """A family of monitors.

    Attributes:
        declared: Its name, its asset and its place among the others.
        judge: Turns what is known of windows into verdicts: a row for every monitor and window,
            except of freshness for an empty window that may still fill.
        limits: Says in a check's description what its thresholds are; the UI plots no constants.
        measure: How its metrics are made; None for what is judged by counts alone.
        is_watched: Whether a model has anything to judge; not every model logs everything.
        is_due: Whether a verdict is ever to come.
        metrics: Names of the stored metrics that its monitors read.
        explained_by_slices: Whether its monitors also read the metrics of slices.
        looks_back: Windows whose metrics a verdict reads, its own included.
        profiles_back: Windows whose profiles a verdict reads, its own included.
        is_compared: Whether a verdict reads the baseline's own metrics, see ``references``.
        compared: The profiled columns of the baseline that a verdict reads, if not those that
            its metrics are made from.
        references: What verdicts read of the baseline and of profiles.
        facts: What its monitors must know of each window beside metrics and counts.
        counted: The rows of a window as this family counts them.
        version: Version of what was judged, if not only that of the step.
        learns_at: Steps that may wait for a baseline.
        traced: The metric of ground truth whose trace says why a verdict on a metric failed; empty
            if none does.
        judged_together: The windows that a verdict on a metric is of, its own included; of some
            verdicts there are more, see `count_judged`.
        needs_truth: Nothing of a window is judged before its ground truth is there.
        chosen: The windows that a run judges.
        prepare: Learns what verdicts rest on from the whole of a model, before they are formed.
        judged_after: Families whose verdicts a run repeats after these.
    """

    declared: DeclaredFamily
    judge: Callable[[Evidence], list[MonitorResult]]
    limits: Callable[[ModelSpec], str]
    measure: Measure | None = None
    is_watched: Callable[[ModelSpec], bool] = lambda spec: True
    is_due: Callable[[ModelSpec], bool] = lambda spec: True
    metrics: Callable[[ModelSpec], Sequence[str]] = lambda spec: ()
    explained_by_slices: Callable[[ModelSpec], bool] = lambda spec: False
    looks_back: Callable[[ModelSpec], int] = lambda spec: 1
    profiles_back: Callable[[ModelSpec], int] = lambda spec: 1
    is_compared: Callable[[ModelSpec], bool] = lambda spec: False
    compared: Callable[[ModelSpec], list[str]] | None = None
    references: Callable[[Comparison], References] = lambda comparison: {}
    facts: Callable[[Work, Sequence[Window]], Sequence[Facts]] = lambda work, windows: [
        {} for _ in windows
    ]
    counted: Callable[[WindowInputs], int] = lambda state: state.n
    version: Callable[[str, WindowInputs, Facts], str] = lambda version, state, facts: version
    learns_at: tuple[str, ...] = ("profiles",)
    traced: Callable[[str], str] = lambda metric: ""
    judged_together: Callable[[ModelSpec, str], int] = lambda spec, metric: 1
    needs_truth: bool = False
    chosen: Callable[[Work], Sequence[Window]] = lambda work: work.windows
    prepare: Callable[[Work], None] = lambda work: None
    judged_after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As below ``monitors`` in a spec."""
        return self.declared.name

    @property
    def step(self) -> str:
        """The asset that its data come from; what is counted anyway, records are counted for."""
        return self.declared.asset if self.declared.is_measured else "inference_store"

    def reach(self, spec: ModelSpec) -> int:
        """Return how many windows a verdict reads anything of, its own included."""
        return max(self.looks_back(spec), self.profiles_back(spec))

    def count_judged(self, spec: ModelSpec, verdict: MonitorResult) -> int:
        """Return how many windows a verdict is of, its own included."""
        together = json.loads(verdict["details"]).get(N_TOGETHER)
        return int(together or self.judged_together(spec, verdict["metric"]))

    def is_member(self, spec: ModelSpec, state: WindowInputs) -> bool:
        """Tell whether a window counts among those that a verdict is of several of.

        With rows where it reads their profiles, else with ground truth.
        """
        return bool(state.n if self.profiles_back(spec) > 1 else state.n_actual)

    @property
    def made(self) -> Measure:
        """How its metrics are made.

        Raises:
            ValueError: If it has none of its own.
        """
        if self.measure is None:
            raise ValueError(f"The family {self.name} is judged by counts; it has no metrics.")
        return self.measure

    def columns(self, spec: ModelSpec) -> list[str]:
        """Return the profiled columns that its metrics are made from."""
        return self.made.columns(spec)


def make_sample(window: Window, metric: str, method: str, **fields: object) -> Sample:
    """Return a row of a MetricFrame, of production as a whole unless other fields are given."""
    nothing = dict.fromkeys(("value", "lower", "upper", "p_value", "by_chance"), math.nan)
    return {
        "window_start": window.start,
        "dataset": PRODUCTION,
        "model_version": ALL,
        "slice_key": ALL,
        "slice_value": ALL,
        "column_name": TABLE,
        "metric": metric,
        "method_version": method,
        "n": 0,
        "n_baseline": 0,
        "reason": "",
        **nothing,
        **fields,
    }


def frame_samples(rows: Sequence[Sample]) -> pd.DataFrame:
    """Put together a MetricFrame of such rows."""
    import pandas as pd

    from mlmon_dagster.metrics.frames import METRIC_COLUMNS

    frame = pd.DataFrame(rows, columns=list(METRIC_COLUMNS))
    frame["window_start"] = pd.to_datetime(frame["window_start"], utc=True)
    return frame


def await_truth(case: Case, reason: str, named: str) -> MonitorResult:
    """Return the row of a metric of ground truth that is not judged, with the baseline's value."""
    evidence, window, row = case.evidence, case.window, case.source
    base = evidence.baseline_row(case.metric, row)
    n = int(row["n"]) if row else int(window["n_actual"])
    message = explain_unjudged(window, named, reason, n, evidence.spec.time.granularity)
    known = finite(base["value"]) if base else None
    return case.result(NO_DATA, message, reason=reason, baseline_value=known)


def measure_profiles(
    family: str,
    against: Callable[[ModelSpec], Against],
    plotted: Plotted | None = None,
    **more: Any,
) -> Measure:
    """Return the measure of a family that has a row in ``profiles/measures.py``."""
    return Measure(
        partial(profiled_columns, family),
        partial(profiled_metrics, family),
        against,
        plotted or _plot_own(family),
        **more,
    )


def profiled_columns(family: str, spec: ModelSpec) -> list[str]:
    """Return the profiled columns that a family's row in ``measures.py`` reads."""
    from mlmon_dagster.profiles.measures import columns_of

    return columns_of(spec, family)


def profiled_metrics(family: str, comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    """Return the metrics of some windows, of all versions together and of each alone."""
    from mlmon_dagster.metrics.frames import concat_frames
    from mlmon_dagster.profiles.measures import measure, measure_versions

    spec, baseline = comparison.work.spec, comparison.baseline
    windows = baseline.windows if baseline else None
    return concat_frames([m(spec, family, profiles, windows) for m in (measure, measure_versions)])


def plot_columns(*metrics: str) -> Plotted:
    """Return plots of some metrics of each column."""
    return lambda metric, column: f"{metric}/{column}" if metric in metrics else None


def plot_wholes(is_own: Callable[[str], bool]) -> Plotted:
    """Return plots of those metrics that are of no column."""
    return lambda metric, column: metric if is_own(metric) and column == TABLE else None


def plot_both(is_own: Callable[[str], bool]) -> Plotted:
    """Return plots of metrics that are of a column, and of those that are of none."""

    def name_plot(metric: str, column: str) -> str | None:
        if not is_own(metric):
            return None
        return metric if column == TABLE else f"{metric}/{column}"

    return name_plot


def _plot_own(family: str) -> Plotted:
    """Return the plots of the metrics that the registry lists for a family."""

    def is_own(metric: str) -> bool:
        info = METRICS.get(metric.partition("/")[0])
        return info is not None and info.family == family

    return plot_wholes(is_own)
