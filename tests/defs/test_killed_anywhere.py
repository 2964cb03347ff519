"""Kill the whole pipeline at a step of each room; `python -m tests.proof` does at every step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.defs.killed import PIPELINE, STEPS, kill_at_each


@pytest.mark.proof
def test_killed_at_a_step_and_fed_twice_in_another_order_nothing_differs(tmp_path: Path) -> None:
    # The last of each: most is done by then, and least of it noted.
    last = {room: step for room in PIPELINE for step in STEPS if step.startswith(room)}

    kill_at_each(tmp_path, list(last.values()))
