"""Made-up events of several models, as a serving system would log them."""

from __future__ import annotations

import re

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


def reference_and_analysis() -> pa.Table:
    """Binary: one file whose column says which part is the reference, without datasets."""
    table = churn().drop_columns(["dataset", "tags"])
    period = ["reference"] * (N // 2) + ["analysis"] * (N - N // 2)
    return table.append_column("period", pa.array(period))


def card_types() -> pa.Table:
    """Multiclass, with a probability for each class and a decision."""
    rng = np.random.default_rng(1)
    names = ["prepaid card", "upmarket_card", "highstreet_card"]
    shares = rng.dirichlet([2, 2, 2], N)
    decided = shares.argmax(axis=1)
    frame = pd.DataFrame(
        {
            "id": range(N),
            "timestamp": pd.date_range("2026-03-01", periods=N, freq="10min", tz="UTC"),
            "app_channel": rng.choice(["store", "web"], N),
            "credit_score": rng.integers(300, 850, N),
            **{f"y_pred_proba_{re.sub(' ', '_', n)}": shares[:, i] for i, n in enumerate(names)},
            "y_pred": np.array(names)[decided],
            "y_true": np.array(names)[np.where(rng.uniform(size=N) < 0.8, decided, 0)],
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def searches() -> pa.Table:
    """Ranking: ten results a search, with how relevant each was."""
    rng = np.random.default_rng(2)
    starts = pd.date_range("2026-03-01", periods=N // 10, freq="1h", tz="UTC")
    frame = pd.DataFrame(
        {
            "impression_key": [f"i{i}" for i in range(N)],
            "query_id": [f"q{i // 10}" for i in range(N)],
            "position": [i % 10 + 1 for i in range(N)],
            "shown_at": np.repeat(starts, 10),
            "price": rng.lognormal(3, 1, N),
            "relevance": rng.integers(0, 3, N),
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)


def deliveries() -> pa.Table:
    """Regression with a year, a season, a weekday and a date written as a number."""
    rng = np.random.default_rng(3)
    times = pd.date_range("2025-11-01", periods=N, freq="2h", tz="UTC")
    hours = rng.gamma(4, 10, N)
    frame = pd.DataFrame(
        {
            "order_id": [f"o{i}" for i in range(N)],
            "created_at": times,
            "promised_at": times + pd.to_timedelta(rng.uniform(24, 96, N), unit="h"),
            "year": times.year,
            "season": times.month % 12 // 3 + 1,
            "day_of_week": times.day_of_week,
            "order_date": times.year * 10000 + times.month * 100 + times.day,
            "weight": rng.lognormal(0, 1, N),
            "prediction": hours + rng.normal(0, 3, N),
            "actual": hours,
        }
    )
    return pa.Table.from_pandas(frame, preserve_index=False)
