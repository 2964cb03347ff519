"""Clusters of two workers at an address: what doctor says of them, and a whole run on them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest

from mlmon_dagster.project import project_from_environment
from mlmon_dagster.store.state import metric_log, monitor_results
from tests.defs.small_model import (
    DAYS,
    MODEL,
    NOW,
    VARIABLES,
    land_days,
    land_validation,
    write_declaration,
)
from tests.engines import needs
from tests.objects.server import S3Server

MLMON = [sys.executable, "-c", "from mlmon_dagster.cli import main; main()"]
OF_ENGINES = ("PYSPARK", "RAY_", "MLMON_ENGINE", *VARIABLES)
MADE_ANEW = ["id", "run_id", "computed_at", "created_at", "config_hash"]
Variables = dict[str, str]


@contextmanager
def started(words: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=file)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # it ignores what it was told to ignore at its start
                process.kill()
                process.wait()


def find_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(log: Path, text: str) -> None:
    for _ in range(600):
        if text in log.read_text():
            return
        time.sleep(0.2)
    raise AssertionError(f"{text!r} is not in {log.read_text()[-2000:]}")


def make_environment() -> Variables:
    """Return the environment of this process without what names an engine or a store."""
    return {k: v for k, v in os.environ.items() if not k.startswith(OF_ENGINES)}


@contextmanager
def spark(folder: Path, known: Variables) -> Iterator[Variables]:
    """Run a master and two workers whose ``python3`` is broken; yield the variables of a driver."""
    import pyspark

    home = Path(pyspark.__file__).parent
    broken = folder / "bin" / "python3"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'not this Python' >&2\nexit 7\n")
    broken.chmod(0o755)
    environment = known | {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    of_worker = environment | {"PATH": f"{broken.parent}:{environment['PATH']}"}
    port = find_port()
    address = f"spark://127.0.0.1:{port}"
    program = [str(home / "bin" / "spark-class")]
    package = "org.apache.spark.deploy"
    here = ["--host", "127.0.0.1", "--webui-port", "0"]
    work = ["--cores", "1", "--memory", "1g"]
    log = folder / "master.log"
    with ExitStack() as stack:
        master = [*program, f"{package}.master.Master", "--port", str(port), *here]
        stack.enter_context(started(master, environment, log))
        wait_for(log, "New state: ALIVE")
        for name in ("one", "two"):
            log = folder / f"{name}.log"
            its = ["--work-dir", str(folder / name)]
            worker = [*program, f"{package}.worker.Worker", *here, *work, *its, address]
            stack.enter_context(started(worker, of_worker, log))
            wait_for(log, "Successfully registered with master")
        yield {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "MLMON_ENGINE": address}


@contextmanager
def ray(folder: Path, known: Variables) -> Iterator[Variables]:
    """Run a head and another node; yield the variables of a driver."""
    program = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus", "1"]
    open_to_all = {"RAY_AUTH_MODE": "disabled"}
    environment = known | open_to_all | {"RAY_USAGE_STATS_ENABLED": "0"}
    address = f"127.0.0.1:{find_port()}"
    small = ["--object-store-memory", str(100 * 1024**2)]
    head = ["--head", "--port", address.rpartition(":")[2], "--include-dashboard", "false"]
    with ExitStack() as stack:
        for name, its in (("head", head), ("node", ["--address", address])):
            log = folder / f"{name}.log"
            stack.enter_context(started([*program, *small, *its], environment, log))
            wait_for(log, "Ray runtime started")
        yield open_to_all | {"MLMON_ENGINE": "ray", "RAY_ADDRESS": address}


Cluster = Callable[[Path, Variables], AbstractContextManager[Variables]]
CLUSTERS = pytest.mark.parametrize("cluster", [spark, ray], ids=lambda cluster: cluster.__name__)
pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("engines")]


def run_mlmon(
    folder: Path, environment: Variables, *words: str
) -> subprocess.CompletedProcess[str]:
    asked = [*MLMON, "--project", str(folder), "--now", NOW.isoformat(), *words]
    return subprocess.run(asked, env=environment, capture_output=True, text=True)


def make_world(folder: Path) -> None:
    """Write a project whose days all go to the engine that the environment names."""
    write_declaration(folder)
    declared = folder / "models" / f"{MODEL}.yaml"
    declared.write_text(f"{declared.read_text()}compute: {{at_least: 0}}\n")
    land_validation(folder)
    land_days(folder, *DAYS[:4])


def read_all(folder: Path, environment: Variables) -> dict[str, pd.DataFrame]:
    """Return the metrics and the verdicts of a project, without what every run makes anew."""
    project = project_from_environment(folder, environ=environment)
    found = {
        "metrics": metric_log.newest(project.store.state, MODEL),
        "verdicts": monitor_results.newest(project.store.state, MODEL),
    }
    project.store.close()
    return {name: rows.drop(columns=MADE_ANEW, errors="ignore") for name, rows in found.items()}


@CLUSTERS
def test_a_run_on_two_workers_with_its_store_in_a_bucket_equals_one_in_this_process(
    cluster: Cluster, tmp_path: Path
) -> None:
    needs(cluster.__name__)
    known = make_environment()
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        make_world(folder)
    ended = run_mlmon(here, known, "run", MODEL)
    assert ended.returncode == 0, ended.stderr
    bucket = S3Server()
    bucket.make(cluster.__name__)
    remote = known | bucket.variables | {"MLMON_STORE": f"s3://{cluster.__name__}/store"}
    try:
        with cluster(tmp_path, remote) as named:
            ended = run_mlmon(there, remote | named, "run", MODEL)
            doctor = run_mlmon(there, remote | named, "doctor", "--engine", "--format", "json")
        assert ended.returncode == 0, ended.stderr
        found = read_all(there, remote)
    finally:
        bucket.stop()

    expected = read_all(here, known)
    for name, rows in expected.items():
        assert len(rows) > 50
        keys = [str(name) for name in rows if name not in ("value", "lower", "upper")]
        pd.testing.assert_frame_equal(
            *(r.sort_values(keys, ignore_index=True) for r in (found[name], rows)), rtol=1e-9
        )
    workers = [json.loads(line) for line in doctor.stdout.splitlines()]
    assert doctor.returncode == 0, doctor.stderr
    assert [worker["host"] for worker in workers] == [socket.gethostname()] * 2
    assert len({worker["process"] for worker in workers}) == 2
    assert all(worker["sees_store"] and not worker["problem"] for worker in workers)


def test_a_worker_without_the_package_says_so(tmp_path: Path) -> None:
    needs("spark")
    known = make_environment()
    make_world(tmp_path)
    venv.create(tmp_path / "bare")
    bare = {"PYSPARK_PYTHON": str(tmp_path / "bare" / "bin" / "python3"), "PYTHONPATH": ""}

    with spark(tmp_path, known | {"PYTHONPATH": ""}) as named:
        doctor = run_mlmon(tmp_path, known | named | bare, "doctor", "--engine")
        ended = run_mlmon(tmp_path, known | named | bare, "run", MODEL)

    for said in (doctor.stdout, ended.stdout + ended.stderr):
        assert "lacks packages: mlmon-dagster not installed there" in said
        assert "pip install mlmon-dagster" in said
    assert doctor.returncode == ended.returncode == 1
