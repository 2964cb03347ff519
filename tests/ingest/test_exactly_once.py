"""The store is a function of the set of files: any order, any repetition, any crash."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.state import manifest
from tests import crash_steps, forked
from tests.ingest.landing import (
    ACTUALS,
    LANDED,
    NOW,
    PREDICTIONS,
    World,
    credit_spec,
    csv_bytes,
    events,
    everything,
    ingest,
    jsonl_bytes,
    land,
    log_content,
    parquet_bytes,
    record_content,
    revisions,
    truths,
)

# Overlapping deliveries: repeated rows, rows logged differently, on another day, bad rows,
# ground truth before its prediction and in two versions, and a broken file.
FILES: dict[str, bytes] = {
    f"{PREDICTIONS}/a.parquet": parquet_bytes(events(12)),
    f"{PREDICTIONS}/b.csv": csv_bytes(events(12, first=6, day="2024-02-01")),
    f"{PREDICTIONS}/c.jsonl": jsonl_bytes(events(4, first=2, score=[0.9] * 4)),
    f"{PREDICTIONS}/d.csv": csv_bytes(events(3, first=4, day="2024-01-20")),
    f"{PREDICTIONS}/e.csv": csv_bytes(events(6, first=30, score=[7.0, 7.0, 0.1, 0.2, 0.3, 0.4])),
    f"{PREDICTIONS}/f.parquet": parquet_bytes(events(3))[:-7],
    f"{ACTUALS}/a.parquet": parquet_bytes(truths(14)),
    f"{ACTUALS}/b.csv": csv_bytes(truths(4, first=3, day="2024-02-08", defaulted=[1] * 4)),
    f"{ACTUALS}/c.csv": csv_bytes(truths(3, first=200)),
}
STEPS = [step for step in crash_steps.STEPS if step.startswith(("ingest.", "append."))]


def _land_all(project: Path) -> None:
    for name, content in FILES.items():
        land(project, name, content)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one undisturbed ingest of all files leaves behind."""
    root = tmp_path_factory.mktemp("clean")
    _land_all(root / "project")
    store = open_store(root / "store")
    report = ingest(store, credit_spec(), root / "project")
    assert len(report.of("done")) == 8
    found = everything(store, credit_spec())
    store.close()
    return found


def test_rows_of_every_file_add_up(clean: dict[str, Any]) -> None:
    for file in clean["files"]:
        counts = [int(file[c]) for c in ("n_new", "n_duplicate", "n_conflict", "n_bad")]
        assert int(file["rows_in"]) == sum(counts)
    assert clean["staging"] == []


def test_second_ingest_changes_nothing(world: World, clean: dict[str, Any]) -> None:
    _land_all(world.project)
    world.ingest()

    assert world.ingest().files == ()
    assert everything(world.store, credit_spec()) == clean


@pytest.mark.slow
def test_both_databases_hold_the_same_afterwards(
    any_store: Store, project: Path, clean: dict[str, Any]
) -> None:
    _land_all(project)
    ingest(any_store, credit_spec(), project)

    assert everything(any_store, credit_spec()) == clean


def test_same_bytes_under_other_names_add_nothing(world: World, clean: dict[str, Any]) -> None:
    _land_all(world.project)
    world.ingest()
    for name, content in FILES.items():
        if "/a." in name or "/b." in name:
            world.land(name.replace("/a.", "/copy_a.").replace("/b.", "/copy_b."), content)

    report = world.ingest()

    assert {file.status for file in report.files} == {"duplicate"}
    assert len(report.files) == 4
    assert report.windows == []
    again = everything(world.store, credit_spec())
    assert {k: v for k, v in again.items() if k != "paths"} == {
        k: v for k, v in clean.items() if k != "paths"
    }


