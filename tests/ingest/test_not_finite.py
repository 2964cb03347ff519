"""Not-a-number, infinite and huge cells, from a landing file to metrics through the whole store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.metrics.quality import quality_metrics
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import performance
from mlmon_dagster.spec import window_containing
from mlmon_dagster.store import Store
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    credit_spec,
    events,
    ingest,
    land,
    parquet_bytes,
    truths,
)

ODD = [np.nan, np.inf, -np.inf, 1e300, 1.7e308, 2.0**63, -(2.0**63), 5e-324, 0.0, 1.0, 2.0, 3.0]


def test_cells_that_are_no_numbers_are_counted_and_spoil_no_metric(
    store: Store, project: Path
) -> None:
    """A bad score costs its row alone; a bad feature nothing but a place in its rates."""
    spec, frame = credit_spec(), events()
    scores = [0.05 + (i % 10) / 10 for i in range(9)] + [np.nan, np.inf, 0.15]
    rows = pa.Table.from_pandas(frame)
    for name, values in (("age", ODD), ("score", scores)):  # pandas would write NaN as a null
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    land(project, f"{PREDICTIONS}/a.parquet", parquet_bytes(rows))
    land(project, f"{ACTUALS}/a.parquet", truths())

    ingest(store, spec, project)

    windows = [window_containing(spec.time, frame["at"][0].to_pydatetime())]
    (counts,) = store.inference_records(spec).rebuild(windows, ["production"])
    source = store.inference_records(spec).from_sql(windows)
    profiles = build_profiles(store, spec, source, fit_binnings(store, spec, source))
    rates = quality_metrics(profiles["age"]).set_index("metric")["value"]
    assert counts.n == 10
    assert rates[["nan_rate", "inf_rate", "null_rate"]].tolist() == pytest.approx([0.1, 0.2, 0.0])
    found = performance(spec, profiles, None).set_index("metric")["value"]
    kept = [i for i in range(12) if i not in (9, 10)]
    exact = np.mean([(scores[i] - i % 2) ** 2 for i in kept])
    assert found["brier"] == pytest.approx(exact, rel=1e-9)
    assert np.isfinite(found.dropna()).all()
