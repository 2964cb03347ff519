"""Healthy years in which days wander, and lasting faults in them: `python -m benchmarks living`.

Every world is judged by the metrics, monitors and alert states of the product with the defaults:
30 columns, a score and its ground truth, three slices (judged only with `--slices`, as in a spec),
45 days of baseline, 365 days of production. An incident is a time during which alerts of one family
are open, as a thread in a channel is one. Then the same worlds with ten lasting faults, one after
the other, each 14 days long.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.living_worlds import (
    BASELINE,
    CATEGORICAL,
    FEATURES,
    FIRST,
    IDS,
    KINDS,
    NUMERIC,
    REGION,
    YEAR,
    Counter,
    Floats,
    Ints,
    Kind,
    World,
    bins_of,
    categories,
    numeric_codes,
    score_codes,
)
from benchmarks.table import KEPT_HELP, Goal, Kept, Row, render
from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, step
from mlmon_dagster.metrics.frames import records
from mlmon_dagster.metrics.performance.multiclass import GAP
from mlmon_dagster.metrics.statistics import BaselineWindows, Binning, ColumnStatistics
from mlmon_dagster.monitors.evidence import finite
from mlmon_dagster.profiles.measures import (
    baseline_performance,
    measure,
    windows_performance,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.files.loader import spec_from_mapping
from tests.monitors.cases import evaluate

OUTPUTS = ("score", GAP)
FAMILIES = ("quality", "drift", "performance", "service")
LENGTH, EVERY, FROM = 14, 32, 30  # days of a fault, between two starts, and before the first
RECOVERED = 7  # windows after the first healthy one by which an alert should have ended
MOST_LIVING, MOST_QUIET, RECALL = 2.0, 0.2, 0.95
Flags = NDArray[np.bool_]
Statistics = tuple[dict[str, ColumnStatistics], dict[str, ColumnStatistics]]


@dataclass(frozen=True)
class Fault:
    """A lasting fault.

    Attributes:
        column: What it changes: a feature, ``score``, ``actual`` or ``n``.
        found_by: Pattern of the monitors that name it.
        change: Values of the faulty rows and draws of [0, 1) in, faulty values out.
    """

    name: str
    column: str
    found_by: str
    change: Callable[[Any, Floats], Any]


FAULTS = (
    Fault(
        "30 % null", "normal_1", "quality/null_rate/*",
        lambda v, u: np.where(u < 0.3, np.nan, v),
    ),
    Fault("a tenth of the unit", "skewed_1", "drift/psi/*", lambda v, u: v / 10),
    Fault("shift of 4 sd", "normal_2", "drift/psi/*", lambda v, u: v + 40),
    Fault("spread x 2", "normal_3", "drift/psi/*", lambda v, u: 50 + 2 * (v - 50)),
    Fault("stuck value", "normal_4", "drift/psi/*", lambda v, u: np.full(len(v), 50.0)),
    Fault(
        "two codes swapped", "few_1", "drift/psi/*",
        lambda v, u: np.where(v == 1, 2, np.where(v == 2, 1, v)),
    ),
    Fault("10 % unseen code", "flag_1", "*/flag_1", lambda v, u: np.where(u < 0.1, 9, v)),
    Fault("score stuck", "score", "drift/psi/*", lambda v, u: np.full(len(v), -1.0)),
    Fault("30 % labels flipped", "actual", "performance/*", lambda v, u: v ^ (u < 0.3)),
    Fault("a third of the rows", "n", "service/volume_drop", lambda v, u: v // 3),
)  # fmt: skip


def spec(*, judges_slices: bool = False) -> ModelSpec:
    """Return the model of all worlds, with default monitors; by default slices are only named."""
    kinds = {**dict.fromkeys(NUMERIC, "numeric"), **dict.fromkeys(CATEGORICAL, "categorical")}
    return spec_from_mapping(
        {
            "model": "living",
            "task": "binary_classification",
            "owners": ["team:risk"],
            "time": {"start": "2024-01-01"},
            "source": {"predictions": {"path": "*.parquet"}, "actuals": {"path": "*.csv"}},
            "columns": {
                "prediction_id": "id", "event_time": "at", "score": "score", "actual": "late",
                "actual_time": "known_at", "dataset": "dataset",
            },
            "features": {
                **{name: {"type": kind} for name, kind in kinds.items()},
                **{name: {"type": "categorical"} for name in (REGION, *IDS)},
            },
            "slices": [REGION],
            "monitors": {
                "drift": {"slices": judges_slices},
                "performance": {"metric": "roc_auc", "drop": 0.05, "slices": judges_slices},
            },
        }
    )  # fmt: skip


class Life:
    """One world and what is computed of it; faults change single columns."""

    def __init__(self, kind: Kind, seed: int, *, judges_slices: bool = False) -> None:
        self.world, self.spec = World(kind, seed), spec(judges_slices=judges_slices)
        self._counter = Counter(self.world)
        self._in_baseline = self.world.day < BASELINE
        self._healthy = {name: self.column(name) for name in (*FEATURES, *OUTPUTS)}

    def column(self, name: str, faults: Sequence[tuple[int, Fault]] = ()) -> Any:
        """Count one column; `faults` are those that change it, with their first days."""
        world = self.world
        if name in OUTPUTS:
            logit = -1 + 1.5 * world.latent(len(FEATURES))
            draws = np.random.default_rng([world.seed, 3]).random(len(logit))
            label = self._faulty(draws < special.expit(logit), "actual", faults)
            logit = self._faulty(logit, "score", faults)
            if name == "score":
                return self._counter.count(*score_codes(logit, label))
            gap = special.expit(logit) - label
            one = Binning(name, "loss", 1, name)
            return self._counter.count(one, np.zeros(len(gap), np.int64), gap)
        if name == REGION:
            return self._counter.count(*categories(name, world.part, world.day))
        if name in IDS:
            return self._counter.count(*categories(name, world.ids(name), world.day))
        latent = world.latent(FEATURES.index(name))
        values = {**NUMERIC, **CATEGORICAL}[name](latent)
        values = self._faulty(values, name, faults)
        if name in CATEGORICAL:
            return self._counter.count(*categories(name, values.astype(np.int64), world.day))
        binning = bins_of(name, values[self._in_baseline])
        return self._counter.count(binning, numeric_codes(binning, values), values)

    def _faulty(self, values: Any, column: str, faults: Sequence[tuple[int, Fault]]) -> Any:
        values = values.copy()
        for start, fault in faults:
            if fault.column == column:
                mine = (self.world.day >= start) & (self.world.day < start + LENGTH)
                draws = np.random.default_rng([self.world.seed, 4]).random(int(mine.sum()))
                values[mine] = fault.change(values[mine], draws)
        return values

    def results(self, faults: Sequence[tuple[int, Fault]] = ()) -> list[dict[str, Any]]:
        """Return rows of `monitor_result` of the year."""
        both = dict(self._healthy)
        for _, fault in faults:
            of_output = fault.column in ("score", "actual")
            for name in OUTPUTS if of_output else {fault.column} & both.keys():
                both[name] = self.column(name, faults)
        baseline = BaselineWindows({name: then for name, (then, _) in both.items()})
        now = {name: year for name, (_, year) in both.items()}
        sizes = self._counter.sizes.copy()
        for start, fault in faults:
            if fault.column == "n":
                sizes[start : start + LENGTH] = fault.change(sizes[start : start + LENGTH], sizes)
        found: list[dict[str, Any]] = []
        for family in FAMILIES:
            frame = measure(self.spec, family, now, baseline)
            known = {}
            if family == "performance":
                known = {
                    "baseline": baseline_performance(self.spec, family, baseline),
                    "baseline_windows": windows_performance(self.spec, family, baseline),
                }
            found += evaluate(
                self.spec, frame[frame["metric"].isin(_names(self.spec, family))],
                _windows(sizes), now=FIRST.to_pydatetime(), run_id="living", is_backfill=False,
                families=[family], **known,
            )  # fmt: skip
        return found


def _names(model: ModelSpec, family: str) -> list[str]:
    from mlmon_dagster.families.registry import JUDGED_BY

    return list(JUDGED_BY[family].metrics(model))


def _windows(sizes: Ints) -> list[dict[str, Any]]:
    days = np.arange(BASELINE, BASELINE + YEAR)
    starts = FIRST + pd.to_timedelta(days, unit="D")
    before = [np.arange(day - 28, day) for day in days]
    known = pd.DataFrame(
        {
            "window_start": starts, "window_end": starts + pd.Timedelta(days=1),
            "n": sizes[days], "n_actual": sizes[days], "n_expected": sizes[days],
            "maturity": "mature", "data_version": "1", "place": days % 7,
            "earlier_places": [mine % 7 for mine in before],
            "earlier_sizes": [sizes[mine] for mine in before],
        }
    )  # fmt: skip
    return records(known)


@dataclass(frozen=True)
class Episode:
    """One opening of an alert, in days since the baseline's first; `end` is None if it is open."""

    monitor: str
    start: int
    end: int | None


