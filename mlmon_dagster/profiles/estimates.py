"""Performance without ground truth, of stored windows.

Of a classification the baseline's labelled rows are read as codes of its bins, to weigh them like a
window. The size of a regression's error cannot be read off a prediction, so a second model predicts
it from the inputs (direct loss estimation). Rows are needed on both sides: this reads the windows'
rows once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.estimated.binary import (
    baseline_estimates,
    estimated_performance,
    residuals,
)
from mlmon_dagster.metrics.estimated.calibration import (
    MIN_BLOCKS,
    RECORD,
    Calibration,
    Scored,
    calibrate,
    list_held_out,
    per_cell,
    scored,
    widened,
)
from mlmon_dagster.metrics.estimated.multiclass import (
    DECIDED_FOR,
    PLAIN,
    ClassCalibration,
    calibrate_classes,
    estimated_classes,
)
from mlmon_dagster.metrics.estimated.regression import Losses, estimated_losses, loss_calibration
from mlmon_dagster.metrics.estimated.reweighting import (
    LabelledRows,
    Target,
    Weighing,
    grouping,
)
from mlmon_dagster.metrics.frames import concat_frames, samples, stack_rows
from mlmon_dagster.metrics.performance.weighted_back import DECIDED
from mlmon_dagster.metrics.statistics import (
    WITHOUT_VERSION,
    ColumnStatistics,
    derived,
    merge,
    of_all,
)
from mlmon_dagster.profiles.baseline import IN_HALF, SEED, Baseline, scored_columns
from mlmon_dagster.profiles.bin_codes import DUCKDB, Column, code_expression
from mlmon_dagster.profiles.compiler import as_numpy, codes_of, value_to_code
from mlmon_dagster.profiles.fit import value_expressions
from mlmon_dagster.profiles.loss_columns import resolve
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.declaration import is_sampled
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.tasks import class_scores, estimated, estimated_metrics, residual
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import erased_ids, metric_log, window_state
from mlmon_dagster.store.state.sql import quote_identifier

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.estimated.regression import LossCalibration


Profiles = Mapping[str, ColumnStatistics]

MOST_ROWS = 100_000


def estimate_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that estimates read: scores, and inputs that may shift."""
    mine = scored_columns(spec)
    if not mine or spec.task not in (BINARY, MULTICLASS):
        return mine
    return [*mine, *shifting_inputs(spec)]


def shifting_inputs(spec: ModelSpec) -> list[str]:
    """Return the features whose shift is corrected for; times and texts are not."""
    types = ("numeric", "categorical", "boolean")
    return [n for n, f in spec.features.items() if f.type in types and not is_sampled(f)]


def estimate(
    store: Store,
    spec: ModelSpec,
    profiles: Profiles,
    baseline: Baseline | None,
    windows: Sequence[Window] = (),
    live: Sequence[str] = (PRODUCTION,),
) -> pd.DataFrame:
    """Estimate the performance of windows, and compare with what is realized.

    Args:
        store: Where the baseline's rows are.
        spec: The model.
        profiles: Column -> statistics of the windows, see `estimate_columns`.
        baseline: The baseline in force; without one there is nothing to learn from, and no rows.
        windows: The windows, whose rows are read for a regression alone.
        live: The datasets that are measured.

    Returns:
        MetricFrame of ``estimated_<metric>`` and ``<metric>_residual`` at slice `all`, all model
        versions together. No rows for a model whose performance cannot be estimated.
    """
    if baseline is None or not estimated_metrics(spec):
        return concat_frames([])
    if spec.task == REGRESSION:
        return estimate_losses(store, spec, windows, baseline, live)
    whole = _wholes(profiles)
    if spec.task == BINARY and "score" in whole:
        return _binary(store, spec, whole, baseline)
    return _classes(store, spec, whole, baseline)


class OwnEstimates(NamedTuple):
    """A baseline's estimates of itself, by rows that they were not learnt from.

    Attributes:
        whole: MetricFrame of all of it as one window. A window's estimate is compared with it:
            both are estimates, so that what calibration cannot do for either is no difference.
        windows: MetricFrame of ``<metric>_residual`` of each window. What later windows turn out
            worse than estimated by is compared with it: estimates may be off by habit.
    """

    whole: pd.DataFrame
    windows: pd.DataFrame


