"""Alembic's entry point: runs the migrations on the connection that the caller holds."""

from __future__ import annotations

from alembic import context

from mlmon_dagster.store.state.database import VERSION_TABLE
from mlmon_dagster.store.state.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
