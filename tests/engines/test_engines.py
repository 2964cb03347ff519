"""Profiles are the same wherever they are computed, and whatever dies on the way."""

from __future__ import annotations

import datetime as dt
import pickle
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from mlmon_dagster.engines import chosen, worker
from mlmon_dagster.engines.chosen import engine_for
from mlmon_dagster.engines.engine import Local, Reply, received
from mlmon_dagster.engines.trying import try_workers
from mlmon_dagster.engines.worker import run
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
from mlmon_dagster.work import Work
from tests.conftest import make_events, make_spec, window
from tests.engines import needs
from tests.engines.dying import DiesOnce, refused
from tests.profiles.comparing import assert_equal

# One session of each engine, in one process.
pytestmark = pytest.mark.xdist_group("engines")
NOW = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
SPEC = make_spec(slices=["region"], compute={"at_least": 0})  # every file is a part
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


def assert_same(found: dict[str, ColumnStatistics], world: World) -> None:
    assert found.keys() == world.whole.keys()
    for name, stats in world.whole.items():
        assert_equal(found[name], stats, sums=1e-9)


@pytest.mark.parametrize("name", ["local", *CLUSTERS])
def test_every_engine_stores_the_profiles_of_all_rows_at_once(world: World, name: str) -> None:
    needs(name)
    project = replace(world.project, engine=name)
    assert len(world.sources()) == len(DAYS)
    assert engine_for(project, SPEC, 1).name == name

    build_window_profiles(Work(project, SPEC, tuple(WINDOWS), NOW, "run", False))

    assert_same(baseline_in_force(project.store, SPEC).profiles(), world)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_part_whose_worker_is_killed_is_done_again_and_counted_once(
    world: World, name: str, tmp_path: Path
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


@pytest.mark.parametrize(
    ("declared", "least"), [({}, 1_000_000), ({"at_least": 500}, 500), ({"at_least": 0}, 0)]
)
def test_work_on_few_rows_stays_in_this_process(
    world: World, declared: dict[str, int], least: int
) -> None:
    project = replace(world.project, engine="ray://nowhere.invalid:1")
    spec = make_spec(compute=declared)

    assert engine_for(project, spec, least).name == "ray"
    if least:
        assert isinstance(engine_for(project, spec, least - 1), Local)


class Noted:
    """An engine of this process that notes how many parts it got."""

    name = "spark"

    def __init__(self) -> None:
        self.parts: list[int] = []

    def map(self, work: Callable[[str], pa.Table], parts: Sequence[str]) -> Iterator[pa.Table]:
        self.parts.append(len(parts))
        return map(work, parts)


@pytest.mark.parametrize(
    ("declared", "parts"),
    [
        ({"compute": {"engine": "spark", "at_least": 0}}, [4, 1]),
        ({"compute": {"engine": "spark", "at_least": 400}}, [4]),  # a day has 300 rows
        ({"compute": {"engine": "spark", "at_least": 1_000}}, [2]),
        ({"compute": {"engine": "spark"}}, []),
        ({"compute": {"engine": "local", "at_least": 0}}, []),
    ],
)
def test_small_work_goes_to_an_engine_where_the_spec_says_so(
    world: World,
    declared: dict[str, dict[str, str | int]],
    parts: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted = Noted()
    monkeypatch.setattr(chosen, "_cluster", lambda _name, _address: noted)
    spec = make_spec(slices=["region"], **declared)

    for windows in (WINDOWS, WINDOWS[:1]):
        build_window_profiles(Work(world.project, spec, tuple(windows), NOW, "run", False))

    assert noted.parts == parts
    assert_same(baseline_in_force(world.project.store, spec).profiles(), world)


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

    def ask_workers(self, work: Callable[[int], pa.Table]) -> list[Reply]:
        sent = pickle.dumps(work)
        _on_worker.cache_clear()  # the process there is another one
        away = self._root.rename(self._root.with_name("away"))
        if self._is_there:
            self._root.mkdir()
        try:
            return [Reply.read(run(sent, 0))]
        finally:
            shutil.rmtree(self._root, ignore_errors=True)
            away.rename(self._root)


@pytest.mark.parametrize(
    ("is_there", "said"),
    [
        (True, r"sees 0 tables in the store, this process [1-9]\d*, and reads 0 rows of one, this"),
        (False, r"no folder .*store on this machine"),
    ],
)
def test_workers_that_do_not_see_the_store_are_told(
    world: World, is_there: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(str(world.project.store.root))
    engine = Elsewhere(root, is_there=is_there)
    monkeypatch.setattr(chosen, "_cluster", lambda _name, _address: engine)

    [here], [there] = try_workers(world.project, "local"), try_workers(world.project, "spark")

    assert here.sees_store
    assert not here.problem
    assert not there.sees_store
    assert re.search(said, there.problem)


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_worker_does_a_part_and_says_what_it_is(world: World, name: str) -> None:
    needs(name)

    tried = try_workers(world.project, name)

    assert [(one.problem, one.warning, one.sees_store) for one in tried] == [("", "", True)]
    assert dict(tried[0].reply.installed) == worker.read_versions()
    assert tried[0].reply.host == socket.gethostname()


def test_an_unknown_engine_is_refused_without_what_may_be_a_token() -> None:
    project = project_from_environment(environ={"MLMON_ENGINE": "dask://user:secret@host"})

    with pytest.raises(ConfigError, match="'dask'; expected local, ray, spark") as refusal:
        engine_for(project, SPEC, 10)
    assert "secret" not in str(refusal.value)


def count_rows(_part: int) -> pa.Table:
    return pa.table({"n": [1]})


def from_worker_with(versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Reply:
    """Return what a worker sends that has some other versions."""
    mine = worker.read_versions()
    with monkeypatch.context() as there:
        there.setattr(worker, "read_versions", lambda: mine | versions)
        return Reply.read(run(pickle.dumps(count_rows), 0))


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        (
            "python",
            "3.9",
            r"other versions .*python 3\.9 there.*what is here: Python 3\.\d+\.$",
        ),
        ("mlmon-dagster", "0.0.7", r"mlmon-dagster 0\.0\.7 there.*pip install mlmon-dagster"),
        (
            "duckdb",
            "not installed",
            r"lacks packages: duckdb not installed there.*install duckdb=",
        ),
    ],
)
def test_a_worker_that_cannot_do_the_work_is_refused_with_what_to_install(
    package: str, version: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=said) as refusal:
        received(from_worker_with({package: version}, monkeypatch))
    assert str(refusal.value).startswith(f"Worker {socket.gethostname()} ")


def test_a_worker_whose_packages_are_others_works_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = received(from_worker_with({"numpy": "0.0.7"}, monkeypatch))

    assert rows.to_pydict() == {"n": [1]}
    assert "numpy 0.0.7 there" in caplog.text


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
