"""What ``mlmon init`` makes of data sets that nobody looked at: names, types and noise by seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.scaffold.layout_check import MOST_LINES, checked
from tests.scaffold.layouts import LAYOUTS, made

# Six layouts in four tastes of names, and in two that were written after the rules.
ROLES_ONLY = (
    (range(192, 198), False),
    pytest.param(range(198, 216), False, marks=pytest.mark.proof),
    (range(600, 612), True),
)
# One of each layout.
COMPUTED = (14, *(pytest.param(seed, marks=pytest.mark.proof) for seed in (6, 1, 33, 4, 5)))


@pytest.mark.parametrize(("seeds", "held_out"), ROLES_ONLY)
def test_a_spec_validates_and_has_its_roles_with_at_most_two_lines_to_type(
    tmp_path: Path, seeds: range, held_out: bool
) -> None:
    found = {}
    for seed in seeds:
        (folder := tmp_path / str(seed)).mkdir()
        found[seed] = checked(made(seed, held_out=held_out), folder, computes=False)
    bad = {
        seed: (one.name, one.wrong, one.raw, one.failed)
        for seed, one in found.items()
        if one.failed or one.raw or len(one.wrong) > MOST_LINES
    }

    assert not bad
    assert sum(not one.wrong for one in found.values()) >= 0.8 * len(found)
    assert Counter(made(seed).layout for seed in seeds) == dict.fromkeys(LAYOUTS, len(seeds) // 6)


@pytest.mark.parametrize("seed", COMPUTED)
def test_a_spec_computes_with_at_most_two_lines_to_type(tmp_path: Path, seed: int) -> None:
    found = checked(made(seed), tmp_path)

    assert found.is_good, found
