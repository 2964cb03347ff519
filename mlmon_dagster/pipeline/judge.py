"""From stored metrics to verdicts, one monitor family per check."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlmon_dagster.families.registry import FAMILIES
from mlmon_dagster.families.reported_files import reported_in, window_named_by
from mlmon_dagster.pipeline.judge_inputs import judge_inputs
from mlmon_dagster.pipeline.why import verdicts_with_why
from mlmon_dagster.spec import Window, complete_windows, window_containing
from mlmon_dagster.spec.names import SCHEMA
from mlmon_dagster.store.state import manifest, monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import LOOK_BACK, MonitorResult
from mlmon_dagster.store.state.window_state import WindowInputs, load
from mlmon_dagster.work import Work, mark_of, mark_step, windows_begin

_STILL_COMING = ("provisional", "labels_still_coming", "arrival_unknown")
NEWEST = 2  # windows that refused files are reported in


def judge(work: Work, family: str, windows: Sequence[Window] | None = None) -> None:
    """Judge the run's windows by one family, and store the verdicts.

    Args:
        work: What the run works on.
        family: One of `spec.FAMILIES`.
        windows: Others than those that the family chooses of a run.
    """
    mine = FAMILIES[family]
    windows = mine.chosen(work) if windows is None else windows
    if not windows:
        return
    mine.prepare(work)
    states = _judge_windows(work, family, windows)
    if later := _later_windows(work, family, windows[-1]):
        _judge_windows(work, family, later)
    if not mine.declared.is_by_clock:
        _mark_judged(work, family, states)
    if work.windows:
        for other in mine.judged_after:
            judge(work, other)


def _judge_windows(
    work: Work, family: str, windows: Sequence[Window]
) -> dict[dt.datetime, WindowInputs]:
    """Judge windows and store the verdicts.

    Returns:
        The states of these windows, and of those before them that verdicts look back at.
    """
    engine, spec, mine = work.project.store.state, work.spec, FAMILIES[family]
    begin = windows_begin(windows[0], mine.reach(spec))
    states = load(engine, spec.model, begin, windows[-1].end)
    rows = verdicts_with_why(judge_inputs(work, family, tuple(windows), states))
    history = _history(work, family, windows, states)
    for row in rows:
        row["is_backfill"] = row["window_start"] in history
        row["created_at"] = work.now
        if (most := mine.judged_together(spec, row["metric"])) > 1:
            row["data_version"] = _version_of_members(work, row, states, most)
    monitor_results.append(engine, rows)
    return states


def _version_of_members(
    work: Work, row: MonitorResult, states: Mapping[dt.datetime, WindowInputs], most: int
) -> str:
    """Return a verdict's data version, with that of the windows before it that it is of, too."""
    rows, _, rest = row["data_version"].partition(":")
    family = FAMILIES[row["family"]]
    before = sorted(
        start
        for start, state in states.items()
        if start < row["window_start"] and family.is_member(work.spec, state)
    )
    members = [
        mark.data_version
        for start in before[1 - most :]
        if (mark := states[start].steps.get(family.step))
    ]
    digest = hashlib.sha256("|".join(members).encode()).hexdigest()[:8]
    return f"{rows}+{digest}:{rest}"


def _later_windows(work: Work, family: str, last: Window) -> list[Window]:
    """Return the windows after some that are judged together with them, or by what they were like.

    What waits to be computed is judged after that, and what has no ground truth once it has some.
    """
    spec, mine = work.spec, FAMILIES[family]
    back = mine.reach(spec)
    if back == 1:
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
        if n_members == back - 1:
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


def _mark_judged(work: Work, family: str, states: Mapping[dt.datetime, WindowInputs]) -> None:
    """Note that the verdict is there, so that one which a crash prevented is asked for again."""
    marks = {
        window.start: mark_of(states, window, FAMILIES[family].step) for window in work.windows
    }
    mark_step(work, f"{family}_check", marks)


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
            judge(replace(work, windows=(window,)), SCHEMA)


def judge_computed(work: Work, family: str, *, again: bool = False) -> None:
    """Judge those of the newest windows whose numbers are newer than their verdict.

    Args:
        work: Whatever its windows, those that the present moment makes the newest are looked at.
        family: The family.
        again: Judge the newest of them that has numbers also where nothing is newer.
    """
    spec, mine, name = work.spec, FAMILIES[family], f"{family}_check"
    newest = complete_windows(spec.time, work.now)[-LOOK_BACK:]
    if not newest or mine.declared.is_by_clock or not mine.is_watched(spec):
        return
    states = load(work.project.store.state, spec.model, newest[0].start, newest[-1].end)
    marks = [
        (state.steps.get(mine.step), state.steps.get(name))
        if (state := states.get(window.start)) is not None
        else (None, None)
        for window in newest
    ]
    due = [n for n, (made, judged) in enumerate(marks) if made is not None and judged != made]
    if again and not due:
        due = [n for n, (made, _) in enumerate(marks) if made is not None][-1:]
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
