"""The demo as people run it, whole: what it prints is what the README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.defs.small_model import VARIABLES

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.proof
def test_the_demo_ends_with_the_table_and_the_alerts_that_the_readme_shows(tmp_path: Path) -> None:
    table = re.search(r"```\n(flight_delay by month\n.*?)```", README, re.DOTALL)
    alerts = re.search(r"and (\d+) alerts for the whole year", README)
    assert table is not None
    assert alerts is not None
    words = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(tmp_path), "demo"]
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}

    ended = subprocess.run(words, capture_output=True, text=True, env=env, check=False)

    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr[-3_000:]
    assert table[1] in ended.stdout
    assert f"Alerts of the year ({alerts[1]} episodes):" in ended.stdout
