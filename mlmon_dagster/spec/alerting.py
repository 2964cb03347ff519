"""Who hears of an alert, and how often."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from mlmon_dagster.spec import names
from mlmon_dagster.spec.mentions import mention_problem
from mlmon_dagster.spec.names import secret_keys, url_problem
from mlmon_dagster.spec.scalars import Declared, Duration, Listed, as_tuple, one_or_more, shown

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_EMAIL = re.compile(r"[^@\s,<>\"']{1,64}@[A-Za-z0-9.-]{1,250}")
_PLACES = "slack, webhook, email, pagerduty, alertmanager, teams or apprise"
_MATCHERS = ("family", "severity", "owner", "monitor")


def _digest(value: object) -> object:
    if value is False:  # YAML reads the bare word off as false
        return {"every": "off"}
    return {"every": value} if isinstance(value, str) else value


_Severity = Literal["WARN", "ERROR"]
Severities = Annotated[
    tuple[_Severity, ...],
    BeforeValidator(one_or_more, json_schema_input_type=_Severity | tuple[_Severity, ...]),
]


class SlackRoute(Declared):
    """The Slack channel that hears of a model, and who is notified there by name."""

    channel: str
    mention: str | None = Field(default=None, max_length=80)


class WebhookRoute(Declared):
    """An address that takes every message as signed JSON; see docs/alerts.md."""

    url: str | None = None
    url_env: str | None = None
    secret_env: str | None = None


class EmailRoute(Declared):
    """Mail addresses; the server is named by ``MLMON_SMTP_URL``."""

    to: Listed


class PagerDutyRoute(Declared):
    """A service of PagerDuty, by the key of its integration of Events API v2."""

    key_env: str
    region: Literal["us", "eu"] = "us"


class AlertmanagerRoute(Declared):
    """An Alertmanager, which is told again and again of what fires."""

    url: str | None = None
    url_env: str | None = None


class TeamsRoute(Declared):
    """A workflow of Microsoft Teams that posts what its webhook is sent."""

    url_env: str


class AppriseRoute(Declared):
    """Any service that Apprise knows, by the variable that holds its address with its tokens."""

    url_env: str


class _Places(Declared):
    slack: SlackRoute | None = None
    webhook: WebhookRoute | None = None
    email: EmailRoute | None = None
    pagerduty: PagerDutyRoute | None = None
    alertmanager: AlertmanagerRoute | None = None
    teams: TeamsRoute | None = None
    apprise: AppriseRoute | None = None


class Fallback(_Places):
    """Where a message goes that its own place has refused for good."""


class Route(_Places):
    """Where some alerts go instead; a key left out matches every alert, ``*`` is a wildcard."""

    family: Listed = ()
    severity: Severities = ()
    owner: Listed = ()
    monitor: Listed = ()
    continue_: bool = Field(default=False, alias="continue")


class DigestPolicy(Declared):
    """A regular summary, at an hour of the model's zone."""

    every: Literal["off", "daily", "weekly"] = "off"
    hour: int = Field(default=8, ge=0, le=23)
    weekday: Weekday = "monday"


class AlertPolicy(_Places):
    """Where alerts go, how often they repeat, and the least time between messages of a thread."""

    routes: Annotated[tuple[Route, ...], BeforeValidator(as_tuple)] = ()
    fallback: Fallback | None = None
    repeat: Duration = dt.timedelta(hours=24)
    group_wait: Duration = dt.timedelta(0)
    group_interval: Duration = dt.timedelta(minutes=5)
    digest: Annotated[
        DigestPolicy, BeforeValidator(_digest, json_schema_input_type=DigestPolicy | bool | str)
    ] = DigestPolicy()

    def every_place(self) -> list[AlertPolicy | Route | Fallback]:
        """Return everything that names a place: the default, the routes, the fallback."""
        return [self, *self.routes, *([self.fallback] if self.fallback else [])]


def policy_problems(policy: AlertPolicy) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what is wrong with an alert policy, and where in it."""
    yield from _place_problems(policy, ())
    if not policy.repeat:
        yield ("repeat",), "must be longer than 0s"
    for index, route in enumerate(policy.routes):
        where = ("routes", index)
        yield from _place_problems(route, where)
        if not _is_somewhere(route):
            yield where, f"a route needs a place: {_PLACES}"
        if not any(getattr(route, name) for name in _MATCHERS) and not route.continue_:
            later = index + 1 < len(policy.routes)
            hint = "; the routes after it are never reached" if later else ""
            yield (
                where,
                "a route without family, severity, owner or monitor takes every alert"
                f"{hint}; write it as the default, directly below alerts",
            )
    if policy.fallback is not None:
        yield from _place_problems(policy.fallback, ("fallback",))
        if not _is_somewhere(policy.fallback):
            yield ("fallback",), f"a fallback needs a place: {_PLACES}"


def _is_somewhere(place: _Places) -> bool:
    return any(getattr(place, name) for name in _Places.model_fields)


def _place_problems(
    place: _Places, where: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if place.slack is not None:
        problem = names.channel_problem(place.slack.channel)
        if problem:
            yield (*where, "slack", "channel"), problem
        mention = place.slack.mention
        if mention is not None and (problem := mention_problem(mention)):
            yield (*where, "slack", "mention"), problem
    if place.webhook is not None:
        yield from _url_problems(place.webhook, (*where, "webhook"))
        yield from _env_problems(place.webhook, (*where, "webhook"))
    if place.alertmanager is not None:
        yield from _url_problems(place.alertmanager, (*where, "alertmanager"))
    for name in ("alertmanager", "pagerduty", "teams", "apprise"):
        if getattr(place, name) is not None:
            yield from _env_problems(getattr(place, name), (*where, name))
    if place.email is not None:
        if not place.email.to:
            yield (*where, "email", "to"), "at least one address is needed"
        for index, address in enumerate(place.email.to):
            if not _EMAIL.fullmatch(address):
                yield (
                    (*where, "email", "to", index),
                    f"{address[:80]!r} is not a mail address such as ml@example.com",
                )


def _url_problems(
    route: WebhookRoute | AlertmanagerRoute, where: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    kind = "a webhook" if isinstance(route, WebhookRoute) else "an Alertmanager"
    if (route.url is None) == (route.url_env is None):
        yield where, f"{kind} needs url, or url_env if the address is a secret; not both"
    if route.url is not None and (problem := address_problem(route.url)):
        yield (*where, "url"), problem
    elif route.url is not None and (keys := secret_keys(route.url)):
        yield (
            (*where, "url"),
            f"the query of this address holds {', '.join(map(shown, keys))}, which looks like a "
            "secret; put the address into an environment variable and name that in url_env",
        )


def _env_problems(
    route: Declared, where: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name in ("url_env", "secret_env", "key_env"):
        value = getattr(route, name, None)
        if value is not None and not _ENV_NAME.fullmatch(value):
            yield (
                (*where, name),
                f"{name} is the name of an environment variable, such as FRAUD_HOOK; "
                "the value itself does not belong in this file",
            )


def address_problem(url: str) -> str | None:
    """Say why messages may not be posted to an address; None if they may."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "this is not an address such as https://hooks.example.com/mlmon"
    if parts.scheme not in ("http", "https") or not host:
        return "an address starts with https://"
    if problem := url_problem(url):
        return problem
    if parts.username or parts.password:
        return "user and password do not belong in an address; use url_env or secret_env"
    if parts.scheme == "http" and host not in LOOPBACK:
        return "http is only for this machine (127.0.0.1); alerts travel over https"
    return None
