"""What of a spec decides about profiles, besides the features and the columns themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec


def profiled_besides(spec: ModelSpec) -> list[object]:
    """Return it as plain values; a change makes another baseline. Empty for most models."""
    monitor = spec.monitors.drift
    if monitor.multivariate is None:
        return []
    importance = [feature.importance for feature in spec.features.values()]
    return [["joint", monitor.columns, importance]]
