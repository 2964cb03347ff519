"""Secrets and personal values: put in everywhere, looked for wherever they must not be.

Rows live in the store; ids and values are shown on demand. Everywhere else (the state database,
Dagster's own, reports, messages, what runs print) there are numbers, names of columns, values of
declared slices and names of files, and nothing more. What each command prints is looked through
in tests/cli/test_every_command.py.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.defs.canaries import DECLARED, sinks, told

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("canaries")]


@pytest.mark.proof
def test_secrets_and_personal_values_reach_no_sink(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = told(tmp_path_factory.getbasetemp())
    shown: dict[str, set[str]] = {
        name: {place for place, content in world.found if canary.encode() in content}
        for name, canary in DECLARED.items()
    }

    assert world.hits() == set()
    assert {"slack", "mail", "webhook"} <= shown["REGION"] & {p for p, c in world.found if c}
    assert "slack" in shown["FILE"]
    assert world.n_pictures > 0


def test_the_search_would_find_what_is_there(tmp_path: Path) -> None:
    path: Any = tmp_path / ".mlmon" / "store" / "state.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE t (a TEXT, b BLOB)")
        conn.execute("INSERT INTO t VALUES ('plain', ?)", (zlib.compress(b"packed"),))
        conn.commit()
    contents = b"".join(content for _, content in sinks(tmp_path))

    assert b"plain" in contents
    assert b"packed" in contents
