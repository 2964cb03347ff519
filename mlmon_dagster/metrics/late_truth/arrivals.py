"""When ground truth comes: the share of a window's predictions that have it, by the window's age.

The arrival curve is learnt from windows that are not complete yet, so every window informs only
the ages that it was seen at: not those still ahead of it, not those before its rows were imported,
and not those that fell into a pause of the label job, which says nothing about a usual day.

Ages count from the window's end, in units: hours for hourly windows, else days.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
from scipy import special

from mlmon_dagster.metrics import MIN_SEEN, Flags, Floats, Ints
from mlmon_dagster.spec.windows import age_step, step_width

Counts = Mapping[int, int]  # age -> how many actuals came in the step that ends there

MIN_ACTUALS = 30  # of all windows together
MIN_OF_CLASS = 10  # actuals from which a class counts
MIN_MOMENTS = 3  # of arrival, before the rhythm of the label job is known
NEARLY_ALL = 0.97  # of what ever comes; from there on a window is complete enough to be judged
_DOUBT = 0.1  # one-sided level at which the spread between windows may be wider than seen
_REST, _REST_HOURS = 14, 72.0  # units, or hours if those are longer, for which a curve may rest
_GROWTH = 1.25  # a curve is seen whole once it was seen for a quarter longer than it grows


@dataclass(frozen=True)
class WindowArrivals:
    """When the actuals of one window came.

    Attributes:
        end: The window's end, in units since any fixed moment.
        n: Predictions that ground truth is expected for.
        counts: Class -> age -> actuals that came by it and after the age before; of tasks without
            classes the only class is "".
        since: The age from which the counts were watched: above 0 where the window was imported.
        until: The age until which they were; of an import it is that of its last actual.
    """

    end: float
    n: int
    counts: Mapping[str, Counts]
    since: float = 0.0
    until: float = math.inf

    @property
    def total(self) -> dict[int, int]:
        """Return the actuals of all classes by age."""
        return merge_counts(self.counts.values())


def merge_counts(parts: Iterable[Counts]) -> dict[int, int]:
    """Add up counts by age; the order of the parts does not matter."""
    found: dict[int, int] = {}
    for part in parts:
        for age, n in part.items():
            found[age] = found.get(age, 0) + n
    return found


@dataclass(frozen=True)
class ArrivalCurve:
    """The share of a window's predictions that have ground truth, by age.

    Attributes:
        unit_hours: Hours in a unit of age.
        ages: Steps of the grid that were seen, ascending, in units.
        share: Expected share at each of them, 0 to 1, never falling.
        spread: Variance of one more window's share, beyond what its rows make by chance.
        n_windows: Windows that were seen at each age.
        classes: Class -> share of its actuals that ever come which have come by each age.
        plateau: Share of predictions that ever get ground truth; None while it still grows.
        due: Age by which nearly all of every class has come; None while the plateau is unknown.
        median: Age by which half of what ever comes has come; None likewise.
        late: Age by which 95 % has; None likewise.
        longest: Age by which 99 % has; None likewise.
        is_watched: Whether arrivals were watched as they came, so that the rhythm of the label job
            is known; without it the curve tells what is complete, but not what is overdue.
        n_actuals: Actuals that it was learnt from.
    """

    unit_hours: float
    ages: tuple[int, ...] = ()
    share: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    n_windows: tuple[int, ...] = ()
    classes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    plateau: float | None = None
    due: float | None = None
    median: float | None = None
    late: float | None = None
    longest: float | None = None
    is_watched: bool = False
    n_actuals: int = 0

    def _place(self, age: float) -> int | None:
        """Return the index of the newest age not after one at which enough windows were seen."""
        at = int(np.searchsorted(self.ages, age + 1e-9, side="right")) - 1
        while at >= 0 and self.n_windows[at] < MIN_SEEN:
            at -= 1
        return at if at >= 0 else None

    def share_by(self, age: float) -> float | None:
        """Return the expected share at an age; None where too few windows were seen by then."""
        at = self._place(age)
        return None if at is None else self.share[at]

    def chance_of_so_few(self, k: int, n: int, age: float) -> float | None:
        """Return the chance that at most ``k`` of ``n`` predictions have ground truth by an age.

        The number is beta-binomial: chance by rows, and the spread between windows. It is computed
        with the beta distribution of the same mean and variance, at ``k`` plus a half.

        Returns:
            0 to 1; None where the curve says nothing of that age.
        """
        at = self._place(age)
        if at is None or n <= 0:
            return None
        mean = min(max(self.share[at], 0.5 / n), 1 - 0.5 / n)
        rows = mean * (1 - mean)
        variance = min(self.spread[at] + rows / n, 0.99 * rows)
        weight = rows / variance - 1
        seen = min((k + 0.5) / n, 1.0)
        return float(special.betainc(mean * weight, (1 - mean) * weight, seen))


def fit_curve(
    windows: Sequence[WindowArrivals],
    now: float,
    unit_hours: float,
    *,
    newest: int = 120,
    is_watched: bool = True,
    n_classes: int = 0,
    at_least: float = 0.0,
) -> ArrivalCurve:
    """Fit the arrival curve.

    The share at an age is the pooled share of the newest windows seen at it, made never to fall
    with age by isotonic regression (pool adjacent violators; Barlow et al. 1972), weighted by
    predictions. The spread is the variance of the windows' shares around it at the upper end of
    its chi-square interval, less what rows alone make, plus the variance of the mean itself. The
    shares of a class are products of the growth from age to age, read backwards from the oldest
    age (chain ladder; Mack 1993), since how many of a class are still to come is not known.

    Args:
        windows: In any order; those without predictions do not count.
        now: The present moment, in units since the same moment as the windows' ends.
        unit_hours: Hours in a unit.
        newest: So many windows at each age: what was usual longer ago is forgotten.
        is_watched: Whether moments of arrival are those at which the store got the actuals.
        n_classes: Classes that must have been seen before a plateau is believed.
        at_least: Age that must have been seen before a plateau is believed, beside what the curve
            itself asks for.

    Returns:
        A curve without ages if there are fewer than 7 windows, or 30 actuals.
    """
    used = sorted((w for w in windows if w.n > 0 and w.end <= now), key=lambda w: -w.end)
    nothing = ArrivalCurve(unit_hours)
    total = sum(sum(w.total.values()) for w in used)
    if len(used) < MIN_SEEN or total < MIN_ACTUALS:
        return nothing
    ages = _grid(max(now - w.end for w in used))
    ends, n = np.array([w.end for w in used]), np.array([w.n for w in used], dtype=float)
    come = np.stack([_cumulated(w.total, ages) for w in used])
    moments = ends[:, None] + ages[None, :]
    pauses, knows_rhythm = _pauses(used, now)
    seen = (ages[None, :] >= np.array([w.since for w in used])[:, None]) & (moments <= now)
    seen &= ages[None, :] <= np.array([w.until for w in used])[:, None]
    for begin, end in pauses if is_watched else ():
        seen &= ~((moments > begin) & (moments < end))
    seen &= np.cumsum(seen, axis=0) <= newest
    m = seen.sum(axis=0)
    if not m.any():
        return nothing
    n_at = (seen * n[:, None]).sum(axis=0)
    raw = np.divide((seen * come).sum(axis=0), n_at, out=np.zeros(len(ages)), where=n_at > 0)
    share = _never_falling(raw, n_at)
    spread = _spread(seen, come, n, share)
    classes = _class_shares(used, ages, seen)
    shown = m > 0
    parts = [_part_by_age(come, seen), *classes.values()]
    is_known = not n_classes or len(classes) >= n_classes
    plateau, due, others = _plateau(ages, share, m, parts if is_known else [], unit_hours, at_least)
    return ArrivalCurve(
        unit_hours,
        tuple(int(age) for age in ages[shown]),
        _rounded(share[shown]),
        _rounded(spread[shown]),
        tuple(int(count) for count in m[shown]),
        {name: _rounded(values[shown]) for name, values in classes.items()},
        plateau,
        due,
        *others,
        is_watched and knows_rhythm,
        total,
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values)


def _grid(oldest: float) -> Ints:
    found, age = [0], 0
    while age < oldest:
        age = age_step(age + 1)
        found.append(age)
    return np.array(found, dtype=np.int64)


def _cumulated(counts: Counts, ages: Ints) -> Floats:
    steps = np.zeros(len(ages))
    for age, k in counts.items():
        # What came after the last age of the grid has not come yet, by the clock of this fit.
        at = int(np.searchsorted(ages, age))
        if at < len(ages):
            steps[at] += k
    return np.cumsum(steps)


def _pauses(used: Sequence[WindowArrivals], now: float) -> tuple[list[tuple[float, float]], bool]:
    """Return the times in which no actual came although it usually would have, as (from, until).

    A gap between moments of arrival is a pause if it is more than twice as long as nine of ten
    gaps are. One that is not over yet is at once that nine of ten were: what has not come since
    then is overdue, and does not say that less is usual. The time before the first arrival is one:
    whether a label job ran then is not known.
    """
    spans = [span for window in used for span in _spans_of(window)]
    found = {moment for begin, end in spans for moment in range(begin + 1, end + 1)}
    moments = np.array(sorted(moment for moment in found if moment <= now + 1), dtype=float)
    if not len(moments):
        return [(-math.inf, math.inf)], False
    gaps = np.diff(moments)
    knows_rhythm = _least_moments(spans) >= MIN_MOMENTS
    usual = float(np.quantile(gaps, 0.9, method="higher")) if len(gaps) else 1.0
    limit = 2 * usual + 1
    pauses = [(-math.inf, float(moments[0]))]
    for begin, end in pairwise(moments):
        if end - begin > limit:
            pauses.append((float(begin + usual), float(end)))
    if now - moments[-1] > usual:
        pauses.append((float(moments[-1] + usual), math.inf))
    return pauses, knows_rhythm


def _spans_of(window: WindowArrivals) -> list[tuple[int, int]]:
    """Return the units in which each step's actuals came, after the first and by the second."""
    return [
        (math.ceil(window.end + age) - step_width(age), math.ceil(window.end + age))
        for age in window.total
    ]


