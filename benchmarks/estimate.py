"""Estimated against realized performance: `python -m benchmarks estimate`.

Simulated shifts of what is known to the model, with the law of the actuals unchanged; then the
flights, where it does change.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.table import Goal, Row, render
from mlmon_dagster.metrics.calibration_curve import MIN_BLOCKS, Curves
from mlmon_dagster.metrics.estimated import baseline_estimates, residuals
from mlmon_dagster.metrics.estimated_calibration import Calibration, Scored, calibrate
from mlmon_dagster.metrics.expected import expected_table, values_of
from mlmon_dagster.metrics.reweighting import Margin, rake, weighted_curves

Floats = NDArray[np.float64]
SCORE_BINS = 1024
SPAN = 14.0


def middles() -> Floats:
    """Return the middle of every score bin."""
    step = 2 * SPAN / SCORE_BINS
    return np.asarray(1 / (1 + np.exp(-(-SPAN + step * (np.arange(SCORE_BINS) + 0.5)))))


def bin_of(score: Floats) -> NDArray[np.int64]:
    """Return the score bin of every score."""
    score = np.where(np.isfinite(score), score, 0.5)  # of no row; not counted
    logit = np.log(score / (1 - score))
    place = np.floor((logit + SPAN) * SCORE_BINS / (2 * SPAN))
    return np.clip(place, 0, SCORE_BINS - 1).astype(np.int64)


def counted(score: Floats, actual: Floats, threshold: float = 0.5) -> Scored:
    """Count rows by score bin and actual.

    Args:
        score: Scores, (windows, rows).
        actual: 1, 0, or NaN where unknown.
        threshold: Of the decision.
    """
    windows = len(score)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=windows, freq="D", tz="UTC"),
            "dataset": "production", "model_version": "all", "slice_key": "all",
            "slice_value": "all",
        }
    )  # fmt: skip
    state = np.where(np.isnan(actual), 0, np.where(actual > 0, 2, 1)).astype(np.int64)
    flat = (np.arange(windows)[:, None] * SCORE_BINS + bin_of(score)) * 3 + state

    def table(chosen: NDArray[np.bool_]) -> Floats:
        found = np.bincount(flat[chosen], minlength=windows * SCORE_BINS * 3)
        return found.reshape(windows, SCORE_BINS, 3).astype(np.float64)

    known = np.isfinite(score)
    return Scored(cells, table(known), table(known & (score >= threshold)), middles())


def logistic(x: Floats | float) -> Floats:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(x))))


def world(
    rng: np.random.Generator, windows: int, rows: int, *, shift: float = 0.0, concept: float = 0.0
) -> tuple[Floats, Floats]:
    """Draw scores and actuals of a model that sees its input with noise and is miscalibrated.

    Args:
        rng: Draws.
        windows: Windows.
        rows: Rows of each.
        shift: Of the input's mean.
        concept: How much less the input means than it did, 0 to 1.
    """
    x = rng.normal(shift, 1, (windows, rows))
    actual = rng.random(x.shape) < logistic(-1.0 + 1.3 * (1 - concept) * x)
    seen = x + rng.normal(0, 0.1, x.shape)
    return logistic(-0.8 + 1.6 * seen), actual.astype(np.float64)


class Baseline:
    """A labelled baseline with its inputs: what a calibration and weights are learnt from.

    Args:
        score: (windows, rows), NaN where a window has fewer rows.
        actual: 1, 0 or NaN.
        inputs: Name -> values of the same shape.
        threshold: Of the decision.
    """

    def __init__(
        self, score: Floats, actual: Floats, inputs: dict[str, Floats], threshold: float
    ) -> None:
        self.threshold = threshold
        whole = counted(score, actual, threshold)
        half = halved(score, actual, threshold)
        self.calibration = calibrate(whole, half, seed=1)
        self.whole = whole
        known = np.isfinite(score) & np.isfinite(actual)
        self._bins = bin_of(score[known])
        self._positive = actual[known] > 0
        self._blocks = np.nonzero(known)[0] % MIN_BLOCKS
        self._inputs = {name: values[known] for name, values in (inputs | {"": score}).items()}
        shares = np.arange(1, 10) / 10
        self._edges = {name: np.quantile(v, shares) for name, v in self._inputs.items()}

    def chosen(self, score: Floats, actual: Floats, inputs: dict[str, Floats]) -> pd.DataFrame:
        """Residuals of windows, with the curve of weighted rows where the weights are fit."""
        counts = counted(score, actual, self.threshold)
        fit: dict[int, Curves] = {}
        for i in range(len(score)):
            here = np.isfinite(score[i])
            margins = [
                self._margin(name, values[i][here])
                for name, values in (inputs | {"": score}).items()
            ]
            weights = rake(margins, len(self._bins))
            if not weights.reason:
                fit[i] = self._curves(weights.values)
        mask = np.isin(np.arange(len(score)), list(fit))
        frames = [residuals(counts.part(~mask), self.calibration)]
        if fit:
            own = Curves(
                np.array([c.curve for c in fit.values()]),
                np.stack([c.replicates for c in fit.values()], axis=1),
                next(iter(fit.values())).scale,
            )
            weighted = replace(self.calibration, curves=own, method="iw-cbpe-1")
            frames.append(residuals(counts.part(mask), weighted))
        return pd.concat(frames, ignore_index=True)

    def _margin(self, name: str, values: Floats) -> Margin:
        edges = self._edges[name]
        place = np.searchsorted(edges, values)
        low, high = self._inputs[name].min(), self._inputs[name].max()
        outside = float(((values < low) | (values > high)).mean())
        groups = np.searchsorted(edges, self._inputs[name])
        return Margin(groups, np.bincount(place, minlength=10).astype(np.float64), outside)

    def _curves(self, weights: Floats) -> Curves:
        return weighted_curves(self._bins, self._positive, self._blocks, weights, SCORE_BINS)


def halved(score: Floats, actual: Floats, threshold: float) -> Scored:
    """Count one half of the rows, by a hash of their place."""
    places = [hashlib.md5(str(i).encode()).digest()[0] < 128 for i in range(score.size)]
    kept = np.where(np.array(places).reshape(score.shape), score, np.nan)
    return counted(kept, actual, threshold)


def compared(
    case: str,
    base: Baseline,
    drawn: tuple[Floats, Floats, dict[str, Floats]],
    metrics: Sequence[str],
    *,
    goal: bool,
) -> Iterator[Row]:
    """Compare a constant, plain CBPE and the chosen estimate with the realized values."""
    score, actual, inputs = drawn
    counts = counted(score, actual, base.threshold)
    frames = residuals(counts, base.calibration), base.chosen(score, actual, inputs)
    for metric in metrics:
        plain, best = (
            frame[frame["metric"] == f"{metric}_residual"].sort_values("window_start")
            for frame in frames
        )
        used = plain["value"].notna().to_numpy()
        realized = _estimates(counts, base.calibration, metric) - plain["value"].to_numpy()
        constant = baseline_estimates(base.calibration, base.whole.middles)[metric]
        errors = [
            np.abs(constant - realized)[used].mean(),
            plain["value"].abs().mean(),
            best["value"].abs().mean(),
        ]
        held = float(((best["lower"] <= 0) & (best["upper"] >= 0))[used].mean())
        weighted = (best["method_version"] == "iw-cbpe-1").mean()
        numbers = (*(f"{error:.4f}" for error in errors), f"{weighted:.0%}", f"{held:.3f}")
        ratio = round(errors[2] / errors[1], 3)
        yield Row(f"{case}: {metric}", numbers, Goal(ratio, 1.05, unit=" x plain"))
        if goal:
            yield Row("  band holds the truth", ("",) * 5, Goal(held, 0.95, is_least=True))


def _estimates(counts: Scored, calibration: Calibration, metric: str) -> Floats:
    rows = counts.rows[:, :, 1:].sum(axis=2)
    decided = None if counts.decided is None else counts.decided[:, :, 1:].sum(axis=2)
    return values_of(expected_table(rows, decided, calibration.curves.curve), counts.middles)[
        metric
    ]


def simulated(windows: int, rows: int) -> Iterator[Row]:
    """Shift an input that the score holds, and one that only the actuals know of."""
    rng = np.random.default_rng(2013)
    cases = {"no shift": (0, 0), "seen input +.5": (0.5, 0), "seen input +1": (1, 0),
             "unseen input +.7": (0, 0.7), "both": (0.5, 0.5)}  # fmt: skip

    def draw(size: int, seen: float, unseen: float) -> tuple[Floats, Floats, dict[str, Floats]]:
        x, z = rng.normal(seen, 1, (size, rows)), rng.normal(unseen, 1, (size, rows))
        actual = rng.random(x.shape) < logistic(-1 + 1.3 * x + 0.8 * z)
        return logistic(-0.8 + 1.6 * x), actual.astype(np.float64), {"x": x, "z": z}

    score, actual, inputs = draw(60, 0, 0)
    base = Baseline(score, actual, inputs, 0.5)
    for case, (seen, unseen) in cases.items():
        drawn = draw(windows, seen, unseen)
        yield from compared(case, base, drawn, ("roc_auc", "f1", "brier"), goal=True)


def by_day(frame: pd.DataFrame, column: str) -> Floats:
    """Return (days, most rows of a day), NaN beyond a day's rows."""
    place = frame.groupby("day").cumcount()
    return (
        frame.assign(place=place)
        .pivot(index="day", columns="place", values=column)
        .to_numpy(dtype=np.float64)
    )


