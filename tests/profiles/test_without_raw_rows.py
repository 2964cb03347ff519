"""Windows and months are compared with the baseline from stored profiles alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks import window
from mlmon_dagster.store import open_store


def test_drift_of_a_window_and_of_a_month_reads_no_raw_row(tmp_path: Path) -> None:
    """The answers are the same after the event log and the records are deleted."""
    spec, store = window.make_spec(), open_store(tmp_path / "store")
    windows = window.prepare(store, spec, days=3, rows=60)
    before = window.judge_window(store, spec, windows[-1]), window.judge_month(store, spec)
    window.delete_raw_rows(tmp_path / "store")

    day, month = window.judge_window(store, spec, windows[-1]), window.judge_month(store, spec)

    pd.testing.assert_frame_equal(day, before[0])
    pd.testing.assert_frame_equal(month, before[1])
    assert {"all", window.SLICE} <= set(month["slice_key"])
    assert month.loc[(month["slice_key"] == "all") & (month["metric"] == "psi"), "n"].eq(180).all()
    assert set(day["column_name"]) == {*spec.features, "prediction"}
    left = store.inference_records(spec).rebuild(windows, ["production"])
    assert [count.n for count in left] == [0, 0, 0]
    store.close()
