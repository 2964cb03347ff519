"""The table of budgets: what is left of those that objectives leave, and who spent them."""

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
from mlmon_dagster.tables.asked import window_range
from mlmon_dagster.tables.rendering import render_text
from mlmon_dagster.tables.table import Answer, Column, Table

_BETWEEN = " x "  # values of a slice over several columns
_MOST = 5  # values of a slice that people are shown


@dataclass(frozen=True)
class Spender:
    """What the requests of a slice, or all of them, spent of the budget of an objective.

    Attributes:
        objective: Its name.
        slice_key, slice_value: Which slice; ``all`` for everything.
        requests: How many came.
        bad: How many of them were not good.
        of_budget: Share of the whole budget that they spent; None where there is no budget.
        times_its_share: Share of all that was not good over share of all requests.
    """

    objective: str
    slice_key: str
    slice_value: str
    requests: int
    bad: int
    of_budget: float | None
    times_its_share: float | None


BUDGETS: Table[Spender] = Table(
    "budgets",
    (
        Column("who", lambda row: f"{row.slice_key}{row.slice_value}"),
        Column("requests", "requests", "{:,}", is_number=True),
        Column("not good", "bad", "{:,}", is_number=True),
        Column("rate", lambda row: row.bad / row.requests, "{:.3%}", is_number=True),
        Column("of the budget", "of_budget", "{:.1%}", is_number=True),
        Column("times its share", "times_its_share", "{:.2g}", is_number=True),
    ),
)


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


def ask_budgets(
    store: Store, spec: ModelSpec, known: Sequence[Window], *, is_given: bool
) -> Answer[Spender]:
    """Return who spent the budget of every objective of a model.

    Args:
        store: The store.
        spec: The model.
        known: Windows that are over.
        is_given: Whether they are the period; else it is each objective's own time at their end.

    Returns:
        Every spender; exit code 1 if a budget is overspent.
    """
    texts, rows, is_overspent = [], [], False
    for objective in spec.monitors.service.objectives:
        since = known[0].start if is_given else known[-1].end - objective.over
        windows = tuple(window for window in known if window.start >= since)
        spent = spent_in(store, spec, windows, objective)
        is_overspent |= spent.left < 0
        texts.append(f"{spec.model}, {window_range(windows)}: {_describe(spent)}")
        if spent.bad:
            texts.append(render_text(Answer(BUDGETS, _list_worst(spent))))
        rows += [_spender(spent, "all", "all", spent.n, spent.bad)]
        rows += [
            _spender(spent, row["key"], row["value"], row["n"], row["bad"])
            for row in spent.by.to_dict("records")
        ]
    return Answer(BUDGETS, rows, text="\n".join(texts), exit_code=1 if is_overspent else 0)


def _spender(spent: Spent, key: str, value: str, n: int, bad: int) -> Spender:
    allowed = spent.n * (1 - spent.objective.target)
    return Spender(
        spent.objective.name, key, value, n, bad, bad / allowed if allowed else None,
        bad / spent.bad / (n / spent.n) if spent.bad and n else None,
    )  # fmt: skip


def _list_worst(spent: Spent) -> list[Spender]:
    """Return the values of each slice that spent most, and what is left of it as one."""
    found = []
    for key, rows in spent.by.groupby("key", sort=False):
        rest = rows.iloc[_MOST:]
        found += [
            _spender(spent, str(key), f"={row['value']}", row["n"], row["bad"])
            for row in rows.head(_MOST).to_dict("records")
        ]
        if len(rest):
            n, bad = int(rest["n"].sum()), int(rest["bad"].sum())
            found.append(_spender(spent, str(key), f": {len(rest)} more", n, bad))
    return found


def _describe(spent: Spent) -> str:
    objective = spent.objective
    promise = f"{objective.name}, {objective.target:.6g} of the requests: {objective.good}."
    if not spent.n:
        return f"{promise} No request came."
    allowed = spent.n * (1 - objective.target)
    left = f"{spent.left:.1%} is left" if spent.left >= 0 else f"spent {1 - spent.left:.3g} times"
    return (
        f"{promise} {spent.bad:,} of {spent.n:,} were not good, {allowed:,.3g} may be: "
        f"of the budget {left}."
    )
