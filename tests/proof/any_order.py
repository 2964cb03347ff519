"""A stream in any order, repeated, split and interrupted, against the fold of its set of events."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import writing
from tests import crash_steps
from tests.proof import world
from tests.proof.world import DAYS, Erased, Event, Known, Predicted

STEPS = tuple(
    name
    for name in crash_steps.STEPS
    if name.startswith(("ingest.", "append.", "rebuild.", "erase."))
)
ids = st.sampled_from(["a", "b", "c", "d"])
predicted = st.builds(Predicted, ids, st.sampled_from(DAYS), st.integers(0, 4))
known = st.builds(Known, ids, st.integers(0, 3), st.sampled_from([0, 1, None]))
events = st.lists(
    st.one_of(predicted, predicted, predicted, known, known, st.builds(Erased, ids)),
    min_size=1, max_size=12,
)  # fmt: skip
Kill = tuple[str, int] | None
kills = st.none() | st.tuples(st.sampled_from(STEPS), st.integers(1, 2))


class Killed(BaseException):
    """The process ends here; nobody may catch it."""


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[list[Event], Kill]]:
    """Draw a stream, repeat some of it, shuffle it, cut it, and kill runs at named steps."""
    happened = draw(events)
    again = draw(st.lists(st.sampled_from(happened), max_size=4))
    shuffled = draw(st.permutations(happened + again))
    cuts = sorted(draw(st.sets(st.integers(1, len(shuffled)), max_size=2)))
    parts = zip([0, *cuts], [*cuts, len(shuffled)], strict=True)
    return [(shuffled[start:end], draw(kills)) for start, end in parts]


def run(
    store: Store, project: Path, name: str, part: Sequence[Event], kill: Kill, hits: Counter[str]
) -> None:
    """Let one part arrive and run the pipeline, which may be killed."""
    spec = world.make_spec()
    seen: Counter[str] = Counter()

    def die(reached: str) -> None:
        seen[reached] += 1
        if kill == (reached, seen[reached]):
            hits[reached] += 1
            raise Killed

    world.land(project, name, part)
    writing.on_reached = die
    try:
        with suppress(Killed):
            world.step(store, spec, project, [e.id for e in part if isinstance(e, Erased)])
            if kill is None and len(part) % 3 == 0:  # measured in between, too
                world.measure(store, spec, project)
    finally:
        writing.on_reached = None


def check(
    template: Path, parts: Sequence[tuple[Sequence[Event], Kill]], hits: Counter[str]
) -> None:
    """Deliver the parts, run once more, and compare with the fold of the set."""
    spec = world.make_spec()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store, project = world.fresh(template, Path(folder))
        for number, (part, kill) in enumerate(parts):
            run(store, project, f"{number}", part, kill, hits)
            if kill:
                store.close()
                store = open_store(Path(folder) / "store")
        everything = [event for part, _ in parts for event in part]
        # A request whose process died before it was noted was never acknowledged: asked again.
        unsure = [e.id for part, kill in parts for e in part if kill and isinstance(e, Erased)]
        world.step(store, spec, project, unsure)
        found = world.observed(store, spec, project)
        problems = world.unbalanced(store, spec)
        store.close()
        assert found == world.expected(everything)
        assert not problems


def examples(template: Path, n: int, start: int = 0) -> Counter[str]:
    """Run n examples; return how often a run was killed at each step, and their number."""
    hits: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], print_blob=True,
    )  # fmt: skip
    @given(deliveries())
    def any_order(parts: list[tuple[list[Event], Kill]]) -> None:
        hits["examples"] += 1
        check(template, parts, hits)
        if hits["examples"] % 100 == 0:
            sys.stderr.write(f"  {hits['examples']:,} of {n:,} examples, none differs\n")

    test: Callable[[], None] = any_order
    test()
    return hits
