"""A baseline in memory that does what the product does with stored windows and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.scored_worlds import SCORE_BINS, bin_of, counted, halved
from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.estimated.binary import residuals
from mlmon_dagster.metrics.estimated.calibration import Scored, calibrate, per_cell
from mlmon_dagster.metrics.estimated.multiclass import DECIDED_FOR
from mlmon_dagster.metrics.estimated.reweighting import (
    LabelledRows,
    Margin,
    Target,
    Weighing,
    grouping,
)
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.profiles.bin_shapes import numeric_binning, role_binning
from mlmon_dagster.profiles.estimates import MOST_ROWS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BINS = 20  # of every input


class WeightedRows:
    """The labelled rows of a baseline, read as the product reads them: at most 100,000.

    Args:
        scores: Name -> (windows, rows), NaN where a window has fewer rows.
        actuals: Name -> 1, 0 or NaN.
        inputs: Name -> values of the same shape.
    """

    def __init__(
        self, scores: dict[str, Floats], actuals: dict[str, Floats], inputs: dict[str, Floats]
    ) -> None:
        first = next(iter(scores))
        known = np.isfinite(scores[first]) & np.isfinite(actuals[first])
        self._binnings = {name: _binning(name, values[known]) for name, values in inputs.items()}
        places = np.flatnonzero(known)
        if len(places) > MOST_ROWS:
            places = np.sort(np.random.default_rng(1).choice(places, MOST_ROWS, replace=False))
        codes = {n: _codes(self._binnings[n], values.flat[places]) for n, values in inputs.items()}
        groupings = {name: grouping(self._binnings[name], codes[name]) for name in codes}
        targets, whole = {}, {}
        for name, score in scores.items():
            mine, positive = score.flat[places], actuals[name].flat[places] > 0
            bins = np.where(np.isnan(mine), -1, bin_of(np.nan_to_num(mine, nan=0.5)))
            targets[name] = Target(bins, positive, SCORE_BINS)
            rows = counted(score, actuals[name]).rows[:, :, 1:].transpose(0, 2, 1)
            whole[name] = rows[rows.sum(axis=(1, 2)) > 0]
            if not name.startswith(DECIDED_FOR):
                groupings[name] = grouping(role_binning(name, "score"), bins * 3 + 1 + positive)
        self._rows = LabelledRows(targets, places // known.shape[1], groupings, whole)

    def weighings(
        self, scores: dict[str, Floats], inputs: dict[str, Floats]
    ) -> dict[int, Weighing]:
        """Return window -> the rows weighted to look like it, where it has shifted."""
        found = enumerate(map(self._rows.like, self._margins(scores, inputs)))
        return {i: one for i, one in found if one is not None}

    def _margins(
        self, scores: dict[str, Floats], inputs: dict[str, Floats]
    ) -> Iterator[list[Margin]]:
        """Yield the margins of every window, (windows, rows)."""
        first = next(iter(scores))
        sizes = {name: binning.size for name, binning in self._binnings.items()}
        sizes |= dict.fromkeys(scores, SCORE_BINS * 3)
        for i, window in enumerate(scores[first]):
            here = np.isfinite(window)
            codes = {n: _codes(self._binnings[n], values[i][here]) for n, values in inputs.items()}
            codes |= {name: bin_of(values[i][here]) * 3 for name, values in scores.items()}
            yield [
                self._rows.groupings[name].margin(
                    np.bincount(found, minlength=sizes[name]).astype(np.float64), 0.0
                )
                for name, found in codes.items()
            ]


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
        self._rows = WeightedRows({"score": score}, {"score": actual}, inputs)

    def weighings(self, score: Floats, inputs: dict[str, Floats]) -> dict[int, Weighing]:
        """Return window -> the baseline's rows weighted to look like it, where it has shifted."""
        return self._rows.weighings({"score": score}, inputs)

    def chosen(self, score: Floats, actual: Floats, inputs: dict[str, Floats]) -> pd.DataFrame:
        """Residuals of windows, with the curve of weighted rows where that helps."""
        found = self.weighings(score, inputs)
        better = {i: one for i, one in found.items() if one.is_better(["score"])}
        return self.residuals(counted(score, actual, self.threshold), better)

    def residuals(self, counts: Scored, weighings: Mapping[int, Weighing]) -> pd.DataFrame:
        """Residuals of windows, some of them with the curve of weighted rows."""
        mask = np.isin(np.arange(len(counts.cells)), list(weighings))
        frames = [residuals(counts.part(~mask), self.calibration)]
        if weighings:
            own = per_cell([weighings[i].curves["score"] for i in sorted(weighings)])
            frames.append(residuals(counts.part(mask), self.calibration.weighted(own)))
        return concat_frames(frames)


def _binning(name: str, values: Floats) -> Binning:
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return numeric_binning(name, edges.tolist(), low=values.min(), high=values.max())


def _codes(binning: Binning, values: Floats) -> Ints:
    return np.searchsorted(upper_edges(binning)[:-1], values).astype(np.int64)
