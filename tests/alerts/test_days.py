"""Days as people live them: how many alerts and messages three lasting conditions make."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.alerts import episodes, live
from mlmon_dagster.monitors.evidence import excess
from mlmon_dagster.store import Store
from tests.alerts.worlds import result, spec_of

DAYS = 49
NOISE = np.random.default_rng(5)


def measured(day: int, value: float, limit: float, error: float | None, **changes: Any) -> Any:
    row = result(day, "WARN" if value > limit else "OK", value=value, **changes)
    return row | excess(value, limit, error)


def days() -> list[dict[str, Any]]:
    """A drop at its limit for 25 days, new values every Saturday, a feed down for two days."""
    rows = []
    for day in range(1, DAYS + 1):
        drop = 0.05 * (8 <= day <= 32) + NOISE.normal(0, 0.02)
        new, null = 0.02 * (day % 7 == 6), 1.0 * (day in (44, 45))
        auc = {"family": "performance", "metric": "roc_auc", "column_name": ":table"}
        rows.append(measured(day, drop, 0.05, 0.04, k=2, of_n=3, **auc))
        unseen = {"family": "quality", "metric": "unseen_rate", "column_name": "dest"}
        rows.append(measured(day, new, 0.01, 0.001, **unseen))
        for column in ("dewp", "temp", "visib", "wind"):
            missing = {"family": "quality", "metric": "null_rate", "column_name": column}
            rows.append(measured(day, null, 0.2, 0.01, **missing, threshold="above 0.20"))
    return rows


def test_a_lasting_condition_is_one_episode_and_few_messages(store: Store) -> None:
    kinds = live(store, spec_of(), days())
    told = [line.split() for line in episodes(store, "credit")]

    unseen = ["quality/unseen_rate/dest"] * 2
    monitors = sorted(line[3] if line[1] == "still" else line[2] for line in told)
    assert monitors == ["performance/roc_auc/:table", "quality/null_rate", *unseen]
    assert kinds["opened"] <= 4
    assert kinds.total() <= 20