def episodes(results: Sequence[dict[str, Any]]) -> list[Episode]:
    """Let the alerts live through the verdicts."""
    by_alert: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in results:
        key = (row["monitor"], row["slice_key"], row["slice_value"])
        by_alert.setdefault(key, []).append(row)
    found = []
    for (monitor, _, _), rows in by_alert.items():
        state, opened = AlertState(), 0
        for i, row in enumerate(sorted(rows, key=lambda row: row["window_start"])):
            evidence = finite(row["excess"]), finite(row["excess_error"])
            verdict = Verdict(row["window_start"], row["status"], i + 1, *evidence)
            taken = step(state, verdict, k=row["k"], n=row["of_n"])
            state, day = taken.after, (row["window_start"] - FIRST.to_pydatetime()).days
            if "opened" in taken.events:
                opened = day
            if "resolved" in taken.events:
                found.append(Episode(monitor, opened, day))
        if state.active:
            found.append(Episode(monitor, opened, None))
    return found


def incidents(found: Sequence[Episode]) -> dict[str, int]:
    """Count the threads of each family: episodes that overlap are told in one."""
    counts: Tally[str] = Tally()
    for family in {episode.monitor.split("/")[0] for episode in found}:
        until = -1.0
        mine = [episode for episode in found if episode.monitor.startswith(f"{family}/")]
        for episode in sorted(mine, key=lambda episode: episode.start):
            counts[family] += episode.start > until
            until = max(until, np.inf if episode.end is None else episode.end)
    return dict(counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="years of each world")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--only", default="", help="worlds with this text in their name")
    parser.add_argument("--slices", action="store_true", help="judge slices, too")
    parser.add_argument("--show", action="store_true", help="list every episode of healthy years")
    parser.add_argument("--keep", type=Path, help=KEPT_HELP)
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    healthy, faulty, kept = [], [], Kept(options.keep)
    for kind in (kind for kind in KINDS if options.only in kind.name):
        quiet: Tally[str] = Tally()
        noticed: dict[str, list[Noticed]] = {fault.name: [] for fault in FAULTS}
        began = time.perf_counter()
        for seed in seeds:
            name = (kind.name, seed, "slices" if options.slices else "")
            year = kept.of(name, partial(lived, kind, seed, options.slices, options.show))
            quiet.update(year["incidents"])
            for fault, told in year["noticed"].items():
                noticed[fault].append(Noticed(*told))
        seconds = (time.perf_counter() - began) / len(seeds)
        total = quiet.total() / len(seeds)
        limit = MOST_LIVING if kind.wander else MOST_QUIET
        numbers = [f"{quiet[family] / len(seeds):.2f}" for family in FAMILIES]
        healthy.append(Row(kind.name, (*numbers, f"{total:.2f}"), Goal(total, limit)))
        faulty += _fault_rows(kind, noticed)
        print(f"{kind.name}: {seconds:.0f} s a seed", flush=True)
    title = "Incidents a model-year of healthy worlds"
    print(render(title, (*FAMILIES, "all"), healthy, seed=seeds, width=13))
    title = "Ten lasting faults in the same worlds"
    columns = ("noticed", "delay", "one episode", "ended in 7")
    print(render(title, columns, faulty, seed=seeds, width=13))
    return int(any(row.goal and not row.goal.is_met for row in (*healthy, *faulty)))


