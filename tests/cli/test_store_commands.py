"""``mlmon store``: what is asked for, and nothing that is hidden."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW, ROWS

AT = ("--now", NOW.isoformat())


def test_head_shows_the_rows_columns_and_form_that_are_asked_for(
    folder: Path, mlmon: Command
) -> None:
    declared = folder / "models" / f"{MODEL}.yaml"
    declared.write_text(declared.read_text().replace("balance: {", "balance: {pii: true, ", 1))
    head = ("--project", folder, *AT, "store", "head", MODEL, "--limit", 500)
    day = ("--window", DAYS[0], "--dataset", "production")

    every = mlmon(*head, *day, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(every.out)))
    assert len(rows) == ROWS, every.err
    assert "age" in rows[0]
    assert "balance" not in rows[0]

    older = mlmon(
        *head, *day, "--where", "age > 40 and not region = 'north' or region in ('west')",
        "--columns", "prediction_id, age, region", "--format", "json",
    )  # fmt: skip
    found = [json.loads(line) for line in older.out.splitlines()]
    expected = {
        row["prediction_id"]
        for row in rows
        if (float(row["age"]) > 40 and row["region"] != "north") or row["region"] == "west"
    }
    assert {row["prediction_id"] for row in found} == expected
    assert {*found[0]} == {"prediction_id", "age", "region"}

    for hidden in (("--columns", "balance"), ("--where", "balance > 1")):
        refused = mlmon(*head, *hidden)
        assert refused.code == 2
        assert "declared as pii; add --show-pii" in refused.err
    shown = mlmon(*head, "--columns", "balance", "--show-pii", "--format", "csv")
    assert shown.out.splitlines()[0] == "balance"


def test_describe_and_maintain_tell_what_there_is_and_what_would_go(
    folder: Path, mlmon: Command
) -> None:
    told = mlmon("--project", folder, *AT, "store", "describe", MODEL).out
    assert "landing files: " in told
    assert "metrics: " in told
    assert ", newest of " in told
    declared = folder / "models" / f"{MODEL}.yaml"
    declared.write_text(declared.read_text() + "retention: {validation: 1d}\n")

    would = mlmon("--project", folder, *AT, "store", "maintain", "--dry-run")
    did = mlmon("--project", folder, *AT, "store", "maintain")
    again = mlmon("--project", folder, *AT, "store", "maintain")

    assert f"{MODEL}: would be removed" in would.out, would.err
    assert f"{MODEL}: removed" in did.out
    assert (
        would.out.replace("would be removed", "removed").splitlines()[1:3]
        == (did.out.splitlines()[1:3])
    )
    assert f"{MODEL}: nothing to do" in again.out
