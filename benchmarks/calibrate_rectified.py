"""Do intervals hold where labels are a chosen subset? `python -m benchmarks calibrate rectified`.

Windows of a binary model, drawn whole and counted into the profiles' bins: scores that mean what
they say, or are too extreme, or not extreme enough; labels for rows with high scores more often,
with low ones, near the threshold, for those above a cut alone, or at random. Each case counts the
windows whose interval holds the value of the law that drew them, and the mean error. A case that
expects fewer than ten labelled positives has no goal: there a plain share with Wilson's interval is
no better (the rule `all`). Where a part of the scores has no label, intervals must hold and may be
as wide as they are; in the case `cut` there is no goal for the error, since nothing can be known.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, by_score
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
METRICS = (
    "actual_rate", "accuracy", "precision", "recall", "specificity", "f1", "balanced_accuracy",
    "brier", "log_loss", "calibration_gap", "roc_auc",
)  # fmt: skip
UNBIASED = ("actual_rate", "accuracy", "specificity", "brier", "calibration_gap")
WIDE = ("roc_auc", "f1", "balanced_accuracy")  # whose intervals may be rather too wide
BINS, SPAN, SIGMA = 140, 14.0, 1.5
LEAST, MOST, ERROR = 0.93, 0.98, 0.01
FEW = 10  # labelled positives
BATCH = 100
SCORES = {"calibrated": (1.0, 0.0), "extreme": (1.7, 0.8), "timid": (0.4, 0.5)}


class Case(NamedTuple):
    """One cell of the table."""

    rows: int
    share: float
    base: float
    scores: str
    rule: str

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


class Found(NamedTuple):
    """Of one metric in one case: share of intervals that hold, mean error, mean width."""

    holds: float
    bias: float
    width: float


class Cell(dict[str, Found]):
    """What was found of each metric; `unlabelled`: most rows of a window without any label."""

    unlabelled: bool = False


@cache
def _law(base: float) -> tuple[float, Floats, Floats]:
    """Return the intercept of true logits, their standard normal parts, and weights of those."""
    z = np.linspace(-8, 8, 4_001)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    shift = optimize.brentq(lambda a: (weight * special.expit(a + SIGMA * z)).sum() - base, -20, 20)
    return shift, z, weight


def _threshold(base: float) -> float:
    """Return the normal part above which rows are decided positive: 1.2 times as many as are."""
    return float(special.ndtri(1 - min(1.2 * base, 0.5)))


def _chance(case: Case, z: Floats) -> Floats:
    """Return the chance of a label by the normal part of the score."""
    by_rule = {
        "random": lambda z: np.ones_like(z),
        "high": lambda z: special.expit(1.5 * (z - 0.5)) + 0.03,
        "low": lambda z: special.expit(-1.5 * (z + 0.5)) + 0.03,
        "near": lambda z: np.exp(-(((z - _threshold(case.base)) / 0.8) ** 2) / 2) + 0.03,
        "cut": lambda z: (z > 0.5).astype(float),
    }[case.rule]
    _, grid, weight = _law(case.base)
    most = float((weight * (by_rule(grid) > 0)).sum())
    wanted = min(case.share, 0.999 * most)
    times = optimize.brentq(
        lambda c: (weight * np.minimum(1, c * by_rule(grid))).sum() - wanted, 1e-9, 1e6
    )
    return np.minimum(1, times * by_rule(z))


def truths(case: Case) -> Mapping[str, float]:
    """Return what the law says of every metric."""
    shift, z, w = _law(case.base)
    times, plus = SCORES[case.scores]
    p = special.expit(shift + SIGMA * z)
    score = special.expit(times * (shift + SIGMA * z) + plus)
    decided = z > _threshold(case.base)
    tp, fp = (w * p * decided).sum(), (w * (1 - p) * decided).sum()
    fn, tn = (w * p * ~decided).sum(), (w * (1 - p) * ~decided).sum()
    below = np.cumsum(w * (1 - p)) - w * (1 - p) / 2
    recall, specificity = tp / (tp + fn), tn / (tn + fp)
    return {
        "actual_rate": case.base,
        "accuracy": tp + tn,
        "precision": tp / (tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "balanced_accuracy": (recall + specificity) / 2,
        "brier": (w * (p * (1 - score) ** 2 + (1 - p) * score**2)).sum(),
        "log_loss": -(w * (p * np.log(score) + (1 - p) * np.log1p(-score))).sum(),
        "calibration_gap": (w * score).sum() - case.base,
        "roc_auc": (w * p * below).sum() / ((w * p).sum() * (w * (1 - p)).sum()),
    }


def _draw(case: Case, windows: int, rng: np.random.Generator) -> dict[str, ColumnStatistics]:
    """Draw windows and count them: scores, decisions, scores of what was decided positive, gaps."""
    shift, _, _ = _law(case.base)
    times, plus = SCORES[case.scores]
    z = rng.normal(size=(windows, case.rows))
    logit = shift + SIGMA * z
    is_positive = rng.random(z.shape) < special.expit(logit)
    is_labelled = rng.random(z.shape) < _chance(case, z)
    decided = (z > _threshold(case.base)).astype(np.int64)
    score = times * logit + plus
    place = np.clip((score + SPAN) / (2 * SPAN) * BINS, 0, BINS - 1).astype(np.int64)
    state = np.where(is_labelled, 1 + is_positive, 0)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=windows, freq="h", tz="UTC"),
            "dataset": "production", "model_version": ALL, "slice_key": ALL, "slice_value": ALL,
        }
    )  # fmt: skip
    zero = np.zeros(windows, np.int64)

    def counted(
        binning: Binning, codes: NDArray[np.int64], kept: object = True
    ) -> ColumnStatistics:
        flat = codes + binning.size * np.arange(windows)[:, None]
        mine = np.broadcast_to(np.asarray(kept), flat.shape)
        counts = np.bincount(flat[mine], minlength=windows * binning.size)
        counts = counts.reshape(windows, binning.size)
        return ColumnStatistics(
            binning, cells, counts, zero + case.rows, zero, zero, zero, zero, zero + 0.0,
            zero + 0.0, zero + 0.0, zero + 0.0,
        )  # fmt: skip

    def loss(name: str, values: Floats) -> ColumnStatistics:
        known = np.where(is_labelled, values, 0.0)
        return ColumnStatistics(
            Binning(name, "loss", 1, name), cells, is_labelled.sum(axis=1)[:, None],
            zero + case.rows, zero, zero, zero, zero, zero + 0.0, zero + 0.0, known.sum(axis=1),
            (known**2).sum(axis=1),
        )  # fmt: skip

    right = special.expit(np.where(is_positive, score, -score))
    scores = Binning("score", "score", 3 * BINS, "score", low=-SPAN, high=SPAN)
    return {
        "score": counted(scores, 3 * place + state),
        DECIDED: counted(scores, 3 * place + state, decided == 1),
        "prediction": counted(
            Binning("prediction", "confusion", 6, "prediction"), 3 * decided + state
        ),
        ":calibration_gap": loss(":calibration_gap", special.expit(score) - is_positive),
        ":brier": loss(":brier", (1 - right) ** 2),
        ":log_loss": loss(":log_loss", -np.log(right)),
    }


def measure(case: Case, runs: int) -> Cell:
    """Draw the windows of a case and count the intervals that hold the law's values."""
    rng = np.random.default_rng([14, case.rows, int(100 * case.share), int(100 * case.base),
                                 *case.scores.encode(), *case.rule.encode()])  # fmt: skip
    frames, bare = [], []
    for start in range(0, runs, BATCH):
        drawn = _draw(case, min(BATCH, runs - start), rng)
        frames.append(performance_metrics(drawn["score"], drawn["prediction"], drawn))
        part = by_score(drawn["score"])
        bare.append(part.strata.unlabelled_share() if part is not None else np.zeros(1))
    frame = pd.concat(frames)
    found = Cell()
    found.unlabelled = float(np.concatenate(bare).mean()) > 0.01
    for metric, truth in truths(case).items():
        rows = frame[(frame["metric"] == metric) & frame["value"].notna()]
        holds = (rows["lower"] <= truth) & (truth <= rows["upper"])
        found[metric] = Found(
            float(holds.mean()),
            float((rows["value"] - truth).mean()),
            float((rows["upper"] - rows["lower"]).mean()),
        )
    return found


