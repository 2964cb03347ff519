"""A baseline in memory that does what the product does with stored windows and rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.scored_worlds import SCORE_BINS, bin_of, counted, halved
from mlmon_dagster.metrics.estimated.binary import residuals
from mlmon_dagster.metrics.estimated.calibration import Curves, calibrate, per_cell
from mlmon_dagster.metrics.estimated.reweighting import LabelledRows, Margin, Target, grouping
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.profiles.bins.shapes import numeric_binning, role_binning

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BINS = 20  # of every input


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
        bins, positive = bin_of(score[known]), actual[known] > 0
        self._binnings = {name: _binning(name, values[known]) for name, values in inputs.items()}
        codes = {n: _codes(self._binnings[n], values[known]) for n, values in inputs.items()}
        groupings = {name: grouping(self._binnings[name], codes[name]) for name in codes}
        groupings["score"] = grouping(role_binning("score", "score"), bins * 3 + 1 + positive)
        targets = {"score": Target(bins, positive, SCORE_BINS)}
        self._rows = LabelledRows(targets, np.nonzero(known)[0], groupings)

    def chosen(self, score: Floats, actual: Floats, inputs: dict[str, Floats]) -> pd.DataFrame:
        """Residuals of windows, with the curve of weighted rows where that helps."""
        counts = counted(score, actual, self.threshold)
        fit: dict[int, Curves] = {}
        for i in range(len(score)):
            here = np.isfinite(score[i])
            columns = {name: values[i][here] for name, values in inputs.items()}
            found = self._rows.curves_like(self._margins(score[i][here], columns))
            if found is not None:
                fit[i] = found["score"]
        mask = np.isin(np.arange(len(score)), list(fit))
        frames = [residuals(counts.part(~mask), self.calibration)]
        if fit:
            own = per_cell(list(fit.values()))
            weighted = replace(self.calibration, curves=own, method="iw-cbpe-2")
            frames.append(residuals(counts.part(mask), weighted))
        return concat_frames(frames)

    def _margins(self, score: Floats, inputs: dict[str, Floats]) -> list[Margin]:
        codes = {name: _codes(self._binnings[name], values) for name, values in inputs.items()}
        codes["score"] = bin_of(score) * 3
        sizes = {name: binning.size for name, binning in self._binnings.items()}
        sizes["score"] = SCORE_BINS * 3
        return [
            self._rows.groupings[name].margin(
                np.bincount(found, minlength=sizes[name]).astype(np.float64), 0.0
            )
            for name, found in codes.items()
        ]


def _binning(name: str, values: Floats) -> Binning:
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return numeric_binning(name, edges.tolist(), low=values.min(), high=values.max(), fine=1)


def _codes(binning: Binning, values: Floats) -> Ints:
    return np.searchsorted(np.array(binning.edges), values).astype(np.int64)
