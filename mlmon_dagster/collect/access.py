"""Who may push: tokens, read from the state database every few seconds."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import time
from collections.abc import Callable

import sqlalchemy as sa

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store.state import collect_tokens
from mlmon_dagster.store.state.collect_tokens import Token

FRESH_SECONDS = 5.0  # how soon a token that was made or revoked is heard of
STALE_SECONDS = 300.0  # how long the tokens known are believed while the database is away
_LOG = logging.getLogger("mlmon_dagster.collect")
_CHALLENGE = {"www-authenticate": 'Bearer realm="mlmon collect"'}
_HOW = "Send it as 'Authorization: Bearer TOKEN'; 'mlmon collect token create' makes one."


class Access:
    """Decides whether a request may push to a model.

    On the loopback address everybody may, until a token was ever made: one that is revoked or
    over closes the server as much as one that is not. Elsewhere every request needs one.

    Args:
        engine: The state database.
        host: The address that the server listens on.
        now: The clock that tokens expire by.

    Raises:
        ConfigError: If the address is reachable from elsewhere and there is no active token.
    """

    def __init__(self, engine: sa.Engine, host: str, now: Callable[[], dt.datetime]) -> None:
        self._engine, self._now = engine, now
        self._is_local = is_loopback(host)
        self._hosts = {"localhost", "127.0.0.1", "[::1]", host.lower()}
        self._known = collect_tokens.tokens(engine)
        self._read_at = time.monotonic()
        self._reading = asyncio.Lock()
        if not self._is_local and not any(t.state(now()) == "active" for t in self._known):
            raise ConfigError(
                f"{host} can be reached from other machines, and there is no token yet. Make one "
                "with 'mlmon collect token create --model NAME', or listen on 127.0.0.1."
            )

    @property
    def needs_token(self) -> bool:
        """Whether a request without a token is refused."""
        return not self._is_local or bool(self._known)

    async def check(self, authorization: str, host: str, model: str | None) -> str:
        """Let a request through; return the id of its token, empty if it needs none.

        Args:
            authorization: The header's value.
            host: The header's value.
            model: What it wants to push to; None for a page about the server.

        Raises:
            Problem: If it may not.
        """
        await self._refresh()
        if not self.needs_token:
            # Else a page in a browser could reach this server under a name of its own.
            if _without_port(host) not in self._hosts:
                raise Problem("wrong_host", "Use localhost, or 127.0.0.1.")
            return ""
        scheme, _, presented = authorization.partition(" ")
        token = collect_tokens.find(self._known, presented.strip())
        if scheme.lower() != "bearer" or token is None:
            raise Problem("unauthenticated", f"No valid token. {_HOW}", headers=_CHALLENGE)
        state = token.state(self._now())
        if state != "active":
            found = f"Token {token.id} is {state}. {_HOW}"
            raise Problem("unauthenticated", found, headers=_CHALLENGE)
        if model is not None and not token.opens(model):
            raise Problem("forbidden", f"Token {token.id} is for another model.")
        return token.id

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < FRESH_SECONDS:
            return
        async with self._reading:
            age = time.monotonic() - self._read_at
            if age < FRESH_SECONDS:
                return
            try:
                self._known = await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
            except sa.exc.SQLAlchemyError as error:
                _LOG.warning("tokens cannot be read: %s", type(error).__name__)
                if age > STALE_SECONDS:
                    raise Problem(
                        "not_stored", "The tokens cannot be read now.", headers={"retry-after": "5"}
                    ) from None

    def _read(self) -> list[Token]:
        return collect_tokens.tokens(self._engine)


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address; a name other than localhost is not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()
