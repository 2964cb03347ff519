"""Profiles are the same wherever they are computed, and whatever dies on the way."""

from __future__ import annotations

import datetime as dt
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from mlmon_dagster.engines import chosen, engine
from mlmon_dagster.engines.chosen import engine_for, try_engine
from mlmon_dagster.engines.engine import Local, received, run
from mlmon_dagster.errors import ConfigError, EngineError, StoreError
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.pipeline.rebuild import build_window_profiles
from mlmon_dagster.profiles import (
    ProfileRows,
    baseline_in_force,
    build_profiles,
    ensure_baseline,
    profile_in_parts,
)
from mlmon_dagster.project import Project, _on_worker, project_from_environment
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import LIVE
from mlmon_dagster.store.tables import inference_records
from mlmon_dagster.work import Work
from tests.conftest import make_events, make_spec, window
from tests.engines import needs
from tests.engines.dying import DiesOnce, refused
from tests.profiles.comparing import assert_equal

# One session of each engine, in one process.
pytestmark = pytest.mark.xdist_group("engines")
NOW = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
SPEC = make_spec(slices=["region"])
WINDOWS = [window(SPEC, day) for day in DAYS]
CLUSTERS = [pytest.param(name, marks=pytest.mark.proof) for name in ("ray", "spark")]


class World(NamedTuple):
    """A project with four days of records in four files, and their profiles, made at once."""

    project: Project
    whole: dict[str, ColumnStatistics]

    @property
    def rows(self) -> ProfileRows:
        binnings = baseline_in_force(self.project.store, SPEC).binnings
        return ProfileRows(self.project.tables, SPEC, binnings)

    def sources(self) -> list[str]:
        return self.project.store.inference_records(SPEC).parts(WINDOWS, LIVE).sources


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("engines")
    project = Project(folder, str(folder / "store"), now=lambda: NOW)
    store = project.store
    log = store.event_log(SPEC)
    for dataset in ("validation", "production"):
        for seed, day in enumerate(DAYS):
            events, actuals = make_events(SPEC, day, 300, dataset=dataset, seed=seed)
            log.append("predictions", events, [f"p{dataset}{day}"])
            log.append("actuals", actuals, [f"a{dataset}{day}"])
    baseline = ensure_baseline(store, SPEC, NOW)
    records = store.inference_records(SPEC)
    records.rebuild(WINDOWS)
    whole = build_profiles(store, SPEC, records.from_sql(WINDOWS, LIVE), baseline.binnings)
    yield World(project, whole)
    store.close()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is a part, and no work is too small to be done elsewhere."""
    monkeypatch.setattr(inference_records, "ROWS_A_PART", 1)
    monkeypatch.setattr(chosen, "SMALL", 1)


def assert_same(found: dict[str, ColumnStatistics], world: World) -> None:
    assert found.keys() == world.whole.keys()
    for name, stats in world.whole.items():
        assert_equal(found[name], stats, sums=1e-9)


@pytest.mark.parametrize("name", ["local", *CLUSTERS])
def test_every_engine_stores_the_profiles_of_all_rows_at_once(
    world: World, small_parts: None, name: str
) -> None:
    needs(name)
    project = replace(world.project, engine=name)
    assert len(world.sources()) == len(DAYS)
    assert engine_for(project, SPEC, 1).name == name

    build_window_profiles(Work(project, SPEC, tuple(WINDOWS), NOW, "run", False))

    assert_same(baseline_in_force(project.store, SPEC).profiles(), world)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_part_whose_worker_is_killed_is_done_again_and_counted_once(
    world: World, small_parts: None, name: str, tmp_path: Path
) -> None:
    needs(name)
    sources = world.sources()
    cluster = engine_for(replace(world.project, engine=name), SPEC, 1)

    def spread(work: ProfileRows, parts: list[str]) -> Iterator[pa.Table]:
        return cluster.map(DiesOnce(tmp_path, work, parts[-1]), parts)

    found = profile_in_parts(world.rows, sources, sources[0], spread)

    assert (tmp_path / "died").exists()
    assert_same(found, world)
    with pytest.raises(EngineError, match=r"on worker .*StoreError: part [abc] is damaged"):
        list(cluster.map(refused, ["a", "b", "c"]))


def test_work_on_less_than_a_million_rows_stays_in_this_process(world: World) -> None:
    project = replace(world.project, engine="ray://nowhere.invalid:1")

    assert isinstance(engine_for(project, SPEC, 999_999), Local)
    assert engine_for(project, SPEC, 1_000_000).name == "ray"


@pytest.mark.parametrize(
    ("declared", "environment", "expected"),
    [
        (None, "", "local"),
        (None, "ray", "ray"),
        (None, "sc://host:15002/;token=secret", "spark"),
        ("local", "ray://head:10001", "local"),
        ("spark", "ray://head:10001", "spark"),
    ],
)
def test_the_spec_counts_before_the_environment(
    declared: str | None, environment: str, expected: str
) -> None:
    spec: ModelSpec = make_spec(compute={"engine": declared})
    project = project_from_environment(environ={"MLMON_ENGINE": environment})

    assert engine_for(project, spec, 10**6).name == expected


class Elsewhere:
    """Does work as another machine does, on whose disk another folder is at the store's path."""

    name = "spark"

    def __init__(self, root: Path, *, is_there: bool) -> None:
        self._root, self._is_there = root, is_there

    def map(self, work: Callable[[int], pa.Table], parts: Sequence[int]) -> Iterator[pa.Table]:
        sent = pickle.dumps(work)
        _on_worker.cache_clear()  # the process there is another one
        away = self._root.rename(self._root.with_name("away"))
        if self._is_there:
            self._root.mkdir()
        try:
            yield from [received(run(pickle.loads(sent), part)) for part in parts]
        finally:
            shutil.rmtree(self._root, ignore_errors=True)
            away.rename(self._root)


