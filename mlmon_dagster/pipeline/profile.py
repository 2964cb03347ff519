"""What the asset `profiles` does: count the rows of windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.work import Numbers, Work, mark_of, mark_step, parts_of
from mlmon_dagster.spec.baseline import LIVE, PRODUCTION
from mlmon_dagster.store import baselines
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.window_state import NO_BASELINE

if TYPE_CHECKING:
    from mlmon_dagster.metrics.statistics import ColumnStatistics


def build_window_profiles(work: Work) -> dict[str, Numbers]:
    """Profile the windows' records, each with the bins of the baseline in force for it."""
    numbers: dict[str, Numbers] = {}
    for part in parts_of(work):
        numbers |= _build_part(part)
    return numbers


def _build_part(work: Work) -> dict[str, Numbers]:
    from mlmon_dagster.profiles import build_profiles, save_profiles
    from mlmon_dagster.profiles.bins.fit import binnings_in_force

    store, spec = work.project.store, work.spec
    before = work.states()
    baseline_id = baselines.baselines_in_force(store.state, spec.model).at(work.start)
    source = store.inference_records(spec).from_sql(work.windows, LIVE)
    binnings = binnings_in_force(store, spec, work.start)
    key = erased_ids.personal_key(store.state, spec.model)
    profiles = build_profiles(store, spec, source, binnings, key=key)
    save_profiles(store, spec, profiles, work.windows)
    marks = {w.start: mark_of(before, w, "inference_store") for w in work.windows}
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


def whole_windows(work: Work, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
    """Read the stored profiles of some columns, of production as a whole and of no slice."""
    from mlmon_dagster.profiles import load_profiles

    return load_profiles(
        work.project.store,
        work.spec,
        start=work.start,
        end=work.end,
        dataset=PRODUCTION,
        columns=columns,
        slices=[()],
        at=work.start,
    )
