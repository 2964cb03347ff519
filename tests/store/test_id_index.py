"""The index of ids names every file that holds an id, whatever happened to it or to the log."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.store import Store
from mlmon_dagster.store.tables import id_index
from mlmon_dagster.store.tables.id_index import IdIndex, find_repeated
from tests.conftest import make_events, make_spec

SPEC = make_spec()
NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAYS = [f"2024-01-0{day}" for day in range(1, 8)]


@pytest.fixture(autouse=True)
def indexed_from_the_first_row(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(id_index, "SMALL_LOG", 0)
    return


def fill(store: Store, days: list[str] = DAYS) -> None:
    """Log six predictions a day, each day's file in a commit of its own and each looked up."""
    log = store.event_log(SPEC)
    for day in days:
        predictions, _ = make_events(SPEC, day, 6)
        log.append("predictions", predictions, [day])


def known(store: Store, ids: list[str]) -> set[tuple[str, str]]:
    found = store.event_log(SPEC).known_ids("predictions", pa.table({"prediction_id": ids}))
    return {(row["prediction_id"], row["window_date"]) for row in found.to_pylist()}


def test_of_many_small_files_only_those_with_an_id_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_index, "SMALL_LOG", 1_000)
    monkeypatch.setattr(id_index, "FEW_FILES", 5)
    index = IdIndex(SPEC.model, "predictions", store.queries)
    asked = pa.table({"prediction_id": ["2024-01-02-1", "nowhere"]})

    def read() -> tuple[int, int]:
        snapshot = store.event_log(SPEC).folders["predictions"].snapshot()
        assert snapshot is not None
        found = index.candidates(snapshot, asked)
        return len(found.files), found.ids.num_rows

    fill(store, DAYS[:4])
    assert read() == (4, 2)
    fill(store, DAYS[4:])
    assert read() == (1, 1)
    assert known(store, ASKED) == FOUND


def folder_of(store: Store) -> Path:
    return store.folder / "id_index" / SPEC.model / "predictions"


ASKED = ["2024-01-01-0", "2024-01-07-5", "2024-01-03-3", "nowhere"]
FOUND = {(name, name[:10]) for name in ASKED[:3]}


@pytest.mark.parametrize("has_come_meanwhile", [False, True])
def test_a_moved_id_is_noted_whether_it_was_known_or_came_between_lookup_and_append(
    store: Store, has_come_meanwhile: bool
) -> None:
    fill(store)
    log = store.event_log(SPEC)
    mine, theirs = (make_events(SPEC, f"2024-02-0{day}", 2)[0] for day in (1, 2))
    mine, theirs = (
        rows.set_column(0, "prediction_id", [[name, "new"]])
        for rows, name in ((mine, "2024-01-02-4"), (theirs, "other"))
    )
    log.known_ids("predictions", mine)
    if has_come_meanwhile:
        store.event_log(SPEC).append("predictions", theirs, ["theirs"])

    log.append("predictions", mine, ["mine"])

    moved = store.event_log(SPEC).pinned().moved_sql()
    expected = {("2024-01-02-4", "2024-01-02"), ("2024-01-02-4", "2024-02-01")}
    if has_come_meanwhile:
        expected |= {("new", "2024-02-01"), ("new", "2024-02-02")}
    assert {tuple(row.values()) for row in store.query(f"FROM {moved}").to_pylist()} == expected


def test_segments_of_one_size_are_merged_a_piece_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_index, "_WORDS_AT_ONCE", 5)
    days = [f"2024-0{1 + n // 28}-{1 + n % 28:02}" for n in range(30)]
    fill(store, days)
    known(store, ["nowhere"])

    assert len(list(folder_of(store).glob("*"))) < 8
    everyone = [f"{day}-{n}" for day in days for n in range(6)]
    assert known(store, everyone) == {(name, name[:10]) for name in everyone}


@pytest.mark.parametrize("harm", ["lost", "cut off", "of another engine"])
def test_the_index_is_made_anew_if_it_is(
    harm: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    known(store, ASKED)
    for path in folder_of(store).glob("*"):
        if harm == "cut off":
            path.write_bytes(path.read_bytes()[:-20])
    if harm == "lost":
        shutil.rmtree(folder_of(store))
    if harm == "of another engine":
        monkeypatch.setattr(id_index, "_name_hash", lambda: "another")

    assert known(store, ASKED) == FOUND


def test_words_of_files_that_are_gone_are_dropped(store: Store) -> None:
    fill(store)
    known(store, ASKED)
    folder = store.event_log(SPEC)._streams["predictions"]
    snapshot = folder.snapshot()
    assert snapshot is not None
    none = store.query(f"SELECT * FROM {snapshot.from_sql(where='FALSE')}").cast(snapshot.schema)
    snapshot.overwrite(none, "window_date = '2024-01-03'")

    assert known(store, ASKED) == FOUND - {("2024-01-03-3", "2024-01-03")}
    index = IdIndex(SPEC.model, "predictions", store.queries)
    assert sum(segment.words.size for segment in index._stored()) == 6 * (len(DAYS) - 1)


def test_an_id_is_repeated_among_the_asked_or_the_known() -> None:
    rng = np.random.default_rng(5)
    ids = [f"{n}" for n in rng.integers(0, 300, 400)]
    others = [f"{n}" for n in rng.integers(0, 300, 40)]

    mask = find_repeated(pa.table({"prediction_id": ids}), pa.table({"prediction_id": others}))

    expected = [ids.count(name) > 1 or name in others for name in ids]
    assert mask.tolist() == expected


def test_an_erasure_leaves_no_hash_of_an_id_in_the_index(store: Store) -> None:
    from mlmon_dagster.store.erasure.erase import erase

    fill(store)
    known(store, ASKED)

    erase(store, SPEC, ["2024-01-03-3"], now=NOW)

    assert not folder_of(store).exists()
    assert known(store, ASKED) == FOUND - {("2024-01-03-3", "2024-01-03")}
