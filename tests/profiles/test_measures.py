from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.statistics import concat
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.spec.declaration import Columns, Feature, TimeSpec
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import FileSource, Sources
from tests.metrics.samples import cells, count, numeric_binning

RNG = np.random.default_rng(4)
VALUES = RNG.normal(size=(20, 400))
BINNING = numeric_binning(VALUES)


def spec() -> ModelSpec:
    return ModelSpec(
        model="small",
        task="binary_classification",
        owners=("team:small",),
        time=TimeSpec(start=dt.date(2024, 1, 1)),
        source=Sources(predictions=FileSource(path="small.parquet")),
        columns=Columns(prediction_id="prediction_id", event_time="event_time", score="score"),
        features={"x": Feature(type="numeric")},
    )


def versions(values, *names, **slice_of):
    """Statistics whose rows are split over model versions, window by window."""
    parts = np.array_split(values, len(names), axis=1)
    return concat(
        [
            replace(count(BINNING, part), cells=cells(len(values), version=name, **slice_of))
            for part, name in zip(parts, names, strict=True)
        ]
    )


@pytest.mark.parametrize("family", ["quality", "drift"])
def test_versions_are_measured_together_however_the_rows_are_split(family):
    current = RNG.normal(0.4, 1, size=(3, 300))
    one, two = (
        measure(spec(), family, {"x": versions(current, *names)}, {"x": versions(VALUES, *names)})
        for names in (("1",), ("1", "2"))
    )
    keys = ["metric", "window_start"]
    assert set(one["model_version"]) == {"all"}
    pd.testing.assert_frame_equal(*(frame.set_index(keys).sort_index() for frame in (one, two)))


def test_slices_have_a_distance_and_its_p_value():
    part = {"key": "group", "value": "a"}
    frame = measure(
        spec(),
        "drift",
        {"x": versions(VALUES[:2], "1", **part)},
        {"x": versions(VALUES, "1", **part)},
    )
    assert set(frame["metric"]) == {"psi"}
    assert frame["value"].notna().all()
    assert frame["p_value"].notna().all()
