"""What a monitor family's judges are given: stored metrics, and what is known of each window."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlmon_dagster.families.family import Facts, Family, References
from mlmon_dagster.families.measuring import list_unstored, measure_slices
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.monitors.evidence import NO_DATA, Evidence, fill_windows
from mlmon_dagster.spec import Window, maturity_of
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.steps import of_actuals
from mlmon_dagster.spec.windows import TruthTiming, begin_reading, name_wait
from mlmon_dagster.store.state import manifest, metric_log, window_state
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark, WindowInputs
from mlmon_dagster.work import (
    Comparison,
    Part,
    Work,
    comparisons,
    is_waiting,
    parts_of,
)

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.late_truth.arrivals import Arrivals

_UNKNOWN = StepMark(0, "")


@dataclass(frozen=True)
class JudgeInputs:
    """What a family's judges are given of some windows that share a baseline.

    Attributes:
        comparison: The windows and what they are compared with.
        family: The family.
        metrics: MetricFrame of the windows.
        windows: What is known of each window beside its metrics, one row each.
        references: What they read of the baseline and of profiles, see `Family.references`.
        arrivals: What is known of when ground truth comes; None if nothing is.
    """

    comparison: Comparison
    family: Family
    metrics: pd.DataFrame
    windows: Sequence[Facts]
    references: References
    arrivals: Arrivals | None = None

    def verdicts(self) -> list[MonitorResult]:
        """Return rows of ``monitor_result``; nothing is stored."""
        return self._judge(self.windows, self.metrics)

    def explain_verdicts(self) -> list[MonitorResult]:
        """Return the verdicts; those that failed also say of which slices that is true.

        Where numbers of slices are not stored, they are measured of what failed.
        """
        from mlmon_dagster.metrics.frames import concat_frames

        rows, spec = self.verdicts(), self.comparison.work.spec
        failed = [row for row in rows if row["status"] in ("WARN", "ERROR")]
        is_unstored = self.family.explained_by_slices(spec) and list_unstored(spec, [self.family])
        if not failed or not is_unstored:
            return rows
        slices = self._measure_slices(failed)
        if slices.empty:
            return rows
        starts = {row["window_start"] for row in failed}
        again = [known for known in self.windows if known["window_start"] in starts]
        explained = self._judge(again, concat_frames([self.metrics, slices]))
        others = [row for row in rows if row["window_start"] not in starts]
        return sorted([*others, *explained], key=lambda row: row["window_start"])

    def _measure_slices(self, failed: Sequence[MonitorResult]) -> pd.DataFrame:
        """Return the metrics of all slices, of what failed in the windows in which it did."""
        from mlmon_dagster.metrics.frames import METRIC_COLUMNS

        starts = {row["window_start"] for row in failed}
        windows = [w for w in self.comparison.work.windows if w.start in starts]
        columns = sorted({row["column_name"] for row in failed})
        part = self.comparison.part.only(windows)
        return measure_slices(part, self.family, columns)[list(METRIC_COLUMNS)]

    def _judge(self, windows: Sequence[Facts], metrics: pd.DataFrame) -> list[MonitorResult]:
        work = self.comparison.work
        evidence = Evidence(
            self.family.name,
            work.spec,
            fill_windows(windows),
            metrics,
            now=work.now,
            run_id=work.run_id,
            is_backfill=work.is_backfill,
            arrivals=self.arrivals,
            looks_back=self.family.looks_back(work.spec),
            **self.references,
        )
        rows = self.family.judge(evidence)
        for row in rows:
            if row["status"] != NO_DATA and self.family.count_judged(work.spec, row) > 1:
                row["data_version"] = self._version_of_members(row)
        return rows

    def find_judged(self, row: MonitorResult) -> list[dt.datetime]:
        """Return the starts of the windows that a verdict is of, oldest first.

        Of a stored metric those with a value, as it was read; else those with rows or ground truth.
        """
        spec, states = self.comparison.work.spec, self.comparison.part.states
        most, last = self.family.count_judged(spec, row), row["window_start"]
        if row["metric"] not in self.family.metrics(spec):
            known = {start for start, one in states.items() if self.family.is_member(spec, one)}
            return sorted(start for start in known | {last} if start <= last)[-most:]
        metrics = self.metrics
        first = begin_reading(last, row["window_end"], self.family.looks_back(spec))
        mine = metrics[
            (metrics["metric"] == row["metric"])
            & ((metrics["column_name"] == row["column_name"]) | (row["column_name"] == TABLE))
            & (metrics["slice_key"] == ALL)
            & (metrics["dataset"] == PRODUCTION)
            & metrics["value"].notna()
            & metrics["window_start"].between(first, last)
        ]
        return sorted(set(mine["window_start"]))[-most:]

    def _version_of_members(self, row: MonitorResult) -> str:
        """Return a verdict's data version, with that of the earlier windows that it is of, too."""
        states, (rows, _, rest) = self.comparison.part.states, row["data_version"].partition(":")
        members = [
            mark.data_version
            for start in self.find_judged(row)
            if start < row["window_start"]
            and start in states
            and (mark := states[start].steps.get(self.family.step))
        ]
        digest = hashlib.sha256("|".join(members).encode()).hexdigest()[:8]
        return f"{rows}+{digest}:{rest}"


