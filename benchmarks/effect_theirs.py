"""What doubleml says of given rows; runs in its own environment.

    python benchmarks/effect_theirs.py FOLDER

Reads the rows that `effect_beside` wrote and prints, as JSON, the coefficient of each world.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import doubleml
import numpy as np
from sklearn.linear_model import LinearRegression


def fitted(d: np.ndarray, y: np.ndarray, dummies: np.ndarray) -> float:
    """Fit the partially linear model, partialling out, with the learners' fit of all rows."""
    data = doubleml.DoubleMLData.from_arrays(x=dummies, y=y, d=d)
    model = doubleml.DoubleMLPLR(data, LinearRegression(), LinearRegression())
    whole = {
        name: LinearRegression(fit_intercept=False).fit(dummies, of).predict(dummies)[:, None]
        for name, of in (("ml_l", y), ("ml_m", d))
    }
    model.fit(external_predictions={"d": whole})
    return float(model.coef[0])


def main(folder: Path) -> None:
    """Print what is found in every file."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        rows = np.load(path)
        group = rows["window"] * (rows["cell"].max() + 1) + rows["cell"]
        _, place = np.unique(group, return_inverse=True)
        found[path.stem] = fitted(rows["d"], rows["y"], np.eye(place.max() + 1)[place])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
