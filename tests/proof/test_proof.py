"""The proofs of the store, in small; `python -m tests.proof` runs them in full.

The rooms' own tests claim the same of less: kills in `tests/ingest/test_exactly_once.py`, order in
`tests/store/test_order.py`, answers of `mlmon collect` in `tests/push`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.collect import openapi
from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest.landing import hash_landed
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.upkeep.integrity import repair_model
from tests import forked
from tests.conftest import new_database
from tests.ingest.landing import (
    NOW,
    credit_spec,
    events,
    ingest,
    land,
    record_content,
    truths,
)
from tests.proof import (
    any_order,
    csv_damage,
    documented,
    failing,
    faults,
    generated,
    histories,
    jumping_clocks,
    killing,
    restored,
    spec_space,
    together,
    world,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a baseline, to copy."""
    return world.make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def context() -> Any:
    """What forks processes."""
    return forked.processes()


@pytest.mark.proof
def test_any_order_repetition_split_and_kill_end_in_the_fold_of_the_stream(template: Path) -> None:
    assert any_order.examples(template, 3)["examples"] >= 3


def test_a_window_that_loses_its_last_record_says_that_it_has_none(template: Path) -> None:
    later, earlier = world.Predicted("a", 2, 1), world.Predicted("a", 1, 1)
    measured = [later, world.Predicted("b", 3, 0), world.Predicted("c", 3, 0)]

    any_order.check(template, [(measured, None), ([earlier], None)], Counter())


@pytest.mark.proof
def test_killed_at_named_steps_nothing_is_lost_or_doubled(template: Path, context: Any) -> None:
    killed = killing.kill_round(context, template, 0, any_order.STEPS)

    assert killed.total() >= len(any_order.STEPS) - 1  # nothing to erase may be there yet