@pytest.mark.parametrize("how", ["written in place", "renamed over it"])
def test_replaced_file_of_the_same_size_and_time_is_read(world: World, how: str) -> None:
    path = world.land(f"{PREDICTIONS}/a.csv", events(5))
    world.ingest()
    other = csv_bytes(events(5, version=["8"] * 5, id=[f"q{i}" for i in range(5)]))
    assert len(other) == path.stat().st_size
    if how == "renamed over it":
        world.land("elsewhere.csv", other).rename(path)
    else:
        world.land(f"{PREDICTIONS}/a.csv", other)
    assert path.stat().st_mtime == LANDED

    (file,) = world.ingest().files

    assert (file.status, file.n_new) == ("done", 5)
    assert world.ingest().files == ()


def test_many_small_files_are_one_commit_with_counters_of_their_own(world: World) -> None:
    for n in range(120):
        world.land(f"{PREDICTIONS}/{n:03}.csv", events(2, first=2 * n))
    world.land(f"{PREDICTIONS}/twice.csv", events(3))
    spec = credit_spec()

    report = world.ingest(spec)

    snapshot = world.store.event_log(spec).folders["predictions"].snapshot()
    assert snapshot is not None
    assert snapshot.version == 1  # after the empty one
    assert all(snapshot.has_transaction(file.sha256) for file in report.files)
    balance = [f.n_new + f.n_duplicate + f.n_conflict + f.n_bad == f.rows_in for f in report.files]
    assert all(balance)
    assert (len(balance), report.total("n_new"), report.total("n_duplicate")) == (121, 240, 3)


def test_a_call_that_runs_out_of_time_leaves_the_rest_and_says_so(world: World) -> None:
    spec = credit_spec()
    for n in range(3):
        world.land(f"{PREDICTIONS}/{n}.csv", events(4, first=4 * n))
        later = world.land(f"{ACTUALS}/{n}.csv", truths(4, first=4 * n))
        os.utime(later, (LANDED + 60, LANDED + 60))

    first = world.ingest(spec, time_is_up=lambda: True)
    left = manifest.load_backlog(world.store.state, spec.model)
    second = world.ingest(spec, time_is_up=lambda: True)

    assert {file.stream for file in first.files} == {"predictions"}  # which landed first
    assert (first.n_left, left["actuals"].n_left) == (3, 3)
    assert left["actuals"].left_since is not None
    assert {file.stream for file in second.files} == {"actuals"}
    assert second.n_left == 0
    assert manifest.load_backlog(world.store.state, spec.model) == {}


def test_a_call_with_little_time_asks_for_it_after_a_hundred_small_files(world: World) -> None:
    for n in range(110):
        world.land(f"{PREDICTIONS}/{n:03}.csv", events(1, first=n))
    spec = credit_spec()

    assert world.ingest(spec, time_is_up=lambda: True).n_left == 10
    assert world.ingest(spec, time_is_up=lambda: True).n_left == 0


def test_one_batch_and_single_files_lead_to_the_same_store(
    tmp_path: Path, clean: dict[str, Any]
) -> None:
    store = open_store(tmp_path / "store")
    _land_all(tmp_path / "project")
    left = [ingest(store, credit_spec(), tmp_path / "project", max_files=1).n_left for _ in FILES]
    assert left == list(range(len(FILES) - 1, -1, -1))

    again = everything(store, credit_spec())
    store.close()

    assert again["records"] == clean["records"]
    assert sorted(again["revisions"]) == sorted(clean["revisions"])


def test_conflicting_rows_are_kept_and_mark_all_their_windows(world: World) -> None:
    spec = credit_spec()
    world.land(f"{PREDICTIONS}/a.parquet", events(4, day="2024-02-05"))
    world.ingest(spec)
    world.land(f"{PREDICTIONS}/b.parquet", events(1, day="2024-02-03"))

    report = world.ingest(spec)

    assert (report.files[0].n_new, report.files[0].n_conflict) == (0, 1)
    assert [w.key for w in report.windows] == ["2024-02-03", "2024-02-05"]


