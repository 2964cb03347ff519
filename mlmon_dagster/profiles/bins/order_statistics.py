"""What the bins of a numeric column are made from: range, median, few values or quantiles.

An engine in this process hands over two columns at a time, and numpy sorts them: that takes a third
of asking for values, moments and quantiles with a statement each. Any other engine is asked, so
that no column has to travel, and so is DuckDB where a column is large to hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.profiles.sql.bin_codes import Dialect
from mlmon_dagster.profiles.sql.compiler import Engine

QUANTILE_BINS = 20
MAX_VALUES = 32
MAX_HELD = 20_000_000  # rows: 160 MB a column
_AT_ONCE = 2  # columns held at a time, and threads


@dataclass(frozen=True)
class OrderStatistics:
    """Of a column's values, nulls left out.

    Attributes:
        values: All distinct values, ascending, if there are at most 32; else None.
        quantiles: The values (not between two of them) at 1/20, 2/20, ... 19/20; () without any.
        low, high: Smallest and largest; 0 without values.
        median: The lower one of an even number of values; 0 without values.
    """

    values: tuple[float, ...] | None
    quantiles: tuple[float, ...]
    low: float
    high: float
    median: float


def order_statistics(
    engine: Engine, from_sql: str, values: Mapping[str, str], dialect: Dialect
) -> dict[str, OrderStatistics]:
    """Return the order statistics of some columns.

    Args:
        engine: Runs SQL, such as a ``Store``.
        from_sql: The rows, to stand after FROM.
        values: Column -> SQL expression of its value.
        dialect: Of the engine.
    """
    if not (dialect.is_duckdb and values and _rows(engine, from_sql) <= MAX_HELD):
        return {name: _asked(engine, from_sql, value, dialect) for name, value in values.items()}
    found: dict[str, OrderStatistics] = {}
    names = list(values)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for begin in range(0, len(names), _AT_ONCE):
            some = names[begin : begin + _AT_ONCE]
            columns = ", ".join(
                f"CAST({values[name]} AS DOUBLE) AS x{i}" for i, name in enumerate(some)
            )
            table = engine.query(f"SELECT {columns} FROM {from_sql} AS records")
            found |= dict(zip(some, threads.map(_sorted, table.columns), strict=True))
            del table  # before the next is read
    pa.default_memory_pool().release_unused()
    return found


def _rows(engine: Engine, from_sql: str) -> int:
    return int(engine.query(f"SELECT COUNT(*) AS n FROM {from_sql} AS records").to_pylist()[0]["n"])


def quantiles_of(
    engine: Engine, present: str, shares: Sequence[float], dialect: Dialect
) -> list[float]:
    """Values of ``x`` (not between two of them) at the given shares, asked of the engine."""
    if dialect.is_duckdb:
        # One aggregate for all shares, so that the column is held once.
        sql = f"SELECT UNNEST(quantile_disc(x, {list(shares)!r})) AS x {present}"
        return [float(edge) for edge in engine.query(sql).column("x").to_pylist()]
    inside = ", ".join(
        f"PERCENTILE_DISC({share!r}) WITHIN GROUP (ORDER BY x) AS q{i}"
        for i, share in enumerate(shares)
    )
    return [
        float(edge) for edge in engine.query(f"SELECT {inside} {present}").to_pylist()[0].values()
    ]


def _sorted(column: pa.ChunkedArray) -> OrderStatistics:
    values: NDArray[np.float64] = np.sort(pc.drop_null(column).to_numpy())
    values += 0.0  # -0 is 0, whichever of them comes first
    n = len(values)
    if n == 0:
        return OrderStatistics((), (), 0.0, 0.0, 0.0)
    first = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)
    # The smallest value with at least i / 20 of the rows at or below it, in whole numbers.
    places = [(i * n + QUANTILE_BINS - 1) // QUANTILE_BINS - 1 for i in range(1, QUANTILE_BINS)]
    quantiles = tuple(values[places].tolist())
    if len(first) <= MAX_VALUES:
        return _of_values(values[first].tolist(), quantiles)
    return OrderStatistics(None, quantiles, float(values[0]), float(values[-1]), _median(quantiles))


def _of_values(values: Sequence[float], quantiles: tuple[float, ...]) -> OrderStatistics:
    low, high = (values[0], values[-1]) if values else (0.0, 0.0)
    median = _median(quantiles) if quantiles else 0.0
    return OrderStatistics(tuple(map(float, values)), quantiles, float(low), float(high), median)


def _median(quantiles: Sequence[float]) -> float:
    return quantiles[QUANTILE_BINS // 2 - 1]


def _asked(engine: Engine, from_sql: str, value: str, dialect: Dialect) -> OrderStatistics:
    present = f"FROM (SELECT {value} AS x FROM {from_sql} AS records) AS v WHERE x IS NOT NULL"
    shares = [i / QUANTILE_BINS for i in range(1, QUANTILE_BINS)]
    # One more than allowed is enough to know, and cheaper than counting them all.
    distinct = engine.query(f"SELECT DISTINCT x {present} LIMIT {MAX_VALUES + 1}").column("x")
    if len(distinct) <= MAX_VALUES:
        values = sorted(distinct.to_pylist())
        quantiles = tuple(quantiles_of(engine, present, shares, dialect)) if values else ()
        return _of_values(values, quantiles)
    row = engine.query(f"SELECT MIN(x) AS low, MAX(x) AS high {present}").to_pylist()[0]
    quantiles = tuple(quantiles_of(engine, present, shares, dialect))
    return OrderStatistics(
        None, quantiles, float(row["low"]), float(row["high"]), _median(quantiles)
    )
