"""From stored metrics to verdicts, one monitor family per check."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.families.reported_files import reported_in, window_named_by
from mlmon_dagster.pipeline.judge_inputs import judge_inputs
from mlmon_dagster.pipeline.why import verdicts_with_why
from mlmon_dagster.spec import Window, complete_windows, window_containing
from mlmon_dagster.spec.names import SCHEMA
from mlmon_dagster.spec.windows import begin_reading, name_wait
from mlmon_dagster.store.state import manifest, monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import LOOK_BACK
from mlmon_dagster.store.state.window_state import StepMark, WindowInputs, load
from mlmon_dagster.work import (
    Work,
    earlier_marks,
    mark_compared,
    mark_of,
    mark_step,
    parts_of,
)

_STILL_COMING = ("provisional", "labels_still_coming", "arrival_unknown")
NEWEST = 2  # windows that refused files are reported in


def judge(work: Work, family: str, windows: Sequence[Window] | None = None) -> None:
    """Judge the run's windows by one family, and store the verdicts.

    Args:
        work: What the run works on.
        family: One of `spec.monitors.FAMILIES`.
        windows: Others than those that the family chooses of a run.
    """
    mine = JUDGED_BY[family]
    windows = mine.chosen(work) if windows is None else windows
    if not windows:
        return
    mine.prepare(work)
    is_by_clock, n_later = mine.declared.is_by_clock, mine.reach(work.spec) - 1
    # Noted before the verdicts are formed: what changes meanwhile is not in them.
    states = {} if is_by_clock else work.states()
    marks = {} if is_by_clock else _judged_marks(work, family, states)
    due: Sequence[Window] = windows
    if work.is_planned and not is_by_clock:
        due, n_later = _find_due(work, family, states, marks, n_later)
    if due:
        _judge_windows(work, family, due)
    if later := _later_windows(work, family, windows[-1], n_later):
        _judge_windows(work, family, later)
    if not is_by_clock:
        mark_step(work, f"{family}_check", marks)
    if work.windows:
        for other in mine.judged_after:
            judge(work, other)


def _find_due(
    work: Work,
    family: str,
    states: Mapping[dt.datetime, WindowInputs],
    marks: Mapping[dt.datetime, StepMark],
    n_later: int,
) -> tuple[list[Window], int]:
    """Return the windows of a planned run whose verdicts are older than what they rest on.

    Args:
        work: What the run works on.
        family: The family.
        states: The windows' states.
        marks: What verdicts would be made from now.
        n_later: How many later windows a verdict on any of them is read by.

    Returns:
        The windows; and how many after the last of all still have to be judged, too.
    """
    mine, spec = JUDGED_BY[family], work.spec
    due, n_after = list[Window](), 0
    for window in work.windows:
        state = states.get(window.start)
        judged = state.steps.get(f"{family}_check") if state else None
        if (
            state is None
            or judged is None
            or judged.revision < state.events_revision
            or judged != replace(marks[window.start], revision=judged.revision)
        ):
            due.append(window)
            n_after = n_later
        elif n_after and (state.n_actual or not mine.needs_truth):
            due.append(window)
            n_after -= mine.is_member(spec, state)
    return due, n_after


def _judge_windows(work: Work, family: str, windows: Sequence[Window]) -> None:
    """Judge windows and store the verdicts."""
    engine, spec, mine = work.project.store.state, work.spec, JUDGED_BY[family]
    begin = begin_reading(windows[0].start, windows[0].end, mine.reach(spec))
    states = load(engine, spec.model, begin, windows[-1].end)
    rows = verdicts_with_why(judge_inputs(work, family, tuple(windows), states))
    history = _history(work, family, windows, states)
    for row in rows:
        row["is_backfill"] = row["window_start"] in history
        row["created_at"] = work.now
    monitor_results.append(engine, rows)


def _later_windows(work: Work, family: str, last: Window, most: int) -> list[Window]:
    """Return the windows after some that are judged together with them, or by what they were like.

    As many as count. What waits to be computed is judged after that, and what has no ground truth
    once it has some.
    """
    spec, mine = work.spec, JUDGED_BY[family]
    if not most:
        return []
    later = load(work.project.store.state, spec.model, start=last.end)
    found: list[Window] = []
    n_members = 0
    for start, state in sorted(later.items()):
        mark = state.steps.get(mine.step)
        if mark is None or mark.revision < state.input_revision:
            continue
        if mine.needs_truth and not state.n_actual:
            continue
        found.append(window_containing(spec.time, start))
        n_members += mine.is_member(spec, state)
        if n_members == most:
            break
    return found


def _history(
    work: Work,
    family: str,
    windows: Sequence[Window],
    states: Mapping[dt.datetime, WindowInputs],
) -> set[dt.datetime]:
    """Return the starts of the windows whose verdicts are no news: listed, and not sent.

    They could not be told when the window ended, or a person asked for another look at inputs
    that were judged before.
    """
    engine, spec, step = work.project.store.state, work.spec, f"{family}_check"
    with engine.connect() as conn:
        found = window_state.find_imported(conn, spec, windows)
    if work.is_backfill:
        for window in windows:
            judged, state = mark_of(states, window, step), states.get(window.start)
            if state is not None and 0 < judged.revision >= state.input_revision:
                found.add(window.start)
    return found


def verdicts_on(work: Work, family: str) -> dict[str, list[dict[str, object]]]:
    """Return the newest verdicts of a family on the run's windows, as they are stored.

    Returns:
        Window key -> rows of ``monitor_result``.
    """
    newest = monitor_results.newest(
        work.project.store.state, work.spec.model, work.start, work.end, family
    )
    keys = {window.start: window.key for window in work.windows}
    judged: dict[str, list[dict[str, object]]] = {window.key: [] for window in work.windows}
    for row in newest.to_dict("records"):
        key = keys[row["window_start"].to_pydatetime()]
        judged[key].append({str(name): value for name, value in row.items()})
    return judged


def _judged_marks(
    work: Work, family: str, states: Mapping[dt.datetime, WindowInputs]
) -> dict[dt.datetime, StepMark]:
    """Return what the verdicts on a run's windows are made from.

    Noted once they are there, so that one which a crash prevented is asked for again. That is what
    the family's step was made from, the earlier windows that verdicts are held against, and why
    ground truth is waited for.
    """
    mine, spec = JUDGED_BY[family], work.spec
    marks = {window.start: mark_of(states, window, mine.step) for window in work.windows}
    for part in parts_of(work, states) if mine.is_compared(spec) else ():
        for start, earlier in earlier_marks(part, family).items():
            # What still waits for its ground truth is compared with nothing.
            waits = mine.needs_truth and spec.waits_for_truth
            if not (waits and marks[start].maturity == "provisional"):
                marks[start] = mark_compared(marks[start], earlier)
    timing = window_state.timing_of(work.project.store.state, spec.model)
    for window in work.windows:
        if (mark := marks[window.start]).maturity == "provisional":
            n_actual = states[window.start].n_actual
            why = name_wait(spec, window.end, n_actual, work.now, timing)
            marks[window.start] = replace(mark, maturity=why)
    return marks


def judge_quarantined(work: Work) -> None:
    """Judge the schema of the newest windows that files refused or sent again are reported in.

    A file refused as a whole, or one without a new row, touches no window, and one that breaks an
    expectation may touch others, so that nothing else would ask for the verdict.
    """
    time = work.spec.time
    newest = complete_windows(time, work.now)[-NEWEST:]
    if not newest:
        return
    engine, model = work.project.store.state, work.spec.model
    found = manifest.load_files_to_tell(engine, model, newest[0].start)
    if not found:
        return
    import pandas as pd

    files = pd.DataFrame(found)
    named = [window_named_by(str(path), time) for path in files["path"]]
    windows = {w.start: w for w in [*newest, *named] if w is not None and w.end <= work.now}
    for _, window in sorted(windows.items()):
        if not reported_in(files, window, time).empty:
            judge(replace(work, windows=(window,), is_planned=False), SCHEMA)


def judge_computed(work: Work, family: str, *, again: bool = False) -> None:
    """Judge those of the newest windows whose numbers are newer than their verdict.

    Args:
        work: Whatever its windows, those that the present moment makes the newest are looked at.
        family: The family.
        again: Judge the newest of them that has numbers also where nothing is newer.
    """
    spec, mine, name = work.spec, JUDGED_BY[family], f"{family}_check"
    newest = complete_windows(spec.time, work.now)[-LOOK_BACK:]
    if not newest or mine.declared.is_by_clock or not mine.is_watched(spec):
        return
    work = replace(work, windows=tuple(newest), is_planned=False)
    states = work.states()
    wanted = _judged_marks(work, family, states)
    measured = [
        n
        for n, window in enumerate(newest)
        if window.start in states and mine.step in states[window.start].steps
    ]
    due = [n for n in measured if states[start := newest[n].start].steps.get(name) != wanted[start]]
    due = due or (measured[-1:] if again else [])
    if due:
        judge(replace(work, windows=tuple(newest[due[0] : due[-1] + 1])), family)


def waits_for_truth(results: Sequence[Mapping[str, object]]) -> bool:
    """Tell whether a window has no verdict of a family since its ground truth is still to come."""
    return all(result["status"] == "NO_DATA" for result in results) and any(
        result["reason"] in _STILL_COMING
        or (result["reason"] == "no_actuals" and result["maturity"] == "provisional")
        for result in results
    )


def why_no_verdict(reasons: Sequence[str]) -> str:
    """Say in words why nothing could be judged."""
    from mlmon_dagster.monitors.wording import REASONS

    said = sorted({REASONS.get(reason, reason) for reason in reasons if reason})
    return "; ".join(said) if said else "nothing was measured"
