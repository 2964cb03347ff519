"""A model registry of plain files: one a version, and one that names the champion."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from retrain.bank import FEATURES


@dataclass(frozen=True)
class Version:
    """A trained model.

    Attributes:
        number: 1, 2, ...
        trained_until: The last day of its training data.
        roc_auc: On rows of those days that it was not trained on.
        weights: Of each feature.
        intercept: What the weighted features are added to.
    """

    number: int
    trained_until: str
    roc_auc: float
    weights: list[float]
    intercept: float

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of a default for each application."""
        logit = rows[FEATURES].to_numpy() @ np.array(self.weights) + self.intercept
        return 1 / (1 + np.exp(-logit))


@dataclass(frozen=True)
class Registry:
    """The versions in a folder."""

    folder: Path

    def register(self, rows: pd.DataFrame, trained_until: str) -> Version:
        """Train a model on three quarters of some rows and keep it as the next version."""
        is_held_out = np.arange(len(rows)) % 4 == 0
        mine, held_out = rows[~is_held_out], rows[is_held_out]
        model = LogisticRegression(max_iter=1_000).fit(mine[FEATURES], mine["defaulted"])
        auc = roc_auc_score(held_out["defaulted"], model.predict_proba(held_out[FEATURES])[:, 1])
        number = len(list(self.folder.glob("version-*.json"))) + 1
        version = Version(
            number, trained_until, float(auc), model.coef_[0].tolist(), float(model.intercept_[0])
        )
        self._write(f"version-{number}.json", json.dumps(asdict(version)))
        return version

    def newest(self) -> Version:
        """Return the version that was trained last."""
        numbers = [int(p.stem.split("-")[1]) for p in self.folder.glob("version-*.json")]
        return self._version(max(numbers))

    def champion(self) -> Version:
        """Return the version that serves."""
        return self._version(json.loads((self.folder / "champion.json").read_text())["version"])

    def promote(self, version: Version) -> None:
        """Let a version serve."""
        self._write("champion.json", json.dumps({"version": version.number}))

    def _version(self, number: int) -> Version:
        return Version(**json.loads((self.folder / f"version-{number}.json").read_text()))

    def _write(self, name: str, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.partial"
        partial.write_text(text)
        partial.replace(self.folder / name)
