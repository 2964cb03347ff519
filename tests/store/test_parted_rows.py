"""Rows that wait on the disk come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlmon_dagster.store import Store
from mlmon_dagster.store.tables import part_files
from mlmon_dagster.store.tables.part_files import PartedRows, Spill
from tests.conftest import make_events, make_spec


def part(name: str, first: int, n: int = 100) -> pa.Table:
    """Return rows of a file: most columns hold one value, one changes from row to row."""
    return pa.table(
        {
            "prediction_id": pa.array([f"p{i}" for i in range(first, first + n)], pa.string()),
            "file_sha": pa.repeat(name, n),
            "status": pa.array([None] * n, pa.string()),
            "moment": pa.array([first] * n, pa.timestamp("us", "UTC")),
            "nonfinite": pa.array(
                [["x:nan"] if i % 7 == 0 else [] for i in range(n)], pa.list_(pa.string())
            ),
            "x": pa.array([None if i % 3 == 0 else i / 7 for i in range(n)], pa.float64()),
        }
    )


def spilled(folder: Path, parts: list[pa.Table]) -> PartedRows:
    spill = Spill(folder / "a.good_rows")
    for rows in parts:
        spill.add(rows)
    return spill.rows()


def test_rows_on_the_disk_are_the_rows_that_were_written(tmp_path: Path) -> None:
    # Of the second part nothing lasts for long; of the third, all is one row.
    changing = part("b", 100).set_column(1, "file_sha", pa.array([f"{i}" for i in range(100)]))
    parts = [part("a", 0), changing, part("c", 200, 1), part("d", 201, 0)]

    rows = spilled(tmp_path, parts)

    assert rows.table() == pa.concat_tables(parts)
    assert rows.table(["file_sha", "x"]) == pa.concat_tables(parts).select(["file_sha", "x"])
    assert list(rows.tables()) == parts[:3], "a part without rows is none"


def test_a_value_that_lasts_is_stored_once(tmp_path: Path) -> None:
    spilled(tmp_path, [part("a" * 10_000, 0)])

    assert (tmp_path / "a.good_rows").stat().st_size < 40_000


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_all_rows_of_an_id_are_in_one_group_in_their_order(
    is_on_disk: bool, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "ROWS_TOGETHER", 30)
    parts = [part("a", 0), part("b", 50), part("c", 0, 0)]
    rows = spilled(tmp_path, parts) if is_on_disk else PartedRows.of(pa.concat_tables(parts))

    groups = list(rows.by_id(store.queries, ["prediction_id", "x"]))

    ids = [set(table["prediction_id"].to_pylist()) for _, table in groups]
    assert len(groups) == 7
    assert sum(map(len, ids)) == len(set().union(*ids)) == 150
    assert sorted(np.concatenate([positions for positions, _ in groups])) == list(range(200))
    whole = pa.concat_tables(parts).select(["prediction_id", "x"])
    assert all(table == whole.take(positions) for positions, table in groups)
    assert len(list(tmp_path.glob("*"))) == 1 + is_on_disk, "the store, and the rows alone"


def test_ids_and_numbers_get_no_dictionary_and_repeated_text_does(
    store: Store, tmp_path: Path
) -> None:
    spec = make_spec()
    predictions, _ = make_events(spec, n=400)
    store.event_log(spec).append("predictions", predictions, ["a"])

    (path,) = (store.folder / "event_log" / spec.model / "predictions").rglob("*.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    encoded = {c.path_in_schema: c.has_dictionary_page for c in columns}

    assert (encoded["prediction_id"], encoded["score"], encoded["row_hash"]) == (False,) * 3
    assert (encoded["region"], encoded["status"]) == (True, True)
    assert {c.compression for c in columns} == {"SNAPPY"}