def small(project: Path) -> None:
    """Land one file of each stream."""
    land(project, "landing/predictions/a.parquet", events(6))
    land(project, "landing/actuals/a.parquet", truths(6))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The calls of an undisturbed ingest and what it leaves."""
    return failing.calls_of(tmp_path_factory.mktemp("clean"), small)


@pytest.mark.proof
def test_a_call_that_fails_once_changes_nothing_in_the_end(
    clean: tuple[list[str], dict[str, Any]], context: Any, tmp_path: Path
) -> None:
    calls, expected = clean
    open_store(tmp_path / "template").close()

    assert len(set(calls)) >= 8
    for n in range(3, len(calls), len(calls) // 3):
        found = failing.fails_once(context, tmp_path / "template", tmp_path / "one", small, n)
        assert found == expected, f"call {n}, {calls[n - 1]}"


@pytest.mark.proof
@pytest.mark.skipif(bool(faults.why_not()), reason=faults.why_not() or "never")
def test_a_full_disk_at_a_call_of_native_code_changes_nothing_in_the_end(tmp_path: Path) -> None:
    found = faults.run_faults(tmp_path, "ENOSPC", [90], until="rebuild")

    assert found["calls"] > 100
    assert found["tried"] == found["failed"] == 1
    assert found["different"] == []
    assert found["traceback"] == []
    assert found["silent"] == []


def test_a_day_that_dies_is_told_with_its_last_words() -> None:
    died = faults._forked(lambda: [][0])

    assert died["died"] == 1
    assert "IndexError: list index out of range" in died["stderr"]


@pytest.mark.proof
def test_two_ingests_and_three_readers_at_once_see_whole_batches(
    template: Path, context: Any, tmp_path: Path
) -> None:
    found = together.all_at_once(context, template, tmp_path, 4)

    assert found["errors"] == []
    assert found["torn"] == 0
    assert found["batches"] >= 2
    assert found["stored"] == found["records"] == found["batches"] * together.ROWS
    assert found["unbalanced"] == []


@pytest.mark.proof
def test_a_generated_model_takes_in_three_rounds_of_files_as_its_events_say(
    tmp_path: Path,
) -> None:
    [choice] = spec_space.choices(1, 7)
    (tmp_path / "project").mkdir()
    store = open_store(tmp_path / "store")
    model = generated.Generated(choice, 0, store, tmp_path / "project")

    found = model.run()
    model.oracle.predictions.popitem()  # it would be seen
    model.check()
    store.close()

    assert found.problems.keys() == {"differences"}
    assert len(found.problems["differences"]) == 1
    assert (found.n_rounds, found.n_refused > 0, found.n_verdicts > 0) == (3, True, True)
    assert found.n_back == 3


def test_generated_specs_combine_every_option_and_nothing_that_clashes() -> None:
    chosen = list(spec_space.choices(16, 3))  # two zones more need a few more specs

    assert all(
        {choice[name] for choice in chosen} == set(options)
        for name, options in spec_space.DIMENSIONS.items()
    )
    assert set().union(*map(spec_space.pairs_of, chosen)) <= spec_space.every_pair()


def taken_in(store: Store, project: Path) -> dict[str, Any]:
    """Ingest some files that are in the landing folder; return what is left behind."""
    small(project)
    ingest(store, credit_spec(), project)
    return failing.left_behind(store)


def test_a_lost_state_database_is_noticed_and_filled_again_from_landing_files(
    tmp_path: Path,
) -> None:
    store, project = open_store(tmp_path / "store"), tmp_path / "project"
    before = taken_in(store, project)
    store.close()
    for path in (tmp_path / "store").glob("state.db*"):
        path.unlink()

    store = open_store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"the database was lost.*mlmon store repair credit"):
        taken_in(store, project)
    spec = credit_spec()
    landed = partial(hash_landed, project, [source for _, source in spec.source])
    repair_model(store, spec, project, NOW, landed=landed)
    after = taken_in(store, project)
    store.close()

    assert after == before


def test_lost_records_are_the_same_once_rebuilt(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    before = taken_in(store, tmp_path / "project")
    shutil.rmtree(tmp_path / "store" / "inference_records")

    assert record_content(store, credit_spec()) == before["records"]
    store.close()


@pytest.mark.proof
@pytest.mark.parametrize(("world", "corners"), [("token", True), ("full", False)])
def test_collect_answers_nothing_that_its_document_does_not_have(
    tmp_path: Path, world: str, corners: bool
) -> None:
    found = documented.ask(tmp_path, world, 4, 1, corners=corners)

    assert found.problems == {}
    assert {400, 422, 415, 401, 202} <= set(found.statuses) or not corners
    assert found.statuses[429] > 0 or corners


@pytest.mark.proof
def test_an_answer_that_the_document_does_not_have_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi, "_HEADERS_ONLY", openapi._HEADERS_ONLY | {"malformed"})

    found = documented.ask(tmp_path, "full", 4, 1, corners=False)

    assert {name.rpartition(": ")[2] for name in found.problems} == {"status_code_conformance"}


def test_no_line_of_a_csv_file_of_any_dialect_and_damage_vanishes(tmp_path: Path) -> None:
    found = csv_damage.read_files(tmp_path, 150, 20_240_210)

    assert set(found) == {"files", "rows", "refused", "sniffed"}, list(found)
    assert found["refused"] > 0


@pytest.mark.proof
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_copies_of_different_days_are_noticed_and_mended_and_bring_nobody_back(
    tmp_path: Path, postgres_server: str, database: str
) -> None:
    copy = partial(new_database, postgres_server) if database == "postgres" else None

    found = restored.try_mixtures(tmp_path, 3, 20_240_210, copy)

    assert (found.n_noticed, found.n_back, found.different) == (3, 0, [])


@pytest.mark.proof
def test_a_clock_that_jumps_loses_repeats_deletes_and_hides_nothing(tmp_path: Path) -> None:
    found = jumping_clocks.play_beside_calm(tmp_path, 5, [8], n_days=3)

    assert {kind: found[kind] for kind in jumping_clocks.KINDS} == dict.fromkeys(
        jumping_clocks.KINDS, 0
    )
    assert (found["jumps"], found["episodes told"] > 0, found["windows"]) == (8, True, 3)


@pytest.mark.parametrize("kind", histories.KINDS)
def test_no_row_of_a_drawn_history_of_a_source_is_missed_without_a_word(
    kind: str, tmp_path: Path, empty_store: Path, pg_url: str
) -> None:
    found = histories.live(tmp_path / "lived", empty_store, kind, 1, pg_url, 6)

    assert found.n_rows > 0
    assert found.wrong == []