def flights() -> Iterator[Row]:
    """The demo's model: even winter days after odd ones, then April to December."""
    from mlmon_dagster.demo.flights import FEATURES, THRESHOLD, train

    model = train()
    frame = model.flights
    score = model.classifier.predict_proba(frame[list(FEATURES)])[:, 1]
    frame = frame.assign(score=score, actual=frame["late"].astype("float64"))
    numeric = [name for name in FEATURES if frame[name].dtype.kind in "iuf"]
    frame[numeric] = frame[numeric].astype("float64").fillna(-999.0)
    winter = frame.loc[model.validation]
    odd = pd.to_datetime(winter["day"]).dt.day % 2 == 1
    later = frame[pd.to_datetime(frame["day"]) >= pd.Timestamp("2013-04-01")]
    month = pd.to_datetime(later["day"]).dt.month

    def arrays(part: pd.DataFrame) -> tuple[Floats, Floats, dict[str, Floats]]:
        inputs = {name: by_day(part, name) for name in numeric}
        return by_day(part, "score"), by_day(part, "actual"), inputs

    some, every = (Baseline(*arrays(part), THRESHOLD) for part in (winter[odd], winter))
    metrics = ("roc_auc", "f1")
    yield from compared("even winter days", some, arrays(winter[~odd]), metrics, goal=True)
    for name, chosen in (
        ("April", month == 4),
        ("September to November", month.between(9, 11)),
        ("April to December", month > 0),
    ):
        yield from compared(name, every, arrays(later[chosen]), metrics, goal=False)


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--no-flights", action="store_true")
    asked = parser.parse_args()
    rows = list(simulated(asked.windows, asked.rows))
    if not asked.no_flights:
        rows += flights()
    columns = ("constant", "plain CBPE", "chosen", "weighted", "band holds")
    print(render("Mean distance of estimate and truth", columns, rows, seed=2013))
    return int(any(row.goal is not None and not row.goal.is_met for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
