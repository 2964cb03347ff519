"""False alarms and power of every answer to one question: is a window extreme among others?

Series are drawn by known laws: rates, areas, counts, means, distances; independent, seasonal,
persistent, heavy-tailed, few, tied, growing. Each window after the baseline is judged by
`metrics.windows.law` and by the seven answers that judge windows in families, called as they are
(and an eighth, of performance). The first table says how often an unchanged window is called at
.01, the second how often a moved one is. The law is to call .005 to .015 of unchanged windows
wherever that can be had, and of moved ones at least as many as the best of the others that calls
no more than .015 of unchanged ones.

    python -m benchmarks window_law --draws 400
    python -m benchmarks window_law --fresh --seed 7    # kinds that the law was not made with
    python -m benchmarks window_law --lasting           # small changes that stay
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics import statistics
from mlmon_dagster.metrics.drift import attribution, between_windows, novelty
from mlmon_dagster.metrics.drift.null_distribution import Moments
from mlmon_dagster.metrics.estimated.calibration import stretch
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.means import Mean
from mlmon_dagster.metrics.windows import clusters
from mlmon_dagster.metrics.windows.law import Scale, fit, to_scale

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEVEL, LEAST, MOST = 0.01, 0.005, 0.015
GAPS = (3, 15, 30, 50)  # windows after a baseline that stays
AHEAD = 60  # windows drawn after the baseline
BASELINE, QUARTER = 60, 91
RUNS = (7, 14, 28)
MOVES = (0.5, 1.0, 1.5)  # spreads of a window


class Drawn(NamedTuple):
    """Series of one kind.

    Attributes:
        values: In their own unit, (S, windows).
        noise: Variances by their rows, (S, windows); 0 where rows say nothing.
        rows: Of each window, (S, windows).
    """

    values: Floats
    noise: Floats
    rows: Floats


Draw = Callable[[np.random.Generator, int, int, Floats], Drawn]


@dataclass(frozen=True)
class Kind:
    """What is drawn and judged.

    Attributes:
        draw: Gives series: generator, how many, their windows, and what is added on the scale to
            each, (windows,).
        windows: Of a baseline.
        move: The planted shift, on the scale.
        scale: On which the law judges. period: Windows of a season. is_moving: The baseline ends
            where the judged window begins.
        beyond: Why .005 to .015 cannot be had; empty where it can. `at most` where values are few.
    """

    name: str
    draw: Draw
    windows: int
    move: float
    scale: Scale = "identity"
    period: int = 1
    is_moving: bool = False
    beyond: str = ""


def course(
    rng: np.random.Generator,
    size: int,
    windows: int,
    *,
    correlation: float = 0.0,
    own: float = 0.0,
    season: float = 0.0,
    period: int = 7,
    freedom: float = 0.0,
    odd: float = 0.0,
) -> Floats:
    """Draw what windows share, of variance 1 beside its season, (S, windows).

    Args:
        rng: Generator.
        size: Series.
        windows: Of each.
        correlation: Of neighbours.
        own: Share of the variance that is no neighbour's.
        season: Standard deviation of the effects of the places in a season.
        period: Windows of a season.
        freedom: Of Student's law, if above 0; infinite is Laplace's.
        odd: Share of windows that stray four times as far.
    """
    shape = (size, windows)
    new = rng.normal(size=shape)
    if math.isinf(freedom):
        new = rng.laplace(size=shape) / math.sqrt(2)
    elif freedom:
        new = rng.standard_t(freedom, size=shape) / math.sqrt(freedom / (freedom - 2))
    new = np.where(rng.random(shape) < odd, 4 * new, new)
    found = new.copy()
    for at in range(1, windows):
        step = correlation * found[:, at - 1] + math.sqrt(1 - correlation**2) * new[:, at]
        found[:, at] = step
    if own:
        found = math.sqrt(1 - own) * found + math.sqrt(own) * rng.normal(size=shape)
    effects = season * rng.normal(size=(size, period))
    return found + effects[:, np.arange(windows) % period]


def values(
    rng: np.random.Generator,
    size: int,
    windows: int,
    added: Floats,
    *,
    slope: float = 0.0,
    grain: float = 0.0,
    **shared: float,
) -> Drawn:
    """Draw numbers whose rows say nothing of their noise."""
    found = course(rng, size, windows, **shared) + slope * np.arange(windows) + added  # type: ignore[arg-type]
    found = np.round(found / grain) * grain if grain else found
    return Drawn(found, np.zeros_like(found), np.full(found.shape, 1000.0))


def rates(
    rng: np.random.Generator,
    size: int,
    windows: int,
    added: Floats,
    *,
    rows: float,
    usual: float,
    spread: float = 0.0,
    uneven: float = 0.0,
    **shared: float,
) -> Drawn:
    """Draw shares of counted rows; `spread` is of their logits, `uneven` of the rows' logs."""
    logits = special.logit(usual) + spread * course(rng, size, windows, **shared) + added  # type: ignore[arg-type]
    n = np.round(rows * np.exp(uneven * rng.normal(size=windows))) + 10
    n = np.tile(n, (size, 1))  # the windows of all series are the same
    found = rng.binomial(n.astype(np.int64), special.expit(logits)) / n
    smooth = (found * n + 0.5) / (n + 1)
    return Drawn(found, smooth * (1 - smooth) / n, n)


