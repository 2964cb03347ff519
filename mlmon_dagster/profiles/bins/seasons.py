"""What is said once of a baseline that may hold one season only."""

from __future__ import annotations

from collections.abc import Mapping

from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.measure.model_versions import all_over_versions

_SHOWN = 8


def season_notice(windows: Mapping[str, ColumnStatistics]) -> str:
    """Say which columns of a baseline may have a season that it misses; empty if none has."""
    from mlmon_dagster.metrics.drift.seasons import may_miss_a_season

    kept = {name: stats for name, stats in windows.items() if not name.startswith(":")}
    found = may_miss_a_season(all_over_versions(kept))
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    names = ", ".join(found[:_SHOWN]) + more
    return (
        f"The baseline is shorter than a year, and its windows differ much in {names}: a season "
        "that it does not hold will be drift for as long as it lasts. Where that is no news, "
        "compare with earlier windows: baseline: {moving: 28d} or {same: weekday, weeks: 4}."
    )
