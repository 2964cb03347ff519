"""The prediction logger where processes fork, exit and are killed, and in an empty environment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process on some code; it says things on its standard output."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(code: str, folder: Path) -> None:
    """Run a process to its end, which must be a good one."""
    with started(code, folder) as process:
        pass
    assert process.returncode == 0


def ids_in(folder: Path) -> list[str]:
    """Return the prediction ids of all landing files; each line must be whole."""
    return [
        json.loads(line)["prediction_id"]
        for path in folder.glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]


def test_a_killed_process_loses_at_most_the_declared_batch(tmp_path: Path) -> None:
    code = """
        import sys, time
        from mlmon_dagster import PredictionLogger
        logger = PredictionLogger(sys.argv[1], max_rows=50, max_seconds=3600)
        for i in range(1_999):
            logger.log(prediction_id=str(i), features={"x": i})
        while logger.stats().n_written < 1_950:
            time.sleep(0.01)
        print(logger.stats().n_queued, flush=True)
        time.sleep(60)
    """
    with started(code, tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "49\n"
        process.send_signal(signal.SIGKILL)

    assert sorted(map(int, ids_in(tmp_path))) == list(range(1_950))


def test_a_process_killed_while_it_writes_leaves_only_whole_files(tmp_path: Path) -> None:
    code = """
        import sys
        from mlmon_dagster import PredictionLogger
        logger = PredictionLogger(sys.argv[1], max_rows=20, max_queue=1000)
        i = 0
        while True:
            i += logger.log(prediction_id=str(i), features={"x": "y" * 200})
            if i == 2000:
                print(i, flush=True)
    """
    with started(code, tmp_path) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)

    found = sorted(map(int, ids_in(tmp_path)))
    assert found == list(range(len(found)))  # nothing is missing in between
    assert len(found) >= 2000 - 1000 - 20


def test_sigterm_loses_nothing_where_it_is_turned_into_an_exit(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        from mlmon_dagster import PredictionLogger
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        logger = PredictionLogger(sys.argv[1], max_seconds=3600)
        logger.log(prediction_id="a")
        print("ready", flush=True)
        time.sleep(60)
    """
    with started(code, tmp_path) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert ids_in(tmp_path) == ["a"]


def test_preforked_workers_write_their_own_rows_once_each(tmp_path: Path) -> None:
    # As gunicorn does with preload: the application, and its logger, are made before the fork.
    code = """
        import os, sys
        from mlmon_dagster import PredictionLogger
        logger = PredictionLogger(sys.argv[1], max_seconds=3600)
        logger.log(prediction_id="parent-before")
        workers = []
        for worker in range(4):
            pid = os.fork()
            if not pid:
                for i in range(100):
                    logger.log(prediction_id=f"{worker}-{i}")
                sys.exit(0)
            workers.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in workers)
        logger.log(prediction_id="parent-after")
    """
    run(code, tmp_path)
    expected = [f"{worker}-{i}" for worker in range(4) for i in range(100)]
    assert sorted(ids_in(tmp_path)) == sorted([*expected, "parent-before", "parent-after"])


def test_children_of_multiprocessing_write_their_rows_at_their_end(tmp_path: Path) -> None:
    code = """
        import multiprocessing, sys
        from mlmon_dagster import PredictionLogger
        logger = PredictionLogger(sys.argv[1], max_seconds=3600)

        def work(worker):
            for i in range(50):
                logger.log(prediction_id=f"{worker}-{i}")

        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=work, args=(n,)) for n in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
    """
    run(code, tmp_path)
    assert sorted(ids_in(tmp_path)) == sorted(f"{n}-{i}" for n in range(3) for i in range(50))


def test_a_serving_image_needs_the_wheel_and_nothing_else(tmp_path: Path) -> None:
    build = f"import hatchling.build as b; print(b.build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty")
    python = tmp_path / "empty/bin/python"
    (packages,) = (tmp_path / "empty/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # which is how a wheel of Python alone is installed
        archive.extractall(packages)
    code = (
        "import importlib.util as u, sys\n"
        "assert u.find_spec('dagster') is u.find_spec('numpy') is None\n"
        "from mlmon_dagster import PredictionLogger\n"
        "PredictionLogger('landing').log(prediction_id='a', features={'x': 1})\n"
        "print(*sorted(m for m in sys.modules if m.startswith('mlmon_dagster')))"
    )
    done = subprocess.run(
        [python, "-I", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert ids_in(tmp_path / "landing") == ["a"]
    assert set(done.stdout.split()) == {
        "mlmon_dagster",
        *(f"mlmon_dagster.{m}" for m in ("landing_file", "logger")),
    }
