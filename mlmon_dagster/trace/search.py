"""Searched slices: which rows, by up to three predicates, are worse than they should be.

Every slice of three coded columns or fewer is looked at (the question of SliceLine: Sagadeeva and
Boehm, 2021), so most of what stands out does so by chance, and of one cause dozens of relatives
stand out. Hence

1. windows are dealt into two halves of contiguous blocks, as rows of a window share more than they
   show and neighbouring windows do, too;
2. on one half all slices are *explored*: of the best by rows, the best between windows, and each
   pick takes its rows' excess away before the next (greedy cover), so that a cause is named once;
3. on the other half the few picks are *confirmed*, in their order and given those before, by
   Student's t between windows, with the false discoveries among them held at 5 % (Benjamini and
   Hochberg, 1995);
4. and the same the other way round: what one half finds and the other confirms must be found and
   confirmed in both directions.

Numbers are of the confirming half alone, where nobody picked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special, stats

from mlmon_dagster.metrics.arrays import Flags, Floats, Ints

Codes = NDArray[np.uint8]
Term = tuple[int, int]  # column and code
Terms = tuple[Term, ...]
FALSE = 0.05  # share of false discoveries among the slices that are named
PICKS = 30
FEWEST_WINDOWS = 8  # of a slice in each half; fewer do not say how far windows stray
_CANDIDATES = 3_000
_FEWEST_ROWS, _LEAST_SHARE = 50, 0.002
_SIMPLER = 0.15  # standard deviations that another predicate must add
_STANDS_OUT = 3.7  # standard deviations
_AT_FIRST = 3.0
_BLOCK = 7  # windows in a row that go into the same half
_MOST_EXPLORED = 50_000  # rows
_ALIKE = 0.5  # shared rows over all rows of two slices, from which on they are the same finding


@dataclass(frozen=True)
class Found:
    """A slice whose rows are worse than they should be.

    Attributes:
        terms: Column and code of each predicate, in the order of the columns.
        n: Its rows in the half that confirms.
        windows: Windows of that half that hold some.
        excess: Mean of the target over those rows, in its unit.
        margin: Half of its 95 % interval, between windows.
        p_adjusted: Chance of so large an excess without any, corrected for the number of picks.
    """

    terms: Terms
    n: int
    windows: int
    excess: float
    margin: float
    p_adjusted: float


def search(
    codes: ArrayLike, target: ArrayLike, windows: ArrayLike, *, depth: int = 3
) -> list[Found]:
    """Find slices whose rows have a higher target than all others.

    Args:
        codes: Columns as small codes, (N, F), each 0 to at most 255; equal codes are one value.
        target: What is too high in a bad slice, such as a row's loss less what it was expected to
            be, (N,); finite. Only its distance from its mean counts.
        windows: Place in time of each row's window, (N,), 0 to W - 1.
        depth: Most predicates of a slice, 1 to 3.

    Returns:
        The slices that both halves find and confirm, the one that explains most first. None where
        a half has fewer than `FEWEST_WINDOWS` windows, or nothing stands out.

    Raises:
        ValueError: If the arrays do not go together, or `depth` is none of 1 to 3.
    """
    table, y, window = np.asarray(codes, np.uint8), np.asarray(target, float), np.asarray(windows)
    if table.ndim != 2 or not len(table) == len(y) == len(window):
        raise ValueError(f"codes {table.shape}, target {y.shape}, windows {window.shape}")
    if depth not in (1, 2, 3):
        raise ValueError(f"depth is 1 to 3, not {depth}")
    first = halves(window)
    if min(len(np.unique(window[first])), len(np.unique(window[~first]))) < FEWEST_WINDOWS:
        return []
    y = y - y.mean()
    both = [_confirmed(table, y, window, explored, depth) for explored in (first, ~first)]
    return _agreed(table, *both)


def halves(windows: NDArray[np.int64]) -> Flags:
    """Say which rows are in the first half: those of every other block of windows."""
    places = np.unique(windows)
    block = min(_BLOCK, max(len(places) // 4, 1))
    mine: Flags = (np.searchsorted(places, windows) // block) % 2 == 0
    return mine


def _confirmed(
    codes: Codes, target: Floats, windows: Ints, explored: Flags, depth: int
) -> list[Found]:
    picks = explore(codes[explored], target[explored], windows[explored], depth)
    return confirm(codes[~explored], target[~explored], windows[~explored], picks)


def _agreed(codes: Codes, one: Sequence[Found], other: Sequence[Found]) -> list[Found]:
    """Keep what was confirmed in both directions, each finding once."""
    rows = {found.terms: members(codes, found.terms) for found in (*one, *other)}
    kept: list[Found] = []
    for found in sorted((*one, *other), key=lambda f: -f.excess * f.n):
        against = other if found in one else one
        mine = rows[found.terms]
        if any(_overlap(mine, rows[o.terms]) >= _ALIKE for o in kept):
            continue
        if any(_overlap(mine, rows[o.terms]) >= _ALIKE for o in against):
            kept.append(found)
    return kept


def _overlap(one: Flags, other: Flags) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0


def members(codes: Codes, terms: Terms) -> Flags:
    """Say which rows a slice holds."""
    found = np.ones(len(codes), bool)
    for column, code in terms:
        found &= codes[:, column] == code
    return found


# --- exploring


def explore(codes: Codes, target: Floats, windows: Ints, depth: int = 3) -> list[Terms]:
    """Pick slices that stand out, each after the excess of those before was taken away.

    Args:
        codes: (N, F).
        target: (N,), of mean about 0.
        windows: (N,).
        depth: Most predicates of a slice.

    Returns:
        At most `PICKS`, in the order of picking.
    """
    if len(target) > _MOST_EXPLORED:
        # Every so-many-th row of each window, so that no window is lost.
        order = np.argsort(windows, kind="stable")
        some = order[:: -(-len(target) // _MOST_EXPLORED)]
        codes, target, windows = codes[some], target[some], windows[some]
    candidates = _candidates(codes, target, depth)
    if not candidates:
        return []
    held = [np.flatnonzero(members(codes, terms)) for terms in candidates]
    ends = np.cumsum([0, *map(len, held)])
    holds = sparse.csr_matrix(
        (np.ones(ends[-1]), np.concatenate(held), ends), (len(candidates), len(codes))
    )
    simpler = _SIMPLER * np.array([len(terms) for terms in candidates])
    places = np.unique(windows, return_inverse=True)[1]
    rows, shape = np.arange(len(target)), (len(target), int(places.max()) + 1)
    counts = (holds @ sparse.csr_matrix((np.ones(len(rows)), (rows, places)), shape)).toarray()
    by_rows = float(target.std()) * np.sqrt(counts.sum(axis=1))
    rest, picks = target.copy(), list[Terms]()
    while len(picks) < PICKS:
        sums = (holds @ sparse.csr_matrix((rest, (rows, places)), shape)).toarray()
        stands_out = _between_windows(sums, counts, by_rows) - simpler >= _STANDS_OUT
        if not stands_out.any():
            break
        # By rows the cause itself stands out most: its parents are diluted and its children small,
        # while how far a child's few windows stray is little known.
        best = int(np.argmax(np.where(stands_out, sums.sum(axis=1) / by_rows - simpler, -np.inf)))
        picks.append(candidates[best])
        mine = holds[[best]].indices
        rest[mine] -= rest[mine].mean()
    return picks


def _between_windows(sums: Floats, counts: Floats, by_rows: Floats) -> Floats:
    """Return how many standard deviations the sums of slices (K, W) are above 0.

    The deviation is that of the windows' sums about the slice's mean, and at least that of
    independent rows.
    """
    held, whole = (counts > 0).sum(axis=1), sums.sum(axis=1)
    mean = whole / counts.sum(axis=1)
    about = sums - mean[:, None] * counts
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((about**2).sum(axis=1) * held / (held - 1))
    found: Floats = np.where(held >= FEWEST_WINDOWS, whole / np.fmax(spread, by_rows), -np.inf)
    return found


def _candidates(codes: Codes, target: Floats, depth: int) -> list[Terms]:
    """Return the slices that stand out most by their rows, as if those were independent."""
    least = max(_FEWEST_ROWS, round(_LEAST_SHARE * len(target)))
    spread = float(target.std())
    if not spread > 0:
        return []
    best: list[tuple[Floats, list[Terms]]] = []
    kept, threshold = 0, _AT_FIRST
    for columns, cells, shape in _cells(codes, depth):
        n = np.bincount(cells)
        large = np.flatnonzero(n >= least)
        if not len(large):
            continue
        sums = np.bincount(cells, weights=target)[large]
        z = sums / (spread * np.sqrt(n[large])) - _SIMPLER * len(columns)
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


def _cells(codes: Codes, depth: int) -> Iterator[tuple[tuple[int, ...], Ints, tuple[int, ...]]]:
    """Yield columns, the cell of each row among all their values, and the number of values each."""
    sizes = [int(column.max(initial=0)) + 1 for column in codes.T]
    wide = [column.astype(np.int64) for column in codes.T]
    for i, size in enumerate(sizes):
        yield (i,), wide[i], (size,)
    if depth < 2:
        return
    for i, j in combinations(range(len(sizes)), 2):
        pair = wide[i] * sizes[j] + wide[j]
        yield (i, j), pair, (sizes[i], sizes[j])
        if depth < 3:
            continue
        for k in range(j + 1, len(sizes)):
            yield (i, j, k), pair * sizes[k] + wide[k], (sizes[i], sizes[j], sizes[k])


# --- confirming


def confirm(codes: Codes, target: Floats, windows: Ints, picks: Sequence[Terms]) -> list[Found]:
    """Test picks on rows that did not choose them, each given those before.

    Args:
        codes: (N, F), of the other half.
        target: (N,).
        windows: (N,).
        picks: As `explore` returns them.

    Returns:
        Those whose excess is above 0 for more than chance, in their order.
    """
    rest, tested = target - target.mean(), list[Found]()
    for terms in picks:
        mine = members(codes, terms)
        n, mean = int(mine.sum()), 0.0
        held, places = np.unique(windows[mine], return_inverse=True)
        margin, p_value = np.nan, 1.0
        if n and len(held) >= FEWEST_WINDOWS:
            mean = float(rest[mine].mean())
            sums = np.bincount(places, weights=rest[mine] - mean)
            error = float(np.sqrt((sums**2).sum() * len(held) / (len(held) - 1))) / n
            freedom = len(held) - 1
            margin = float(special.stdtrit(freedom, 0.975)) * error
            if error > 0:
                p_value = float(special.stdtr(freedom, -mean / error))
            rest = np.where(mine, rest - mean, rest)
        tested.append(Found(terms, n, len(held), mean, margin, p_value))
    if not tested:
        return []
    adjusted = stats.false_discovery_control([found.p_adjusted for found in tested])
    return [
        Found(f.terms, f.n, f.windows, f.excess, f.margin, float(p))
        for f, p in zip(tested, adjusted, strict=True)
        if p <= FALSE
    ]
