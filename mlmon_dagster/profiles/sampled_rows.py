"""Samples of windows by hash of the id: the same rows whenever a window is read again.

The rows of a large window are halved until they are few enough. So that does not depend on how
rows are divided among files, a whole window has to be seen.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.store.state.sql import literal, literals

Groups = Mapping[tuple[str | None, int], Sequence[dt.datetime]]


def sampled_source(engine: Engine, from_sql: str, most_rows: int) -> str:
    """Return at most about so many rows of each window and dataset, to stand after FROM.

    Args:
        engine: Runs SQL.
        from_sql: The rows.
        most_rows: Of a window; small windows keep all of theirs.
    """
    groups: dict[tuple[str | None, int], list[dt.datetime]] = {}
    for dataset, start, halvings, _ in _count_halvings(engine, from_sql, most_rows):
        if halvings:
            groups.setdefault((dataset, halvings), []).append(start)
    if not groups:
        return from_sql
    parts = [
        f"(NOT {_are_windows(dataset, starts)} OR {_is_in_part(halvings)})"
        for (dataset, halvings), starts in groups.items()
    ]
    return f"(SELECT records.* FROM {from_sql} AS records WHERE {' AND '.join(parts)})"


def sample_conditions(engine: Engine, from_sql: str, most_rows: int, at_once: int) -> Iterator[str]:
    """Yield conditions that share out the windows, each for at most about `at_once` rows.

    Args:
        engine: Runs SQL.
        from_sql: The rows.
        most_rows: Of a window and dataset.
        at_once: Rows to hold.
    """
    group: dict[tuple[str | None, int], list[dt.datetime]] = {}
    held = 0.0
    for dataset, start, halvings, rows in _count_halvings(engine, from_sql, most_rows):
        if group and held + rows > at_once:
            yield _condition(group)
            group, held = {}, 0.0
        group.setdefault((dataset, halvings), []).append(start)
        held += rows
    if group:
        yield _condition(group)


def _count_halvings(
    engine: Engine, from_sql: str, most_rows: int
) -> Iterator[tuple[str | None, dt.datetime, int, float]]:
    """Yield dataset and start of each window, how often it is halved, and about what is left."""
    sizes = engine.query(
        f"SELECT window_start, dataset, COUNT(*) AS n FROM {from_sql} AS records "
        "GROUP BY window_start, dataset ORDER BY window_start, dataset"
    ).to_pylist()
    for row in sizes:
        halvings = max(int(np.ceil(np.log2(row["n"] / most_rows))), 0)
        yield row["dataset"], row["window_start"], halvings, row["n"] / 2**halvings


def _condition(groups: Groups) -> str:
    parts = []
    for (dataset, halvings), starts in groups.items():
        part = _are_windows(dataset, starts)
        parts.append(f"({part} AND {_is_in_part(halvings)})" if halvings else part)
    return " OR ".join(parts)


def _are_windows(dataset: str | None, starts: Sequence[dt.datetime]) -> str:
    mine = "dataset IS NULL" if dataset is None else f"dataset = {literal(dataset)}"
    return f"({mine} AND window_start IN ({literals(starts)}))"


def _is_in_part(halvings: int) -> str:
    return f"MD5(prediction_id) < '{2 ** (32 - halvings):08x}'"
