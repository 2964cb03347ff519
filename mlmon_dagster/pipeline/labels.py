"""Which rows people should label: a few of every kind, each with a known chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.evaluations import find_judge, find_truth
from mlmon_dagster.store.state.sql import literal, quote_identifier

if TYPE_CHECKING:
    import pyarrow as pa

    from mlmon_dagster.spec import ModelSpec, Window
    from mlmon_dagster.store import Store

LEAST = 5  # labels of every kind: fewer say nothing of it
GROUPS = 10  # of the score


def draw_rows(
    store: Store, spec: ModelSpec, windows: Sequence[Window], n: int, seed: int = 0
) -> pa.Table:
    """Draw rows that have no ground truth yet, by what a judge or the score says of them.

    Of each kind in proportion to its rows, and at least `LEAST`, so that a rate of all rows can be
    found from the labels (`metrics.evaluations`, `late_truth.rectified`). Which rows hangs on their
    ids and the seed alone.

    Args:
        store: The store.
        spec: The model.
        windows: Windows of production.
        n: How many rows; more where the kinds need them, fewer where there are fewer.
        seed: Another one draws other rows.

    Returns:
        Columns of the records with ``chance``, the share of its kind that a row was drawn from;
        ordered by time.
    """
    rows = store.inference_records(spec).from_sql(windows, [PRODUCTION])
    kind = _write_kind(spec)
    order = f"md5(prediction_id || {literal(str(seed))})"
    ranked = f"""(SELECT *, ROW_NUMBER() OVER (PARTITION BY kind ORDER BY {order}) AS place
        FROM (SELECT *, {kind} AS kind FROM {rows} AS r WHERE actual IS NULL) AS open)"""
    counted = store.query(f"SELECT kind, COUNT(*) AS n FROM {ranked} GROUP BY kind ORDER BY kind")
    sizes = {str(row["kind"]): int(row["n"]) for row in counted.to_pylist()}
    wanted = allot_rows(sizes, n)
    if not wanted:
        return store.query(f"SELECT *, 1e0 AS chance FROM {ranked} AS r LIMIT 0")
    picked = " OR ".join(f"(kind = {literal(k)} AND place <= {m})" for k, m in wanted.items())
    chance = " ".join(f"WHEN {literal(k)} THEN {m / sizes[k]:.6f}e0" for k, m in wanted.items())
    return store.query(
        f"SELECT * EXCLUDE (kind, place), CASE kind {chance} END AS chance FROM {ranked} AS r "
        f"WHERE {picked} ORDER BY event_time, prediction_id"
    )


def allot_rows(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """Return how many rows of each kind to draw: in proportion, but `LEAST` of each, or all.

    Args:
        sizes: Kind -> its rows.
        n: How many are asked for.

    Example:
        >>> allot_rows({"bad": 100, "good": 900}, 50)
        {'bad': 5, 'good': 45}
        >>> allot_rows({"bad": 3, "good": 997}, 50)
        {'bad': 3, 'good': 50}
    """
    total = sum(sizes.values())
    share = {kind: round(n * size / total) for kind, size in sizes.items()} if total else {}
    return {kind: min(max(share[kind], LEAST), sizes[kind]) for kind in share if sizes[kind]}


def _write_kind(spec: ModelSpec) -> str:
    """Return what tells the kinds of rows apart, as text: a judge's answer, or tenths of scores."""
    truth = find_truth(spec.evaluations)
    judge = find_judge(spec.evaluations, truth) if truth is not None else None
    if judge is not None:
        says = quote_identifier(judge)
        return f"CASE WHEN {says} IS NULL THEN '' WHEN {says} > 0 THEN 'good' ELSE 'bad' END"
    if spec.columns.score is not None:
        return f"CAST(NTILE({GROUPS}) OVER (ORDER BY score, prediction_id) AS VARCHAR)"
    return "''"
