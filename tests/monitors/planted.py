"""A shop's model, its ordinary days, and a day on which something is planted, judged for real.

Rows are profiled, measured and judged by the code that production runs; only the store is missing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.families.drift import ColumnChanges
from mlmon_dagster.families.newest_windows import SustainedShifts
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.metrics.statistics import ColumnStatistics, of_all
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.monitors import SUSTAINED_WINDOWS
from tests.monitors.cases import evaluate
from tests.profiles.records import DuckEngine

Rows = pd.DataFrame
Fault = Callable[[Rows, np.random.Generator], Rows]

ROWS, DAYS = 2_000, 30
FIRST = pd.Timestamp("2024-01-01", tz="UTC")
DAY = FIRST + pd.Timedelta(days=60)
NOW = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
STATES = ("NY", "CA", "TX", "FL", "WA")
PORTS = ("AMS", "BCN", "CDG", "DUB", "FCO", "HAM", "LIS", "OSL")
FEATURES: dict[str, dict[str, Any]] = {
    "amount": {"type": "numeric", "pii": False, "unit": "EUR"},
    "balance": {"type": "numeric", "pii": False},
    "length": {"type": "numeric", "pii": False, "unit": "in"},
    "temp": {"type": "numeric", "pii": False, "unit": "°C", "min": -60, "max": 60},
    "weight": {"type": "numeric", "unit": "kg"},
    "width": {"type": "numeric", "pii": False, "unit": "cm"},
    "height": {"type": "numeric", "pii": False, "unit": "cm"},
    "stock": {"type": "numeric", "pii": False},
    "hour": {"type": "numeric", "pii": False},
    "visits": {"type": "numeric", "pii": False},
    "fee": {"type": "numeric", "pii": False, "unit": "EUR"},
    "age": {"type": "numeric", "pii": True, "unit": "years"},
    "channel": {"type": "categorical", "pii": False},
    "product": {"type": "categorical", "pii": False},
    "state": {"type": "categorical", "pii": False},
    "origin": {"type": "categorical", "pii": False},
    "target": {"type": "categorical", "pii": False},
    "city": {"type": "categorical"},
    "customer": {"type": "categorical"},
    "is_member": {"type": "boolean"},
    "signed_up": {"type": "datetime"},
    "comment": {"type": "text"},
}


def make_model(**changes: Any) -> ModelSpec:
    """Return the spec of a binary model with a feature of every kind."""
    return spec_from_mapping(
        {
            "model": "shop",
            "task": "binary_classification",
            "owners": ["team:shop"],
            "time": {"start": "2024-02-01"},
            "source": {
                "predictions": {"path": "landing/predictions/*.parquet"},
                "actuals": {"path": "landing/actuals/*.parquet"},
            },
            "columns": {
                "prediction_id": "id", "event_time": "at", "score": "score",
                "prediction": "decision", "actual": "bought", "dataset": "dataset",
                "model_version": "version", "latency_ms": "latency_ms", "status": "status",
                "outcomes": {"revenue": "revenue"},
            },
            "features": {name: {"nullable": True, **made} for name, made in FEATURES.items()},
            "slices": ["channel"],
            **changes,
        }
    )  # fmt: skip


MODEL = make_model(
    monitors={
        "performance": [
            {"metric": "roc_auc", "drop": 0.05, "slices": True},
            {"metric": "specificity", "drop": 0.05},
            {"metric": "calibration_gap", "shift": 0.03},
        ],
        "business": [{"metric": "mean_outcome", "outcome": "revenue", "change": 0.2}],
        "service": {"p95_latency_ms": {"above": 500}, "error_rate": {"above": 0.02}},
    }
)


def draw(rng: np.random.Generator, n: int = ROWS) -> Rows:
    """Draw the rows of an ordinary day."""
    logit = rng.normal(-1, 1.3, n)
    score = 1 / (1 + np.exp(-logit))
    hours = np.array([0, 0, 0, 0, 0, 0, 1, 3, 9, 14, 9, 4, 3, 9, 14, 8, 4, 3, 9, 14, 8, 3, 1, 0])
    customers = rng.integers(0, 400, n).astype(str)
    [own] = rng.spawn(1)
    return pd.DataFrame(
        {
            "model_version": "1",
            "score": score,
            "actual": (rng.random(n) < score).astype(int),
            "latency_ms": np.exp(rng.normal(4.5, 0.4, n)),
            "status": np.where(rng.random(n) < 0.003, "error", "ok"),
            "revenue": rng.gamma(2, 20, n),
            "amount": np.exp(rng.normal(3.7, 0.75, n)),
            "balance": rng.normal(500, 180, n),
            "length": rng.normal(67, 4, n),
            "temp": rng.normal(15, 8, n),
            "weight": rng.gamma(4, 3, n),
            "width": rng.normal(60, 9, n),
            "height": rng.normal(85, 12, n),
            "stock": rng.poisson(1.1, n).astype(float),
            "hour": rng.choice(24, n, p=hours / hours.sum()).astype(float),
            "age": rng.normal(40, 11, n),
            "channel": rng.choice(["web", "app", "shop", "promo"], n, p=[0.5, 0.3, 0.15, 0.05]),
            "product": rng.choice([f"item {i}" for i in "ABCDEFGHIJ"], n,
                                  p=[0.18, 0.15, 0.13, 0.12, 0.1, 0.09, 0.08, 0.07, 0.05, 0.03]),
            "state": rng.choice(STATES, n, p=[0.3, 0.25, 0.2, 0.15, 0.1]),
            "origin": rng.choice(PORTS, n, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05]),
            "target": rng.choice(PORTS, n, p=[0.05, 0.05, 0.05, 0.1, 0.1, 0.15, 0.2, 0.3]),
            "city": rng.choice(["Aachen", "Bonn", "Celle", "Dessau"], n, p=[0.4, 0.3, 0.2, 0.1]),
            "customer": np.where(rng.random(n) < 0.02, rng.integers(10**6, 10**9, n).astype(str),
                                 customers),
            "is_member": rng.random(n) < 0.4,
            "signed_up": rng.gamma(2, 20, n),  # days ago, turned into times in `_records`
            "comment": rng.poisson(30, n),
            "visits": np.where(own.random(n) < 0.47, 0.0, np.ceil(own.lognormal(2, 1, n))),
            "fee": np.where(own.random(n) < 0.93, 0.0, own.lognormal(2, 0.8, n).round(2)),
        }
    )  # fmt: skip


def _records(days: Mapping[pd.Timestamp, Rows], dataset: str) -> pa.Table:
    """Turn the rows of days into inference records."""
    parts = []
    for day, rows in days.items():
        at = day + pd.to_timedelta(np.arange(len(rows)) * 86_400 / max(len(rows), 1), unit="s")
        parts.append(rows.assign(window_start=day, window_date=f"{day:%Y-%m-%d}", event_time=at))
    frame = pd.concat(parts, ignore_index=True)
    numeric = [name for name, made in FEATURES.items() if made["type"] == "numeric"]
    frame[numeric] = frame[numeric].astype("float64")
    frame["prediction"] = frame.get("prediction", (frame["score"] > 0.5).astype(int))
    frame["prediction"] = frame["prediction"].astype("Int64")
    frame["actual"] = frame["actual"].astype("Int64")
    frame["signed_up"] = frame["event_time"] - pd.to_timedelta(frame["signed_up"], unit="D")
    frame["comment"] = ["x" * int(k) for k in frame["comment"]]
    frame["dataset"], frame["nonfinite"] = dataset, [[] for _ in range(len(frame))]
    table = pa.Table.from_pandas(frame, preserve_index=False)
    i = table.schema.get_field_index("nonfinite")
    return table.set_column(i, "nonfinite", pa.array([[]] * len(frame), pa.list_(pa.string())))


@dataclass(frozen=True)
class World:
    """The baseline of the shop, profiled."""

    spec: ModelSpec
    binnings: Mapping[str, Any]
    windows: dict[str, ColumnStatistics]
    dataset: str = "training"

    def profile(self, days: Mapping[pd.Timestamp, Rows]) -> dict[str, ColumnStatistics]:
        """Profile the rows of days of production."""
        engine = DuckEngine(records=_records(days, "production"))
        return build_profiles(engine, self.spec, "records", self.binnings)

    def judge(self, days: Mapping[pd.Timestamp, Rows], *families: str) -> list[Mapping[str, Any]]:
        """Judge days of production."""
        spec, baseline = self.spec, self.windows
        found = self.profile(days)
        windows = [
            {
                "window_start": day, "window_end": day + pd.Timedelta(days=1), "n": len(rows),
                "n_actual": len(rows), "maturity": "mature", "data_version": "v1",
            }
            for day, rows in days.items()
        ]  # fmt: skip
        whole = of_all(found)
        comparison = SimpleNamespace(
            work=SimpleNamespace(spec=spec),
            part=SimpleNamespace(
                whole=lambda names: {name: whole[name] for name in names},
                work=SimpleNamespace(spec=spec),
                in_force=SimpleNamespace(baseline_id=None, own=self),
            ),
            baseline=self,
        )
        compared = {day.to_pydatetime(): cast("Any", self) for day in days}
        changes = ColumnChanges(lambda: whole, lambda _: compared)
        rows: list[Mapping[str, Any]] = []
        for family in families:
            references: dict[str, Any] = {"changes": changes}
            if len(days) <= SUSTAINED_WINDOWS[-1]:
                references["sustained"] = SustainedShifts(
                    spec, lambda start: (whole, max(days).to_pydatetime()), compared.get
                )
            if family != "drift":  # it asks a store for its baseline
                references = JUDGED_BY[family].references(cast("Any", comparison))
            rows += evaluate(
                spec, measure(spec, family, found, baseline), windows, families=[family], now=NOW,
                run_id="r", is_backfill=False, **references,
            )  # fmt: skip
        return rows


@cache
def world() -> World:
    """Draw and profile the baseline, once."""
    rng = np.random.default_rng(20240101)
    days = {FIRST + pd.Timedelta(days=i): draw(rng, ROWS // 4) for i in range(DAYS)}
    records = _records(days, "training")
    engine = DuckEngine(records=records)
    binnings = fit_binnings(engine, MODEL, "records")
    return World(MODEL, binnings, build_profiles(engine, MODEL, "records", binnings))
