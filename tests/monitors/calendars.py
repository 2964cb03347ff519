"""Drawn calendars of models, a year long: when each is served, in which zone, with what limit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from mlmon_dagster.families.silence import build_calendar
from mlmon_dagster.spec import ModelSpec, Window, windows_between
from mlmon_dagster.spec.windows import holidays_of_windows
from mlmon_dagster.store.state.window_state import ServedWindow
from tests.conftest import make_spec
from tests.monitors.cases import verdicts

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Adelaide",
    "America/Sao_Paulo", "Pacific/Chatham", "Asia/Kathmandu",
)  # fmt: skip
COUNTRIES = ("DE-BE", "US-NY", "GB-ENG", "JP", "BR-SP")


@dataclass(frozen=True)
class Drawn:
    """One model's year.

    Attributes:
        spec: The model.
        windows: Its windows, in order.
        open_: Which of them are served as a rule.
        served: Which of them have predictions.
        before: Starts of the baseline's windows that have rows.
        name: The kind of calendar.
    """

    spec: ModelSpec
    windows: Sequence[Window]
    open_: np.ndarray
    served: np.ndarray
    before: Sequence[dt.datetime]
    name: str

    @property
    def limit(self) -> dt.timedelta:
        return self.spec.monitors.freshness.no_data_for

    def silenced(self, start: dt.datetime, end: dt.datetime) -> np.ndarray:
        """Whether each window has predictions if none come between two moments."""
        whole = [start <= window.start and window.end <= end for window in self.windows]
        return self.served & ~np.array(whole)


def _is_open(name: str, local: dt.datetime, draw: dict[str, Any]) -> bool:
    day, hour = local.weekday(), local.hour
    return {
        "always": True,
        "weekdays": day < 5,
        "one_day": day == draw["day"],
        "nights_off": not (hour >= draw["closes"] or hour < draw["opens"]),
        "business_hours": day < 5 and draw["opens"] <= hour < draw["closes"],
        "shifts": (day * 24 + hour) % 168 // 8 in draw["shifts"],
        "saturday_grows": day < 5 or (day == 5 and local.date() >= draw["turn"]),
    }[name]


KINDS = {
    "hour": ("always", "weekdays", "nights_off", "business_hours", "shifts", "saturday_grows"),
    "day": ("always", "weekdays", "one_day", "saturday_grows"),
}
LIMITS = {
    "hour": ("3h", "6h", "12h", "16h", "26h", "3d"),
    "day": ("26h", "30h", "2d", "3d", "8d"),
}


def draw_year(seed: int, days: int = 366) -> Drawn:
    """Draw a calendar and a healthy year of it: with a few days of exceptions, and no outage."""
    rng = np.random.default_rng(seed)
    grain = ("hour", "day")[seed % 2]
    name = str(rng.choice(KINDS[grain]))
    zone = str(rng.choice(ZONES))
    start = dt.date(2023, 1, 1) + dt.timedelta(days=int(rng.integers(0, 365)))
    draw = {
        "day": int(rng.integers(0, 7)),
        "opens": int(rng.integers(4, 10)),
        "closes": int(rng.integers(16, 23)),
        "shifts": set(rng.choice(21, int(rng.integers(6, 16)), replace=False).tolist()),
        "turn": start + dt.timedelta(days=int(rng.integers(60, 300))),
    }
    country = str(rng.choice(COUNTRIES)) if rng.random() < 0.4 else None
    spec = make_spec(
        time={
            "zone": zone,
            "granularity": grain,
            "start": start,
            **({"holidays": country} if country else {}),
        },
        monitors={"freshness": {"no_data_for": str(rng.choice(LIMITS[grain]))}},
    )
    first = dt.datetime.combine(start, dt.time(), ZoneInfo(zone)).astimezone(dt.UTC)
    windows = windows_between(spec.time, first, first + dt.timedelta(days=days))
    locals_ = [window.start.astimezone(ZoneInfo(zone)) for window in windows]
    open_ = np.array([_is_open(name, local, draw) for local in locals_])
    open_[list(holidays_of_windows(spec.time, windows))] = False
    # Once in a while somebody runs it when it is closed, and an hour of a quiet model is empty.
    served = open_ | (rng.random(len(windows)) < 0.01)
    if grain == "hour":
        served &= rng.random(len(windows)) > 0.003
    before: list[dt.datetime] = []
    if rng.random() < 0.5:
        early = windows_between(spec.time, first - dt.timedelta(days=70), first)
        before = [
            window.start
            for window in early
            if _is_open(name, window.start.astimezone(ZoneInfo(zone)), draw)
        ]
    return Drawn(spec, windows, open_, served, before, name)


def judge_year(
    drawn: Drawn, served: np.ndarray, seed: int, now: dt.datetime | None = None
) -> pd.DataFrame:
    """Judge all windows that are complete, with events at drawn times of the served ones."""
    rng = np.random.default_rng(seed)
    inside = np.sort(rng.random((len(drawn.windows), 2)), axis=1)
    now = now or drawn.windows[-1].end + drawn.limit
    rows, known = [], []
    for window, has_rows, (a, b) in zip(drawn.windows, served, inside, strict=True):
        if window.end > now:
            break
        length = window.end - window.start
        times = (window.start + a * length, window.start + b * length) if has_rows else (None, None)
        if has_rows:
            known.append(ServedWindow(window.start, *times))
        rows.append(
            {
                "window_start": window.start, "window_end": window.end, "n": int(has_rows),
                "first_event_time": times[0], "last_event_time": times[1],
            }
        )  # fmt: skip
    calendar = build_calendar(drawn.spec, drawn.windows, known, drawn.before, now)
    judged = verdicts(
        "freshness", [], [row | {"calendar": calendar} for row in rows], model=drawn.spec, now=now
    )
    frame = pd.DataFrame([r for r in judged if r["monitor"] == "freshness/no_data_for"])
    return frame[["window_start", "window_end", "status", "reason", "message", "value"]]
