"""How long rows are kept, and from how many people on a number may stand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from pydantic import Field

from mlmon_dagster.spec.scalars import Declared, Duration, format_duration

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
    min_cell: int = Field(default=10, ge=0)

    def of_dataset(self, dataset: str) -> dt.timedelta | None:
        """Return how long rows of a dataset are kept; None is for ever."""
        kept: dt.timedelta | None = getattr(self, dataset)
        return kept


def retention_problems(
    kept: RetentionPolicy, closed_after: dt.timedelta
) -> Iterator[tuple[str, str]]:
    """Yield the keys that are too short, and why.

    Args:
        kept: The declared policy.
        closed_after: Until when ground truth is awaited.
    """
    if kept.versions < SHORTEST_VERSIONS:
        yield (
            "versions",
            "must be at least 1d: readers hold lists of files, which must not vanish under them",
        )
    for name in ("production", "profiles"):
        age = getattr(kept, name)
        if age is not None and age < closed_after:
            yield (
                name,
                f"is shorter than actuals.closed_after ({format_duration(closed_after)}); windows "
                "would lose their rows while their ground truth is still awaited",
            )
