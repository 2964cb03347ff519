"""Worlds in which predictions come when people work, and what is right to say of their silence.

Nothing comes on weekends, at night or on holidays, which are usual, and once on a working Monday
for hours or the whole day, which is an outage. There is no ground truth: this is of presence alone.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.label_living import Episode

FAMILIES = ("freshness", "service")  # the only ones that silence moves
HISTORY = {"day": 8, "hour": 3}  # weeks that a user has when monitoring begins
FIRST = dt.date(2025, 4, 7)  # a Monday
DAYS = {"day": 91, "hour": 16}  # that are lived
# Written down by hand, so that a package which names them is tested and not repeated.
HOLIDAYS = {
    "DE-BE": "2025-04-18 2025-04-21 2025-05-01 2025-05-08 2025-05-29 2025-06-09",
    "US": "2025-02-17 2025-05-26 2025-06-19 2025-07-04",
}
ZONES = {"DE-BE": "Europe/Berlin", "US": "America/New_York"}
OPENING, CLOSING = 7, 19
SOON = 3  # windows after the outage by which its incident may begin
KINDS = ("weekends", "weekends and holidays", "nights", "nights and weekends", "always")


@dataclass(frozen=True)
class Presence:
    """What was drawn of a world.

    Attributes:
        kind: One of `KINDS`: when usually nothing comes.
        country: Whose zone, and whose holidays where nothing comes on them.
        rows: Of a usual window.
        outage: The Monday without predictions.
        baseline: As of `label_laws.Knobs`; `law` and `fault` stand in a line that describes it.
    """

    seed: int
    kind: str
    country: str
    granularity: str
    rows: int
    outage: dt.date
    windows: int
    baseline: str = "none"
    every: int = 1
    law: str = ""
    fault: str = ""


def draw_presence(seed: int) -> Presence:
    """Draw a world; kinds take turns."""
    rng = np.random.default_rng([seed, 10])
    kind = KINDS[seed % len(KINDS)]
    granularity = "hour" if kind.startswith("nights") else "day"
    country = str(rng.choice(list(HOLIDAYS)))
    days = DAYS[granularity]
    mondays = [
        FIRST + dt.timedelta(days=7 * week) for week in range(2 if days > 30 else 1, days // 7)
    ]
    outage = next(day for day in rng.permutation(np.array(mondays)) if not _is_near(day, country))
    rows = int(np.exp(rng.uniform(math.log(50), math.log(800 if granularity == "day" else 150))))
    windows = days * (24 if granularity == "hour" else 1)
    return Presence(seed, kind, country, granularity, rows, outage, windows)


def _is_near(day: dt.date, country: str) -> bool:
    """Say whether a holiday is on a day or within three days of it."""
    return any(abs(day - one) <= dt.timedelta(days=3) for one in holidays_of(country))


def holidays_of(country: str) -> set[dt.date]:
    """Return the holidays of a country in the time that is lived and before."""
    return {dt.date.fromisoformat(text) for text in HOLIDAYS[country].split()}


class PresenceWorld:
    """The rows of a world of presence; windows are counted from the first that is lived.

    Attributes:
        knobs: What was drawn.
        rows: One row a prediction, by time, with its `window`.
    """

    def __init__(self, knobs: Presence) -> None:
        self.knobs = knobs
        self.zone: str | None = ZONES[knobs.country]
        self.step = pd.Timedelta(hours=1) if knobs.granularity == "hour" else pd.Timedelta(days=1)
        self.longest, self.pauses = 0, tuple[range, ...]()
        self.rows = self._draw_rows(np.random.default_rng([knobs.seed, 11]))

    def start_of(self, window: int) -> pd.Timestamp:
        """Return the start of a window; no clock changes while the world is lived."""
        return pd.Timestamp(FIRST, tz=self.zone).tz_convert("UTC") + window * self.step

    def look_after(self, window: int) -> dt.datetime:
        """Return the moment of the look that follows a window's end."""
        wait = (
            pd.Timedelta(minutes=10) if self.knobs.granularity == "hour" else pd.Timedelta(hours=6)
        )
        return (self.start_of(window + 1) + wait).to_pydatetime()

    def events_at(self, look: int) -> pd.DataFrame:
        """Return the predictions that land before a look; -1 is all of before the first."""
        window = self.rows["window"]
        return self.rows[window < 0 if look < 0 else window == look].drop(columns="window")

    def labels_at(self, look: int) -> pd.DataFrame:
        """Return no labels."""
        return pd.DataFrame()

    def amend(self, spec: str) -> str:
        """Declare the country's holidays in a spec's text where nothing comes on them."""
        if "holidays" not in self.knobs.kind:
            return spec
        return spec.replace("time:\n", f"time:\n  holidays: {self.knobs.country}\n", 1)

    def is_open(self, moment: pd.DatetimeIndex) -> NDArray[np.bool_]:
        """Say of moments of the zone whether predictions usually come, outages aside."""
        kind = self.knobs.kind
        found = np.ones(len(moment), dtype=bool)
        if "weekends" in kind:
            found &= moment.day_of_week < 5
        if "nights" in kind:
            found &= (moment.hour >= OPENING) & (moment.hour < CLOSING)
        if "holidays" in kind:
            closed = holidays_of(self.knobs.country)
            found &= np.array([day not in closed for day in moment.date])
        return found

    def outage_looks(self) -> range:
        """Return the looks after the windows that the outage took."""
        moment = pd.Timestamp(self.knobs.outage, tz=self.zone)
        if "nights" in self.knobs.kind:
            opening, n = moment + pd.Timedelta(hours=OPENING), CLOSING - OPENING
        else:
            opening, n = moment, 1
        first = int((opening.tz_convert("UTC") - self.start_of(0)) / self.step)
        return range(first, first + n)

    def _draw_rows(self, rng: np.random.Generator) -> pd.DataFrame:
        knobs = self.knobs
        start = pd.Timestamp(FIRST, tz=self.zone)
        end = start + pd.Timedelta(days=DAYS[knobs.granularity])
        freq = "h" if knobs.granularity == "hour" else "D"
        cells = pd.date_range(
            start - pd.DateOffset(weeks=HISTORY[knobs.granularity]),
            end,
            freq=freq,
            inclusive="left",
        )
        usual = self.is_open(cells) & (cells.date != knobs.outage)
        sizes = np.where(usual, rng.poisson(knobs.rows * np.exp(rng.normal(0, 0.1, len(cells)))), 0)
        cell = cells[np.repeat(np.arange(len(cells)), sizes)]
        n, width = len(cell), self.step / pd.Timedelta(hours=1)
        at = (cell + pd.to_timedelta(rng.random(n) * 0.9 * width, unit="h")).tz_convert("UTC")
        window = np.floor((cell.tz_convert("UTC") - self.start_of(0)) / self.step).astype(np.int64)
        income = rng.normal(0, 1, n)
        frame: dict[str, Any] = {
            "window": window, "at": at.astype("datetime64[us, UTC]"), "income": income,
            "age": 40 + 12 * rng.normal(0, 1, n), "score": special.expit(income - 1),
            "id": [f"p{i}" for i in range(n)],
        }  # fmt: skip
        return pd.DataFrame(frame).sort_values("at", ignore_index=True)


def is_about_silence(episode: Episode) -> bool:
    """Say whether an episode is of predictions that do not come, or of too few."""
    return episode.monitor.endswith("/no_data_for") or "volume" in episode.monitor


def find_false_silence(world: PresenceWorld, episodes: Sequence[Episode]) -> list[Episode]:
    """Return the told episodes of silence or few rows that are not of the outage."""
    outage = world.outage_looks()
    return [
        episode
        for episode in episodes
        if is_about_silence(episode)
        and not episode.muted
        and not outage.start <= episode.opened < outage.stop + SOON
    ]


def find_outage(world: PresenceWorld, episodes: Sequence[Episode]) -> Episode | None:
    """Return the first told episode of the outage; None if nobody was told."""
    outage = world.outage_looks()
    mine = [
        episode
        for episode in episodes
        if is_about_silence(episode)
        and not episode.muted
        and outage.start <= episode.opened < outage.stop + SOON
    ]
    return min(mine, key=lambda episode: episode.opened, default=None)
