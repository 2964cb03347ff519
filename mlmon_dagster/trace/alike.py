"""Rows that are alike by an embedding, and worse than the others: a new kind of question, say.

Topics are those of the baseline, and what is new falls to several of them. So groups are found
among the rows in question themselves, without a look at what came of them: any excess is then
tested as if the groups had been declared (`search.confirm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.embeddings import Vectors, find_topics, fit_embeddings, project
from mlmon_dagster.trace.search import Found, Rows, confirm

GROUPS = 16
TYPICAL = 10  # rows of a group that are named


@dataclass(frozen=True)
class Judged:
    """Rows with a vector and with what came of them, (N,) each.

    Attributes:
        ids: Their names.
        vectors: Each with a direction, (N, d).
        target: What is too high in a bad group, such as 1 for a bad answer and 0 for a good one.
        windows: Place in time of each row's window.
    """

    ids: Sequence[str]
    vectors: Vectors
    target: Floats
    windows: Ints


@dataclass(frozen=True)
class Alike:
    """A group of rows that are alike and worse.

    Attributes:
        column: The embedding.
        share: Of the rows in question. usual: Of the baseline's.
        found: By how much they are worse.
        typical: Ids of the rows nearest to the group's middle, the nearest first, at most 10.
    """

    column: str
    share: float
    usual: float
    found: Found
    typical: tuple[str, ...]


def find_alike(column: str, now: Judged, then: Judged) -> list[Alike]:
    """Find groups of rows that are worse than the others, and than such rows were.

    Args:
        column: The embedding.
        now: The rows in question.
        then: Rows of the baseline.

    Returns:
        The surest first, at a false discovery rate of .025 and between windows, of which a group
        must have 8; none where the rows are too few or all alike.
    """
    fit = fit_embeddings(now.vectors, now.ids, most_topics=GROUPS)
    if fit is None or then.vectors.shape[1:] != now.vectors.shape[1:]:
        return []
    mine, before = project(fit, now.vectors), project(fit, then.vectors)
    groups, usual = find_topics(fit, mine), find_topics(fit, before)
    rows = Rows(groups[:, None].astype(np.uint8), now.target, now.windows)
    baseline = Rows(usual[:, None].astype(np.uint8), then.target, then.windows)
    every = [((0, group),) for group in range(len(fit.centres))]  # the largest first
    found = []
    for one in confirm(rows, baseline, every):
        group = one.terms[0][1]
        members = np.flatnonzero(groups == group)
        order = members[np.argsort(-(mine[members] @ fit.centres[group]), kind="stable")]
        found.append(
            Alike(
                column,
                len(members) / len(groups),
                float((usual == group).mean()) if len(usual) else 0.0,
                one,
                tuple(now.ids[row] for row in order[:TYPICAL]),
            )
        )
    return sorted(found, key=lambda alike: alike.found.p_value)
