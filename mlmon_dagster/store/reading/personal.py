"""What stands for personal values where only numbers are kept: digests with the model's key.

The key lies in the state database and nowhere else. Who finds profiles or baselines, which may be
in object storage, cannot try names out; two profiles of one model still name a value alike.
"""

from __future__ import annotations

import hashlib
import hmac

import sqlalchemy as sa

from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.schema import erasure_key
from mlmon_dagster.store.state.sql import literal

_PURPOSE = b"personal values"
_LENGTH = 32  # hexadecimal digits that are kept


def key_of(engine: sa.Engine, model: str) -> str:
    """Return the key of a model's personal values, made with the model's own the first time."""
    with engine.connect() as conn:
        salt = conn.scalar(sa.select(erasure_key.c.salt).where(erasure_key.c.model == model))
    if salt is None:
        with engine.begin() as conn:
            salt = erased_ids.salt_of(conn, model)
    return hmac.new(str(salt).encode(), _PURPOSE, hashlib.sha256).hexdigest()


def digest(key: str, value: str) -> str:
    """Return what stands for a value; nested, so that a longer value's cannot be made from it."""
    inner = hashlib.sha256((key + value).encode()).hexdigest()
    return hashlib.sha256((key + inner).encode()).hexdigest()[:_LENGTH]


def digest_sql(key: str, text: str) -> str:
    """Return `digest` of an SQL expression as another one, in DuckDB's words."""
    inner = f"sha256({literal(key)} || {text})"
    return f"SUBSTR(sha256({literal(key)} || {inner}), 1, {_LENGTH})"
