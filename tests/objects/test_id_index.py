"""The index of ids lies in the bucket: a machine whose disk is empty fetches it, and makes none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.tables import id_index
from mlmon_dagster.store.tables.id_index import forget_index
from tests.conftest import make_events, make_spec
from tests.objects.server import S3Server

SPEC = make_spec()
NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
DAYS = [f"2024-01-{day:02}" for day in range(1, 31)]
ASKED = ["2024-01-01-0", "2024-01-17-5", "2024-01-30-3", "nowhere"]
FOUND = [(name, name[:10]) for name in ASKED[:3]]


@pytest.fixture(autouse=True)
def indexed_from_the_first_row(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(id_index, "SMALL_LOG", 0)
    return


class Job:
    """A run on a machine of its own, whose disk is empty when it begins."""

    def __init__(self, s3: S3Server, bucket: str, disk: Path) -> None:
        self.store: Store = open_store(
            f"s3://{bucket}/monitoring", storage_options=s3.options, folder=disk
        )
        self.disk = disk
        self._s3 = s3

    def known(self, ids: list[str] = ASKED) -> list[tuple[str, str]]:
        table = pa.table({"prediction_id": ids})
        found = self.store.event_log(SPEC).known_ids("predictions", table).to_pylist()
        return sorted({(row["prediction_id"], row["window_date"]) for row in found})

    def append(self, days: list[str]) -> None:
        append(self.store, days)

    def requests(self) -> int:
        """Ask for ids on a fresh log, and count what the server was asked."""
        self._s3.requests.clear()
        assert self.known() == FOUND
        return self._s3.requests.total()

    def copies(self) -> set[str]:
        return {path.name for path in self.disk.rglob("*.words")}

    def segments(self) -> set[str]:
        names = (self.store.root / "id_index").below()
        assert all(name.startswith(f"{SPEC.model}/predictions/") for name in names)
        return {name.rpartition("/")[2] for name in names}


def append(store: Store, days: list[str]) -> None:
    """Log six predictions a day at once, a file a day."""
    predictions = pa.concat_tables(make_events(SPEC, day, 6)[0] for day in days)
    store.event_log(SPEC).append("predictions", predictions, [days[0]])


@pytest.fixture
def jobs(s3: S3Server, bucket: str, tmp_path: Path) -> Iterator[Iterator[Job]]:
    """Yield an iterator that starts one job after the other."""
    with ExitStack() as stack:

        def begin(disk: Path) -> Job:
            job = Job(s3, bucket, disk)
            stack.callback(job.store.close)
            return job

        yield (begin(tmp_path / f"disk-{n}") for n in count())


def test_a_job_on_an_empty_disk_finds_every_id_and_reads_no_rows_of_history(
    jobs: Iterator[Job],
) -> None:
    first, second = next(jobs), next(jobs)
    first.append(DAYS)
    assert first.known() == FOUND

    assert not second.copies()
    n_fetched = second.requests()

    # Of files, only the three that hold ids are read; making the index reads all thirty.
    assert n_fetched < len(DAYS)
    assert second.copies() == second.segments()
    third = next(jobs)
    forget_index(third.store.queries, SPEC.model)
    assert third.requests() > 2 * len(DAYS)


def test_two_jobs_on_empty_disks_log_the_rows_of_one_machine(
    jobs: Iterator[Job], store: Store
) -> None:
    again, _ = make_events(SPEC, "2024-02-01", 2)
    moved = again.set_column(0, "prediction_id", [["2024-01-02-4", "2024-01-16-1"]])
    first, second = next(jobs), next(jobs)
    first.append(DAYS[:15])
    second.append(DAYS[15:])
    third = next(jobs)
    append(store, DAYS[:15])
    append(store, DAYS[15:])
    for place in (third.store, store):
        place.event_log(SPEC).append("predictions", moved, ["moved"])

    def rows(place: Store) -> list[list[dict[str, object]]]:
        log = place.event_log(SPEC)
        pinned = log.pinned().moved
        assert pinned is not None
        tables = [log.rows("predictions"), place.query(f"SELECT * FROM {pinned.from_sql()}")]
        return [sorted(table.to_pylist(), key=repr) for table in tables]

    assert rows(third.store) == rows(store)
    assert len(rows(store)[1]) == 4  # both ids, under both of their dates


def test_segments_that_another_job_merged_or_forgot_are_not_kept_here(jobs: Iterator[Job]) -> None:
    first, second = next(jobs), next(jobs)
    for n in range(3):
        first.append(DAYS[n : n + 1])
        first.known()
    assert second.known() == FOUND[:1]
    before = second.copies()
    for days in (DAYS[3:4], DAYS[4:]):
        second.append(days)
        second.known()

    assert first.known() == FOUND
    assert first.copies() == first.segments() == second.segments()
    assert not before & first.copies()  # they were merged
    erase(second.store, SPEC, ["2024-01-17-5"], now=NOW)
    assert not second.copies()
    assert not second.segments()
    assert first.known() == [pair for pair in FOUND if pair[0] != "2024-01-17-5"]
    assert first.copies() == first.segments()
