"""Who hears of an alert, and how often."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from mlmon_dagster.spec.names import (
    FieldPath,
    Found,
    channel_problem,
    place_below,
    secret_keys,
    url_problem,
)
from mlmon_dagster.spec.scalars import Declared, Duration, Listed, as_tuple, one_or_more, shown

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_EMAIL = re.compile(r"[^@\s,<>\"']{1,64}@[A-Za-z0-9.-]{1,250}")
_MATCHERS = ("family", "severity", "owner", "monitor")
# Slack shows any other @name of a bot's message as plain text, notifies nobody and says no error.
_BROADCASTS = {
    "here": "everybody active in the channel",
    "channel": "everybody in the channel",
    "everyone": "everybody in the workspace; Slack takes it in its general channel alone",
}
_BROADCAST = re.compile(r"<!(here|channel|everyone)>|@?(here|channel|everyone)")
# A bare id has a digit, so that @SUPPORT is not taken for one.
_PERSON = re.compile(r"<@([UW][A-Z0-9]+)>|@?((?=[A-Z]*[0-9])[UW][A-Z0-9]{6,})")
_GROUP = re.compile(r"<!subteam\^(S[A-Z0-9]+)>|@?((?=[A-Z]*[0-9])S[A-Z0-9]{6,})")


class Mention(NamedTuple):
    """Whom a message notifies: the markup for Slack, and who that is in words."""

    markup: str
    who: str


def read_mention(text: str) -> Mention | None:
    """Return whom Slack notifies by a declared mention; None if it would show plain text.

    Args:
        text: ``@here``, ``@channel`` or ``@everyone``; the id of a person (``U012ABCDEF``) or of a
            user group (``S012ABCDEF``), with or without an @; or Slack's own markup of these.
    """
    text = text.strip()
    if match := _BROADCAST.fullmatch(text):
        name = match[1] or match[2]
        return Mention(f"<!{name}>", f"@{name} ({_BROADCASTS[name]})")
    if match := _PERSON.fullmatch(text):
        member = match[1] or match[2]
        return Mention(f"<@{member}>", f"the person {member}")
    if match := _GROUP.fullmatch(text):
        group = match[1] or match[2]
        return Mention(f"<!subteam^{group}>", f"the user group {group}")
    return None


def mention_problem(text: str) -> str | None:
    """Say why Slack would notify nobody by a mention, and what to write; None if it would."""
    if read_mention(text) is not None:
        return None
    if not text.isprintable():
        return "a mention is printable text"
    return (
        f"Slack shows {shown(text)} as plain text and notifies nobody. Write "
        "'<!subteam^S0123ABCD>' for a user group (Slack: People, User groups, the group's menu, "
        "Copy group ID; several people need a group), '<@U0123ABCD>' for a person (their profile, "
        "More, Copy member ID), or '@here', '@channel' or '@everyone'"
    )


def _digest(value: object) -> object:
    if value is False:  # YAML reads the bare word off as false
        return {"every": "off"}
    return {"every": value} if isinstance(value, str) else value


_Severity = Literal["WARN", "ERROR"]
Severities = Annotated[
    tuple[_Severity, ...],
    BeforeValidator(one_or_more, json_schema_input_type=_Severity | tuple[_Severity, ...]),
]


class Place(Declared):
    """One place that takes messages; each kind is a receiver of the same name.

    Attributes:
        called: How people read of it, around its address.
        unmentioned: Who hears of a message there, where `mention` is no key.
    """

    called: ClassVar[str] = "{}"
    unmentioned: ClassVar[str] = ""

    @property
    def address(self) -> str:
        """The channel of its receiver: a URL, or ``$NAME`` of the variable that holds one."""
        known = self.model_dump(exclude_none=True)
        return str(known.get("url") or f"${known.get('url_env') or known.get('key_env')}")

    @property
    def notified(self) -> str:
        """Who is notified there by name; empty for nobody."""
        return ""

    def problems(self) -> Found:
        """Yield what is wrong with it, and where in it."""
        for name, value in self.model_dump(exclude_none=True).items():
            if name.endswith("_env") and not _ENV_NAME.fullmatch(value):
                yield (
                    (name,),
                    f"{name} is the name of an environment variable, such as FRAUD_HOOK; "
                    "the value itself does not belong in this file",
                )


class SlackRoute(Place):
    """The Slack channel that hears of a model, and who is notified there by name."""

    channel: str
    mention: str | None = Field(default=None, max_length=80)

    @property
    def address(self) -> str:
        """The channel."""
        return self.channel

    @property
    def notified(self) -> str:
        """Who is notified there by name; empty for nobody."""
        return self.mention or ""

    def problems(self) -> Found:
        """Yield what is wrong with it, and where in it."""
        if problem := channel_problem(self.channel):
            yield ("channel",), problem
        if self.mention is not None and (problem := mention_problem(self.mention)):
            yield ("mention",), problem


class AddressRoute(Place):
    """A place by its address, which is named by a variable if it is a secret."""

    article: ClassVar[str]
    url: str | None = None
    url_env: str | None = None

    def problems(self) -> Found:
        """Yield what is wrong with it, and where in it."""
        if (self.url is None) == (self.url_env is None):
            yield (), f"{self.article} needs url, or url_env if the address is a secret; not both"
        if self.url is not None and (problem := address_problem(self.url)):
            yield ("url",), problem
        elif self.url is not None and (keys := secret_keys(self.url)):
            yield (
                ("url",),
                f"the query of this address holds {', '.join(map(shown, keys))}, which looks like "
                "a secret; put the address into an environment variable and name that in url_env",
            )
        yield from super().problems()


class WebhookRoute(AddressRoute):
    """An address that takes every message as signed JSON; see docs/alerts.md."""

    called = "the webhook {}"
    article = "a webhook"
    unmentioned = "the program that receives the message decides who is notified"
    secret_env: str | None = None


class PagerDutyRoute(Place):
    """A service of PagerDuty, by the key of its integration of Events API v2."""

    called = "PagerDuty {}"
    unmentioned = "the escalation policy of the service says who is called"
    key_env: str
    region: Literal["us", "eu"] = "us"


class AppriseRoute(Place):
    """Any service that Apprise knows, by the variable that holds its address with its tokens."""

    called = "Apprise {}"
    unmentioned = "a text calls nobody by name; the address says who gets it"
    url_env: str


class EmailRoute(Place):
    """Mail addresses; the server is named by ``MLMON_SMTP_URL``."""

    unmentioned = "a mail reaches everybody in `to`"
    to: Listed

    @property
    def address(self) -> str:
        """The addresses, as a mail names them."""
        return ", ".join(self.to)

    def problems(self) -> Found:
        """Yield what is wrong with it, and where in it."""
        if not self.to:
            yield ("to",), "at least one address is needed"
        for index, address in enumerate(self.to):
            if not _EMAIL.fullmatch(address):
                yield (
                    ("to", index),
                    f"{address[:80]!r} is not a mail address such as ml@example.com",
                )


class Places(Declared):
    """At most one place of each kind; the names of the fields are those of the receivers."""

    slack: SlackRoute | None = None
    webhook: WebhookRoute | None = None
    pagerduty: PagerDutyRoute | None = None
    apprise: AppriseRoute | None = None
    email: EmailRoute | None = None

    def declared_places(self) -> dict[str, Place]:
        """Return what is declared, by the name of its receiver."""
        found = ((name, getattr(self, name)) for name in RECEIVERS)
        return {name: place for name, place in found if place is not None}


RECEIVERS: Final[dict[str, type[Place]]] = {
    name: get_args(field.annotation)[0] for name, field in Places.model_fields.items()
}
_NAMED = " or ".join(", ".join(RECEIVERS).rsplit(", ", 1))


class Fallback(Places):
    """Where a message goes that its own place has refused for good."""


class Route(Places):
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


class AlertPolicy(Places):
    """Where alerts go, how often they repeat, and the least time between messages of a thread."""

    routes: Annotated[tuple[Route, ...], BeforeValidator(as_tuple)] = ()
    fallback: Fallback | None = None
    repeat: Duration = dt.timedelta(hours=24)
    group_wait: Duration = dt.timedelta(0)
    group_interval: Duration = dt.timedelta(minutes=5)
    digest: Annotated[
        DigestPolicy, BeforeValidator(_digest, json_schema_input_type=DigestPolicy | bool | str)
    ] = DigestPolicy()

    def every_place(self) -> list[Places]:
        """Return everything that names places: the default, the routes, the fallback."""
        return [self, *self.routes, *([self.fallback] if self.fallback else [])]


def policy_problems(policy: AlertPolicy) -> Found:
    """Yield what is wrong with an alert policy, and where in it."""
    yield from _place_problems(policy)
    if not policy.repeat:
        yield ("repeat",), "must be longer than 0s"
    for index, route in enumerate(policy.routes):
        where: FieldPath = ("routes", index)
        yield from place_below(where, _place_problems(route))
        if not route.declared_places():
            yield where, f"a route needs a place: {_NAMED}"
        if not any(getattr(route, name) for name in _MATCHERS) and not route.continue_:
            later = index + 1 < len(policy.routes)
            hint = "; the routes after it are never reached" if later else ""
            yield (
                where,
                "a route without family, severity, owner or monitor takes every alert"
                f"{hint}; write it as the default, directly below alerts",
            )
    if policy.fallback is not None:
        yield from place_below(("fallback",), _place_problems(policy.fallback))
        if not policy.fallback.declared_places():
            yield ("fallback",), f"a fallback needs a place: {_NAMED}"


def _place_problems(places: Places) -> Found:
    for name, place in places.declared_places().items():
        yield from place_below((name,), place.problems())


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
