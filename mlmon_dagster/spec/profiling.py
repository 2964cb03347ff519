"""What of a spec decides about profiles, besides the features and the columns themselves."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from mlmon_dagster.spec.attribution import attributed
from mlmon_dagster.spec.tasks import task_signature

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec


def profile_signature(spec: ModelSpec) -> list[object]:
    """Return all of a spec that decides about bins and profiles, as plain values.

    A change makes another baseline, and every window is computed again.
    """
    people = {"importance", "description", "unit", "nullable"}  # decide about no number
    return [
        spec.baseline.dataset,
        spec.task,
        sorted(spec.columns.model_dump(exclude_none=True)),
        {name: feature.model_dump(exclude=people) for name, feature in spec.features.items()},
        spec.slices,
        [spec.time.zone, spec.time.granularity],
        task_signature(spec),
        *profiled_besides(spec),
    ]


def profile_digest(spec: ModelSpec) -> str:
    """Return a short text that changes when a baseline of another kind or content is needed."""
    content = json.dumps([spec.baseline.is_rolling, *profile_signature(spec)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


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