def _least_moments(spans: Iterable[tuple[int, int]]) -> int:
    """Return how many moments of arrival there must have been at least: one in each span."""
    n, last = 0, -math.inf
    for begin, end in sorted(spans, key=lambda span: span[1]):
        if begin >= last:
            n, last = n + 1, end
    return n


def _never_falling(values: Floats, weights: Floats) -> Floats:
    """Return the isotonic regression of values; where the weight is 0, the value before it."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and (
            blocks[-1][1] == 0 or blocks[-2][1] == 0 or blocks[-2][0] >= blocks[-1][0]
        ):
            mean, weight_, length = blocks.pop()
            before = blocks[-1]
            total = before[1] + weight_
            if total:
                before[0] = (before[0] * before[1] + mean * weight_) / total
            before[1], before[2] = total, before[2] + length
    return np.concatenate([np.full(int(length), mean) for mean, _, length in blocks])


def _spread(seen: Flags, come: Floats, n: Floats, share: Floats) -> Floats:
    m = seen.sum(axis=0)
    weight = seen * n[:, None]
    total = weight.sum(axis=0)
    away = np.square(come / n[:, None] - share[None, :])
    with np.errstate(invalid="ignore", divide="ignore"):
        varies = np.where(total > 0, (weight * away).sum(axis=0) / total, 0.0)
        by_rows = np.where(total > 0, share * (1 - share) * m / total, 0.0)
        wide = np.where(m > 1, m / special.chdtri(np.maximum(m - 1, 1), 1 - _DOUBT), np.inf)
        between = np.maximum(varies * wide - by_rows, 0.0)
        found = between + varies / np.maximum(m, 1)
    return np.where(m > 1, np.minimum(found, 0.25), 0.25)


def _class_shares(used: Sequence[WindowArrivals], ages: Ints, seen: Flags) -> dict[str, Floats]:
    names = sorted({name for window in used for name in window.counts if name})
    found: dict[str, Floats] = {}
    for name in names:
        come = np.stack([_cumulated(w.counts.get(name, {}), ages) for w in used])
        if come[:, -1].sum() >= MIN_OF_CLASS:
            found[name] = _part_by_age(come, seen)
    return found


def _part_by_age(come: Floats, seen: Flags) -> Floats:
    """Return the part of what came by the oldest age that had come by each.

    It is told by windows that were seen at two ages in a row, each beside itself: windows of which
    more or less ever comes change nothing. Shares of the windows seen at each age would, since old
    ages are seen of other windows.
    """
    both = seen[:, 1:] & seen[:, :-1]
    before, after = (both * come[:, :-1]).sum(axis=0), (both * come[:, 1:]).sum(axis=0)
    growth = np.divide(before, after, out=np.ones(len(after)), where=after > 0)
    parts = np.ones(come.shape[1])
    parts[:-1] = np.cumprod(growth[::-1])[::-1]
    # An age before the first at which one was ever seen has none of them.
    none_yet = np.cumsum((seen * come).sum(axis=0)) == 0
    return np.where(none_yet, 0.0, parts)


def _plateau(
    ages: Ints,
    share: Floats,
    m: Ints,
    parts: Sequence[Floats],
    unit_hours: float,
    at_least: float,
) -> tuple[float | None, float | None, tuple[float | None, float | None, float | None]]:
    """Return the share that ever comes, the age by which it nearly has, and its quantiles.

    A curve that stops growing may only rest: negatives of fraud come months after the positives.
    So it must have been seen for longer than it grew; twice as long, and two weeks (of hours three
    days), where less than four of five predictions have ground truth; and every class must have
    been seen.

    Args:
        ages: That were seen.
        share: Of predictions with ground truth by then.
        m: Windows that were seen then.
        parts: Of what ever comes by then: of all, then of each class; empty if one is not known.
        unit_hours: Hours in a unit.
        at_least: As of `fit_curve`.
    """
    nothing = (None, None, (None, None, None))
    enough = np.flatnonzero(m >= MIN_SEEN)
    if not len(enough) or not parts:
        return nothing
    last = int(enough[-1])
    plateau, oldest = float(share[last]), float(ages[last])
    if plateau <= 0:
        return nothing
    watched = ages[: last + 1]
    come = [part[: last + 1] / part[last] for part in parts if part[last]]
    # Of a class that has not come by then nobody knows when it does.
    due = max(_age_by(watched, part, NEARLY_ALL) for part in come)
    due = due if len(come) == len(parts) else oldest
    rest = max(_REST, _REST_HOURS / unit_hours)
    if oldest < max(at_least, _GROWTH * due + 2 if plateau >= 0.8 else 2 * due + rest):
        return nothing
    quantiles = [_age_by(watched, come[0], q) for q in (0.5, 0.95, 0.99)]
    return round(plateau, 5), due, (quantiles[0], quantiles[1], quantiles[2])


def _age_by(ages: Ints, part: Floats, q: float) -> float:
    return float(ages[int(np.argmax(part >= q - 1e-9))])


@dataclass(frozen=True)
class TruthRecord:
    """When the ground truth of one window came, as it was counted when the window was rebuilt.

    Attributes:
        end: The window's end, in units since any fixed moment.
        first_seen: When its first rows came to this store, likewise.
        n: Predictions that ground truth is expected for.
        arrived: Class -> age -> actuals, by when they came to this store.
        known: The same by when they became known, as far as they say so (``actual_time``).
        bands: Class -> age -> actuals that came by band of their score, lowest first; empty where
            the task has none. See `metrics.late_truth.early_truth`.
        n_future: Actuals that claim to have become known later than now; not among `known`.
        n_early: Actuals that claim to have become known before their prediction; likewise.
    """

    end: float
    first_seen: float
    n: int
    arrived: Mapping[str, Counts]
    known: Mapping[str, Counts]
    n_future: int = 0
    n_early: int = 0
    bands: Mapping[str, Mapping[int, Sequence[int]]] = field(default_factory=dict)


def is_lived(record: TruthRecord, patience: float) -> bool:
    """Tell whether a window's rows came at most `patience` after its end, so not by an import."""
    return record.first_seen <= record.end + patience


