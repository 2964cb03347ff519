"""How often calibration, bias and error alarm in healthy years, and how soon they see a change.

The default monitors and alert states judge windows whose rows and days are drawn: rows that stray
as outcomes of rates near a fifth do around their scores (.4), of three classes (.47), errors of a
regression in mean absolute errors (1.25), absolute ones (.76), outcomes of which two in a thousand
come (Poisson's, of ten times as many rows); and days that share something, alone
or wandering. Then a change of 30 days: scores off by 4 points, a lean of .125, half as much error,
doubled scores.

    python -m benchmarks levels --years 20 --keep FILE
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.living import Episode, episodes
from benchmarks.living_worlds import FIRST
from benchmarks.table import KEPT_HELP, Goal, Kept, Row, show
from mlmon_dagster.metrics.frames import METRIC_COLUMNS
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.performance.multiclass import CLASS
from mlmon_dagster.metrics.windows.clusters import SERIES, usual_windows
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import TABLE
from tests.conftest import make_spec
from tests.monitors.cases import evaluate

BASELINE, YEAR = 45, 365
CHANGED, LASTS, SOON, RECOVERED = (
    10,
    30,
    5,
    14,
)  # days: the first changed one, how long, told, ended
ROW, RATE = 0.4, 0.2  # of the first kind; what days share is in its unit
MOST, CALM, LEAST = 0.2, 0.01, 0.95
Floats = NDArray[np.float64]


class World(NamedTuple):
    """Rows a window, what days share (a standard deviation), and how much of it the next has."""

    rows: int
    spread: float
    correlation: float = 0.0


WORLDS = (
    World(300, 0.0), World(1_000, 0.0), World(1_000, 0.01), World(2_000, 0.01), World(5_000, 0.01),
    World(5_000, 0.02), World(5_000, 0.04), World(1_000, 0.02, 0.6), World(1_000, 0.02, 0.9),
)  # fmt: skip


class Kind(NamedTuple):
    """What is judged.

    Attributes:
        metric: The metric; its monitor is a default one of the task.
        usual: Its mean.
        row: How far one row strays.
        changes: Column -> how far the planted change moves it.
        rate: Of outcomes that are rare, how often they come.
    """

    name: str
    spec: ModelSpec
    metric: str
    usual: float
    row: float
    changes: dict[str, float]
    rate: float = 0.0


def kinds() -> tuple[Kind, ...]:
    """Return the levels that are judged by default."""
    columns = {"prediction_id": "id", "event_time": "at", "prediction": "p", "actual": "y"}
    several = make_spec(
        task="multiclass_classification",
        columns={**columns, "scores": {"a": "pa", "b": "pb", "c": "pc"}},
    )
    regression = make_spec(task="regression", columns=columns)
    moved = {f"{CLASS}a": 0.04, f"{CLASS}b": -0.04, f"{CLASS}c": 0.0}
    return (
        Kind("calibration", make_spec(), "calibration_gap", 0.0, 0.4, {TABLE: 0.04}),
        Kind("of three classes", several, "calibration_gap", 0.0, 0.47, moved),
        Kind("of 2 in 1,000", make_spec(), "calibration_gap", 0.0, 0.045, {TABLE: 0.002}, 0.002),
        Kind("bias", regression, "bias", 0.0, 1.25, {TABLE: 0.125}),
        Kind("mean absolute error", regression, "mae", 1.0, 0.76, {TABLE: 0.5}),
    )


def drawn(kind: Kind, world: World, seed: int) -> dict[str, Floats]:
    """Draw the windows of a baseline and a year, by column."""
    rng, days = np.random.default_rng(seed), BASELINE + YEAR
    found = {}
    for column in kind.changes:
        shared, last = np.empty(days), rng.normal()
        for day, new in enumerate(rng.normal(size=days)):
            last = world.correlation * last + math.sqrt(1 - world.correlation**2) * new
            shared[day] = last
        if kind.rate:
            rates = kind.rate * np.exp(world.spread / RATE * shared)
            found[column] = kind.rate - rng.poisson(world.rows * rates) / world.rows
            continue
        noise = world.spread / ROW * shared + rng.normal(0, 1 / math.sqrt(world.rows), days)
        found[column] = kind.usual + kind.row * noise
    return found


def frame(kind: Kind, world: World, windows: dict[str, Floats], days: range) -> pd.DataFrame:
    """Return some days of the windows as metrics."""

    def half(value: float) -> float:
        came = max(abs(kind.rate - value), 1 / world.rows)
        return Z95 * (math.sqrt(came) if kind.rate else kind.row) / math.sqrt(world.rows)

    rows: list[dict[str, Any]] = [
        {
            "window_start": FIRST + pd.Timedelta(days=day), "dataset": "production",
            "model_version": "all", "slice_key": "all", "slice_value": "all",
            "column_name": column, "metric": kind.metric, "value": values[day],
            "lower": values[day] - half(values[day]), "upper": values[day] + half(values[day]),
            "n": world.rows,
            "n_baseline": 0, "p_value": math.nan, "reason": "", "method_version": "1",
        }
        for column, values in windows.items()
        for day in days
    ]  # fmt: skip
    if TABLE not in windows:
        rows += [{**row, "column_name": TABLE} for row in rows[: len(days)]]
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS))


def judged(kind: Kind, world: World, windows: dict[str, Floats], last: int) -> list[Episode]:
    """Let the alerts live through the days from the baseline's end to the last."""
    baseline = frame(kind, world, windows, range(BASELINE))
    days = range(BASELINE, last)
    starts = [FIRST + pd.Timedelta(days=day) for day in days]
    usual = usual_windows(baseline)
    whole = baseline.drop_duplicates(list(SERIES)).assign(value=kind.usual)
    if kind.rate:
        whole = pd.concat([whole, whole.assign(metric="actual_rate", value=kind.rate)])
    results = evaluate(
        kind.spec,
        frame(kind, world, windows, days),
        [
            {
                "window_start": start, "window_end": start + pd.Timedelta(days=1),
                "n": world.rows, "n_actual": world.rows, "maturity": "mature",
                "data_version": "1",
            }
            for start in starts
        ],
        baseline=whole.join(usual, on=list(SERIES)), baseline_windows=baseline,
        now=FIRST.to_pydatetime(), run_id="levels", is_backfill=False, families=["performance"],
    )  # fmt: skip
    return episodes([row for row in results if row["metric"] == kind.metric])


