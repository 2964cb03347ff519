"""Drawn years are healthy before their fault, and what other rules say of them is counted."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.year_faults import FAULT_FROM, FAULTS, SIZES, STANDING, FaultyWorld, draw_faulty
from benchmarks.year_rivals import alarm_by_psi, alarm_by_spreads
from benchmarks.year_worlds import KINDS, YearWorld, draw_year


@pytest.mark.parametrize(
    "kind",
    ["seasons", *(pytest.param(k, marks=pytest.mark.proof) for k in KINDS if k != "seasons")],
)
def test_a_year_is_the_same_each_time_and_its_scores_mean_what_comes_true(kind: str) -> None:
    world, again = (YearWorld(draw_year(3, kind, 20)) for _ in range(2))
    rows = world.rows
    assert rows.equals(again.rows)
    assert rows["id"].is_unique
    rate, n = rows["label"].mean(), len(rows)
    assert abs(rows["score"].mean() - rate) < 5 * np.sqrt(rate / n) + 0.02
    landed = sum(len(world.events_at(look)) for look in range(-1, 20))
    assert landed == n
    assert len(world.labels_at(-1)) > 0


# A few in each run of the tests, all of them in the proofs.
FEW, MANY = list(FAULTS)[::6], [name for i, name in enumerate(FAULTS) if i % 6]


@pytest.mark.parametrize(
    "name", [*FEW, *(pytest.param(name, marks=pytest.mark.proof) for name in MANY)]
)
def test_a_fault_changes_no_row_before_it(name: str) -> None:
    seed = list(FAULTS).index(name) + len(FAULTS)
    knobs = draw_faulty(seed)
    assert (knobs.fault, knobs.size) == (name, SIZES[1])
    faulty, healthy = FaultyWorld(knobs).rows, YearWorld(knobs).rows
    first = FAULT_FROM - (STANDING if name == "beneath an alert" else 0)
    before, same = (rows[rows["window"] < first].set_index("id") for rows in (faulty, healthy))
    assert before.equals(same)
    assert len(faulty) != len(healthy) or not faulty.equals(healthy)


def test_the_usual_rules_see_what_is_gross_and_are_loud_in_a_season() -> None:
    gross = 2 * len(FAULTS)
    unit, empty = (
        FaultyWorld(draw_faulty(list(FAULTS).index(name) + gross))
        for name in ("another unit", "empty")
    )
    assert max(alarm_by_psi(unit)["amount"]) >= FAULT_FROM
    assert max(alarm_by_spreads(empty)["amount nulls"]) >= FAULT_FROM
    year = YearWorld(draw_year(0, "seasons", 200))
    assert alarm_by_psi(year)["temp"]