def lived(kind: Kind, seed: int, judges_slices: bool, shows: bool) -> dict[str, Any]:
    """Return the incidents of one healthy year, and how the faults of the same year were told."""
    life = Life(kind, seed, judges_slices=judges_slices)
    usual = episodes(life.results())
    if shows:
        print(seed, *usual, sep="\n  ", flush=True)
    starts = [BASELINE + FROM + EVERY * i for i in range(len(FAULTS))]
    planted = list(zip(starts, FAULTS, strict=True))
    found = episodes(life.results(planted))
    noticed = {fault.name: _noticed(found, fault, start) for start, fault in planted}
    return {"incidents": incidents(usual), "noticed": noticed}


class Noticed(NamedTuple):
    """How a fault was told.

    Attributes:
        delay: After how many windows; None if never.
        episodes: Of the alert that had most of them.
        ended: Whether all of them had ended soon after the fault.
    """

    delay: int | None
    episodes: int
    ended: bool


def _noticed(found: Sequence[Episode], fault: Fault, start: int) -> Noticed:
    """Return how a fault was told."""
    column = fault.column if fault.column in FEATURES else None
    mine = [
        episode
        for episode in found
        if fnmatchcase(episode.monitor, fault.found_by)
        and (column is None or episode.monitor.endswith(f"/{column}"))
        and (fault.column != "score" or episode.monitor.endswith("/score"))
        and start <= episode.start < start + LENGTH
    ]
    first = min((episode.start for episode in mine), default=None)
    last = start + LENGTH + RECOVERED
    ended = all(episode.end is not None and episode.end <= last for episode in mine)
    most = max(Tally(episode.monitor for episode in mine).values(), default=0)
    return Noticed(None if first is None else first - start, most, ended)


