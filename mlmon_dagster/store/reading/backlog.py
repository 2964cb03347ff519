"""Landing files that the last look found and did not take in: too new to be complete, or too many.

Times are of the files, by the real clock, whatever moment the project is replayed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from mlmon_dagster.store.state.schema import ingest_backlog
from mlmon_dagster.store.state.upsert import upsert

_JITTER = timedelta(seconds=2)  # the age of a file is measured anew by every look


@dataclass(frozen=True)
class Backlog:
    """What the last look left of one stream.

    Attributes:
        n_waiting: Files that may still be written to.
        n_left: Complete files, for which there was no time.
        oldest_at: Last change of the oldest of all of them.
        newest_at: Last change of the newest.
        left_since: When the oldest complete one could have been read.
    """

    n_waiting: int = 0
    n_left: int = 0
    oldest_at: datetime | None = None
    newest_at: datetime | None = None
    left_since: datetime | None = None

    @property
    def n(self) -> int:
        """All files that are not read yet."""
        return self.n_waiting + self.n_left

    def holds_any_until(self, moment: datetime) -> bool:
        """Tell whether a file is left that had landed by a moment."""
        return self.oldest_at is not None and self.oldest_at <= moment + _JITTER


def load(engine: sa.Engine, model: str) -> dict[str, Backlog]:
    """Return what the last look at a model left, by stream; streams with nothing are absent."""
    table = ingest_backlog
    columns = [c for c in table.c if c.name not in ("model", "stream")]
    query = sa.select(table.c.stream, *columns).where(table.c.model == model)
    with engine.connect() as conn:
        found = {stream: Backlog(*values) for stream, *values in conn.execute(query)}
    return {stream: backlog for stream, backlog in found.items() if backlog.n}


def load_all(engine: sa.Engine) -> dict[str, dict[str, Backlog]]:
    """Return what the last looks left, by model and stream; models with nothing are absent."""
    table = ingest_backlog
    query = sa.select(table).where(table.c.n_waiting + table.c.n_left > 0)
    found: dict[str, dict[str, Backlog]] = {}
    with engine.connect() as conn:
        for model, stream, *values in conn.execute(query):
            found.setdefault(model, {})[stream] = Backlog(*values)
    return found


def note(engine: sa.Engine, model: str, found: Mapping[str, Backlog]) -> None:
    """Remember what a look at a model left; an idle look writes nothing."""
    known = load(engine, model)
    rows = [
        {"model": model, "stream": stream, **asdict(backlog)}
        for stream, backlog in found.items()
        if backlog != known.get(stream, Backlog())
    ]
    if rows:
        with engine.begin() as conn:
            upsert(conn, ingest_backlog, rows)
