"""Do intervals hold where labels are a chosen subset? `python -m benchmarks calibrate rectified`.

Windows of a binary model, drawn as counts of the profiles' bins: scores that mean what they say, or
are too extreme, or not extreme enough; labels for rows with high scores more often, with low ones,
near the threshold, for those above a cut alone, or at random; days that differ, of which the window
is to hold those that it has. Each case counts the windows whose interval holds the value of the law
that drew them, and the mean error. The goal is .93 to .98 and an error below .01; what misses is
drawn once more. Only cases that expect ten labelled positives have a goal: below, a plain share
with Wilson's interval is no better. Rates that hang on the rarer class have one for the error where
its labels tell as much as 20 rows of which each stands for as many (Kish's effective size). Where a
part of the scores has no label, intervals must hold and may be as wide as they are; in the case
`cut` there is no goal for the error, since nothing can be known. Means of losses and outcomes: see
`calibrate_rectified_means`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from benchmarks.calibrate_rectified_means import (
    DRAWN,
    MEAN_CASES,
    FoundMean,
    MeanCase,
    measure_mean,
)
from mlmon_dagster.metrics.performance.binary import (
    average_precision,
    ks_separation,
    lift,
    performance_metrics,
)
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, by_score, effective_counts
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
METRICS = (
    "actual_rate", "accuracy", "precision", "recall", "specificity", "f1", "balanced_accuracy",
    "mcc", "brier", "log_loss", "calibration_gap", "roc_auc", "pr_auc", "ks_separation", "lift",
)  # fmt: skip
UNBIASED = ("actual_rate", "accuracy", "specificity", "brier", "calibration_gap")
RATES = ("precision", "recall", "f1", "balanced_accuracy")  # that hang on the rarer class
# Whose intervals may be too wide.
WIDE = ("roc_auc", "f1", "balanced_accuracy", "pr_auc", "ks_separation", "lift")
NO_GOAL = ("ks_separation",)  # of few labels it is too high, by its nature
BINS, SPAN, SIGMA, POINTS, TOP = 280, 14.0, 1.5, 401, 0.1
DAYS, DAY_SHIFT = 7, 0.3  # that a window's rows share
LEAST, MOST, ERROR = 0.93, 0.98, 0.01
FEW = 10  # labelled positives
FEWEST = 20  # of the rarer class, by what they tell
BATCH = 100
AGAIN = 4  # times as many windows, where a cell misses
HARD, MANY = ("rmse, t of 5",), 300  # means that have no goal; labels from which on they have one
SCORES = {"calibrated": (1.0, 0.0), "extreme": (1.7, 0.8), "timid": (0.4, 0.5)}


class Case(NamedTuple):
    """One cell of the table."""

    rows: int
    share: float
    base: float
    scores: str
    rule: str
    is_clustered: bool = False

    @property
    def is_quick(self) -> bool:
        """Whether the test suite draws it too."""
        usual = self.share == 0.3 and self.base == 0.1
        fewest = self.share == 0.05 and self.base == 0.3 and self.rule == "near"
        return self.rows == 1_000 and (usual or fewest)

    @property
    def has_goal(self) -> bool:
        """Whether enough labelled positives are expected, if labels came at random."""
        return self.rows * self.share * self.base >= FEW

    def __str__(self) -> str:
        """Name the case."""
        return (
            f"{self.rows:,} rows, {self.share:.0%} labelled, base rate {self.base:g}, "
            f"{self.scores}, {self.rule}"
        )


RULES = ("random", "high", "low", "near", "cut")
CASES = [
    Case(rows, share, base, scores, rule)
    for rows in (200, 1_000, 5_000, 20_000)
    for share in (0.05, 0.1, 0.3)
    for base in (0.02, 0.1, 0.3)
    for scores in SCORES
    for rule in RULES
    if rows * share >= 30  # below, no window is judged
]
CASES += [
    Case(rows, share, 0.3, "calibrated", rule, is_clustered=True)
    for rows, share in ((5_000, 0.1), (20_000, 0.05))
    for rule in RULES[:-1]
]


class Found(NamedTuple):
    """Of one metric in one case: share of intervals that hold, mean error, mean width."""

    holds: float
    bias: float
    width: float


class Cell(dict[str, Found]):
    """What was found of each metric.

    Attributes:
        unlabelled: Some rows of a window have scores that no label speaks for.
        rarer: Labelled rows of the rarer class, by what they tell, on average.
    """

    unlabelled: bool = False
    rarer: float = 0.0


class _Law(NamedTuple):
    """Standard normal parts of true logits, (K,), their weights, and the intercept of the logits.

    What is drawn are counts of this grid, so that 20,000 rows cost no more than 200.
    """

    z: Floats
    weight: Floats
    shift: float


@cache
def _law(base: float) -> _Law:
    z = np.linspace(-5, 5, POINTS)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    shift = optimize.brentq(lambda a: (weight * special.expit(a + SIGMA * z)).sum() - base, -20, 20)
    return _Law(z, weight, float(shift))


def _threshold(base: float) -> float:
    """Return the normal part above which rows are decided positive: 1.2 times as many as are."""
    return float(special.ndtri(1 - min(1.2 * base, 0.5)))


def _chance(case: Case) -> Floats:
    """Return the chance of a label by the normal part of the score, (K,)."""
    law = _law(case.base)
    z = law.z
    wished = {
        "random": np.ones_like(z),
        "high": special.expit(1.5 * (z - 0.5)) + 0.03,
        "low": special.expit(-1.5 * (z + 0.5)) + 0.03,
        "near": np.exp(-(((z - _threshold(case.base)) / 0.8) ** 2) / 2) + 0.03,
        "cut": (z > 0.5).astype(float),
    }[case.rule]
    wanted = min(case.share, 0.999 * float((law.weight * (wished > 0)).sum()))
    times = optimize.brentq(
        lambda c: (law.weight * np.minimum(1, c * wished)).sum() - wanted, 1e-9, 1e6
    )
    return np.asarray(np.minimum(1, times * wished))


def _scores(case: Case) -> tuple[Floats, Ints]:
    """Return score and bin of every point of the law, (K,) each."""
    law = _law(case.base)
    times, plus = SCORES[case.scores]
    logit = times * (law.shift + SIGMA * law.z) + plus
    place = np.clip((logit + SPAN) / (2 * SPAN) * BINS, 0, BINS - 1).astype(np.int64)
    return special.expit(logit), place


def truths(case: Case, p: Floats) -> Mapping[str, Floats]:
    """Return what the law says of every metric, (W,), of chances by window and point, (W, K)."""
    law = _law(case.base)
    score, place = _scores(case)
    w, decided = law.weight, law.z > _threshold(case.base)
    tp, fp = (w * p * decided).sum(axis=1), (w * (1 - p) * decided).sum(axis=1)
    fn, tn = (w * p * ~decided).sum(axis=1), (w * (1 - p) * ~decided).sum(axis=1)
    recall, specificity, base = tp / (tp + fn), tn / (tn + fp), tp + fn
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    negatives, positives = (np.add.reduceat(side, starts, axis=1) for side in (w * (1 - p), w * p))
    below = np.cumsum(negatives, axis=1) - negatives / 2
    counts = np.rint(1e9 * negatives).astype(np.int64), np.rint(1e9 * positives).astype(np.int64)
    return {
        "actual_rate": base,
        "accuracy": tp + tn,
        "precision": tp / (tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "brier": (w * (p * (1 - score) ** 2 + (1 - p) * score**2)).sum(axis=1),
        "log_loss": -(w * (p * np.log(score) + (1 - p) * np.log1p(-score))).sum(axis=1),
        "calibration_gap": (w * score).sum() - base,
        "roc_auc": (positives * below).sum(axis=1) / (base * (1 - base)),
        "pr_auc": np.asarray(average_precision(*counts)[0]),
        "ks_separation": np.asarray(ks_separation(*counts)[0]),
        "lift": np.asarray(lift(*counts, TOP)[0]),
    }


def _chances(case: Case, windows: int, rng: np.random.Generator) -> Floats:
    """Return the chance that a row comes true by window, its day and point, (W, D, K).

    Days differ by a shift of all their logits, which the score does not know.
    """
    law = _law(case.base)
    days = rng.normal(0, DAY_SHIFT, (windows, DAYS if case.is_clustered else 1, 1))
    return special.expit(law.shift + SIGMA * law.z + days * case.is_clustered)


def _draw(case: Case, p: Floats, rng: np.random.Generator) -> dict[str, ColumnStatistics]:
    """Draw windows and count them: scores, decisions, scores of what was decided positive, gaps."""
    law = _law(case.base)
    score, place = _scores(case)
    windows, days, points = p.shape
    known = law.weight * _chance(case)
    chances = np.stack(
        [np.broadcast_to(law.weight - known, p.shape), known * (1 - p), known * p], axis=-1
    )
    chances = chances.reshape(windows, days, 3 * points)
    each = np.full(days, case.rows // days)
    each[0] += case.rows - each.sum()
    drawn = rng.multinomial(each[None, :], chances).sum(axis=1).reshape(windows, points, 3)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=windows, freq="h", tz="UTC"),
            "dataset": "production", "model_version": ALL, "slice_key": ALL, "slice_value": ALL,
        }
    )  # fmt: skip
    zero = np.zeros(windows, np.int64)
    decided = law.z > _threshold(case.base)

    def counted(binning: Binning, places: Ints, kept: NDArray[np.bool_]) -> ColumnStatistics:
        counts = np.zeros((windows, binning.size // 3, 3), np.int64)
        np.add.at(counts, (slice(None), places[kept]), drawn[:, kept])
        return ColumnStatistics(
            binning, cells, counts.reshape(windows, -1), zero + case.rows, zero, zero, zero, zero,
            zero + 0.0, zero + 0.0, zero + 0.0, zero + 0.0,
        )  # fmt: skip

    def loss(name: str, of_negative: Floats, of_positive: Floats) -> ColumnStatistics:
        sums = [drawn[:, :, 1] @ of_negative**k + drawn[:, :, 2] @ of_positive**k for k in (1, 2)]
        return ColumnStatistics(
            Binning(name, "loss", 1, name), cells, drawn[:, :, 1:].sum(axis=(1, 2))[:, None],
            zero + case.rows, zero, zero, zero, zero, zero + 0.0, zero + 0.0, *sums,
        )  # fmt: skip

    scores = Binning("score", "score", 3 * BINS, "score", low=-SPAN, high=SPAN)
    table = Binning("prediction", "confusion", 6, "prediction")
    whole = np.ones(points, bool)
    return {
        "score": counted(scores, place, whole),
        DECIDED: counted(scores, place, decided),
        "prediction": counted(table, decided.astype(np.int64), whole),
        ":calibration_gap": loss(":calibration_gap", score, score - 1),
        ":brier": loss(":brier", score**2, (1 - score) ** 2),
        ":log_loss": loss(":log_loss", -np.log1p(-score), -np.log(score)),
    }


def measure(case: Case, runs: int, seed: int = 14) -> Cell:
    """Draw the windows of a case and count the intervals that hold the law's values."""
    rng = np.random.default_rng([seed, case.rows, int(100 * case.share), int(100 * case.base),
                                 *case.scores.encode(), *case.rule.encode()])  # fmt: skip
    frames, bare, rarer = [], [], []
    for start in range(0, runs, BATCH):
        p = _chances(case, min(BATCH, runs - start), rng)
        drawn = _draw(case, p, rng)
        frame = performance_metrics(drawn["score"], drawn["prediction"], drawn, top_share=TOP)
        truth = truths(case, p.mean(axis=1))
        for metric in METRICS:
            mine = frame[(frame["metric"] == metric) & frame["value"].notna()]
            of_law = truth[metric][
                drawn["score"].cells.index[
                    drawn["score"].cells["window_start"].isin(mine["window_start"])
                ]
            ]
            frames.append(mine.assign(truth=of_law))
        part = by_score(drawn["score"])
        assert part is not None
        bare.append(part.strata.unlabelled_share())
        rarer.append(np.minimum(*(x.sum(axis=1) for x in effective_counts(part.strata).each)))
    frame = pd.concat(frames)
    found = Cell()
    found.unlabelled = float(np.concatenate(bare).mean()) > 0.01
    found.rarer = float(np.concatenate(rarer).mean())
    for metric in METRICS:
        rows = frame[frame["metric"] == metric]
        judged = rows[rows["lower"].notna()]  # too few of the rarer class have no interval
        holds = (judged["lower"] <= judged["truth"]) & (judged["truth"] <= judged["upper"])
        found[metric] = Found(
            float(holds.mean()) if len(judged) >= runs / 2 else float("nan"),
            float((rows["value"] - rows["truth"]).mean()),
            float((judged["upper"] - judged["lower"]).mean()),
        )
    return found


