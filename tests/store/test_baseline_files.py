"""What a baseline is made of lies in a file that its row names; no crash parts the two."""

from __future__ import annotations

import datetime as dt
import json
import signal
from pathlib import Path
from threading import Thread

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, baselines, open_store
from mlmon_dagster.store.baselines import StoredBaseline
from mlmon_dagster.store.state import writing
from mlmon_dagster.store.upkeep.maintenance import maintain
from tests import forked
from tests.conftest import make_spec

SPEC = make_spec()
NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
PAYLOAD = json.dumps({"binnings": [{"column": "region", "categories": ["Ströbeck", "Wien"]}]})


def save(store: Store, baseline_id: str = "a", payload: str = PAYLOAD, **more: str) -> None:
    kind = more.pop("kind", "dataset")
    baselines.save_baseline(store, SPEC.model, baseline_id, kind, payload, NOW, **more)  # type: ignore[arg-type]


def stored(store: Store, baseline_id: str = "a") -> StoredBaseline:
    found = baselines.load_newest(store.state, SPEC.model, baseline_id)
    assert found is not None
    return found


def files(store: Store) -> list[Path]:
    return sorted((store.root.path / "baselines" / SPEC.model).glob("*"))


def test_a_row_holds_the_hash_of_a_file_and_nothing_of_what_is_in_it(any_store: Store) -> None:
    save(any_store)
    [file] = files(any_store)

    assert stored(any_store).payload == json.dumps({"sha256": file.stem})
    assert file.read_text() == PAYLOAD
    assert baselines.read_payload(any_store, stored(any_store)) == PAYLOAD
    save(any_store)
    assert files(any_store) == [file]  # equal content is one file


def save_until(folder: Path, step: str) -> None:
    """Save a baseline, and die when the step is reached."""
    forked.die_at(step)
    save(open_store(folder))


@pytest.mark.parametrize(("step", "n_rows"), [("baseline.written", 0), ("baseline.named", 1)])
def test_killed_after_the_file_there_is_a_file_more_and_never_one_too_few(
    store: Store, step: str, n_rows: int
) -> None:
    assert forked.ended(save_until, store.folder, step) == -signal.SIGKILL

    assert len(files(store)) == 1
    found = baselines.load_newest(store.state, SPEC.model, "a")
    assert (found is not None) == n_rows
    assert len(baselines.tidy_files(store, SPEC.model)) == 1 - n_rows
    assert len(files(store)) == n_rows
    save(store)
    assert baselines.read_payload(store, stored(store)) == PAYLOAD


def test_the_upkeep_waits_for_a_row_that_is_about_to_name_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []
    upkeep = Thread(target=lambda: deleted.extend(baselines.tidy_files(store, SPEC.model)))

    def meanwhile(step: str) -> None:
        if step == "baseline.written":
            upkeep.start()
            upkeep.join(0.5)  # time enough to delete the file, were it not for the lock

    monkeypatch.setattr(writing, "on_reached", meanwhile)
    save(store)
    upkeep.join()

    assert deleted == []
    assert baselines.read_payload(store, stored(store)) == PAYLOAD


def test_maintenance_tells_and_deletes_what_no_row_names(store: Store) -> None:
    save(store)
    save(store, payload='{"binnings": []}')  # the same baseline; its first file has no row now
    folder = store.root.path / "baselines" / SPEC.model
    (folder / ".0.json.1.partial").write_text("of a writer that died")
    what = "files of baselines that nothing names"

    told = {removal.what: removal.files for removal in maintain(store, SPEC, NOW, dry_run=True)}
    assert (told[what], len(list(folder.iterdir()))) == (2, 3)
    assert {r.what: r.files for r in maintain(store, SPEC, NOW)} == told
    assert [file.read_text() for file in folder.iterdir()] == ['{"binnings": []}']
    assert maintain(store, SPEC, NOW) == []


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_file_that_is_not_whole_is_named_with_the_way_back(
    store: Store, content: str | None
) -> None:
    save(store)
    save(store, "p", '{"binnings": []}', kind=baselines.PROMOTED)
    for file in files(store):
        file.unlink() if content is None else file.write_text(content)

    assert baselines.read_whole_payload(store, stored(store)) is None
    with pytest.raises(StoreError) as caught:
        baselines.read_payload(store, stored(store))
    assert str(caught.value) == (
        f"The bins of baseline a of model 'credit' cannot be read. Expected the file "
        f"{baselines.locate_file(store, SPEC.model, stored(store).payload)}: "
        f"{'there is none' if content is None else 'its content is not what was written'}. "
        "Bring that file back from a backup, or materialize the asset 'baseline' again "
        "(mlmon run credit does)."
    )
    with pytest.raises(StoreError, match=r"or promote its period once more \(mlmon baseline list"):
        baselines.read_payload(store, stored(store, "p"))


def test_erased_names_leave_every_baseline_of_the_dataset_and_no_key(any_store: Store) -> None:
    content = {
        "binnings": [
            {"column": "Ann", "categories": ["Ann", "Bob", "Annabel"], "tail": ["Cid"]},
            {"column": "Ann", "edges": [0.1, 2e-300]},
        ]
    }
    save(any_store, payload=json.dumps(content), dataset="production")
    save(any_store, "other", json.dumps(content), dataset="validation")
    assert baselines.redact_names(any_store, SPEC.model, ["production"], ["Ann", "Cid"]) == 1
    assert baselines.redact_names(any_store, SPEC.model, ["production"], ["Bob"]) == 1

    left = json.loads(baselines.read_payload(any_store, stored(any_store)))
    assert left["binnings"] == [
        {
            "column": "Ann",
            "categories": ["[erased]", "[erased 2]", "Annabel"],
            "tail": ["[erased]"],
        },
        content["binnings"][1],
    ]
    assert json.loads(baselines.read_payload(any_store, stored(any_store, "other"))) == content
    assert len(files(any_store)) == 2
    assert baselines.redact_names(any_store, SPEC.model, ["production"], ["Bob"]) == 0