def verdicts(
    work: Work,
    family: str,
    windows: tuple[Window, ...],
    states: Mapping[dt.datetime, WindowInputs],
) -> list[MonitorResult]:
    """Judge windows by one family from what is stored, and store nothing.

    Returns:
        Rows of ``monitor_result``.
    """
    inputs = judge_inputs(work, family, windows, states)
    return [row for one in inputs for row in one.verdicts()]


def judge_inputs(
    work: Work,
    family: str,
    windows: tuple[Window, ...],
    states: Mapping[dt.datetime, WindowInputs],
) -> Iterator[JudgeInputs]:
    """Yield what windows are judged by: stored metrics, in parts that share a baseline."""
    from mlmon_dagster.profiles.arrivals import load_arrivals

    mine, spec = JUDGED_BY[family], work.spec
    if not mine.is_due(spec):
        return  # no verdict is ever to come, which is no news
    columns = mine.compared or mine.columns
    arrivals = load_arrivals(work.project.store.state, spec) if spec.has_actuals else None
    timing = window_state.timing_of(work.project.store.state, spec.model)
    for part in parts_of(replace(work, windows=windows), states):
        facts, metrics = _describe(part, mine, arrivals, timing), _read_metrics(part.work, mine)
        for comparison in (
            comparisons(part, family, columns(spec), alone=_waiting(part, mine, facts))
            if mine.is_compared(spec)
            else [Comparison(part)]
        ):
            own = {window.start for window in comparison.work.windows}
            yield JudgeInputs(
                comparison,
                mine,
                _cut_metrics(metrics, part, comparison.work, mine),
                [known for known in facts if known["window_start"] in own],
                mine.references(comparison),
                arrivals,
            )


def _waiting(part: Part, family: Family, facts: Sequence[Facts]) -> list[Window]:
    """Return the windows whose ground truth is still to come: nothing of them is compared yet."""
    if not family.needs_truth or not part.work.spec.waits_for_truth:
        return []
    both = zip(part.work.windows, facts, strict=True)
    return [window for window, known in both if known["maturity"] == "provisional"]


