"""Processes that are killed at named steps, again and again, on one store that then must be whole.

Imported by the killed processes too; they are forked from one that has the libraries loaded.
"""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlmon_dagster.store import open_store
from tests import forked
from tests.proof import world
from tests.proof.any_order import STEPS
from tests.proof.world import DAYS, Erased, Event, Known, Predicted


def run_until(folder: str, name: str, part: Sequence[Event], step: str) -> None:
    """Let a part arrive, run the pipeline and die, without any clean-up, at a step."""
    forked.die_at(step)
    home = Path(folder)
    world.land(home / "project", name, part)
    store = open_store(home / "store")
    spec = world.make_spec()
    world.step(store, spec, home / "project", [e.id for e in part if isinstance(e, Erased)])
    store.close()


def part_of(number: int) -> list[Event]:
    """Return a part that makes every step happen: conflicts, moves, corrections, an erasure."""
    a, b, c = (f"{(number + i) % 9}" for i in range(3))
    day = DAYS[number % 3]
    own, gone = f"own-{number}", f"gone-{number}"
    events: list[Event] = [
        Predicted(a, day, number % 5),
        Predicted(b, DAYS[(number + 1) % 3], 1),
        Predicted(c, day, 2),
        Predicted(own, day, 3),
        Predicted(gone, day, 1),
        Known(a, number % 9, number % 2),
        Known(b, number % 7, None),
        Known(own, 1, 1),
    ]
    # One that was logged by then, so that its partitions are written anew, and one that was not.
    return [*events, Erased(f"gone-{number - 2}"), Erased(f"never-{number}")]


def kill_round(context: Any, template: Path, first: int, steps: Sequence[str]) -> Counter[str]:
    """Kill one process at each step in turn, then recover; return the kills by step.

    Raises:
        AssertionError: If an event is lost or doubled, or counters do not balance.
    """
    killed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store, project = world.fresh(template, Path(folder))
        store.close()
        parts = []
        for number, step in enumerate(steps, first):
            parts.append(part_of(number))
            process = context.Process(target=run_until, args=(folder, f"{number}", parts[-1], step))
            process.start()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
            killed[step] += process.exitcode == -signal.SIGKILL
        events = [event for part in parts for event in part]
        store = open_store(Path(folder) / "store")
        spec = world.make_spec()
        world.step(store, spec, project, [e.id for e in events if isinstance(e, Erased)])
        found, problems = world.observed(store, spec, project), world.unbalanced(store, spec)
        store.close()
        assert found == world.expected(events)
        assert not problems
    return killed


def kill_everywhere(context: Any, template: Path, n: int) -> Counter[str]:
    """Kill at least n processes, at each step about equally often."""
    killed: Counter[str] = Counter()
    first = 0
    while killed.total() < n:
        turn = first % len(STEPS)
        order = (*STEPS[turn:], *STEPS[:turn])[: max(1, min(len(STEPS), n - killed.total()))]
        killed += kill_round(context, template, first, order)
        first += len(STEPS) + 5
    assert n < len(STEPS) or set(killed) == set(STEPS), set(STEPS) - set(killed)
    return killed
