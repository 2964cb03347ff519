"""How many files a person opens to follow one thing, read from the imports themselves.

Counted are the modules that a thing starts in, and all that these import of their own room, and
these again. ``python -m tests.test_reading`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from tests.test_architecture import FILES, module_of, modules_imported


class Way(NamedTuple):
    """One thing to follow.

    Attributes:
        start: Modules that it begins in.
        room: Only modules below it are opened.
        files: What it takes now.
        goal: What it shall take.
    """

    start: tuple[str, ...]
    room: str
    files: int
    goal: int


WAYS = {
    "drift": (
        Way(("profiles.measures",), "profiles", 3, 7),
        Way(("families.drift",), "families", 4, 3),
    ),
    "an ingest cycle": (Way(("ingest.cycle",), "ingest", 14, 15),),
    "a dispatch of alerts": (Way(("alerts.dispatching",), "alerts", 12, 12),),
    "an erasure": (Way(("store.erasure.erase",), "store.erasure", 5, 8),),
}


def opened(way: Way) -> list[str]:
    """Return the modules of a way, without those that only name a package."""
    known = {module_of(path): path for path in FILES if path.name != "__init__.py"}
    room = f"mlmon_dagster.{way.room}."
    found: set[str] = set()
    todo = [f"mlmon_dagster.{name}" for name in way.start]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [m for m in modules_imported(known[name], known) if m.startswith(room)]
    return sorted(found)


@pytest.mark.parametrize("thing", WAYS)
def test_following_one_thing_takes_no_more_files_than_it_did(thing: str) -> None:
    for way in WAYS[thing]:
        assert len(opened(way)) <= max(way.files, way.goal), opened(way)


def _table(things: Iterable[str]) -> str:
    lines = []
    for thing in things:
        ways = [(way, opened(way)) for way in WAYS[thing]]
        n, goal = sum(len(names) for _, names in ways), sum(way.goal for way, _ in ways)
        lines.append(f"{thing}: {n} files, goal {goal}")
        lines += [f"  {name}" for _, names in ways for name in names]
    return "\n".join(lines)


if __name__ == "__main__":
    print(_table(WAYS))
