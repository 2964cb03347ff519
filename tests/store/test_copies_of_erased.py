"""An erased id is in no copy of a landing file, however that was packed, and `--prove` is right."""

import datetime as dt
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest import readers
from mlmon_dagster.ingest.cycle import ingest_new
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.erasure import erase, ledger
from mlmon_dagster.store.erasure.places import find_traces
from mlmon_dagster.store.state import writing
from mlmon_dagster.store.tables.kept_rows import unpack, word_finder
from mlmon_dagster.store.upkeep.backup import make_backup, restore_backup
from mlmon_dagster.store.upkeep.integrity import repair_model
from tests.conftest import make_events, window
from tests.ingest.landing import NOW, PREDICTIONS, credit_spec, events, land
from tests.proof.packed_copies import PACKINGS, SPEC, TEXTS, erase_among_copies

LATER = NOW + dt.timedelta(days=1)


@pytest.mark.parametrize("seed", range(3))
def test_no_copy_that_names_an_erased_id_is_left_and_no_other_one_that_can_be_read_goes(
    store: Store, seed: int
) -> None:
    found = erase_among_copies(store, random.Random(seed), 70)
    assert found.n_named > 20
    assert (found.back, found.lost, found.traces) == ((), (), ())


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_a_packing_holds_is_found_or_said_to_be_unread(packing: str) -> None:
    rows = [{"id": "Zoë-4711", "score": "0.5"}]
    for text, write in TEXTS.items():
        layers = unpack(PACKINGS[packing](write(rows)))
        assert any(map(word_finder(["Zoë-4711"]), layers.parts)) or not layers.is_whole, text


def test_a_thousand_numbers_as_ids_are_never_found_where_they_are_sizes_and_counts(
    store: Store,
) -> None:
    log = store.event_log(SPEC)
    windows = [window(SPEC, f"2024-01-0{day}") for day in (1, 2)]
    for number, day in enumerate(("2024-01-01", "2024-01-02")):
        predictions, actuals = make_events(SPEC, day, 300, seed=number, prefix=f"{number}-")
        log.append("predictions", predictions, [f"p-{day}"])
        log.append("actuals", actuals, [f"a-{day}"])
    store.inference_records(SPEC).rebuild(windows)
    numbers = [str(n) for n in range(1_000)]
    erase.erase(store, SPEC, numbers, now=NOW)
    assert find_traces(store, numbers).traces == ()
    some = store.inference_records(SPEC).read()["prediction_id"].to_pylist()[0]
    assert find_traces(store, [some]).traces  # and what is there is found


def test_a_number_is_found_as_a_whole_id_and_never_inside_another(store: Store) -> None:
    predictions, _ = make_events(SPEC, "2024-01-01", 180)
    numbers = pa.array([str(n) for n in range(180)])
    place = predictions.schema.get_field_index("prediction_id")
    rows = predictions.set_column(place, "prediction_id", numbers)
    store.event_log(SPEC).append("predictions", rows, ["a"])
    assert find_traces(store, ["17"]).traces
    erase.erase(store, SPEC, ["17"], now=NOW)
    proof = find_traces(store, ["17"])
    assert (proof.traces, proof.n_common) == ((), 1)
    assert find_traces(store, ["170"]).traces


def test_damaged_refused_rows_go_with_an_erasure(store: Store) -> None:
    folder = Path(str(store.root)) / "quarantine" / SPEC.model
    folder.mkdir(parents=True)
    (folder / "abc.predictions.rows.parquet").write_bytes(b"PAR1 and then no more")
    erase.erase(store, SPEC, ["p3"], now=NOW)
    assert list(folder.iterdir()) == []


def ingest(store: Store, project: Path, now: dt.datetime) -> None:
    ingest_new(store, credit_spec(), project, readers(project), now=now)


def ids(store: Store) -> set[str]:
    return set(store.event_log(credit_spec()).rows("predictions")["prediction_id"].to_pylist())


def taken_in(folder: Path) -> Store:
    """Open a store that has taken ten events in."""
    land(folder, f"{PREDICTIONS}/a.parquet", events(10))
    store = open_store(folder / "store")
    ingest(store, folder, NOW)
    return store


