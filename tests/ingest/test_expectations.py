"""The suite comes from the spec, finds rows exactly, and never passes because nothing was there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.errors import MlmonError
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.parse import parse_file
from mlmon_dagster.ingest.landing import Staged
from mlmon_dagster.ingest.rows import judge as suite
from mlmon_dagster.ingest.rows.canonical import Draft, draft_rows
from mlmon_dagster.ingest.rows.judge import Rule, judge, rules_of
from mlmon_dagster.ingest.sources.registry import read_file
from tests.ingest.landing import NOW, credit_spec, events, parquet_bytes

SPEC = credit_spec()


def _draft(folder: Path, frame: pd.DataFrame, name: str = "a") -> Draft:
    path = folder / f"{name}.parquet"
    path.write_bytes(parquet_bytes(frame))
    staged = Staged("predictions", path.name, path, name, path.stat().st_size, 0)
    [parsed] = parse_file(staged, SPEC, SPEC.source.predictions, read_file)
    return draft_rows(parsed, SPEC, NOW)


def test_suite_follows_the_spec() -> None:
    found = {(r.expectation, r.column.name) for r in rules_of(SPEC, "predictions")}

    assert ("ExpectColumnValuesToBeBetween", "score") in found
    not_null = {name for rule, name in found if rule == "ExpectColumnValuesToNotBeNull"}
    assert not_null >= {"prediction_id", "event_time", "score"}
    assert not not_null & SPEC.features.keys(), "a null of a feature is a finding"
    assert ("ExpectColumnValuesToBeInSet", "dataset") in found
    exist = {name for rule, name in found if rule == "ExpectColumnToExist"}
    assert exist >= {"prediction_id", "event_time", "score", "age", "region", "member"}
    assert ("ExpectColumnValuesToBeInSet", "actual") in {
        (r.expectation, r.column.name) for r in rules_of(SPEC, "actuals")
    }


def test_rows_of_each_file_of_a_batch_are_its_own(tmp_path: Path) -> None:
    drafts = [
        _draft(tmp_path, events(4, score=[0.1, 7.0, 0.1, 0.1]), "a"),
        _draft(tmp_path, events(0), "b"),
        _draft(tmp_path, events(3, score=[0.1, 0.2, None]), "c"),
    ]

    first, empty, last = judge(drafts, SPEC, "predictions")

    assert [(f.reason, f.rows.tolist()) for f in first.faults] == [("score_out_of_range", [1])]
    assert (empty.faults, empty.report["n_rows"]) == ((), 0)
    assert [(f.reason, f.rows.tolist()) for f in last.faults] == [("null_required", [2])]
    assert first.report["failed"] == [
        {"expectation": "ExpectColumnValuesToBeBetween", "column": "score", "rows": 1}
    ]


def test_chunks_find_the_same_rows_as_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    frame = events(500, score=rng.uniform(-0.2, 1.2, 500))
    draft = _draft(tmp_path, frame)
    (whole,) = judge([draft], SPEC, "predictions")
    monkeypatch.setattr(suite, "CHUNK_ROWS", 64)

    (chunked,) = judge([draft], SPEC, "predictions")

    wrong = np.flatnonzero((frame["score"] < 0) | (frame["score"] > 1)).tolist()
    assert whole.faults[0].rows.tolist() == chunked.faults[0].rows.tolist() == wrong
    assert whole.report == chunked.report


def test_column_of_nulls_is_named_as_untested(tmp_path: Path) -> None:
    (verdict,) = judge([_draft(tmp_path, events(3, age=[None] * 3))], SPEC, "predictions")

    assert verdict.report["success"] is True
    assert verdict.untested == ("age",)


def test_expectation_that_cannot_be_evaluated_is_an_error_not_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = Column("score", "score", "number")
    broken = (Rule("ExpectColumnValuesToMatchRegex", column, (("regex", "("),)),)
    monkeypatch.setattr(suite, "rules_of", lambda *_: broken)

    with pytest.raises(MlmonError, match="could not be evaluated"):
        judge([_draft(tmp_path, events(3))], SPEC, "predictions")


def test_rules_about_whole_columns_are_evaluated_once_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [
        _draft(tmp_path, events(3, age=[None] * 3), "a"),
        _draft(tmp_path, events(3), "b"),
        _draft(tmp_path, events(3, score=[0.1, 7.0, 0.1]), "c"),
    ]
    asked: list[list[str]] = []
    run = suite.run_suite

    def noting(frame: pd.DataFrame, rules: list[object]) -> object:
        asked.append([f"{type(r).__name__} {r.column}" for r in rules])  # type: ignore[attr-defined]
        return run(frame, rules)  # type: ignore[arg-type]

    monkeypatch.setattr(suite, "run_suite", noting)
    held: set[int] = set()

    *_, last = [judge([draft], SPEC, "predictions", held)[0] for draft in drafts]

    of_type = "ExpectColumnValuesToBeOfType age"
    assert [of_type in rules for rules in asked] == [False, True, False], "once it has a value"
    assert {rule.split()[0] for rule in asked[2]} == {
        "ExpectColumnValuesToNotBeNull", "ExpectColumnValuesToBeBetween",
        "ExpectColumnValuesToBeInSet",
    }  # fmt: skip
    assert [fault.rows.tolist() for fault in last.faults] == [[1]]


def test_suite_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    draft = _draft(tmp_path, events(3))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    judge([draft], SPEC, "predictions")

    assert list((tmp_path / "home").iterdir()) == list((tmp_path / "tmp").iterdir()) == []