@dataclass(frozen=True)
class Arrivals:
    """What is known of when a model's ground truth comes.

    Attributes:
        watched: The curve of windows that were watched as their ground truth came to this store.
        prior: The curve of the times that ground truth itself says it became known at, in the
            baseline and in imported history; or of what was there when history was imported.
        is_dated: Whether `prior` rests on such times.
        note: What of this is not known and why, in one sentence or two; empty if all is.
    """

    watched: ArrivalCurve
    prior: ArrivalCurve
    is_dated: bool = False
    note: str = ""

    @property
    def whole(self) -> ArrivalCurve | None:
        """Return the curve that was seen to its end, the watched one first; None if none was."""
        return next((c for c in (self.watched, self.prior) if c.plateau is not None), None)


def learn_arrivals(
    records: Sequence[TruthRecord],
    baseline: Sequence[TruthRecord],
    now: float,
    unit_hours: float,
    *,
    patience: float,
    newest: int = 120,
    n_classes: int = 0,
) -> Arrivals:
    """Learn when ground truth comes from the windows of production and those of the baseline.

    Which moment counts: that of arrival in this store, where the window was lived, so that its
    predictions came at most `patience` after its end. Not where it was imported: then all that is
    older came at once, and says how old it was, not how late it came. There the time counts that
    the ground truth itself gives, if it is plausible: most of it has one, and these are not one
    and the same day. Without such times an imported window is known from its import on.

    A label file that brings the ground truth of many lived windows in one go is no rhythm either:
    until actuals came at three moments nothing is held to be watched, and the time before the
    first of them counts for nothing.

    Production's windows that were seen to their end, by the times of their own ground truth, speak
    for themselves, lived ones too: whether they were watched or imported changes nothing of how
    much ever comes. Only else are imported ones pooled with the baseline's, of which more or less
    may have been labelled.

    Args:
        records: Production's windows.
        baseline: Windows of the baseline's dataset, which is complete as it is.
        now: The present moment, in the units of the records.
        unit_hours: Hours in a unit.
        patience: How long after their end the rows of lived windows come, in units.
        newest: See `fit_curve`.
        n_classes: See `fit_curve`.
    """
    lived = [r for r in records if is_lived(r, patience)]
    imported = [r for r in records if not is_lived(r, patience)]
    arrived = [WindowArrivals(r.end, r.n, r.arrived) for r in lived]
    has_rhythm = _least_moments(s for w in arrived for s in _spans_of(w)) >= MIN_MOMENTS
    dated = [r for r in (imported if has_rhythm else records) if r.n]
    is_dated = _are_plausible([*dated, *baseline])
    fit_prior = partial(
        fit_curve,
        now=now,
        unit_hours=unit_hours,
        newest=newest,
        is_watched=False,
        n_classes=n_classes,
    )
    if is_dated:
        prior = fit_prior([*_date(dated, _last_arrival(dated, now)), *_date(baseline)])
        if baseline and _are_plausible(records):
            own = _date(records, _last_arrival(records, now))
            prior = _prefer_own(prior, partial(fit_prior, own))
    else:
        since = [max(r.first_seen, r.end) - r.end for r in imported]
        prior = fit_prior(
            [
                WindowArrivals(r.end, r.n, r.arrived, since=math.ceil(age))
                for r, age in zip(imported, since, strict=True)
            ]
        )
    least = _GROWTH * prior.due if prior.due is not None and is_dated else 0.0
    watched = fit_curve(
        arrived, now, unit_hours, newest=newest, n_classes=n_classes, at_least=least
    )
    return Arrivals(watched, prior, is_dated, _note(records, dated, has_rhythm, is_dated))


