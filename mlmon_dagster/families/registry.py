"""Every family of monitors by name, and the one entry to their judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlmon_dagster.families.family import Facts, Family
from mlmon_dagster.monitors.evidence import Evidence, fill_windows
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store.state.monitor_results import MonitorResult

if TYPE_CHECKING:
    import pandas as pd


def _load_family(name: str) -> Family:
    """Import the module that is called as a family is, so that nothing lists them twice."""
    found: Family = import_module(f"mlmon_dagster.families.{name}").FAMILY
    return found


# Each family's name -> its record.
JUDGED_BY: Mapping[str, Family] = {name: _load_family(name) for name in FAMILIES}
# The asset that measures a family's metrics -> the family, in the order of the assets.
MEASURED_BY: Mapping[str, Family] = {
    family.step: family for family in JUDGED_BY.values() if family.measure is not None
}


def evaluate(
    spec: ModelSpec,
    metrics: pd.DataFrame,
    windows: Sequence[Facts],
    *,
    families: Iterable[str] = FAMILIES,
    **known: Any,
) -> list[MonitorResult]:
    """Judge windows by every monitor that the spec declares.

    Args:
        spec: The model.
        metrics: MetricFrame of the windows, all metrics and slices that exist. Of several model
            versions, `all` is judged, else the one with most rows.
        windows: One row per window (and dataset, production if it is not named): window_start,
            window_end, n, and as far as known n_actual, maturity, data_version, n_bad (refused
            rows), n_by_rule (those of them that a rule of the spec refuses), bad_reasons (JSON or
            dict, reason -> rows), n_quarantined (files), quarantined (their names), schema_broken
            (drift and performance are then NO_DATA), actual_coverage, first_event_time,
            last_event_time, calendar (a `metrics.presence.Calendar`), last_before, next_after and
            is_followed, see `freshness`.
        families: Families to judge.
        **known: The other attributes of `Evidence`.

    Returns:
        Rows of `monitor_result` without `id` and `folded_at`. Every monitor has a row for every
        window, except a freshness monitor for an empty window that may still fill.

    Raises:
        KeyError: If a family is unknown.
    """
    filled = fill_windows(windows)
    return [
        row
        for family in families
        for row in JUDGED_BY[family].judge(Evidence(family, spec, filled, metrics, **known))
    ]
