"""Whoever computes the windows, and when: the verdicts are the same, and so is what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.label_laws import World, draw_ways
from benchmarks.label_ways import (
    compare_messages,
    compare_verdicts,
    compare_with_backfill,
    live_backfill,
    live_by_cron,
    live_by_daemon,
)


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
