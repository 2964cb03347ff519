"""Codes pick the rows that their predicates say, and rows are judged by the baseline's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.profiles.bins.shapes import (
    categorical_binning,
    discrete_binning,
    numeric_binning,
)
from mlmon_dagster.spec.predicate import to_text
from mlmon_dagster.trace.coding import MOST_CODES, code, predicate_of
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
    coded = code(binning.column, values, binning)

    assert len(coded.means) <= MOST_CODES + 1
    for place, means in enumerate(coded.means):
        picks = to_callable(means)
        rows = [picks({binning.column: None if pd.isna(v) else v}) for v in values]
        assert list(coded.codes == place) == rows, to_text(means)


def test_predicates_of_several_columns_are_joined():
    rng = np.random.default_rng(3)
    columns = [code(b.column, v, b) for v, b in (numbers(rng), names(rng))]

    text = to_text(predicate_of(columns, ((0, 0), (1, 2))))

    assert text.startswith("amount <= ")
    assert text.endswith(" and name = 'c2'")
    assert len(text) < 35  # round numbers
