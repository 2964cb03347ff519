"""The faults of the drill that happen to rows and files on their way, and to the service."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from benchmarks.drill.faults import (
    FEATURE_FAULTS,
    MODEL_FAULTS,
    WORSE,
    Fault,
    Rng,
    _set,
    _some,
)
from benchmarks.drill.feed import Feed, to_parquet


def _stopped(_feed: Feed, _date: dt.date, _frame: pd.DataFrame) -> None:
    """Send nothing."""


def _late(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    feed.send("predictions", date, frame, delay=2)


def _truncated(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    content = to_parquet(frame)
    feed.send_bytes("predictions", date, content[: len(content) * 2 // 3])


def _without_age(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    feed.send("predictions", date, frame.drop(columns="age"))


def _as_text(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    feed.send("predictions", date, frame.assign(age=frame["age"].round().astype(str) + " years"))


def _thrice(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    """Retry a delivery that went well: the same rows in other files."""
    feed.send("predictions", date, frame)
    for part in ("-retry1", "-retry2"):
        again = frame.sample(frac=0.9, random_state=len(part) + date.day)
        feed.send("predictions", date, again, part=part)


def _conflicting(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    """Use ids of other rows of the day for a tenth of them."""
    n = len(frame) // 10
    ids = frame["id"].to_numpy(copy=True)
    ids[:n] = ids[n : 2 * n]
    feed.send("predictions", date, frame.assign(id=ids))


def _ahead(frame: pd.DataFrame, rng: Rng, _nth: int) -> pd.DataFrame:
    fast = pd.to_timedelta(np.where(rng.uniform(size=len(frame)) < 0.05, 30, 0), unit="h")
    return frame.assign(at=frame["at"] + fast)


def _dropped(frame: pd.DataFrame, rng: Rng, _nth: int) -> pd.DataFrame:
    return frame[rng.uniform(size=len(frame)) < 0.3]


FEED_FAULTS = (
    Fault(
        "latency_spike", "four times the latency", ("service/p95_latency_ms",),
        rows=_set(latency_ms=lambda f, r, i: f["latency_ms"] * 4),
    ),
    Fault(
        "error_spike", "5 % of requests fail", ("service/error_rate",),
        rows=_some(0.05, "status", lambda f: "error"),
    ),
    Fault("volume_drop", "70 % of the traffic is missing", ("service/volume_drop",), rows=_dropped),
    Fault("feed_stops", "no predictions at all", ("freshness/no_data_for",), send=_stopped),
    Fault("late_feed", "predictions come two days late", ("freshness/no_data_for",), send=_late),
    Fault(
        "actuals_late", "ground truth comes four days late", ("freshness/actuals_missing",),
        actuals_delay=4,
    ),
    Fault(
        "actuals_stop", "ground truth never comes", ("freshness/actuals_missing",),
        actuals_delay=None,
    ),
    Fault(
        "missing_column", "files without age", ("schema/bad_rate",),
        ("freshness/no_data_for",), send=_without_age,
    ),
    Fault(
        "type_change", "age as text: '42 years'", ("schema/bad_rate",),
        ("freshness/no_data_for",), send=_as_text,
    ),
    Fault(
        "truncated_file", "files are cut off", ("schema/bad_rate",),
        ("freshness/no_data_for",), send=_truncated,
    ),
    Fault(
        "clock_skew", "5 % of the rows from a server whose clock is 30 hours ahead",
        ("schema/bad_rate",), ("freshness/no_data_for",), rows=_ahead,
    ),
    Fault(
        "wrong_zone", "times five hours ahead, as local times taken for UTC",
        ("schema/bad_rate",), ("freshness/no_data_for",),
        rows=_set(at=lambda f, r, i: f["at"] + pd.Timedelta(hours=5)),
    ),
    Fault(
        "duplicate_storm", "every delivery is retried twice", ("schema/duplicate_rate",),
        send=_thrice,
    ),
    Fault(
        "conflicting_ids", "a tenth of the rows under the id of another",
        ("schema/conflict_rate",), WORSE, send=_conflicting,
    ),
)  # fmt: skip

FAULTS: tuple[Fault, ...] = (*FEATURE_FAULTS, *MODEL_FAULTS, *FEED_FAULTS)
QUICK = (
    "null_burst", "unseen_level", "score_inverted", "latency_spike", "volume_drop", "feed_stops",
    "missing_column", "actuals_stop",
)  # fmt: skip
