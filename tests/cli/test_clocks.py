"""A mark of retention that a clock ahead has set: who says so, and what moves it back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import model_history
from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW


def test_a_mark_ahead_of_now_is_named_by_doctor_and_run_and_moved_back_by_repair(
    folder: Path, mlmon: Command
) -> None:
    store = open_store(folder / ".mlmon" / "store")
    with store.state.begin() as conn:
        mark = NOW + dt.timedelta(days=300)
        model_history.move_rows_from(conn, MODEL, "production", mark, NOW)
    store.close()
    base = ("--project", folder, "--now", NOW.isoformat())
    examined, ran = mlmon(*base, "doctor"), mlmon(*base, "run", MODEL)
    mended = mlmon(*base, "store", "repair", MODEL)
    again, healthy = mlmon(*base, "run", MODEL), mlmon(*base, "doctor")

    assert "FIX  retention" in examined.out
    assert f"-> mlmon store repair {MODEL}" in examined.out
    assert ran.code == 2
    assert f"mlmon store repair {MODEL}" in ran.err
    assert mended.code == 0
    assert "no longer before" in mended.out
    assert again.code == 0, again.err
    assert "ok   retention" in healthy.out
