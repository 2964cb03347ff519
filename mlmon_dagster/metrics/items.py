"""What a ranking shows of its catalogue: functions for `metrics` of a spec, of a window's rows.

Coverage and concentration of recommendations are of items, not of groups, so that no mean over
groups gives them; how far they vary is known from windows (Ge, Delgado-Battenfeld and Jannach,
2010).

A spec names one as a metric of its own::

    metrics:
      - {of: "mlmon_dagster.metrics.items:catalogue_coverage", columns: [group, rank, sku],
         arguments: {item: sku, k: 10}, better: higher}
"""

from __future__ import annotations

import math

import pandas as pd

_TOP = 0.01  # of the items


def catalogue_coverage(
    rows: pd.DataFrame, item: str, k: int = 5, catalogue: int | None = None
) -> float | None:
    """Return the share of the items that are among the first k of any group.

    Args:
        rows: ``group``, ``rank`` (or a falling ``score``) and the item of a window's rows.
        item: The column that names the item; rows without one do not count.
        k: Ranks that count as shown.
        catalogue: Items that could be shown; without it those that a group of the window holds.

    Returns:
        0 to 1; None without items.

    Example:
        >>> rows = pd.DataFrame({"group": [1, 1, 2, 2], "rank": [1, 2, 1, 2], "sku": list("abac")})
        >>> catalogue_coverage(rows, "sku", k=1), catalogue_coverage(rows, "sku", 1, catalogue=10)
        (0.3333333333333333, 0.1)
    """
    n = catalogue or int(rows[item].nunique())
    return min(int(_select_shown(rows, item, k).nunique()) / n, 1.0) if n else None


def top_items_share(rows: pd.DataFrame, item: str, k: int = 5, top: float = _TOP) -> float | None:
    """Return which share of all that is shown the most shown items have.

    Args:
        rows: As of `catalogue_coverage`.
        item: As there.
        k: As there.
        top: Share of the shown items that counts as the most shown, rounded up to whole items.

    Returns:
        From the share of one item, 1 / items where all are shown alike, to 1; None without items.

    Example:
        >>> rows = pd.DataFrame({"group": [1, 2, 3, 4], "rank": 1, "sku": list("aaab")})
        >>> top_items_share(rows, "sku")
        0.75
    """
    counts = _select_shown(rows, item, k).value_counts()
    if not len(counts):
        return None
    return float(counts.iloc[: math.ceil(top * len(counts))].sum() / counts.sum())


def _select_shown(rows: pd.DataFrame, item: str, k: int) -> pd.Series:
    """Return the items of the first k rows of each group."""
    known = rows[rows["group"].notna()]
    by, is_ascending = ("rank", True) if "rank" in rows else ("score", False)
    ordered = known.sort_values(by, ascending=is_ascending, kind="stable", na_position="last")
    return ordered.groupby("group", sort=False).head(k)[item].dropna()
