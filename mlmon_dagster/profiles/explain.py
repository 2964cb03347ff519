"""SHAP values of a sample of rows, computed from the user's model where none are logged.

This is done where raw rows are read, just before they are counted, and only the counts are kept:
there is nothing more to erase, and taking events in never waits for a model. The sample is by hash
of the id, so the same rows are explained whenever a window is computed again, and windows merge.

The model comes from a function that the spec names. No file is unpickled here.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics import Floats
from mlmon_dagster.profiles.compiler import NO_VERSION
from mlmon_dagster.profiles.fit import Explained
from mlmon_dagster.profiles.loss_columns import joined_values, sampled
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.tables.engine import QueryEngine, WithTables

_TABLE = "computed_attributions"
_log = logging.getLogger(__name__)


Inputs = pd.DataFrame | np.ndarray


class Model(Protocol):
    """A model as its library has it."""

    def predict(self, rows: object, **options: bool) -> ArrayLike:
        """Predict rows, or the contributions of their features."""


class Attributions(NamedTuple):
    """SHAP values of some rows, before the model's link.

    Attributes:
        values: (rows, features).
        base: What they start from, (rows,).
        explainer: What computed them, with its version.
    """

    values: Floats
    base: Floats
    explainer: str


def explained(queries: QueryEngine, spec: ModelSpec, from_sql: str) -> Explained | None:
    """Compute the SHAP values of a sample of rows; None for models whose spec names no model.

    Args:
        queries: Over the store's tables.
        spec: The model.
        from_sql: Inference records, to stand after FROM.

    Returns:
        The sampled rows with their values. A model that cannot be loaded or explained leaves none:
        monitoring goes on without, what was wrong is logged, and the verdicts say NO_DATA.
    """
    if spec.explain.model is None:
        return None
    names = ["dataset", "prediction_id", "model_version", *spec.logged_features]
    columns = ", ".join(map(quote_identifier, names))
    rows = queries.query(
        f"SELECT {columns} FROM {from_sql} AS records WHERE {sampled(spec.explain.share)} "
        "ORDER BY dataset, prediction_id"
    ).to_pandas()
    versions = rows["model_version"].fillna(NO_VERSION)
    parts = [_of_version(spec, str(v), rows[versions == v]) for v in sorted(versions.unique())]
    computed = [part for part in parts if part is not None]
    table = pa.Table.from_pandas(pd.concat([_nothing(spec), *computed]), preserve_index=False)
    return Explained(WithTables(queries, {_TABLE: table}), joined_values(spec, from_sql, _TABLE))


def explainer_of(spec: ModelSpec) -> str:
    """Return what would compute SHAP values now; empty if nothing would."""
    if spec.explain.model is None:
        return ""
    try:
        model, _ = _load(spec, NO_VERSION)
        return "" if model is None else _kind(model)
    except Exception as error:  # whatever a user's function raises
        _log.warning("%s", _refusal(spec, NO_VERSION, error))
        return ""


def _nothing(spec: ModelSpec) -> pd.DataFrame:
    text, numbers = ("dataset", "prediction_id", "explainer"), attributed(spec).values()
    found = {name: pd.Series(dtype="str") for name in text}
    return pd.DataFrame(
        found | {name: pd.Series(dtype="float64") for name in (*numbers, "base_value")}
    )


def _of_version(spec: ModelSpec, version: str, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the ids of one version's rows with their SHAP values; None if it has no model."""
    try:
        model, prepare = _load(spec, version)
        if model is None:
            return None
        inputs, names = rows[list(spec.logged_features)], spec.logged_features
        found = attributions(model, inputs if prepare is None else prepare(inputs), names)
    except Exception as error:  # whatever a user's model raises
        _log.warning("%s", _refusal(spec, version, error))
        return None
    frame = pd.DataFrame(found.values, columns=list(attributed(spec).values()))
    ids = rows[["dataset", "prediction_id"]].reset_index(drop=True)
    return ids.join(frame).assign(base_value=found.base, explainer=found.explainer)


def _refusal(spec: ModelSpec, version: str, error: Exception) -> str:
    return (
        f"Rows of {spec.model}, version {version}, are not explained: {spec.explain.model}: "
        f"{type(error).__name__}: {error}"
    )


def _load(
    spec: ModelSpec, version: str
) -> tuple[Model | None, Callable[[pd.DataFrame], Inputs] | None]:
    """Call the function that the spec names; return the model, and what prepares its inputs."""
    module, _, name = str(spec.explain.model).partition(":")
    found = getattr(importlib.import_module(module), name)(version)
    return found if isinstance(found, tuple) else (found, None)


def attributions(model: Model, inputs: Inputs, features: Mapping[str, object]) -> Attributions:
    """Explain rows by the model's own library, before its link.

    Args:
        model: Of LightGBM or XGBoost, whose boosters say SHAP values themselves, or trees of
            scikit-learn, explained by the package shap (the extra ``explain``).
        inputs: One row per row, in a frame or an array.
        features: Their names, in the order of the frame that `inputs` was made from.

    Raises:
        ConfigError: If the model is none of these, has several outputs, or the columns of `inputs`
            are not the features.
    """
    order = _order(inputs, features)
    library = type(model).__module__.partition(".")[0]
    with_base = {"lightgbm": _lightgbm, "xgboost": _xgboost}.get(library, _trees)(model, inputs)
    if with_base.ndim != 2 or with_base.shape[1] != len(features) + 1:
        raise ConfigError(
            f"Expected one SHAP value per feature and a base value, {len(features) + 1} a row; "
            f"{_kind(model)} gave {with_base.shape[1:]}. Models of several classes, and inputs "
            "whose columns are not the features one by one, cannot be explained."
        )
    values = with_base.astype(np.float64)
    return Attributions(values[:, order], values[:, -1], _kind(model))


def _order(inputs: Inputs, features: Mapping[str, object]) -> list[int]:
    """Return where each feature is among the columns of the model's inputs."""
    names = list(getattr(inputs, "columns", features))
    if set(names) != set(features):
        raise ConfigError(
            f"The columns of a prepared row are {names[:20]}; expected the features, one by one."
        )
    return [names.index(name) for name in features]


def _kind(model: Model) -> str:
    library = type(model).__module__.partition(".")[0]
    by = library if library in ("lightgbm", "xgboost") else "shap"
    return f"{by} {importlib.import_module(by).__version__}"


def _lightgbm(model: Model, inputs: Inputs) -> Floats:
    booster = getattr(model, "booster_", model)
    return np.asarray(booster.predict(inputs, pred_contrib=True), np.float64)


def _xgboost(model: Model, inputs: Inputs) -> Floats:
    import xgboost

    booster = model.get_booster() if hasattr(model, "get_booster") else model
    rows = xgboost.DMatrix(inputs, enable_categorical=True)
    return np.asarray(booster.predict(rows, pred_contribs=True), np.float64)


def _trees(model: Model, inputs: Inputs) -> Floats:
    import shap

    explainer = shap.TreeExplainer(model)
    values = np.asarray(explainer.shap_values(inputs, check_additivity=False), np.float64)
    base = np.ravel(explainer.expected_value)
    if values.ndim == 3 and values.shape[2] == 2:  # probabilities of both classes
        values, base = values[:, :, 1], base[1:]
    if values.ndim != 2 or len(base) != 1:
        return values
    return np.column_stack([values, np.full(len(values), float(base[0]))])