def counts(
    rng: np.random.Generator,
    size: int,
    windows: int,
    added: Floats,
    *,
    usual: float,
    spread: float = 0.0,
    slope: float = 0.0,
    **shared: float,
) -> Drawn:
    """Draw numbers of rows; `spread` and `slope` are of their logarithms."""
    logs = math.log(usual) + spread * course(rng, size, windows, **shared)  # type: ignore[arg-type]
    found = rng.poisson(np.exp(logs + slope * np.arange(windows) + added)).astype(np.float64)
    return Drawn(found, found + 0.5, np.maximum(found, 1))


def means(
    rng: np.random.Generator,
    size: int,
    windows: int,
    added: Floats,
    *,
    rows: float,
    spread: float = 0.0,
    uneven: float = 0.0,
    **shared: float,
) -> Drawn:
    """Draw means of rows of variance 1; `spread` is in their standard errors."""
    n = np.round(rows * np.exp(uneven * rng.normal(size=windows))) + 10
    n = np.tile(n, (size, 1))  # the windows of all series are the same
    error = 1 / np.sqrt(n)
    shared_part = spread / math.sqrt(rows) * course(rng, size, windows, **shared)  # type: ignore[arg-type]
    found = shared_part + added / math.sqrt(rows) + error * rng.normal(size=n.shape)
    return Drawn(found, error**2 * rng.chisquare(n - 1) / (n - 1), n)


def areas(
    rng: np.random.Generator,
    size: int,
    windows: int,
    added: Floats,
    *,
    error: float,
    spread: float,
    usual: float = 0.8,
    **shared: float,
) -> Drawn:
    """Draw areas under the curve; `error` and `spread` are of their logits."""
    shared_part = spread * course(rng, size, windows, **shared)  # type: ignore[arg-type]
    logits = special.logit(usual) + shared_part + error * rng.normal(size=shared_part.shape)
    found = special.expit(logits + added)
    return Drawn(found, (error * found * (1 - found)) ** 2, np.full(found.shape, 500.0))


def distances(
    rng: np.random.Generator, size: int, windows: int, added: Floats, *, bins: float, spread: float
) -> Drawn:
    """Draw sums of squares of so many bins, whose windows share something."""
    shared = np.exp(spread * course(rng, size, windows))
    roots = np.sqrt(rng.chisquare(bins, size=(size, windows)) / bins * shared)
    found = (roots + added) ** 2
    return Drawn(found, np.zeros_like(found), np.full(found.shape, 1000.0))


def correlations(
    rng: np.random.Generator, size: int, windows: int, added: Floats, *, rows: float, spread: float
) -> Drawn:
    """Draw correlations near .6; `spread` and what is added are in errors of Fisher's z."""
    away = spread * course(rng, size, windows) + rng.normal(size=(size, windows)) + added
    found = np.tanh(math.atanh(0.6) + away / math.sqrt(rows))
    return Drawn(found, (1 - found**2) ** 2 / rows, np.full(found.shape, rows))


