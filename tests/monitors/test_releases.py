"""A version that replaced another one is compared by default, and its verdict says what it saw."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.families.releases import Replaced, count_read, find_metric
from mlmon_dagster.spec import ModelSpec
from tests.conftest import SPEC, make_spec
from tests.monitors.cases import DAY, frame, metric, verdicts, window

MONITOR = "performance/release_change"
BEFORE = 56


def leave_out(role: str) -> dict[str, object]:
    columns = cast("dict[str, object]", SPEC["columns"])
    return {name: column for name, column in columns.items() if name != role}


def judged(
    drop: float,
    n_after: int,
    *,
    model: ModelSpec | None = None,
    name: str = "roc_auc",
    level: float = 0.78,
    error: float = 0.012,
) -> list[dict[str, Any]]:
    """Judge each window of a new version, together with the others as a backfill does."""
    rng = np.random.default_rng(8)
    areas = level + rng.normal(0, error, BEFORE + n_after)
    areas[BEFORE:] -= drop
    days = [DAY + pd.Timedelta(days=i) for i in range(len(areas))]
    rows = [
        metric(name, area, window_start=day, n=2_000, lower=area - 2 * error,
               upper=area + 2 * error)
        for day, area in zip(days, areas, strict=True)
    ]  # fmt: skip
    windows = [
        window(day, release=Replaced("3", "2", tuple(days[BEFORE : i + 1]), tuple(days[:BEFORE])))
        for i, day in enumerate(days)
        if i >= BEFORE
    ]
    found = verdicts("performance", rows, windows, model=model or make_spec(), baseline=frame([]))
    return [row for row in found if row["monitor"] == MONITOR]


def test_a_version_that_is_worse_fails_from_the_look_that_sees_it_on() -> None:
    rows = judged(0.03, 40)
    assert len(rows) == 40 - 7
    assert [row["status"] for row in rows] == ["WARN"] * 33
    first, _, numbers = rows[0]["message"].partition("\n")
    assert first.startswith("Version 3 is worse than version 2: ROC AUC 0.7")
    since = (DAY + pd.Timedelta(days=BEFORE)).date()
    assert f" in its first 8 days (from {since} on), where 0.777 was expected" in first
    assert "(n 16,000 and 112,000)" in numbers
    assert "in its first 28 days" in rows[-1]["message"]
    details = json.loads(rows[0]["details"])
    assert (details["version"], details["replaced"], details["measured"]) == ("3", "2", "roc_auc")
    assert rows[0]["excess"] > 0


def test_an_equal_version_is_not_seen_to_be_worse_and_the_verdict_says_what_would_have_been() -> (
    None
):
    rows = judged(0.0, 28)
    assert {row["status"] for row in rows} == {"OK"}
    assert rows[-1]["message"].startswith("Version 3 is not seen to be worse than 2: ROC AUC 0.7")
    seen = json.loads(rows[-1]["details"])["visible"]
    assert 0.004 < seen < 0.015
    assert f"from {seen:.3f} on worse is more than chance" in rows[-1]["message"]


def test_what_is_worse_by_less_than_the_margin_passes_and_is_said() -> None:
    model = make_spec(monitors={"versions": {"release": {"margin": 0.05}}})
    rows = judged(0.03, 28, model=model)
    assert {row["status"] for row in rows} == {"OK"}
    assert "by less than 0.05" in rows[-1]["message"]


def test_a_comparison_is_over_after_twice_the_longest_look_and_says_so() -> None:
    rows = judged(0.03, 60)
    assert [row["status"] for row in rows[-5:]] == ["WARN", *["OK"] * 4]
    assert rows[-1]["message"] == "Version 3 is no longer compared with version 2."


def test_losses_are_judged_by_a_share_of_what_they_were() -> None:
    model = make_spec(
        task="regression",
        columns=leave_out("score"),
        monitors={"performance": {"metric": "rmse", "drop": 1}},
    )
    worse = judged(-2.0, 14, model=model, name="rmse", level=20.0, error=0.4)
    assert {row["status"] for row in worse} == {"WARN"}
    assert "Root mean squared error 22." in worse[0]["message"]
    little = judged(-0.1, 14, model=model, name="rmse", level=20.0, error=0.4)
    assert {row["status"] for row in little} == {"OK"}


@pytest.mark.parametrize(
    "changes",
    [{"monitors": {"versions": {"release": False}}}, {"columns": leave_out("model_version")}],
)
def test_without_versions_or_when_it_is_turned_off_nothing_more_is_read(
    changes: dict[str, Any],
) -> None:
    model = make_spec(**changes)
    assert find_metric(model) is None
    assert count_read(model) == 1
