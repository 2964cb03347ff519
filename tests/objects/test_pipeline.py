"""The whole pipeline with store and landing in a bucket gives what it gives on one machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.spec import load_models
from tests.defs.small_model import (
    DAYS,
    MODEL,
    NOW,
    VARIABLES,
    land_fortnight,
    make_project,
    write_declaration,
)
from tests.defs.worlds import Clock, World
from tests.objects.server import S3Server

_NOT_COMPARED = ["run_id", "computed_at"]


def _process(world: World) -> tuple[list[str], list[str], list[str]]:
    """Materialize three days; return records, metrics and verdicts in a fixed order."""
    report = world.launcher.materialize(world.spec, ("event_log", "baseline"))
    assert report.is_success, report.errors
    report = world.compute(DAYS[:3])
    assert report.is_success, report.errors
    records = world.project.store.inference_records(world.spec).read().to_pylist()
    metrics = world.metrics().drop(columns=_NOT_COMPARED, errors="ignore")
    verdicts = world.verdicts("drift", DAYS[2])
    names = ["monitor_id", "status", "value"]
    shown = verdicts[[name for name in names if name in verdicts]]
    return (
        sorted(map(repr, records)),
        sorted(metrics.to_csv(index=False, float_format="%.9g").splitlines()),
        sorted(shown.to_csv(index=False, float_format="%.9g").splitlines()),
    )


@pytest.mark.proof
def test_pipeline_in_a_bucket_equals_the_pipeline_in_a_folder(
    s3: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    folders = {"folder": tmp_path / "folder", "bucket": tmp_path / "bucket"}
    found = {}
    for kind, folder in folders.items():
        write_declaration(folder)
        land_fortnight(folder)
        project = make_project(folder, Clock(NOW))
        if kind == "bucket":
            for path in (folder / "landing").rglob("*.parquet"):
                s3.put(bucket, path.relative_to(folder).as_posix(), path.read_bytes())
                path.unlink()
            declared = folder / "models" / f"{MODEL}.yaml"
            text = declared.read_text().replace("path: landing/", f"path: s3://{bucket}/landing/")
            declared.write_text(text)
            project = replace(
                project, store_root=f"s3://{bucket}/monitoring", storage_options=s3.options
            )
        with open_instance(project) as instance:
            specs = load_models(project.models_folder)
            launcher = Launcher(project, specs, instance)
            found[kind] = _process(World(project, Clock(NOW), specs, instance, launcher))
        project.store.close()

    for there, here in zip(found["bucket"], found["folder"], strict=True):
        assert set(there) ^ set(here) == set()
    assert all(map(len, found["bucket"]))
    local = {p.name for p in (folders["bucket"] / ".mlmon" / "work").rglob("*") if p.is_file()}
    assert all(name.startswith("state.db") for name in local), local