FEW = "few windows"
TIED = "few values"
UNKNOWN = "its windows do not show it"
T3, LAPLACE = 3.0, math.inf


def kinds() -> list[Kind]:
    """Return the forty kinds that the law was made with."""
    rate = partial(rates, usual=0.2)
    return [
        *(
            Kind(f"values, {w} windows", values, w, 4.0, beyond=FEW if w < 14 else "")
            for w in (8, 14, 30, 60, 200)
        ),
        Kind("rates of 300 rows", partial(rate, rows=300), 14, 0.6, "angle"),
        Kind("rates of 300 rows", partial(rate, rows=300), 30, 0.55, "angle"),
        Kind("rates, days' own spread", partial(rate, rows=1000, spread=0.2), 30, 0.85, "logit"),
        Kind("rates, days' own spread", partial(rate, rows=1000, spread=0.2), 60, 0.8, "logit"),
        Kind("rates, rows x 1 to 6", partial(rate, rows=400, uneven=0.6), 30, 0.6, "angle"),
        Kind("means, 8 windows", partial(means, rows=500), 8, 4.0, beyond=FEW),
        Kind("means, rows x 1 to 6", partial(means, rows=500, uneven=0.6, spread=0.5), 30, 4.5),
        Kind("areas", partial(areas, error=0.15, spread=0.1), 30, 0.7, "logit"),
        Kind("areas, 14 windows", partial(areas, error=0.15, spread=0.05), 14, 0.75, "logit"),
        Kind("correlations", partial(correlations, rows=500, spread=1.0), 30, 5.5, "fisher"),
        Kind("distances", partial(distances, bins=9, spread=0.2), 30, 1.1, "root"),
        Kind("distances", partial(distances, bins=9, spread=0.2), 60, 1.0, "root"),
        Kind("volume", partial(counts, usual=500, spread=0.1), 28, -0.45, "log"),
        Kind("volume, weeks", partial(counts, usual=500, spread=0.1, season=0.3), 28, -0.5, "log",
             7),
        Kind("volume, weeks", partial(counts, usual=500, spread=0.1, season=4.0), 56, -0.45, "log",
             7),
        Kind("values, weeks", partial(values, season=1.0), 28, 4.5, period=7),
        Kind("values, weeks", partial(values, season=3.0), 56, 4.2, period=7),
        Kind("values, no week", values, 56, 4.0, period=7),
        Kind("values, days of hours", partial(values, season=2.0, period=24), 168, 4.0, period=24),
        Kind("follow each other .3", partial(values, correlation=0.3), 30, 4.2),
        Kind("follow each other .3", partial(values, correlation=0.3), 60, 4.0),
        Kind("follow each other .6", partial(values, correlation=0.6), 60, 4.2),
        Kind("follow each other .9", partial(values, correlation=0.9), 30, 4.5, beyond=UNKNOWN),
        Kind("follow each other .9", partial(values, correlation=0.9), 120, 4.5),
        Kind("half wanders .9", partial(values, correlation=0.9, own=0.5), 60, 4.2),
        Kind("Student's of 3", partial(values, freedom=T3), 30, 5.0, beyond=UNKNOWN),
        Kind("Student's of 3", partial(values, freedom=T3), 200, 5.0),
        Kind("Laplace's", partial(values, freedom=LAPLACE), 60, 5.0),
        Kind("1 in 20 four times as far", partial(values, odd=0.05), 60, 5.0, beyond=UNKNOWN),
        Kind("rounded to half a spread", partial(values, grain=0.5), 30, 4.0, beyond=TIED),
        Kind("rates, 2 rows expected", partial(rates, rows=1000, usual=0.002), 30, 1.6, "angle",
             beyond=TIED),
        Kind("rates, .3 rows expected", partial(rates, rows=300, usual=0.001), 60, 2.5, "angle",
             beyond=TIED),
        Kind("moving", values, 28, 4.0, is_moving=True),
        Kind("moving, follow .6", partial(values, correlation=0.6), 28, 4.0, is_moving=True),
        Kind("moving, grows", partial(counts, usual=500, spread=0.1, slope=0.0045, season=2.0), 28,
             -0.45, "log", 7, is_moving=True),
    ]  # fmt: skip