def estimate_baseline(store: Store, spec: ModelSpec, baseline: Baseline) -> OwnEstimates:
    """Return the baseline's own estimates, each half by what the other taught."""
    if not estimated_metrics(spec):
        return OwnEstimates(concat_frames([]), concat_frames([]))
    if spec.task == REGRESSION:
        return baseline_losses(store, spec, baseline)
    if spec.task == MULTICLASS:
        one = ("dataset",)
        pooled = {n: merge(_whole(baseline.windows[n]), one) for n in _known_scores(spec, baseline)}
        held_out = _learn_classes(spec, baseline).held_out
        windows = stack_rows(list_held_out(held_out, PLAIN))
        return OwnEstimates(_classes(store, spec, pooled, baseline), windows)
    return derived(baseline.windows, ("estimates", spec), lambda: _hold_out(spec, baseline))


def _hold_out(spec: ModelSpec, baseline: Baseline) -> OwnEstimates:
    learnt = baseline_calibration(spec, baseline)
    if learnt is None or learnt[0].reason:
        return OwnEstimates(concat_frames([]), concat_frames([]))
    pooled = {
        n: merge(_whole(baseline.windows[n]), ("dataset",)) for n in ("score", DECIDED)
        if n in baseline.windows
    }  # fmt: skip
    counts = scored(pooled["score"], pooled.get(DECIDED))
    frame = estimated_performance(counts, learnt[0])
    held_out = baseline_estimates(learnt[0], counts.middles)
    own = frame["metric"].map({estimated(name): value for name, value in held_out.items()})
    moved = own - frame["value"]
    whole = frame.assign(value=own, lower=frame["lower"] + moved, upper=frame["upper"] + moved)
    return OwnEstimates(whole, stack_rows(list_held_out(learnt[0].held_out, learnt[0].method)))


def _classes(store: Store, spec: ModelSpec, whole: Profiles, baseline: Baseline) -> pd.DataFrame:
    names = _known_scores(spec, baseline)
    if not names or not all(name in whole for name in names):
        return concat_frames([])
    learnt = _learn_classes(spec, baseline)
    found = {} if learnt.reason else _weighings(store, spec, whole, baseline)
    return estimated_classes(whole, learnt, found)


def _known_scores(spec: ModelSpec, baseline: Baseline) -> list[str]:
    """Return the columns that estimates of several classes are made of; none if one is missing."""
    wanted = scored_columns(spec)
    return wanted if all(name in baseline.windows for name in wanted) else []


def _learn_classes(spec: ModelSpec, baseline: Baseline) -> ClassCalibration:
    """Return what the baseline says about the scores of several classes."""

    def learn() -> ClassCalibration:
        base = _wholes({name: baseline.windows[name] for name in _known_scores(spec, baseline)})
        labels = list(class_scores(spec).values())
        return calibrate_classes(base, _wholes(baseline.halves), labels, SEED)

    return derived(baseline.windows, ("class calibration",), learn)


def baseline_calibration(spec: ModelSpec, baseline: Baseline) -> tuple[Calibration, Scored] | None:
    """Return what the baseline says about a binary model's score, and its own counts."""
    if "score" not in baseline.windows or "score" not in baseline.halves:
        return None

    def of(columns: Profiles) -> Scored:
        decided = columns.get(DECIDED)
        return scored(_whole(columns["score"]), None if decided is None else _whole(decided))

    def learn() -> tuple[Calibration, Scored]:
        whole = of(baseline.windows)
        return calibrate(whole, of(baseline.halves), SEED), whole

    return derived(baseline.windows, ("calibration",), learn)


def _binary(store: Store, spec: ModelSpec, whole: Profiles, baseline: Baseline) -> pd.DataFrame:
    learnt = baseline_calibration(spec, baseline)
    if learnt is None:
        return concat_frames([])
    calibration, _ = learnt
    counts = scored(whole["score"], whole.get(DECIDED))
    if calibration.reason:
        return _both(counts, calibration)
    found = _weighings(store, spec, whole, baseline)
    better = [i for i in sorted(found) if found[i].is_better(["score"])]
    is_weighted = np.isin(np.arange(len(counts.cells)), better)
    frames = [_both(counts.part(~is_weighted), calibration)]
    if better:
        weighted = calibration.weighted(per_cell([found[i].curves["score"] for i in better]))
        frames.append(_both(counts.part(is_weighted), weighted))
    return concat_frames(frames)


def _weighings(
    store: Store, spec: ModelSpec, whole: Profiles, baseline: Baseline
) -> dict[int, Weighing]:
    inputs = shifting_inputs(spec)
    [one, *_] = scored_columns(spec)
    n_windows = baseline.windows[one].cells["window_start"].nunique()
    # Of fewer windows than are held out nothing is learnt: the rows need not be read.
    if n_windows < MIN_BLOCKS or not any(name in whole for name in inputs):
        return {}
    rows = derived(
        baseline.windows,
        ("labelled rows", *inputs),
        lambda: labelled_rows(store, spec, baseline, inputs),
    )
    return weighings(rows, whole)