def test_repeated_rows_within_one_file_are_counted_once(world: World) -> None:
    frame = events(6, id=["a", "a", "b", "b", "b", "c"])
    frame.loc[1] = frame.loc[0]
    file = world.take_in(frame, name="a.parquet")

    assert (file.rows_in, file.n_new, file.n_duplicate, file.n_conflict) == (6, 3, 1, 2)


def test_ids_that_differ_in_their_normal_form_are_two(world: World) -> None:
    spec = credit_spec()
    ids = ["caf\u00e9", "cafe\u0301"]  # the same to the eye
    world.land(f"{PREDICTIONS}/a.jsonl", events(2, id=ids, region=ids))
    world.land(f"{ACTUALS}/a.csv", truths(2, id=ids))

    report = world.ingest(spec)

    assert (report.total("n_new"), report.total("n_conflict")) == (4, 0)
    world.store.inference_records(spec).rebuild(report.windows)
    rows = world.store.inference_records(spec).read().to_pylist()
    assert {row["prediction_id"]: row["actual"] for row in rows} == dict(
        zip(ids, (0, 1), strict=True)
    )
    assert {row["region"] for row in rows} == {ids[0]}  # one category, however it is written
    erase(world.store, spec, ids[1:], now=NOW)
    left = world.store.event_log(spec).rows("predictions", ["prediction_id"])
    assert left["prediction_id"].to_pylist() == ids[:1]


def test_actual_before_its_prediction_waits_and_is_counted(world: World) -> None:
    spec = credit_spec()
    world.land(f"{ACTUALS}/a.parquet", truths(5))
    early = world.ingest(spec)
    world.land(f"{PREDICTIONS}/a.parquet", events(3))

    late = world.ingest(spec)

    assert (early.files[0].n_new, early.files[0].n_unmatched) == (5, 5)
    assert early.windows == []
    assert [w.key for w in late.windows] == ["2024-02-01"]
    (counts,) = world.store.inference_records(spec).rebuild(late.windows)
    assert (counts.n, counts.n_actual) == (3, 3)


def test_late_actual_marks_the_window_of_its_prediction(world: World) -> None:
    spec = credit_spec()
    world.land(f"{PREDICTIONS}/a.parquet", events(3))
    world.land(f"{PREDICTIONS}/b.parquet", events(3, first=50, day="2024-02-10"))
    world.ingest(spec)
    world.land(f"{ACTUALS}/a.parquet", truths(2, day="2024-02-28"))

    report = world.ingest(spec)

    assert [w.key for w in report.windows] == ["2024-02-01"]
    assert list(revisions(world.store, spec).values()) == [2, 1]


def ingest_until(root: Path, step: str, hit: int = 1) -> None:
    """Ingest below ``root`` and die, without any clean-up, when a step is reached again."""
    forked.die_at(step, hit)
    store = open_store(root / "store")
    ingest(store, credit_spec(), root / "project")
    store.close()


@pytest.mark.proof
@pytest.mark.parametrize("step", STEPS)
def test_ingest_killed_at_any_step_and_repeated_equals_an_undisturbed_one(
    tmp_path: Path, clean: dict[str, Any], step: str
) -> None:
    for hit in (1, 2):  # the predictions' batch, then the actuals'
        _land_all(tmp_path / "project")
        assert forked.ended(ingest_until, tmp_path, step, hit) == -9

        store = open_store(tmp_path / "store")
        ingest(store, credit_spec(), tmp_path / "project")
        found = everything(store, credit_spec())
        store.close()

        assert found == clean
        shutil.rmtree(tmp_path / "store")


def test_a_store_without_the_rows_that_its_database_knows_takes_in_nothing(
    tmp_path: Path, pg_url: str
) -> None:
    """Its disk is not mounted, or the database is another project's."""
    project = tmp_path / "project"
    _land_all(project)
    for folder in ("store", "elsewhere"):
        store = open_store(tmp_path / folder, pg_url)
        if folder == "store":
            ingest(store, credit_spec(), project)
        else:
            with pytest.raises(StoreError, match="Is the store's disk mounted") as error:
                ingest(store, credit_spec(), project)
            assert f"{tmp_path}/elsewhere/event_log/credit/" in str(error.value)
        store.close()


