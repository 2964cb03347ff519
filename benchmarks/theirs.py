"""What the peers are asked to do; runs in their own environment, see `peer_environment`.

    python benchmarks/theirs.py TASK FOLDER

The clock starts after imports and after Parquet is in pandas; ours includes reading. The last line
printed is JSON: seconds and peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Work = Callable[[], object]
CLASSES = ("accuracy", "precision", "recall", "f1", "roc_auc")


def _frames(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[str], list[str]]:
    baseline, current = (
        pd.read_parquet(folder / f"{name}.parquet").drop(columns="nonfinite")
        for name in ("baseline", "current")
    )
    for frame in (baseline, current):
        frame["window_start"] = frame["window_start"].dt.tz_localize(None).astype("datetime64[ns]")
    numeric = [name for name in current if name[0] == "n" and name[1:].isdigit()]
    categorical = [name for name in current if name[0] == "c" and name[1:].isdigit()]
    return baseline, current, numeric, categorical


def evidently_drift(folder: Path) -> Work:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    baseline, current, numeric, categorical = _frames(folder)
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    columns = numeric + categorical

    def work() -> object:
        sides = (Dataset.from_pandas(f[columns], definition) for f in (current, baseline))
        return Report([DataDriftPreset()]).run(*sides).dict()

    return work


def _nannyml_drift(folder: Path, continuous: str, discrete: str) -> Work:
    import nannyml

    baseline, current, numeric, categorical = _frames(folder)

    def work() -> object:
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=numeric + categorical,
            treat_as_categorical=categorical,
            timestamp_column_name="window_start",
            chunk_period="D",
            continuous_methods=[continuous],
            categorical_methods=[discrete],
        )
        return calculator.fit(baseline).calculate(current).to_df()

    return work


def nannyml_js(folder: Path) -> Work:
    return _nannyml_drift(folder, "jensen_shannon", "jensen_shannon")


def nannyml_ks(folder: Path) -> Work:
    return _nannyml_drift(folder, "kolmogorov_smirnov", "chi2")


def popmon_drift(folder: Path) -> Work:
    from histogrammar.dfinterface.make_histograms import make_histograms
    from popmon.config import Settings
    from popmon.pipeline.metrics import stability_metrics

    baseline, current, numeric, categorical = _frames(folder)
    axis = {"time_axis": "window_start", "time_width": "1d", "time_offset": "2026-01-01"}
    names = [f"window_start:{name}" for name in numeric + categorical]

    def work() -> object:
        # What its df_stability_metrics does, which fails when handed a reference frame.
        then, features, bins, _, types = make_histograms(
            baseline, features=names, ret_specs=True, **axis
        )
        now = make_histograms(
            current, features=features, bin_specs=bins, time_axis="window_start", var_dtype=types
        )
        settings = Settings(reference_type="external", time_axis="window_start")
        return stability_metrics(now, settings=settings, reference=then)

    return work


def _classified(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / "scored.parquet").drop(columns="nonfinite")
    frame["window_start"] = frame["window_start"].dt.tz_localize(None).astype("datetime64[ns]")
    return frame.astype({"actual": int, "prediction": int})


def nannyml_performance(folder: Path) -> Work:
    import nannyml

    frame = _classified(folder)

    def work() -> object:
        calculator = nannyml.PerformanceCalculator(
            y_true="actual",
            y_pred="prediction",
            y_pred_proba="score",
            timestamp_column_name="window_start",
            problem_type="classification_binary",
            metrics=list(CLASSES),
            chunk_period="D",
        )
        return calculator.fit(frame).calculate(frame).to_df()

    return work


def evidently_performance(folder: Path) -> Work:
    from evidently import BinaryClassification, DataDefinition, Dataset, Report
    from evidently.metrics import Accuracy, F1Score, LogLoss, Precision, Recall, RocAuc

    frame = _classified(folder)[["actual", "prediction", "score"]]
    roles = BinaryClassification(
        target="actual", prediction_labels="prediction", prediction_probas="score", pos_label=1
    )
    definition = DataDefinition(classification=[roles])
    metrics = (Accuracy, Precision, Recall, F1Score, RocAuc, LogLoss)

    def work() -> object:
        data = Dataset.from_pandas(frame, definition)
        return Report([metric() for metric in metrics]).run(data, None).dict()

    return work


TASKS: dict[str, Callable[[Path], Work]] = {
    "evidently_drift": evidently_drift,
    "nannyml_js": nannyml_js,
    "nannyml_ks": nannyml_ks,
    "popmon_drift": popmon_drift,
    "nannyml_performance": nannyml_performance,
    "evidently_performance": evidently_performance,
}


def main(task: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    work = TASKS[task](Path(folder))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    work()
    found: dict[str, Any] = {"seconds": time.perf_counter() - begin}
    found["cpu"] = time.process_time() - begin_cpu
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
