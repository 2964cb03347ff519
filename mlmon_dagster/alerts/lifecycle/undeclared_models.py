"""Models that nobody declares: the machinery itself, and models that have been taken away.

Their alerts go the same way as all others, so they need what a spec says of routing and timing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mlmon_dagster.alerts.lifecycle.routing import Destination, default_destinations
from mlmon_dagster.spec import BrokenModel, ModelSpec, SlackRoute, spec_from_mapping
from mlmon_dagster.spec.alerting import AlertPolicy

PLATFORM = "Dagster"  # a model's name is lower-case, so none can have this one
# What is asked of a model's spec besides its alerts, where there is no model.
_NOBODY = spec_from_mapping(
    {
        "model": "nobody",
        "task": "regression",
        "owners": ["team:unknown"],
        "time": {"start": "2000-01-01"},
        "source": {"predictions": {"path": "none/*.csv"}},
        "columns": {"prediction_id": "id", "event_time": "time", "prediction": "prediction"},
        "features": {"none": {"type": "numeric"}},
    }
)


def stand_in(
    model: str, specs: Sequence[ModelSpec], alerts: AlertPolicy | None = None
) -> ModelSpec:
    """Return a spec for a model that is gone: it is told where its alerts were told, then silent.

    Args:
        model: Its name.
        specs: The models that are declared; not empty, unless it is known where alerts go.
        alerts: What can still be read of its own declaration.
    """
    if alerts is not None:
        return _NOBODY.model_copy(update={"model": model, "alerts": alerts})
    policy = specs[0].alerts.model_copy(update={"routes": ()})
    return specs[0].model_copy(update={"model": model, "alerts": policy})


def platform_spec(
    specs: Sequence[ModelSpec], channel: str | None = None, broken: Sequence[BrokenModel] = ()
) -> ModelSpec | None:
    """Return a spec whose alerts are about Dagster itself; None where nothing is declared.

    Args:
        specs: The declared models.
        channel: The Slack channel that hears of it; by default the place of most models.
        broken: Declarations that do not load; where none does, what can be read of them says
            who hears of it, and else it is the terminal.
    """
    if not specs and broken:
        policies = [b.alerts for b in broken if b.alerts is not None] or [AlertPolicy()]
        specs = [_NOBODY.model_copy(update={"alerts": policy}) for policy in policies]
    if not specs:
        return None
    policy = AlertPolicy(slack=SlackRoute(channel=channel)) if channel else _commonest(specs)
    owners = tuple(dict.fromkeys(owner for spec in specs for owner in spec.owners))
    changes = {"model": PLATFORM, "alerts": policy, "owners": owners}
    return specs[0].model_copy(update=changes)


def _commonest(specs: Sequence[ModelSpec]) -> AlertPolicy:
    def places(spec: ModelSpec) -> tuple[Destination, ...]:
        return tuple(sorted(default_destinations(spec)))

    counted = Counter(places(spec) for spec in specs)
    chosen = max(sorted(counted), key=lambda place: counted[place])
    found = next(spec for spec in specs if places(spec) == chosen)
    return found.alerts.model_copy(update={"routes": ()})
