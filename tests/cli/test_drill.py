"""``mlmon drill`` on a processed fortnight."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.defs.small_model import MODEL, NOW

AT = ("--now", NOW.isoformat())


def test_the_smallest_fault_that_is_noticed_is_said_in_words(folder: Path, mlmon: Command) -> None:
    given = ("--columns", "balance", "--faults", "nulls,stuck", "--windows", "8")
    ended = mlmon("--project", folder, *AT, "drill", MODEL, *given)

    assert ended.code == 0, ended.err
    assert "Nothing was stored or sent." in ended.out
    assert "balance: 8 days from " in ended.out
    assert "You would notice balance null in " in ended.out
    assert "balance (1 of 1)" in ended.err


def test_the_table_holds_every_fault_and_family(folder: Path, mlmon: Command) -> None:
    given = ("--faults", "late_feed,volume,latency,missing_truth", "--format", "json")
    ended = mlmon("--project", folder, *AT, "drill", MODEL, *given)
    found = {row["fault"]: row for row in map(json.loads, ended.out.splitlines())}

    assert set(found) == {"late_feed", "volume", "latency", "missing_truth"}
    assert found["late_feed"]["size"] == 4  # a day after the window's start, and two hours more
    assert "no limit is set for p95_latency_ms" in found["latency"]["reason"]
    assert found["volume"]["reason"]  # it takes fourteen earlier windows
    assert not found["missing_truth"]["monitor"]  # no delivery was watched, and a week is not over


def test_missing_truth_is_noticed_a_week_after_its_declared_age(
    folder: Path, mlmon: Command
) -> None:
    later = ("--now", (NOW + dt.timedelta(days=12)).isoformat())
    ended = mlmon(
        "--project", folder, *later, "drill", MODEL, "--faults", "missing_truth",
        "--format", "json",
    )  # fmt: skip
    found = json.loads(ended.out)

    assert found["monitor"] == "freshness/actuals_missing"
