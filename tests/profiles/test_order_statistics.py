"""Order statistics are the same whether numpy selects them or the engine is asked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.profiles import fit as module
from mlmon_dagster.profiles.bin_codes import DUCKDB
from mlmon_dagster.profiles.fit import order_statistics
from tests.profiles.records import DuckEngine

RNG = np.random.default_rng(0)
COLUMNS = {
    "continuous": RNG.normal(size=1_237),
    "ties": np.round(RNG.lognormal(sigma=2.5, size=1_237)),
    "few": RNG.integers(0, 32, 1_237).astype(float),
    "late": np.r_[np.zeros(1_200), np.arange(37.0)],
    "huge": RNG.choice([-1e300, 1e300], 1_237) * RNG.random(1_237),
    "constant": np.full(1_237, 7.0),
}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_numpy_selects_what_the_engine_would_answer(share, monkeypatch):
    """With ties, few values, none, and values whose sum is no number."""
    table = pa.table(
        {name: pa.array(x, mask=RNG.random(len(x)) < share) for name, x in COLUMNS.items()}
    )
    engine, names = DuckEngine(records=table), {name: name for name in COLUMNS}
    selected = order_statistics(engine, "records", names, DUCKDB)
    monkeypatch.setattr(module, "MAX_HELD", 0)
    asked = order_statistics(engine, "records", names, DUCKDB)

    for name in COLUMNS:
        for field in ("values", "quantiles", "low", "high", "median", "off_heap"):
            assert getattr(selected[name], field) == getattr(asked[name], field), (name, field)
    assert (selected["few"].values is None) is False
    assert (selected["late"].values is None) is (share == 0)
