"""The bins of the present baseline as they are kept in a file of the store: JSON text."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from functools import lru_cache

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.profiles.bins.fit import fit_binnings
from mlmon_dagster.profiles.bins.shapes import binning_from_json, binning_to_json
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.baselines import fitted_baselines, promotions
from mlmon_dagster.store.baselines.fitted_baselines import StoredBaseline
from mlmon_dagster.store.reading import personal


def stored_baseline(store: Store, spec: ModelSpec, at: dt.datetime | None = None) -> StoredBaseline:
    """Return the row of the baseline in force for a window.

    Args:
        store: The store.
        spec: The model.
        at: The window's start; by default that of windows to come.

    Raises:
        BaselineMissingError: If none was fitted yet.
    """
    force = promotions.in_force(store.state, spec.model)
    baseline_id = force.newest if at is None else force.at(at)
    stored = fitted_baselines.newest(store.state, spec.model, baseline_id) if baseline_id else None
    if stored is None:
        raise no_baseline(spec)
    return stored


def no_baseline(spec: ModelSpec) -> BaselineMissingError:
    """Return the error that says what is still missing."""
    step = (
        "windows of production come first"
        if spec.baseline.is_rolling
        else "land them, then materialize the asset 'baseline'"
    )
    return BaselineMissingError(
        f"Model {spec.model!r} has no baseline yet. It is {spec.baseline.described()}: {step}."
    )


def stored_binnings(
    store: Store, spec: ModelSpec, at: dt.datetime | None = None
) -> dict[str, Binning]:
    """Return the bins of the baseline in force for a window, by default of windows to come.

    Raises:
        BaselineMissingError: If none was fitted yet.
    """
    return binnings_of(store, stored_baseline(store, spec, at))


def binnings_in_force(
    store: Store, spec: ModelSpec, at: dt.datetime | None = None
) -> dict[str, Binning]:
    """Return the bins that a window is profiled with: the baseline's, blank ones without it.

    Blank bins are those of no rows: one for all values of a feature, so that rows and nulls are
    counted from the first day on, and the usual ones for what has fixed bins, such as a score.
    """
    try:
        return stored_binnings(store, spec, at)
    except BaselineMissingError:
        nothing = store.inference_records(spec).from_sql(datasets=[])
        return fit_binnings(store, spec, nothing, key=personal.key_of(store.state, spec.model))


def binnings_of(store: Store, stored: StoredBaseline) -> dict[str, Binning]:
    """Return the bins of a stored baseline.

    Raises:
        StoreError: If the file that has them is gone.
    """
    return decode_binnings(fitted_baselines.payload_of(store, stored))


def encode_binnings(binnings: Mapping[str, Binning]) -> str:
    """Write bins as JSON; names in their own letters, so that a search for one finds it."""
    content = {"binnings": [binning_to_json(b) for b in binnings.values()]}
    return json.dumps(content, ensure_ascii=False)


def decode_binnings(payload: str) -> dict[str, Binning]:
    """Read what `encode_binnings` wrote; floats are the same to the last bit."""
    return {binning.column: binning for binning in _decoded(payload)}


@lru_cache(maxsize=16)  # every window of a model is read with the same bins
def _decoded(payload: str) -> tuple[Binning, ...]:
    return tuple(map(binning_from_json, json.loads(payload)["binnings"]))
