"""What is left of the budgets that objectives leave, and who spent them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mlmon_dagster.families.requests import count_bad
from mlmon_dagster.metrics.objectives import budget_left
from mlmon_dagster.profiles.compiler import NULL_SLICE
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.monitors import Objective
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.sql import quote_identifier

_BETWEEN = " x "  # values of a slice over several columns


@dataclass(frozen=True)
class Spent:
    """What requests of some windows did to the budget of an objective.

    Attributes:
        objective: The objective.
        n: Requests. bad: Of them not good. left: Share of the budget that is left, see
            `budget_left`.
        by: One row per slice and version: ``key``, ``value``, ``n``, ``bad`` and ``spent``, the
            share of the whole budget that its bad requests spent; the values of each key add up to
            what is spent. The largest first within a key.
    """

    objective: Objective
    n: int
    bad: int
    left: float
    by: pd.DataFrame


def spent_in(
    store: Store, spec: ModelSpec, windows: Sequence[Window], objective: Objective
) -> Spent:
    """Say what is left of an objective's budget, and split what is spent by slices and versions.

    Args:
        store: The store.
        spec: The model.
        windows: The period that the budget is of.
        objective: Of the spec.
    """
    keys = [*spec.slices]
    if spec.has_versions and ("model_version",) not in keys:
        keys.append(("model_version",))
    source = store.inference_records(spec).from_sql(windows, [PRODUCTION])
    counted = f"count(*) AS n, {count_bad(spec, objective)} AS bad"
    [whole] = store.query(f"SELECT {counted} FROM {source}").to_pylist()
    allowed = whole["n"] * (1 - objective.target)
    parts = [
        store.query(
            f"SELECT {_value_of(key)} AS value, {counted} FROM {source} GROUP BY 1 "
            "ORDER BY bad DESC, n DESC, value"
        )
        .to_pandas()
        .assign(key=_BETWEEN.join(key))
        for key in keys
    ]
    names = ["key", "value", "n", "bad"]
    by = pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)
    by["spent"] = by["bad"] / allowed if allowed else float("nan")
    return Spent(
        objective, whole["n"], whole["bad"],
        budget_left(whole["n"], whole["bad"], objective.target), by,
    )  # fmt: skip


def _value_of(key: Sequence[str]) -> str:
    parts = [f"coalesce(CAST({quote_identifier(name)} AS VARCHAR), '{NULL_SLICE}')" for name in key]
    return f"concat_ws('{_BETWEEN}', {', '.join(parts)})"
