"""Searched slices: which rows, by up to three predicates, are worse than they should be.

Every slice of three coded columns or fewer is looked at (the question of SliceLine: Sagadeeva and
Boehm, 2021), so most of what stands out does so by chance, and of one cause dozens of relatives
stand out. Hence

1. windows are dealt into two halves of contiguous blocks, as rows of a window share more than they
   show and neighbouring windows do, too;
2. on one half all slices are *explored*: of those that stand out between windows the best by rows,
   and each pick takes its rows' excess away before the next (greedy cover), so that a cause is
   named once;
3. on the other half the few picks are *confirmed*, in their order and given those before, by
   Student's t between windows, and the same the other way round, with the false discoveries of
   either direction held at 2.5 % (Benjamini and Hochberg, 1995) and so at 5 % of both together:
   V / R <= V1 / R1 + V2 / R2;
4. what is confirmed is *kept*, the best by all rows first, if it still has an excess given those
   kept before: what one half sees as a slice, and the other as a part of it, is one cause.

What is confirmed is an excess beyond that of the same slice in the baseline's rows, where there are
enough of them: some slices always are worse than their scores say, and that is no change.

An excess is that over all rows, m_S - m. What a window adds to it is its sum of (y - m_S) / n over
the slice less its sum of (y - m) / N over all rows (its influence; Liang and Zeger, 1986): what all
rows of a window share cancels. Of independent rows its variance is s^2 (1/n - 1/N).

Numbers are of the confirming half alone, which did not propose the slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Flags, Floats, Ints
from mlmon_dagster.metrics.intervals import benjamini_hochberg

Codes = NDArray[np.uint8]
Term = tuple[int, int]  # column and code
Terms = tuple[Term, ...]
FALSE = 0.05  # share of false discoveries among the slices that are named
_ONE_WAY = FALSE / 2  # of each half's picks
PICKS = 30
_CANDIDATES = 3_000
_FEWEST_ROWS, _LEAST_SHARE = 50, 0.002
_SIMPLER = 0.15  # standard deviations that another predicate must add
_STANDS_OUT, _BETWEEN = 3.7, 3.0  # standard deviations, by rows and between windows
_BLOCK = 7  # windows in a row that go into the same half
_MOST_EXPLORED = 50_000  # rows


@dataclass(frozen=True)
class Found:
    """A slice whose rows are worse than they should be.

    Attributes:
        terms: Column and code of each predicate, in the order of the columns.
        n: Its rows in the half that confirms.
        windows: Windows of that half that hold some.
        excess: Mean of the target over those rows less that of all, in its unit; beyond what it is
            in the baseline.
        margin: Half of its 95 % interval, between windows.
        p_value: Chance of so large an excess without any, corrected for the number of picks.
    """

    terms: Terms
    n: int
    windows: int
    excess: float
    margin: float
    p_value: float


class Rows(NamedTuple):
    """Rows that are searched, or compared with.

    Attributes:
        codes: Columns as small codes, (N, F), each 0 to at most 255; equal codes are one value.
        target: What is too high in a bad slice, such as a row's loss less what it was expected to
            be, (N,); finite. Only its distance from its mean counts.
        windows: Place in time of each row's window, (N,), 0 to W - 1.
    """

    codes: Codes
    target: Floats
    windows: Ints

    def of(self, chosen: Flags) -> Rows:
        """Return some of the rows."""
        return Rows(self.codes[chosen], self.target[chosen], self.windows[chosen])


def search(rows: Rows, baseline: Rows | None = None) -> list[Found]:
    """Find slices whose rows have a higher target than all others, and than in the baseline.

    Args:
        rows: Where to search.
        baseline: Rows with the same columns and codes; without them no slice is known.

    Returns:
        The slices that one half proposes and the other confirms, the surest first. None where
        a half has fewer than `FEWEST_WINDOWS` windows, or nothing stands out.
    """
    mine = _centred(rows)
    before = mine.of(np.zeros(len(mine.target), bool)) if baseline is None else _centred(baseline)
    if not has_enough(mine.windows):
        return []
    first = halves(mine.windows)
    sure: list[tuple[Found, Flags]] = []
    for explored in (first, ~first):
        picks = explore(mine.of(explored))
        sure += [(one, ~explored) for one in confirm(mine.of(~explored), before, picks)]
    return _kept(mine, before, sure)


def _centred(rows: Rows) -> Rows:
    target = rows.target - rows.target.mean() if len(rows.target) else rows.target
    return rows._replace(target=target, windows=np.unique(rows.windows, return_inverse=True)[1])


def _count(windows: Ints) -> int:
    """Return how many windows some rows are of."""
    return int(np.count_nonzero(np.bincount(windows)))


def has_enough(windows: Ints) -> bool:
    """Say whether each half of the windows is enough to confirm what the other proposes."""
    first = halves(windows)
    return min(_count(windows[half]) for half in (first, ~first)) >= FEWEST_WINDOWS


def halves(windows: Ints) -> Flags:
    """Say which rows are in the first half: those of every other block of windows."""
    places = np.unique(windows)
    block = min(_BLOCK, max(len(places) // 4, 1))
    mine: Flags = (np.searchsorted(places, windows) // block) % 2 == 0
    return mine


def _kept(rows: Rows, baseline: Rows, sure: Sequence[tuple[Found, Flags]]) -> list[Found]:
    """Keep each cause once: what has an excess given those kept before it, the best first."""
    held = {found.terms: members(rows.codes, found.terms) for found, _ in sure}
    spread = float(rows.target.std())

    def strength(terms: Terms) -> float:
        mine = held[terms]
        error = float(_error_by_rows(spread, np.array(mine.sum()), len(mine)))
        return float(rows.target[mine].sum()) / error - _SIMPLER * len(terms)

    kept: list[Found] = []
    for found, half in sorted(sure, key=lambda one: -strength(one[0].terms)):
        given = _judged(found.terms, rows.of(half), baseline)
        if given.p_value > _ONE_WAY:
            continue
        kept.append(replace(given, p_value=found.p_value))
        rest = rows.target.copy()
        for side in (half, ~half):
            rest[side] = _without(rest[side], held[found.terms][side])
        rows = rows._replace(target=rest)
        baseline = _rest(baseline, found.terms)
    return kept


def _rest(rows: Rows, terms: Terms) -> Rows:
    """Return rows without the excess of a slice."""
    return rows._replace(target=_without(rows.target, members(rows.codes, terms)))


def _without(target: Floats, mine: Flags) -> Floats:
    """Take the excess of some rows over the others away."""
    if mine.all() or not mine.any():
        return target
    return np.where(mine, target - target[mine].mean() + target[~mine].mean(), target)


def members(codes: Codes, terms: Terms) -> Flags:
    """Say which rows a slice holds."""
    found = np.ones(len(codes), bool)
    for column, code in terms:
        found &= codes[:, column] == code
    return found


# --- exploring


def explore(rows: Rows) -> list[Terms]:
    """Pick slices that stand out, each after the excess of those before was taken away.

    Args:
        rows: Of one half.

    Returns:
        At most `PICKS`, in the order of picking.
    """
    codes, target, windows = rows
    if len(target) > _MOST_EXPLORED:
        # Every so-many-th row of each window, so that no window is lost.
        order = np.argsort(windows, kind="stable")
        some = order[:: -(-len(target) // _MOST_EXPLORED)]
        codes, target, windows = codes[some], target[some], windows[some]
    target = target - target.mean()
    candidates = _candidates(codes, target)
    if not candidates:
        return []
    held = [np.flatnonzero(members(codes, terms)) for terms in candidates]
    ends = np.cumsum([0, *map(len, held)])
    holds = sparse.csr_matrix(
        (np.ones(ends[-1]), np.concatenate(held), ends), (len(candidates), len(codes))
    )
    simpler = _SIMPLER * np.array([len(terms) for terms in candidates])
    places = np.unique(windows, return_inverse=True)[1]
    every_row, shape = np.arange(len(target)), (len(target), int(places.max()) + 1)
    ones = np.ones(len(target))
    counts = (holds @ sparse.csr_matrix((ones, (every_row, places)), shape)).toarray()
    by_rows = _error_by_rows(float(target.std()), counts.sum(axis=1), len(target))
    rest, picks = target.copy(), list[Terms]()
    while len(picks) < PICKS:
        sums = (holds @ sparse.csr_matrix((rest, (every_row, places)), shape)).toarray()
        every = np.bincount(places, rest - rest.mean(), shape[1])
        sums -= counts * rest.mean()
        between = _between_windows(sums, counts, every / len(rest), by_rows)
        whole = sums.sum(axis=1) / by_rows - simpler
        stands_out = (between >= _BETWEEN) & (whole >= _STANDS_OUT)
        if not stands_out.any():
            break
        # By rows the cause itself stands out most: its parents are diluted and its children small,
        # while how far a child's few windows stray is little known.
        best = int(np.argmax(np.where(stands_out, whole, -np.inf)))
        picks.append(candidates[best])
        mine = np.zeros(len(rest), bool)
        mine[holds[[best]].indices] = True
        rest = _without(rest, mine)
    return picks


def _error_by_rows(spread: float, n: Floats | Ints, of: int) -> Floats:
    """Return the standard error of sums of n of so many centred rows, as if independent."""
    found: Floats = spread * np.sqrt(n * (1 - n / of))
    return np.fmax(found, np.finfo(float).tiny)


def _between_windows(sums: Floats, counts: Floats, every: Floats, by_rows: Floats) -> Floats:
    """Return how many standard deviations the sums of slices (K, W) are above 0.

    The deviation is that of the windows' influences, ``every`` being what a window of all rows adds
    to their mean, and at least that of independent rows.
    """
    held, whole, n = (counts > 0).sum(axis=1), sums.sum(axis=1), counts.sum(axis=1)
    about = sums - (whole / n)[:, None] * counts - n[:, None] * every
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((about**2).sum(axis=1) * held / (held - 1))
    found: Floats = np.where(held >= FEWEST_WINDOWS, whole / np.fmax(spread, by_rows), -np.inf)
    return found


def _candidates(codes: Codes, target: Floats) -> list[Terms]:
    """Return the slices that stand out most by their rows, as if those were independent."""
    least = max(_FEWEST_ROWS, round(_LEAST_SHARE * len(target)))
    spread = float(target.std())
    if not spread > 0:
        return []
    best: list[tuple[Floats, list[Terms]]] = []
    kept, threshold = 0, _STANDS_OUT
    for columns, cells, shape in _cells(codes):
        n = np.bincount(cells)
        large = np.flatnonzero(n >= least)
        if not len(large):
            continue
        sums = np.bincount(cells, weights=target)[large]
        z = sums / _error_by_rows(spread, n[large], len(target)) - _SIMPLER * len(columns)
        out = z > threshold
        if not out.any():
            continue
        places = np.unravel_index(large[out], shape)
        terms = [
            tuple(zip(columns, map(int, place), strict=True)) for place in zip(*places, strict=True)
        ]
        best.append((z[out], terms))
        kept += len(terms)
        if kept > 4 * _CANDIDATES:
            best, threshold = _best(best), max(threshold, float(_best(best)[0][0].min()))
            kept = _CANDIDATES
    return _best(best)[0][1] if best else []


def _best(parts: Sequence[tuple[Floats, list[Terms]]]) -> list[tuple[Floats, list[Terms]]]:
    z = np.concatenate([part[0] for part in parts])
    terms = [one for part in parts for one in part[1]]
    order = np.argsort(-z, kind="stable")[:_CANDIDATES]
    return [(z[order], [terms[i] for i in order])]


def _cells(codes: Codes) -> Iterator[tuple[tuple[int, ...], Ints, tuple[int, ...]]]:
    """Yield columns, the cell of each row among all their values, and the number of values each."""
    sizes = [int(column.max(initial=0)) + 1 for column in codes.T]
    wide = [column.astype(np.int64) for column in codes.T]
    for i, size in enumerate(sizes):
        yield (i,), wide[i], (size,)
    for i, j in combinations(range(len(sizes)), 2):
        pair = wide[i] * sizes[j] + wide[j]
        yield (i, j), pair, (sizes[i], sizes[j])
        for k in range(j + 1, len(sizes)):
            yield (i, j, k), pair * sizes[k] + wide[k], (sizes[i], sizes[j], sizes[k])


# --- confirming


def confirm(rows: Rows, baseline: Rows, picks: Sequence[Terms]) -> list[Found]:
    """Test picks on rows that did not choose them, each given those before.

    Args:
        rows: Of the other half.
        baseline: What their excess has to be beyond; may be empty.
        picks: As `explore` returns them.

    Returns:
        Those whose excess is above that of the baseline for more than chance, in their order.
    """
    tested: list[Found] = []
    for terms in picks:
        tested.append(_judged(terms, rows, baseline))
        rows, baseline = _rest(rows, terms), _rest(baseline, terms)
    if not tested:
        return []
    return keep_sure(tested, _ONE_WAY)


def keep_sure(tested: Sequence[Found], level: float) -> list[Found]:
    """Keep what stands at a false discovery rate, with the p-values corrected for it."""
    adjusted = benjamini_hochberg([found.p_value for found in tested])
    return [
        replace(found, p_value=float(p))
        for found, p in zip(tested, adjusted, strict=True)
        if p <= level
    ]


class Excess(NamedTuple):
    """Of a slice over all rows; the variance between windows is 0 where nothing is known."""

    value: float
    variance: float
    n: int
    windows: int


def _excess(terms: Terms, rows: Rows) -> Excess:
    mine = members(rows.codes, terms)
    n, held = int(mine.sum()), _count(rows.windows[mine])
    if n == len(mine) or held < FEWEST_WINDOWS:
        return Excess(0.0, 0.0, n, held)
    inside, overall = float(rows.target[mine].mean()), float(rows.target.mean())
    influence = np.where(mine, (rows.target - inside) / n, 0.0)
    influence -= (rows.target - overall) / len(mine)
    sums = np.bincount(rows.windows, influence)
    variance = float((sums**2).sum()) * held / (held - 1)
    return Excess(inside - overall, variance, n, held)


def _judged(terms: Terms, rows: Rows, baseline: Rows) -> Found:
    """Test the excess of a slice beyond that of the baseline, by Welch's t between windows."""
    now, then = _excess(terms, rows), _excess(terms, baseline)
    found = Found(terms, now.n, now.windows, now.value - then.value, np.nan, 1.0)
    if not now.variance > 0:
        return found
    variance = now.variance + then.variance
    known = now.variance**2 / (now.windows - 1)
    known += then.variance**2 / (then.windows - 1) if then.variance else 0.0
    freedom, error = variance**2 / known, float(np.sqrt(variance))
    return replace(
        found,
        margin=float(special.stdtrit(freedom, 0.975)) * error,
        p_value=float(special.stdtr(freedom, -found.excess / error)),
    )
