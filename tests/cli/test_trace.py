"""``mlmon trace``: why a metric changed, in the terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW

AT = ("--now", NOW.isoformat())


def test_a_trace_says_what_changed_against_the_baseline(folder: Path, mlmon: Command) -> None:
    ended = mlmon("--project", folder, *AT, "trace", MODEL)
    lines = ended.out.splitlines()

    assert ended.code == 0, ended.err
    assert lines[0].startswith("ROC AUC of 2024-03-")
    assert "of the baseline" in lines[0]
    assert any(line.startswith(("Scores promised ", "Looked at ", "No cause ")) for line in lines)
    assert any(line.startswith("region ") for line in lines)  # the table of slices
    assert len(lines[: lines.index("")]) <= 12


def test_any_two_periods_are_compared_and_other_formats_say_the_same(
    folder: Path, mlmon: Command
) -> None:
    span = ("--from", DAYS[8], "--to", DAYS[11], "--against", f"{DAYS[0]}..{DAYS[3]}")
    asked = ("--project", folder, *AT, "trace", MODEL, "--metric", "f1", *span)
    text = mlmon(*asked)
    plain = json.loads(mlmon(*asked, "--format", "json").out)
    rows = list(csv.DictReader(io.StringIO(mlmon(*asked, "--format", "csv").out)))

    assert text.code == 0, text.err
    assert text.out.splitlines()[0] == plain["said"][0]
    assert plain["metric"] == "f1"
    assert abs(sum(plain["decisions"]["f1"].values()) - plain["change"]) < 1e-12
    assert {row["slice_key"] for row in rows} == {"all", "region"}


def test_one_window_is_compared_with_another(folder: Path, mlmon: Command) -> None:
    ended = mlmon(
        "--project", folder, *AT, "trace", MODEL, "--window", DAYS[1], "--against", DAYS[0]
    )

    assert ended.code == 0, ended.err
    assert f"of {DAYS[1]} is" in ended.out
    assert f"of {DAYS[0]} " in ended.out
    assert "whether this is chance is not known" in ended.out
