"""The rules come from the spec, find rows exactly, and never pass because nothing was there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from mlmon_dagster.ingest.formats.parse import parse_file
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.rows import expectations
from mlmon_dagster.ingest.rows.canonical import Draft, draft_rows
from mlmon_dagster.ingest.rows.judge import judge_files
from mlmon_dagster.ingest.rows.rules import rules_of
from mlmon_dagster.spec.declaration import Expectation
from tests.ingest.landing import NOW, credit_spec, events, parquet_bytes

SPEC = credit_spec()


def _draft(folder: Path, frame: pd.DataFrame, name: str = "a") -> Draft:
    path = folder / f"{name}.parquet"
    path.write_bytes(parquet_bytes(frame))
    staged = Staged("predictions", path.name, path, name, path.stat().st_size, 0)
    [parsed] = parse_file(staged, SPEC, SPEC.source.predictions)
    return draft_rows(parsed, SPEC, NOW)


def test_rules_follow_the_spec() -> None:
    found = {(r.expectation, r.column.name) for r in rules_of(SPEC, "predictions")}

    assert ("expect_column_values_to_be_between", "score") in found
    not_null = {name for rule, name in found if rule == "expect_column_values_to_not_be_null"}
    assert not_null >= {"prediction_id", "event_time", "score"}
    assert not not_null & SPEC.features.keys(), "a null of a feature is a finding"
    assert ("expect_column_values_to_be_in_set", "dataset") in found
    exist = {name for rule, name in found if rule == "expect_column_to_exist"}
    assert exist >= {"prediction_id", "event_time", "score", "age", "region", "member"}
    assert ("expect_column_values_to_be_in_set", "actual") in {
        (r.expectation, r.column.name) for r in rules_of(SPEC, "actuals")
    }


def test_rows_that_break_a_rule_are_found_and_counted(tmp_path: Path) -> None:
    draft = _draft(tmp_path, events(4, score=[0.1, 7.0, None, 0.1]))

    [(draft, verdict)] = judge_files([draft], SPEC, "predictions")

    assert {(f.reason, *f.rows.tolist()) for f in draft.faults} == {
        ("score_out_of_range", 1), ("null_required", 2)
    }  # fmt: skip
    assert [(rule, column, n) for (_, rule, column), n in verdict.failed.items()] == [
        ("expect_column_values_to_not_be_null", "score", 1),
        ("expect_column_values_to_be_between", "score", 1),
    ]


def test_a_file_without_rows_breaks_no_rule_and_leaves_none_untested(tmp_path: Path) -> None:
    [(draft, verdict)] = judge_files([_draft(tmp_path, events(0))], SPEC, "predictions")

    assert (draft.faults, verdict.untested) == ((), ())


def test_column_of_nulls_is_named_as_untested(tmp_path: Path) -> None:
    draft = _draft(tmp_path, events(3, age=[None] * 3))

    [(_, verdict)] = judge_files([draft], SPEC, "predictions")

    assert not verdict.failed
    assert verdict.untested == ("age",)


def test_great_expectations_finds_the_rows_that_the_rules_find(tmp_path: Path) -> None:
    frame = events(6, score=[0.1, 7.0, None, -0.1, 0.0, 1.0], age=[None, 1, 2, 3, 4, 5])
    frame["dataset"] = ["production", "elsewhere", None, "validation", "production", "Training"]
    draft = _draft(tmp_path, frame)
    asked = [
        Expectation(
            expect=rule.expectation, arguments={"column": rule.column.name, **dict(rule.options)}
        )
        for rule in rules_of(SPEC, "predictions")
    ]

    [found] = expectations._find([pa.table(draft.columns)], asked, SPEC)

    for rule, one in zip(rules_of(SPEC, "predictions"), found, strict=True):
        assert one.error == ""
        ours = rule.find_rows(replace(draft, excused={})).tolist() if rule.judges_rows else []
        assert (rule, [] if one.rows is None else one.rows.tolist()) == (rule, ours)
        assert one.kept == (not ours)


def test_great_expectations_leaves_nothing_on_disk_and_in_the_process_that_asks(
    tmp_path: Path,
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    code = """if True:
        import sys
        from mlmon_dagster.ingest.rows import expectations
        from tests.ingest.landing import credit_spec
        mean = {"expect": "expect_column_mean_to_be_between", "arguments": {"column": "agee"}}
        print(len(expectations.expectation_problems(credit_spec(expectations=[mean]))))
        print("great_expectations" in sys.modules)
    """
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, **places},
    )  # fmt: skip

    assert found.stdout.split() == ["1", "False"]
    assert list((tmp_path / "home").iterdir()) == list((tmp_path / "tmp").iterdir()) == []
