"""A model that starts to listen to something else, from landing files to the check's verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT
from tests.defs.small_model import DAYS, NOW, customers, drop, landing, write_declaration
from tests.defs.worlds import World, opened

JUDGED = DAYS[6]
WEIGHTS = {"age": 3.0, "balance": 1.0, "region": 0.5}


def with_shap(predictions: pd.DataFrame, weights: dict[str, float], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    shap = {f"shap_{f}": w * rng.normal(size=len(predictions)) for f, w in weights.items()}
    frame = predictions.assign(**shap)
    frame.loc[frame.index[:10], "shap_age"] = np.nan  # not explained
    return frame


@pytest.fixture
def world(tmp_path: Path):
    folder = tmp_path / "explained"
    path = folder / "models" / "churn.yaml"
    write_declaration(folder)
    path.write_text(
        path.read_text()
        .replace("slices: [region]", "baseline: {moving: 8d}\nslices: [region]")
        .replace("dataset: dataset, ", 'shap: "shap_{feature}", ')
    )
    for seed, day in enumerate(DAYS[:7]):
        predictions, actuals = customers(day)
        weights = WEIGHTS | ({"age": 1.0, "region": 3.0} if day == JUDGED else {})
        for stream, frame in (
            ("predictions", with_shap(predictions, weights, seed)),
            ("actuals", actuals),
        ):
            kept = frame.drop(columns="dataset", errors="ignore")
            drop(kept, landing(folder, stream) / f"{day}.parquet")
    with opened(folder, NOW) as made:
        made.launcher.materialize(made.spec, ("event_log",))
        yield made


def test_a_feature_that_counts_for_less_than_before_fails_and_says_so(world: World) -> None:
    world.work()
    found = world.verdicts("drift", JUDGED).set_index("monitor")
    for feature, word in (("age", "less"), ("region", "more")):
        row = found.loc[f"drift/{ATTRIBUTION_SHIFT}/{feature}"]
        assert row["status"] == "WARN", row["message"]
        assert f"{word} than in the baseline" in row["message"]
    assert found.loc[f"drift/{ATTRIBUTION_SHIFT}/balance", "status"] == "OK"
    before = world.verdicts("drift", DAYS[5]).set_index("monitor")
    assert {before.loc[f"drift/{ATTRIBUTION_SHIFT}/{f}", "status"] for f in WEIGHTS} == {"OK"}

    metrics = world.metrics(JUDGED)
    shares = metrics[(metrics["metric"] == ATTRIBUTION) & (metrics["slice_key"] == "all")]
    assert shares["value"].sum() == pytest.approx(1.0)
    assert set(shares["n"]) == {140}
    by_region = metrics[(metrics["metric"] == ATTRIBUTION) & (metrics["slice_key"] == "region")]
    assert by_region["slice_value"].nunique() > 1
