"""A model that starts to listen to something else, from landing files to the check's verdict."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.report.trace import score_explained
from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT
from mlmon_dagster.tables.metrics import query_metrics
from mlmon_dagster.trace.sentences import describe_score
from tests.defs.small_model import (
    DAYS,
    NOW,
    customers,
    drop,
    landing,
    windows_of_days,
    write_declaration,
)
from tests.defs.worlds import World, opened

JUDGED = DAYS[6]
WEIGHTS = {"age": 3.0, "balance": 1.0, "region": 0.5}


def with_shap(predictions: pd.DataFrame, weights: dict[str, float], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    shap = {f"shap_{f}": w * rng.normal(size=len(predictions)) for f, w in weights.items()}
    frame = predictions.assign(**shap)
    frame.loc[frame.index[:10], "shap_age"] = np.nan  # not explained
    return frame


def with_true_shap(predictions: pd.DataFrame) -> pd.DataFrame:
    """The customers' score is the sum of what age and balance add to its log-odds."""
    return predictions.assign(
        shap_age=(predictions["age"] - 40) / 8,
        shap_balance=-np.log(predictions["balance"]),
        shap_region=0.0,
    )


@pytest.fixture
def world(tmp_path: Path):
    yield from landed(tmp_path / "explained", wrong_shap)


@pytest.fixture
def additive(tmp_path: Path):
    yield from landed(tmp_path / "additive", lambda _, frame: with_true_shap(frame), age=44.0)


def wrong_shap(day: dt.date, predictions: pd.DataFrame) -> pd.DataFrame:
    weights = WEIGHTS | ({"age": 1.0, "region": 3.0} if day == JUDGED else {})
    return with_shap(predictions, weights, day.toordinal())


def landed(
    folder: Path, explain: Callable[[dt.date, pd.DataFrame], pd.DataFrame], age: float = 40.0
) -> Iterator[World]:
    """Land a week with SHAP values; on its last day customers have another age."""
    path = folder / "models" / "churn.yaml"
    write_declaration(folder)
    path.write_text(
        path.read_text()
        .replace("slices: [region]", "baseline: {moving: 8d}\nslices: [region]")
        .replace("dataset: dataset, ", 'shap: "shap_{feature}", ')
    )
    for day in DAYS[:7]:
        predictions, actuals = customers(day, age=age if day == JUDGED else 40.0)
        for stream, frame in (("predictions", explain(day, predictions)), ("actuals", actuals)):
            kept = frame.drop(columns="dataset", errors="ignore")
            drop(kept, landing(folder, stream) / f"{day}.parquet")
    with opened(folder, NOW) as made:
        made.launcher.materialize(made.spec, ("event_log",))
        yield made


@pytest.mark.proof
def test_a_feature_that_counts_for_less_than_before_fails_and_says_so(world: World) -> None:
    world.work()
    found = world.verdicts("drift", JUDGED).set_index("monitor")
    for feature, word in (("age", "less"), ("region", "more")):
        row = found.loc[f"drift/{ATTRIBUTION_SHIFT}/{feature}"]
        assert row["status"] == "WARN", row["message"]
        said = re.match(
            rf"{feature} has ([\d.]+) % of the attributions, in the baseline ([\d.]+) %",
            row["message"],
        )
        assert said, row["message"]
        now, before = map(float, said.groups())
        assert (now < before) == (word == "less")
    assert found.loc[f"drift/{ATTRIBUTION_SHIFT}/balance", "status"] == "OK"
    row = world.verdicts("quality", JUDGED).set_index("monitor").loc["quality/not_additive_rate"]
    assert row["status"] == "WARN"  # these values belong to no score
    said = "SHAP values do not add up to the score in"
    assert row["message"].startswith((f"{said} 9", f"{said} every row"))
    before = world.verdicts("drift", DAYS[5]).set_index("monitor")
    assert {before.loc[f"drift/{ATTRIBUTION_SHIFT}/{f}", "status"] for f in WEIGHTS} == {"OK"}

    metrics = world.metrics(JUDGED)
    shares = metrics[(metrics["metric"] == ATTRIBUTION) & (metrics["slice_key"] == "all")]
    assert shares["value"].sum() == pytest.approx(1.0)
    assert set(shares["n"]) == {140}
    asked = query_metrics(world.project, world.spec, metric=(ATTRIBUTION,), slice_="region")
    by_region = asked[asked["window"] == f"{JUDGED}"].groupby("slice_value")["value"]
    assert len(by_region) > 1
    assert by_region.sum().to_numpy() == pytest.approx(1.0)


def test_why_the_scores_rose_is_said_by_feature_and_adds_up(additive: World) -> None:
    additive.work()
    verdict = additive.verdicts("quality", JUDGED).set_index("monitor")
    assert verdict.loc["quality/not_additive_rate", "status"] == "OK"

    spec, store = additive.spec, additive.project.store
    *before, judged = windows_of_days(spec, DAYS[:7])
    then = (before[0].start, before[-1].end)
    found = score_explained(store, spec, (judged.start, judged.end), then)
    assert found is not None
    effects = dict(zip(found.split.parts, found.split.effects, strict=True))
    assert 0.3 < effects["age"] < 0.7  # four years more, an eighth of the log-odds each
    assert abs(found.rest) <= 1e-9 * abs(found.change)
    # One window does not say how far windows stray: no feature is named.
    assert describe_score(found).endswith("the windows are too few to tell that from chance.")
