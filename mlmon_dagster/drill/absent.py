"""What is refused, missing or late: rows, files, ground truth. Only counts of windows change."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import replace

from mlmon_dagster.drill.faults import LATE_FEED, MISSING_TRUTH, NULLS, VOLUME
from mlmon_dagster.drill.noticed import Notice, notice
from mlmon_dagster.drill.past import Past, Row
from mlmon_dagster.drill.trial import Probe
from mlmon_dagster.pipeline.judge_inputs import judge_inputs
from mlmon_dagster.spec import Window

_BEFORE = 3  # windows that came in time, before a feed that is late
_TIMES = 3  # windows that a late feed may begin with
SILENCE, OVERDUE = "no_data_for", "actuals_missing"


def notices(past: Past, windows: Sequence[Window], probes: Sequence[Probe]) -> dict[Probe, Notice]:
    """Tell how each of some faults is noticed."""
    by_name = {
        NULLS: _refused,
        VOLUME: _volume,
        LATE_FEED: _late_feed,
        MISSING_TRUTH: _missing_truth,
    }
    return {p: by_name[p.fault.name](past, windows, p.size) for p in probes}


def _refused(past: Past, windows: Sequence[Window], share: float) -> Notice:
    """Rows with a null where none is allowed never come in; too many of them are a refused file."""
    rows: list[Row] = []
    is_whole = share > past.work.spec.source.predictions.max_bad_rate
    for inputs in past.inputs("schema", windows):
        frame = inputs.windows
        bad = (frame["n"] * share).round().astype(int)
        n = frame["n"] * 0 if is_whole else frame["n"] - bad
        changed = frame.assign(n=n, n_bad=0 if is_whole else bad, n_quarantined=int(is_whole))
        rows += replace(inputs, windows=changed).verdicts()
    return notice(windows, past.verdicts("schema"), lambda _: rows)


def _volume(past: Past, windows: Sequence[Window], share: float) -> Notice:
    rows: list[Row] = []
    for inputs in past.inputs("service", windows):
        n = (inputs.windows["n"] * (1 - share)).round().astype(int).clip(lower=1)
        rows += replace(inputs, windows=inputs.windows.assign(n=n)).verdicts()
    return notice(windows, past.verdicts("service"), lambda _: rows)


def _missing_truth(past: Past, windows: Sequence[Window], share: float) -> Notice:
    healthy = past.verdicts("freshness")

    def faulty(place: int) -> list[Row]:
        begin = windows[place].start
        rows: list[Row] = []
        for inputs in past.inputs("freshness", past.windows):
            frame = inputs.windows
            left = (frame["n_actual"] * (1 - share)).round().astype(int)
            n = frame["n_actual"].where(frame["window_start"] < begin, left)
            rows += replace(inputs, windows=frame.assign(n_actual=n)).verdicts()
        return [row for row in rows if row["metric"] == OVERDUE]

    return notice(windows, [row for row in healthy if row["metric"] == OVERDUE], faulty)


def hours_tried(past: Past, hours: Sequence[float]) -> tuple[float, ...]:
    """Return how late a feed can be in what is stored: so many windows must have come after it."""
    return tuple(h for h in hours if _places(past, dt.timedelta(hours=h)))


def _places(past: Past, late: dt.timedelta) -> range:
    """Return the places of the newest windows that may be the first late one."""
    known = past.contiguous
    if not known:
        return range(0)
    behind = math.ceil(late / (known[-1].end - known[-1].start))
    last = len(known) - 1 - behind
    return range(last, max(last - _TIMES, _BEFORE - 1), -1)


def _late_feed(past: Past, _windows: Sequence[Window], hours: float) -> Notice:
    """Look, just before the late rows of a window come, at what freshness says of it."""
    late = dt.timedelta(hours=hours)
    found = [_is_silence_told(past, past.contiguous, p, late) for p in _places(past, late)]
    share = sum(found) / len(found)
    return Notice(share, 1, f"freshness/{SILENCE}") if any(found) else Notice()


def _is_silence_told(past: Past, known: Sequence[Window], place: int, late: dt.timedelta) -> bool:
    now = known[place].end + late - dt.timedelta(seconds=1)
    looked_at = tuple(w for w in known[place - _BEFORE :] if w.end <= now)
    begin = known[place].start
    states = {
        start: replace(state, n=0) if start >= begin else state
        for start, state in past.states.items()
    }
    work = replace(past.work, now=now)
    rows: list[Row] = []
    for inputs in judge_inputs(work, "freshness", looked_at, states):
        # What waits in the landing folder today has nothing to do with it.
        frame = inputs.windows.drop(columns=["n_unread"], errors="ignore")
        rows += replace(inputs, windows=frame).verdicts()
    return any(
        row["status"] in ("WARN", "ERROR") and row["window_start"] >= begin
        for row in rows
        if row["metric"] == SILENCE
    )
