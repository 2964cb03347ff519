"""How late a model's ground truth comes: learnt from its windows, stored once, read by every step.

It is learnt whenever records were rebuilt, and when freshness looks: time passes without new rows.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.spec import ModelSpec, first_window
from mlmon_dagster.spec.baseline import GRAINS
from mlmon_dagster.spec.declaration import SHORTEST_CLOSING
from mlmon_dagster.spec.scalars import format_duration
from mlmon_dagster.spec.windows import EarlyAge, TruthTiming, age_unit, due_age, truth_slack
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.window_state import StoredArrivals

if TYPE_CHECKING:
    from mlmon_dagster.metrics.late_truth.arrivals import Arrivals, TruthRecord

NEWEST, NEWEST_HOURS = 120, 720  # windows at each age that a curve is learnt from
_IN_LINE = 0.8  # of the usual share, from which a window's ground truth is not late
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def learn_timing(engine: sa.Engine, spec: ModelSpec, now: dt.datetime) -> None:
    """Learn how late ground truth comes from what is stored, and store it."""
    if not spec.has_actuals:
        return
    from mlmon_dagster.metrics.late_truth.arrivals import encode_arrivals

    found, timing = _learn(engine, spec, now)
    curves = encode_arrivals(found)
    known = window_state.timing_of(engine, spec.model)
    if curves != window_state.load_curves(engine, spec.model) or timing.early != known.early:
        window_state.save_timing(engine, spec.model, timing, curves, now)


def load_arrivals(engine: sa.Engine, spec: ModelSpec) -> Arrivals | None:
    """Return what was learnt of a model's ground truth; None if nothing was."""
    from mlmon_dagster.metrics.late_truth.arrivals import decode_arrivals

    stored = window_state.load_curves(engine, spec.model)
    return None if stored is None else decode_arrivals(stored)


def describe_arrivals(engine: sa.Engine, spec: ModelSpec) -> str:
    """Say in one line how late a model's ground truth comes, for people."""
    arrivals = load_arrivals(engine, spec)
    curve = None if arrivals is None else arrivals.whole
    note = f" {arrivals.note}" if arrivals is not None and arrivals.note else ""
    if arrivals is None or curve is None:
        return f"how late it comes is not known yet.{note}"
    unit = "h" if curve.unit_hours == 1 else "d"
    due = due_age(spec, timing_from(arrivals, spec))
    early = window_state.timing_of(engine, spec.model).early
    sooner = f", early from {early[0].age} {unit} on" if early else ""
    of = "its own times" if curve is arrivals.prior else "when it came"
    learnt, reason = f" (learnt from {of} in {max(curve.n_windows)} windows)", ""
    if (declared := spec.actuals.expected_within) is not None:
        slack = format_duration(truth_slack(spec))
        reason = f": expected_within is {format_duration(declared)}, and rows may be {slack} late"
    return (
        f"half of it within {curve.median:g} {unit}, 95 % within {curve.late:g} {unit}; "
        f"{(curve.plateau or 0) * 100:.0f} % of predictions get it{learnt if reason else ''}; "
        f"judged at {'-' if due is None else format_duration(due)}{sooner}{reason or learnt}.{note}"
    )


def timing_from(arrivals: Arrivals, spec: ModelSpec) -> TruthTiming:
    """Return what maturity goes by: the curve that was seen to its end, if there is one."""
    curve = arrivals.whole
    if curve is None or curve.due is None or curve.plateau is None or curve.longest is None:
        return TruthTiming()
    unit = dt.timedelta(hours=curve.unit_hours)
    due = curve.due * unit
    if curve is arrivals.prior:  # its times are not those at which this store gets it
        due += truth_slack(spec)
    closes = max(SHORTEST_CLOSING, 2 * curve.longest * unit)
    return TruthTiming(due, _IN_LINE * curve.plateau, closes)


def _learn(engine: sa.Engine, spec: ModelSpec, now: dt.datetime) -> tuple[Arrivals, TruthTiming]:
    from mlmon_dagster.metrics.late_truth.arrivals import is_lived, learn_arrivals

    first = first_window(spec.time).start
    unit = age_unit(spec.time)
    most = NEWEST_HOURS if spec.time.granularity == "hour" else NEWEST
    lived = window_state.load_arrivals(engine, spec.model, now, first, 2 * most)
    older = window_state.load_arrivals(engine, spec.model, first, None, most)
    patience = max(spec.time.allowed_lateness, 2 * GRAINS[spec.time.granularity])
    records, moment = _records(lived, unit), (now - _EPOCH) / unit
    arrivals = learn_arrivals(
        records,
        _records(older, unit),
        moment,
        unit.total_seconds() / 3600,
        patience=patience / unit,
        newest=most,
        n_classes=_n_classes(spec),
    )
    timing = timing_from(arrivals, spec)
    watched = [record for record in records if is_lived(record, patience / unit)]
    return arrivals, replace(timing, early=_early_ages(watched, spec, timing, moment, most))


def _n_classes(spec: ModelSpec) -> int:
    return 2 if spec.task == "binary_classification" else 0


def _early_ages(
    watched: Sequence[TruthRecord], spec: ModelSpec, timing: TruthTiming, now: float, newest: int
) -> tuple[EarlyAge, ...]:
    """Return the ages at which windows may be judged before they are due."""
    due = due_age(spec, timing)
    if due is None or timing.due is None:
        return ()
    from mlmon_dagster.metrics.late_truth.early_truth import find_early_ages

    return find_early_ages(
        watched,
        now,
        max(due, timing.due) / age_unit(spec.time),
        least_share=timing.least_share,
        newest=newest,
        n_classes=_n_classes(spec),
        min_rows=spec.actuals.min_rows,
    )


def _records(stored: Sequence[StoredArrivals], unit: dt.timedelta) -> list[TruthRecord]:
    from mlmon_dagster.metrics.late_truth.arrivals import TruthRecord

    found = []
    for row in stored:
        content = json.loads(row.arrivals)
        end = (row.window_end - _EPOCH) / unit
        seen = end if row.first_input_at is None else (row.first_input_at - _EPOCH) / unit
        found.append(
            TruthRecord(
                end,
                seen,
                content["n"],
                _by_class(content["arrived"]),
                _by_class(content["known"]),
                content.get("future", 0),
                content.get("early", 0),
                _bands(content["arrived"]),
            )
        )
    return found


def _by_class(stored: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, dict[int, int]]:
    return {
        name: {int(age): sum(map(int, counts)) for age, *counts in ages}
        for name, ages in stored.items()
    }


def _bands(stored: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, dict[int, list[int]]]:
    return {
        name: {age: counts for age, *counts in ages}
        for name, ages in stored.items()
        if any(len(row) > 2 for row in ages)
    }
