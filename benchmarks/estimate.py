"""Estimated against realized performance: `python -m benchmarks estimate`.

Simulated shifts of what is known to the model, with the law of the actuals unchanged; then laws
that change, which the residual must show; then the flights, where the law changes too. Baselines
are drawn again and again: all windows of one share its errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.coverage import COLUMNS, Size, compared, realized_of, rows_of
from benchmarks.estimate_tasks import TASK_CASES, Found, multiclass, regression
from benchmarks.scored_worlds import counted, halved, logistic, world
from benchmarks.table import Row, render
from benchmarks.weighted_baseline import Baseline
from mlmon_dagster.metrics.estimated.binary import (
    baseline_estimates,
    estimated_performance,
    residuals,
)
from mlmon_dagster.metrics.estimated.calibration import calibrate, realized, values_of
from mlmon_dagster.monitors.estimated_performance import pooled, still

Floats = NDArray[np.float64]
Drawn = tuple[Floats, Floats, dict[str, Floats]]
SEED = 2013
# Shift of the input that the score holds, and of one that only the actuals know of.
CASES = {"no shift": (0, 0), "seen input +.5": (0.5, 0), "seen input +1": (1, 0),
         "unseen input +.7": (0, 0.7), "both": (0.5, 0.5)}  # fmt: skip
METRICS = ("roc_auc", "f1", "brier")
OVER, LARGE = 7, 0.03  # windows and size of the residual monitor, by default


def draw(
    rng: np.random.Generator,
    size: int,
    rows: int,
    seen: float,
    unseen: float,
    day: float = 0.0,
) -> Drawn:
    """Draw scores, actuals and inputs, (size, rows), see `draw_chances`."""
    score, chance, inputs = draw_chances(rng, size, rows, seen, unseen, day)
    return score, came_true(rng, chance), inputs


def draw_chances(
    rng: np.random.Generator,
    size: int,
    rows: int,
    seen: float,
    unseen: float,
    day: float = 0.0,
) -> Drawn:
    """Draw scores, chances of being positive and inputs, (size, rows).

    Args:
        rng: Draws.
        size: Windows.
        rows: Rows of each.
        seen: Shift of the input that the score holds.
        unseen: Shift of the one that only the actuals know of.
        day: Standard deviation of what the rows of a window share: of both inputs, and of the
            log odds beyond them.
    """
    shared = rng.normal(0, day, (3, size, 1)) if day else np.zeros((3, 1, 1))
    x = rng.normal(seen, 1, (size, rows)) + shared[0]
    z = rng.normal(unseen, 1, (size, rows)) + shared[1]
    chance = logistic(-1 + 1.3 * x + 0.8 * z + shared[2])
    return logistic(-0.8 + 1.6 * x), chance, {"x": x, "z": z}


def came_true(rng: np.random.Generator, chance: Floats) -> Floats:
    """Draw actuals by their chances."""
    return (rng.random(chance.shape) < chance).astype(np.float64)


def simulated(size: Size) -> Iterator[Row]:
    """Shift an input that the score holds, and one that only the actuals know of."""
    rng = np.random.default_rng(SEED)
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for number in range(size.baselines):
        base = Baseline(*draw(rng, size.baseline, size.rows, 0, 0), 0.5)
        for case, shifts in CASES.items():
            drawn = draw(rng, size.windows, size.rows, *shifts)
            for metric, part in compare_binary(base, drawn, METRICS).items():
                found.setdefault((case, metric), []).append(part.assign(baseline=number))
    for (case, metric), parts in found.items():
        yield from rows_of(
            f"{case}: {metric}", pd.concat(parts), is_simulated=True, is_goal=True
        )  # fmt: skip


def compare_binary(base: Baseline, drawn: Drawn, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return metric -> comparison of the windows, see `compared`."""
    score, actual, inputs = drawn
    counts = counted(score, actual, base.threshold)
    plain = residuals(counts, base.calibration)
    best = base.chosen(score, actual, inputs)
    constant = baseline_estimates(base.calibration, base.whole.middles)
    truth = values_of(realized(counts), counts.middles)
    return {m: compared(plain, best, m, constant[m], truth[m]) for m in metrics}


def tasks(
    name: str,
    metrics: Sequence[str],
    estimated: Callable[[np.random.Generator, Sequence[float], Size], list[Found]],
    size: Size,
) -> Iterator[Row]:
    """Shift the inputs of a multiclass model or of a regression."""
    rng = np.random.default_rng(SEED)
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for number in range(size.baselines):
        each = estimated(rng, list(TASK_CASES.values()), size)
        for case, (frame, constant) in zip(TASK_CASES, each, strict=True):
            for metric in metrics:
                truth = realized_of(frame, metric)
                part = compared(frame, frame, metric, constant[metric], truth)
                found.setdefault((case, metric), []).append(part.assign(baseline=number))
    for (case, metric), parts in found.items():
        yield from rows_of(
            f"{name}, {case}: {metric}", pd.concat(parts), is_simulated=True, is_goal=True
        )  # fmt: skip