def misses(case: Case, found: Cell, metric: str, runs: int) -> str:
    """Say in which way a metric misses its goal by more than chance; empty if it does not."""
    if metric in NO_GOAL or not case.has_goal or not np.isfinite(found[metric].holds):
        return ""
    if metric == "calibration_gap" and found.unlabelled and case.scores != "calibrated":
        return ""  # it is that of the scores that have labels, which the law has no value of
    holds, doubt = found[metric].holds, standard_error(runs)
    if holds < LEAST - 2 * doubt:
        return "too short"
    if holds > MOST + 2 * doubt and not found.unlabelled and metric not in WIDE:
        return "too long"
    unbiased = (*UNBIASED, *RATES) if found.rarer >= FEWEST else UNBIASED
    if metric in unbiased and case.rule != "cut" and abs(found[metric].bias) > ERROR:
        return "biased"
    return ""


def standard_error(runs: int) -> float:
    """Return the standard error of a share near `LEAST`."""
    return float(np.sqrt(LEAST * (1 - LEAST) / runs))


def judge(case: Case, runs: int) -> tuple[Cell, dict[str, str]]:
    """Measure a case, and once more with other windows, `AGAIN` times as many, where it misses.

    Among thousands of cells some are outside by chance: what counts is the second time.
    """
    found = measure(case, runs)
    missed = [m for m in METRICS if misses(case, found, m, runs)]
    if missed:
        again = measure(case, AGAIN * runs, seed=15)
        found.update({metric: again[metric] for metric in missed})
    why = {metric: misses(case, found, metric, AGAIN * runs) for metric in missed}
    return found, {metric: text for metric, text in why.items() if text}