def fresh() -> list[Kind]:
    """Return kinds that the law was not made with."""
    return [
        Kind("values, 21 windows", values, 21, 4.0),
        Kind("values, 100 windows", values, 100, 4.0),
        Kind("rates near 0", partial(rates, rows=5000, usual=0.01, spread=0.2), 45, 1.0, "logit"),
        Kind("rates near 1", partial(rates, rows=800, usual=0.97, spread=0.1), 45, -0.9, "logit"),
        Kind("rates, two sizes", partial(rates, rows=200, usual=0.4, uneven=1.0), 45, 0.6, "angle"),
        Kind("volume, thousands", partial(counts, usual=9000, spread=0.2), 42, -0.8, "log", 7),
        Kind("volume, dozens", partial(counts, usual=30, spread=0.1), 42, -0.9, "log", 7),
        Kind("Student's of 5", partial(values, freedom=5.0), 45, 4.5),
        Kind("follow each other .45", partial(values, correlation=0.45), 45, 4.0),
        Kind("follow each other .75", partial(values, correlation=0.75), 90, 4.3),
        Kind("weeks that wander", partial(values, correlation=0.5, season=1.5), 56, 4.5, period=7),
        Kind("distances of 4 bins", partial(distances, bins=4, spread=0.1), 45, 1.4, "root"),
        Kind("areas near 1", partial(areas, error=0.2, spread=0.1, usual=0.97), 45, -0.9, "logit"),
        Kind("moving, weeks", partial(values, season=2.0), 35, 4.3, period=7, is_moving=True),
        Kind("moving, wanders .95", partial(values, correlation=0.95), 28, 2.5, is_moving=True),
    ]


class Cell(NamedTuple):
    """Baselines and judged windows of one kind, and what they are on the law's scale.

    Attributes:
        at: When they start, in windows: (W,) and (C,).
    """

    kind: Kind
    baseline: Drawn
    judged: Drawn
    at: tuple[Ints, Ints]


def drawn(kind: Kind, size: int, seed: int) -> Cell:
    """Draw baselines, and windows after them: first as they were, then the same ones moved."""
    past = np.arange(kind.windows)
    later = kind.windows + (np.array([0]) if kind.is_moving else np.array(GAPS))
    judged = []
    for move in (0.0, kind.move):
        added = np.zeros(kind.windows + AHEAD)
        added[kind.windows :] = move
        whole = kind.draw(np.random.default_rng(seed), size, len(added), added)
        judged.append([part[:, later] for part in whole])
    both = Drawn(*(np.concatenate(parts, axis=1) for parts in zip(*judged, strict=True)))
    return Cell(kind, Drawn(*(part[:, past] for part in whole)), both, (past, np.tile(later, 2)))


FIRST = pd.Timestamp("2024-01-01", tz="UTC")


def starts(cell: Cell, at: Ints) -> pd.Series:
    """Return when windows start: days, or hours of a season of 24."""
    step = pd.Timedelta(hours=1) if cell.kind.period == 24 else pd.Timedelta(days=1)
    return pd.Series([FIRST + int(one) * step for one in at])


def by_law(cell: Cell) -> Floats:
    """Judge by the law, all series at once."""
    kind = cell.kind
    own = to_scale(*cell.baseline, kind.scale)
    new = to_scale(*cell.judged, kind.scale)
    law = fit(*own, cell.at[0], period=kind.period, is_moving=kind.is_moving)
    return law.judge(*new, cell.at[1]).p_value


def _each(answer: Callable[[Cell, int], Floats], cell: Cell) -> Floats:
    return np.array([answer(cell, i) for i in range(len(cell.judged.values))])


