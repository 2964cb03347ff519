"""What a terminal shows and a pipe does not: colours, and what is being done."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mlmon_dagster.commands.terminal import color_verdicts
from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW

AT = ("--now", NOW.isoformat())


def type_into_terminal(*words: object, **variables: str) -> str:
    """Run `mlmon` as somebody types it, and return all that the terminal was told."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "mlmon_dagster.cli", *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", "COLUMNS": "100"} | variables
    with subprocess.Popen(program, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65_536):
                said += part
        except OSError:  # nobody holds the other end any more
            pass
        os.close(ours)
        assert running.wait() == 0, said.decode()
    return said.decode()


def test_verdicts_have_a_colour_and_other_words_have_none() -> None:
    assert color_verdicts("ERROR  churn") == "\x1b[31mERROR\x1b[0m  churn"
    assert color_verdicts("44 checks: 0 errors, 3 warnings") == (
        "44 checks: 0 errors, \x1b[33m3 warnings\x1b[0m"
    )
    assert color_verdicts("FIRING  TERROR  OKAY  warnings") == "FIRING  TERROR  OKAY  warnings"


@pytest.mark.slow
def test_a_table_is_in_colour_on_a_terminal_unless_that_is_declined_and_never_elsewhere(
    folder: Path, mlmon: Command
) -> None:
    words = ("--project", folder, *AT, "status")
    plain = mlmon(*words).out
    assert "\x1b" not in plain
    shown = type_into_terminal(*words).replace("\r\n", "\n")
    assert shown == color_verdicts(plain) != plain
    assert type_into_terminal(*words, NO_COLOR="1").replace("\r\n", "\n") == plain
    assert "\x1b" not in type_into_terminal(*words, "--format", "json")


@pytest.mark.slow
def test_a_run_shows_its_step_in_one_line_on_a_terminal_and_a_line_a_step_elsewhere(
    folder: Path, mlmon: Command
) -> None:
    words = ("--project", folder, *AT, "run", MODEL, "--from", DAYS[1], "--to", DAYS[1])
    plain = mlmon(*words).out
    assert "\n  profiles\n" in plain
    assert "\x1b" not in plain
    shown = type_into_terminal(*words)
    assert f"{MODEL}: profiles" in shown
    assert "\n  profiles" not in shown
    assert plain.splitlines()[-1] in shown