def _read_metrics(work: Work, family: Family) -> pd.DataFrame:
    """Return the stored metrics that a family's monitors read, slices only where they explain.

    Of windows before the run's, which verdicts look back at, the whole is enough. What the first
    labels of a window say that waits for the others is no value: neither of it, nor of the windows
    that are judged together with it.
    """
    from mlmon_dagster.metrics.frames import METRIC_COLUMNS, concat_frames

    spec, names = work.spec, family.metrics(work.spec)
    if not names:
        return concat_frames([])
    first = work.windows[0]
    begin = begin_reading(first.start, first.end, family.looks_back(spec))
    of_truth = [name for name in names if family.traced(name)]

    def read(start: dt.datetime, end: dt.datetime, slice_key: str | None) -> pd.DataFrame:
        frame = metric_log.newest(
            work.project.store.state,
            spec.model,
            metric=list(names),
            dataset=PRODUCTION,
            granularity=spec.time.granularity,
            slice_key=slice_key,
            start=start,
            end=end,
        )
        waits = (frame["maturity"] == "provisional") & frame["metric"].isin(of_truth)
        waits &= spec.waits_for_truth
        numbers = ["value", "lower", "upper", "p_value"]
        frame[numbers] = frame[numbers].mask(waits)
        return frame[list(METRIC_COLUMNS)]

    if not family.explained_by_slices(spec):
        return read(begin, work.end, ALL)
    own = read(first.start, work.end, None)
    return own if begin == first.start else concat_frames([read(begin, first.start, ALL), own])


def _cut_metrics(metrics: pd.DataFrame, part: Part, work: Work, family: Family) -> pd.DataFrame:
    """Return of a part's metrics those that some of its windows are judged by."""
    if metrics.empty or work.windows == part.work.windows:
        return metrics
    first = work.windows[0]
    begin = begin_reading(first.start, first.end, family.looks_back(work.spec))
    starts = metrics["window_start"]
    is_whole = metrics["slice_key"] == ALL
    return metrics[(starts >= begin) & (starts < work.end) & (is_whole | (starts >= work.start))]


def _describe(
    part: Part, family: Family, arrivals: Arrivals | None, timing: TruthTiming
) -> list[Facts]:
    """Return what the monitors must know of each window beside its metrics."""
    from mlmon_dagster.families.ground_truth import explain_waiting

    work, states = part.work, part.states
    spec = work.spec
    refused = manifest.count_refused(work.project.store.state, spec.model)
    rows: list[Facts] = []
    for window, own in zip(work.windows, family.facts(work, work.windows), strict=True):
        state = states.get(window.start) or WindowInputs(window.start, 0, 0, 0, 0)
        reasons = refused.get(window.start, {})
        n, n_bad = family.counted(state), sum(reasons.values())
        n_by_rule = sum(k for why, k in reasons.items() if why.startswith(f"{manifest.BY_RULE}:"))
        share = (n_bad - n_by_rule) / (n + n_bad) if n + n_bad else 0.0
        facts = {"n_bad": n_bad, "n_by_rule": n_by_rule, **own}
        version = state.steps.get(family.step, _UNKNOWN).data_version
        counts = (state.n_expected, state.n_actual)
        maturity = maturity_of(spec, window, *counts, work.now, timing)
        if maturity in ("provisional", "early") and spec.has_actuals:
            why = explain_waiting(spec, arrivals, timing, window.end, *counts, work.now)
            facts |= {"truth_reason": why[0], "truth_message": why[1]}
        if maturity == "provisional" and family.step in of_actuals(spec):
            version += f":{name_wait(spec, window.end, state.n_actual, work.now, timing)}"
        if maturity == "early" and arrivals is not None and arrivals.whole is not None:
            ever = counts[0] * (arrivals.whole.plateau or 1.0)
            facts["truth_share"] = min(counts[1] / ever, 1.0)
        rows.append(
            {
                "window_start": window.start,
                "window_end": window.end,
                "n": n,
                "n_actual": state.n_actual,
                "n_expected": state.n_expected,
                "is_waiting": is_waiting(state),
                "maturity": maturity,
                "data_version": family.version(version, state, facts),
                "bad_reasons": json.dumps(reasons),
                "schema_broken": share > spec.source.predictions.max_bad_rate,
                "actual_coverage": state.coverage,
                "learning": any(
                    state.steps.get(step, _UNKNOWN).maturity.startswith(NO_BASELINE)
                    for step in family.learns_at
                ),
                **facts,
            }
        )
    return rows
