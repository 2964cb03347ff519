"""Estimates on scores with ties, by size and shift: `python -m benchmarks estimate_matrix`.

Every shape of scores, size of a window and kind of shift is a cell. Of each: how far the estimates
are off beside the better of plain CBPE and of weights that are taken wherever there are any, by
whichever of the two is better in that cell (an oracle: it has seen the actuals); how often the
plain method is chosen where nothing shifts; how often the bands hold the realized values. Where
days share effects, baseline and windows do. The flights' days are estimated from the days of the
other parity of the same quarter, and from the winter.

A goal is met if the whole 95 % interval of chance is on its right side, missed if the whole is on
the wrong one, and not shown in between. Chance is that between baselines, whose windows share
their errors. Of every window the actuals are drawn ten times, because they are most of the chance
that is no baseline's and cost next to nothing: the estimate does not look at them. Cells in which a
goal is not shown when 10, 20, 40 baselines are drawn get as many again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from benchmarks.estimate_tasks import (
    CLASSES,
    Noise,
    class_profiles,
    classes_come,
    draw_class_chances,
    draw_classes,
    draw_errors,
    draw_noise,
    one_by_one,
)
from benchmarks.scored_worlds import (
    SHAPES,
    Drawn,
    Floats,
    Size,
    came_true,
    counted,
    coverage,
    draw,
    draw_chances,
    in_half,
    shaped,
)
from benchmarks.table import Goal, Row, render
from benchmarks.weighted_baseline import Baseline, WeightedRows
from mlmon_dagster.metrics.estimated.calibration import RECORD, factor_of
from mlmon_dagster.metrics.estimated.multiclass import (
    DECIDED_FOR,
    calibrate_classes,
    estimated_classes,
    group_scores,
)
from mlmon_dagster.metrics.estimated.regression import Losses, estimated_losses
from mlmon_dagster.metrics.estimated.reweighting import Weighing
from mlmon_dagster.profiles.estimates import MOST_ROWS, LossRows, learn_losses
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.spec.tasks import TASKS

SEED = 2013
DAY = 0.15  # of a standard deviation of the inputs, and of the log odds
NO_SHIFT, COVARIATE, CARRIED, DAYS = "none", "covariate", "carried", "shared days"
METRICS = {
    "binary": TASKS[BINARY].estimated,
    "classes": TASKS[MULTICLASS].estimated,
    "regression": TASKS[REGRESSION].estimated,
    "flights": TASKS[BINARY].estimated,
}
ERRORS, HELD, HELD_LEAST, CHOSEN = 1.05, 0.97, 0.95, 0.95  # the goals
REGRESSION_SHAPES = ("continuous", "1 decimal", "16 values", "constant in part")
SIZES = (200, 1_000, 5_000, 20_000)
LARGE = 5_000  # of these a regression's baseline is read in part, so that larger ones are like them
PROCESSES = 2
AT_ONCE = 5  # baselines between two tables
AGAIN = 10  # draws of a window's actuals; where days share effects these are most of the chance
AGAIN_IN_DAYS, MORE_DAYS = 2, 5
VERDICTS = ("met", "not shown", "NOT MET")
Cell = tuple[str, str, int, str]  # task, shape, rows of a window, case


class Case(NamedTuple):
    """Shifts of a window's inputs: of what the score holds and of what it does not hold."""

    seen: float
    unseen: float
    day: float = 0.0

    @property
    def again(self) -> int:
        """Draws of each window's actuals."""
        return AGAIN_IN_DAYS if self.day else AGAIN

    def windows(self, size: Size) -> int:
        """Count the windows of a baseline."""
        return size.windows * (MORE_DAYS if self.day else 1)


SCORED = {
    NO_SHIFT: Case(0, 0),
    COVARIATE: Case(0, 0.7),
    CARRIED: Case(0.7, 0),
    DAYS: Case(0, 0, DAY),
}
OTHERS = {NO_SHIFT: Case(0, 0), COVARIATE: Case(0.5, 0), DAYS: Case(0, 0, DAY)}
CASES = {"binary": SCORED, "classes": OTHERS, "regression": OTHERS}


