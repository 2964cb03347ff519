"""Faults of 25 kinds at three sizes, planted into the years of `year_worlds` from one day on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.year_worlds import DAY, KINDS, YearKnobs, YearWorld, draw_year, with_fault

SIZES = ("small", "middle", "gross")
WITHIN = {"small": 10, "middle": 10, "gross": 3}  # windows within which it is to be found
LABELLED = 6  # windows until the labels of the first faulty one have come
RELEASE = "worse version"  # by little it is found in 40 days of 2,000 rows
STANDING = 20  # days before, from which on another alert of the same column stands
FAULT_FROM = 45  # days that are lived without it
Flags = NDArray[np.bool_]
Rng = np.random.Generator
Change = Callable[[Rng, pd.DataFrame, Flags, float], pd.DataFrame]


@dataclass(frozen=True)
class YearFault:
    """A kind of fault.

    Attributes:
        change: Changes rows; the mask says of which days, the number how much.
        sizes: From small to gross.
        names: What its first message has to name one of; empty if it is not of a column.
        is_of_truth: Whether only labels show it.
        kind: The only kind of world that it is planted in; empty for any.
    """

    change: Change
    sizes: tuple[float, float, float]
    names: tuple[str, ...]
    is_of_truth: bool = False
    kind: str = ""


def _some(rng: Rng, on: Flags, share: float) -> Flags:
    return np.asarray(on & (rng.random(len(on)) < share))


def _shift_score(rng: Rng, rows: pd.DataFrame, on: Flags, by: float) -> pd.DataFrame:
    moved = special.expit(special.logit(rows["score"].clip(0.005, 0.995)) + by)
    return rows.assign(score=np.where(on, moved, rows["score"]))


def _move_clock(rng: Rng, rows: pd.DataFrame, on: Flags, by: float) -> pd.DataFrame:
    return rows.assign(hour=np.where(on, (rows["hour"] + by) % 24, rows["hour"]))


def _scale_some(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    some = _some(rng, on, share)
    return rows.assign(amount=np.where(some, 1_000 * rows["amount"], rows["amount"]))


def _fill_items(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows.assign(items=np.where(_some(rng, on, share), -1, rows["items"]))


def _copy_of_yesterday(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    """Return rows of each day before as rows of the day after it, under new ids."""
    before = rows["window"].isin(np.unique(rows.loc[on, "window"]) - 1).to_numpy()
    copied = rows[before & (rng.random(len(rows)) < share)].copy()
    copied["window"] += 1
    for moment in ("at", "known"):
        copied[moment] += DAY
    copied["look"] += 1
    copied["id"] = "r" + copied["id"]
    return copied


def _replay(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    copied = _copy_of_yesterday(rng, rows, on, share)
    return pd.concat([rows, copied]).sort_values("at", ignore_index=True)


def _replace_by_yesterday(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    kept = rows[~_some(rng, on, share)]
    copied = _copy_of_yesterday(rng, rows, on, share)
    return pd.concat([kept, copied]).sort_values("at", ignore_index=True)


def _blur_score(rng: Rng, rows: pd.DataFrame, on: Flags, spread: float) -> pd.DataFrame:
    """Add noise, and pull the scores together again, so that their distribution stays."""
    logit = special.logit(rows["score"].to_numpy().clip(0.005, 0.995))
    usual = float(logit.std())
    mixed = (logit - logit.mean()) + rng.normal(0, spread * usual, len(rows))
    mixed = logit.mean() + mixed * usual / float(mixed.std())
    return rows.assign(score=np.where(on, special.expit(mixed), rows["score"]))


def _release(rng: Rng, rows: pd.DataFrame, on: Flags, spread: float) -> pd.DataFrame:
    blurred = _blur_score(rng, rows, on, spread)
    return blurred.assign(version=np.where(on, "next", rows["version"]))


def _shuffle_score(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    score, some = rows["score"].to_numpy().copy(), _some(rng, on, share)
    score[some] = rng.permutation(score[some])
    return rows.assign(score=score)


def _empty(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows.assign(amount=np.where(_some(rng, on, share), np.nan, rows["amount"]))


def _empty_in_app(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    of_app = on & (rows["channel"] == "app").to_numpy()
    return rows.assign(age=np.where(_some(rng, of_app, share), np.nan, rows["age"]))


def _scale_sparse(rng: Rng, rows: pd.DataFrame, on: Flags, by: float) -> pd.DataFrame:
    return rows.assign(refund=np.where(on, by * rows["refund"], rows["refund"]))


def _rename(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    some = _some(rng, on & (rows["region"] == "south").to_numpy(), share)
    return rows.assign(region=np.where(some, "SOUTH", rows["region"]))


def _add_category(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows.assign(channel=np.where(_some(rng, on, share), "kiosk", rows["channel"]))


def _merge_category(rng: Rng, rows: pd.DataFrame, on: Flags, which: float) -> pd.DataFrame:
    gone = on & (rows["channel"] == ("partner", "phone", "app")[int(which)]).to_numpy()
    return rows.assign(channel=np.where(gone, "web", rows["channel"]))


def _scale(rng: Rng, rows: pd.DataFrame, on: Flags, by: float) -> pd.DataFrame:
    return rows.assign(amount=np.where(on, by * rows["amount"], rows["amount"]))


def _creep(rng: Rng, rows: pd.DataFrame, on: Flags, a_day: float) -> pd.DataFrame:
    days = (rows["window"] - rows.loc[on, "window"].min() + 1).clip(lower=0)
    return rows.assign(driver=rows["driver"] + np.where(on, a_day * days, 0.0))


def _stick(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows.assign(age=np.where(_some(rng, on, share), 40, rows["age"]))


def _turn_feature(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    """Turn a feature round something else than its mean, as a wrong sign does."""
    some = _some(rng, on, share)
    return rows.assign(driver=np.where(some, 1.5 - rows["driver"], rows["driver"]))


def _turn_labels(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows.assign(label=rows["label"] ^ _some(rng, on, share))


def _turn_segment(rng: Rng, rows: pd.DataFrame, on: Flags, n: float) -> pd.DataFrame:
    parts = ("islands", "east", "south", "north")[: int(n)]
    some = on & rows["region"].isin(parts).to_numpy()
    logit = special.logit(rows["score"].to_numpy().clip(0.005, 0.995))
    turned = special.expit(2 * logit.mean() - logit)
    return rows.assign(score=np.where(some, turned, rows["score"]))


def _lose_rows(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    return rows[~_some(rng, on, share)].reset_index(drop=True)


def _lose_channel(rng: Rng, rows: pd.DataFrame, on: Flags, which: float) -> pd.DataFrame:
    gone = (rows["channel"] == ("partner", "phone", "app")[int(which)]).to_numpy()
    return rows[~(on & gone)].reset_index(drop=True)


def _raise_rate(rng: Rng, rows: pd.DataFrame, on: Flags, by: float) -> pd.DataFrame:
    more = _some(rng, on & ~rows["label"].to_numpy(), (by - 1) * float(rows["label"].mean()))
    return rows.assign(label=rows["label"] | more)


def _beneath(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    """Amounts are half as high again for weeks, then some of them are -1."""
    first = int(rows.loc[on, "window"].min())
    stands = (rows["window"] >= first - STANDING).to_numpy()
    amount = np.where(stands, 1.5 * rows["amount"], rows["amount"])
    return rows.assign(amount=np.where(_some(rng, on, share), -1.0, amount))


def _spill(rng: Rng, rows: pd.DataFrame, on: Flags, share: float) -> pd.DataFrame:
    """Two numeric columns are exchanged in some rows."""
    some = _some(rng, on, share)
    return rows.assign(
        age=np.where(some, rows["items"], rows["age"]),
        items=np.where(some, np.nan_to_num(rows["age"], nan=40), rows["items"]).astype(np.int64),
    )


FAULTS: dict[str, YearFault] = {
    "score +.35 logit": YearFault(_shift_score, (0.2, 0.35, 1.0), ("score", "expects")),
    "clock off": YearFault(_move_clock, (1, 2, 8), ("hour",)),
    "x1000 in some": YearFault(_scale_some, (0.03, 0.1, 0.5), ("amount",)),
    "-1 in a count": YearFault(_fill_items, (0.03, 0.08, 0.3), ("items",)),
    "replayed on top": YearFault(_replay, (0.3, 0.6, 1.0), ("predictions", "volume", "came again")),
    "replayed instead": YearFault(_replace_by_yesterday, (0.2, 0.5, 0.9), ("came again",)),
    RELEASE: YearFault(_release, (0.4, 0.8, 2.0), ("ROC AUC",), is_of_truth=True),
    "AUC falls": YearFault(_blur_score, (0.5, 1.0, 2.5), ("ROC AUC",), is_of_truth=True),
    "rare, shuffled": YearFault(
        _shuffle_score, (0.6, 0.8, 1.0), ("ROC AUC",), is_of_truth=True, kind="rare"
    ),
    "empty": YearFault(_empty, (0.03, 0.1, 0.5), ("amount",)),
    "empty in a segment": YearFault(_empty_in_app, (0.1, 0.4, 1.0), ("age",)),
    "sparse x100": YearFault(_scale_sparse, (10, 100, 1_000), ("refund",), kind="zero-inflated"),
    "renamed": YearFault(_rename, (0.2, 0.5, 1.0), ("region",)),
    "new category": YearFault(_add_category, (0.02, 0.1, 0.3), ("channel",)),
    "category gone": YearFault(_merge_category, (0, 1, 2), ("channel",)),
    "another unit": YearFault(_scale, (1.3, 2.0, 100.0), ("amount",)),
    "creeping": YearFault(_creep, (0.03, 0.06, 0.3), ("driver",)),
    "stuck": YearFault(_stick, (0.1, 0.4, 1.0), ("age",)),
    "feature turned": YearFault(_turn_feature, (0.1, 0.3, 1.0), ("driver",)),
    "labels turned": YearFault(
        _turn_labels, (0.05, 0.15, 0.4), ("ROC AUC", "come true"), is_of_truth=True
    ),
    "segment turned": YearFault(_turn_segment, (1, 2, 4), ("ROC AUC",), is_of_truth=True),
    "rows lost": YearFault(_lose_rows, (0.3, 0.6, 0.95), ("predictions",)),
    "channel lost": YearFault(_lose_channel, (0, 1, 2), ("channel", "predictions")),
    "rate rises": YearFault(
        _raise_rate, (1.3, 1.7, 3.0), ("come true", "ROC AUC"), is_of_truth=True
    ),
    "beneath an alert": YearFault(_beneath, (0.05, 0.2, 1.0), ("amount",)),
    "columns exchanged": YearFault(_spill, (0.05, 0.2, 1.0), ("age", "items")),
}


class FaultyWorld(YearWorld):
    """A world in which a fault begins on a day, and stays."""

    def __init__(self, knobs: YearKnobs) -> None:
        super().__init__(knobs)
        fault = FAULTS[knobs.fault]
        on = (self.rows["window"] >= knobs.fault_from).to_numpy()
        rng = np.random.default_rng([knobs.seed, 23])
        self.rows = fault.change(rng, self.rows, on, fault.sizes[SIZES.index(knobs.size)])


def draw_faulty(seed: int) -> YearKnobs:
    """Draw a world with a fault; kinds of faults and sizes take turns."""
    name, size = list(FAULTS)[seed % len(FAULTS)], SIZES[seed // len(FAULTS) % len(SIZES)]
    fault = FAULTS[name]
    waits = LABELLED if fault.is_of_truth else 0
    knobs = draw_year(seed + 1_000, fault.kind or _draw_kind(seed))
    windows = FAULT_FROM + waits + find_within(name, size)
    if name == RELEASE:
        knobs = replace(knobs, rows=2_000)
    return with_fault(knobs, name, size, FAULT_FROM, windows)


def find_within(fault: str, size: str) -> int:
    """Return within how many windows a fault is to be found, once what shows it has come."""
    return 40 if (fault, size) == (RELEASE, SIZES[0]) else WITHIN[size]


def _draw_kind(seed: int) -> str:
    """Draw a kind of world; its own versions would hide that of a fault."""
    known = [kind for kind in KINDS if kind not in ("retraining", "rare")]
    return str(np.random.default_rng([seed, 24]).choice(known))
