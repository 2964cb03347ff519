"""The prediction logger: what it writes is what ingest reads, and the caller never suffers."""

from __future__ import annotations

import datetime as dt
import decimal
import errno
import json
import logging
import math
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster import PredictionLogger
from mlmon_dagster.ingest import ingest_new, readers
from mlmon_dagster.landing_file import to_cell
from mlmon_dagster.store import Store
from tests.push.worlds import NOW, push_spec

HOUR = dt.timedelta(hours=1)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all landing files of a folder, by file name."""
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_ingest_reads_what_is_logged_without_any_option(store: Store, tmp_path: Path) -> None:
    spec = push_spec()
    columns = {"prediction_id": "id", "event_time": "at", "actual": "bad", "actual_time": "known"}
    landing = tmp_path / "landing"
    with PredictionLogger(landing / "predictions", landing / "actuals", columns=columns) as logger:
        for i in range(30):
            features = {"age": np.float32(20 + i), "region": "north"}
            logger.log(prediction_id=i, event_time=NOW - HOUR, features=features, score=i / 30)
            logger.log_actual(prediction_id=i, actual=np.bool_(i % 2), actual_time=NOW)

    report = ingest_new(store, spec, tmp_path, readers(), now=NOW)

    assert [(f.status, f.n_new, f.n_bad, f.warnings) for f in report.files] == [
        ("done", 30, 0, ())
    ] * 2
    log = store.event_log(spec).rows("predictions").to_pylist()
    assert {row["event_time"] for row in log} == {NOW - HOUR}
    assert sorted(row["age"] for row in log) == [20.0 + i for i in range(30)]


def test_a_time_left_out_is_the_moment_of_the_call(tmp_path: Path) -> None:
    before = dt.datetime.now(dt.UTC)
    with PredictionLogger(tmp_path) as logger:
        logger.log(prediction_id="a")

    (row,) = rows_in(tmp_path)
    logged = dt.datetime.fromisoformat(row["event_time"])
    assert before <= logged <= dt.datetime.now(dt.UTC)
    assert row["event_time"].endswith("+00:00")


class Colour:
    """A class whose values are no cells."""


BERLIN = dt.timezone(2 * HOUR)
CELLS = [
    (1.5, 1.5),
    (math.nan, "NaN"),
    (-math.inf, "-Infinity"),
    (dt.datetime(2024, 5, 1, 12, tzinfo=BERLIN), "2024-05-01T10:00:00+00:00"),
    (dt.datetime(2024, 5, 1, 12), "2024-05-01T12:00:00"),  # noqa: DTZ001 - naive on purpose
    (dt.date(2024, 5, 1), "2024-05-01T00:00:00+00:00"),
    (decimal.Decimal("0.10"), "0.10"),
    (decimal.Decimal("NaN"), "NaN"),
    (decimal.Decimal("-Infinity"), "-Infinity"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (b"caf\xc3\xa9", "café"),
    (np.int64(2**60), 2**60),
    (np.float32("nan"), "NaN"),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.array(3), 3),
    (np.datetime64("2024-05-01T10:00:00.000000001"), "2024-05-01T10:00:00.000000001Z"),
    (np.datetime64("2024-05-01"), "2024-05-01T00:00:00+00:00"),
    (np.datetime64("NaT"), None),
    (pd.Timestamp("2024-05-01T12:00:00+02:00"), "2024-05-01T10:00:00+00:00"),
    (pd.NaT, None),
    (pd.NA, None),
    (None, None),
]


@pytest.mark.parametrize(("value", "cell"), CELLS, ids=[repr(v) for v, _ in CELLS])
def test_a_value_becomes_the_cell_that_reads_back_as_it(value: object, cell: object) -> None:
    assert to_cell(value) == cell
    assert type(to_cell(value)) is type(cell)


def test_bad_values_are_null_counted_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), PredictionLogger(tmp_path) as logger:
        for value in ([1], {"a": 1}, Colour(), b"\xff", np.zeros(3)):
            assert logger.log(prediction_id="secret", features={"x": value})
        assert logger.flush()
        assert logger.stats().n_bad_values == 5

    assert [row["x"] for row in rows_in(tmp_path)] == [None] * 5
    assert len(caplog.records) == 1
    assert "'x' holds a list" in caplog.text
    assert "secret" not in caplog.text


def test_a_row_that_json_cannot_hold_is_counted_and_the_others_are_written(tmp_path: Path) -> None:
    with PredictionLogger(tmp_path) as logger:
        for value in (1, 10**5000, 2):
            logger.log(prediction_id="a", features={"x": value})
    assert [row["x"] for row in rows_in(tmp_path)] == [1, 2]
    assert logger.stats().n_dropped == 1


def test_nothing_reaches_the_caller_whatever_is_logged(tmp_path: Path) -> None:
    with PredictionLogger(tmp_path) as logger:
        assert not logger.log(prediction_id=1, features=7)  # type: ignore[arg-type]
        assert not logger.log_actual(prediction_id=1, actual=1)  # no folder for actuals
    assert not logger.log(prediction_id=1)  # closed
    assert logger.stats().n_dropped == 3


@pytest.mark.parametrize(
    "value", ["x" * 10_000, [str(i) * 100 for i in range(39)], np.zeros(1250)], ids=type
)
def test_memory_is_bounded_in_bytes_while_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mlmon_dagster.logger.publish", is_full)
        logger = PredictionLogger(tmp_path, max_bytes=1_000_000)
        n_logged = sum(logger.log(prediction_id=i, features={"x": value}) for i in range(300))
        assert not logger.flush(0.2)
        stats = logger.stats()
        assert stats.n_queued + stats.n_dropped == 300
        assert 30 < stats.n_queued <= 110
        assert stats.n_queued_bytes <= 1_000_000
        assert n_logged == stats.n_queued
        assert not logger.log(prediction_id=1, features={"x": "x" * 2_000_000})
        # What could not be written yet goes once there is room again.
    assert logger.close()
    ids = [row["prediction_id"] for row in rows_in(tmp_path)]
    assert len(ids) == len(set(ids)) == logger.stats().n_written
    assert logger.stats().n_queued_bytes == 0


def test_features_changed_after_the_call_are_logged_as_they_were(tmp_path: Path) -> None:
    features = {"age": 1}
    with PredictionLogger(tmp_path) as logger:
        logger.log(prediction_id="a", features=features)
        features["age"] = 2
    assert rows_in(tmp_path)[0]["age"] == 1


def test_a_full_queue_drops_new_rows_and_counts_them(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.write_text("a file where the folder should be")  # nothing can be written
    logger = PredictionLogger(folder, max_rows=3, max_queue=3, max_seconds=60)
    logger._writer.is_started = True  # no thread, so that the queue's content is known
    for i in range(10):
        logger.log(prediction_id=i)
    assert logger.stats().n_dropped == 7
    assert logger.stats().n_queued == 3
    folder.unlink()
    logger._writer.is_started = False
    assert logger.close()
    assert [row["prediction_id"] for row in rows_in(folder)] == [0, 1, 2]


def test_a_disk_that_fails_for_a_while_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.write_text("in the way")
    with PredictionLogger(folder, max_seconds=0.01, max_rows=5) as logger:
        for i in range(20):
            logger.log(prediction_id=i)
        while not logger.stats().n_write_errors:
            assert not logger.flush(0.1)
        failing = logger.stats()
        assert (failing.n_written, failing.n_queued) == (0, 20)
        assert "landing" in failing.last_error
        folder.unlink()
        assert logger.flush(30)
    assert [row["prediction_id"] for row in rows_in(folder)] == list(range(20))


def test_rows_of_many_threads_are_all_written_once_in_whole_files(tmp_path: Path) -> None:
    def work(name: int) -> None:
        for i in range(500):
            logger.log(prediction_id=f"{name}-{i}")

    with PredictionLogger(tmp_path, max_rows=100, max_seconds=0.01) as logger:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = [row["prediction_id"] for row in rows_in(tmp_path)]
    assert sorted(found) == sorted(f"{n}-{i}" for n in range(8) for i in range(500))
    assert logger.stats().n_written == 4000
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".jsonl"]


def test_a_row_does_not_wait_longer_than_declared(tmp_path: Path) -> None:
    with PredictionLogger(tmp_path, max_seconds=0.05) as logger:
        logger.log(prediction_id="a")
        waiting = threading.Event()
        for _ in range(200):
            if logger.stats().n_written:
                break
            waiting.wait(0.05)
        assert logger.stats().n_written == 1


@pytest.mark.parametrize(
    "wrong",
    [{"max_rows": 0}, {"max_seconds": 0}, {"max_rows": 9, "max_queue": 8}],
)
def test_arguments_that_make_no_sense_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PredictionLogger("landing", **wrong)