def misses(case: Case, found: Cell, metric: str, runs: int) -> str:
    """Say in which way a metric misses its goal by more than chance; empty if it does not."""
    if not case.has_goal or not np.isfinite(found[metric].holds):
        return ""
    if metric == "calibration_gap" and found.unlabelled and case.scores != "calibrated":
        return ""  # it is that of the scores that have labels, which the law has no value of
    doubt = 2.5 * np.sqrt(LEAST * (1 - LEAST) / runs)
    holds = found[metric].holds
    if holds < LEAST - doubt:
        return "too short"
    if holds > MOST + doubt and not found.unlabelled and metric not in WIDE:
        return "too long"
    if metric in UNBIASED and case.rule != "cut" and abs(found[metric].bias) > ERROR:
        return "biased"
    return ""


def rows(cases: list[Case], runs: int) -> Iterator[tuple[str, list[str], int]]:
    """Yield name, what is printed of each metric, and the misses of every case."""
    for case in cases:
        found = measure(case, runs)
        missed = [misses(case, found, metric, runs) for metric in METRICS]
        marks = " (few)" if not case.has_goal else " (part unlabelled)" if found.unlabelled else ""
        cells = [
            f"{found[m].holds:.3f}, {found[m].bias:+.3f}" + (f" {why}" if why else "")
            for m, why in zip(METRICS, missed, strict=True)
        ]
        yield f"{case}{marks}", cells, sum(map(bool, missed))


def main() -> int:
    """Print the share of intervals that hold and the mean error; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, help="only windows of so many rows")
    asked = parser.parse_args()
    cases = [case for case in CASES if asked.rows in (None, case.rows)]
    print("| case | " + " | ".join(METRICS) + " |")
    print("|---" * (len(METRICS) + 1) + "|")
    missed = 0
    for name, cells, wrong in rows(cases, asked.runs):
        missed += wrong
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{len(cases)} cases, {missed} goals missed.")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
