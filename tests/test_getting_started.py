"""docs/getting-started.md, pasted as written into an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.defs.small_model import VARIABLES

PAGE = (Path(__file__).parent.parent / "docs" / "getting-started.md").read_text()
BIN = Path(sys.executable).parent
LASTING = "mlmon dev"  # what runs until somebody ends it
RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Shown:
    """A command of the page, and what the page says it prints."""

    command: str
    output: str


def blocks(language: str) -> list[str]:
    """Return the page's code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def commands() -> Iterator[Shown]:
    """Yield the page's commands with their output, in order, except those that last."""
    for block in blocks(""):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command != LASTING:
                yield Shown(command, output)


def alike(text: str) -> str:
    """Put what is new every time, the ids of runs, out of a text."""
    return RUN_ID.sub("<run>", text)


@pytest.mark.slow
def test_getting_started_pasted_as_written_prints_what_it_says(tmp_path: Path) -> None:
    [declaration, script] = [*blocks("yaml"), *blocks("python")]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "churn.yaml").write_text(declaration)
    (tmp_path / "make_events.py").write_text(script)
    environment = {k: v for k, v in os.environ.items() if k not in {*VARIABLES, "DAGSTER_HOME"}}
    environment["PATH"] = os.pathsep.join([str(BIN), environment.get("PATH", "")])
    shown = list(commands())
    printed = []
    for step in shown:
        ended = subprocess.run(
            step.command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{step.command}\n{ended.stdout}{ended.stderr}"
        printed.append(Shown(step.command, ended.stdout + ended.stderr))
    assert "ERROR" not in "".join(step.output for step in printed)
    assert [Shown(s.command, alike(s.output)) for s in printed] == [
        Shown(s.command, alike(s.output)) for s in shown
    ]
