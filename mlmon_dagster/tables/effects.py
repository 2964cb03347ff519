"""The table of an effect: what a logged cause goes with in the outcome of some windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics import Floats
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import DeclaredEffect, effect_problems
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.sql import Row, quote_identifier
from mlmon_dagster.tables.asked import window_range
from mlmon_dagster.tables.rendering import render_text
from mlmon_dagster.tables.table import Answer, Column, Table
from mlmon_dagster.trace.effect import (
    ArmSums,
    Effect,
    Trial,
    WindowSums,
    arm_sums,
    describe_effect,
    describe_trial,
    effect_of,
    scale_of,
    trial_of,
    window_sums,
)

MOST_CELLS = 2_000
_TAIL = 0.01  # of the rows, whose share of the outcomes says how heavy the tail is
_FIFTHS = (0.2, 0.4, 0.6, 0.8)  # a covariate that is a number is cut at
_PLACES = tuple(np.linspace(0, 1, 1_001).tolist())  # quantiles that stand for a cause's values
_MISSING = "null"  # of a covariate is a value of its own


@dataclass(frozen=True)
class Association:
    """What a cause goes with in some windows.

    Attributes:
        effect: By the covariates; None where the cause of no two rows of a cell differs.
        trial: Of the experiment's arms; None if none is declared, or one has no rows.
        top: Share of the sum of outcomes that the largest hundredth of the rows holds; NaN if the
            sum is not positive.
    """

    effect: Effect | None
    trial: Trial | None
    top: float


def asked_of(
    spec: ModelSpec,
    cause: str | None = None,
    per: float | None = None,
    within: Sequence[str] | None = None,
    outcome: str | None = None,
) -> tuple[DeclaredEffect, ...]:
    """Return what the spec declares of a cause, as the question changes it.

    Args:
        spec: The model.
        cause: By default all that are declared, or ``latency_ms``.
        per: Units of the cause to speak of.
        within: Covariates, instead of those declared.
        outcome: Name of an outcome, or ``actual``; by default the first.

    Raises:
        ConfigError: If ``per`` is not above 0.
    """
    if per is not None and not per > 0:
        raise ConfigError(f"{per:g} units of a cause: more than 0, such as 100.")
    declared = [one for one in spec.effects if cause is None or one.cause == cause]
    columns = None if within is None else tuple(within)
    options = {"per": per, "within": columns, "outcome": outcome}
    given = {name: value for name, value in options.items() if value is not None}
    if not declared:
        declared = [DeclaredEffect(cause=cause) if cause else DeclaredEffect()]
    first = next(iter(spec.columns.outcomes), "")
    asked = (one.model_copy(update=given) for one in declared)
    return tuple(one.model_copy(update={"outcome": one.outcome or first}) for one in asked)


def effect_in(
    store: Store, spec: ModelSpec, windows: Sequence[Window], asked: DeclaredEffect
) -> Association:
    """Hold an outcome against a cause, window by window; one window is in memory at a time.

    Args:
        store: The store.
        spec: The model.
        windows: Which windows.
        asked: The cause, the outcome, covariates and the experiment.

    Raises:
        ConfigError: If the model does not log what is asked for, no row has an outcome, the cause
            is the same in all rows, or the covariates have too many joint values.
    """
    problems = [
        f"{'.'.join(map(str, path))}: {said}" for path, said in effect_problems(spec, asked)
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    source = store.inference_records(spec).from_sql(windows, [PRODUCTION])
    cause, outcome = quote_identifier(asked.cause), quote_identifier(asked.outcome)
    places = f"quantile_disc({cause}, [{', '.join(f'{place:.3f}' for place in _PLACES)}])"
    first = store.query(
        f"SELECT {places} AS cause, count({outcome}) AS n, sum({outcome}) AS total FROM {source} "
        f"WHERE {outcome} IS NOT NULL"
    ).to_pylist()[0]
    if not first["n"]:
        raise ConfigError(
            f"No prediction of {spec.model} has a known {asked.outcome} from {windows[0].key} to "
            f"{windows[-1].key}; it comes with the ground truth."
        )
    scale = scale_of(np.array(first["cause"] or [], np.float64))
    if scale is None:
        raise ConfigError(
            f"{asked.cause} is the same in all {first['n']:,} rows with an outcome, or missing: "
            "nothing can be held against it."
        )
    cell = _cell_of(store, source, spec, asked.within)
    found = store.query(
        f"SELECT DISTINCT {cell} AS cell FROM {source} WHERE {outcome} IS NOT NULL ORDER BY cell "
        f"LIMIT {MOST_CELLS + 1}"
    )
    cells = found.column("cell").to_pylist()
    if len(cells) > MOST_CELLS:
        raise ConfigError(
            f"{' and '.join(asked.within)} have more than {MOST_CELLS:,} joint values; compare "
            "within fewer columns, or coarser ones."
        )
    sums: list[WindowSums] = []
    arms: list[ArmSums] = []
    for window in windows:
        rows = _rows(store, spec, window, asked, cell)
        causes, outcomes = _floats(rows, "cause"), _floats(rows, "outcome")
        codes = pd.Categorical(rows.column("cell").to_pandas(), categories=cells).codes
        sums.append(window_sums(causes, outcomes, codes, len(cells), scale))
        if asked.experiment is not None:
            arm = pd.Categorical(rows.column("arm").to_pandas(), categories=_arms(asked)).codes
            arms.append(arm_sums(causes, outcomes, arm))
    trial = trial_of(arms, asked.experiment.share) if asked.experiment is not None else None
    return Association(effect_of(sums, scale), trial, _top(store, source, outcome, first))


def _arms(asked: DeclaredEffect) -> list[str]:
    arm = asked.experiment
    return [] if arm is None else [arm.control, arm.treatment]


def _cell_of(store: Store, source: str, spec: ModelSpec, within: Sequence[str]) -> str:
    """Return SQL of a text that names the joint value of the covariates; numbers by their fifth."""
    parts = []
    for name in within:
        column = quote_identifier(name)
        text = f"CAST({column} AS VARCHAR)"
        if spec.features[name].type == "numeric":
            fifths = ", ".join(map(str, _FIFTHS))
            ends = store.query(f"SELECT quantile_disc({column}, [{fifths}]) AS ends FROM {source}")
            above = [f"CAST({column} > {end!r} AS INTEGER)" for end in _ends(ends)]
            text = f"CAST({' + '.join(above) or 0} AS VARCHAR)"
        parts.append(f"CASE WHEN {column} IS NULL THEN '{_MISSING}' ELSE {text} END")
    return f"concat_ws(' / ', {', '.join(parts)})" if parts else "''"


def _ends(found: pa.Table) -> list[float]:
    return sorted({float(end) for end in found.column("ends")[0].as_py() or []})


def _rows(
    store: Store, spec: ModelSpec, window: Window, asked: DeclaredEffect, cell: str
) -> pa.Table:
    arm = asked.experiment
    named = "NULL" if arm is None else f"CAST({quote_identifier(arm.column)} AS VARCHAR)"
    return store.query(
        f"SELECT {quote_identifier(asked.cause)} AS cause, {quote_identifier(asked.outcome)} AS "
        f"outcome, {cell} AS cell, {named} AS arm "
        f"FROM {store.inference_records(spec).from_sql([window], [PRODUCTION])}"
    )


def _floats(rows: pa.Table, name: str) -> Floats:
    found: Floats = rows.column(name).to_pandas().to_numpy(np.float64, na_value=np.nan)
    return found


def _top(store: Store, source: str, outcome: str, first: Row) -> float:
    """Return the share of all outcomes that the largest hundredth of the rows holds."""
    if first["total"] <= 0:
        return float("nan")
    size = max(1, round(first["n"] * _TAIL))
    largest = (
        f"SELECT {outcome} AS y FROM {source} WHERE {outcome} IS NOT NULL "
        f"ORDER BY y DESC LIMIT {size}"
    )
    total = store.query(f"SELECT sum(y) AS y FROM ({largest})").column("y")[0].as_py()
    return float(total / first["total"])


def tell(spec: ModelSpec, asked: DeclaredEffect, answer: Association) -> list[str]:
    """Say in sentences what was found; the surest first.

    Args:
        spec: The model.
        asked: What was asked for.
        answer: What was found.
    """
    is_latency = asked.cause == "latency_ms"
    outcome = spec.columns.outcomes.get(asked.outcome)
    is_better_high = outcome is not None and outcome.better == "higher"
    feature = spec.features.get(asked.cause)
    names = {
        "cause": asked.cause,
        "unit": "ms" if is_latency else (feature.unit or "" if feature else ""),
        "outcome": spec.columns.declared()[asked.outcome],
        # An actual has no good direction, and of a cost slow requests may well bring more.
        "more_is": "worse" if is_latency and is_better_high else "",
    }
    lines = []
    if asked.experiment is not None:
        if answer.trial is None:
            lines.append(
                f"No row with an outcome is of arm {asked.experiment.control!r}, or none of "
                f"{asked.experiment.treatment!r}, in {asked.experiment.column}."
            )
        else:
            lines += describe_trial(answer.trial, names, asked.per, asked.experiment)
    if answer.effect is None:
        lines.append(
            f"{asked.cause} is the same for all rows of the same "
            f"{' and '.join([*asked.within, 'window'])}: nothing to compare."
        )
    else:
        lines += describe_effect(answer.effect, names, asked.per, asked.within)
    if answer.top > 0.2:
        lines.append(
            f"The largest hundredth of the rows holds {answer.top:.0%} of all {names['outcome']}: "
            "a few rows decide, and intervals need many windows."
        )
    return lines


@dataclass(frozen=True)
class CauseRange:
    """A range of a cause, and the outcome that goes with it.

    Attributes:
        cause: Which cause.
        low, high: Where the range begins and ends; None where it is open.
        n: Rows.
        mean: Their mean outcome.
        adjusted, lower, upper: The mean that the range would have with all rows' covariates, and
            its 95 % interval; NaN where it has too little of their mix.
    """

    cause: str
    low: float | None
    high: float | None
    n: int
    mean: float
    adjusted: float
    lower: float
    upper: float


def _name_range(row: CauseRange) -> str:
    if row.low is None:
        return "all" if row.high is None else f"under {row.high:.3g}"
    return f"{row.low:.3g} and more" if row.high is None else f"{row.low:.3g} to {row.high:.3g}"


def effect_table(cause: str) -> Table[CauseRange]:
    """Return the table of the ranges of a cause."""
    return Table(
        "effect",
        (
            Column(cause, _name_range),
            Column("rows", "n", "{:,}", is_number=True),
            Column("mean", "mean", "{:.3g}", is_number=True),
            Column("adjusted", "adjusted", "{:.3g}", is_number=True),
            Column("from", "lower", "{:.3g}", is_number=True),
            Column("to", "upper", "{:.3g}", is_number=True),
        ),
    )


def ask_effects(
    store: Store, spec: ModelSpec, windows: Sequence[Window], asked: Sequence[DeclaredEffect]
) -> Answer[CauseRange]:
    """Return what some causes go with, in sentences and by their ranges."""
    texts, rows = [f"{spec.model}, {window_range(windows)}."], list[CauseRange]()
    for one in asked:
        answer = effect_in(store, spec, windows, one)
        texts += ["", *tell(spec, one, answer)]
        if answer.effect is not None:
            ranges = _list_ranges(one.cause, answer.effect.ranges)
            texts.append(render_text(Answer(effect_table(one.cause), ranges)))
            rows += ranges
    return Answer(effect_table("cause"), rows, text="\n".join(texts))


def _list_ranges(cause: str, ranges: pd.DataFrame) -> list[CauseRange]:
    last = len(ranges) - 1
    return [
        CauseRange(
            cause, row["low"] if place else None, row["high"] if place < last else None,
            row["n"], row["mean"], row["adjusted"], row["lower"], row["upper"],
        )
        for place, row in enumerate(ranges.to_dict("records"))
    ]  # fmt: skip
