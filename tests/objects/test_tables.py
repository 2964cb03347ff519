"""Tables in a bucket behave as tables in a folder do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.tables.delta import Conflict, DeltaFolder, retry
from mlmon_dagster.store.tables.part_files import ROWS_A_FILE, BucketRows, buckets
from tests.objects.server import S3Server

SCHEMA = pa.schema([("part", pa.string()), ("n", pa.int64())])


def _rows(part: str, *numbers: int) -> pa.Table:
    return pa.table({"part": [part] * len(numbers), "n": pa.array(numbers, pa.int64())})


def _table(store: Store) -> DeltaFolder:
    return DeltaFolder(store.root / "kind" / "model", SCHEMA, ("part",))


def _numbers(store: Store, table: DeltaFolder) -> list[int]:
    snapshot = table.snapshot()
    assert snapshot is not None
    return sorted(store.query(f"SELECT n FROM {snapshot.from_sql()}")["n"].to_pylist())


def test_rows_come_back_from_the_bucket_and_only_wanted_partitions_are_read(
    remote: Store, s3: S3Server
) -> None:
    table = _table(remote)
    assert table.snapshot() is None
    table.ensure().append(_rows("a b/c?ä%", 1, 2))
    table.ensure().append(_rows("x", 3))

    assert _numbers(remote, table) == [1, 2, 3]
    snapshot = table.ensure()
    s3.requests.clear()
    sql = snapshot.from_sql(["n"], lambda partition: partition["part"] == "x", "n > 2")
    assert remote.query(f"SELECT n FROM {sql}").to_pylist() == [{"n": 3}]
    assert set(s3.requests) <= {"GET", "HEAD"}
    assert sum(s3.requests.values()) <= 4
    assert remote.query(f"SELECT DISTINCT part FROM {snapshot.from_sql()} ORDER BY 1").column(
        "part"
    ).to_pylist() == ["a b/c?ä%", "x"]


def test_second_of_two_commits_on_one_version_is_refused(remote: Store) -> None:
    table = _table(remote)
    first, second = table.ensure(), table.ensure()
    first.append(_rows("a", 1))

    with pytest.raises(Conflict):
        second.append(_rows("a", 2))
    assert _numbers(remote, table) == [1]


@pytest.mark.proof
def test_writers_at_once_lose_nothing(remote: Store) -> None:
    table = _table(remote)
    table.ensure()

    def write(writer: int) -> None:
        for n in range(5):
            row = _rows(f"w{writer}", 10 * writer + n)
            if n % 2:
                retry(lambda row=row: table.ensure().append(row), "Appending")  # type: ignore[misc]
            else:
                where = f"part = 'w{writer}' AND n = {10 * writer + n}"
                retry(
                    lambda row=row, where=where: table.ensure().overwrite(row, where),  # type: ignore[misc]
                    "Overwriting",
                )

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))

    assert _numbers(remote, table) == [10 * w + n for w in range(3) for n in range(5)]


@pytest.mark.parametrize("place", ["remote", "store"])
def test_rows_made_in_parts_are_one_commit_in_files_that_do_not_grow_with_them(
    request: pytest.FixtureRequest, place: str
) -> None:
    store: Store = request.getfixturevalue(place)
    table = _table(store)
    table.ensure().append(_rows("a", 1))
    one, other = buckets(2)
    numbers = range(ROWS_A_FILE + 1)
    parts = [BucketRows(one, _rows("b", *numbers[at : at + 100_000])) for at in numbers[::100_000]]
    parts += [BucketRows(other, _rows("c", n)) for n in (7, 8)]

    table.ensure().append_parts([iter(parts)], SCHEMA)

    assert _numbers(store, table) == sorted([1, 7, 8, *numbers])
    files = [name.split("/")[0] for name in table.path.below() if name.endswith(".parquet")]
    assert sorted(files) == ["part=a", "part=b", "part=b", "part=c"]
    assert len([name for name in table.path.below() if name.endswith(".json")]) == 3

    table.ensure().replace_partitions(
        iter([BucketRows(one, _rows("b", 5))]), SCHEMA, {"part": ["b"]}
    )
    assert _numbers(store, table) == [1, 5, 7, 8]


@pytest.mark.parametrize("place", ["remote", "store"])
def test_a_part_that_cannot_be_made_leaves_neither_rows_nor_files(
    request: pytest.FixtureRequest, place: str
) -> None:
    store: Store = request.getfixturevalue(place)
    table = _table(store)
    table.ensure()
    one, other = buckets(2)

    def broken() -> Iterator[BucketRows]:
        yield BucketRows(one, _rows("a", *range(ROWS_A_FILE)))
        yield BucketRows(other, _rows("b", 1))
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        table.ensure().append_parts([broken()], SCHEMA)

    assert _numbers(store, table) == []
    assert not [name for name in table.path.below() if name.endswith(".parquet")]


def test_queries_reach_nothing_but_the_stores_prefix(remote: Store, bucket: str) -> None:
    for place in (f"s3://{bucket}/other/x.parquet", "/etc/passwd", "s3://elsewhere/x.parquet"):
        with pytest.raises(StoreError, match="disabled by configuration"):
            remote.query(f"SELECT * FROM read_parquet('{place}')")
    with pytest.raises(StoreError):
        remote.query(f"COPY (SELECT 1) TO 's3://{bucket}/monitoring/x.parquet'")


def test_large_files_are_read_in_pieces(remote: Store, s3: S3Server) -> None:
    import numpy as np

    noise = np.random.default_rng(7).integers(0, 2**62, (8, 100_000))
    rows = pa.table({"part": ["a"] * 100_000, **{f"c{i}": noise[i] for i in range(8)}})
    table = DeltaFolder(remote.root / "t", rows.schema)
    table.ensure().append(rows)
    sql = table.ensure().from_sql(["c3"])
    s3.requests.clear()

    found = remote.query(f"SELECT SUM(c3::HUGEINT)::VARCHAR AS s FROM {sql}").to_pylist()

    assert found == [{"s": str(sum(map(int, noise[3])))}]
    assert s3.requests["GET"] <= 8  # two threads, each with the footer and its pieces


def test_bucket_needs_a_folder_on_this_machine_beside_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder on this machine"):
        open_store("s3://bucket/prefix", "sqlite://")


def test_secrets_are_not_shown(remote: Store) -> None:
    assert "not-a-secret" not in repr(remote.root) + str(remote.root / "x")


def test_an_empty_newest_commit_in_the_bucket_is_refused(remote: Store) -> None:
    table = _table(remote)
    table.ensure().append(_rows("a", 1))
    (table.path / "_delta_log" / f"{1:020}.json").write(b"")

    with pytest.raises(StoreError, match=r"newest commit 0+1\.json is empty"):
        table.snapshot()
