"""What is said of drawn incidents is not denied by its own table, and names no cause by chance."""

from __future__ import annotations

from tests.incidents import KINDS, run


def test_nothing_said_of_drawn_incidents_is_denied_by_its_table() -> None:
    found = run(2 * len(KINDS))
    faults = {
        name: n
        for counts in found.values()
        for name, n in counts.items()
        if n and name not in ("incidents", "explained")
    }
    assert faults == {}
