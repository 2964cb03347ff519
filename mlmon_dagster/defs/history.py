"""Telling a new Dagster home what the store knows, so that its UI shows the past again."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.checks import evaluation
from mlmon_dagster.defs.metadata import REBUILT, numbers_only
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.pipeline.run import known_numbers
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.steps import AssetInfo, assets_of
from mlmon_dagster.store.state import monitor_results, window_state


@dataclass(frozen=True)
class Told:
    """How much was reported to Dagster."""

    n_materializations: int
    n_checks: int


def report_history(project: Project, spec: ModelSpec, instance: dg.DagsterInstance) -> Told:
    """Report every computed window of a model, with its numbers and its newest check results.

    Reported as events without a run; repeated, it adds the same materializations again, and no
    check result that was reported before.

    Args:
        project: Where the store is.
        spec: The model.
        instance: The Dagster home that has lost, or never had, the model's history.
    """
    states = window_state.load(project.store.state, spec.model)
    windows = [w for w in complete_windows(spec.time, project.now()) if w.start in states]
    n_materializations = n_checks = 0
    for info in assets_of(spec):
        if not info.is_windowed:
            continue
        done = [w for w in windows if info.name in states[w.start].steps]
        numbers = known_numbers(project, spec, info.name, done, states)
        for window in done:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    asset_key(spec, info.name),
                    partition=window.key,
                    metadata={**REBUILT, **numbers_only(numbers.get(window.key, {}))},
                )
            )
        n_materializations += len(done)
        if info.family and done:
            n_checks += _report_checks(project, spec, info, done, instance)
    return Told(n_materializations, n_checks)


def _told_before(spec: ModelSpec, info: AssetInfo, instance: dg.DagsterInstance) -> set[str | None]:
    """Return the partitions whose check was reported without a run: Dagster takes one of those."""
    key = dg.AssetCheckKey(asset_key(spec, info.name), str(info.family))
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=1_000_000)
    return {record.partition for record in history if not record.run_id}


def _report_checks(
    project: Project,
    spec: ModelSpec,
    info: AssetInfo,
    windows: list[Window],
    instance: dg.DagsterInstance,
) -> int:
    assert info.family is not None
    found = monitor_results.newest(
        project.store.state, spec.model, windows[0].start, windows[-1].end, info.family
    )
    by_window: dict[object, list[dict[str, object]]] = {}
    for row in found.to_dict("records"):
        named = {str(name): value for name, value in row.items()}
        by_window.setdefault(named["window_start"].to_pydatetime(), []).append(named)
    watched = JUDGED_BY[info.family].is_watched(spec)
    told = _told_before(spec, info, instance)
    windows = [window for window in windows if window.key not in told]
    for window in windows:
        instance.report_runless_asset_event(
            evaluation(
                asset_key(spec, info.name),
                info.family,
                window.key,
                by_window.get(window.start, []),
                None,
                watched,
            )
        )
    return len(windows)
