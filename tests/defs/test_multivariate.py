"""Columns that stop hanging together, from landing files to the check's verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlmon_dagster.spec.monitors import CORRELATION_CHANGE, CORRELATION_SHIFT
from tests.defs.small_model import DAYS, NOW, customers, drop, landing, write_declaration
from tests.defs.worlds import World, opened

JUDGED = DAYS[6]
DECLARED = "drift: {above: 0.25, windows: 1 of 1, multivariate: {above: 0.3}}"


@pytest.fixture
def world(tmp_path: Path):
    folder = tmp_path / "joint"
    path = folder / "models" / "churn.yaml"
    write_declaration(folder)
    path.write_text(
        path.read_text()
        .replace("slices: [region]", "baseline: {moving: 8d}\nslices: [region]")
        .replace("dataset: dataset, ", "")
        .replace("drift: {above: 0.25, windows: 1 of 1}", DECLARED)
    )
    rng = np.random.default_rng(0)
    for day in DAYS[:7]:
        predictions, actuals = customers(day)
        balance = 50 * predictions["age"] + rng.normal(0, 100, len(predictions))
        if day == JUDGED:
            balance = rng.permutation(balance)
        for stream, frame in (
            ("predictions", predictions.assign(balance=balance)),
            ("actuals", actuals),
        ):
            kept = frame.drop(columns="dataset", errors="ignore")
            drop(kept, landing(folder, stream) / f"{day}.parquet")
    with opened(folder, NOW) as made:
        made.launcher.materialize(made.spec, ("event_log",))
        yield made


@pytest.mark.proof
def test_a_day_on_which_two_columns_come_apart_fails_and_names_them(world: World) -> None:
    world.work()
    row = world.verdicts("drift", JUDGED).set_index("metric").loc[CORRELATION_SHIFT]
    assert row["status"] == "WARN"
    assert row["monitor"] == f"drift/{CORRELATION_SHIFT}"
    assert "age x balance by -" in row["message"]
    before = world.verdicts("drift", DAYS[5]).set_index("metric").loc[CORRELATION_SHIFT]
    assert before["status"] == "OK"
    metrics = world.metrics(JUDGED)
    assert "age x balance" in set(metrics[metrics["metric"] == CORRELATION_CHANGE]["column_name"])
    alone = world.verdicts("drift", JUDGED).set_index("monitor")
    assert {alone.loc[f"drift/psi/{c}", "status"] for c in ("age", "balance")} == {"OK"}
