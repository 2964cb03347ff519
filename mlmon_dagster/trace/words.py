"""Words that tell some texts from others.

By the log-odds of a word in a text, with the frequencies of all texts as the prior (Monroe,
Colaresi and Quinn, 2008): a word that everybody uses tells nothing, and a rare one little.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"[^\W\d_]{3,}")
_LEAST_SHARE = 0.1  # of the texts that a word has to be in
_LEAST_Z = 3.3  # standard errors of the log-odds
_PRIOR = 500.0  # texts that the frequencies of all texts count as


def find_telling_words(mine: Sequence[str], others: Sequence[str], most: int = 4) -> list[str]:
    """Return the words that tell texts from others, the most telling first.

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
    prior = _PRIOR * (own + theirs) / (n + m) + 0.5
    rest = _PRIOR + 1 - prior
    odds = (own + prior) / (n - own + rest), (theirs + prior) / (m - theirs + rest)
    log_odds = np.log(odds[0]) - np.log(odds[1])
    z = log_odds / np.sqrt(1 / (own + prior) + 1 / (theirs + prior))
    order = sorted(range(len(words)), key=lambda i: (-z[i], words[i]))
    return [words[i] for i in order[:most] if z[i] >= _LEAST_Z]


def _count(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
