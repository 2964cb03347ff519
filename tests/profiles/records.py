"""Inference records made up for tests, and an engine that is nothing but DuckDB."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.spec import ModelSpec

START = pd.Timestamp("2026-03-01", tz="UTC")
SCHEMA = pa.schema(
    [
        ("window_start", pa.timestamp("us", "UTC")),
        ("window_date", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("dataset", pa.string()),
        ("model_version", pa.string()),
        ("prediction", pa.int64()),
        ("score", pa.float64()),
        ("actual", pa.int64()),
        ("latency_ms", pa.float64()),
        ("status", pa.string()),
        ("temp", pa.float64()),
        ("hour", pa.float64()),
        ("carrier", pa.string()),
        ("origin", pa.string()),
        ("is_holiday", pa.bool_()),
        ("booked_at", pa.timestamp("us", "UTC")),
        ("note", pa.string()),
        ("nonfinite", pa.list_(pa.string())),
    ]
)


def make_spec(**changes: Any) -> ModelSpec:
    """Return a binary model with a feature of every type and two slices."""
    content: dict[str, Any] = {
        "model": "late",
        "task": "binary_classification",
        "owners": ["team:ml"],
        "time": {"start": dt.date(2026, 3, 1)},
        "source": {"predictions": {"path": "landing/*.parquet"}},
        "columns": {
            "prediction_id": "id",
            "event_time": "at",
            "score": "p",
            "prediction": "late_predicted",
            "actual": "late",
            "latency_ms": "ms",
            "status": "status",
            "model_version": "version",
        },
        "features": {
            "temp": {"type": "numeric", "min": -20, "max": 100, "nullable": True},
            "hour": {"type": "numeric"},
            "carrier": {"type": "categorical"},
            "origin": {"type": "categorical"},
            "is_holiday": {"type": "boolean"},
            "booked_at": {"type": "datetime"},
            "note": {"type": "text"},
        },
        "slices": ["origin", ["origin", "carrier"]],
    }
    return ModelSpec.model_validate(content | changes)


def make_records(
    n: int, seed: int = 0, *, days: int = 3, dataset: str = "production", **columns: Any
) -> pa.Table:
    """Return n records with nulls, non-finite values, unseen categories and unlabelled rows."""
    rng = np.random.default_rng(seed)

    def maybe(values: Any, share: float = 0.05) -> list[Any]:
        return [None if gone else v for v, gone in zip(values, rng.random(n) < share, strict=True)]

    day = rng.integers(0, days, n)
    temp = rng.normal(50, 30, n)
    kind = rng.choice(["", "nan", "inf"], n, p=[0.9, 0.06, 0.04])
    found = {
        "window_start": [START + pd.Timedelta(days=int(d)) for d in day],
        "window_date": [f"{START + pd.Timedelta(days=int(d)):%Y-%m-%d}" for d in day],
        "event_time": [START + pd.Timedelta(days=int(d), seconds=7 * i) for i, d in enumerate(day)],
        "dataset": [dataset] * n,
        "model_version": maybe(rng.choice(["1", "2"], n), 0.1),
        "prediction": maybe(rng.integers(0, 2, n).tolist()),
        "score": maybe(
            rng.choice([0.0, 1.0, 0.5, *rng.random(5), *rng.random(5) ** 8], n).tolist()
        ),
        "actual": maybe(rng.integers(0, 2, n).tolist(), 0.3),
        "latency_ms": maybe(np.exp(rng.normal(3, 3, n)).tolist()),
        "status": maybe(rng.choice(["ok", "error", "timeout"], n, p=[0.9, 0.05, 0.05])),
        "temp": [None if k else t for k, t in zip(kind, maybe(temp.tolist()), strict=True)],
        "hour": maybe(rng.integers(0, 24, n).astype(float).tolist()),
        "carrier": maybe(rng.choice(["UA", "AA", "D,L", "B'6", 'qu"ote', ""], n)),
        "origin": maybe(rng.choice(["EWR", "JFK", "L\\GA"], n)),
        "is_holiday": maybe(rng.integers(0, 2, n).astype(bool).tolist()),
        "booked_at": [START - pd.Timedelta(seconds=int(s)) for s in rng.integers(0, 10**6, n)],
        "note": maybe(["x" * int(k) for k in rng.integers(0, 60, n)]),
        "nonfinite": [[f"temp:{k}"] if k else None for k in kind],
    }
    return pa.table({k: columns.get(k, v) for k, v in found.items()}, schema=SCHEMA)


class DuckEngine:
    """The least that profiles need: SQL in, Arrow out; counts the statements."""

    threads = 2

    def __init__(self, **tables: pa.Table) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
        for name, table in tables.items():
            self._connection.register(name, table)
        self.statements: list[str] = []

    def query(self, sql: str, /) -> pa.Table:
        self.statements.append(sql)
        return self._connection.sql(sql).to_arrow_table()

    def batches(self, sql: str, rows: int, /) -> Iterator[pa.Table]:
        self.statements.append(sql)
        for batch in self._connection.sql(sql).to_arrow_reader(rows):
            yield pa.Table.from_batches([batch])
