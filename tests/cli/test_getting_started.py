"""docs/getting-started.md, pasted as written into an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.defs.small_model import VARIABLES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "getting-started.md").read_text()
BIN = Path(sys.executable).parent
# Pages whose commands are run afterwards, on what the first one made.
TASKS = ("i-got-this-message.md", "noisy-monitor.md", "no-data.md", "production.md")
AT = "2026-03-08T12:00:00Z"
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


def in_blocks(page: str) -> str:
    """Return what stands in a page's plain code blocks."""
    text = (DOCS / page).read_text()
    return "\n".join(re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


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


@pytest.mark.proof
def test_getting_started_prints_what_it_says_and_the_pages_by_task_run_after_it(
    tmp_path: Path, mlmon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLMON_NOW", AT)
    for page in TASKS:
        for command in re.findall(r"^mlmon (.*)$", in_blocks(page), re.MULTILINE):
            ended = mlmon(*shlex.split(command))
            # 1: something needs attention, as a place of no messages does.
            assert ended.code in (0, 1), f"{page}: {command}\n{ended.out}{ended.err}"