def main() -> int:
    """Print how often intervals hold and how far values are off; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--rows", type=int, help="only windows of so many rows")
    asked = parser.parse_args()
    cases = [case for case in CASES if asked.rows in (None, case.rows)]
    missed = _print_classifiers(cases, asked.runs)
    means = [case for case in MEAN_CASES if asked.rows in (None, case.rows)]
    missed += _print_means(means, asked.runs)
    doubt = 2 * standard_error(AGAIN * asked.runs)
    print(f"\n{missed} goals missed by more than two standard errors ({doubt:.3f}).")
    return int(missed > 0)


def _print_classifiers(cases: list[Case], runs: int) -> int:
    """Print the share of intervals that hold over all scores and rules, and the worst errors."""
    print("| rows, labelled, base rate | " + " | ".join(METRICS) + " |")
    print("|---" * (len(METRICS) + 1) + "|")
    groups: dict[str, list[Case]] = {}
    for case in cases:
        days = ", days differ" if case.is_clustered else ""
        cut = ", above a cut" if case.rule == "cut" else ""
        name = f"{case.rows:,}, {case.share:.0%}, {case.base:g}{days}{cut}"
        groups.setdefault(name, []).append(case)
    all_missed = []
    for name, mine in groups.items():
        enough, fewer = list[Cell](), list[Cell]()
        for case in mine:
            found, missed = judge(case, runs)
            (enough if found.rarer >= FEWEST else fewer).append(found)
            all_missed += [f"{case}: {m}, {text} ({found[m].holds:.3f}, {found[m].bias:+.3f})"
                           for m, text in missed.items()]  # fmt: skip
        _print_cells(name, enough)
        _print_cells(f"{name}, rarer class below {FEWEST}", fewer)
    print("\n" + "\n".join(all_missed or ["No cell misses."]), flush=True)
    return len(all_missed)


def _print_cells(name: str, cells: list[Cell]) -> None:
    shown = []
    for metric in METRICS:
        holds = [cell[metric].holds for cell in cells if np.isfinite(cell[metric].holds)]
        off = max((cell[metric].bias for cell in cells), key=abs, default=np.nan)
        ends = f"{np.mean(holds):.3f} ({min(holds):.2f} to {max(holds):.2f})" if holds else ""
        shown.append(f"{ends}, {off:+.3f}" if holds else "")
    if cells:
        print(f"| {name} ({len(cells)}) | " + " | ".join(shown) + " |", flush=True)


def _print_means(cases: list[MeanCase], runs: int) -> int:
    """Print what `measure_mean` says of every case; return how many cells miss."""
    print("\n| case | " + " | ".join(DRAWN) + " |")
    print("|---" * (len(DRAWN) + 1) + "|")
    all_missed = []
    for case in cases:
        shown = []
        for name in DRAWN:
            found = measure_mean(name, case, runs)
            if mean_misses(name, case, found, runs):
                found = measure_mean(name, case, AGAIN * runs, seed=16)
                if why := mean_misses(name, case, found, AGAIN * runs):
                    all_missed.append(f"{case}: {name}, {why} ({found.holds:.3f})")
            shown.append(f"{found.holds:.2f}, {found.bias:+.3f} ({found.plain_holds:.2f})")
        print(f"| {case} | " + " | ".join(shown) + " |", flush=True)
    print("\n" + "\n".join(all_missed or ["No cell misses."]), flush=True)
    return len(all_missed)


def mean_misses(name: str, case: MeanCase, found: FoundMean, runs: int) -> str:
    """Say in which way a mean misses its goal by more than chance; empty if it does not."""
    if name in HARD or case.rows * case.share < MANY:
        return ""
    doubt = 2 * standard_error(runs)
    if found.holds < LEAST - doubt:
        return "too short"
    if found.holds > MOST + doubt and not name.startswith("rmse"):
        return "too long"
    return "biased" if abs(found.bias) > 2 * ERROR and name != "me" else ""


if __name__ == "__main__":
    raise SystemExit(main())