def _both(counts: Scored, calibration: Calibration) -> pd.DataFrame:
    return concat_frames([f(counts, calibration) for f in (estimated_performance, residuals)])


def _whole(stats: ColumnStatistics) -> ColumnStatistics:
    """Return the statistics of slice `all`, over all model versions."""
    return _wholes({"": stats})[""]


def _wholes(columns: Profiles) -> dict[str, ColumnStatistics]:
    """Do what `_whole` does to every column; columns that share cells share them again."""
    found = of_all(columns)
    frames = {id(stats.cells): stats.cells for stats in found.values()}
    alone = {
        key: cells.assign(model_version=ALL)
        for key, cells in frames.items()
        if not cells.duplicated(list(WITHOUT_VERSION)).any()
    }
    return {
        name: merge(stats, WITHOUT_VERSION)
        if (cells := alone.get(id(stats.cells))) is None
        else replace(stats, cells=cells)
        for name, stats in found.items()
    }


def _baseline_rows(store: Store, spec: ModelSpec, baseline: Baseline, column: str) -> str:
    """Return the records of a baseline's windows, to stand after FROM."""
    starts = baseline.windows[column].cells["window_start"].drop_duplicates()
    windows = [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]
    return store.inference_records(spec).from_sql(windows, [baseline.dataset])


