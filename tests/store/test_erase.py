"""An erased prediction leaves no trace in the store, whatever happens on the way."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, baselines, open_store
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.erasure.places import find_places, find_traces
from mlmon_dagster.store.places.objects import place_of
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.window_state import load
from mlmon_dagster.store.tables.columns import PARTITION_BY
from mlmon_dagster.store.tables.delta import Conflict, DeltaFolder
from tests import crash_steps, forked
from tests.conftest import make_events, make_spec, window

SPEC = make_spec(
    features={
        "age": {"type": "numeric", "min": 0},
        "region": {"type": "categorical"},
    }
)
NOW = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
WINDOWS = [window(SPEC, f"2024-01-0{day}") for day in (1, 2)]
CANARY, VALUE = "canary-4711", "Atlantis-4711"
STEPS = [step for step in crash_steps.STEPS if step.startswith("erase.")]


def fill(store: Store, datasets: tuple[str, ...] = ("production",)) -> None:
    """Store two days, in several versions, one row of which is the canary's."""
    log = store.event_log(SPEC)
    for dataset in datasets:
        for number, day in enumerate(("2024-01-01", "2024-01-02")):
            predictions, actuals = make_events(SPEC, day, 12, seed=number, dataset=dataset)
            if number == 0:
                predictions, actuals = (with_canary(t) for t in (predictions, actuals))
            log.append("predictions", predictions, [f"{dataset}-{day}"])
            store.inference_records(SPEC).rebuild(WINDOWS)
            if dataset == datasets[0]:
                log.append("actuals", actuals, [f"actuals-{day}"])
            store.inference_records(SPEC).rebuild(WINDOWS)
        payload = f'{{"binnings": [{{"column": "region", "categories": ["north", "{VALUE}"]}}]}}'
        baselines.save_baseline(
            store, SPEC.model, dataset, "promoted", payload, NOW, dataset=dataset
        )


def with_canary(rows: pa.Table) -> pa.Table:
    ids = rows.column("prediction_id").to_pylist()
    rows = rows.set_column(
        rows.schema.get_field_index("prediction_id"),
        "prediction_id",
        pa.array([*ids[:3], CANARY, *ids[4:]]),
    )
    if "region" in rows.column_names:
        regions = rows.column("region").to_pylist()
        rows = rows.set_column(
            rows.schema.get_field_index("region"),
            "region",
            pa.array([*regions[:3], VALUE, *regions[4:]]),
        )
    return rows


def test_no_file_and_no_table_holds_an_erased_id_or_its_rare_value(any_store: Store) -> None:
    fill(any_store)
    quarantined = Path(str(any_store.root)) / "quarantine" / "credit" / "abc.jsonl"
    quarantined.parent.mkdir(parents=True)
    quarantined.write_text(f'{{"id": "{CANARY}"}}\n')
    assert find_traces(any_store, [CANARY, VALUE]).traces
    erase.erase(any_store, SPEC, [CANARY], now=NOW, author="dpo")
    proof = find_traces(any_store, [CANARY, VALUE])
    assert proof.traces == ()
    assert proof.n_files > 20
    assert any_store.event_log(SPEC).rows("predictions").num_rows == 23
    assert any_store.event_log(SPEC).rows("actuals").num_rows == 23
    assert any_store.inference_records(SPEC).read().num_rows == 23
    kept = baselines.load_newest(any_store.state, SPEC.model)
    assert kept is not None
    assert '["north", "[erased]"]' in baselines.read_payload(any_store, kept)


def test_erasing_counts_before_and_keeps_only_counts_after(store: Store) -> None:
    fill(store)
    places = find_places(store, SPEC, [CANARY, "unknown"])
    assert places.rows == {
        "predictions": 1, "actuals": 1, "records": 1, "dead_letter": 0, "refused_rows": 0,
    }  # fmt: skip
    assert places.n_windows == 1
    receipt = erase.erase(store, SPEC, [CANARY, "unknown"], now=NOW, author="dpo")
    (row,) = erase.load_receipts(store.state, SPEC.model)
    assert row["receipt"] == receipt
    assert (row["author"], row["n_ids"], row["finished_at"]) == ("dpo", 2, NOW)
    assert row["found"]["predictions"] == 1
    assert CANARY not in str(row)
    assert find_places(store, SPEC, [CANARY]).rows["predictions"] == 0
    erase.erase(store, SPEC, [CANARY], now=NOW)  # once more changes nothing
    assert store.inference_records(SPEC).read().num_rows == 23


