"""Workers of a Spark cluster at an address run the Python that has this package, as doctor says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.engines import needs

DRIVER = """
import sys
from pathlib import Path
import pyarrow as pa
from mlmon_dagster.commands.doctor import _engines
from mlmon_dagster.engines.chosen import _cluster
from mlmon_dagster.project import Project

def name_python(part):
    return pa.table({"python": [sys.executable], "part": [part]})

address, folder = sys.argv[1:]
project = Project(Path(folder), folder + "/store", engine=address)
for finding in _engines(project):
    print(finding.is_fine, finding.found)
for table in _cluster("spark", address).map(name_python, [1, 2]):
    print(table.to_pylist())
"""


@contextmanager
def started(words: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
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


def free_port() -> int:
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


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run a master and a worker whose ``python3`` is broken; yield address and environment."""
    import pyspark

    home = Path(pyspark.__file__).parent
    broken = folder / "bin" / "python3"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'not this Python' >&2\nexit 7\n")
    broken.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if "PYSPARK" not in name}
    environment |= {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    of_worker = environment | {"PATH": f"{broken.parent}:{environment['PATH']}"}
    port = free_port()
    address = f"spark://127.0.0.1:{port}"
    program = [str(home / "bin" / "spark-class")]
    package = "org.apache.spark.deploy"
    here = ["--host", "127.0.0.1", "--webui-port", "0"]
    work = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / "work")]
    logs = [folder / "master.log", folder / "worker.log"]
    with ExitStack() as stack:
        master = [*program, f"{package}.master.Master", "--port", str(port), *here]
        stack.enter_context(started(master, environment, logs[0]))
        wait_for(logs[0], "New state: ALIVE")
        worker = [*program, f"{package}.worker.Worker", *here, *work, address]
        stack.enter_context(started(worker, of_worker, logs[1]))
        wait_for(logs[1], "Successfully registered with master")
        yield address, environment


@pytest.mark.proof
def test_workers_of_an_addressed_cluster_run_this_python(tmp_path: Path) -> None:
    needs("spark")
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)

    with cluster(tmp_path) as (address, environment):
        found = subprocess.run(
            [sys.executable, "-c", DRIVER, address, str(project)],
            env=environment,
            capture_output=True,
            text=True,
        )

    assert found.returncode == 0, found.stderr[-3000:]
    said, *lines = found.stdout.splitlines()
    host = socket.gethostname()
    assert said == f"True spark: workers on {host} read the store's 0 tables"
    assert lines == [str([{"python": sys.executable, "part": part}]) for part in (1, 2)]
