"""Create the tables, as `schema.py` declares them.

Version 0.1 has no past: a change of a table changes what this makes. The first migration after a
release is written together with the tables of that release here, for it changes databases that
have them (`alembic revision --autogenerate` on an empty database writes them out).
"""

from alembic import op

from mlmon_dagster.store.state.schema import METADATA

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; a table of another program with one of their names is an error."""
    METADATA.create_all(op.get_bind(), checkfirst=False)