def power(size: Size) -> Iterator[Row]:
    """Let the input mean less than it did: how often the residual of ROC AUC shows it."""
    rng = np.random.default_rng(SEED)
    concepts = (0.0, 0.1, 0.2, 0.3, 0.5)
    found: dict[float, list[tuple[float, float, float]]] = {concept: [] for concept in concepts}
    for _ in range(size.baselines):
        score, actual = world(rng, size.baseline, size.rows)
        whole = counted(score, actual)
        calibration = calibrate(whole, halved(score, actual, 0.5), seed=1)
        every = counted(score.reshape(1, -1), actual.reshape(1, -1))
        own = _records(estimated_performance(every, calibration), "estimated_roc_auc")[0]
        for concept in concepts:
            windows = counted(*world(rng, OVER, size.rows, concept=concept))
            rows = _records(residuals(windows, calibration), "roc_auc_residual")
            mean, margin = pooled(rows, own)
            alone = float(np.mean([row["lower"] > 0 for row in rows]))
            lasts = still([row["value"] for row in rows], LARGE)
            fires = mean >= LARGE and mean > margin and lasts
            found[concept].append((mean, alone, float(fires)))
    for concept, values in found.items():
        mean, alone, fires = np.mean(values, axis=0)
        yield Row(
            f"input means {concept:.0%} less", (f"{mean:.4f}", f"{alone:.3f}", f"{fires:.3f}")
        )


def _records(frame: pd.DataFrame, metric: str) -> list[dict[str, float]]:
    chosen = frame.loc[frame["metric"] == metric, ["value", "lower", "upper"]]
    return [{str(k): float(v) for k, v in row.items()} for row in chosen.to_dict("records")]


def by_day(frame: pd.DataFrame, column: str) -> Floats:
    """Return (days, most rows of a day), NaN beyond a day's rows."""
    place = frame.groupby("day").cumcount()
    return (
        frame.assign(place=place)
        .pivot(index="day", columns="place", values=column)
        .to_numpy(dtype=np.float64)
    )


def flight_parts() -> Iterator[tuple[str, Baseline, Drawn]]:
    """Yield the demo's days and what they are estimated from.

    The days of every quarter from those of the other parity, so that the law is the same; then,
    month by month, April to December from the three months before and from the winter's
    validation days, between which the law changes.
    """
    from mlmon_dagster.demo.flights import FEATURES, THRESHOLD, train

    model = train()
    frame = model.flights
    score = model.classifier.predict_proba(frame[list(FEATURES)])[:, 1]
    frame = frame.assign(score=score, actual=frame["late"].astype("float64"))
    numeric = [name for name in FEATURES if frame[name].dtype.kind in "iuf"]
    frame[numeric] = frame[numeric].astype("float64").fillna(-999.0)
    winter = frame.loc[model.validation]
    later = frame[pd.to_datetime(frame["day"]) >= pd.Timestamp("2013-04-01")]

    def arrays(part: pd.DataFrame) -> Drawn:
        inputs = {name: by_day(part, name) for name in numeric}
        return by_day(part, "score"), by_day(part, "actual"), inputs

    for name, part in (("winter", winter), *_by_quarter(later)):
        odd = pd.to_datetime(part["day"]).dt.day % 2 == 1
        for taught in (odd, ~odd):
            yield f"{name} by its other days", Baseline(*arrays(part[taught]), THRESHOLD), arrays(
                part[~taught]
            )  # fmt: skip
    every = Baseline(*arrays(winter), THRESHOLD)
    known = pd.concat([winter, later])
    number = pd.to_datetime(known["day"]).dt.month
    for month in range(4, 13):
        mine = arrays(known[number == month])
        yield f"month {month} by the winter", every, mine
        before = Baseline(*arrays(known[number.between(month - 3, month - 1)]), THRESHOLD)
        yield f"month {month} by three before", before, mine


def _by_quarter(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    month = pd.to_datetime(frame["day"]).dt.month
    for name, months in (("spring", (4, 6)), ("summer", (7, 9)), ("autumn", (10, 12))):
        yield name, frame[month.between(*months)]


def flights() -> Iterator[Row]:
    """The demo's model, see `flight_parts`."""
    found: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for i, (case, base, drawn) in enumerate(flight_parts()):
        for metric, part in compare_binary(base, drawn, ("roc_auc", "f1")).items():
            found.setdefault((case, metric), []).append(part.assign(baseline=i))
    for (case, metric), parts in found.items():
        yield from rows_of(
            f"{case}: {metric}", pd.concat(parts), is_simulated=False,
            is_goal=case == "winter by its other days",
        )  # fmt: skip


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baselines", type=int, default=200)
    parser.add_argument("--windows", type=int, default=10, help="of each baseline")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--no-flights", action="store_true")
    asked = parser.parse_args()
    size = Size(asked.baselines, asked.windows, 60, asked.rows)
    half = Size(max(size.baselines // 2, 2), 2 * size.windows, 30, max(size.rows // 2, 100))
    rows = list(simulated(size))
    rows += tasks("classes", ("accuracy", "brier"), multiclass, half)
    rows += tasks("regression", ("mae", "rmse"), regression, half)
    if not asked.no_flights:
        rows += flights()
    print(render("Mean distance of estimate and truth", COLUMNS, rows, seed=SEED))
    shown = ("residual", "one window", "monitor fires")
    print(render("A changed law: ROC AUC", shown, list(power(size)), seed=SEED))
    return int(any(row.goal is not None and not row.goal.is_met for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
