"""Would a model fitted anew do better? The user's own function, on what was known by then."""

from __future__ import annotations

import datetime as dt
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import RANKING
from mlmon_dagster.store import Store
from mlmon_dagster.trace.fresh import Fresh, fresh_beside_served

TAUGHT = dt.timedelta(days=92)  # three months
_FEWEST = 100  # rows with ground truth
_OUTPUTS = ("score", "prediction")


def fitted_anew(store: Store, folder: Path, spec: ModelSpec, windows: Sequence[Window]) -> Fresh:
    """Fit the model on the three months before some windows, and try it on those windows.

    Taught is what anybody could have known when the windows began: rows of production, and of the
    baseline's dataset, of the 92 days before, with ground truth that was known by then. The
    spec's function runs here and nowhere else.

    Args:
        store: The store.
        folder: The project's, which can be imported from.
        spec: The model.
        windows: The windows in question.

    Raises:
        ConfigError: If the spec names no function, it cannot be used, or there is too little to
            teach or to try it with.
    """
    if spec.retrain is None:
        raise ConfigError(
            f"{spec.model} does not say how it is fitted: declare retrain: module:function, which "
            "takes a DataFrame of features and actual."
        )
    if spec.task == RANKING:
        raise ConfigError("A ranking cannot be fitted anew by --retrain; compare a shadow instead.")
    begin, names = windows[0].start, list(spec.features)
    known = _labelled(store, spec, None, [PRODUCTION, spec.baseline.dataset or PRODUCTION])
    came = known["actual_time"].fillna(known["event_time"])
    is_taught = known["event_time"].between(begin - TAUGHT, begin, inclusive="left")
    taught = known[is_taught & (came < begin)]
    rows = _labelled(store, spec, windows, [PRODUCTION])
    for part, what in ((taught, "before them to teach it"), (rows, "in them to try it with")):
        if len(part) < _FEWEST or part["actual"].nunique() < 2:
            raise ConfigError(
                f"A fresh {spec.model} cannot be tried on windows from {windows[0].key}: there are "
                f"only {len(part):,} rows with ground truth {what} ({_FEWEST} of two kinds needed)."
            )
    shared = _categories(spec, taught)
    with _importable(folder):
        function = _function(spec.retrain)
        try:
            fitted = function(_typed(taught[[*names, "actual"]], shared).reset_index(drop=True))
            return fresh_beside_served(
                spec, fitted, _typed(rows, shared), _period(spec, taught), len(taught)
            )
        except Exception as error:  # whatever the user's code does
            raise ConfigError(
                f"retrain: {spec.retrain} failed with {type(error).__name__}: {error}"
            ) from error


def _labelled(
    store: Store, spec: ModelSpec, windows: Sequence[Window] | None, datasets: Sequence[str]
) -> pd.DataFrame:
    outputs = [c for c in _OUTPUTS if getattr(spec.columns, c) is not None]
    read = store.inference_records(spec).read(
        windows,
        sorted(set(datasets)),
        [
            "prediction_id",
            "event_time",
            "window_start",
            "actual",
            "actual_time",
            *outputs,
            *spec.features,
        ],
    )
    frame: pd.DataFrame = read.to_pandas()
    known = frame[frame["actual"].notna()]
    # In one order, however the store keeps them: a fit may depend on it.
    return known.sort_values(["event_time", "prediction_id"]).reset_index(drop=True)


def _categories(spec: ModelSpec, taught: pd.DataFrame) -> dict[str, list[str]]:
    """Return the values of categorical features that a fresh model can know."""
    return {
        name: sorted(taught[name].dropna().unique())
        for name, feature in spec.features.items()
        if feature.type == "categorical"
    }


def _typed(rows: pd.DataFrame, categories: dict[str, list[str]]) -> pd.DataFrame:
    kinds = {name: pd.CategoricalDtype(values) for name, values in categories.items()}
    return rows.assign(**{name: rows[name].astype(kind) for name, kind in kinds.items()})


def _period(spec: ModelSpec, taught: pd.DataFrame) -> str:
    days = taught["event_time"].dt.tz_convert(ZoneInfo(spec.time.zone)).dt.date
    return f"{days.min()} to {days.max()}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules beside ``models/`` be imported."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _function(name: str) -> Callable[[pd.DataFrame], object]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"retrain: {name} cannot be imported: {error}.") from error
    if not callable(found):
        raise ConfigError(f"retrain: {name} is no function.")
    called: Callable[[pd.DataFrame], object] = found
    return called
