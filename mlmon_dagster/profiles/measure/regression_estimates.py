"""A regression's errors without ground truth: a model of the loss, learnt from the baseline.

The size of an error cannot be read off a prediction, so a second model predicts it from the
inputs (direct loss estimation). Rows are needed on both sides: this reads the windows' rows once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.estimated.calibration import MIN_WINDOWS
from mlmon_dagster.metrics.estimated.regression import Losses, estimated_losses, loss_calibration
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.profiles.baseline import SEED, Baseline, in_half
from mlmon_dagster.profiles.bins.fit import value_expressions
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB, Column, code_expression
from mlmon_dagster.profiles.sql.compiler import as_numpy
from mlmon_dagster.profiles.sql.loss_columns import resolve
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import erased_ids
from mlmon_dagster.store.state.sql import quote_identifier

if TYPE_CHECKING:
    from mlmon_dagster.metrics.estimated.regression import LossCalibration

MOST_ROWS = 100_000
MIN_TRAINING = 200  # labelled rows of the baseline, in each half 100
_STRETCHES = 10  # of time, of a baseline


@dataclass(frozen=True)
class LossRows:
    """Rows of a regression: what its errors are predicted from, and the errors.

    Attributes:
        inputs: Prediction and features as numbers, (n, p); NaN where missing.
        error: Prediction - actual, NaN without an actual.
        is_first: The half that the hash of its id puts a row in.
        keys: ``window_start`` and ``dataset`` of every row.
    """

    inputs: Floats
    error: Floats
    is_first: NDArray[np.bool_]
    keys: pd.DataFrame


def estimate_losses(
    store: Store,
    spec: ModelSpec,
    windows: Sequence[Window],
    baseline: Baseline,
    live: Sequence[str],
) -> pd.DataFrame:
    """Estimate MAE and RMSE of windows, and compare with what is realized.

    Args:
        store: Where the rows are.
        spec: A regression.
        windows: The windows.
        baseline: The baseline in force.
        live: The datasets that are measured.

    Returns:
        As `estimates.estimate`; every value is NaN with the reason ``no_scikit_learn`` where that
        is not installed, ``few_baseline_rows`` where the baseline has under 200 labelled rows.
    """
    source = store.inference_records(spec).from_sql(windows, live)
    mine = _read(store, spec, baseline, source, "prediction IS NOT NULL")
    losses, calibration = _learn(store, spec, baseline, mine)
    return estimated_losses(losses, calibration)


def baseline_losses(store: Store, spec: ModelSpec, baseline: Baseline) -> pd.DataFrame:
    """Return the estimates of the baseline itself, each half by the other half's model."""
    nothing = store.inference_records(spec).from_sql([], [])
    mine = _read(store, spec, baseline, nothing, "prediction IS NOT NULL")
    _, calibration = _learn(store, spec, baseline, mine)
    return concat_frames([] if calibration.reason else [estimated_losses(*calibration.own())])


def _learn(
    store: Store, spec: ModelSpec, baseline: Baseline, mine: LossRows
) -> tuple[Losses, LossCalibration]:
    starts = baseline.windows["prediction"].cells["window_start"].drop_duplicates()
    windows = [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]
    source = store.inference_records(spec).from_sql(windows, [baseline.dataset])
    known = _read(
        store, spec, baseline, source, "prediction IS NOT NULL AND actual IS NOT NULL",
        f"ORDER BY MD5(prediction_id), prediction_id LIMIT {MOST_ROWS}",
    )  # fmt: skip
    return learn_losses(known, mine)


def learn_losses(known: LossRows, mine: LossRows) -> tuple[Losses, LossCalibration]:
    """Learn the losses of labelled rows and predict those of others.

    Args:
        known: Labelled rows of the baseline.
        mine: The rows to estimate, with or without actuals.

    Returns:
        The losses of `mine`, and what each half says of the model that the other half taught.
    """
    reason = ""
    first = _first_half(known)
    if min(first.sum(), (~first).sum()) < MIN_TRAINING / 2:
        reason = "few_baseline_rows"
    elif not _can_learn():
        reason = "no_scikit_learn"
    losses, own = [], []
    for power in (1, 2):
        target = np.abs(known.error) ** power
        guesses, held_out = np.full((2, len(mine.inputs)), np.nan), np.full(len(target), np.nan)
        if not reason:
            for i, half in enumerate((first, ~first)):
                # A column without a value in this half says nothing, and is refused by the trees.
                told = ~np.isnan(known.inputs[half]).all(axis=0)
                model = _regressor().fit(known.inputs[half][:, told], target[half])
                held_out[~half] = model.predict(known.inputs[~half][:, told])
                # What the model is off by on average, on rows it has not seen.
                factor = _ratio(target[~half].mean(), held_out[~half].mean())
                held_out[~half] *= factor
                if len(mine.inputs):
                    guesses[i] = model.predict(mine.inputs[:, told]) * factor
        losses.append(Losses(mine.keys, np.abs(mine.error) ** power, guesses))
        own.append(Losses(known.keys, target, np.stack([held_out, held_out])))
    return (
        Losses.paired(*losses),
        loss_calibration(Losses.paired(*own), reason),
    )


def _first_half(known: LossRows) -> NDArray[np.bool_]:
    """Return the rows that one of the two models learns from; it is measured on the others.

    Rows of one window are alike in more than their features say, and the features often name the
    window (its weather, its prices): with a window in both halves a model would be measured on
    what it has seen. So the windows are cut into ten stretches of time that belong to the halves
    in turn; with fewer than 14 windows rows go by the hash of their ids.
    """
    _, ranks = np.unique(known.keys["window_start"].to_numpy(), return_inverse=True)
    windows = int(ranks.max()) + 1 if len(ranks) else 0
    if windows < MIN_WINDOWS:
        return known.is_first
    return np.asarray(ranks * _STRETCHES // windows % 2 == 0)


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else 1.0


def _can_learn() -> bool:
    try:
        import sklearn.ensemble  # noqa: F401
    except ImportError:
        return False
    return True


def _regressor() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=80, max_leaf_nodes=15, min_samples_leaf=20, early_stopping=False,
        random_state=SEED,
    )  # fmt: skip


def _read(
    store: Store, spec: ModelSpec, baseline: Baseline, source: str, where: str, limit: str = ""
) -> LossRows:
    values = value_expressions(spec, erased_ids.personal_key(store.state, spec.model))
    inputs = []
    for name in ("prediction", *spec.features):
        if name not in baseline.binnings:
            continue
        column = Column(baseline.binnings[name], resolve(values[name][1], baseline.binnings))
        is_number = column.binning.kind == "numeric"
        read = column.value if is_number else code_expression(column, DUCKDB)
        inputs.append(f"CAST({read} AS DOUBLE PRECISION) AS {quote_identifier(f'input:{name}')}")
    table = store.query(
        f"SELECT window_start, dataset, {', '.join(inputs)}, "
        f"CAST(prediction - actual AS DOUBLE PRECISION) AS error, {in_half()} AS first_half "
        f"FROM {source} AS records WHERE {where} {limit}"
    )
    named = [name for name in table.column_names if name.startswith("input:")]
    matrix = np.column_stack([_floats(table.column(name)) for name in named])
    keys = table.select(["window_start", "dataset"]).to_pandas()
    keys["window_start"] = pd.to_datetime(keys["window_start"], utc=True).astype(
        "datetime64[us, UTC]"
    )
    is_first = as_numpy(table.column("first_half")).astype(bool)
    return LossRows(matrix, _floats(table.column("error")), is_first, keys)


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.to_pandas(), dtype=np.float64)
