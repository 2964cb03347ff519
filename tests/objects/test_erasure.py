"""Erasing in a bucket is what it is in a folder: one path, and the same proof."""

from __future__ import annotations

from mlmon_dagster.store import Store
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.erasure.places import find_places, find_traces
from tests.store.test_erase import CANARY, NOW, SPEC, VALUE, fill


def test_nothing_in_the_bucket_holds_an_erased_id_or_its_rare_value(remote: Store) -> None:
    fill(remote)
    (remote.root / "quarantine" / "credit" / "abc.jsonl").write(f'{{"id": "{CANARY}"}}'.encode())
    found = find_traces(remote, [CANARY, VALUE]).traces
    assert {name.split("/")[0] for name in found} >= {
        "baselines", "event_log", "inference_records", "quarantine",
    }  # fmt: skip
    places = find_places(remote, SPEC, [CANARY])
    assert (places.rows["predictions"], places.rows["records"], len(places.copies)) == (1, 1, 1)

    erase.erase(remote, SPEC, [CANARY], now=NOW, places=places)

    proof = find_traces(remote, [CANARY, VALUE])
    assert (proof.traces, proof.n_files > 20) == ((), True)
    assert remote.event_log(SPEC).rows("actuals").num_rows == 23
    assert remote.inference_records(SPEC).read().num_rows == 23
