"""A baseline in memory that does what the product does with stored windows and rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.scored_worlds import SCORE_BINS, bin_of, counted, halved
from mlmon_dagster.metrics.calibration_curve import MIN_BLOCKS, Curves
from mlmon_dagster.metrics.estimated import residuals
from mlmon_dagster.metrics.estimated_calibration import calibrate
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.reweighting import Margin, rake, weighted_curves

Floats = NDArray[np.float64]
GROUPS = 20  # of every column, as in `profiles.baseline_rows`


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
        shares = np.arange(1, GROUPS) / GROUPS
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
        return concat_frames(frames)

    def _margin(self, name: str, values: Floats) -> Margin:
        edges = self._edges[name]
        place = np.searchsorted(edges, values)
        low, high = self._inputs[name].min(), self._inputs[name].max()
        outside = float(((values < low) | (values > high)).mean())
        groups = np.searchsorted(edges, self._inputs[name])
        return Margin(groups, np.bincount(place, minlength=GROUPS).astype(np.float64), outside)

    def _curves(self, weights: Floats) -> Curves:
        return weighted_curves(self._bins, self._positive, self._blocks, weights, SCORE_BINS)
