"""How long rows are kept, and from how many people on a number may stand."""

from __future__ import annotations

import datetime as dt

from pydantic import Field

from mlmon_dagster.spec.scalars import Declared, Duration

SHORTEST_VERSIONS = dt.timedelta(days=1)


class RetentionPolicy(Declared):
    """How long rows of each dataset, old versions, refused data and so on are kept."""

    production: Duration | None = None
    training: Duration | None = None
    validation: Duration | None = None
    shadow: Duration | None = None
    canary: Duration | None = None
    versions: Duration = dt.timedelta(days=30)
    profiles: Duration | None = None
    dead_letter: Duration | None = None
    quarantine: Duration | None = None
    trash: Duration = dt.timedelta(days=30)
    min_cell: int = Field(default=10, ge=0)

    def of_dataset(self, dataset: str) -> dt.timedelta | None:
        """Return how long rows of a dataset are kept; None is for ever."""
        kept: dt.timedelta | None = getattr(self, dataset)
        return kept
