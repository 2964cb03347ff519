"""Columns are encoded by what their first rows look like."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.store import Store
from mlmon_dagster.store.tables.delta import writer_properties
from tests.conftest import make_events, make_spec


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


def test_no_rows_and_few_rows_are_no_reason_to_leave_dictionaries_out() -> None:
    rows = pa.table({"id": [f"{n}" for n in range(50)], "none": pa.nulls(50, pa.string())})

    assert writer_properties(rows).column_properties is None
    assert writer_properties(rows.slice(0, 0)).column_properties is None
