"""Estimates on scores with ties, by size and shift: `python -m benchmarks estimate_matrix`.

Every shape of scores, size of a window and kind of shift is a cell. Of each: how far the estimates
are off beside the better of plain CBPE and of weights that are taken wherever there are any, by
whichever of the two is better in that cell (an oracle: it has seen the actuals); how often the
plain method is chosen where nothing shifts; how often the bands hold the realized values. Where
days share effects, baseline and windows do.

A goal is met if the whole 95 % interval of chance is on its right side, missed if the whole is on
the wrong one, and not shown in between. Chance is that between baselines, whose windows share
their errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.coverage import Size, coverage
from benchmarks.estimate import draw
from benchmarks.estimate_tasks import (
    CLASSES,
    class_profiles,
    draw_classes,
    draw_errors,
    one_by_one,
)
from benchmarks.scored_worlds import SHAPES, Floats, in_half, shaped
from benchmarks.table import Goal, Row, render
from benchmarks.weighted_baseline import Baseline, WeightedRows
from mlmon_dagster.metrics.estimated.multiclass import estimated_classes
from mlmon_dagster.metrics.estimated.regression import estimated_losses
from mlmon_dagster.profiles.measure.regression_estimates import LossRows, learn_losses

SEED = 2013
DAY = 0.15  # of a standard deviation of the inputs, and of the log odds
MOST_REGRESSION_ROWS = 5_000  # of a window: the product learns from 100,000 in all
PLAIN = ("cbpe-1", "ovr-cbpe-2")
NO_SHIFT, COVARIATE, CARRIED, DAYS = "none", "covariate", "carried", "shared days"
METRICS = {
    "binary": ("roc_auc", "f1", "brier"),
    "classes": ("accuracy", "macro_roc_auc", "brier"),
    "regression": ("mae", "rmse"),
}
ERRORS, HELD, HELD_LEAST, CHOSEN = 1.05, 0.97, 0.95, 0.95  # the goals
REGRESSION_SHAPES = {"continuous": None, "1 decimal": 1, "0 decimals": 0}


class Case(NamedTuple):
    """Shifts of a window's inputs: of what the score holds and of what it does not hold."""

    seen: float
    unseen: float
    day: float = 0.0


BINARY = {
    NO_SHIFT: Case(0, 0),
    COVARIATE: Case(0, 0.7),
    CARRIED: Case(0.7, 0),
    DAYS: Case(0, 0, DAY),
}
OTHERS = {NO_SHIFT: Case(0, 0), COVARIATE: Case(0.5, 0), DAYS: Case(0, 0, DAY)}


def binary(number: int, size: Size) -> Iterator[pd.DataFrame]:
    """Compare the windows of one baseline, once for each shape of the same scores."""
    for day in (0.0, DAY):
        rng = np.random.default_rng([SEED, size.rows, number])
        taught = draw(rng, size.baseline, size.rows, 0, 0, day)
        drawn = {
            name: draw(rng, size.windows, size.rows, *case)
            for name, case in BINARY.items() if case.day == day
        }  # fmt: skip
        for shape in SHAPES:
            score, actual, inputs = taught
            base = Baseline(shaped(score, shape), actual, inputs, 0.5)
            for name, (score, actual, inputs) in drawn.items():
                mine = shaped(score, shape), actual, inputs
                yield _compared(base.chosen(*mine), base.weighted(*mine), base.plain(*mine)).assign(
                    task="binary", shape=shape, case=name
                )


def classes(number: int, size: Size) -> Iterator[pd.DataFrame]:
    """Compare the windows of one baseline of three classes, for each shape of the same scores."""
    for day in (0.0, DAY):
        rng = np.random.default_rng([SEED, size.rows, number])
        taught = draw_classes(rng, size.baseline, size.rows, 0, day)
        drawn = {
            name: draw_classes(rng, size.windows, size.rows, case.seen, day)
            for name, case in OTHERS.items() if case.day == day
        }  # fmt: skip
        for shape in SHAPES:
            score, actual, inputs = taught
            score = shaped(score, shape)
            kept = in_half(score[0].size).reshape(score[0].shape)
            base = class_profiles(score, actual)
            halves = class_profiles(np.where(kept, score, np.nan), actual)
            rows = WeightedRows(*_by_name(score, actual), _inputs(inputs))
            for name, (score, actual, inputs) in drawn.items():
                score = shaped(score, shape)
                profiles = class_profiles(score, actual)
                found = {"plain": estimated_classes(profiles, base, halves, CLASSES, 1)}
                margins = list(rows.margins(_by_name(score, actual)[0], _inputs(inputs)))
                for method in (rows.chosen, rows.weighted):
                    curves = {i: method(one) for i, one in enumerate(margins)}
                    own = {i: one for i, one in curves.items() if one is not None}
                    found[method.__name__] = estimated_classes(
                        profiles, base, halves, CLASSES, 1, own
                    )
                yield _compared(found["chosen"], found["weighted"], found["plain"]).assign(
                    task="classes", shape=shape, case=name
                )


