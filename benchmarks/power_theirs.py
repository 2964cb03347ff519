"""What the peers' drift methods say of given windows; runs in their environment.

    python benchmarks/power_theirs.py FOLDER SCORES

Reads the rows that `power` wrote, calls each method's own function, and writes to the file a score
per window: p-values where the method has one, else its distance, with its default threshold.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Score = Callable[[pd.Series], float]
EVIDENTLY = {"numeric": ("ks", "psi", "jensenshannon", "wasserstein")}
EVIDENTLY["categorical"] = ("chisquare", "psi", "jensenshannon")
NANNYML = {"numeric": ("kolmogorov_smirnov", "jensen_shannon", "wasserstein")}
NANNYML["categorical"] = ("chi2", "jensen_shannon")


def evidently(baseline: pd.Series, kind: str) -> Iterator[tuple[str, Score, float]]:
    """Name, score and default threshold of each method; it drops values that are missing."""
    from evidently.legacy.calculations.stattests import registry
    from evidently.legacy.core import ColumnType

    feature = ColumnType.Numerical if kind == "numeric" else ColumnType.Categorical
    known = baseline.dropna()
    for name in EVIDENTLY[kind]:
        test = registry.get_stattest(known, known, feature, name)

        def score(window: pd.Series, test: Any = test) -> float:
            return float(test(known, window.dropna(), feature, None).drift_score)

        yield f"evidently {name}", score, test.default_threshold


def nannyml(baseline: pd.Series, kind: str) -> Iterator[tuple[str, Score, float]]:
    """Name, score and the threshold it takes from ten chunks of the baseline."""
    from nannyml.chunk import DefaultChunker
    from nannyml.drift.univariate.methods import FeatureType, MethodFactory
    from nannyml.thresholds import StandardDeviationThreshold

    feature = FeatureType.CONTINUOUS if kind == "numeric" else FeatureType.CATEGORICAL
    for name in NANNYML[kind]:
        method = MethodFactory.create(
            key=name,
            feature_type=feature,
            chunker=DefaultChunker(),
            threshold=StandardDeviationThreshold(),
        ).fit(baseline)

        def score(window: pd.Series, method: Any = method, name: str = name) -> float:
            value = method.calculate(window)
            return float(method._p_value if name == "chi2" else value)

        limit = 0.05 if name == "chi2" else float(method.upper_threshold_value)
        yield f"nannyml {name}", score, limit


def main(folder: Path, scores: Path) -> None:
    """Score the windows of every file."""
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            kind = str(data["kind"])
            sides = {name: data[name] for name in ("baseline", "same", "moved")}
        text = kind == "categorical"

        def series(values: Any, text: bool = text) -> pd.Series:
            return pd.Series(values).map("c{:.0f}".format) if text else pd.Series(values)

        baseline = series(sides["baseline"]).rename("x")
        for peer in (evidently, nannyml):
            for name, score, limit in peer(baseline, kind):
                by_side = {
                    side: [score(series(window).rename("x")) for window in sides[side]]
                    for side in ("same", "moved")
                }
                found.setdefault(path.stem, {})[name] = by_side | {"limit": limit}
    scores.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
