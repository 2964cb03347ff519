"""What a user would write: metrics of a window's rows, some of which go wrong."""

from __future__ import annotations

import pandas as pd

from mlmon_dagster import metric


@metric(columns=["age", "region"], better="higher", windows="1 of 1")
def mean_age(rows: pd.DataFrame) -> float:
    """Return the mean age of customers."""
    return float(rows["age"].mean())


def gini(rows: pd.DataFrame) -> float:
    """Return the Gini coefficient of the scores among those who left, 2 AUC - 1."""
    ranks = rows["score"].rank()
    left = rows["actual"] == 1
    n_left, n_stayed = left.sum(), (~left).sum()
    area = (ranks[left].sum() - n_left * (n_left + 1) / 2) / (n_left * n_stayed)
    return float(2 * area - 1)


def count_rows(rows: pd.DataFrame, times: int = 1) -> float:
    """Return how many rows there are."""
    return float(times * len(rows))


def first_name(rows: pd.DataFrame) -> str:
    """Return no number."""
    return str(rows["region"].iloc[0])


def failing(rows: pd.DataFrame) -> float:
    """Raise with a value of the data in the text."""
    raise ValueError(f"could not read {rows['region'].iloc[0]!r} of 'region'")


def no_value(rows: pd.DataFrame) -> None:
    """Say that there is no value."""
