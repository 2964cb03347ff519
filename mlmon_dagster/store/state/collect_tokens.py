"""Tokens that may push events: made, listed, revoked; only their hashes are kept.

A token is ``mlmon_<id>_<secret>``. The id finds its row and is no secret; the secret has 256
random bits, so that a plain SHA-256 of it cannot be guessed back.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

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
