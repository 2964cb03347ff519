"""What a ranking shows of its catalogue, against sets and counts in plain Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.items import catalogue_coverage, top_items_share


def rankings(seed: int) -> pd.DataFrame:
    """Return 300 groups of 12 items of 500, some of which are shown far more often."""
    rng = np.random.default_rng(seed)
    popular = 1 / np.arange(1, 501)
    items = [rng.choice(500, 12, replace=False, p=popular / popular.sum()) for _ in range(300)]
    return pd.DataFrame(
        {
            "group": np.repeat([f"g{i}" for i in range(300)], 12),
            "rank": np.concatenate([rng.permutation(12) + 1.0 for _ in range(300)]),
            "sku": [f"s{i}" for some in items for i in some],
        }
    ).sample(frac=1, random_state=seed)


@pytest.mark.parametrize("k", [1, 5, 12, 99])
def test_coverage_and_concentration_are_those_of_sets_and_counts(k: int) -> None:
    rows = rankings(k)
    shown = Counter(rows.loc[rows["rank"] <= k, "sku"])
    most = sum(n for _, n in shown.most_common(-(-len(shown) // 100)))

    assert catalogue_coverage(rows, "sku", k) == len(shown) / rows["sku"].nunique()
    assert catalogue_coverage(rows, "sku", k, catalogue=1_000) == len(shown) / 1_000
    assert top_items_share(rows, "sku", k) == pytest.approx(most / sum(shown.values()))


def test_scores_rank_from_the_highest_as_ranks_do_from_the_lowest() -> None:
    rows = rankings(1)
    by_score = rows.assign(score=-rows["rank"]).drop(columns="rank")

    assert catalogue_coverage(by_score, "sku", 3) == catalogue_coverage(rows, "sku", 3)
    assert top_items_share(by_score, "sku", 3) == top_items_share(rows, "sku", 3)


def test_rows_without_a_group_or_an_item_show_nothing() -> None:
    rows = pd.DataFrame({"group": ["a", None], "rank": [1.0, 1.0], "sku": [None, "x"]})

    assert catalogue_coverage(rows, "sku") == 0.0
    assert catalogue_coverage(rows.iloc[:0], "sku") is None
    assert top_items_share(rows, "sku") is None


def test_items_that_are_all_shown_alike_have_the_least_concentration() -> None:
    rows = pd.DataFrame({"group": range(200), "rank": 1.0, "sku": range(200)})

    assert top_items_share(rows, "sku") == pytest.approx(0.01)
