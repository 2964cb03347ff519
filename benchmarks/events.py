"""Landing files of 30 columns for the ingest benchmark: whole days of so many rows each."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.spec import ModelSpec, spec_from_mapping

NUMERIC = [f"n{i:02d}" for i in range(16)]
LEVELS = (3, 8, 50, 300, 1_000)
CATEGORICAL = [f"c{i:02d}" for i in range(len(LEVELS))]
START = dt.date(2026, 1, 1)
ROWS_A_DAY, DAYS_A_FILE = 100_000, 10
NULL_SHARE = 0.03


def make_spec() -> ModelSpec:
    numeric = {name: {"type": "numeric", "nullable": True} for name in NUMERIC}
    categorical = {name: {"type": "categorical", "nullable": True} for name in CATEGORICAL}
    landing = {"settle": "0s", "max_rows": 10_000_000, "max_bytes": 4_000_000_000}
    return spec_from_mapping(
        {
            "model": "bench",
            "task": "binary_classification",
            "owners": ["team:bench"],
            "time": {"start": START.isoformat()},
            "source": {
                "predictions": {"path": "landing/predictions/*.parquet", **landing},
                "actuals": {"path": "landing/actuals/*.parquet", **landing},
            },
            "columns": {
                "prediction_id": "prediction_id", "event_time": "event_time", "score": "score",
                "prediction": "prediction", "dataset": "dataset", "latency_ms": "latency_ms",
                "model_version": "model_version", "status": "status", "trace_id": "trace_id",
                "actual": "actual", "actual_time": "actual_time",
            },
            "features": numeric | categorical,
        }
    )  # fmt: skip


def write_predictions(path: Path, number: int, rows_a_day: int = ROWS_A_DAY) -> None:
    """Write file ``number`` of a stream: ten days that follow those of the file before."""
    rng = np.random.default_rng(number)
    writer = None
    for day in range(number * DAYS_A_FILE, (number + 1) * DAYS_A_FILE):
        rows = _day(rng, day, rows_a_day)
        writer = writer or pq.ParquetWriter(path, rows.schema, compression="zstd")
        writer.write_table(rows)
    assert writer is not None
    writer.close()
    os.utime(path, (1_760_000_000 + number, 1_760_000_000 + number))


def write_actuals(path: Path, days: int, rows_a_day: int = ROWS_A_DAY, share: float = 0.01) -> int:
    """Write one file of actuals for a share of the predictions of every day."""
    rng = np.random.default_rng(10_000)
    n = int(rows_a_day * share)
    ids = [_id(day, int(i)) for day in range(days) for i in rng.choice(rows_a_day, n, False)]
    known = np.datetime64(START, "us") + np.timedelta64(days + 20, "D")
    table = pa.table(
        {
            "prediction_id": ids,
            "actual": rng.integers(0, 2, len(ids)),
            "actual_time": pa.array([known] * len(ids), pa.timestamp("us")).cast(
                pa.timestamp("us", "UTC")
            ),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return table.num_rows


def _id(day: int, i: int) -> str:
    return f"{(day * 2654435761 + i * 40503) % 2**32:08x}-{day:04d}-{i:07d}"


def _day(rng: np.random.Generator, day: int, rows: int) -> pa.Table:
    start = np.datetime64(START, "us") + np.timedelta64(day, "D")
    offsets = np.sort(rng.integers(0, 86_400_000_000, rows))
    score = 1 / (1 + np.exp(-rng.standard_normal(rows)))
    times = pa.array(start + offsets.astype("timedelta64[us]"), pa.timestamp("us"))
    columns = {
        "prediction_id": pa.array([_id(day, i) for i in range(rows)]),
        "event_time": times.cast(pa.timestamp("us", "UTC")),
        "score": pa.array(score),
        "prediction": pa.array((score > 0.5).astype(np.int64)),
        "dataset": pa.repeat("production", rows),
        "model_version": pa.repeat("7", rows),
        "latency_ms": pa.array(rng.gamma(2.0, 20.0, rows)),
        "status": pa.repeat("ok", rows),
        "trace_id": pa.array([f"{word:016x}" for word in rng.integers(0, 2**62, rows)]),
    }
    for name in NUMERIC:
        columns[name] = pa.array(rng.standard_normal(rows) * 10, mask=rng.random(rows) < NULL_SHARE)
    for name, levels in zip(CATEGORICAL, LEVELS, strict=True):
        code = np.minimum(rng.exponential(levels / 5, rows).astype(np.int32), levels - 1)
        indices = pa.array(code, mask=rng.random(rows) < NULL_SHARE)
        words = pa.array([f"level_{level}" for level in range(levels)])
        columns[name] = pa.DictionaryArray.from_arrays(indices, words).cast(pa.string())
    return pa.table(columns)