@pytest.mark.parametrize(
    ("is_there", "said"), [(True, r"see 0 tables in the store, this process [1-9]"),
                           (False, r"no folder .*store on this machine")],
)  # fmt: skip
def test_workers_that_do_not_see_the_store_are_told(
    world: World, is_there: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(str(world.project.store.root))
    engine = Elsewhere(root, is_there=is_there)
    monkeypatch.setattr(chosen, "_cluster", lambda _name, _address: engine)

    assert "local: workers on" in try_engine(world.project, "local")
    with pytest.raises(EngineError, match=said):
        try_engine(world.project, "spark")


def test_an_unknown_engine_is_refused_without_what_may_be_a_token() -> None:
    project = project_from_environment(environ={"MLMON_ENGINE": "dask://user:secret@host"})

    with pytest.raises(ConfigError, match="'dask'; expected local, ray, spark") as refusal:
        engine_for(project, SPEC, 10)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(("package", "is_refused"), [("mlmon-dagster", True), ("numpy", False)])
def test_other_versions_on_a_worker_are_said(
    package: str,
    is_refused: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as there:
        there.setattr(engine, "versions", lambda: engine_versions | {package: "0.0.7"})
        content = run(lambda _: pa.table({"n": [1]}), "a")

    if is_refused:
        with pytest.raises(EngineError, match=rf"{package} 0\.0\.7 there.*Install on the workers"):
            received(content)
    else:
        assert received(content).to_pydict() == {"n": [1]}
        assert f"{package} 0.0.7 there" in caplog.text


engine_versions = engine.versions()


def test_tables_go_to_a_worker_without_credentials_and_say_which_folder_is_missing(
    tmp_path: Path,
) -> None:
    options = {"aws_secret_access_key": "secret"}
    project = Project(tmp_path, str(tmp_path / "store"), storage_options=options)
    content = pickle.dumps(project.tables)
    assert b"secret" not in content
    shutil.rmtree(tmp_path / "store")

    with pytest.raises(StoreError, match=r"no folder .*store on this machine"):
        pickle.loads(content)()
