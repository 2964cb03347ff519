"""The faults of the drill: what goes wrong, and which monitors name it.

A fault counts as detected only by a monitor that names it (``found_by``). What else may rightly
fire while it lasts (``follows``) is no false alarm, such as the performance of a model whose input
is broken. Everything else that fires is one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.drill.feed import Feed
from benchmarks.drill.traffic import Change, probability, unchanged

Rng = np.random.Generator
Send = Callable[[Feed, dt.date, pd.DataFrame], None]
Truth = Callable[[pd.DataFrame], NDArray[np.float64]]

# A model that sees something else than the world has other scores, and is wrong more often.
WORSE = ("performance/*", "estimated_performance/*")
_SCORES = ("drift/*/score", "drift/*/prediction", *WORSE)


def send_as_it_is(feed: Feed, date: dt.date, frame: pd.DataFrame) -> None:
    """Send a day's predictions in one good file."""
    feed.send("predictions", date, frame)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for some days.

    Attributes:
        name: Its name on the command line.
        says: What goes wrong, in words.
        found_by: Patterns of the monitors that name it.
        follows: Patterns of monitors that may also fire while it lasts.
        features: Changes the features before the model sees them.
        rows: Changes the rows as they are logged.
        truth: Chance of a positive, if the world has changed.
        actuals: Changes the ground truth.
        send: How predictions arrive.
        actuals_delay: Days that ground truth is late; None if it never comes.
        days: How long it lasts.
    """

    name: str
    says: str
    found_by: tuple[str, ...]
    follows: tuple[str, ...] = ()
    features: Change = unchanged
    rows: Change = unchanged
    truth: Truth | None = None
    actuals: Change = unchanged
    send: Send = send_as_it_is
    actuals_delay: int | None = 0
    days: int = 3


def _set(**new: Callable[[pd.DataFrame, Rng, int], Any]) -> Change:
    """Return a change that replaces columns."""

    def change(frame: pd.DataFrame, rng: Rng, nth: int) -> pd.DataFrame:
        return frame.assign(**{name: make(frame, rng, nth) for name, make in new.items()})

    return change


def _some(share: float, column: str, value: Callable[[pd.DataFrame], Any]) -> Change:
    """Return a change of a share of a column's values."""

    def change(frame: pd.DataFrame, rng: Rng, nth: int) -> pd.DataFrame:
        hit = rng.uniform(size=len(frame)) < share
        return frame.assign(**{column: frame[column].where(~hit, value(frame))})

    return change


def _with_nan(frame: pd.DataFrame, rng: Rng, nth: int) -> pd.DataFrame:
    changed = _some(0.1, "temp_f", lambda f: np.nan)(frame, rng, nth)
    changed.attrs["nan"] = ("temp_f",)
    return changed


def _shifted(frame: pd.DataFrame, _rng: Rng, _nth: int) -> pd.DataFrame:
    return frame.assign(
        height_in=frame["age"].clip(40, 90), temp_f=frame["height_in"], balance=frame["temp_f"]
    )


def _shuffled(frame: pd.DataFrame, rng: Rng, _nth: int) -> pd.DataFrame:
    return frame.assign(age=rng.permutation(frame["age"].to_numpy()))


def _where(column: str, value: str) -> Change:
    """Return a change that makes the scores of a part of the rows worthless."""

    def change(frame: pd.DataFrame, rng: Rng, _nth: int) -> pd.DataFrame:
        noise = rng.permutation(frame["score"].to_numpy())
        score = frame["score"].where(frame[column] != value, noise)
        return frame.assign(score=score, decision=(score >= 0.5).astype(int))

    return change


def _rescored(new: Callable[[pd.Series], Any]) -> Change:
    def change(frame: pd.DataFrame, _rng: Rng, _nth: int) -> pd.DataFrame:
        score = pd.Series(new(frame["score"]), index=frame.index)
        return frame.assign(score=score, decision=(score >= 0.5).astype(int))

    return change


