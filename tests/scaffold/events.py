"""Made-up events of several models, as a serving system would log them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

N = 2000


def churn() -> pa.Table:
    """Binary, with every role named as people name them, and personal columns."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-03-01", periods=N, freq="10min", tz="UTC")
    score = rng.uniform(0, 1, N)
    frame = pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(N)],
            "scored_at": times,
            "dataset": rng.choice(["validation", "production"], N),
            "p_churn": score,
            "churn_predicted": score > 0.5,
            "latency_ms": rng.lognormal(3, 0.5, N),
            "label": (rng.uniform(size=N) < score).astype(int),
            "plan": rng.choice(["basic", "plus", "pro"], N),
            "age": rng.integers(18, 90, N),
            "balance": np.where(rng.uniform(size=N) < 0.1, np.nan, rng.normal(0, 1000, N)),
            "email": [f"user{i}@example.com" for i in range(N)],
            "contact": rng.choice(["a@example.com", "b@example.com", "c@example.com"], N),
            "session": [f"s-{i:06d}" for i in range(N)],
            "always": "x",
            "is_new": rng.uniform(size=N) < 0.3,
        }
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    tags = pa.array([[1, 2]] * N)
    return table.append_column("tags", tags)


def apart() -> tuple[pa.Table, pa.Table]:
    """Binary: predictions, and ground truth in files of its own."""
    table = churn().drop_columns(["label", "tags", "dataset"])
    known = pd.date_range("2026-03-08", periods=N, freq="10min", tz="UTC")
    truth = pa.table({"request_id": table.column("request_id"), "seen": known,
                      "left": [i % 3 == 0 for i in range(N)]})  # fmt: skip
    return table, truth
