"""Functions that a spec may name: each returns a model, fitted to the same rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

FEATURES = ("age", "region", "balance")


def draw(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    region = rng.choice(["north", "south"], n)
    return pd.DataFrame(
        {"age": rng.normal(40, 10, n), "region": region, "balance": rng.normal(0, 1, n)}
    )


def numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Prepare inputs as the models want them; the columns in another order than the spec's."""
    return pd.DataFrame(
        {
            "region": (frame["region"] == "south").astype(float),
            "balance": frame["balance"],
            "age": frame["age"],
        }
    )


def _fitted(model: Any) -> Any:
    frame = draw(2_000, 0)
    raw = (frame["age"] - 40) / 10 + frame["balance"] + (frame["region"] == "south")
    late = (np.random.default_rng(1).logistic(size=len(frame)) < raw).astype(int)
    return model.fit(numbers(frame), late)


@lru_cache
def fitted_lightgbm() -> Any:
    from lightgbm import LGBMClassifier

    return _fitted(LGBMClassifier(n_estimators=20, num_leaves=7, verbose=-1, n_jobs=1))


@lru_cache
def fitted_xgboost() -> Any:
    from xgboost import XGBClassifier

    return _fitted(XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1))


@lru_cache
def fitted_boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return _fitted(HistGradientBoostingClassifier(max_iter=20, random_state=0))


@lru_cache
def fitted_forest() -> Any:
    """Its SHAP values are of the probability, not of its log-odds."""
    from sklearn.ensemble import RandomForestClassifier

    return _fitted(RandomForestClassifier(n_estimators=20, max_depth=4, random_state=0))


def lightgbm(version: str) -> Any:
    return fitted_lightgbm(), numbers


def xgboost(version: str) -> Any:
    return fitted_xgboost(), numbers


def boosting(version: str) -> Any:
    return fitted_boosting(), numbers


def forest(version: str) -> Any:
    return fitted_forest(), numbers


def only_version_1(version: str) -> Any:
    return (fitted_lightgbm(), numbers) if version == "1" else None


def broken(version: str) -> Any:
    raise OSError("the registry does not answer")


def not_prepared(version: str) -> Any:
    return fitted_lightgbm()
