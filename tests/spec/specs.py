"""A small spec that is right, for tests to make wrong."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import TimeSpec

UTC = dt.UTC

YAML = """\
model: churn
task: binary_classification
owners: [team:growth]
time: {zone: Europe/Berlin, start: 2024-01-01}
source:
  predictions: {path: landing/churn/predictions/*.parquet}
  actuals: {path: landing/churn/actuals/*.csv}
columns:
  prediction_id: id
  event_time: asked_at
  score: p_churn
  prediction: churns
  actual: churned
  dataset: split
  model_version: version
features:
  plan: {type: categorical}
  member: {type: boolean}
  age: {type: numeric, min: 0, max: 130, nullable: true}
  email: {type: categorical, pii: true}
  signed_up: {type: datetime}
  comment: {type: text}
slices: [plan, member, [plan, member], model_version]
"""


def mapping(**changes: Any) -> dict[str, Any]:
    """Return the values of a valid spec; a change named a__b sets the key b below a."""
    data: dict[str, Any] = {
        "model": "churn",
        "task": "binary_classification",
        "owners": ["team:growth"],
        "time": {"zone": "Europe/Berlin", "start": dt.date(2024, 1, 1)},
        "source": {
            "predictions": {"path": "landing/churn/predictions/*.parquet"},
            "actuals": {"path": "landing/churn/actuals/*.csv"},
        },
        "columns": {
            "prediction_id": "id",
            "event_time": "asked_at",
            "score": "p_churn",
            "prediction": "churns",
            "actual": "churned",
            "dataset": "split",
            "model_version": "version",
        },
        "features": {
            "plan": {"type": "categorical"},
            "member": {"type": "boolean"},
            "age": {"type": "numeric", "min": 0, "max": 130, "nullable": True},
            "email": {"type": "categorical", "pii": True},
            "signed_up": {"type": "datetime"},
            "comment": {"type": "text"},
        },
    }
    for name, value in changes.items():
        *folders, key = name.split("__")
        target = data
        for folder in folders:
            target = target.setdefault(folder, {})
        if value is REMOVED:
            del target[key]
        else:
            target[key] = value
    return data


REMOVED = object()


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate(mapping(**changes))


def time_spec(
    zone: str = "UTC", granularity: str = "day", start: str = "2024-01-01", **more: Any
) -> TimeSpec:
    return TimeSpec.model_validate(
        {"zone": zone, "granularity": granularity, "start": start, **more}
    )
