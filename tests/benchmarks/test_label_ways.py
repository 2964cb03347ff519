"""Whoever computes the windows, and when: the verdicts are the same, and so is what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.label_laws import World, draw_ways
from benchmarks.label_ways import (
    Key,
    Way,
    compare_messages,
    compare_verdicts,
    compare_with_backfill,
    find_incomparable,
    live_backfill,
    live_by_cron,
    live_by_daemon,
)


def lived(maturities: str, *, usual: float = 0.24, late: int = 0) -> Way:
    """Return a way with a gap over three windows: m(ature), e(arly), or p(rovisional)."""
    names = {"m": "mature", "e": "early", "p": "provisional"}
    keys: list[Key] = [
        ("performance/gap", "all", "all", f"day {i}") for i in range(len(maturities))
    ]
    said = [
        ("NO_DATA", "labels_still_coming", "", "") if m == "p" else ("OK", "", f"{i + late}", "")
        for i, m in enumerate(maturities)
    ]
    return Way(
        dict(zip(keys, said, strict=True)),
        {key: (names[m], 3) for key, m in zip(keys, maturities, strict=True)},
        {key[3]: 0.25 for key in keys},
        usual,
        [],
        [],
        [],
    )


def test_a_window_that_is_judged_early_and_those_judged_together_with_it_are_left_out() -> None:
    cron, backfill = lived("mmemmm"), lived("mmpmmm")
    assert {key[3] for key in find_incomparable(cron, backfill)} == {"day 2", "day 3", "day 4"}
    assert compare_with_backfill(cron, backfill) == {}


def test_a_window_whose_share_lies_between_what_is_held_to_be_usual_is_left_out() -> None:
    cron, backfill = lived("mmmmmm"), lived("mpmmmm", usual=0.26)
    assert {key[3] for key in find_incomparable(cron, backfill)} == {"day 1", "day 2", "day 3"}


@pytest.mark.parametrize("backfill", [lived("ppp", usual=0.8), lived("mmp"), lived("mmm", late=1)])
def test_whatever_else_differs_is_told(backfill: Way) -> None:
    """All wait for far more than there is, one waits for no reason, or values are others."""
    assert compare_with_backfill(lived("mmm"), backfill)


@pytest.mark.proof
def test_cron_the_daemon_and_a_backfill_say_the_same(tmp_path: Path) -> None:
    """A ranking that fails on the third of nine days, with labels 1 to 5 days late."""
    world = World(draw_ways(3, "AUC falls", "corrected after 45", 9))
    cron = live_by_cron(world, tmp_path / "cron")
    daemon = live_by_daemon(world, tmp_path / "daemon")
    assert cron.outputs == daemon.outputs == []
    assert {"performance/roc_auc"} <= {monitor for monitor, *_ in cron.verdicts}
    assert compare_verdicts(cron.verdicts, daemon.verdicts) == {}
    assert cron.messages
    assert compare_messages(cron, daemon) == []

    backfill = live_backfill(world, tmp_path / "backfill")
    assert compare_with_backfill(cron, backfill) == {}
