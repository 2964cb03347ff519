"""The load generator of the benchmarks, small: accepted is stored, exactly, also after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.collect import run


@pytest.mark.proof
@pytest.mark.parametrize("kill", [False, True], ids=["undisturbed", "killed"])
def test_what_is_accepted_under_load_is_what_is_stored(tmp_path: Path, kill: bool) -> None:
    found = run(tmp_path / "project", 1.0, 4, 20, kill=kill)

    assert found.load.odd == []
    assert found.n_accepted > 0
    assert (found.n_missing, found.n_unasked, found.n_repeated) == (0, 0, 0)
    assert found.n_stored == found.n_accepted
    assert (found.load.n_again > 0) is kill
