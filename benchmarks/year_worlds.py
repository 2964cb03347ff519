"""Healthy years of twelve kinds, drawn from a seed: what ordinary models have, and nothing fails.

The product knows none of these kinds. Every world has the same model and features, whose days have
effects of their own; a kind adds what its name says. What a user would declare, such as a recurring
promotion, is declared (`YearWorld.amend`). Windows are days, counted from the first that is lived.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rng = np.random.Generator

DAYS = 365  # that are lived
BASELINE, HISTORY = 60, 90  # days of a labelled baseline, or of production before the first look
START = pd.Timestamp("2025-01-06", tz="UTC")  # a Monday
DAY = pd.Timedelta(days=1)
LABEL_LAG = 5.0  # days, at most
CHANNELS = {"web": 0.5, "app": 0.3, "phone": 0.15, "partner": 0.05}
REGIONS = {"north": 0.3, "south": 0.25, "west": 0.2, "east": 0.15, "islands": 0.1}
LOUDER = {"rare": 2_000}  # rows a day, at least


@dataclass(frozen=True)
class YearKnobs:
    """What was drawn of a world.

    Attributes:
        kind: One of `KINDS`.
        rows: Of a usual day.
        baseline: ``labelled`` (a dataset of its own) or ``none`` (production itself).
        day_spread: Of the days' own effects, in spreads of the rows.
        persistence: Of these effects, from day to day.
        week: How far a weekend lies from a working day, likewise.
        windows: Days that are lived.
    """

    seed: int
    kind: str
    rows: int
    baseline: str
    base_rate: float
    day_spread: float
    persistence: float
    week: float
    windows: int = DAYS
    granularity: str = "day"
    every: int = 1
    law: str = ""
    fault: str = ""
    size: str = ""
    fault_from: int = DAYS


def draw_year(seed: int, kind: str = "", windows: int = DAYS) -> YearKnobs:
    """Draw a world; kinds take turns."""
    rng = np.random.default_rng([seed, 20])
    name = kind or list(KINDS)[seed % len(KINDS)]
    base_rate = float(np.exp(rng.uniform(math.log(0.08), math.log(0.4))))
    return YearKnobs(
        seed=seed,
        kind=name,
        rows=max(int(np.exp(rng.uniform(math.log(200), math.log(2_000)))), LOUDER.get(name, 0)),
        baseline=str(rng.choice(["labelled", "none"], p=[0.6, 0.4])),
        base_rate=float(rng.uniform(0.004, 0.01)) if name == "rare" else base_rate,
        day_spread=float(rng.choice([0.0, 0.05, 0.15])),
        persistence=float(rng.choice([0.0, 0.5, 0.8])),
        week=float(rng.choice([0.0, 0.2])),
        windows=windows,
    )


class Days:
    """The days of a world, from the first of its history on, and what each does to its rows.

    Attributes:
        day: Numbers of the days; 0 is the first that is lived.
        effects: By name, (D,) each: in spreads of the rows.
    """

    def __init__(self, rng: Rng, knobs: YearKnobs, first: int, end: int) -> None:
        self._rng, self._knobs = rng, knobs
        self.day = np.arange(first, end)
        self.weekday = self.day % 7
        self.phase = 2 * np.pi * self.day / 365.25

    def wander(self, spread: float | None = None) -> Floats:
        """Draw effects that follow each other, with a week."""
        knobs, n = self._knobs, len(self.day)
        spread = knobs.day_spread if spread is None else spread
        own = self._rng.normal(0, 1, n)
        effect = np.empty(n)
        at = self._rng.normal()
        keep = knobs.persistence
        for i in range(n):
            at = keep * at + math.sqrt(1 - keep**2) * own[i]
            effect[i] = at
        sign = self._rng.choice([-1.0, 1.0])
        return spread * effect + sign * knobs.week * (self.weekday >= 5)


Rows = dict[str, NDArray[np.generic]]


def _choose(rng: Rng, shares: dict[str, float], shift: Floats) -> NDArray[np.generic]:
    """Draw values; ``shift`` moves the log odds of the second one, row by row."""
    names, base = list(shares), np.log(np.array(list(shares.values())))
    logits = np.repeat(base[None, :], len(shift), axis=0)
    logits[:, 1] += shift
    noisy = logits + rng.gumbel(size=logits.shape)
    return np.array(names)[noisy.argmax(axis=1)]


def draw_rows(rng: Rng, knobs: YearKnobs, first: int, end: int) -> pd.DataFrame:
    """Draw the rows of some days of a world: features, scores, and what comes true."""
    kind, days = KINDS[knobs.kind], Days(rng, knobs, first, end)
    usual = knobs.rows * np.exp(rng.normal(0, 0.05, len(days.day)))
    usual = usual * np.where(days.weekday >= 5, 1 - knobs.week, 1.0)
    sizes = rng.poisson(usual * kind.volume(days, knobs))
    place = np.repeat(np.arange(len(days.day)), sizes)
    n, day = len(place), days.day[place]
    hour = np.minimum(rng.beta(4, 3, n) * 24, 23.999)
    driver = rng.normal(0, 1, n) + days.wander()[place]
    amount = np.exp(3.5 + 0.8 * (rng.normal(0, 1, n) + days.wander()[place]))
    rows: Rows = {
        "window": day,
        "driver": driver,
        "amount": amount,
        "age": np.clip(np.round(42 + 13 * rng.normal(0, 1, n) + 3 * days.wander()[place]), 18, 95),
        "items": rng.poisson(1.5 * np.exp(0.3 * days.wander()[place])) + 1,
        "channel": _choose(rng, CHANNELS, days.wander()[place]),
        "region": _choose(rng, REGIONS, days.wander()[place]),
        "version": np.full(n, "1"),
    }
    logit = special.logit(knobs.base_rate) - 0.6 + 1.1 * driver + 0.3 * (rows["channel"] == "app")
    logit = logit + 0.2 * (np.log(amount) - 3.5)
    shift = 0.5 * days.wander(min(knobs.day_spread, 0.05))[place]
    rows["label"] = rng.random(n) < special.expit(logit + shift)
    rows["score"] = special.expit(logit)
    kind.change(rng, days, place, rows)
    at = START + pd.to_timedelta(
        (day * DAY.value + hour * pd.Timedelta(hours=1).value).astype(np.int64)
    )
    frame = pd.DataFrame({"at": at.astype("datetime64[us, UTC]"), "hour": np.floor(hour), **rows})
    return frame.sort_values("at", ignore_index=True)


def _same(days: Days, knobs: YearKnobs) -> Floats:
    return np.ones(len(days.day))


def _leave(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class YearKind:
    """What a kind of world adds.

    Attributes:
        change: Changes or adds columns of rows whose days are ``days.day[place]``.
        volume: Of each day, times the usual one.
        events: What its user declares as known, as text below ``events:``.
    """

    change: Callable[[Rng, Days, Ints, Rows], None] = _leave
    volume: Callable[[Days, YearKnobs], Floats] = _same
    events: str = ""


def _seasons(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    day = days.day[place]
    rows["temp"] = 12 - 9 * np.cos(days.phase[place]) + 4 * rng.normal(0, 1, len(place))
    rows["temp"] = rows["temp"] + 2 * days.wander(1.0)[place]
    rows["items"] = rng.poisson(np.where(day % 7 >= 5, 2.2, 1.4)) + 1
    rows["amount"] = rows["amount"] * np.exp(0.15 * np.sin(days.phase[place]))


def _grow(days: Days, knobs: YearKnobs) -> Floats:
    return np.exp(math.log(5) * np.clip(days.day, 0, None) / DAYS)


def _is_promotion(day: Ints) -> NDArray[np.bool_]:
    date = (START + pd.to_timedelta(day, unit="D")).day
    return np.asarray((date >= 10) & (date <= 12))


def _promote(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """On three days of every month prices fall and more people use the app."""
    on = _is_promotion(days.day[place])
    rows["amount"] = np.where(on, 0.7 * rows["amount"], rows["amount"])
    switched = on & (rng.random(len(place)) < 0.25)
    rows["channel"] = np.where(switched, "app", rows["channel"])


def _promoted_volume(days: Days, knobs: YearKnobs) -> Floats:
    return np.where(_is_promotion(days.day), 1.5, 1.0)


def _few_customers(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """Twenty customers send four of five rows, each in its own way, and not every day alike."""
    n, n_large = len(place), 20
    weight = rng.lognormal(0, 0.5, n_large)
    daily = weight * np.exp(rng.normal(0, 0.5, (len(days.day), n_large)))
    daily /= daily.sum(axis=1, keepdims=True)
    drawn = (rng.random(n)[:, None] > np.cumsum(daily, axis=1)[place]).sum(axis=1)
    large = np.where(rng.random(n) < 0.8, np.minimum(drawn, n_large - 1), -1)
    own_amount, own_age = rng.normal(0, 0.6, n_large), rng.normal(0, 8, n_large)
    rows["amount"] = rows["amount"] * np.exp(np.where(large >= 0, own_amount[large], 0))
    aged = np.asarray(rows["age"], np.float64) + np.where(large >= 0, own_age[large], 0)
    rows["age"] = np.clip(np.round(aged), 18, 95)
    plan = rng.choice(["basic", "plus", "pro"], n_large)
    rows["plan"] = np.where(large >= 0, plan[large], rng.choice(["basic", "plus"], n))


def _heavy_tails(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    n = len(place)
    rows["amount"] = 20 * (1 - rng.random(n)) ** (-1 / 1.5)
    rows["duration"] = 30 + 10 * rng.standard_t(2, n)


def _zero_inflated(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    n = len(place)
    rare = special.expit(special.logit(0.07) + 0.2 * days.wander(1.0)[place])
    some = special.expit(0.3 + 0.2 * days.wander(1.0)[place])
    rows["refund"] = np.where(rng.random(n) < rare, np.round(rng.lognormal(3, 1, n), 2), 0.0)
    rows["clicks"] = np.where(rng.random(n) < some, rng.negative_binomial(2, 0.3, n), 0)


def _rounded(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    score = np.asarray(rows["score"], np.float64)
    rows["score"] = np.clip(np.round(score * 20) / 20, 0.0, 1.0)
    rows["amount"] = np.round(np.asarray(rows["amount"], np.float64), -1)


def _growing(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """Merchants come every week and stay; campaigns last six weeks."""
    day, n = days.day[place], len(place)
    known = 60 + np.maximum(day + HISTORY + BASELINE, 0) // 7 * 2
    rows["merchant"] = np.char.add(
        "m", np.minimum((known * rng.random(n) ** 2).astype(np.int64), known).astype(str)
    )
    rows["campaign"] = np.char.add("c", ((day + 10_000) // 21 - rng.integers(0, 2, n)).astype(str))


def _own_nulls(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """Columns are empty by nature: by the day, by the channel, and one with another."""
    n = len(place)
    age, amount = (np.asarray(rows[name], np.float64) for name in ("age", "amount"))
    share = special.expit(special.logit(0.3) + 0.3 * days.wander(1.0)[place])
    empty = rng.random(n) < share
    rows["tenure"] = np.where(empty, np.nan, np.round(rng.gamma(2, 20, n)))
    rows["limit"] = np.where(empty | (rows["channel"] == "partner"), np.nan, np.round(amount * 3))
    rows["age"] = np.where(rng.random(n) < 0.02, np.nan, age)


def _open_days(days: Days, knobs: YearKnobs) -> Floats:
    return np.where(days.weekday >= 5, 0.0, 1.0)


def _retrain(rng: Rng, days: Days, place: Ints, rows: Rows) -> None:
    """Every month another version, as good as the one before, with errors of its own."""
    months = (START + pd.to_timedelta(days.day, unit="D")).tz_localize(None).to_period("M")
    number = np.asarray(months.year * 12 + months.month)[place] - 2024 * 12
    logit = special.logit(np.asarray(rows["score"], np.float64))
    slope = 1 + rng.normal(0, 0.03, 40)
    offset = rng.normal(0, 0.03, 40)
    by_age = rng.normal(0, 0.03, 40)
    age = (np.asarray(rows["age"], np.float64) - 42) / 13
    rows["score"] = special.expit(slope[number] * logit + offset[number] + by_age[number] * age)
    rows["version"] = np.char.add("2025.", number.astype(str))


PROMOTIONS = "  - {name: promotion, from: %s, to: %s, every: month, explains: [drift, service]}"
KINDS: dict[str, YearKind] = {
    "seasons": YearKind(_seasons),
    "growth": YearKind(volume=_grow),
    "promotions": YearKind(_promote, _promoted_volume, PROMOTIONS),
    "few customers": YearKind(_few_customers),
    "heavy tails": YearKind(_heavy_tails),
    "zero-inflated": YearKind(_zero_inflated),
    "rounded": YearKind(_rounded),
    "growing": YearKind(_growing),
    "own nulls": YearKind(_own_nulls),
    "weekend gaps": YearKind(volume=_open_days),
    "retraining": YearKind(_retrain),
    "rare": YearKind(),
}


class YearWorld:
    """A world, and when each of its files lands; see `label_living.Lifelike`.

    Attributes:
        knobs: What was drawn.
        rows: One row a prediction, by time.
    """

    def __init__(self, knobs: YearKnobs) -> None:
        self.knobs, self.step = knobs, DAY
        self.zone: str | None = None
        self.rows = self._draw()
        rng = np.random.default_rng([knobs.seed, 22])
        known = self.rows["at"] + pd.to_timedelta(
            (rng.uniform(0.5, LABEL_LAG, len(self.rows)) * DAY.value).astype(np.int64)
        )
        self.rows["known"] = known.astype("datetime64[us, UTC]")
        since = (known - self.look_after(-1)) / DAY
        self.rows["look"] = np.maximum(np.ceil(since).astype(np.int64) - 1, -1)

    def _draw(self) -> pd.DataFrame:
        knobs, rng = self.knobs, np.random.default_rng([self.knobs.seed, 21])
        first = -HISTORY if knobs.baseline == "none" else -BASELINE - 10
        rows = draw_rows(rng, knobs, first, knobs.windows)
        is_own = (knobs.baseline != "none") & (rows["window"] < 0)
        rows["dataset"] = np.where(is_own, "validation", "production")
        # The baseline is of days before production, with some between.
        rows = rows[~(is_own & (rows["window"] >= -10))].reset_index(drop=True)
        rows["id"] = [f"{name[0]}{i}" for i, name in enumerate(rows["dataset"])]
        return rows

    def start_of(self, window: int) -> pd.Timestamp:
        """Return the start of a window."""
        return START + window * DAY

    def look_after(self, window: int) -> dt.datetime:
        """Return the moment of the look that follows a window's end."""
        return (self.start_of(window + 1) + pd.Timedelta(hours=6)).to_pydatetime()

    def events_at(self, look: int) -> pd.DataFrame:
        """Return the predictions that land before a look; -1 is all of before the first."""
        rows = self.rows
        mine = rows["window"] < 0 if look < 0 else rows["window"] == look
        drop = ["window", "label", "known", "look"]
        drop += ["dataset"] if self.knobs.baseline == "none" else []
        drop += [] if self.knobs.kind == "retraining" or self.knobs.fault else ["version"]
        return rows[mine].drop(columns=drop)

    def labels_at(self, look: int) -> pd.DataFrame:
        """Return the labels that land before a look."""
        mine = self.rows[self.rows["look"] == look].sort_values("known")
        label = mine["label"].astype(np.int64)
        return pd.DataFrame({"id": mine["id"], "defaulted": label, "known_at": mine["known"]})

    def amend(self, spec: str) -> str:
        """Return a spec's text with what a user adds: known events."""
        events = KINDS[self.knobs.kind].events
        if not events:
            return spec
        # Known since before the first look: the tenth of the month in which history begins.
        first = (START - (HISTORY + 40) * DAY).replace(day=10).date()
        return f"{spec}\nevents:\n{events % (first, first + dt.timedelta(days=2))}\n"


def with_fault(knobs: YearKnobs, fault: str, size: str, fault_from: int, windows: int) -> YearKnobs:
    """Return a world's knobs with a fault in it, which is lived for some windows alone."""
    return replace(knobs, fault=fault, size=size, fault_from=fault_from, windows=windows)
