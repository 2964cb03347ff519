"""What the assets `inference_store` and `profiles` do: rebuild records of windows, count them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.engines.chosen import engine_for
from mlmon_dagster.engines.engine import Local
from mlmon_dagster.spec import Window, maturity_of
from mlmon_dagster.spec.baseline import GRAINS, LIVE, PRODUCTION
from mlmon_dagster.store.moments import check_tables, note_commits
from mlmon_dagster.store.state import erased_ids, window_state
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark, WindowInputs
from mlmon_dagster.store.tables.inference_records import version_of
from mlmon_dagster.work import Numbers, Part, Work, mark_of, mark_step, parts_of

if TYPE_CHECKING:
    from mlmon_dagster.store.tables.inference_records import WindowCounts

NEWS = 2  # windows: a person who asks for the newest ones asks for news


def rebuild_records(work: Work) -> dict[str, Numbers]:
    """Rebuild the inference records of the windows from the event log.

    A frozen window keeps the records it was closed with, and the planner's run those that no input
    has touched since.

    Returns:
        Window key -> counts; without the windows that keep their records.
    """
    from mlmon_dagster.profiles.arrivals import learn_timing
    from mlmon_dagster.store.reading import GroundTruthLag, measure_lags

    store, spec = work.project.store, work.spec
    check_tables(store, spec)
    before = work.states()
    kept = _kept(work, before)
    rebuilt = [window for window in work.windows if window not in kept]
    records = store.inference_records(spec)
    counts = _counted(records.rebuild(rebuilt))
    lags = measure_lags(store, spec, rebuilt, work.now, log=records.log)
    rows, marks = [], {}
    numbers: dict[str, Numbers] = {}
    for window in work.windows:
        state = before.get(window.start)
        if window in kept:
            assert state is not None
            marks[window.start] = state.steps["inference_store"]
            continue
        of_dataset = counts[window.start]
        count, lag = of_dataset[PRODUCTION], lags.get(window.start, GroundTruthLag(0, "{}"))
        version = version_of(of_dataset)
        revision = state.input_revision if state else 0
        marks[window.start] = StepMark(revision, version)
        now = WindowInputs(
            window.start, revision, 0, count.n, count.n_actual, lag.n_exempt, 0, lag.lags
        )
        numbers[window.key] = record_numbers(now, of_dataset)
        rows.append(
            {
                "window_start": window.start,
                "window_end": window.end,
                "data_version": version,
                "n": count.n,
                "n_actual": count.n_actual,
                "n_exempt": lag.n_exempt,
                "n_late_after_close": 0,
                "lags": lag.lags,
                "first_event_time": count.first_event_time,
                "last_event_time": count.last_event_time,
                "arrivals": lag.arrivals,
            }
        )
    with store.state.begin() as conn:
        window_state.mark_computed(conn, spec.model, rows)
        window_state.note_history(conn, spec, work.windows, _asked_for(work))
        window_state.mark_step_done(conn, spec.model, "inference_store", marks, work.now)
        note_commits(conn, store, spec.model, [records.folder.path])
    learn_timing(work.project.store.state, spec, work.now)
    return numbers


def _asked_for(work: Work) -> list[Window]:
    """Return the windows that a person asked for and whose verdict is due no more."""
    if not work.is_backfill:
        return []
    due = work.spec.time.allowed_lateness + NEWS * GRAINS[work.spec.time.granularity]
    return [window for window in work.windows if window.end + due < work.now]


def _kept(work: Work, states: Mapping[dt.datetime, WindowInputs]) -> set[Window]:
    """Return the windows whose records stay: none but the frozen ones if a person asked."""
    if work.is_planned:
        chosen = {window for window in work.windows if window.start in states}
    else:
        with work.project.store.state.connect() as conn:
            chosen = window_state.find_frozen(conn, work.spec, work.windows, work.now)
    done = StepMark(-1, "")
    kept = {
        window
        for window in chosen
        if states[window.start].steps.get("inference_store", done).revision
        >= states[window.start].input_revision
    }
    # Hours of one day are rebuilt together.
    open_days = {window.key[:10] for window in work.windows if window not in kept}
    return {window for window in kept if window.key[:10] not in open_days}


def _counted(
    counts: Sequence[WindowCounts],
) -> dict[dt.datetime, dict[str, WindowCounts]]:
    """Return the counts of the live datasets by window and dataset."""
    found: dict[dt.datetime, dict[str, WindowCounts]] = {}
    for count in counts:
        if count.dataset in LIVE:
            found.setdefault(count.window_start, {})[count.dataset] = count
    return found


def record_numbers(state: WindowInputs, counts: Mapping[str, WindowCounts]) -> Numbers:
    """Return what the inference store's metadata says of a window."""
    numbers: Numbers = {"n": state.n, "actual_coverage": state.coverage}
    numbers |= {f"n/{name}": c.n for name, c in counts.items() if name != PRODUCTION}
    for name in ("n_exempt", "n_late_after_close"):
        if getattr(state, name):
            numbers[name] = getattr(state, name)
    for which, quantiles in json.loads(state.lags).items():
        numbers |= {f"actual_{which}/{q}": hours for q, hours in quantiles.items()}
    return numbers


