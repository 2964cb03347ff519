"""Worlds in which ground truth comes late, drawn from a seed: rows, labels and when each lands.

A world has one model and a law by which its labels come. In a healthy world nothing ever changes:
the same features, the same model, the same law of labels. A fault changes one thing from one
window on. Times are multiples of the world's unit: a day, of hourly windows an hour, so that a
law means as many windows there as it does of days.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rng = np.random.Generator

WINDOWS = 120  # that are lived
HISTORY = 30  # complete windows of a baseline, or of production before the first look
A_WEEK = 168  # hourly windows that a moving baseline needs before anything is compared with it
LONGEST = 150.0  # units after which no label comes any more
NEVER = 1_000_000  # of a look: it does not come
START = pd.Timestamp("2025-03-03", tz="UTC")  # a Monday; the first window that is lived
SEGMENTS = {"north": 0.45, "south": 0.35, "west": 0.2}
TURNED = "south"  # the segment that a fault turns
UNITS = {"hour": pd.Timedelta(hours=1), "day": pd.Timedelta(days=1), "week": pd.Timedelta(days=1)}
LENGTHS = {"hour": 1, "day": 1, "week": 7}  # of a window, in units
OFFSETS = {  # of the look that follows a window's end
    "hour": pd.Timedelta(minutes=10), "day": pd.Timedelta(hours=6), "week": pd.Timedelta(hours=6)
}  # fmt: skip
BASELINES = ("labelled", "unlabelled", "none")
FAULTS = ("labels stop", "AUC falls", "calibration shifts", "a segment turns")


@dataclass(frozen=True)
class Law:
    """How labels come.

    Attributes:
        name: What a table calls it.
        lags: Units after its event at which each label is known; from the draws and the labels.
        every: Units between two deliveries.
        share: Of the predictions that ever get a label.
        is_by_score: Whether those are chosen by their score.
        pause: Units for which the label job stops, twice; then it catches up.
        corrected: Share of the rarer class's labels that are wrong at first and corrected later; of
            the other class as many are. Of all labels it would be most of the rarer class.
    """

    name: str
    lags: Callable[[Rng, Flags], Floats]
    every: int = 1
    share: float = 1.0
    is_by_score: bool = False
    pause: int = 0
    corrected: float = 0.0


def _uniform(low: float, high: float) -> Callable[[Rng, Flags], Floats]:
    return lambda rng, label: rng.uniform(low, high, len(label))


def _heavy(rng: Rng, label: Flags) -> Floats:
    return np.exp(rng.normal(math.log(5), 1.1, len(label)))


def _positives_first(rng: Rng, label: Flags) -> Floats:
    return np.where(label, rng.uniform(1, 44, len(label)), 60.0)


def _negatives_first(rng: Rng, label: Flags) -> Floats:
    n = len(label)
    return np.where(label, rng.uniform(15, 40, n), rng.uniform(1, 10, n))


CORRECTED_AFTER = 45.0
LAWS = {
    law.name: law
    for law in (
        Law("1 to 20", _uniform(1, 20)),
        Law("30 to 60", _uniform(30, 60)),
        Law("heavy tail", _heavy),
        Law("weekly batches", _uniform(0.5, 3), every=7),
        Law("positives first", _positives_first),
        Law("negatives first", _negatives_first),
        Law("10 % by score", _uniform(1, 8), share=0.1, is_by_score=True),
        Law("30 % at random", _uniform(1, 8), share=0.3),
        Law("stops for a week", _uniform(1, 5), pause=7),
        Law("corrected after 45", _uniform(1, 5), corrected=0.02),
    )
}


@dataclass(frozen=True)
class Knobs:
    """What was drawn of a world.

    Attributes:
        seed: Draws everything.
        law: Name of one of `LAWS`.
        granularity: Of the windows.
        rows: Predictions of a usual window.
        baseline: `labelled` and `unlabelled` are a dataset of their own before production, with
            ground truth or without; with `none` windows are compared with earlier ones.
        base_rate: Share of positives, about.
        slope: What the first feature means, in logits a standard deviation.
        clustering: Standard deviation between windows of the outcome's logit beyond the score.
        season: Share of a working day's rows that come on weekends, or of a day's at night.
        every: Units between two deliveries of labels.
        is_rounded: Whether scores have two decimals.
        has_decision: Whether the model logs a decision, too.
        has_segments: Whether there is a third feature that `init` makes a slice.
        baseline_share: Share of the labelled baseline's rows that have labels, by the same choice.
        fault: One of `FAULTS`; empty for none.
        fault_from: First window of the fault.
    """

    seed: int
    law: str
    granularity: str
    rows: int
    baseline: str
    base_rate: float
    slope: float
    clustering: float
    season: float
    every: int
    is_rounded: bool
    has_decision: bool
    has_segments: bool
    baseline_share: float
    fault: str = ""
    fault_from: int = WINDOWS
    windows: int = WINDOWS


def draw_knobs(seed: int, fault: str = "", law: str = "", windows: int = WINDOWS) -> Knobs:
    """Draw a world.

    Args:
        seed: Of everything.
        fault: One of `FAULTS`; empty for a healthy world.
        law: One of `LAWS`; by default they take turns.
        windows: How many are lived.
    """
    rng = np.random.default_rng([seed, 0])
    known = list(LAWS)
    name = law or known[seed % len(known)]
    chosen = LAWS[name]
    granularity = str(rng.choice(["day", "week", "hour"], p=[0.7, 0.15, 0.15]))
    rows = int(np.exp(rng.uniform(math.log(50), math.log(2000))))
    base_rate = float(np.exp(rng.uniform(math.log(0.04), math.log(0.5))))
    slope, fault_from = float(rng.uniform(1.0, 2.2)), windows
    batched = int(rng.choice([1, 2, 3], p=[0.5, 0.25, 0.25]))
    if fault:
        # A fault that 120 windows can show at all: enough rows, and labels that come in time.
        rows, base_rate = max(rows, 400), max(base_rate, 0.15)
        slope = max(slope, 1.5)
        rows = max(rows, 1200) if chosen.share < 0.5 else rows
        fault_from = int(rng.integers(25, 40))
        if fault == "labels stop":  # after they have come for a while: before, nobody expects any
            first = float(np.quantile(_draw_lags(chosen, seed, base_rate), 0.02))
            fault_from += int(first // LENGTHS[granularity])
    return Knobs(
        seed=seed,
        law=name,
        granularity=granularity,
        rows=rows,
        # Of a baseline without ground truth no fault of performance can be told.
        baseline=str(rng.choice(BASELINES, p=[0.8, 0.0, 0.2] if fault else [0.65, 0.15, 0.2])),
        base_rate=base_rate,
        slope=slope,
        clustering=float(rng.choice([0.0, 0.1, 0.2])),
        season=float(rng.choice([1.0, 0.4], p=[0.6, 0.4])),
        every=max(chosen.every, batched),
        is_rounded=bool(rng.random() < 0.3),
        has_decision=bool(rng.random() < 0.5),
        has_segments=bool(rng.random() < 0.25) or fault == "a segment turns",
        baseline_share=_draw_share(rng, chosen, is_hourly=bool(fault) and granularity == "hour"),
        fault=fault,
        fault_from=fault_from,
        windows=windows,
    )


def _draw_share(rng: Rng, law: Law, *, is_hourly: bool) -> float:
    """Draw how much of a labelled baseline has labels: all, or as much as of production.

    Of hours it is the latter where a fault is to be found: that far less comes than the baseline
    has is believed after days, when an hourly world is nearly over.
    """
    has_all = rng.random() < 0.5
    return 1.0 if has_all and not is_hourly else law.share


def _draw_lags(law: Law, seed: int, base_rate: float) -> Floats:
    """Draw some lags of a world, to see when its labels come."""
    rng = np.random.default_rng([seed, 3])
    return law.lags(rng, rng.random(4000) < base_rate)


def draw_ways(seed: int, fault: str, law: str, windows: int) -> Knobs:
    """Draw a small world that is lived in several ways, with a fault early enough to be told."""
    knobs = draw_knobs(seed, fault, law, windows)
    rows = min(knobs.rows, 400)
    share = LAWS[knobs.law].share
    return replace(
        knobs,
        granularity="day",
        baseline="labelled",
        rows=rows if share == 1 else 3 * rows,
        fault_from=windows // 4 if fault else windows,
    )


class World:
    """The rows of a world and when each of its files lands.

    Windows are counted from the first that is lived, which is 0; older ones are negative.

    Attributes:
        knobs: What was drawn.
        law: How labels come.
        rows: One row a prediction, by time: `window`, `id`, `at`, `dataset`, features, `score`,
            `decision`, its true `label`, and of production the `chance` that it is among those that
            ever get one.
        labels: One row a label, corrections included: `window` and `dataset` of its prediction,
            `id`, `label`, `known`, `is_correction`, and `look`: the one by which it has landed;
            `due`: the one by which it would have, had the label job not been stopped for good.
    """

    def __init__(self, knobs: Knobs) -> None:
        self.knobs, self.law = knobs, LAWS[knobs.law]
        self.length = LENGTHS[knobs.granularity]
        self.unit: pd.Timedelta = UNITS[knobs.granularity]
        self.step = self.unit * self.length
        self.zone: str | None = None  # times are in UTC, and init sees it
        self.rows = self._draw_rows(np.random.default_rng([knobs.seed, 1]))
        self.labels = self._draw_labels(np.random.default_rng([knobs.seed, 2]))

    @cached_property
    def longest(self) -> int:
        """Windows until nearly every label of a window has come."""
        late = float(np.quantile(_draw_lags(self.law, self.knobs.seed, self.knobs.base_rate), 0.98))
        return math.ceil((late + self.knobs.every) / self.length)

    @property
    def n_before(self) -> int:
        """Windows of production before the first that is lived."""
        if self.knobs.baseline == "labelled":
            return 0
        is_moving = self.knobs.baseline == "none"
        is_short = is_moving and self.knobs.granularity == "hour"
        return (A_WEEK if is_short else HISTORY) + self.longest

    def start_of(self, window: int) -> pd.Timestamp:
        """Return the start of a window."""
        return START + window * self.step

    def look_after(self, window: int) -> dt.datetime:
        """Return the moment of the look that follows a window's end."""
        moment = self.start_of(window + 1) + OFFSETS[self.knobs.granularity]
        return moment.to_pydatetime()

    def is_faulty(self, window: Ints) -> Flags:
        """Say of windows whether the fault is on."""
        return np.asarray(window >= self.knobs.fault_from) & bool(self.knobs.fault)

    def _draw_rows(self, rng: Rng) -> pd.DataFrame:
        knobs = self.knobs
        parts = [self._draw_period(rng, -self.n_before, knobs.windows, "production")]
        if knobs.baseline != "none":
            end = -self.n_before - self.longest - 1
            parts.insert(0, self._draw_period(rng, end - HISTORY, end, "validation"))
        rows = pd.concat(parts, ignore_index=True)
        rows["id"] = [f"{d[0]}{i}" for i, d in enumerate(rows["dataset"])]
        return rows

    def _draw_period(self, rng: Rng, first: int, end: int, dataset: str) -> pd.DataFrame:
        knobs = self.knobs
        windows = np.arange(first, end)
        sizes = rng.poisson(
            knobs.rows * self._volume(windows) * np.exp(rng.normal(0, 0.05, len(windows)))
        )
        window = np.repeat(windows, np.maximum(sizes, 1))
        n = len(window)
        at = START + pd.to_timedelta(
            (window * self.step.value + rng.random(n) * self.step.value * 0.999).astype(np.int64)
        )
        place = window - first
        segment = rng.choice(len(SEGMENTS), n, p=list(SEGMENTS.values()))
        drivers = rng.normal(0, 1, n) + rng.normal(0, 0.15, len(windows))[place]
        names = np.array(list(SEGMENTS))
        logit = special.logit(knobs.base_rate) - 0.5 + knobs.slope * drivers + 0.3 * (segment == 1)
        label = self._draw_outcomes(rng, window, names[segment], logit)
        score = special.expit(logit)
        cut = float(np.quantile(score, 1 - knobs.base_rate))
        if knobs.is_rounded:
            score = np.clip(np.round(score, 2), 0.01, 0.99)
        frame = pd.DataFrame(
            {
                "window": window, "at": at, "dataset": dataset, "income": drivers,
                "age": 40 + 12 * rng.normal(0, 1, n), "segment": names[segment], "score": score,
                "decision": (score >= cut).astype(np.int64), "label": label,
            }
        )  # fmt: skip
        return frame.sort_values("at", ignore_index=True)

    def _volume(self, windows: Ints) -> Floats:
        """Return how many rows windows have, in usual windows."""
        if self.knobs.granularity == "week":
            return np.ones(len(windows))
        quiet = windows % 24 < 7 if self.knobs.granularity == "hour" else windows % 7 >= 5
        return np.where(quiet, self.knobs.season, 1.0)

    def _draw_outcomes(self, rng: Rng, window: Ints, segment: Any, logit: Floats) -> Flags:
        """Draw the truth: as the score says, shifted by its window, and otherwise in a fault."""
        knobs = self.knobs
        shift = rng.normal(0, knobs.clustering, int(window.max() - window.min()) + 1)
        meant = logit + shift[window - window.min()]
        bad, fault = self.is_faulty(window), knobs.fault
        if fault == "AUC falls":  # six of ten outcomes follow the score of another row
            moved = bad & (rng.random(len(meant)) < 0.6)
            meant[moved] = rng.permutation(meant[moved])
        if fault == "calibration shifts":
            meant = np.where(bad, meant + 0.9, meant)
        if fault == "a segment turns":
            centre = special.logit(knobs.base_rate) - 0.5
            meant = np.where(bad & (segment == TURNED), 2 * centre - meant, meant)
        return np.asarray(rng.random(len(meant)) < special.expit(meant))

    def _draw_labels(self, rng: Rng) -> pd.DataFrame:
        rows, law = self.rows, self.law
        share = self.knobs.baseline_share if self.knobs.baseline == "labelled" else 0.0
        n, rows["chance"] = len(rows), self._chances(law.share)
        chosen = np.where(
            rows["dataset"] == "validation",
            rng.random(n) < self._chances(share),
            rng.random(n) < rows["chance"],
        ).astype(bool)
        lags = law.lags(rng, rows["label"].to_numpy())
        chosen &= lags < LONGEST
        labels = rows.loc[chosen, ["window", "dataset", "id", "at", "label"]].copy()
        labels["known"] = labels["at"] + pd.to_timedelta(
            (lags[chosen] * self.unit.value).astype(np.int64)
        )
        labels["is_correction"] = False
        if law.corrected:
            sizes = labels["label"].map(labels["label"].value_counts())
            wrong = law.corrected * sizes.min() / sizes
            second = labels[rng.random(len(labels)) < wrong].copy()
            labels.loc[second.index, "label"] = ~second["label"]
            second["is_correction"] = True
            second["known"] += CORRECTED_AFTER * self.unit
            labels = pd.concat([labels, second])
        labels["due"] = self._looks_of(rng, labels["known"])
        is_lost = self.is_faulty(labels["due"].to_numpy()) & (self.knobs.fault == "labels stop")
        labels["look"] = np.where(is_lost, NEVER, labels["due"])
        return labels.drop(columns="at").sort_values("known", ignore_index=True)

    def _chances(self, share: float) -> Floats:
        """Return the chance of each row to get a label; by score it grows with the score's rank."""
        n = len(self.rows)
        if share in (0.0, 1.0) or not self.law.is_by_score:
            return np.full(n, share)
        rank = self.rows["score"].rank(pct=True).to_numpy()
        weight = np.exp(3.0 * rank)
        return np.clip(share * weight / weight.mean(), 0, 1)

    @cached_property
    def pauses(self) -> tuple[range, ...]:
        """The looks at which the label job stands still; it catches up at the one after."""
        if not self.law.pause:
            return ()
        rng = np.random.default_rng([self.knobs.seed, 4])
        looks = max(self.law.pause // self.length, 1)
        third = max(self.knobs.windows // 3, 1)
        starts = [third * n + int(rng.integers(0, third)) for n in (0, 1)]
        return tuple(range(start, start + looks) for start in starts)

    def _looks_of(self, rng: Rng, known: pd.Series[Any]) -> Ints:
        """Return the look by which each label has landed; those of history land at look -1."""
        offset = OFFSETS[self.knobs.granularity]
        # The label job exports shortly before each of its looks what is known by then.
        since = (known - START - offset).to_numpy().astype("timedelta64[ns]").astype(np.int64)
        look = np.ceil(since / self.step.value).astype(np.int64) - 1
        every = max(self.knobs.every // self.length, 1)
        phase = int(rng.integers(0, every))
        look = np.where(look < 0, -1, look + (phase - look) % every)
        for pause in self.pauses:
            look = np.where((look >= pause.start) & (look < pause.stop), pause.stop, look)
        return look

    def amend(self, spec: str) -> str:
        """Return the spec as `init` writes it."""
        return spec

    def events_at(self, look: int) -> pd.DataFrame:
        """Return the predictions that land before a look; -1 is all of before the first."""
        rows = self.rows
        mine = rows["window"] < 0 if look < 0 else rows["window"] == look
        drop = ["window", "label", "chance"]
        drop += [] if self.knobs.has_decision else ["decision"]
        drop += [] if self.knobs.has_segments else ["segment"]
        drop += ["dataset"] if self.knobs.baseline == "none" else []
        return rows[mine].drop(columns=drop)

    def labels_at(self, look: int) -> pd.DataFrame:
        """Return the labels that land before a look, in the order in which they became known."""
        mine = self.labels[self.labels["look"] == look]
        return pd.DataFrame(
            {
                "id": mine["id"], "defaulted": mine["label"].astype(np.int64),
                "known_at": mine["known"],
            }
        )  # fmt: skip
