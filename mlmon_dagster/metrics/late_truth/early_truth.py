"""At which ages the labelled rows of a window are a random part of those that it ever has.

Learnt from complete windows: what was labelled of each at an age is held beside its whole. Rows are
counted by class and by band of their score among the rows of that class, such as its quarters. So
what is compared is the joint distribution of truth and score, which every metric of a classifier is
a function of; of a regression it is that of the error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.late_truth.arrivals import TruthRecord
from mlmon_dagster.spec.windows import EarlyAge, age_step

MIN_RECORD = 20  # complete windows without which nothing is shown
LIMIT = 0.5  # of a metric's standard error: a bias of a quarter of half its 95 % interval
SPREAD = 0.5  # of its variance by rows: windows that differ widen its interval by a quarter at most
RARER = 30  # labelled rows of the rarer class, from which a window is judged early
_MISSED = 0.05  # chance that a bias larger than the limit is not seen
_DOUBT = 0.1  # chance that windows differ by more than the bound says
_FEWEST = 5.0  # rows expected of a cell, else it is merged with others


def find_early_ages(
    records: Sequence[TruthRecord],
    now: float,
    due: float,
    *,
    least_share: float = 0.0,
    newest: int = 120,
    n_classes: int = 0,
    min_rows: int = RARER,
) -> tuple[EarlyAge, ...]:
    """Find the ages at which what is missing was shown to be missing at random.

    Not seeing a difference shows nothing, so this is a test of equivalence (Wellek, 2010). Let p be
    the shares of the cells (class and band) of whole windows and d the difference of those labelled
    at an age, pooled over the windows. The bias that d gives to the mean of any function of a row's
    cell is at most sqrt(sum d^2/p) of its standard deviation (Cauchy and Schwarz), so in a window
    of m labelled rows at most sqrt(m sum d^2/p) of its standard error. The upper 95 % limit of
    that, from the noncentral chi-square distribution of the pooled difference, must not exceed .5:
    then a bias moves an estimate by less than a quarter of half its 95 % interval.

    Windows must not differ, either: random on average is not random in this window. The variance
    between windows beyond that of drawing labelled rows without replacement, at its upper 90 %
    limit, must not exceed half of the variance by rows. That of the shares of classes and that of
    the bands within classes are bounded each.

    Args:
        records: Windows that were watched as their ground truth came; those that are not complete
            are left out.
        now: The present moment, in the units of the records.
        due: Age by which nearly all ground truth has come, in units.
        least_share: Share of the predictions with ground truth without which a window of that age
            is not complete, 0 to 1.
        newest: So many complete windows count.
        n_classes: Classes that there must be; 0 for tasks without classes.
        min_rows: Labelled rows from which a window is judged; of two classes 30 of the rarer, too.

    Returns:
        Ascending by age, of the grid of `spec.windows.age_step` up to `due`; empty with fewer than
        20 complete windows, with fewer classes, or without bands of scores.
    """
    complete = sorted(
        (r for r in records if r.bands and _is_complete(r, now - due, least_share)),
        key=lambda r: -r.end,
    )[:newest]
    cells = sorted({(name, i) for r in complete for name, i in _cells(r)})
    classes = sorted({name for name, _ in cells})
    if len(complete) < MIN_RECORD or len(classes) < max(n_classes, 1):
        return ()
    ages = [0]
    while ages[-1] < due:
        ages.append(age_step(ages[-1] + 1))
    whole = np.stack([_count(r, cells, math.inf) for r in complete])
    n = np.array([r.n for r in complete], dtype=np.float64)
    of_class = np.array([classes.index(name) for name, _ in cells])
    found = []
    for age in ages:
        come = np.stack([_count(r, cells, age) for r in complete])
        most = _most_rows(come, whole, of_class)
        rarer = min((of_class == c) @ come.sum(axis=0) for c in range(len(classes)))
        fewest = min_rows
        if n_classes == 2 and rarer:
            fewest = max(min_rows, math.ceil(RARER * come.sum() / rarer))
        if fewest <= most:
            share = come.sum(axis=1) / n
            found.append(EarlyAge(age, fewest, most, float(share.min()), float(share.max())))
    return tuple(found)


def _is_complete(record: TruthRecord, latest_end: float, least_share: float) -> bool:
    n_actual = sum(sum(counts.values()) for counts in record.arrived.values())
    return record.n > 0 and record.end <= latest_end and n_actual >= least_share * record.n


def _cells(record: TruthRecord) -> set[tuple[str, int]]:
    return {
        (name, i)
        for name, ages in record.bands.items()
        for bands in ages.values()
        for i, n in enumerate(bands)
        if n
    }


def _count(record: TruthRecord, cells: Sequence[tuple[str, int]], until: float) -> Floats:
    found = dict.fromkeys(cells, 0)
    for name, ages in record.bands.items():
        for age, bands in ages.items():
            if age <= until:
                for i, n in enumerate(bands):
                    if n:
                        found[name, i] += n
    return np.array([found[cell] for cell in cells], dtype=np.float64)


def _most_rows(come: Floats, whole: Floats, of_class: Ints) -> int:
    """Return for how many labelled rows of a window the differences are shown to be small.

    Args:
        come: Labelled rows at an age by window and cell, (W, C).
        whole: Those that ever come, likewise.
        of_class: Class of each cell, (C,).
    """
    m, total = come.sum(axis=1), whole.sum(axis=1)
    has_some = m > 0
    if has_some.sum() < MIN_RECORD:
        return 0
    come, whole, m, total = (x[has_some] for x in (come, whole, m, total))
    classes = _sum_groups(of_class)
    spreads = [_excess(come @ classes, whole @ classes)]
    spreads.append(_excess_within(come, whole, of_class))
    merged = _sum_groups(_merge_rare((m / total) @ whole))
    come, whole = come @ merged, whole @ merged
    p = (m / total) @ whole / m.sum()
    d = come.sum(axis=0) / m.sum() - p
    # Variance of a pooled share, in units of p (1 - p): rows are drawn without replacement.
    drawn = float((m * (1 - m / total)).sum()) / float(m.sum()) ** 2
    factor = max(1.0, *(factor for factor, _ in spreads))
    df = len(p) - 1
    if drawn <= 0 or df < 1:
        return int(m.max()) if df else 0
    seen = float((d**2 / p).sum()) / (drawn * factor)
    # Less than is expected of random labels is luck, and shows no more.
    bias = float(special.chndtrinc(max(seen, df), df, _MISSED)) * drawn * factor
    limits = [LIMIT**2 / bias] if math.isfinite(bias) else [0.0]
    limits += [SPREAD * float(m.mean()) / excess for _, excess in spreads if excess > 0]
    return int(min(*limits, 1e12))


def _sum_groups(group: Ints) -> Floats:
    """Return the matrix that adds up columns of the same group."""
    return np.eye(int(group.max()) + 1)[group]


def _merge_rare(expected: Floats) -> Ints:
    """Return the group of each cell, so that no group has fewer than five expected rows."""
    group = np.zeros(len(expected), dtype=np.int64)
    n_groups, held = 0, 0.0
    for cell in np.argsort(expected, kind="stable"):
        group[cell] = n_groups
        held += expected[cell]
        if held >= _FEWEST:
            n_groups, held = n_groups + 1, 0.0
    # What is left over joins the group before it.
    return np.minimum(group, max(n_groups - 1, 0))


def _excess(come: Floats, whole: Floats) -> tuple[float, float]:
    """Return how far windows differ beyond drawing rows, for one distribution over cells.

    Returns:
        The factor by which the variance between windows exceeds that of drawing rows, and the upper
        limit of the excess, in units of the variance by rows of a window of average size.
    """
    return _bound(*_scatter(come, whole), come, whole)


def _excess_within(come: Floats, whole: Floats, of_class: Ints) -> tuple[float, float]:
    parts = [_scatter(come[:, mine], whole[:, mine]) for mine in _columns(of_class)]
    return _bound(sum(q for q, _ in parts), sum(df for _, df in parts), come, whole)


def _columns(of_class: Ints) -> list[Flags]:
    return [of_class == c for c in range(int(of_class.max()) + 1)]


def _scatter(come: Floats, whole: Floats) -> tuple[float, float]:
    """Return the chi-square of windows around their pooled difference, and its degrees."""
    m, total = come.sum(axis=1), whole.sum(axis=1)
    used = (m > 0) & (m < total)
    if used.sum() < 2:
        return 0.0, 0.0
    come, whole, m, total = (x[used] for x in (come, whole, m, total))
    p = (m / total) @ whole / m.sum()
    some = p > 0
    d = come / m[:, None] - whole / total[:, None]
    away = (d - m @ d / m.sum())[:, some] ** 2 / p[some]
    # The last factor is that of drawing without replacement from so many rows.
    weight = m / (1 - m / total) * (1 - 1 / total)
    return float((weight[:, None] * away).sum()), float((some.sum() - 1) * (used.sum() - 1))


def _bound(q: float, df: float, come: Floats, whole: Floats) -> tuple[float, float]:
    if df <= 0:
        return 1.0, 0.0
    upper = q / float(special.chdtri(df, 1 - _DOUBT))
    missing = 1 - float(come.sum() / whole.sum())
    return q / df, max(upper - 1, 0.0) * missing
