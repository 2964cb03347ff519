"""A run of many models: each computed, judged and told as if it had a run of its own."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as COMPLETED,
)

from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.delivery import observe_dagster
from mlmon_dagster.defs.instance import is_in_flight, models_of
from mlmon_dagster.pipeline.plan import MAX_MODELS_PER_RUN, MAX_ROWS_PER_RUN, Request, in_runs
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.state import window_state
from tests.defs.small_model import FIRST, MODEL, NOW, customers, drop, landing, write_declaration
from tests.defs.worlds import opened

pytestmark = pytest.mark.slow

DAY = FIRST + dt.timedelta(days=3)
MODELS = {MODEL: ("UTC", FIRST), "berlin": ("Europe/Berlin", DAY), "spoilt": ("UTC", FIRST)}


def request(spec: ModelSpec, windows: tuple[Window, ...], **more: int) -> Request:
    return Request(spec, windows, ("drift",), f"{spec.model}:{len(windows)}", **more)


def test_what_shares_its_windows_shares_a_run_within_bounds(tmp_path: Path) -> None:
    specs = [write_declaration(tmp_path, f"m{n}") for n in range(MAX_MODELS_PER_RUN + 1)]
    first, second = complete_windows(specs[0].time, NOW)[:2]

    def together(*requests: Request) -> list[list[str]]:
        return [[one.spec.model for one in run] for run in in_runs(requests)]

    every = [request(spec, (first,)) for spec in specs]
    assert [len(run) for run in in_runs(every)] == [MAX_MODELS_PER_RUN, 1]
    a, b, c = specs[:3]
    assert together(request(a, (first,)), request(b, (second,)), request(c, (first,))) == [
        ["m0", "m2"],
        ["m1"],
    ]
    tried = request(b, (first,), attempt=2)
    assert together(request(a, (first,)), tried, request(c, (first,))) == [["m1"], ["m0", "m2"]]
    heavy = b.model_copy(update={"run_tags": {"dagster/priority": "5"}})
    assert together(*(request(spec, (first,)) for spec in (a, heavy, c))) == [["m0", "m2"], ["m1"]]
    large = [request(spec, (first,), n_rows=MAX_ROWS_PER_RUN // 2 + 1) for spec in (a, b)]
    assert together(*large, request(c, (first,))) == [["m0"], ["m1", "m2"]]


def test_a_model_that_fails_in_a_run_of_many_fails_alone_and_is_told(tmp_path: Path) -> None:
    for model, (zone, start) in MODELS.items():
        write_declaration(tmp_path, model, start, zone)
        drop(customers(DAY, n=60)[0], landing(tmp_path, "predictions", model) / "day.parquet")
    with opened(tmp_path) as world:
        [asked] = world.requests()
        for file in tmp_path.glob("**/event_log/spoilt/**/*.parquet"):
            file.write_bytes(b"PAR1")
        report = world.launcher.run(dict(asked.tags), asked.asset_selection or [])
        run = world.instance.get_run_by_id(report.run_id)
        assert run is not None
        assert models_of(run) == set(MODELS)
        assert report.errors
        assert all("event_log/spoilt" in error for error in report.errors)

        engine = world.project.store.state
        key = DAY.isoformat()
        for spec in world.specs:
            is_well = spec.model != "spoilt"
            computed = [s.n for s in window_state.load(engine, spec.model).values() if s.n]
            assert computed == ([60] if is_well else [])
            for name in windowed_of(spec):
                shown = world.instance.get_materialized_partitions(asset_key(spec, name))
                assert shown == ({key} if is_well else set())
            check = dg.AssetCheckKey(asset_key(spec, "drift"), "drift")
            told = world.instance.event_log_storage.get_asset_check_execution_history(check, 9)
            assert [one.partition for one in told if one.status in COMPLETED] == [key] * is_well
            assert not is_in_flight(world.instance, spec.model)

        assert observe_dagster(world.project, world.specs, world.instance, NOW) == 1
        again = world.requests()
        assert [models_of_tags(one.tags) for one in again] == [["spoilt"]]


def models_of_tags(tags: object) -> list[str]:
    assert isinstance(tags, dict)
    return [tags["mlmon/model"]]
