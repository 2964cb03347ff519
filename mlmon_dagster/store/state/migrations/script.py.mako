"""${message}."""

import sqlalchemy as sa
from alembic import op

from mlmon_dagster.store.state.schema import Id, UtcDateTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    ${upgrades if upgrades else "pass"}
