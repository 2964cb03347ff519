"""Models that give a row any number of labels: read in every form, judged, traced to rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec.files.loader import load_model, parse_model
from mlmon_dagster.store.state import metric_log, monitor_results
from mlmon_dagster.tables.rows import rows_of
from mlmon_dagster.trace.rows import OFF, excess
from tests.defs.small_model import drop, landing, make_project, windows_of_days
from tests.defs.task_models import DAYS, DECLARATIONS, NOW, frames_of, land
from tests.pipeline.looking import look

TASK, MODEL = "multilabel_classification", "multilabel"


@pytest.mark.slow
def test_labels_of_files_of_any_format_are_stored_and_measured_alike(tmp_path: Path) -> None:
    """Large files of JSON Lines are read another way than small ones."""
    spec = land(tmp_path, TASK, datasets=("production",))
    project = make_project(tmp_path, lambda: NOW)
    look(project, spec, "run")

    def measure(of: Project) -> pd.DataFrame:
        found = metric_log.newest(of.store.state, MODEL)
        return found[["window_start", "metric", "column_name", "slice_value", "value", "n"]]

    other = tmp_path / "other"
    path = other / "models" / f"{MODEL}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text((tmp_path / "models" / path.name).read_text().replace("*.parquet", "*"))
    for n, (name, predictions, actuals) in enumerate(frames_of(TASK, ())):
        folder = landing(other, "predictions", MODEL)
        folder.mkdir(parents=True, exist_ok=True)
        predictions["at"] = predictions["at"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if n == 0:
            predictions["topics"] = predictions["topics"].map(json.dumps)
            predictions.to_csv(folder / f"{name}.csv", index=False)
        else:
            # More than 64 kB are read by Arrow.
            padded = predictions.assign(note="-" * (400 if n == 1 else 1))
            padded.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
        drop(actuals.assign(truth=actuals["truth"].map(
            lambda text: [] if text == "[]" else text.split("|"))),
            landing(other, "actuals", MODEL) / f"{name}.parquet")  # fmt: skip
    twin = make_project(other, lambda: NOW)
    look(twin, load_model(path), "run")
    by = ["window_start", "metric", "column_name", "slice_value"]
    found, expected = (measure(one).sort_values(by, ignore_index=True) for one in (twin, project))
    assert len(expected) > 100
    pd.testing.assert_frame_equal(found, expected)
    rows = rows_of(twin.store, spec, windows_of_days(spec, DAYS[:1]), limit=240).table
    assert {"(none)", "billing|delivery"} <= set(rows["prediction"].to_pylist())
    twin.store.close()
    project.store.close()


@pytest.mark.slow
def test_a_bad_day_is_told_and_its_worst_rows_come_first(tmp_path: Path) -> None:
    spec = land(tmp_path, TASK)
    project = make_project(tmp_path, lambda: NOW)
    look(project, spec, "run")
    found = monitor_results.newest(project.store.state, MODEL, family="performance")
    found = found[found["metric"] == "micro_f1"]
    said = dict(zip(found["window_start"].dt.date, found["message"], strict=True))
    assert said[DAYS[-1]].startswith("Micro F1 is 0.4")
    rows = rows_of(project.store, spec, windows_of_days(spec, DAYS[-1:]), limit=5).table
    assert set(rows["off_by"].to_pylist()) == {1.0}
    project.store.close()


def test_rows_are_off_by_the_labels_that_are_in_one_set_only() -> None:
    spec = parse_model(DECLARATIONS[TASK].replace("MODEL", MODEL).replace("TASK", TASK))
    rows = pd.DataFrame(
        {
            "prediction": ["billing", "billing|returns", "(none)", None],
            "actual": ["billing", "delivery", "returns", "returns"],
        }
    )
    found = excess(spec, rows, {})
    assert found is not None
    losses, said = found
    assert (losses + 4 / 3).tolist() == pytest.approx([0, 3, 1])
    assert said == OFF


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("classes: [billing, delivery, returns]\n", "", "a multilabel model needs classes"),
        ("classes: [billing", "classes: ['a|b'", "'a|b' cannot name a label"),
        ("classes: [billing", "classes: [delivery", "at least two different classes are needed"),
        ("prediction: topics", "score: p", "needs columns.prediction, the labels it gave"),
        ("micro_f1", "roc_auc", "roc_auc is for binary_classification"),
    ],
)
def test_a_wrong_declaration_is_refused(before: str, after: str, said: str) -> None:
    declared = DECLARATIONS[TASK].replace("MODEL", MODEL).replace("TASK", TASK)
    with pytest.raises(ConfigError, match=said.replace("|", r"\|")):
        parse_model(declared.replace(before, after))
