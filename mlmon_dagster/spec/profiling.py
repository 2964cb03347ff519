"""What of a spec decides about profiles, besides the features and the columns themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlmon_dagster.spec.attribution import attributed

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec


def profiled_besides(spec: ModelSpec) -> list[object]:
    """Return it as plain values; a change makes another baseline. Empty for most models."""
    found: list[object] = []
    if any(feature.type == "datetime" for feature in spec.features.values()):
        found.append("ages")  # before, of a time the time itself was profiled
    if spec.columns.shap is not None:
        found.append(["shap", *attributed(spec)])
    monitor = spec.monitors.drift
    if monitor.multivariate is not None:
        importance = [feature.importance for feature in spec.features.values()]
        found.append(["joint", monitor.columns, importance])
    return found