def _fault_rows(kind: Kind, noticed: Mapping[str, Sequence[Noticed]]) -> list[Row]:
    rows, all_told, n = [], list[Noticed](), 0
    for name, found in noticed.items():
        told = [one for one in found if one.delay is not None]
        delay = f"{np.mean([one.delay for one in told if one.delay is not None]):.1f}"
        numbers = (f"{len(told)} of {len(found)}", delay if told else "-", *_shares(told))
        rows.append(Row(f"{kind.name}, {name}"[:36], numbers))
        all_told, n = all_told + told, n + len(found)
    recall = len(all_told) / n
    once = float(np.mean([one.episodes == 1 for one in all_told]))
    ended = float(np.mean([one.ended for one in all_told]))
    one_episode, in_time = _shares(all_told)
    return [
        *rows,
        Row(f"{kind.name}, noticed", (f"{recall:.3f}", "", "", ""), Goal(recall, RECALL, True)),
        Row(f"{kind.name}, one episode", ("", "", one_episode, ""), Goal(once, 1.0, True)),
        Row(f"{kind.name}, ended", ("", "", "", in_time), Goal(ended, 1.0, True)),
    ]


def _shares(told: Sequence[Noticed]) -> tuple[str, str]:
    """Return of how many faults each alert had one episode, and of how many all had ended."""
    counts = sum(one.episodes == 1 for one in told), sum(one.ended for one in told)
    return f"{counts[0]} of {len(told)}", f"{counts[1]} of {len(told)}"


if __name__ == "__main__":
    raise SystemExit(main())