@pytest.mark.slow
def test_ingest_killed_at_every_step_in_turn_equals_an_undisturbed_one(
    tmp_path: Path, clean: dict[str, Any]
) -> None:
    _land_all(tmp_path / "project")
    killed = [forked.ended(ingest_until, tmp_path, step) for step in STEPS]
    assert killed.count(-9) >= 6

    store = open_store(tmp_path / "store")
    ingest(store, credit_spec(), tmp_path / "project")

    assert record_content(store, credit_spec()) == clean["records"]
    kept = log_content(store, credit_spec(), provenance=True)
    assert {k: len(v) for k, v in kept.items()} == {k: len(v) for k, v in clean["log"].items()}
    store.close()


@pytest.mark.slow
def test_landing_folder_emptied_after_a_crash_loses_nothing(
    tmp_path: Path, clean: dict[str, Any]
) -> None:
    _land_all(tmp_path / "project")
    assert forked.ended(ingest_until, tmp_path, "ingest.after_append", 2) == -9
    shutil.rmtree(tmp_path / "project" / "landing")

    store = open_store(tmp_path / "store")
    ingest(store, credit_spec(), tmp_path / "project")

    assert everything(store, credit_spec()) == clean
    store.close()


@pytest.mark.slow
def test_two_ingests_at_once_equal_one(tmp_path: Path, clean: dict[str, Any]) -> None:
    _land_all(tmp_path / "project")
    open_store(tmp_path / "store").close()
    both = [
        forked.processes().Process(target=ingest_until, args=(tmp_path, "never")) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()

    assert [process.exitcode for process in both] == [0, 0]
    store = open_store(tmp_path / "store")
    assert everything(store, credit_spec()) == clean
    store.close()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["copies lost", "spec changed"])
def test_rows_in_the_log_are_settled_even_if_their_file_cannot_be_read_again(
    tmp_path: Path, loss: str
) -> None:
    project, spec = tmp_path / "project", credit_spec()
    land(project, f"{PREDICTIONS}/a.parquet", events(12))
    assert forked.ended(ingest_until, tmp_path, "ingest.after_append") == -9
    shutil.rmtree(project / "landing")
    store = open_store(tmp_path / "store")
    if loss == "copies lost":
        shutil.rmtree(store.folder / "staging")
    else:
        spec = credit_spec(features__colour={"type": "categorical"})

    report = ingest(store, spec, project)

    (file,) = report.files
    assert (file.status, file.rows_in, file.n_new) == ("done", 12, 12)
    assert "an interrupted run had taken it in" in file.warnings[0]
    assert [w.key for w in report.windows] == ["2024-02-01"]
    assert len(revisions(store, spec)) == 1
    assert ingest(store, spec, project).files == ()
    store.close()


def test_file_that_vanishes_before_it_is_read_is_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlmon_dagster.ingest import cycle

    def fails(*_: object) -> None:
        raise RuntimeError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(cycle, "parse_file", fails)
        world.land(f"{PREDICTIONS}/a.parquet", events(3))
        assert world.ingest().files[0].status == "failed"
    shutil.rmtree(world.project / "landing")
    shutil.rmtree(world.store.folder / "staging")

    (file,) = world.ingest().files
    assert (file.status, "vanished" in file.message) == ("missing", True)
    assert world.ingest().files == ()

    world.land(f"{PREDICTIONS}/a.parquet", events(3))
    assert world.ingest().total("n_new") == 3


def test_every_step_is_tested() -> None:
    names = {"staged", "parsed", "validated", "before_append", "after_append",
             "before_manifest", "after_manifest"}  # fmt: skip
    assert {f"ingest.{name}" for name in names} <= set(STEPS)