def by_strays(cell: Cell, i: int) -> Floats:
    """Judge as a column's place and width are."""
    then, now = (starts(cell, at) for at in cell.at)
    own = between_windows.Strays(cell.baseline.values[i], cell.baseline.noise[i], then)
    return own.p_value(cell.judged.values[i], cell.judged.noise[i], now)


def by_distance(cell: Cell, i: int) -> Floats:
    """Judge as distances are: squares from the mean of the rest, of one degree of freedom."""
    (values, noise, _), new = (part[i] for part in cell.baseline), cell.judged
    then = starts(cell, cell.at[0])
    size = len(values)
    rest = (values.sum() - values) / (size - 1)
    usual = noise.mean() if noise.any() else float(np.var(values, ddof=1))
    usual = max(usual, 1e-30)
    own = (values - rest) ** 2 / usual
    noise = np.where(noise > 0, noise, usual)
    sampling = np.where(new.noise[i] > 0, new.noise[i], usual)
    away = values - values.mean()
    coefficient = between_windows.correlation(away[:, None], noise, then)
    places = np.zeros(size, np.int64)
    persistence = between_windows.Persistence.of(coefficient, then, places)
    stacked = between_windows.stack_fields([persistence], np.zeros(len(sampling), np.int64))

    def moments(mean: Floats) -> Moments:
        return Moments(np.sqrt(mean), mean, math.sqrt(2) * mean, 0 * mean, math.sqrt(2) * mean)

    value = (new.values[i] - values.mean()) ** 2 / usual
    width = (len(sampling), size)
    theirs = Moments(*(np.broadcast_to(part, width) for part in moments(noise / usual)))
    return between_windows.between_window_p(
        value, moments(sampling / usual), np.broadcast_to(own, width), theirs, persistence=stacked
    )


def by_place(cell: Cell, i: int) -> Floats:
    """Judge as the place of numbers beyond the baseline's range is."""
    return novelty.place_p(*(_profile(part, i) for part in (cell.judged, cell.baseline)))


def _profile(part: Drawn, i: int) -> statistics.ColumnStatistics:
    n = part.rows[i].astype(np.int64)
    binning = statistics.Binning("x", "numeric", 1, "")
    mean = part.values[i]
    squares = n * (mean**2 + part.noise[i] * n)
    nothing = statistics.empty(binning)
    return replace(nothing, counts=n[:, None], total=n * mean, total_sq=squares,
                   cells=pd.DataFrame(index=range(len(n))))  # fmt: skip


def by_attribution(cell: Cell, i: int) -> Floats:
    """Judge as shares of attribution are."""
    values, noise, rows = (part[i] for part in cell.baseline)
    if len(values) < attribution.MIN_WINDOWS:
        return np.full(cell.judged.values.shape[1], np.nan)
    n = int(rows.sum())
    mean = float(values @ rows / n)
    error = math.sqrt(float(rows**2 @ noise) / n**2)
    between = float(attribution.biweight(values)[1])
    known = attribution.Reference(mean, error, n, between, float(noise.mean()), len(values))
    new = Mean(
        cell.judged.values[i], np.sqrt(cell.judged.noise[i]), cell.judged.rows[i].astype(np.int64)
    )
    away = new.value - mean
    found = np.maximum(
        attribution._welch(away, new, known)[0], attribution._by_known_spread(away, new, known)
    )
    return np.maximum(found, attribution._among_windows(away, new, known))


def by_level(cell: Cell, i: int) -> Floats:
    """Judge as levels of calibration, bias and error are."""
    values, noise, rows = (part[i] for part in cell.baseline)
    half = Z95 * np.sqrt(noise)
    usual = clusters.usual_level(values, values - half, values + half, rows)
    assert usual is not None
    new = zip(*(part[i] for part in cell.judged), strict=True)
    return np.array(
        [clusters.level_shift([v], [n], usual, [math.sqrt(e)]).p_value for v, e, n in new]
    )


