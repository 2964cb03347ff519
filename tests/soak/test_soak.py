"""The soak's own judgement: it must be able to fail."""

from __future__ import annotations

import pytest

from tests.soak.__main__ import Ticks, _about_left, _about_memory, _about_ticks
from tests.soak.world import RUN, SETTLE, Sample


def memory(*mib: float, role: str = "code server") -> list[Sample]:
    """A process's memory, looked at every ten seconds."""
    return [Sample(10.0 * n, 1, role, value) for n, value in enumerate(mib)]


@pytest.mark.parametrize(
    ("samples", "kept"),
    [
        (memory(*[400.0] * 61), [True]),
        (memory(*[400.0 + 0.05 * n for n in range(61)]), [True]),
        (memory(*[400.0 + 3.0 * n for n in range(61)]), [False]),
        (memory(*[100.0 + 9.0 * n for n in range(61)], role=RUN), []),  # it comes and goes
    ],
)
def test_memory_is_flat_within_a_tenth_and_twenty_mebibytes(
    samples: list[Sample], kept: list[bool]
) -> None:
    rows = _about_memory(samples, 0.0, 600.0)
    assert [row.goal.is_met for row in rows if row.goal] == kept


@pytest.mark.parametrize(
    ("n", "age", "kept"), [(10, 30.0, [True, True]), (400, 90.0, [False, False])]
)
def test_files_left_are_judged_by_number_and_by_age(n: int, age: float, kept: list[bool]) -> None:
    rows = _about_left({str(i): age + SETTLE for i in range(n)}, 5.0)
    assert [row.goal.is_met for row in rows if row.goal] == kept


def test_a_tick_that_failed_or_took_too_long_breaks_the_promise() -> None:
    rows = _about_ticks(Ticks((4.0, 61.0), ("deadline exceeded",)))
    assert [row.name for row in rows if row.goal and not row.goal.is_met] == [
        "cut off or failed",
        "longest tick",
    ]


def test_no_tick_at_all_breaks_the_promise() -> None:
    rows = _about_ticks(Ticks((), ()))
    assert [row.name for row in rows if row.goal and not row.goal.is_met] == [
        "ticks of the planner"
    ]
