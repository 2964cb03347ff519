"""Who hears of an alert: the routes of the spec, tried in order as Alertmanager does; silences.

Models that nobody declares: the machinery itself, and models that have been taken away. Their
alerts go the same way as all others, so they need what a spec says of routing and timing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import BrokenModel, ModelSpec, spec_from_mapping
from mlmon_dagster.spec.alerting import AlertPolicy, Place, Places, Route, SlackRoute
from mlmon_dagster.store.alert_state import AlertRow, SilenceRow

LABELS = (
    "model",
    "monitor",
    "family",
    "metric",
    "column_name",
    "dataset",
    "slice_key",
    "slice_value",
    "severity",
    "owner",
)
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


class Destination(NamedTuple):
    """One place that takes messages: the receiver's name, and where within it."""

    receiver: str
    channel: str


TERMINAL = Destination("console", "terminal")


def destinations(spec: ModelSpec, row: AlertRow) -> dict[Destination, str]:
    """Return where an alert goes, and who is mentioned there.

    Args:
        spec: The model.
        row: The alert; ``family``, ``severity``, ``owner`` and ``monitor`` decide.
    """
    found: dict[Destination, str] = {}
    for route in spec.alerts.routes:
        if not matches(route, row, spec.owners):
            continue
        for place, mention in _read_places(route).items():
            found.setdefault(place, mention)
        if not route.continue_:
            return found
    if found and not _read_places(spec.alerts):
        return found
    return default_destinations(spec) | found


def default_destinations(spec: ModelSpec) -> dict[Destination, str]:
    """Return where alerts go that no route takes; the terminal if the spec says nothing."""
    return _read_places(spec.alerts) or {TERMINAL: ""}


def every_destination(specs: Iterable[ModelSpec]) -> list[Destination]:
    """Return every place that some models name, each once, sorted."""
    found = set()
    for spec in specs:
        found |= set(default_destinations(spec))
        for place in spec.alerts.every_place():
            found |= set(_read_places(place))
    return sorted(found)


def collect_mentions(specs: Iterable[ModelSpec], destination: Destination) -> tuple[str, ...]:
    """Return whom some models mention at a place, by default or by a route, each once."""
    every = (place for spec in specs for place in spec.alerts.every_place())
    named = (_read_places(place).get(destination) for place in every)
    return tuple(dict.fromkeys(mention for mention in named if mention))


def fallback_of(spec: ModelSpec, destination: Destination) -> Destination | None:
    """Return where a message goes that a place has refused for good; None if nowhere."""
    if spec.alerts.fallback is not None:
        candidates = list(_read_places(spec.alerts.fallback))
    else:
        candidates = list(_read_places(spec.alerts))
    return next((place for place in candidates if place != destination), None)


def places_of(specs: Iterable[ModelSpec], receiver: str) -> dict[str, Place]:
    """Return the places of one receiver that some models name, by channel."""
    every = (places.declared_places() for spec in specs for places in spec.alerts.every_place())
    return {place.address: place for known in every if (place := known.get(receiver))}


def matches(route: Route, row: AlertRow, owners: Iterable[str] = ()) -> bool:
    """Tell whether a route takes an alert: every key that is given must match."""
    owned = [row["owner"]] if row["owner"] else list(owners)
    return (
        _match_any(route.family, [row["family"]])
        and _match_any(route.severity, [row["severity"]])
        and _match_any(route.monitor, [row["monitor"]])
        and _match_any(route.owner, owned)
    )


def _match_any(patterns: Iterable[str], values: Iterable[str]) -> bool:
    wanted = list(patterns)
    return not wanted or any(fnmatchcase(v, pattern) for v in values for pattern in wanted)


def _read_places(places: Places) -> dict[Destination, str]:
    return {
        Destination(receiver, place.address): place.notified
        for receiver, place in places.declared_places().items()
    }


def matcher(labels: Mapping[str, str]) -> str:
    """Return the JSON of a matcher: all the labels must match; ``*`` and ``?`` are wildcards.

    Raises:
        ConfigError: If there is no label, or one that alerts do not have.
    """
    unknown = sorted(set(labels) - set(LABELS))
    if unknown or not labels:
        found = f"{unknown} are no labels" if unknown else "a silence needs a label"
        raise ConfigError(f"{found}; alerts have: {', '.join(LABELS)}")
    return json.dumps(dict(labels), sort_keys=True)


def silenced_by(alert: AlertRow, silences: Sequence[SilenceRow]) -> int | None:
    """Return the id of the first silence that matches an alert; None if none does."""
    return next((s["id"] for s in silences if is_matched(alert, s["matcher"])), None)


def is_matched(alert: AlertRow, labels: str) -> bool:
    """Tell whether an alert has all the labels of a `matcher`."""
    said: Mapping[str, object] = alert
    wanted: Mapping[str, str] = json.loads(labels)
    return bool(wanted) and all(
        name in LABELS and fnmatchcase(str(said[name]), pattern) for name, pattern in wanted.items()
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
    policy = AlertPolicy(slack=SlackRoute(channel=channel)) if channel else _find_commonest(specs)
    owners = tuple(dict.fromkeys(owner for spec in specs for owner in spec.owners))
    changes = {"model": PLATFORM, "alerts": policy, "owners": owners}
    return specs[0].model_copy(update=changes)


def _find_commonest(specs: Sequence[ModelSpec]) -> AlertPolicy:
    def places(spec: ModelSpec) -> tuple[Destination, ...]:
        return tuple(sorted(default_destinations(spec)))

    counted = Counter(places(spec) for spec in specs)
    chosen = max(sorted(counted), key=lambda place: counted[place])
    found = next(spec for spec in specs if places(spec) == chosen)
    return found.alerts.model_copy(update={"routes": ()})
