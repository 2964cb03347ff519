"""Labelled scores in their order, so finely told apart that areas are those of the rows.

A score's *node* is a place in a binary tree over the logit scale: at depth d it is 2**d + its
place among 2**d equal steps, so that halving a node gives the one above it. How deep a cell's
nodes are depends on its labelled rows alone: two scores share a node rarely where rows are few,
and where rows are many a pair of them weighs little. Adding cells up moves their nodes to the
depth of the sum, so profiles of parts, in any order, add up to the profile of the whole.

A code is ``2 * node``, plus 1 where the actual is positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics.arrays import Ints

SCORE_ORDER = ":score_order"
DEEPEST, SHALLOWEST = 22, 16
_FEW = 8_192  # labelled rows up to which nodes are as deep as they get


class ScoreOrder(NamedTuple):
    """Labelled rows of one cell by code; both of shape (K,), codes ascending, no zeros."""

    codes: Ints
    rows: Ints


NO_SCORES = ScoreOrder(np.empty(0, np.int64), np.empty(0, np.int64))


def depth_of(labelled: int) -> int:
    """Return the depth of the nodes of a cell; every doubling of its rows takes one off.

    Example:
        >>> [depth_of(n) for n in (0, 8_192, 8_193, 100_000, 10_000_000)]
        [22, 22, 21, 18, 16]
    """
    doublings = (max(labelled - 1, 0) // _FEW).bit_length()
    return max(DEEPEST - doublings, SHALLOWEST)


def add_up(parts: Sequence[ScoreOrder]) -> ScoreOrder:
    """Add cells up, at the depth of the sum; one cell alone is moved to its depth.

    Example:
        >>> both = add_up([ScoreOrder(np.array([2 * 2**22]), np.array([5_000]))] * 2)
        >>> both.codes.tolist() == [2 * 2**21], both.rows.tolist()
        (True, [10000])
    """
    filled = [part for part in parts if len(part.codes)]
    if not filled:
        return NO_SCORES
    rows = np.concatenate([part.rows for part in filled])
    depth = depth_of(int(rows.sum()))
    codes = np.concatenate([_lifted(part.codes, depth) for part in filled])
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return ScoreOrder(codes[starts], np.add.reduceat(rows[order], starts))


def _lifted(codes: Ints, depth: int) -> Ints:
    above = int(codes[0] >> 1).bit_length() - 1 - depth
    return (codes >> (above + 1)) << 1 | (codes & 1) if above > 0 else codes


def by_node(order: ScoreOrder) -> tuple[Ints, Ints]:
    """Return negatives and positives per node that has rows, ascending scores, each (K,)."""
    is_new = np.diff(order.codes >> 1, prepend=-1) != 0
    counts = np.zeros((2, int(is_new.sum())), np.int64)
    counts[order.codes & 1, np.cumsum(is_new) - 1] = order.rows
    return counts[0], counts[1]