def build_window_profiles(work: Work) -> dict[str, Numbers]:
    """Profile the windows' records, each with the bins of the baseline in force for it.

    Returns:
        Window key -> how much was profiled; without the windows that the planner's run left as
        they were: nothing but ground truth came for them since, and they are not judged yet.
    """
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        kept = _keep_profiles(part) if work.is_planned else {}
        if kept:
            mark_step(work, "profiles", kept)
        for some in part.without(kept).in_runs():
            numbers |= _build_part(some)
    return numbers


def _keep_profiles(part: Part) -> dict[dt.datetime, StepMark]:
    """Return the new marks of the windows whose profiles are, or count as, those of the records."""
    spec, baseline_id = part.work.spec, part.in_force.baseline_id
    timing = window_state.timing_of(part.work.project.store.state, spec.model)
    kept = {}
    for window in part.work.windows:
        state = part.states.get(window.start)
        made = state.steps.get("profiles") if state else None
        if state is None or made is None or made.revision < state.events_revision:
            continue
        records = mark_of(part.states, window, "inference_store")
        wanted = _profile_mark(records, baseline_id)
        if wanted.maturity != made.maturity:
            continue
        counts = (state.n_expected, state.n_actual)
        maturity = maturity_of(spec, window, *counts, part.work.now, timing)
        waits = maturity == "provisional" and spec.waits_for_truth
        if made.data_version == wanted.data_version or waits:
            kept[window.start] = replace(made, revision=records.revision)
    return kept


def _profile_mark(records: StepMark, baseline_id: str | None) -> StepMark:
    """Return the mark of the profiles of some records.

    Without a baseline the planner asks again once there is one.
    """
    return replace(
        records,
        data_version=f"{records.data_version}:{(baseline_id or 'none')[:8]}",
        maturity=baseline_id or NO_BASELINE,
    )


def _build_part(part: Part) -> dict[str, Numbers]:
    from mlmon_dagster.profiles import ProfileRows, profile_in_parts, save_profiles

    work, in_force = part.work, part.in_force
    baseline_id, binnings = in_force.baseline_id, in_force.binnings
    store, spec = work.project.store, work.spec
    records = store.inference_records(spec)
    whole = records.from_sql(work.windows, LIVE)
    sources, n_rows = records.parts(work.windows, LIVE)
    has_groups = spec.columns.group is not None
    if has_groups:
        # The rows of a group are counted together, and lie in any file.
        sources = [whole]
    is_personal = any(f.pii and f.type == "categorical" for f in spec.features.values())
    # The key of personal values is here, and goes nowhere else.
    key = erased_ids.personal_key(store.state, spec.model) if is_personal else ""
    rows = ProfileRows(work.project.tables, spec, binnings, key)
    stays = is_personal or has_groups
    engine = Local() if stays else engine_for(work.project, spec, n_rows)
    if engine.name == "local" and len(sources) == 1:
        profiles = rows.profiles(sources[0])
    else:
        profiles = profile_in_parts(rows, sources, whole, engine.map)
    save_profiles(store, spec, profiles, work.windows)
    made_with = {
        w.start: _profile_mark(mark_of(part.states, w, "inference_store"), baseline_id)
        for w in work.windows
    }
    mark_step(work, "profiles", made_with, [store.table("profiles", spec.model).path])
    some = next(iter(profiles.values()))
    slices = some.cells.groupby("window_start")["slice_value"].nunique()
    return {
        window.key: {"n_columns": len(profiles), "n_slices": int(slices.get(window.start, 0))}
        for window in work.windows
    }