def labelled_rows(
    store: Store, spec: ModelSpec, baseline: Baseline, inputs: Sequence[str]
) -> LabelledRows:
    """Read the labelled rows of a baseline: at most 100,000, by the hash of their ids.

    Args:
        store: Where they are.
        spec: The model.
        baseline: The baseline.
        inputs: The features to read, as codes of their bins; those without bins are left out.

    Returns:
        No rows where they are past their retention.
    """
    binnings = baseline.binnings
    scores = [name for name in scored_columns(spec) if name != DECIDED and name in binnings]
    of_all = [name for name in scores if not name.startswith(DECIDED_FOR)]
    source = _baseline_rows(store, spec, baseline, scores[0])
    values = value_expressions(spec, erased_ids.personal_key(store.state, spec.model))
    grouped = [*of_all, *(name for name in inputs if name in binnings)]
    names = [*grouped, *(name for name in scores if name not in of_all)]
    parts = ["window_start"]
    for name in names:
        column = Column(binnings[name], resolve(values[name][1], binnings))
        parts.append(f"{value_to_code(column, DUCKDB)} AS {quote_identifier(name)}")
    # In one order, whatever files they lie in: sums are then the same to the last digit.
    found = store.query(
        f"SELECT {', '.join(parts)} FROM {source} AS records WHERE actual IS NOT NULL "
        f"ORDER BY MD5(prediction_id), prediction_id LIMIT {MOST_ROWS}"
    )
    found = found.filter(pc.greater_equal(pc.min_element_wise(*map(found.column, of_all)), 0))
    codes = {name: codes_of(found.column(name), binnings[name]) for name in names}
    places = pc.rank(found.column("window_start"), tiebreaker="dense")
    return LabelledRows(
        targets={
            name: Target(codes[name] // 3, codes[name] % 3 == 2, binnings[name].size // 3)
            for name in scores
        },
        windows=as_numpy(places).astype(np.int64) - 1,
        groupings={name: grouping(binnings[name], codes[name]) for name in grouped},
        whole={name: _labelled_windows(_whole(baseline.windows[name])) for name in scores},
    )


def _labelled_windows(stats: ColumnStatistics) -> Floats:
    """Rows by window that has an actual, in their order, actual and score bin, (W, 2, S)."""
    order = np.argsort(stats.cells["window_start"].to_numpy(), kind="stable")
    rows = label_counts(stats.counts)[order, :, 1:].transpose(0, 2, 1).astype(np.float64)
    return np.asarray(rows[rows.sum(axis=(1, 2)) > 0])


def weighings(rows: LabelledRows, whole: Mapping[str, ColumnStatistics]) -> dict[int, Weighing]:
    """Return cell -> the rows weighted to look like it, see `LabelledRows.like`.

    Args:
        rows: Of the baseline.
        whole: Column -> statistics of the windows; all have the cells of the scores.

    Returns:
        Only the cells that have shifted and can be weighted for.
    """
    names = [name for name in rows.groupings if name in whole]
    if not len(rows.windows):
        return {}
    counts = {name: _by_code(whole[name]) for name in names}
    found = {}
    for i in range(len(whole[names[0]])):
        margins = [
            rows.groupings[n].margin(counts[n][i], float(whole[n].n[i] - counts[n][i].sum()))
            for n in names
        ]
        weighing = rows.like(margins)
        if weighing is not None:
            found[i] = weighing
    return found


def _by_code(stats: ColumnStatistics) -> Floats:
    """Rows per cell and code; of a score all as if unlabelled, for actuals are not looked at."""
    counts = stats.counts.astype(np.float64)
    if stats.binning.kind == "score":
        rows = label_counts(stats.counts).sum(axis=2)
        counts = np.zeros_like(counts)
        counts[:, ::3] = rows
    return counts


def with_learnt_bands(
    store: Store, spec: ModelSpec, frame: pd.DataFrame, as_of: dt.datetime | None = None
) -> pd.DataFrame:
    """Widen the bands of stored estimates by the model's record before each, see `learnt_width`.

    What is stored is what the baseline asks for: ground truth that comes late changes the record,
    and so the width is learnt when somebody looks.

    Args:
        store: Where the residuals are.
        spec: The model.
        frame: MetricFrame; rows of other metrics than estimates are left as they are.
        as_of: The moment whose metrics they are, None for now.

    Returns:
        `frame` with the columns ``band_factor`` and ``band_windows``; 1 and 0 where nothing was
        learnt.
    """
    frame = frame.assign(band_factor=1.0, band_windows=0)
    names = {estimated(metric): residual(metric) for metric in estimated_metrics(spec)}
    mine = frame[frame["metric"].isin(list(names)) & frame["value"].notna()]
    if not len(mine):
        return frame
    grain, wait = GRAINS[spec.time.granularity], spec.actuals.expected_within
    if wait is None:
        wait = window_state.timing_of(store.state, spec.model).due or dt.timedelta(days=1)
    known = metric_log.newest(
        store.state,
        spec.model,
        metric=[names[name] for name in mine["metric"].unique()],
        granularity=spec.time.granularity,
        slice_key=ALL,
        start=mine["window_start"].min() - (RECORD + 1) * grain - wait,
        end=mine["window_start"].max(),
        as_of=as_of,
    )
    known = known[known["value"].notna()].sort_values("window_start")
    records = dict(list(known.groupby(["dataset", "metric"])))
    for (dataset, metric), part in mine.groupby(["dataset", "metric"]):
        record = samples(records.get((dataset, names[str(metric)]), known[:0]))
        found = widened(samples(part), record, wait or dt.timedelta.resolution)
        for name in ("lower", "upper", "method_version"):
            frame.loc[part.index, name] = [row[name] for row, _ in found]
        frame.loc[part.index, "band_factor"] = [width.factor for _, width in found]
        frame.loc[part.index, "band_windows"] = [width.n for _, width in found]
    return frame


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
    is_first: Flags
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


def baseline_losses(store: Store, spec: ModelSpec, baseline: Baseline) -> OwnEstimates:
    """Return the estimates of the baseline itself, each half by the other half's model."""
    nothing = store.inference_records(spec).from_sql([], [])
    mine = _read(store, spec, baseline, nothing, "prediction IS NOT NULL")
    _, calibration = _learn(store, spec, baseline, mine)
    if calibration.reason:
        return OwnEstimates(concat_frames([]), concat_frames([]))
    windows = estimated_losses(calibration.losses, calibration)
    is_residual = windows["metric"].isin([residual(name) for name in estimated_metrics(spec)])
    return OwnEstimates(estimated_losses(*calibration.own()), windows[is_residual])


def _learn(
    store: Store, spec: ModelSpec, baseline: Baseline, mine: LossRows
) -> tuple[Losses, LossCalibration]:
    source = _baseline_rows(store, spec, baseline, "prediction")
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


def _first_half(known: LossRows) -> Flags:
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
    every_row = [name for name, feature in spec.features.items() if not is_sampled(feature)]
    for name in ("prediction", *every_row):
        if name not in baseline.binnings:
            continue
        column = Column(baseline.binnings[name], resolve(values[name][1], baseline.binnings))
        is_number = column.binning.kind == "numeric"
        read = column.value if is_number else code_expression(column, DUCKDB)
        inputs.append(f"CAST({read} AS DOUBLE PRECISION) AS {quote_identifier(f'input:{name}')}")
    table = store.query(
        f"SELECT window_start, dataset, {', '.join(inputs)}, "
        f"CAST(prediction - actual AS DOUBLE PRECISION) AS error, {IN_HALF} AS first_half "
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