def _by_name(
    score: Floats, actual: np.typing.NDArray[np.bool_]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    found = one_by_one(score, actual)
    return {n: one[0] for n, one in found.items()}, {n: one[1] for n, one in found.items()}


def _inputs(x: Floats) -> dict[str, Floats]:
    return {"x": x[0], "z": x[1]}


def regression(number: int, size: Size) -> Iterator[pd.DataFrame]:
    """Compare the windows of one baseline of a regression; it has one method and no other."""
    if size.rows > MOST_REGRESSION_ROWS:
        return
    for day in (0.0, DAY):
        cases = {name: case for name, case in OTHERS.items() if case.day == day}
        for shape, decimals in REGRESSION_SHAPES.items():
            rng = np.random.default_rng([SEED, size.rows, number])
            known = draw_errors(rng, size.baseline, size.rows, 0, day, decimals)
            parts = [
                draw_errors(rng, size.windows, size.rows, case.seen, day, decimals)
                for case in cases.values()
            ]
            for name, part in zip(cases, parts, strict=True):
                part.keys["dataset"] = name
            mine = LossRows(
                np.concatenate([part.inputs for part in parts]),
                np.concatenate([part.error for part in parts]),
                np.concatenate([part.is_first for part in parts]),
                pd.concat([part.keys for part in parts], ignore_index=True),
            )
            frame = estimated_losses(*learn_losses(known, mine))
            for name in cases:
                one = frame[frame["dataset"] == name]
                yield _compared(one, one, one).assign(task="regression", shape=shape, case=name)


def _compared(chosen: pd.DataFrame, weighted: pd.DataFrame, plain: pd.DataFrame) -> pd.DataFrame:
    """Return a row per window and metric: errors, whether the band held, whether it was plain."""
    keys = ["metric", "window_start"]
    found = chosen.set_index(keys).join(
        [
            weighted.set_index(keys)["value"].rename("weighted"),
            plain.set_index(keys)["value"].rename("plain"),
        ]
    )
    held = (found["lower"] <= 0) & (found["upper"] >= 0)
    frame = pd.DataFrame(
        {
            "chosen": found["value"].abs(),
            "weighted": found["weighted"].abs(),
            "plain": found["plain"].abs(),
            "held": held.astype(float),
            "is_plain": found["method_version"].isin(PLAIN).astype(float),
        }
    ).reset_index()
    is_residual = frame["metric"].str.endswith("_residual")
    frame = frame[is_residual & np.isfinite(frame["chosen"])]
    return frame.assign(metric=frame["metric"].str.removesuffix("_residual"))


class Ratio(NamedTuple):
    """Error of the chosen method beside the better of the two.

    Attributes:
        value: Their ratio. error: Its standard error. half: Half its 95 % interval.
    """

    value: float
    error: float
    half: float


def ratio(found: pd.DataFrame) -> Ratio:
    """Divide the mean errors; the standard error by a jackknife over baselines.

    Args:
        found: Windows of one cell and metric.
    """
    columns = ["chosen", "weighted", "plain"]
    sums = found.groupby("baseline")[columns].sum().to_numpy()
    total = sums.sum(axis=0)
    # The oracle's choice is that of all baselines, also where one is left out.
    best = 1 + int(np.argmin(total[1:]))
    rest = total - sums
    n = len(sums)
    value = float(total[0] / total[best])
    if n < 2:
        return Ratio(value, np.inf, np.inf)
    left = rest[:, 0] / rest[:, best]
    error = float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
    return Ratio(value, error, error * float(special.stdtrit(n - 1, 0.975)))


def rows_of(name: str, found: pd.DataFrame, metrics: Sequence[str], case: str) -> Iterator[Row]:
    """Return the lines of a cell: of each metric the numbers, and the goal of the worst.

    Args:
        name: Of the cell.
        found: Its windows, see `_compared`, with the columns ``baseline``.
        metrics: To show.
        case: Its shift.
    """
    parts = {m: found[found["metric"] == m] for m in metrics}
    parts = {m: part for m, part in parts.items() if len(part)}
    if not parts:
        yield Row(f"{name} none judged", ("-",) * len(metrics))
        return
    if "regression" not in set(found["task"]):
        ratios = [ratio(part) for part in parts.values()]
        worst = max(ratios, key=lambda one: one.value)
        low, high = worst.value - worst.half, worst.value + worst.half
        numbers = tuple(f"{one.value:.3f}+-{one.error:.3f}" for one in ratios)
        yield Row(f"{name} errors", numbers, Goal(high, ERRORS, best=low))
    bands = [_share(part, "held") for part in parts.values()]
    share, low, high = min(bands)
    numbers = tuple(f"{band[0]:.3f}" for band in bands)
    yield Row(f"{name} band", numbers, Goal(share, HELD, is_least=True, best=high))
    numbers = tuple(f"{band[1]:.3f}-{band[2]:.3f}" for band in bands)
    yield Row("", numbers, Goal(low, HELD_LEAST, is_least=True, best=high))
    if case == NO_SHIFT and "regression" not in set(found["task"]):
        share, low, high = _share(next(iter(parts.values())), "is_plain")
        numbers = (f"{share:.3f}", f"{low:.3f}-{high:.3f}", "")
        yield Row(f"{name} plain", numbers, Goal(low, CHOSEN, is_least=True, best=high))


def _share(found: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Return a share of windows with its interval; a window counts once, whatever its shapes."""
    once = found.groupby(["baseline", "case", "window_start"])[column].mean()
    baseline = once.index.get_level_values("baseline").to_series(index=once.index)
    return coverage(once, baseline)


def tables(found: pd.DataFrame) -> Iterator[tuple[str, list[Row]]]:
    """Yield title and rows: every cell, then cells together by size and by shape."""
    found = found.assign(baseline=found["rows"] * 10_000 + found["baseline"])
    for grouped in (["shape", "rows", "case"], ["rows", "case"], ["shape", "case"]):
        for task, mine in found.groupby("task", sort=False):
            rows: list[Row] = []
            for key, part in mine.groupby(grouped, sort=False):
                values = dict(zip(grouped, key, strict=True))
                name = ", ".join(str(value) for value in key)
                rows += rows_of(f"{name}:", part, METRICS[str(task)], str(values["case"]))
            yield f"{task}, by {', '.join(grouped)}: {', '.join(METRICS[str(task)])}", rows


def counted_goals(rows: Sequence[Row]) -> str:
    """Say of each kind of goal how many cells meet it, miss it, or leave it open."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if row.goal is not None:
            kind = row.name.rpartition(": ")[2] or "band's lower end"
            verdicts = found.setdefault(kind, {"met": 0, "not shown": 0, "NOT MET": 0})
            verdicts[next(v for v in verdicts if str(row.goal).endswith(f" {v}"))] += 1
    return "\n".join(
        f"{kind:20}" + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
        for kind, verdicts in found.items()
    )  # fmt: skip


def main() -> int:
    """Print the tables; 1 if a goal is missed in a cell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--baselines", type=int, default=40)
    parser.add_argument("--windows", type=int, default=10, help="of each baseline and shift")
    parser.add_argument("--baseline", type=int, default=30, help="its windows")
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 1_000, 5_000, 20_000])
    parser.add_argument("--tasks", nargs="+", default=list(METRICS), choices=list(METRICS))
    asked = parser.parse_args()
    compare = {"binary": binary, "classes": classes, "regression": regression}
    parts = []
    for task in asked.tasks:
        for n in asked.rows:
            size = Size(asked.baselines, asked.windows, asked.baseline, n)
            for number in range(size.baselines):
                parts += [
                    part.assign(baseline=number, rows=n) for part in compare[task](number, size)
                ]
    everything = []
    for title, rows in tables(pd.concat(parts, ignore_index=True)):
        print(render(title, ("1", "2", "3"), rows, seed=SEED), counted_goals(rows), sep="\n\n")
        everything += rows
    return int(
        any(row.goal is not None and str(row.goal).endswith("NOT MET") for row in everything)
    )


if __name__ == "__main__":
    raise SystemExit(main())
