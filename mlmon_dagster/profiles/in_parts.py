"""Profiling rows part by part, here or on the workers of an engine.

What travels to a worker is this work and the text of a part; what comes back are rows of profiles.
A worker reads the tables with its own credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from mlmon_dagster.metrics.drift.joint import JOINT
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    empty,
    merge_columns,
)
from mlmon_dagster.profiles.bins.fit import value_expressions
from mlmon_dagster.profiles.bins.joint import profile_joint
from mlmon_dagster.profiles.build import build_profiles
from mlmon_dagster.profiles.explain import explained
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB
from mlmon_dagster.profiles.sql.compiler import Engine
from mlmon_dagster.profiles.sql.loss_columns import row_source
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.tables.engine import QueryEngine, WithTables

# Does work on every part, as the builtin ``map``; ``map`` of an engine, which does it elsewhere.
Spread = Callable[[Callable[[str], pa.Table], Sequence[str]], Iterable[pa.Table]]


_WIDE = 100  # columns; fewer are a handful of statements
_MOST_VALUES = 4_000_000
_MOST_WAITING = 64 * 2**20  # bytes of parts that are added up at once, which costs as much as one
_HELD = "held_records"


class Rows(NamedTuple):
    """Rows to stand after FROM, and what reads them."""

    engine: Engine
    from_sql: str


def held(queries: QueryEngine, spec: ModelSpec, from_sql: str) -> Rows:
    """Read the few rows of a wide model once, for all the statements about them.

    To plan a statement, the engine opens every file and looks at every column, whatever the
    statement asks for: of hundreds of columns that takes longer than to read them.

    Args:
        queries: Over the store's tables.
        spec: The model; of fewer than 100 features, rows stay in their files.
        from_sql: The rows, which stay in their files as well if they have more than four million
            values.
    """
    if len(spec.features) >= _WIDE:
        n = queries.query(f"SELECT COUNT(*) AS n FROM {from_sql} AS records")["n"][0].as_py()
        if n * len(spec.features) <= _MOST_VALUES:
            rows = queries.query(f"SELECT * FROM {from_sql} AS records")
            return Rows(WithTables(queries, {_HELD: rows}), _HELD)
    return Rows(queries, from_sql)


@dataclass(frozen=True)
class ProfileRows:
    """The work on a part of the inference records: ``work(part)`` are the rows of its profiles.

    Attributes:
        opened: Opens the tables, wherever it is called.
        spec: The model.
        binnings: Column -> bins.
        key: Of personal values, see `value_expressions`.
    """

    opened: Callable[[], QueryEngine]
    spec: ModelSpec
    binnings: Mapping[str, Binning]
    key: str = ""

    def profiles(self, source: str) -> dict[str, ColumnStatistics]:
        """Profile the records of a subquery, as `build_profiles` does."""
        queries, spec = self.opened(), self.spec
        values = explained(queries, spec, source)
        engine, source = held(queries, spec, source)
        return build_profiles(engine, spec, source, self.binnings, key=self.key, explained=values)

    def __call__(self, source: str) -> pa.Table:
        """Return them as rows."""
        return to_rows(self.profiles(source))


def profile_in_parts(
    work: ProfileRows, sources: Sequence[str], whole: str, spread: Spread = map
) -> dict[str, ColumnStatistics]:
    """Do what `build_profiles` does, holding one part's rows at a time.

    Args:
        work: What is done with a part.
        sources: Parts of the inference records, to stand after FROM; every row is in one of them,
            and of a ranking whole groups are.
        whole: All of them, of which samples are read here for what has to see one sample.
        spread: Does the work, in whatever order; by default here, one part after the other.
    """
    if len(sources) == 1:
        return work.profiles(sources[0])
    apart = {name: binning for name, binning in work.binnings.items() if name != JOINT}
    found: dict[str, ColumnStatistics] = {}
    waiting: list[pa.Table] = []
    for rows in spread(replace(work, binnings=apart), sources):
        waiting.append(rows)
        if sum(part.nbytes for part in waiting) > _MOST_WAITING:
            found, waiting = added_up(found, waiting, apart), []
    found = added_up(found, waiting, apart)
    found |= {name: empty(binning) for name, binning in apart.items() if name not in found}
    values = value_expressions(work.spec, work.key)
    source = row_source(work.spec, whole)
    return found | profile_joint(work.opened(), source, work.binnings, values, DUCKDB)


def added_up(
    profiles: Mapping[str, ColumnStatistics],
    parts: Sequence[pa.Table],
    binnings: Mapping[str, Binning],
) -> dict[str, ColumnStatistics]:
    """Add the rows of parts to profiles, cell by cell; each may lack cells that others have."""
    together = from_rows(pa.concat_tables([to_rows(profiles), *parts]), binnings)
    return {**profiles, **merge_columns(together, CELL_KEYS)}
