"""What is right to say of a world of `label_laws`, from its truth, and what was said beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.label_laws import World
from benchmarks.label_living import Episode

KINDS = ("coverage", "performance", "calibration", "estimates", "no verdict")
COMPLETE = 0.95  # of the labels that a window ever gets
POOLED = 7  # windows that are looked at together at most
LIMITS = {"roc_auc": 0.05, "calibration_gap": 0.02}  # what the default monitors bear
SURE = stats.norm.isf(0.001) + stats.norm.isf(0.1)  # of chance at .001 with power .9
FEWEST = 30  # labels of one window that are missed before anybody can say so
FEWEST_OF_RARER = 10
WITHIN = 5  # windows within which a fault is to be found
LASTING = 14  # windows from which on an episode that is open at the end counts as never ending


def kind_of(episode: Episode) -> str:
    """Return which of `KINDS` an episode is of; empty if it is not about truth."""
    monitor = episode.monitor
    if monitor.startswith("no_verdict/"):
        return "no verdict" if episode.family in ("performance", "estimated_performance") else ""
    if episode.family == "freshness":
        return "" if monitor.endswith("/no_data_for") else "coverage"
    if episode.family == "performance":
        return "calibration" if "calibration" in monitor else "performance"
    return "estimates" if episode.family == "estimated_performance" else ""


@dataclass(frozen=True)
class Incident:
    """A time during which told alerts of one kind are open: a thread in a channel is one.

    Attributes:
        kind: One of `KINDS`.
        opened: The look at which it began; `ended` is None if it is open at the end.
        message: What was said first.
        is_right: Whether the world gave a reason: its label job stood still, or its windows have
            too few labels of the rarer class to be judged, or its baseline has none.
        never_ends: Whether it is open at the end, and has been for long.
    """

    kind: str
    monitor: str
    opened: int
    ended: int | None
    message: str
    is_right: bool
    never_ends: bool


def find_incidents(world: World, episodes: Sequence[Episode]) -> list[Incident]:
    """Return the incidents about truth that somebody is told of or sees standing.

    Episodes of history, which are listed and told in one message, count where they are still open
    at the first look that is lived.
    """
    found = []
    for kind in KINDS:
        mine = [
            episode
            for episode in episodes
            if kind_of(episode) == kind
            and (not episode.muted or (episode.muted == "backfill" and _outlives(episode)))
        ]
        for together in join_overlapping(mine):
            first = together[0]
            ends = [episode.ended for episode in together]
            ended = None if None in ends else max(end for end in ends if end is not None)
            opened = max(first.opened, -1)
            lasts = ended is None and opened <= world.knobs.windows - 1 - LASTING
            right = (kind == "coverage" and _is_of_a_pause(world, opened, ended)) or (
                kind == "no verdict" and _is_beyond_judging(world, first.monitor)
            )
            found.append(Incident(kind, first.monitor, opened, ended, first.message, right, lasts))
    return sorted(found, key=lambda incident: incident.opened)


def _is_beyond_judging(world: World, monitor: str) -> bool:
    """Say whether the world gives the reason for which nothing is judged.

    Its baseline has no ground truth, or every other window fewer labels of the rarer class than an
    area under a curve needs.
    """
    if monitor == "no_verdict/no_baseline":
        return world.knobs.baseline == "unlabelled"
    if monitor != "no_verdict/few_rows":
        return False
    labels = world.labels[world.labels["dataset"] == "production"]
    positive = labels.groupby("window")["label"].sum()
    rarer = np.minimum(positive, labels.groupby("window").size() - positive)
    return bool(np.median(rarer) < FEWEST_OF_RARER)


def _outlives(episode: Episode) -> bool:
    return episode.ended is None or episode.ended > 0


def join_overlapping(episodes: Sequence[Episode]) -> Iterator[list[Episode]]:
    """Yield the episodes that were open at the same time, oldest first."""
    together: list[Episode] = []
    until = -math.inf
    for episode in sorted(episodes, key=lambda episode: episode.opened):
        if together and episode.opened > until:
            yield together
            together, until = [], -math.inf
        together.append(episode)
        until = max(until, math.inf if episode.ended is None else episode.ended)
    if together:
        yield together


def _is_of_a_pause(world: World, opened: int, ended: int | None) -> bool:
    """Say whether the label job stood still when it began, and it ended once that caught up."""
    latest = world.longest + LASTING
    return any(
        pause.start <= opened <= pause.stop + 1
        and ended is not None
        and ended <= pause.stop + latest
        for pause in world.pauses
    )


def find_enough(world: World) -> int | None:
    """Return the look by which enough of the fault's labels had come; None if there never are.

    That is, for labels that stop, the first look at which a window misses `FEWEST` labels that it
    would have by then, and more than it has. For the others, the first at which the
    complete faulty windows, the newest `POOLED` of them and two at least, show the fault: a test
    at level .001 has power .9, and the effect is past what the default monitor bears with the same
    power. Of labels that were chosen by score as many count as would tell the same if they were
    drawn at random (Kish 1965).
    """
    first, last = world.knobs.fault_from, world.knobs.windows
    if world.knobs.fault == "labels stop":
        return next((look for look in range(first, last) if _misses_labels(world, look)), None)
    effects = _measure_effects(world)
    complete = _complete_from(world)
    for look in range(first, last):
        windows = [w for w in range(first, look + 1) if complete.get(w, last) <= look][-POOLED:]
        if len(windows) >= 2 and _is_shown(world, effects, windows):
            return look
    return None


def _misses_labels(world: World, look: int) -> bool:
    labels = world.labels[
        (world.labels["dataset"] == "production") & ~world.labels["is_correction"]
    ]
    due = labels[labels["due"] <= look].groupby("window").size()
    come = labels[labels["look"] <= look].groupby("window").size().reindex(due.index, fill_value=0)
    return bool(((due - come >= FEWEST) & (come <= due / 2)).any())


def _complete_from(world: World) -> dict[int, int]:
    """Return the look by which nearly all of a window's labels had come, of either class.

    Of all classes together it would be one at which most of a rare class that comes last is
    missing: then no rate of it can be told.
    """
    labels = world.labels[
        (world.labels["dataset"] == "production") & ~world.labels["is_correction"]
    ]
    by_class = labels.groupby(["window", "label"])["look"].quantile(COMPLETE, "higher")
    found = by_class.groupby("window").max()
    return dict(zip(found.index.tolist(), found.astype(int).tolist(), strict=True))


def _measure_effects(world: World) -> Mapping[str, float]:
    """Return by how much the fault changes what the default monitors watch, among all rows."""
    rows = world.rows[world.rows["dataset"] == "production"]
    bad = rows["window"] >= world.knobs.fault_from
    return {
        "roc_auc": measure_auc(rows[~bad]) - measure_auc(rows[bad]),
        "calibration_gap": abs(_gap(rows[bad]) - _gap(rows[~bad])),
    }


def measure_auc(rows: pd.DataFrame) -> float:
    """Return the share of pairs of a positive and a negative that the score puts right."""
    rank = stats.rankdata(rows["score"])
    positive = rows["label"].to_numpy(dtype=bool)
    n, k = len(rows), int(positive.sum())
    return (
        float((rank[positive].sum() - k * (k + 1) / 2) / (k * (n - k))) if 0 < k < n else math.nan
    )


def _gap(rows: pd.DataFrame) -> float:
    return float((rows["label"] - rows["score"]).mean())


def _is_shown(world: World, effects: Mapping[str, float], windows: Sequence[int]) -> bool:
    rows = world.rows[(world.rows["dataset"] == "production") & world.rows["window"].isin(windows)]
    labelled = rows[rows["id"].isin(world.labels["id"])]
    k, others = (_count_effective(labelled[labelled["label"] == label]) for label in (True, False))
    if not k or not others:
        return False
    rate, spread = float(rows["label"].mean()), world.knobs.clustering
    within = rate * (1 - rate)
    errors = {
        "roc_auc": _auc_error(measure_auc(rows), k, others),
        # Windows differ by more than their rows do.
        "calibration_gap": math.sqrt(
            within / _count_effective(labelled) + (within * spread) ** 2 / len(windows)
        ),
    }
    return any(
        effects[name] >= SURE * error
        and effects[name] - LIMITS[name] >= stats.norm.isf(0.1) * error
        for name, error in errors.items()
    )


def _count_effective(rows: pd.DataFrame) -> float:
    """Return how many rows drawn at random tell as much (Kish 1965)."""
    weight = 1 / rows["chance"]
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(rows) else 0.0


def _auc_error(auc: float, k: float, others: float) -> float:
    """Return the standard error of Hanley and McNeil (1982)."""
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    total = auc * (1 - auc) + (k - 1) * (one - auc**2) + (others - 1) * (two - auc**2)
    return math.sqrt(max(total, 0.0) / (k * others))


def find_detection(world: World, episodes: Sequence[Episode]) -> Episode | None:
    """Return the first told episode that can be about the fault; None if there is none."""
    wanted = ("coverage",) if world.knobs.fault == "labels stop" else (
        "performance", "calibration", "estimates"
    )  # fmt: skip
    mine = [
        episode
        for episode in episodes
        if kind_of(episode) in wanted
        and episode.opened >= world.knobs.fault_from
        and not episode.muted
    ]
    return min(mine, key=lambda episode: episode.opened, default=None)
