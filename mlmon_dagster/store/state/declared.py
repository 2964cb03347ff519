"""What a model's stored events rest on: keys of its spec that cannot change any more."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.changes import fixed_values, refused_changes
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.schema_of_models import declared_key
from mlmon_dagster.store.state.upsert import insert_or_ignore


def check_declared(engine: sa.Engine, spec: ModelSpec) -> None:
    """Refuse a spec that does not fit the events that are stored.

    Raises:
        ConfigError: With every key that changed and may not, and the way to do it.
    """
    c = declared_key.c
    with engine.connect() as conn:
        query = sa.select(c.key, c.value).where(c.model == spec.model)
        stored = {key: value for key, value in conn.execute(query)}
    if problems := list(refused_changes(spec, stored)):
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(
            f"models/{spec.model}.yaml was changed in a way that its stored events do not allow:\n"
            f"{lines}\nUntil then nothing of it is read or computed. "
            "docs/spec.md lists what may change."
        )


def remember_declared(conn: sa.Connection, spec: ModelSpec, now: datetime) -> None:
    """Note what events rest on, in the transaction that takes them in; what is known stays."""
    rows = [
        {"model": spec.model, "key": key, "value": value, "since": now}
        for key, value in fixed_values(spec).items()
    ]
    insert_or_ignore(conn, declared_key, rows)