@pytest.mark.parametrize("older", ["state database", "tables"])
def test_an_older_state_database_or_older_tables_bring_nobody_back(
    tmp_path: Path, older: str
) -> None:
    taken_in(tmp_path).close()
    shutil.copytree(tmp_path / "store", tmp_path / "older")
    store = open_store(tmp_path / "store")
    erase.erase(store, credit_spec(), ["p3"], now=NOW)
    store.close()
    for home, other in (("store", None), ("older", "store")):
        for part in (tmp_path / home).iterdir():
            if part.name.startswith("state.db") != (older == "state database"):
                continue
            if other is not None:
                part.rename(tmp_path / other / part.name)
            elif part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()
    land(tmp_path, f"{PREDICTIONS}/again.parquet", events(10))

    store = open_store(tmp_path / "store")
    with pytest.raises(StoreError, match="not of the same moment"):
        ingest(store, tmp_path, LATER)
    repair_model(store, credit_spec(), tmp_path, LATER)
    ingest(store, tmp_path, LATER)

    assert "p3" not in ids(store)
    assert find_traces(store, ["p3"]).traces == ()
    (row,) = erase.load_receipts(store.state, "credit")
    assert (row["n_ids"], row["finished_at"]) == (1, LATER)
    store.close()


def test_a_database_without_the_key_of_the_list_is_refused_in_words(tmp_path: Path) -> None:
    store = taken_in(tmp_path)
    erase.erase(store, credit_spec(), ["p3"], now=NOW)
    store.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (tmp_path / "store" / name).unlink(missing_ok=True)
    for folder in ("event_log", "inference_records"):
        shutil.rmtree(tmp_path / "store" / folder, ignore_errors=True)
    store = open_store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"nor the key of its ids.*mlmon erase credit"):
        repair_model(store, credit_spec(), tmp_path, LATER)
    store.close()


def test_a_backup_from_before_an_erasure_brings_nobody_back_in_the_same_place(
    tmp_path: Path,
) -> None:
    store = taken_in(tmp_path)
    make_backup(store, tmp_path / "before.tar.gz", NOW, None)
    erase.erase(store, credit_spec(), ["p3"], now=NOW)
    store.close()
    (tmp_path / "store").rename(tmp_path / "moved away")

    store = open_store(tmp_path / "store", is_restoring=True)
    restore_backup(store, tmp_path / "before.tar.gz", None, LATER)
    assert "p3" in ids(store)
    ingest(store, tmp_path, LATER)

    assert "p3" not in ids(store)
    store.close()


def test_lists_of_erasures_of_another_place_are_taken_over(tmp_path: Path) -> None:
    store = taken_in(tmp_path)
    make_backup(store, tmp_path / "before.tar.gz", NOW, None)
    erase.erase(store, credit_spec(), ["p3"], now=NOW)
    store.close()

    other = open_store(tmp_path / "elsewhere", is_restoring=True)
    assert ledger.take_lists(other, tmp_path / "store" / "erasures") == 1
    restore_backup(other, tmp_path / "before.tar.gz", None, LATER)
    ingest(other, tmp_path, LATER)

    assert "p3" not in ids(other)
    other.close()


def test_an_erasure_whose_process_died_is_finished_by_the_next_ingest(
    store: Store, tmp_path: Path
) -> None:
    land(tmp_path, f"{PREDICTIONS}/a.parquet", events(10))
    ingest(store, tmp_path, NOW)
    note_erasure_without_doing_it(store, "p3")
    ingest(store, tmp_path, LATER)
    assert "p3" not in ids(store)
    assert [row["finished_at"] for row in erase.load_receipts(store.state, "credit")] == [LATER]


def note_erasure_without_doing_it(store: Store, id_: str) -> None:
    def die(step: str) -> None:
        if step == "erase.noted":
            raise KeyboardInterrupt

    writing.on_reached = die
    try:
        with pytest.raises(KeyboardInterrupt):
            erase.erase(store, credit_spec(), [id_], now=NOW)
    finally:
        writing.on_reached = None
