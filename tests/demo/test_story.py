"""The demos as people run them, whole: what they print is what the pages show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.defs.small_model import VARIABLES

ROOT = Path(__file__).parents[2]
README, PAGE = ((ROOT / name).read_text() for name in ("README.md", "docs/demo.md"))


def find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    assert found is not None, pattern
    return found[1]


ALERTS = find(r"and (\d+) alerts for the whole year", README)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("options", "table", "alerts"),
    [
        (
            (),
            find(r"```\n(flight_delay by month\n.*?)```", README),
            f"Alerts of the year ({ALERTS} episodes):",
        ),
        (
            ("--story", "support"),
            find(r"```\n(assistant by month\n.*?)\n\n", PAGE),
            find(r"(Alerts of the quarter \(.*?)```", PAGE),
        ),
    ],
    ids=["flights", "support"],
)
def test_the_demo_ends_with_the_table_and_the_alerts_that_the_page_shows(
    tmp_path: Path, options: tuple[str, ...], table: str, alerts: str
) -> None:
    words = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(tmp_path), "demo"]
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}

    ended = subprocess.run([*words, *options], capture_output=True, text=True, env=env, check=False)

    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr[-3_000:]
    assert table in ended.stdout
    assert alerts in ended.stdout