MODEL_FAULTS = (
    Fault(
        "actual_flip", "the ground truth is logged inverted", WORSE,
        actuals=_set(truth=lambda f, r, i: 1 - f["truth"]),
    ),
    Fault(
        "concept_drift", "the world changes, the inputs do not", WORSE,
        truth=lambda real: probability(real, age_effect=-1.5),
    ),
    Fault(
        "score_constant", "every score is 0.5", ("drift/*/score",), _SCORES,
        rows=_rescored(lambda s: s * 0 + 0.5),
    ),
    Fault(
        "score_inverted", "the scores are those of the other class",
        ("drift/*/score", "performance/*"), _SCORES, rows=_rescored(lambda s: 1 - s),
    ),
    Fault(
        "score_miscalibrated", "the scores are squared", ("drift/*/score", "performance/cal*"),
        _SCORES, rows=_rescored(lambda s: s**2),
    ),
    Fault(
        "one_version_bad", "version 8 scores at random",
        ("performance/*@model_version", "drift/*@model_version"), WORSE,
        rows=_where("version", "8"),
    ),
    Fault(
        "one_slice_bad", "the scores of one region of four are random",
        ("performance/*@region",), WORSE, rows=_where("region", "south"), days=4,
    ),
    Fault(
        "stale_feature", "age belongs to another customer: same distribution, wrong rows",
        WORSE, features=_shuffled,
    ),
)  # fmt: skip

FEATURE_FAULTS = (
    Fault(
        "null_burst", "60 % of income is null", ("quality/null_rate/income",),
        ("drift/*/income", *_SCORES), features=_some(0.6, "income", lambda f: np.nan),
    ),
    Fault(
        "nan_burst", "10 % of temp_f is not a number", ("quality/nan_rate/temp_f",),
        ("drift/*/temp_f", *_SCORES), rows=_with_nan,
    ),
    Fault(
        "unit_change", "height in cm instead of inches, x 2.54",
        ("quality/out_of_range_rate/height_in", "drift/*/height_in"),
        ("drift/*/height_in", *_SCORES),
        features=_set(height_in=lambda f, r, i: f["height_in"] * 2.54),
    ),
    Fault(
        "celsius", "temp_f in Celsius", ("drift/*/temp_f",), _SCORES,
        features=_set(temp_f=lambda f, r, i: (f["temp_f"] - 32) / 1.8),
    ),
    Fault(
        "category_swap", "phone and laptop are exchanged", ("drift/*/device",),
        features=_set(
            device=lambda f, r, i: f["device"].replace({"phone": "laptop", "laptop": "phone"})
        ),
    ),
    Fault(
        "unseen_level", "10 % of region has a value never seen before",
        ("quality/unseen_rate/region",), ("drift/*/region",),
        features=_some(0.1, "region", lambda f: "offshore"),
    ),
    Fault(
        "casing", "40 % of region in capitals, with a blank behind",
        ("quality/unseen_rate/region",), ("drift/*/region",),
        features=_some(0.4, "region", lambda f: f["region"].str.upper() + " "),
    ),
    Fault(
        "constant_feature", "balance is 0 in every row", ("drift/*/balance",),
        features=_set(balance=lambda f, r, i: 0.0),
    ),
    Fault(
        "frozen_feature", "temp_f is the same reading all day", ("drift/*/temp_f",), _SCORES,
        features=_set(temp_f=lambda f, r, i: f["temp_f"].iloc[0]),
    ),
    Fault(
        "column_shift", "columns have moved by one",
        ("drift/*/height_in", "drift/*/temp_f", "drift/*/balance"), _SCORES, features=_shifted,
    ),
    Fault(
        "outliers", "2 % of income a million times too large",
        ("quality/out_of_range_rate/income",), ("drift/*/income", *_SCORES),
        features=_some(0.02, "income", lambda f: f["income"] * 1e6),
    ),
    Fault(
        "sign_flip", "balance with the other sign", ("drift/*/balance",),
        features=_set(balance=lambda f, r, i: -f["balance"]),
    ),
    Fault(
        "scale_drift", "income grows by 8 % a day", ("drift/*/income",), _SCORES,
        features=_set(income=lambda f, r, i: f["income"] * 1.08 ** (i + 1)), days=9,
    ),
)  # fmt: skip
