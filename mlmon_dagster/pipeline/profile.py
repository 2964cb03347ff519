"""What the asset `profiles` does: count the rows of windows."""

from __future__ import annotations

from dataclasses import replace

from mlmon_dagster.pipeline.parts import Part, parts_of
from mlmon_dagster.pipeline.work import Numbers, Work, mark_of, mark_step
from mlmon_dagster.spec.baseline import LIVE
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.window_state import NO_BASELINE


def build_window_profiles(work: Work) -> dict[str, Numbers]:
    """Profile the windows' records, each with the bins of the baseline in force for it."""
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        numbers |= _build_part(part)
    return numbers


def _build_part(part: Part) -> dict[str, Numbers]:
    from mlmon_dagster.profiles import build_profiles, save_profiles

    work, baseline_id = part.work, part.in_force.baseline_id
    store, spec = work.project.store, work.spec
    source = store.inference_records(spec).from_sql(work.windows, LIVE)
    key = erased_ids.personal_key(store.state, spec.model)
    profiles = build_profiles(store, spec, source, part.in_force.binnings, key=key)
    save_profiles(store, spec, profiles, work.windows)
    marks = {w.start: mark_of(part.states, w, "inference_store") for w in work.windows}
    # Without a baseline the planner asks again once there is one.
    made_with = {
        k: replace(
            mark,
            data_version=f"{mark.data_version}:{(baseline_id or 'none')[:8]}",
            maturity=baseline_id or NO_BASELINE,
        )
        for k, mark in marks.items()
    }
    mark_step(work, "profiles", made_with)
    some = next(iter(profiles.values()))
    slices = some.cells.groupby("window_start")["slice_value"].nunique()
    return {
        window.key: {"n_columns": len(profiles), "n_slices": int(slices.get(window.start, 0))}
        for window in work.windows
    }
