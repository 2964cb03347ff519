"""The user's own Great Expectations: what is refused of them, and what becomes of rows."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from mlmon_dagster.ingest.declared_columns import reading_of
from mlmon_dagster.ingest.rows import expectations
from mlmon_dagster.ingest.rows.expectations import expectation_problems
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    World,
    credit_spec,
    events,
    truths,
)

CLASSES = "tests.ingest.expectation_classes"
REGEX: dict[str, Any] = {
    "expect": "expect_column_values_to_match_regex",
    "arguments": {"column": "region", "regex": "^(north|south)$"},
}
PAIR: dict[str, Any] = {
    "expect": "expect_column_pair_values_a_to_be_greater_than_b",
    "arguments": {"column_A": "age", "column_B": "latency_ms"},
}
MEAN: dict[str, Any] = {
    "expect": "expect_column_mean_to_be_between",
    "arguments": {"column": "age", "max_value": 3},
}


def spec_with(*expectations: dict[str, Any], **changes: Any) -> ModelSpec:
    return credit_spec(expectations=list(expectations), **changes)


def results_of(store: Store, spec: ModelSpec, stream: str = "predictions") -> list[dict[str, Any]]:
    (report,) = manifest.load_files_frame(store.state, spec.model, stream)["schema_report"]
    found: list[dict[str, Any]] = json.loads(report)["expectations"]
    return found


@pytest.mark.parametrize(
    ("expectation", "where", "said"),
    [
        ({**REGEX, "expect": "expect_column_values_to_match_regexp"}, ("expect",),
         "closest are expect_column_values_to_match_regex,"),
        ({**REGEX, "expect": "expect_query_results_to_match_comparison"}, ("expect",), "has no"),
        ({**REGEX, "expect": f"{CLASSES}:Nobody"}, ("expect",), "cannot be imported"),
        ({**REGEX, "expect": f"{CLASSES}:NOT_A_CLASS"}, ("expect",), "not a class of expect"),
        ({**REGEX, "arguments": {"column": "regoin", "regex": "x"}}, ("arguments", "column"),
         "'regoin' is not a column of predictions; did you mean 'region'?"),
        ({**REGEX, "arguments": {"column": "version", "regex": "x"}}, ("arguments", "column"),
         "here it is 'model_version'"),
        ({**REGEX, "arguments": {"column": "region", "regx": "x"}}, ("arguments", "regx"),
         "no argument 'regx'; did you mean 'regex'?"),
        ({**REGEX, "arguments": {"column": "region", "regex": "("}}, ("arguments", "regex"),
         "not a regular expression"),
        ({**REGEX, "arguments": {"regex": "x"}}, ("arguments",), "'column' is missing"),
        ({**MEAN, "arguments": {"column": "age", "max_value": "many"}},
         ("arguments", "max_value"), "not a valid float"),
        ({**MEAN, "severity": "refuse"}, ("severity",), "finds no rows to refuse"),
        ({**MEAN, "arguments": {**MEAN["arguments"], "meta": {}}}, ("arguments", "meta"),
         "not for a spec to say"),
    ],
)  # fmt: skip
def test_what_the_library_would_refuse_is_said_with_its_place(
    expectation: dict[str, Any], where: tuple[str, ...], said: str
) -> None:
    problems = expectation_problems(spec_with(REGEX, expectation))

    assert (("expectations", 1, *where), True) in [(p.path, said in p.message) for p in problems]


@pytest.mark.parametrize(
    ("expectation", "changed", "bad"),
    [
        (REGEX, {"region": ["north", "west", "south", "eats"]}, [1, 3]),
        (PAIR, {"age": [99.0, 99.0, 1.0, 99.0]}, [2]),
        ({"expect": f"{CLASSES}:ExpectAnAdult"}, {"age": [17.0, 18.0, None, 40.0]}, [0]),
    ],
)
def test_rows_that_an_expectation_refuses_go_to_quarantine_and_the_others_are_kept(
    world: World,
    expectation: dict[str, Any],
    changed: dict[str, Any],
    bad: list[int],
) -> None:
    spec = spec_with({**expectation, "severity": "refuse"})
    file = world.take_in(events(4, **changed), spec, name="a.parquet")

    assert (file.status, file.n_bad, file.n_new) == ("done", len(bad), 4 - len(bad))
    letters = world.letters(spec)
    assert {row["reason"] for row in letters} == {"expectation"}
    assert [int(row["row_number"]) for row in letters] == bad
    assert expectation["expect"] in letters[0]["message"]
    (result,) = results_of(world.store, spec)
    assert (result["kept"], result["rows"], result["unexpected"]) == (False, 4, len(bad))


def test_a_warning_keeps_the_rows_and_shows_values_of_open_columns_only(world: World) -> None:
    spec = spec_with(
        REGEX,
        {"expect": f"{CLASSES}:ExpectAnAdult"},
        MEAN,
        features__region__pii=False,
        features__age__pii=True,
    )
    file = world.take_in(events(4, region=["west"] * 4, age=[17.0] * 4), spec, name="a.parquet")

    assert (file.n_new, file.n_bad) == (4, 0)
    regex, adult, mean = results_of(world.store, spec)
    assert (regex["unexpected"], regex["values"]) == (4, ["west"])
    assert (adult["unexpected"], adult["values"]) == (4, [])
    assert (mean["kept"], mean["unexpected"], mean["values"]) == (False, None, [])


@pytest.mark.parametrize("pii", [True, False])
def test_what_cannot_be_evaluated_is_a_result_that_quotes_no_personal_value(
    world: World, pii: bool
) -> None:
    spec = spec_with(
        {"expect": f"{CLASSES}:ExpectTooMuch", "severity": "refuse"},
        {**REGEX, "expect": "expect_no_such_thing"},
        REGEX,
        features__age__pii=pii,
    )
    file = world.take_in(events(4), spec, name="a.parquet")

    assert (file.status, file.n_new) == ("done", 4)
    found = {one["expectation"]: one for one in results_of(world.store, spec)}
    broken = found[f"{CLASSES}:ExpectTooMuch"]
    assert not broken["kept"]
    assert ("31.0" in broken["error"]) is not pii
    assert "has no 'expect_no_such_thing'" in found["expect_no_such_thing"]["error"]
    assert found[REGEX["expect"]]["kept"]


def test_rows_that_are_bad_already_are_not_judged(world: World) -> None:
    spec = spec_with({**REGEX, "severity": "refuse"})
    frame = events(4, region=["west", "north", "north", "north"], score=[7.0, 0.1, 0.1, 0.1])
    world.land(f"{PREDICTIONS}/a.parquet", frame)

    world.ingest(spec)

    assert {row["reason"] for row in world.letters(spec)} == {"score_out_of_range"}
    assert results_of(world.store, spec)[0]["rows"] == 3


def test_only_what_refuses_rows_decides_whether_they_are_read_again() -> None:
    plain, warned = credit_spec(), spec_with(REGEX)
    refusing = spec_with({**REGEX, "severity": "refuse"})

    digests = [reading_of(spec, "predictions") for spec in (plain, warned, refusing)]

    assert digests[0] == digests[1] != digests[2]


def test_ground_truth_has_expectations_of_its_own(world: World) -> None:
    values = {"expect": "expect_column_values_to_be_in_set", "stream": "actuals",
              "arguments": {"column": "actual", "value_set": [0.0]}}  # fmt: skip
    spec = spec_with({**values, "severity": "refuse"})
    world.land(f"{ACTUALS}/a.parquet", truths(4))

    (file,) = world.ingest(spec).files

    assert (file.n_bad, file.n_new) == (2, 2)
    assert results_of(world.store, spec, "actuals")[0]["columns"] == ["actual"]


def test_a_process_that_was_killed_is_started_again(world: World) -> None:
    assert expectation_problems(spec_with(REGEX)) == []
    os.kill(expectations._WORKER.start().pid, signal.SIGKILL)
    world.land(f"{PREDICTIONS}/a.parquet", events(4))

    world.ingest(spec_with(REGEX))

    assert results_of(world.store, spec_with(REGEX))[0]["kept"]


@pytest.mark.proof
def test_a_process_that_ends_whenever_it_judges_is_a_result_and_the_rows_are_taken(
    world: World,
) -> None:
    spec = spec_with({"expect": f"{CLASSES}:ExpectToDie", "severity": "refuse"}, REGEX)
    file = world.take_in(events(4), spec, name="a.parquet")

    assert (file.status, file.n_new, file.n_bad) == ("done", 4, 0)
    errors = [one["error"] for one in results_of(world.store, spec)]
    assert errors == ["Great Expectations ended with exit code 3 while it judged these rows"] * 2


def test_a_library_that_cannot_be_imported_is_tried_once_and_is_a_result(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = world.project / "broken" / "great_expectations"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(broken.parent)
    monkeypatch.setattr(expectations, "_WORKER", expectations._Worker())
    for n_rows in (4, 5):
        world.land(f"{PREDICTIONS}/{n_rows}.parquet", events(n_rows))
        (file,) = world.ingest(spec_with(REGEX)).files
        assert file.status == "done"

    reports = manifest.load_files_frame(world.store.state, spec_with(REGEX).model, "predictions")[
        "schema_report"
    ]
    errors = {json.loads(report)["expectations"][0]["error"] for report in reports}
    assert errors == {expectations._BROKEN}
    assert capfd.readouterr().err.count("ImportError: no such library") == 1


def test_the_process_of_a_parent_is_not_asked_by_its_fork() -> None:
    before = expectations._WORKER.start().pid
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(expectations._WORKER.start().pid).encode())
        expectations._WORKER.stop()
        os._exit(0)
    os.waitpid(child, 0)

    assert int(os.read(reader, 100)) != before == expectations._WORKER.start().pid


UNIQUE: dict[str, Any] = {
    "expect": "expect_column_values_to_be_unique", "arguments": {"column": "age"}
}  # fmt: skip


@pytest.mark.parametrize("more", [[], [UNIQUE]])
def test_files_that_come_together_are_judged_each_alone(
    world: World, more: list[dict[str, Any]]
) -> None:
    spec = spec_with({**REGEX, "severity": "refuse"}, *more, features__region__pii=False)
    for name, regions in (("a", ["north"] * 3), ("b", ["eats", "north", "west"])):
        frame = events(3, region=regions, age=[1.0, 2.0, 3.0], prediction_id=list(name * 3))
        frame["prediction_id"] += frame.index.astype(str)
        world.land(f"{PREDICTIONS}/{name}.parquet", frame)

    world.ingest(spec)

    files = manifest.load_files_frame(world.store.state, spec.model, "predictions").sort_values(
        "path"
    )
    a, b = (json.loads(report)["expectations"] for report in files["schema_report"])
    assert (a[0]["kept"], a[0]["unexpected"], b[0]["unexpected"]) == (True, 0, 2)
    assert b[0]["values"] == ["eats", "west"]
    assert [int(row["row_number"]) for row in world.letters(spec)] == [0, 2]
    assert all(one["kept"] for one in [*a[1:], *b[1:]])
