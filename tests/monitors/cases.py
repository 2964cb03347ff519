"""Metric rows, windows and specs for the monitors' tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.metrics.frames import METRIC_COLUMNS
from mlmon_dagster.monitors.evidence import Evidence, fill_windows
from mlmon_dagster.spec import ModelSpec
from tests.conftest import make_spec

NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAY = pd.Timestamp("2024-01-10", tz="UTC")
FEATURES = {
    "age": {"type": "numeric", "min": 0, "nullable": True},
    "region": {"type": "categorical", "pii": False, "nullable": True},
    "city": {"type": "categorical"},
    "name": {"type": "categorical", "pii": True},
    "signed_up": {"type": "datetime"},
}


def spec(**monitors: Any) -> ModelSpec:
    return make_spec(features=FEATURES, monitors=monitors)


def metric(name: str, value: float | None, column: str = ":table", **fields: Any) -> dict[str, Any]:
    """One metric row of the day DAY at slice all."""
    row: dict[str, Any] = {
        "window_start": DAY, "dataset": "production", "model_version": "all",
        "slice_key": "all", "slice_value": "all", "column_name": column, "metric": name,
        "value": value, "lower": None, "upper": None, "n": 1000, "n_baseline": 5000,
        "p_value": None, "by_chance": None, "reason": "", "method_version": f"{name}-1",
    }  # fmt: skip
    return row | fields


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    floats = dict.fromkeys(("value", "lower", "upper", "p_value", "by_chance"), float)
    return pd.DataFrame(list(rows), columns=list(METRIC_COLUMNS)).astype(floats)


def window(day: pd.Timestamp = DAY, **fields: Any) -> dict[str, Any]:
    """One complete, mature window of 1,000 predictions."""
    row: dict[str, Any] = {
        "window_start": day, "window_end": day + pd.Timedelta(days=1), "n": 1000,
        "n_actual": 1000, "maturity": "mature", "data_version": "v1", "n_bad": 0,
    }  # fmt: skip
    return row | fields


def evaluate(
    model: ModelSpec,
    metrics: pd.DataFrame,
    windows: Sequence[Mapping[str, Any]],
    *,
    families: Iterable[str] = JUDGED_BY,
    **known: Any,
) -> list[Any]:
    """Judge windows by families, with what else `Evidence` knows."""
    filled = fill_windows(windows)
    return [
        row
        for family in families
        for row in JUDGED_BY[family].judge(Evidence(family, model, filled, metrics, **known))
    ]


def verdicts(
    family: str,
    rows: Sequence[Mapping[str, Any]],
    windows: Sequence[Mapping[str, Any]] | None = None,
    *,
    model: ModelSpec | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Judge one family; by default the one window DAY of a model with default monitors."""
    return evaluate(
        model or spec(),
        frame(rows),
        [window()] if windows is None else windows,
        families=[family],
        **({"now": NOW, "run_id": "r", "is_backfill": False} | options),
    )


def only(rows: list[dict[str, Any]], monitor: str) -> dict[str, Any]:
    """The one row of a monitor at slice all."""
    found = [row for row in rows if row["monitor"] == monitor and row["slice_key"] == "all"]
    assert len(found) == 1, [row["monitor"] for row in rows]
    return found[0]
