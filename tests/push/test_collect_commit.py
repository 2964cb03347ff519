"""Durable, shared, once: how accepted rows become landing files."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlmon_dagster import landing_file
from mlmon_dagster.collect import landing
from mlmon_dagster.collect.landing import Committer, Target
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.store import Store
from tests.push.collecting import PREDICTIONS, Running, row, running, wait_until
from tests.push.worlds import NOW


def test_a_file_is_synced_before_it_has_its_name_and_its_name_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")  # noqa: PTH112
        fsync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    landing_file.publish(tmp_path, "a.jsonl", [b"{}\n"])
    assert steps == ["file", "rename", "folder"]


def test_requests_that_come_together_share_a_file(store: Store, tmp_path: Path) -> None:
    with running(store, tmp_path, linger=0.5) as collector, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: collector.post([row(i)]), range(8)))
        assert [answer.status for answer in answers] == [202] * 8
        assert sorted(r["id"] for r in collector.landed()) == [f"p{i}" for i in range(8)]
        n_files = len(list((tmp_path / "landing/predictions").iterdir()))
    assert n_files < 8


def test_a_group_ends_at_the_limits_of_the_source_and_a_large_request_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "_LARGE", 40)
    target = Target("loan", "predictions", tmp_path, "", max_rows=3, max_bytes=30)
    committer = Committer(linger=1.0)  # time enough to submit all, on a busy machine too
    pieces = [[b"1\n"], [b"2\n", b"3\n"], [b"4\n"], [b"5" * 28 + b"\n"], [b"6" * 50 + b"\n"]]
    futures = [committer.submit(target, piece) for piece in pieces]
    files = [(tmp_path / future.result(10)).read_bytes() for future in futures]
    committer.close()

    assert files[0] == files[1] == b"1\n2\n3\n"
    assert files[2] == b"4\n"
    assert files[3] == pieces[3][0]
    assert files[4] == pieces[4][0]


def test_a_retried_batch_is_the_same_file_even_after_a_restart(
    store: Store, tmp_path: Path
) -> None:
    for _ in range(2):
        with running(store, tmp_path) as collector:
            first, again = collector.post([row(1)]), collector.post([row(1)])
            assert (first.status, again.status) == (202, 202)
            assert again.json == first.json
            assert "idempotent-replayed" not in first.headers
            assert again.headers["idempotent-replayed"] == "true"
    assert len(list((tmp_path / "landing/predictions").iterdir())) == 1


def test_rows_sent_again_in_other_company_are_stored_once(collector: Running) -> None:
    for rows in ([row(1)], [row(1), row(2)], [row(2)]):
        assert collector.post(rows).status == 202
    report = ingest_new(collector.store, collector.spec, collector.folder, readers(), now=NOW)
    assert sum(f.n_new for f in report.files) == 2
    assert sum(f.n_duplicate for f in report.files) == 2


def test_an_idempotency_key_stands_for_one_batch(collector: Running) -> None:
    first = collector.post([row(1)], idempotency_key="k")
    again = collector.post([row(1)], idempotency_key="k")
    other = collector.post([row(2)], idempotency_key="k")
    assert (first.status, again.status, other.status) == (202, 202, 422)
    assert again.headers["idempotent-replayed"] == "true"
    assert other.json["type"] == "/docs#key_reused"
    assert len(collector.landed()) == 1
    # What was refused may be corrected and sent again under its key.
    assert collector.post([row(3, score=9)], idempotency_key="r").status == 422
    assert collector.post([row(3, score=9)], idempotency_key="r").status == 422
    assert collector.post([row(3)], idempotency_key="r").status == 202
    assert collector.post([row(3)], idempotency_key="x" * 256).status == 400


def test_a_disk_that_fails_is_told_and_the_batch_can_be_sent_again(collector: Running) -> None:
    folder = collector.folder / "landing"
    folder.write_text("in the way")
    answer = collector.post([row(1)], idempotency_key="k")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    folder.unlink()
    assert collector.post([row(1)], idempotency_key="k").status == 202
    assert len(collector.landed()) == 1


def test_little_space_many_files_or_many_requests_are_answered_429(
    store: Store, tmp_path: Path
) -> None:
    with running(store, tmp_path, min_free=1 << 60) as collector:
        answer = collector.post([row(1)])
        assert (answer.status, answer.headers["retry-after"]) == (429, "30")
        ready = collector.request("GET", "/readyz")
        assert ready.status == 503
        assert "are free on the disk" in ready.json["reasons"][0]
        assert collector.request("GET", "/healthz").status == 200
        assert collector.landed() == []
    with running(store, tmp_path, linger=3.0, max_in_flight=1) as collector:
        first = threading.Thread(target=collector.post, args=([row(1)],))
        first.start()
        wait_until(lambda: collector.app._pressure._n_in_flight.total() == 1)
        answer = collector.post([row(2)])
        first.join()
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")


def test_files_that_ingest_does_not_take_stop_the_collector(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "landing/predictions"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"collect-{i}.jsonl").write_text(json.dumps(row(i)) + "\n")
    with running(store, tmp_path, max_files=3) as collector:
        pressure = collector.app._pressure
        pressure._n_files = pressure._count()
        assert collector.post([row(9)]).status == 429
        ingest_new(store, collector.spec, tmp_path, readers(), now=NOW)
        pressure._n_files = pressure._count()
        assert collector.post([row(9)], PREDICTIONS).status == 202