def test_rows_as_of_before_can_be_read_of_other_windows_only(store: Store) -> None:
    fill(store)
    then = dt.datetime.now(dt.UTC)
    predictions, _ = make_events(SPEC, "2024-01-02", 3, prefix="more-", sha="more")
    time.sleep(0.01)
    store.event_log(SPEC).append("predictions", predictions, ["more"])
    store.inference_records(SPEC).rebuild(WINDOWS)
    erase.erase(store, SPEC, [CANARY], now=NOW)
    first, second = (w.start for w in WINDOWS)
    day = dt.timedelta(days=1)
    assert store.records("credit", as_of=then, since=second + day).to_arrow().num_rows == 0
    with pytest.raises(StoreError, match=r"by an erasure.*Gone are files of 2024-01-01\."):
        store.records("credit", as_of=then, since=first).to_arrow()
    assert store.records("credit").to_arrow().num_rows == 26


def test_an_erasure_in_one_dataset_leaves_the_others_alone(store: Store) -> None:
    fill(store, ("production", "shadow"))
    erase.erase(store, SPEC, [CANARY], now=NOW, dataset="shadow")
    left = store.event_log(SPEC).rows("predictions", ["prediction_id", "dataset"]).to_pylist()
    assert [r["dataset"] for r in left if r["prediction_id"] == CANARY] == ["production"]
    assert CANARY in store.event_log(SPEC).rows("actuals").column("prediction_id").to_pylist()
    erase.erase(store, SPEC, [CANARY], now=NOW, dataset="production")
    assert find_traces(store, [CANARY]).traces == ()


