"""Many models of which a few are ill, for what the first page shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.store.state.schema import window_state as windows_table
from tests.alerts.worlds import day, result
from tests.conftest import make_spec

DAYS = 40
NOW = day(DAYS + 2)
_FIELDS = ("churn", "fraud", "credit", "returns", "lead_score", "demand")
_PLACES = ("de", "fr", "es", "it", "pl", "nl", "se", "uk", "us", "br")
_OWNERS = ("team:growth", "team:risk", "team:pricing")


class Fault(NamedTuple):
    """What fails from a day on, and what its verdicts say."""

    family: str
    metric: str
    column: str
    severity: str
    day: int
    said: str


FAULTS: Mapping[str, Fault] = {
    "fraud_uk": Fault(
        "performance", "roc_auc", ":table", "ERROR", 36,
        "ROC AUC is .17 worse than usual; 95 % interval .13 to .21.",
    ),
    "churn_fr": Fault(
        "quality", "null_rate", "income", "ERROR", 39,
        "income is missing in 41 % of rows, before in 2 %.",
    ),
    "credit_us": Fault(
        "freshness", "no_data_for", ":table", "ERROR", 39,
        "No prediction for 29 hours; the limit is 26 hours.",
    ),
    "returns_it": Fault(
        "drift", "psi", "amount", "WARN", 34,
        "amount is 100 times as large as before in 10 % of rows, as if in another unit.",
    ),
    "demand_pl": Fault(
        "quality", "unseen_rate", "product", "WARN", 38,
        "product has a new value, basic-2024, in 18 % of rows.",
    ),
}  # fmt: skip


def declare_fleet(n: int = 60) -> list[ModelSpec]:
    """Return the models, in no particular order of how they are."""
    names = [f"{field}_{place}" for place in _PLACES for field in _FIELDS]
    return [
        make_spec(model=name, owners=[_OWNERS[i % len(_OWNERS)]])
        for i, name in enumerate(names[:n])
    ]


def fill(store: Store, specs: Sequence[ModelSpec], faults: Mapping[str, Fault] = FAULTS) -> None:
    """Store windows and verdicts of all models, and make the alerts of those that are ill."""
    rng = np.random.default_rng(7)
    for spec in specs:
        n = int(rng.integers(800, 90_000))
        with store.state.begin() as conn:
            windows = [Window(day(d), day(d + 1), "") for d in range(1, DAYS + 1)]
            window_state.mark_inputs(conn, spec, windows, NOW)
            mine = windows_table.c.model == spec.model
            counts = {"n": n, "n_actual": int(n * 0.93)}
            conn.execute(sa.update(windows_table).where(mine).values(counts))
        monitor_results.append(store.state, _judge(spec, faults.get(spec.model), rng))
    fold_results(store, specs, NOW)


def _judge(spec: ModelSpec, fault: Fault | None, rng: np.random.Generator) -> list[dict[str, Any]]:
    usual = {
        ("performance", "roc_auc", ":table"): (rng.uniform(0.72, 0.9), 0.008),
        ("service", "p95_latency_ms", ":table"): (48, 3),
        ("drift", "psi", "amount"): (0.01, 0.001),
    }
    if fault is not None:
        usual.setdefault(fault[:3], (0.02, 0.001))
    rows = []
    for d in range(1, DAYS + 1):
        for (family, metric, column), (mean, spread) in usual.items():
            row = result(
                d, "OK", family=family, metric=metric, column_name=column, model=spec.model,
                value=rng.normal(mean, spread), owner=spec.owners[0], k=2, of_n=3,
            )  # fmt: skip
            if fault is not None and d >= fault.day and (family, metric, column) == fault[:3]:
                row |= {"status": fault.severity, "message": fault.said, "excess": 1.0}
                row["value"] -= 0.17 if metric == "roc_auc" else 0.0
            rows.append(row)
    return rows