def _prefer_own(pooled: ArrivalCurve, fit_own: Callable[..., ArrivalCurve]) -> ArrivalCurve:
    """Return the curve of production's own windows if it was seen to its end, else the pooled.

    A baseline may be labelled whole although a part of production ever is: pooled, that part would
    always be held to be still coming. It must have been seen for as long as the baseline's took.
    """
    own = fit_own(at_least=0.0 if pooled.due is None else _GROWTH * pooled.due)
    return pooled if own.plateau is None else own


def _date(records: Sequence[TruthRecord], last: float = math.inf) -> list[WindowArrivals]:
    """Return when actuals became known by their own times, of which none is later than `last`."""
    return [WindowArrivals(r.end, r.n, r.known, until=last - r.end) for r in records]


def _arrived(record: TruthRecord) -> WindowArrivals:
    return WindowArrivals(record.end, record.n, record.arrived)


def _last_arrival(records: Sequence[TruthRecord], now: float) -> float:
    moments = (math.ceil(r.end + age) for r in records for age in _arrived(r).total)
    return max(moments, default=now)


def _are_plausible(records: Sequence[TruthRecord]) -> bool:
    """Tell whether the times of ground truth can be when it became known."""
    known = [WindowArrivals(r.end, r.n, r.known) for r in records]
    n_known = sum(sum(w.total.values()) for w in known)
    n_all = sum(sum(merge_counts(r.arrived.values()).values()) for r in records)
    if n_known < MIN_ACTUALS or n_known < 0.9 * n_all:
        return False
    at: dict[int, int] = {}
    for window in known:
        for age, k in window.total.items():
            moment = math.ceil(window.end + age)
            at[moment] = at.get(moment, 0) + k
    return len(known) < MIN_SEEN or max(at.values()) < n_known / 2