class Draw(NamedTuple):
    """One baseline of a task, and the cells whose windows are drawn beside it."""

    task: str
    rows: int
    number: int
    day: float
    size: Size
    cells: frozenset[Cell]

    def rng(self, place: int) -> np.random.Generator:
        """Return the draws of the baseline, 0, or of a case: the same whatever else is drawn."""
        return np.random.default_rng([SEED, self.rows, self.number, int(1000 * self.day), place])

    def cases(self, rows: int) -> dict[str, tuple[Case, np.random.Generator]]:
        """Return the cases of any shape, and each one's draws."""
        wanted = {case for _, _, n, case in self.cells if n == rows}
        return {
            name: (case, self.rng(1 + i))
            for i, (name, case) in enumerate(CASES[self.task].items()) if name in wanted
        }  # fmt: skip

    def shapes(self) -> list[str]:
        """Return the shapes of any case."""
        wanted = {shape for _, shape, _, _ in self.cells}
        return [shape for shape in SHAPES if shape in wanted]

    def compare(self) -> pd.DataFrame:
        """Draw, estimate and compare the windows of all cells, see `_compared`."""
        compare = {"binary": _binary, "classes": _classes, "regression": _regression}[self.task]
        parts = [part for part in compare(self) if len(part)]
        frame = pd.concat(parts, ignore_index=True)
        return frame.assign(task=self.task, baseline=self.number)


def _binary(mine: Draw) -> Iterator[pd.DataFrame]:
    size, rows = mine.size, mine.rows
    score, actual, inputs = draw(mine.rng(0), size.baseline, rows, 0, 0, mine.day)
    drawn = {}
    for name, (case, rng) in mine.cases(rows).items():
        own, chance, seen = draw_chances(rng, case.windows(size), rows, *case)
        drawn[name] = own, came_true(rng, chance.repeat(case.again, axis=0)), seen, case.again
    for shape in mine.shapes():
        base = Baseline(shaped(score, shape), actual, inputs, 0.5)
        for name, (own, truth, seen, again) in drawn.items():
            if ("binary", shape, rows, name) in mine.cells:
                found = _by_method(base, shaped(own, shape), truth, seen, again)
                yield found.assign(shape=shape, rows=rows, case=name)


def _by_method(
    base: Baseline, score: Floats, actual: Floats, inputs: dict[str, Floats], again: int = 1
) -> pd.DataFrame:
    """Compare windows, each `again` times with other actuals one after the other."""
    counts = counted(score.repeat(again, axis=0), actual, base.threshold)
    found = _repeated(base.weighings(score, inputs), again)
    plain = base.residuals(counts, {})
    weighted = base.residuals(counts, found) if found else plain
    better = [i for i, one in found.items() if one.is_better(["score"])]
    return _compared(plain, weighted, dict.fromkeys(METRICS["binary"], better), again)


def _repeated(found: dict[int, Weighing], again: int) -> dict[int, Weighing]:
    return {i * again + k: one for i, one in found.items() for k in range(again)}


def _classes(mine: Draw) -> Iterator[pd.DataFrame]:
    size, rows = mine.size, mine.rows
    raw, actual, x = draw_classes(mine.rng(0), size.baseline, rows, 0, mine.day)
    drawn = {}
    for name, (case, rng) in mine.cases(rows).items():
        own, chances, seen = draw_class_chances(rng, case.windows(size), rows, case.seen, case.day)
        drawn[name] = own, classes_come(rng, chances.repeat(case.again, axis=1)), seen, case.again
    kept = in_half(raw[0].size).reshape(raw[0].shape)
    for shape in mine.shapes():
        score = shaped(raw, shape)
        halves = class_profiles(np.where(kept, score, np.nan), actual)
        learnt = calibrate_classes(class_profiles(score, actual), halves, CLASSES, 1)
        weighted_rows = WeightedRows(*_by_name(score, actual), _inputs(x))
        for name, (own, truth, seen, again) in drawn.items():
            if ("classes", shape, rows, name) not in mine.cells:
                continue
            own = shaped(own, shape)
            profiles = class_profiles(own.repeat(again, axis=1), truth)
            scores = {
                scored: values
                for scored, values in _by_name(own, truth[:, ::again])[0].items()
                if not scored.startswith(DECIDED_FOR)
            }
            found = _repeated(weighted_rows.weighings(scores, _inputs(seen)), again)
            taken = {i: one._replace(gains=dict.fromkeys(one.gains, 1.0))
                     for i, one in found.items()}  # fmt: skip
            plain = estimated_classes(profiles, learnt)
            weighted = estimated_classes(profiles, learnt, taken) if found else plain
            better = {
                metric: [i for i, one in found.items() if one.is_better(scored)]
                for scored, metrics in group_scores(learnt.curves)
                for metric in metrics
            }  # fmt: skip
            compared = _compared(plain, weighted, better, again)
            yield compared.assign(shape=shape, rows=rows, case=name)


