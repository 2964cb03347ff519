"""Codes pick the rows that their predicates say, and rows are judged by the baseline's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.clusters import profiles
from mlmon_dagster.profiles.bin_shapes import (
    categorical_binning,
    discrete_binning,
    numeric_binning,
)
from mlmon_dagster.spec.predicate import to_text
from mlmon_dagster.trace.rows import MOST_CODES, OFF, WRONG, code_column, excess, predicate_of
from tests.conftest import make_spec
from tests.spec.predicate_truth import to_callable


def numbers(rng):
    values = pd.Series(rng.lognormal(3, 1, 500))
    values[::9] = None
    edges = np.quantile(values.dropna(), np.arange(1, 20) / 20)
    return values, numeric_binning(
        "amount", list(edges), low=values.min(), high=values.max(), fine=1
    )


def hours(rng):
    values = pd.Series(rng.integers(-1, 25, 500).astype(float))
    values[::8] = None
    values[1::8] += 0.5
    return values, discrete_binning("hour", list(range(5, 24)))


def names(rng):
    values = pd.Series(rng.choice([f"c{i}" for i in range(14)], 500), dtype=object)
    values[::7] = None
    return values, categorical_binning("name", [f"c{i}" for i in range(12)])


def flags(rng):
    values = pd.Series(rng.choice([True, False], 500), dtype=object)
    values[::5] = None
    return values, categorical_binning("flag", ["true", "false"])


@pytest.mark.parametrize("make", [numbers, hours, names, flags])
def test_every_code_is_what_its_predicate_picks(make):
    values, binning = make(np.random.default_rng(2))
    coded = code_column(binning.column, values, binning)

    assert len(coded.means) <= MOST_CODES + 1
    for place, means in enumerate(coded.means):
        picks = to_callable(means)
        rows = [picks({binning.column: None if pd.isna(v) else v}) for v in values]
        assert list(coded.codes == place) == rows, to_text(means)


def test_predicates_of_several_columns_are_joined():
    rng = np.random.default_rng(3)
    columns = [code_column(b.column, v, b) for v, b in (numbers(rng), names(rng))]

    text = to_text(predicate_of(columns, ((0, 0), (1, 2))))

    assert text.startswith("amount <= ")
    assert text.endswith(" and name = 'c2'")
    assert len(text) < 35  # round numbers


def test_an_edge_between_two_values_is_short_and_above_the_lower_one():
    stored = [0.0, float(np.float32(0.01)), float(np.float32(0.02)), 5.0, 6.0]
    coded = code_column("rain", pd.Series(stored), discrete_binning("rain", stored))
    said = [to_text(meaning) for meaning in coded.means[:-1]]

    assert max(map(len, said)) <= len("rain >= 0.005 and rain < 0.015")
    assert np.diff(coded.codes).tolist() == [1, 1, 1, 1]
    for value, place in zip(stored, coded.codes, strict=True):
        assert to_callable(coded.means[place])({"rain": value})


@pytest.mark.parametrize("decided", [True, False])
def test_a_row_is_beside_others_of_its_score_and_decision(decided):
    rng = np.random.default_rng(3)
    score = rng.uniform(0.01, 0.99, 4_000)
    rows = pd.DataFrame(
        {
            "window_start": pd.Timestamp("2024-01-01", tz="UTC"),
            "slice_key": "all",
            "slice_value": "all",
            "score": score,
            "prediction": (score >= 0.3).astype(int),
            "actual": (rng.random(4_000) < score).astype(float),
        }
    )
    rows.loc[:9, "actual"] = np.nan
    baseline = profiles(rows[rows["actual"].notna()])
    spec = make_spec()
    if not decided:
        columns = spec.columns.model_copy(update={"prediction": None})
        spec = spec.model_copy(update={"columns": columns})
    found = excess(spec, rows, baseline)
    assert found is not None
    target, means = found

    assert list(target.index) == list(rows.index[10:])
    assert means == (WRONG if decided else OFF)
    low = rows.loc[target.index, "score"] < 0.3
    for part in (target[low], target[~low]):
        assert part.mean() == pytest.approx(0, abs=1e-12 if decided else 0.01)
    # Whatever all rows of a score do, none stands out by it.
    worse = rows.assign(actual=np.where(rows["score"] > 0.3, 0.0, rows["actual"]))
    again = excess(spec, worse, baseline)
    assert again is not None
    assert again[0][rows.loc[again[0].index, "score"] > 0.4].abs().max() < 0.1
