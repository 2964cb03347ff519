"""Where an alert goes: the routes of the spec, tried in order as Alertmanager does."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.alerting import AlertPolicy, Fallback, Route, WebhookRoute
from mlmon_dagster.store.state.frames import Row

ENV_MARK = "$"  # begins the channel of a webhook whose address is in an environment variable


class Destination(NamedTuple):
    """One place that takes messages: the receiver's name, and where within it."""

    receiver: str
    channel: str


TERMINAL = Destination("console", "terminal")


def destinations(spec: ModelSpec, row: Row) -> dict[Destination, str]:
    """Return where an alert goes, and who is mentioned there.

    Args:
        spec: The model.
        row: The alert; ``family``, ``severity``, ``owner`` and ``monitor`` decide.
    """
    found: dict[Destination, str] = {}
    for route in spec.alerts.routes:
        if not matches(route, row, spec.owners):
            continue
        for place, mention in _places(route).items():
            found.setdefault(place, mention)
        if not route.continue_:
            return found
    if found and not _places(spec.alerts):
        return found
    return default_destinations(spec) | found


def default_destinations(spec: ModelSpec) -> dict[Destination, str]:
    """Return where alerts go that no route takes; the terminal if the spec says nothing."""
    return _places(spec.alerts) or {TERMINAL: ""}


def every_destination(specs: Iterable[ModelSpec]) -> list[Destination]:
    """Return every place that some models name, each once, sorted."""
    found = set()
    for spec in specs:
        found |= set(default_destinations(spec))
        for place in spec.alerts.every_place():
            found |= set(_places(place))
    return sorted(found)


def fallback_of(spec: ModelSpec, destination: Destination) -> Destination | None:
    """Return where a message goes that a place has refused for good; None if nowhere."""
    if spec.alerts.fallback is not None:
        candidates = list(_places(spec.alerts.fallback))
    else:
        candidates = list(_places(spec.alerts))
    return next((place for place in candidates if place != destination), None)


def webhook_channel(webhook: WebhookRoute) -> str:
    """Return the channel of a webhook: its address, or ``$NAME`` of the variable that holds it."""
    return webhook.url or f"{ENV_MARK}{webhook.url_env}"


def webhooks(specs: Iterable[ModelSpec]) -> dict[str, WebhookRoute]:
    """Return the webhooks that some models name, by channel."""
    places = [place for spec in specs for place in spec.alerts.every_place()]
    return {webhook_channel(p.webhook): p.webhook for p in places if p.webhook is not None}


def matches(route: Route, row: Row, owners: Iterable[str] = ()) -> bool:
    """Tell whether a route takes an alert: every key that is given must match."""
    owned = [row["owner"]] if row["owner"] else list(owners)
    return (
        _any(route.family, [row["family"]])
        and _any(route.severity, [row["severity"]])
        and _any(route.monitor, [row["monitor"]])
        and _any(route.owner, owned)
    )


def _any(patterns: Iterable[str], values: Iterable[str]) -> bool:
    wanted = list(patterns)
    return not wanted or any(fnmatchcase(v, pattern) for v in values for pattern in wanted)


def _places(place: AlertPolicy | Route | Fallback) -> dict[Destination, str]:
    found: dict[Destination, str] = {}
    if place.slack is not None:
        found[Destination("slack", place.slack.channel)] = place.slack.mention or ""
    if place.webhook is not None:
        found[Destination("webhook", webhook_channel(place.webhook))] = ""
    if place.email is not None:
        found[Destination("email", ", ".join(place.email.to))] = ""
    return found
