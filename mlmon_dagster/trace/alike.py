"""Rows that are alike by an embedding, and worse than the others: a new kind of question, say.

Topics are those of the baseline, and what is new falls to several of them. So groups are found
among the rows in question themselves, without a look at what came of them: any excess is then
tested as if the groups had been declared: between windows (`search.confirm`), and of groups that
fewer than 8 windows hold by rows, beside the other rows of these windows (Welch, 1947). What a
window did to all of its rows cancels there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.embeddings import Vectors, find_topics, fit_embeddings, project
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.trace.search import Excess, Found, Rows, Terms, confirm, keep_sure, members

GROUPS = 16
_BY_ROWS, _FEWEST = 0.01, 20
TYPICAL = 10  # rows of a group that are named
_WORD = re.compile(r"[^\W\d_]{3,}")
_LEAST_SHARE = 0.1  # of the texts that a word has to be in
_LEAST_Z = 3.3  # standard errors of the log-odds
_PRIOR_TEXTS = 500.0  # that the frequencies of all texts count as


@dataclass(frozen=True)
class Judged:
    """Rows with a vector and with what came of them, (N,) each.

    Attributes:
        ids: Their names.
        vectors: Each with a direction, (N, d).
        target: What is too high in a bad group, such as 1 for a bad answer and 0 for a good one.
        windows: Place in time of each row's window.
        texts: What may be shown of each row's text; empty of models without such.
    """

    ids: Sequence[str]
    vectors: Vectors
    target: Floats
    windows: Ints
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Alike:
    """A group of rows that are alike and worse.

    Attributes:
        column: The embedding.
        share: Of the rows in question. usual: Of the baseline's.
        found: By how much they are worse.
        typical: Ids of the rows nearest to the group's middle, the nearest first, at most 10.
        words: That tell their texts from those of the other rows, at most 4.
    """

    column: str
    share: float
    usual: float
    found: Found
    typical: tuple[str, ...]
    words: tuple[str, ...]


def find_alike(column: str, now: Judged, then: Judged) -> list[Alike]:
    """Find groups of rows that are worse than the others, and than such rows were.

    Args:
        column: The embedding.
        now: The rows in question.
        then: Rows of the baseline.

    Returns:
        The surest first, at a false discovery rate of .025 between windows and .01 by rows; none
        where the rows are too few or all alike.
    """
    fit = fit_embeddings(now.vectors, now.ids, most_topics=GROUPS, most_exemplars=0)
    if fit is None or then.vectors.shape[1:] != now.vectors.shape[1:]:
        return []
    mine, before = project(fit, now.vectors), project(fit, then.vectors)
    groups, usual = find_topics(fit, mine), find_topics(fit, before)
    rows = Rows(groups[:, None].astype(np.uint8), now.target, now.windows)
    baseline = Rows(usual[:, None].astype(np.uint8), then.target, then.windows)
    every = [((0, group),) for group in range(len(fit.centres))]  # the largest first
    held = [len(np.unique(now.windows[groups == terms[0][1]])) for terms in every]
    lasting = [terms for terms, n in zip(every, held, strict=True) if n >= FEWEST_WINDOWS]
    brief = [terms for terms, n in zip(every, held, strict=True) if n < FEWEST_WINDOWS]
    by_rows = [_judge_by_rows(terms, rows, baseline) for terms in brief]
    found = []
    for one in [*confirm(rows, baseline, lasting), *keep_sure(by_rows, _BY_ROWS)]:
        group = one.terms[0][1]
        own = np.flatnonzero(groups == group)
        order = own[np.argsort(-(mine[own] @ fit.centres[group]), kind="stable")]
        found.append(
            Alike(
                column,
                len(own) / len(groups),
                float((usual == group).mean()) if len(usual) else 0.0,
                one,
                tuple(now.ids[row] for row in order[:TYPICAL]),
                tuple(_find_words(now.texts, groups == group)),
            )
        )
    return sorted(found, key=lambda alike: alike.found.p_value)


def _find_words(texts: Sequence[str], is_mine: Flags) -> list[str]:
    if not texts:
        return []
    mine, others = (
        [texts[i] for i in np.flatnonzero(side).tolist()] for side in (is_mine, ~is_mine)
    )
    return find_telling_words(mine, others)


def _judge_by_rows(terms: Terms, rows: Rows, baseline: Rows) -> Found:
    """Test the excess of a group over the other rows of its windows, beyond the baseline's."""
    now = _excess_by_rows(members(rows.codes, terms), rows)
    then = _excess_by_rows(members(baseline.codes, terms), baseline)
    excess, variance = now.value - then.value, now.variance + then.variance
    error = float(np.sqrt(variance))
    p_value = float(special.ndtr(-excess / error)) if now.variance > 0 else 1.0
    margin = Z95 * error if now.variance > 0 else np.nan
    return Found(terms, now.n, now.windows, excess, margin, p_value)


def _excess_by_rows(mine: Flags, rows: Rows) -> Excess:
    """Return by how much rows are above the others of the windows that hold them."""
    windows = np.unique(rows.windows[mine])
    others = ~mine & np.isin(rows.windows, windows)
    inside, outside = rows.target[mine], rows.target[others]
    if min(len(inside), len(outside)) < _FEWEST:
        return Excess(0.0, 0.0, len(inside), len(windows))
    variance = inside.var(ddof=1) / len(inside) + outside.var(ddof=1) / len(outside)
    difference = float(inside.mean() - outside.mean())
    return Excess(difference, float(variance), len(inside), len(windows))


def find_telling_words(mine: Sequence[str], others: Sequence[str], most: int = 4) -> list[str]:
    """Return the words that tell texts from others, the most telling first.

    By the log-odds of a word in a text, with the frequencies of all texts as the prior (Monroe,
    Colaresi and Quinn, 2008): a word that everybody uses tells nothing, and a rare one little.

    Args:
        mine: Texts in question. A word counts once a text, in lower case, from three letters on.
        others: What they are beside.
        most: How many words at most.

    Returns:
        Words of a tenth of the texts or more that are commoner in them for sure; none of empty
        texts.

    Example:
        >>> find_telling_words(["a virtual card"] * 50, ["my card is lost"] * 50)
        ['virtual']
    """
    inside, outside = _count(mine), _count(others)
    words = [word for word, n in inside.items() if n >= _LEAST_SHARE * len(mine)]
    if not words or not others:
        return []
    n, m = len(mine), len(others)
    own = np.array([inside[word] for word in words], np.float64)
    theirs = np.array([outside[word] for word in words], np.float64)
    # Half a text more, with and without: no word is in none or in all of them.
    prior = _PRIOR_TEXTS * (own + theirs) / (n + m) + 0.5
    rest = _PRIOR_TEXTS + 1 - prior
    odds = (own + prior) / (n - own + rest), (theirs + prior) / (m - theirs + rest)
    log_odds = np.log(odds[0]) - np.log(odds[1])
    z = log_odds / np.sqrt(1 / (own + prior) + 1 / (theirs + prior))
    order = sorted(range(len(words)), key=lambda i: (-z[i], words[i]))
    return [words[i] for i in order[:most] if z[i] >= _LEAST_Z]


def _count(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
