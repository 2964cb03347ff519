"""`mlmon dev` as people start it: its screen has what Dagster does, and no library's warnings."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from tests.defs.small_model import DAYS, land_days, land_validation, write_declaration
from tests.defs.test_live_on_postgres import dagster_dev, wait_for


@pytest.mark.proof
def test_dagster_starts_and_computes_a_day_without_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    write_declaration(folder, start=yesterday, zone="UTC")
    land_validation(folder, first=yesterday - dt.timedelta(days=30))
    land_days(folder, yesterday, like=DAYS[0])
    environment = {**os.environ, "MLMON_TICK_SECONDS": "3"}
    environment.pop("PYTHONWARNINGS", None)

    with dagster_dev(folder, environment) as read_log:
        wait_for("a computed day", lambda: "__performance - STEP_SUCCESS" in read_log(), read_log)
        log = read_log()

    assert [line for line in log.splitlines() if "warning" in line.lower()] == []
