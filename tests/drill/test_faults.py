"""The faults and the search for the smallest size that is noticed, without any model."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.drill.drill import smallest
from mlmon_dagster.drill.faults import FAULTS, SHARES, Facts, Fault, inject
from mlmon_dagster.drill.trial import Notice, Probe, notice, starts_of
from mlmon_dagster.spec import Window

BY_NAME = {fault.name: fault for fault in FAULTS}
NUMBERS = Facts(middle=5.0, sd=2.0, outside=99.0, unit=("", 10.0, 1.0))
CODES = Facts(middle="a", codes=("a", "b"))
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
WINDOWS = [Window(START + i * DAY, START + (i + 1) * DAY, str(i)) for i in range(14)]


@pytest.mark.parametrize(
    ("name", "facts", "size", "values", "expected"),
    [
        ("nulls", NUMBERS, 0.5, [1.0, 2.0], [np.nan, 2.0]),
        ("nulls", CODES, 1.0, ["a", "b"], [None, None]),
        ("out_of_range", NUMBERS, 0.5, [1.0, 2.0], [99.0, 2.0]),
        ("unseen", CODES, 0.5, ["a", "b"], ["(never seen)", "b"]),
        ("shift", NUMBERS, 0.5, [1.0, np.nan], [2.0, np.nan]),
        ("shift", NUMBERS, -0.5, [1.0, 2.0], [0.0, 1.0]),
        ("unit", NUMBERS, 1.0, [1.0, 2.0], [11.0, 21.0]),
        ("swap", CODES, 1.0, ["a", "b"], ["b", "a"]),
        ("swap", CODES, 1.0, ["c", None], ["c", None]),
        ("stuck", NUMBERS, 1.0, [1.0, np.nan], [5.0, np.nan]),
        ("label_flip", Facts(classes=(0.0, 1.0)), 1.0, [1.0, np.nan], [0.0, np.nan]),
        ("label_flip", Facts(classes=("x", "y", "z")), 0.5, ["z", "y"], ["x", "y"]),
        ("latency", Facts(), 3.0, [10.0, 20.0], [30.0, 60.0]),
        ("errors", Facts(), 0.5, ["ok", "ok"], ["error", "ok"]),
    ],
)
def test_a_fault_changes_the_rows_it_hits_and_no_others(
    name: str, facts: Facts, size: float, values: list[Any], expected: list[Any]
) -> None:
    before = pd.Series(values)
    kept = before.copy()
    found = inject(before, BY_NAME[name], facts, size, np.array([0.2, 0.7]))

    assert [None if pd.isna(v) else v for v in found] == [
        None if pd.isna(v) else v for v in expected
    ]
    pd.testing.assert_series_equal(before, kept)


def test_the_truth_of_a_regression_goes_to_another_row() -> None:
    truth = pd.Series([1.0, 2.0, np.nan, 3.0])
    found = inject(truth, BY_NAME["label_flip"], Facts(), 1.0, np.zeros(4))

    assert sorted(found.dropna()) == [1.0, 2.0, 3.0]
    assert (found != truth)[truth.notna()].all()
    assert np.isnan(found[2])


def test_the_rows_that_a_small_fault_hits_are_among_those_of_a_large_one() -> None:
    healthy, luck = pd.Series(np.ones(1000)), np.random.default_rng(1).uniform(size=1000)
    nulls = [inject(healthy, BY_NAME["nulls"], NUMBERS, size, luck).isna() for size in SHARES]

    assert all((small <= large).all() for small, large in pairwise(nulls))
    assert nulls[-1].all()
    assert all(list(fault.sizes) == sorted(set(fault.sizes)) for fault in FAULTS)


@pytest.mark.parametrize("limit", [0.0, 0.005, 0.1, 0.65, 0.99, 2.0])
def test_bisection_finds_the_smallest_size_that_is_noticed(limit: float) -> None:
    asked: list[float] = []
    fault = BY_NAME["nulls"]

    def notices(probes: Sequence[Probe]) -> dict[Probe, Notice]:
        asked.extend(probe.size for probe in probes)
        return {p: Notice(1.0, 2, "m") if p.size >= limit else Notice(0.5, 1) for p in probes}

    size, found = smallest([(fault, "drift")], notices)[(fault, "drift")]

    expected = next((s for s in fault.sizes if s >= limit), None)
    assert (size, found.after) == (expected, 0 if expected is None else 2)
    assert len(asked) == len(set(asked)) <= 2 + np.ceil(np.log2(len(fault.sizes)))


def test_the_windows_said_are_those_of_any_larger_size_too() -> None:
    pair = (BY_NAME["nulls"], "drift")

    def notices(probes: Sequence[Probe]) -> dict[Probe, Notice]:
        return {p: Notice(float(p.size >= 0.1), 5 if p.size == 1.0 else 2) for p in probes}

    assert smallest([pair], notices)[pair] == (0.12, Notice(1.0, 5))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_a_size_counts_only_if_the_next_one_is_noticed_too(fault: Fault) -> None:
    """A search may step over a hole, but never call the edge of one it knows noticed."""
    for hole in range(len(fault.sizes) - 1):
        tried: dict[int, bool] = {}

        def notices(probes: Sequence[Probe]) -> dict[Probe, Notice]:
            places = [fault.sizes.index(probe.size) for probe in probes]
            tried.update({place: place > 1 and place != hole for place in places})  # noqa: B023
            found = zip(probes, places, strict=True)
            return {p: Notice(float(tried[place]), 1) for p, place in found}  # noqa: B023

        size, _ = smallest([(fault, "drift")], notices)[(fault, "drift")]
        assert size is not None
        place = fault.sizes.index(size)
        assert tried[place]
        assert tried.get(place + 1, place == len(fault.sizes) - 1)


def row(window: int, status: str, monitor: str = "drift/psi/age", k: int = 2) -> dict[str, Any]:
    return {
        "monitor": monitor, "slice_key": "all", "slice_value": "all", "status": status, "k": k,
        "of_n": 3, "window_start": WINDOWS[window].start, "window_end": WINDOWS[window].end,
        "value": 1.0, "threshold": "above 0.1", "details": "{}", "family": "drift", "metric": "psi",
        "dataset": "production", "column_name": "age", "excess": None, "excess_error": None,
    }  # fmt: skip


HEALTHY = [row(i, "OK") for i in range(14)]


def test_a_fault_is_noticed_only_if_it_is_wherever_it_begins() -> None:
    always = [row(i, "WARN") for i in range(14)]
    late = [row(i, "WARN" if i >= 9 else "OK") for i in range(14)]

    assert notice(WINDOWS, HEALTHY, lambda _: always) == Notice(1.0, 2, "drift/psi/age")
    assert notice(WINDOWS, HEALTHY, lambda _: HEALTHY) == Notice()
    loud = [*HEALTHY, *(row(i, "ERROR", "drift/psi/temp", k=1) for i in range(14))]
    assert notice(WINDOWS, loud, lambda _: loud) == Notice()  # it opens without the fault
    seen = notice(WINDOWS, HEALTHY, lambda _: late)
    assert (seen.share, seen.is_sure) == (4 / 8, False)  # from the places 4 to 7
    assert seen.after == 7  # in the worst of them


def test_a_fault_lasts_as_long_wherever_it_begins() -> None:
    for n in range(1, 30):
        assert len(starts_of(n)) >= 1
        assert n - max(starts_of(n)) == min(7, n // 2 + 1)


def test_a_fault_without_a_column_cannot_be_injected() -> None:
    fault: Fault = BY_NAME["volume"]
    with pytest.raises(ValueError, match="changes no column"):
        inject(pd.Series([1.0]), fault, Facts(), 0.5, np.zeros(1))
