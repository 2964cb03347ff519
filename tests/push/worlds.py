"""A small model that is pushed to, and the running collector."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mlmon_dagster.spec import ModelSpec, spec_from_mapping

NOW = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
SPEC: dict[str, Any] = {
    "model": "loan",
    "task": "binary_classification",
    "owners": ["team:risk"],
    "time": {"start": "2024-01-01"},
    "source": {
        "predictions": {"path": "landing/predictions/*.jsonl", "settle": "0s"},
        "actuals": {"path": "landing/actuals/*.jsonl", "settle": "0s"},
    },
    "columns": {
        "prediction_id": "id",
        "event_time": "at",
        "score": "score",
        "actual": "bad",
        "actual_time": "known",
    },
    "features": {
        "age": {"type": "numeric", "min": 0, "nullable": True},
        "region": {"type": "categorical"},
    },
}


def push_spec(**changes: Any) -> ModelSpec:
    """Return the model's spec with whole sections replaced."""
    return spec_from_mapping({**SPEC, **changes})