def lived(kind: Kind, world: World, seed: int) -> dict[str, Any]:
    """Return the false alarms of a year, when its change was told, and whether that was over."""
    first = BASELINE + CHANGED
    windows = drawn(kind, world, seed)
    false = len(judged(kind, world, windows, BASELINE + YEAR))
    changed = {column: values.copy() for column, values in windows.items()}
    for column, change in kind.changes.items():
        changed[column][first : first + LASTS] += change
    found = judged(kind, world, changed, first + LASTS + RECOVERED)
    mine = [episode for episode in found if first <= episode.start < first + LASTS]
    return {
        "false": false,
        "delay": mine[0].start - first if mine else None,
        "ended": bool(mine) and all(episode.end is not None for episode in mine),
    }


def table(kind: Kind, years: int, kept: Kept) -> Iterator[Row]:
    """Judge every world, healthy and changed."""
    calm: list[bool] = []
    for usual in WORLDS:
        world = usual._replace(rows=10 * usual.rows) if kind.rate else usual
        lives = [
            kept.of((kind.name, *world, seed), partial(lived, kind, world, seed))
            for seed in range(years)
        ]
        false = sum(life["false"] for life in lives)
        delays = [life["delay"] for life in lives if life["delay"] is not None]
        ended = sum(life["ended"] for life in lives)
        if world.spread <= CALM and usual.rows >= 1_000:
            calm += [life["delay"] is not None for life in lives]
        numbers = (
            f"{false / years:.2f}",
            f"{sum(delay < SOON for delay in delays) / years:.2f}",
            f"{len(delays) / years:.2f}",
            f"{ended} of {len(delays)}",
        )
        name = f"{world.rows:,} rows, {world.spread:g}, {world.correlation:g}"
        yield Row(name, numbers, Goal(false / years, MOST))
    seen = sum(calm) / len(calm)
    goal = Goal(seen, LEAST, is_least=True)
    yield Row("1,000 rows and more, up to 0.01", ("", "", f"{seen:.2f}", ""), goal)


def main() -> int:
    """Print a table a kind; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=20)
    parser.add_argument("--keep", type=Path, help=KEPT_HELP)
    asked = parser.parse_args()
    years, kept = asked.years, Kept(asked.keep)
    heads = ("false a year", "in 5", "in 30", "ended in 14")
    tables = (
        (
            f"{kind.name}: rows a window, days share, the next has of it",
            heads,
            table(kind, years, kept),
        )
        for kind in kinds()
    )
    return int(show(tables, seed=range(years)) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