def by_performance(cell: Cell) -> Floats:
    """Judge as single windows of performance are."""
    values, noise, rows = cell.baseline
    variance = (noise * rows).mean(axis=1, keepdims=True) / rows
    variance = np.maximum(variance, 1e-30)
    mean, spread, of_mean = clusters._random_effects(values, variance)
    usual = {
        "usual": mean[:, None], "usual_error": of_mean[:, None], "spread": spread[:, None],
        "row_error": np.sqrt(variance.mean(axis=1, keepdims=True)),
        "n_windows": np.full((len(mean), 1), values.shape[1]),
    }  # fmt: skip
    return clusters.beyond_usual(cell.judged.values, np.sqrt(cell.judged.noise), usual).p_value


def by_residual(cell: Cell, i: int) -> Floats:
    """Judge as estimates are: by the stretch of sampling's band, about the baseline's mean."""
    values, noise, _ = (part[i] for part in cell.baseline)
    usual = float(noise.mean()) or float(np.var(values)) or 1.0
    own = np.sqrt(np.where(noise > 0, noise, usual))
    factor = stretch((values - values.mean()) / own, starts(cell, cell.at[0]))
    new = np.sqrt(np.where(cell.judged.noise[i] > 0, cell.judged.noise[i], usual))
    away = np.abs(cell.judged.values[i] - values.mean())
    return 2 * special.ndtr(-away / (new * math.sqrt(factor)))


ANSWERS: dict[str, Callable[[Cell], Floats]] = {
    "distances": partial(_each, by_distance),
    "strays": partial(_each, by_strays),
    "place": partial(_each, by_place),
    "attribution": partial(_each, by_attribution),
    "levels": partial(_each, by_level),
    "residuals": partial(_each, by_residual),
    "performance": by_performance,
}


class Found(NamedTuple):
    """Shares of windows called at .01: unchanged ones and moved ones; NaN without an answer."""

    false: float
    power: float


def found(answer: Callable[[Cell], Floats], cell: Cell) -> Found:
    """Let one of the answers judge."""
    p = answer(cell)
    if not np.isfinite(p).all():
        return Found(math.nan, math.nan)
    return Found(*(float((half <= LEVEL).mean()) for half in np.split(p, 2, axis=1)))


class Judged(NamedTuple):
    """What all answers said of one kind.

    Attributes:
        law: Of many series, for its false alarms. beside: Of the same series as the others.
        old: By name. draws: How many baselines `law` is of.
    """

    kind: Kind
    law: Found
    beside: Found
    old: dict[str, Found]
    draws: int


def judged(kind: Kind, size: int, seed: int, seconds: dict[str, float]) -> Judged:
    """Judge windows of one kind by all answers; more series where one window of each is judged."""
    size *= 4 if kind.is_moving else 1
    many = drawn(kind, 4 * size, seed)
    few = drawn(kind, size, seed + 1)
    answers, old = {**ANSWERS, "law": by_law}, {}
    for name, answer in answers.items():
        begun = time.process_time()
        with np.errstate(all="ignore"):
            old[name] = found(answer, few)
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - begun
    return Judged(kind, found(by_law, many), old.pop("law"), old, 4 * size)


def false_row(one: Judged) -> Row:
    """Say how many unchanged windows each answer calls."""
    share, kind = one.law.false, one.kind
    error = 2 * math.sqrt(LEVEL * (1 - LEVEL) / one.draws)  # at most: as if of one window each
    goal = None
    if kind.beyond == TIED:
        goal = Goal(share, MOST, best=share - error)
    elif not kind.beyond and share < LEVEL:
        goal = Goal(share, LEAST, is_least=True, best=share + error)
    elif not kind.beyond:
        goal = Goal(share, MOST, best=share - error)
    numbers = [share, *(old.false for old in one.old.values())]
    return Row(_named(kind), tuple(_share(number, 4) for number in numbers), goal)


def power_row(one: Judged) -> Row:
    """Say how many moved windows each answer calls; in brackets of one that does not hold .01."""
    holds = {name: old.power for name, old in one.old.items() if old.false <= MOST}
    best = max(holds.values(), default=0.0)
    numbers = [_share(one.beside.power, 2)]
    for name, old in one.old.items():
        text = _share(old.power, 2)
        numbers.append(text if name in holds or text == "-" else f"({text})")
    return Row(_named(one.kind), tuple(numbers), Goal(one.beside.power, round(best, 4), True))