def test_windows_of_small_numbers_are_marked_to_be_computed_again(store: Store) -> None:
    fill(store)
    erase.erase(store, SPEC, [CANARY], now=NOW)
    assert {s: w.input_revision for s, w in load(store.state, SPEC.model).items()} == {
        WINDOWS[0].start: 1
    }
    erase.erase(store, SPEC, ["2024-01-02-3"], now=NOW, recompute=True)
    assert WINDOWS[1].start in load(store.state, SPEC.model)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store that is filled, to copy."""
    folder = tmp_path_factory.mktemp("filled") / "store"
    store = open_store(folder)
    fill(store)
    store.close()
    return folder


def erase_until(folder: Path, step: str) -> None:
    """Erase the canary in a store, and die when the step is reached."""
    forked.die_at(step)
    erase.erase(open_store(folder), SPEC, [CANARY], now=NOW)


QUICK = ("erase.noted", "erase.partition")


@pytest.mark.proof
@pytest.mark.parametrize(
    "step", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in STEPS]
)
def test_an_erasure_killed_at_any_step_is_finished_by_the_next(
    step: str, filled: Path, tmp_path: Path
) -> None:
    shutil.copytree(filled, tmp_path / "store")
    store = open_store(tmp_path / "store")
    copy = tmp_path / "store" / "quarantine" / SPEC.model / "abc.csv"
    copy.parent.mkdir(parents=True)
    copy.write_text(CANARY)
    assert forked.ended(erase_until, tmp_path / "store", step) == -signal.SIGKILL
    assert len(erase.resume_erasures(store, SPEC, NOW)) == 1
    assert find_traces(store, [CANARY, VALUE]).traces == ()
    assert store.inference_records(SPEC).read().num_rows == 23
    assert erase.resume_erasures(store, SPEC, NOW) == []
    assert erased_ids.load_erased(store.state, SPEC.model).hashes.num_rows == 1
    store.close()


def test_every_file_of_a_table_is_searched_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    before = set(data_files(store))
    named: list[str] = []

    def query(sql: str, tables: Mapping[str, pa.Table] | None = None) -> pa.Table:
        named.extend(re.findall(r"'([^']+\.parquet)'", sql))
        return Store.query(store, sql, tables)

    monkeypatch.setattr(store, "query", query)
    places = find_places(store, SPEC, [CANARY])
    erase.erase(store, SPEC, [CANARY], now=NOW, places=places)
    read = Counter(named)
    kept = before & set(data_files(store))
    assert len(kept) >= 4
    assert {read[path] for path in kept if "/profiles/" not in path} == {1}


def data_files(store: Store) -> list[str]:
    return [str(path) for path in Path(str(store.root)).rglob("*.parquet")]


def test_a_file_that_a_crash_left_uncommitted_goes_too(store: Store) -> None:
    fill(store)
    file = next(p for p in data_files(store) if "predictions" in p and "2024-01-01" in p)
    shutil.copy(file, file.replace("part-", "part-left-"))
    erase.erase(store, SPEC, [CANARY], now=NOW)
    assert find_traces(store, [CANARY]).traces == ()
    assert store.event_log(SPEC).rows("predictions").num_rows == 23


def test_a_writer_whose_file_was_taken_away_is_refused(store: Store) -> None:
    fill(store)
    erase.erase(store, SPEC, [CANARY], now=NOW)
    folder = store.inference_records(SPEC).folder
    slow = folder.ensure()
    rows = store.inference_records(SPEC).read().slice(0, 1)
    written = DeltaFolder(place_of(store.root.path / "elsewhere"), rows.schema, PARTITION_BY)
    written.ensure().append(with_id(rows, CANARY))
    (name,) = (name for name in written.path.below() if name.endswith(".parquet"))
    shutil.move(written.path.path / name, folder.path.path / name)  # and not yet committed
    shutil.rmtree(written.path.path)
    erase.erase(store, SPEC, [CANARY], now=NOW)
    assert find_traces(store, [CANARY]).traces == ()
    with pytest.raises(Conflict):
        slow.append(rows)


def with_id(rows: pa.Table, id_: str) -> pa.Table:
    place = rows.schema.get_field_index("prediction_id")
    return rows.set_column(place, "prediction_id", pa.array([id_] * rows.num_rows))


def test_a_text_that_enough_other_records_share_is_nobodys(store: Store) -> None:
    fill(store)
    regions = store.inference_records(SPEC).read().column("region").to_pylist()
    common, n = Counter(regions).most_common(1)[0]
    for spec, is_rare in ((n - 1, False), (n, True)):
        kept = make_spec(retention={"min_cell": spec})
        (one, *_) = store.query(
            "SELECT prediction_id FROM rows WHERE region = " + f"'{common}' ORDER BY 1",
            {"rows": store.inference_records(SPEC).read()},
        )["prediction_id"].to_pylist()
        assert (common in find_places(store, kept, [one]).search.rare) is is_rare


def test_rows_with_a_feature_of_an_earlier_name_are_erased(store: Store) -> None:
    fill(store)
    features = {"years": {"type": "numeric", "alias": ["age"]}, "region": {"type": "categorical"}}
    renamed = make_spec(features=features)
    erase.erase(store, renamed, [CANARY], now=NOW)
    assert find_traces(store, [CANARY, VALUE]).traces == ()
    rows = store.event_log(renamed).rows("predictions", ["years"])
    assert (rows.num_rows, rows.column("years").null_count) == (23, 0)


def test_ground_truth_that_waits_for_its_prediction_is_erased(store: Store) -> None:
    fill(store)
    _, actuals = make_events(SPEC, "2024-01-03", 2, prefix="early-")
    store.event_log(SPEC).append("actuals", actuals, ["early"])
    (one, other) = actuals.column("prediction_id").to_pylist()
    places = find_places(store, SPEC, [one])
    assert (places.rows["actuals"], places.n_windows) == (1, 0)
    erase.erase(store, SPEC, [one], now=NOW, places=places)
    assert find_traces(store, [one]).traces == ()
    assert other in store.event_log(SPEC).rows("actuals").column("prediction_id").to_pylist()


def test_the_key_is_made_once_and_is_not_the_one_of_erased_ids(any_store: Store) -> None:
    engine = any_store.state
    key = erased_ids.personal_key(engine, "loan")

    assert len(key) == 64
    assert erased_ids.personal_key(engine, "loan") == key
    assert erased_ids.personal_key(engine, "churn") != key
    with engine.begin() as conn:
        assert erased_ids.ensure_salt(conn, "loan") not in key


def test_the_engine_and_python_make_the_same_digest(store: Store) -> None:
    key = erased_ids.personal_key(store.state, "loan")
    for value in ("anna", "", "Zoë'; --", "x" * 5_000):
        text = "'" + value.replace("'", "''") + "'"
        (row,) = store.query(f"SELECT {erased_ids.digest_personal_sql(key, text)} AS d").to_pylist()
        assert row["d"] == erased_ids.digest_personal(key, value)