def _note(
    records: Sequence[TruthRecord],
    dated: Sequence[TruthRecord],
    has_rhythm: bool,
    is_dated: bool,
) -> str:
    found = []
    with_truth = [r for r in dated if merge_counts(r.arrived.values())]
    if not has_rhythm and not is_dated and len(with_truth) >= MIN_SEEN:
        found.append(
            f"The ground truth of {len(with_truth)} windows came at once, and has no times of its "
            "own that say when it became known."
        )
    if n_future := sum(r.n_future for r in records):
        found.append(f"{n_future:,} actuals have a time in the future, which does not count.")
    if n_early := sum(r.n_early for r in records):
        found.append(
            f"{n_early:,} actuals have a time before their prediction, which does not count."
        )
    return " ".join(found)


def encode_arrivals(arrivals: Arrivals) -> str:
    """Return arrivals as JSON."""
    return json.dumps(asdict(arrivals), separators=(",", ":"))


def decode_arrivals(text: str) -> Arrivals:
    """Return the arrivals that `encode_arrivals` wrote."""
    stored = json.loads(text)
    curves = {name: _decode(stored[name]) for name in ("watched", "prior")}
    return Arrivals(**{**stored, **curves})


def _decode(stored: Mapping[str, Sequence[float]]) -> ArrivalCurve:
    curve = ArrivalCurve(**stored)  # type: ignore[arg-type]  # as it was written
    lists = {name: tuple(stored[name]) for name in ("ages", "share", "spread", "n_windows")}
    classes = {name: tuple(values) for name, values in curve.classes.items()}
    return replace(curve, **lists, classes=classes)  # type: ignore[arg-type]