def _named(kind: Kind) -> str:
    return (
        kind.name if any(c.isdigit() for c in kind.name[-10:]) else f"{kind.name}, {kind.windows}"
    )


def _share(number: float, digits: int) -> str:
    return "-" if math.isnan(number) else f"{number:.{digits}f}".removeprefix("0")


def tables(
    some: list[Kind], size: int, seed: int
) -> Iterator[tuple[str, tuple[str, ...], list[Row]]]:
    """Judge all kinds; yield the three tables."""
    seconds: dict[str, float] = {}
    every = [judged(kind, size, seed + 10 * i, seconds) for i, kind in enumerate(some)]
    heads = ("law", *ANSWERS)
    yield "unchanged windows called at .01", heads, [false_row(one) for one in every]
    rows = [power_row(one) for one in every]
    yield "moved windows called at .01", heads, rows
    reached = sum(row.goal is not None and row.goal.is_met for row in rows)
    goal = Goal(reached, math.ceil(0.9 * len(rows)), is_least=True)
    yield "altogether", heads, [
        Row("kinds as good as the best", (str(reached),), goal),
        Row("CPU seconds", tuple(f"{seconds[name]:.1f}" for name in heads)),
    ]  # fmt: skip


def lasting(size: int, seed: int) -> Iterator[Row]:
    """Look at a healthy quarter and at one that moves half-way, by the newest runs together."""
    worlds: tuple[tuple[str, dict[str, float], float], ...] = (
        ("values", {}, 0.0), ("half by rows", {}, 0.5), ("weeks", {"season": 2.0}, 0.0),
        ("follow each other .5", {"correlation": 0.5}, 0.0),
        ("Laplace's", {"freedom": LAPLACE}, 0.0),
    )  # fmt: skip
    for name, shared, noise in worlds:
        rng = np.random.default_rng(seed)
        y = math.sqrt(1 - noise) * course(rng, size, BASELINE + QUARTER, **shared)  # type: ignore[arg-type]
        y += math.sqrt(noise) * rng.normal(size=y.shape)
        law = fit(y[:, :BASELINE], noise, period=7)
        alone, together, soon = [], [], dict.fromkeys(MOVES, np.zeros(size, bool))
        first = BASELINE + QUARTER // 2
        for last in range(BASELINE + 28, BASELINE + QUARTER, 3):
            at = np.arange(last - 27, last + 1)
            newest = law.judge_newest(y[:, at], noise, at, RUNS).p_value <= LEVEL
            together.append(newest)
            alone.append(law.judge(y[:, [last]], noise, [last]).p_value[:, 0] <= LEVEL)
            for move in MOVES if first <= last < first + 28 else ():
                moved = y[:, at] + move * (at >= first)
                soon[move] = soon[move] | (
                    law.judge_newest(moved, noise, at, RUNS).p_value <= LEVEL
                )
        false = float(np.mean(together))
        numbers = [np.mean(alone), false, *(found.mean() for found in soon.values())]
        error = 2 * math.sqrt(LEVEL * (1 - LEVEL) / size)
        goal = Goal(false, MOST, best=false - error)
        yield Row(name, tuple(_share(float(number), 3) for number in numbers), goal)


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="series of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="the kinds that were kept back")
    parser.add_argument("--only", help="kinds whose names hold this")
    parser.add_argument("--lasting", action="store_true", help="the newest windows as one")
    asked = parser.parse_args()
    if asked.lasting:
        heads = ("one", "7 to 28", *(f"moved {move:g}" for move in MOVES))
        rows = lasting(asked.draws, asked.seed)
        return int(show([("looks called at .01; found in 28", heads, rows)], seed=asked.seed) > 0)
    some = [k for k in (fresh() if asked.fresh else kinds()) if (asked.only or "") in k.name]
    return int(show(tables(some, asked.draws, asked.seed), seed=asked.seed, width=12) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
