"""The windows that a drill happens in: the newest ones that the monitors call healthy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from mlmon_dagster.alerts.lifecycle.backtest import backtest
from mlmon_dagster.pipeline.judge_inputs import JudgeInputs, judge_inputs
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state import model_history, window_state
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Work

LOOK_BACK = 120  # newest windows among which healthy ones are looked for


def judges_slices(spec: ModelSpec) -> bool:
    """Tell whether any monitor of a model has verdicts on slices."""
    judged = spec.monitors.drift.slices or any(m.slices for m in spec.monitors.performance)
    return judged or spec.fairness is not None


class Past:
    """What is stored of a model's newest windows, read once.

    Args:
        work: The model, the moment, and no windows.
    """

    def __init__(self, work: Work) -> None:
        states = window_state.load(work.project.store.state, work.spec.model)
        profiled = set(window_state.list_profiled(states))
        complete = complete_windows(work.spec.time, work.now)
        kept = model_history.load_rows_from(work.project.store.state, work.spec.model).get(
            PRODUCTION
        )
        newest = [w for w in complete if w.start in profiled and (not kept or w.start >= kept)]
        self.states: dict[dt.datetime, WindowInputs] = states
        self.work = replace(work, windows=tuple(newest[-LOOK_BACK:]))
        self._verdicts: dict[str, list[MonitorResult]] = {}
        self._inputs: dict[tuple[str, tuple[Window, ...]], list[JudgeInputs]] = {}

    @property
    def windows(self) -> tuple[Window, ...]:
        """The newest windows that have profiles and all their rows, oldest first."""
        return self.work.windows

    def inputs(self, family: str, windows: Sequence[Window]) -> list[JudgeInputs]:
        """Return what the judges of a family are given of some windows, and of no others."""
        key = (family, tuple(windows))
        if key not in self._inputs:
            inputs = judge_inputs(self.work, family, key[1], self.states)
            self._inputs[key] = [self._only(one, windows) for one in inputs]
        return self._inputs[key]

    def _only(self, inputs: JudgeInputs, windows: Sequence[Window]) -> JudgeInputs:
        metrics = inputs.metrics
        mine = metrics["window_start"].isin([window.start for window in windows])
        if not judges_slices(self.work.spec):
            mine &= metrics["slice_key"] == ALL  # the others only explain
        return replace(inputs, metrics=metrics[mine])

    def verdicts(self, family: str) -> list[MonitorResult]:
        """Return the verdicts of a family on all the windows, as the spec declares it now."""
        if family not in self._verdicts:
            inputs = judge_inputs(self.work, family, self.windows, self.states)
            self._verdicts[family] = [row for one in inputs for row in one.verdicts()]
        return self._verdicts[family]

    def healthy(
        self, family: str, column: str, n: int, metric: str | None = None
    ) -> tuple[Window, ...]:
        """Return the newest windows in which a family has nothing to say of a column, oldest first.

        A monitor has judged it, none fails it, and no alert about it fires, as from a fold of all
        the verdicts. With a metric its monitor alone counts.
        """
        rows = [
            row
            for row in self.verdicts(family)
            if row["column_name"] == column
            and row["slice_key"] == ALL
            and metric in (None, row["metric"])
        ]
        statuses: dict[dt.datetime, set[str]] = {}
        for row in rows:
            statuses.setdefault(row["window_start"], set()).add(row["status"])
        firing = {moment for test in backtest(rows) for moment in test.firing}
        fine = [
            window
            for window in self.windows
            if "OK" in (found := statuses.get(window.start, set()))
            and found <= {"OK", "NO_DATA"}
            and window.start not in firing
        ]
        return tuple(fine[-n:])

    def why_not(self, family: str, column: str) -> str:
        """Say why a family has no healthy windows of a column."""
        mine = [row for row in self.verdicts(family) if row["column_name"] == column]
        if not mine:
            return "it has no verdict yet"
        if any(row["status"] in ("WARN", "ERROR") for row in mine):
            return f"it fails or fires in nearly all of the newest {len(self.windows)} windows"
        reasons = sorted({str(row["reason"]) for row in mine if row["reason"]})
        return f"it could not be judged: {', '.join(reasons)}"

    @cached_property
    def contiguous(self) -> tuple[Window, ...]:
        """All complete windows from the first of `windows` to the last, also empty ones."""
        if not self.windows:
            return ()
        first, last = self.windows[0].start, self.windows[-1].start
        known = complete_windows(self.work.spec.time, self.work.now)
        return tuple(window for window in known if first <= window.start <= last)