def _by_name(
    score: Floats, actual: np.typing.NDArray[np.bool_]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    found = one_by_one(score, actual)
    return {n: one[0] for n, one in found.items()}, {n: one[1] for n, one in found.items()}


def _inputs(x: Floats) -> dict[str, Floats]:
    return {"x": x[0], "z": x[1]}


def _regression(mine: Draw) -> Iterator[pd.DataFrame]:
    """Compare windows of all sizes that one baseline can be of; there is one method."""
    size = mine.size
    taught = min(mine.rows, MOST_ROWS // size.baseline)
    sizes = sorted({rows for _, _, rows, _ in mine.cells})
    for shape in mine.shapes():
        known = draw_errors(mine.rng(0), size.baseline, taught, 0, mine.day, shape)
        parts = {
            (rows, name): (
                draw_noise(rng, case.windows(size), rows, case.seen, case.day, shape),
                rng,
                case.again,
            )
            for rows in sizes for name, (case, rng) in mine.cases(rows).items()
            if ("regression", shape, rows, name) in mine.cells
        }  # fmt: skip
        if not parts:
            continue
        for (rows, name), (part, *_) in parts.items():
            part.rows.keys["dataset"] = f"{rows} {name}"
        every = [part.rows for part, *_ in parts.values()]
        together = LossRows(
            np.concatenate([part.inputs for part in every]),
            np.concatenate([part.error for part in every]),
            np.concatenate([part.is_first for part in every]),
            pd.concat([part.keys for part in every], ignore_index=True),
        )
        losses, learnt = learn_losses(known, together)
        start = 0
        for (rows, name), (part, rng, again) in parts.items():
            stop = start + len(part.scale)
            drawn = _drawn_again(losses, slice(start, stop), part, rng, again)
            one = estimated_losses(drawn, learnt)
            start = stop
            none: dict[str, list[int]] = {key: [] for key in METRICS["regression"]}
            yield _compared(one, one, none, again).assign(shape=shape, rows=rows, case=name)


def _drawn_again(
    losses: Losses, mine: slice, part: Noise, rng: np.random.Generator, again: int
) -> Losses:
    """Return the predicted losses of some rows, so many times beside other realized ones."""
    errors = np.abs(np.concatenate([part.drawn(rng).error for _ in range(again)]))
    keys = losses.keys[mine]
    moved = [
        keys.assign(window_start=keys["window_start"] + pd.Timedelta(seconds=k))
        for k in range(again)
    ]  # after the same window's other draws, before the next one's
    return Losses(
        pd.concat(moved, ignore_index=True),
        np.stack([errors, errors**2]),
        np.tile(losses.predicted[:, :, mine], again),
    )


def flights() -> pd.DataFrame:
    """Compare the demo's days, estimated from the other days of their quarter and from winter.

    Days in order of time also with the width that is learnt from those before them.
    """
    found = pd.concat(
        [
            _by_method(base, *drawn).assign(
                task="flights", shape="real", rows=0, case=case.partition(" by ")[2], baseline=i
            )
            for i, (case, base, drawn) in enumerate(flight_parts())
        ],
        ignore_index=True,
    )  # fmt: skip
    in_time = found[found["case"] != "its other days"].groupby(["case", "metric"], sort=False)
    return pd.concat([found, *(with_learnt_width(part) for _, part in in_time)])


def with_learnt_width(found: pd.DataFrame) -> pd.DataFrame:
    """Return windows of one case and metric with bands as wide as those before them needed."""
    ordered = found.sort_values(["baseline", "window"])
    needed = (ordered["chosen"] / ordered["half"]).to_numpy()
    before = [needed[max(i - RECORD, 0) : i].tolist() for i in range(len(needed))]
    factor = np.array([factor_of(record) for record in before])
    return ordered.assign(
        case=ordered["case"] + ", learnt",
        half=ordered["half"] * factor,
        held=(needed <= factor).astype(float),
    )


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


def _compared(
    plain: pd.DataFrame, weighted: pd.DataFrame, better: dict[str, list[int]], again: int = 1
) -> pd.DataFrame:
    """Return a row per window and metric: errors, whether the band held, whether it was plain.

    Args:
        plain: Residuals by the plain curves.
        weighted: The same with weights wherever there are any.
        better: Metric -> places of the windows for which the product takes the weights.
        again: How many places, one after the other, are one window with other actuals.
    """
    keys = ["metric", "window_start"]
    columns = [*keys, "value", "lower", "upper"]
    frame = plain[columns].merge(weighted[columns], on=keys, suffixes=("", "_weighted"))
    frame = frame[frame["metric"].str.endswith("_residual")]
    frame = frame.assign(metric=frame["metric"].str.removesuffix("_residual"))
    place = frame["window_start"].rank(method="dense").astype(int) - 1
    is_weighted = np.array(
        [i in better[metric] for metric, i in zip(frame["metric"], place, strict=True)], bool
    )

    def chosen(name: str) -> Floats:
        return np.where(is_weighted, frame[f"{name}_weighted"], frame[name])

    found = pd.DataFrame(
        {
            "metric": frame["metric"],
            "window": place // again,
            "chosen": np.abs(chosen("value")),
            "weighted": frame["value_weighted"].abs(),
            "plain": frame["value"].abs(),
            "held": ((chosen("lower") <= 0) & (chosen("upper") >= 0)).astype(float),
            "half": (chosen("upper") - chosen("lower")) / 2,
            "is_plain": (~is_weighted).astype(float),
        }
    )
    return found[np.isfinite(found[["chosen", "weighted", "plain"]]).all(axis=1)]


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


class Judged(NamedTuple):
    """One goal in one cell: its worst metric, as shown, and the verdict."""

    cell: Cell
    kind: str
    metric: str
    shown: str
    goals: tuple[Goal, ...]

    @property
    def verdict(self) -> str:
        """Return the worst of the goals' verdicts."""
        return max((goal.verdict for goal in self.goals), key=VERDICTS.index)


def judge(cell: Cell, found: pd.DataFrame) -> Iterator[Judged]:
    """Judge the goals of a cell, each by its worst metric.

    Args:
        cell: Which.
        found: Its windows, see `_compared`.
    """
    task, _, _, case = cell
    parts = {metric: part for metric, part in found.groupby("metric", sort=False)}
    if task != "regression":
        ratios = {metric: ratio(part) for metric, part in parts.items()}
        metric, worst = max(ratios.items(), key=lambda one: one[1].value)
        low, high = worst.value - worst.half, worst.value + worst.half
        shown = f"{worst.value:.3f} +- {worst.error:.3f}"
        yield Judged(cell, "errors", str(metric), shown, (Goal(high, ERRORS, best=low),))
    again = SCORED[case].again if case in SCORED else 1
    bands = {m: coverage(part["held"], part["baseline"], again) for m, part in parts.items()}
    metric, (share, low, high) = min(bands.items(), key=lambda one: one[1])
    goals = (
        Goal(share, HELD, is_least=True, best=high),
        Goal(low, HELD_LEAST, is_least=True, best=high),
    )
    yield Judged(cell, "bands", str(metric), f"{share:.3f} ({low:.3f} to {high:.3f})", goals)
    if case == NO_SHIFT and task != "regression":
        shares = {m: _share_plain(part) for m, part in parts.items()}
        metric, (share, low, high) = min(shares.items(), key=lambda one: one[1])
        goal = Goal(low, CHOSEN, is_least=True, best=high)
        yield Judged(cell, "plain", str(metric), f"{share:.3f} ({low:.3f} to {high:.3f})", (goal,))


def _share_plain(found: pd.DataFrame) -> tuple[float, float, float]:
    once = found.drop_duplicates(["baseline", "window"])
    return coverage(once["is_plain"], once["baseline"])


def judged(found: pd.DataFrame) -> list[Judged]:
    """Judge every cell."""
    cells = found.groupby(["task", "shape", "rows", "case"], sort=False)
    return [one for key, part in cells for one in judge(key, part)]


def measured(
    asked: argparse.Namespace, pool: ProcessPoolExecutor
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield task and windows: of every cell at first, then of those in which a goal is open."""
    cells = frozenset(
        (task, shape, rows, case)
        for task in asked.tasks if task in CASES
        for shape in (REGRESSION_SHAPES if task == "regression" else SHAPES)
        if shape in asked.shapes
        for rows in asked.rows for case in CASES[task]
    )  # fmt: skip
    found = pd.read_parquet(asked.keep) if asked.keep and asked.keep.exists() else pd.DataFrame()
    first = int(found["baseline"].max()) + 1 if len(found) else 0
    yield f"{first} baselines", found
    for start in range(first, asked.most, AT_ONCE):
        doubled, rest = divmod(start, asked.baselines)
        if start == first > 0 or (doubled and not rest and not doubled & (doubled - 1)):
            cells = frozenset(one.cell for one in judged(found) if one.verdict == "not shown")
        if not cells:
            return
        frames = pool.map(Draw.compare, _draws(asked, cells, range(start, start + AT_ONCE)))
        found = pd.concat([found, *frames], ignore_index=True)
        if asked.keep:
            found.to_parquet(asked.keep)
        yield f"{start + AT_ONCE} baselines", found


def _draws(
    asked: argparse.Namespace, cells: frozenset[Cell], numbers: Iterable[int]
) -> Iterator[Draw]:
    for number in numbers:
        mine: dict[tuple[str, int, float], set[Cell]] = {}
        for cell in cells:
            task, _, rows, case = cell
            drawn = min(rows, LARGE) if task == "regression" else rows
            mine.setdefault((task, drawn, CASES[task][case].day), set()).add(cell)
        for (task, rows, day), some in sorted(mine.items(), key=lambda one: one[0]):
            size = Size(asked.baselines, asked.windows, asked.baseline, rows)
            yield Draw(task, rows, number, day, size, frozenset(some))


def lines(found: Sequence[Judged], windows: pd.DataFrame) -> Iterator[Row]:
    """Return the lines of the cells: what was measured and the verdict."""
    n = windows.groupby(["task", "shape", "rows", "case"])["baseline"].nunique()
    for one in found:
        task, shape, rows, case = one.cell
        numbers = one.shown, one.metric, str(n[one.cell])
        yield Row(f"{task} {rows or ''}, {shape}, {case}: {one.kind}", numbers, _worst(one.goals))


def _worst(goals: Sequence[Goal]) -> Goal:
    return max(goals, key=lambda goal: VERDICTS.index(goal.verdict))


def totals(found: Sequence[Judged]) -> str:
    """Count the cells of every task and size by verdict, of each goal and of all together."""
    kinds = ("errors", "bands", "plain", "all")
    lines = ["cells met / not shown / NOT MET", f"{'':20}" + "".join(f"{k:>16}" for k in kinds)]
    verdicts: dict[str, dict[str, dict[Cell, str]]] = {}
    for one in found:
        for name in (f"{one.cell[0]} {one.cell[2] or ''}", "total"):
            mine = verdicts.setdefault(name, {})
            mine.setdefault(one.kind, {})[one.cell] = one.verdict
            every = mine.setdefault("all", {})
            every[one.cell] = max(every.get(one.cell, "met"), one.verdict, key=VERDICTS.index)
    total = verdicts.pop("total")
    for name, mine in [*verdicts.items(), ("total", total)]:
        shown = [" / ".join(str(list(mine.get(kind, {}).values()).count(v)) for v in VERDICTS)
                 for kind in kinds]  # fmt: skip
        lines.append(f"{name:20}" + "".join(f"{one:>16}" for one in shown))
    return "\n".join(lines)


def main() -> int:
    """Print the tables; 1 if a goal is missed in a cell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--baselines", type=int, default=10)
    parser.add_argument("--most", type=int, default=80, help="baselines of cells that are open")
    parser.add_argument("--windows", type=int, default=6, help="of each baseline and shift")
    parser.add_argument("--baseline", type=int, default=30, help="its windows")
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--tasks", nargs="+", default=list(METRICS), choices=list(METRICS))
    parser.add_argument("--keep", type=Path, help="windows so far: read, gone on with, written")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    asked = parser.parse_args()
    parts = [flights()] if "flights" in asked.tasks else []
    with ProcessPoolExecutor(asked.processes, get_context("forkserver")) as pool:
        simulated = pd.DataFrame()
        for name, simulated in measured(asked, pool):
            if len(simulated):
                print("", name, totals(judged(simulated)), sep="\n", flush=True)
    found = pd.concat([simulated, *parts], ignore_index=True)
    verdicts = judged(found)
    columns = ("measured", "worst metric", "baselines")
    print(render("Estimates", columns, list(lines(verdicts, found)), seed=SEED, width=24))
    print(totals(verdicts))
    return int(any(one.verdict == "NOT MET" for one in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
