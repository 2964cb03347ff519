"""Who may push, by token, and whether there is room: requests at work, disk, files that wait.

A token is ``mlmon_<id>_<secret>``; only its hash is kept. The id finds its row and is no secret;
the secret has 256 random bits, so that a plain SHA-256 of it cannot be guessed back.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from mlmon_dagster.collect.landing import PREFIX, Target
from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.store.state import manifest
from mlmon_dagster.store.state.schema import collect_token

ANY_MODEL = "*"
_PREFIX = "mlmon"


@dataclass(frozen=True)
class Token:
    """A token as it is kept.

    Attributes:
        id: Its public name.
        model: The model it may push to, ``*`` for all.
        sha256: Of its secret part.
        expires_at: From then on it is refused; None is never.
        revoked_at: Since when it is refused.
    """

    id: str
    model: str
    sha256: str
    note: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None

    def state(self, now: dt.datetime) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def opens(self, model: str) -> bool:
        """Say whether it is for a model."""
        return self.model in (ANY_MODEL, model)


def create_token(
    engine: sa.Engine,
    model: str,
    *,
    now: dt.datetime,
    expires_at: dt.datetime | None = None,
    note: str = "",
) -> str:
    """Make a token; it is returned this once and cannot be read again."""
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {
        "id": token_id, "model": model, "sha256": _hash(secret), "note": note,
        "created_at": now, "expires_at": expires_at, "revoked_at": None,
    }  # fmt: skip
    with engine.begin() as conn:
        conn.execute(collect_token.insert().values(row))
    return f"{_PREFIX}_{token_id}_{secret}"


def load_tokens(engine: sa.Engine) -> list[Token]:
    """Return every token ever made, oldest first."""
    c = collect_token.c
    query = sa.select(*(c[name] for name in Token.__dataclass_fields__))
    with engine.connect() as conn:
        return [Token(*row) for row in conn.execute(query.order_by(c.created_at, c.id))]


def revoke_token(engine: sa.Engine, token_id: str, now: dt.datetime) -> bool:
    """Refuse a token from now on; return whether it was not revoked before."""
    c = collect_token.c
    statement = collect_token.update().where(c.id == token_id, c.revoked_at.is_(None))
    with engine.begin() as conn:
        return conn.execute(statement.values(revoked_at=now)).rowcount == 1


def find_token(known: list[Token], presented: str) -> Token | None:
    """Return the token that was presented, whatever its state; None if there is no such token.

    The comparison takes the same time wherever the secrets differ.
    """
    prefix, _, rest = presented.partition("_")
    token_id, _, secret = rest.partition("_")
    found = next((token for token in known if token.id == token_id), None)
    expected = found.sha256 if found else _hash("")
    is_equal = hmac.compare_digest(_hash(secret), expected)
    return found if is_equal and prefix == _PREFIX and secret else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


FRESH_SECONDS = 5.0  # how soon a token that was made or revoked is heard of
STALE_SECONDS = 300.0  # how long the tokens known are believed while the database is away
_LOG = logging.getLogger("mlmon_dagster.collect")
_CHALLENGE = {"www-authenticate": 'Bearer realm="mlmon collect"'}
_HOW = "Send it as 'Authorization: Bearer TOKEN'; 'mlmon collect token create' makes one."
_DISK_SECONDS = 1.0
_COUNT_SECONDS = 10.0


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
        self._known = load_tokens(engine)
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
        token = await self._token(authorization, host)
        if token is None:
            return ""
        if model is not None and not token.opens(model):
            raise Problem("forbidden", f"Token {token.id} is for another model.")
        return token.id

    async def sees(self, authorization: str, host: str) -> Callable[[str], bool]:
        """Let a request for numbers through; return what says which models it may see.

        Args:
            authorization: The header's value.
            host: The header's value.

        Raises:
            Problem: If it may see nothing.
        """
        token = await self._token(authorization, host)
        return (lambda _model: True) if token is None else token.opens

    async def _token(self, authorization: str, host: str) -> Token | None:
        """Return the valid token of a request; None if it needs none."""
        await self._refresh()
        if not self.needs_token:
            # Else a page in a browser could reach this server under a name of its own.
            if _without_port(host) not in self._hosts:
                raise Problem("wrong_host", "Use localhost, or 127.0.0.1.")
            return None
        scheme, _, presented = authorization.partition(" ")
        token = find_token(self._known, presented.strip())
        if scheme.lower() != "bearer" or token is None:
            raise Problem("unauthenticated", f"No valid token. {_HOW}", headers=_CHALLENGE)
        state = token.state(self._now())
        if state != "active":
            found = f"Token {token.id} is {state}. {_HOW}"
            raise Problem("unauthenticated", found, headers=_CHALLENGE)
        return token

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
        return load_tokens(self._engine)


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


class Pressure:
    """Refuses requests while too much waits; the client is told when to come again.

    Args:
        targets: Where files go.
        engine: The state database, whose manifest knows the files that were ingested.
        max_in_flight: Requests at work at once.
        min_free: Bytes that must stay free on the disk of each landing folder.
        max_files: Collected files of one stream that wait for ingest.
        max_held: Bytes of bodies in memory, as they come. One caller (a token, or without tokens
            an address) has at most half of them, and three quarters of the requests at work, so
            that it does not shut out the others; slow bodies are not at work yet.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        engine: sa.Engine,
        *,
        max_in_flight: int,
        min_free: int,
        max_files: int,
        max_held: int = 128 << 20,
    ) -> None:
        self._targets, self._engine = list(targets), engine
        self._max_in_flight, self._min_free, self._max_files = max_in_flight, min_free, max_files
        self._max_held = max_held
        self._n_in_flight: Counter[str] = Counter()
        self._n_held: Counter[str] = Counter()
        self._free: dict[Path, tuple[float, int]] = {}
        self._n_files: dict[Target, int] = {}

    @contextmanager
    def receiving(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Yield what counts the bytes of a body that is coming; they are let go at the end.

        Raises:
            Problem: Once they are more than memory is kept for.
        """
        n_mine = 0

        def count(n_bytes: int) -> None:
            nonlocal n_mine
            n_held = self._n_held.total() + n_bytes
            mine = self._n_held[caller] + n_bytes
            # A body alone always has room, however small the limit is.
            if n_held > self._max_held and n_held > n_mine + n_bytes:
                raise _overloaded(f"{n_held:,} bytes of bodies are in memory already.", 1)
            if mine > self._max_held // 2 and mine > n_mine + n_bytes:
                raise _overloaded(f"{mine:,} bytes of your bodies are in memory already.", 1)
            n_mine += n_bytes
            self._n_held[caller] += n_bytes

        try:
            yield count
        finally:
            self._n_held = +(self._n_held - Counter({caller: n_mine}))

    @contextmanager
    def room_for(self, target: Target, caller: str) -> Iterator[None]:
        """Count a request as at work.

        Raises:
            Problem: If there is no room for it.
        """
        n_in_flight, mine = self._n_in_flight.total(), self._n_in_flight[caller]
        if n_in_flight >= self._max_in_flight:
            raise _overloaded(f"{n_in_flight} requests are at work already.", 1)
        if mine >= max(1, self._max_in_flight * 3 // 4):
            raise _overloaded(f"{mine} requests of yours are at work already.", 1)
        self.check(target)
        self._n_in_flight[caller] += 1
        try:
            yield
        finally:
            self._n_in_flight = +(self._n_in_flight - Counter({caller: 1}))

    def check(self, target: Target) -> None:
        """Refuse if the disk is nearly full, or ingest does not keep up.

        Raises:
            Problem: With the time to wait.
        """
        free = self._free_bytes(target.folder)
        if free < self._min_free:
            found = f"{free:,} bytes are free on the disk, fewer than {self._min_free:,}."
            raise _overloaded(found, 30)
        n_files = self._n_files.get(target, 0)
        if n_files >= self._max_files:
            found = f"{n_files:,} files wait for ingest; does 'mlmon ingest {target.model}' run?"
            raise _overloaded(found, 30)

    def waiting(self) -> dict[Target, int]:
        """Return how many collected files of each stream wait for ingest."""
        return dict(self._n_files)

    def problems(self) -> list[str]:
        """Return why some stream takes nothing now."""
        found: dict[str, None] = {}
        for target in self._targets:
            try:
                self.check(target)
            except Problem as problem:
                found[problem.detail] = None
        return list(found)

    async def count_for_ever(self) -> None:
        """Count the files that wait for ingest, again and again."""
        while True:
            begun = time.monotonic()
            try:
                self._n_files = await asyncio.to_thread(self._count)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                _LOG.warning("waiting files cannot be counted: %s", type(error).__name__)
            # A large folder takes a while; it must not take all the time there is.
            await asyncio.sleep(max(_COUNT_SECONDS, 20 * (time.monotonic() - begun)))

    def _count(self) -> dict[Target, int]:
        found = {}
        for target in self._targets:
            known = manifest.load_paths(self._engine, target.model, target.stream)
            names = os.listdir(target.folder) if target.folder.is_dir() else []  # noqa: PTH208
            found[target] = sum(
                name.startswith(PREFIX) and f"{target.below}/{name}" not in known for name in names
            )
        return found

    def _free_bytes(self, folder: Path) -> int:
        read_at, free = self._free.get(folder, (0.0, 0))
        if time.monotonic() - read_at > _DISK_SECONDS:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            free = shutil.disk_usage(there).free
            self._free[folder] = (time.monotonic(), free)
        return free


def _overloaded(found: str, seconds: int) -> Problem:
    return Problem("overloaded", found, headers={"retry-after": str(seconds)})
