"""A thousand models in one project: what loading them, looking at them and a run of one cost.

Each model has eight features and a landing folder; each measurement is a process of its own. With
``--cycle N`` the first N of them get a day of 1,000 rows, which the planner's requests compute; the
time of all is calculated from it. With ``--daemon`` as well, Dagster's daemon does that, with as
many runs at once as there are cores, while all of it is watched.

    python -m benchmarks thousand [--models 1000] [--cycle 0] [--daemon]
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.table import Goal, Row, show
from mlmon_dagster.pipeline.plan import MAX_MODELS_PER_RUN
from mlmon_dagster.project import process_environment, project_from_environment

NOW = dt.datetime(2024, 3, 2, 9, tzinfo=dt.UTC)
DECLARED = """model: {name}
task: binary_classification
description: One of many.
owners: [team:bench]
time: {{zone: UTC, granularity: day, start: 2024-03-01}}
source:
  predictions: {{path: landing/{name}/predictions/*.parquet, settle: 0s}}
  actuals: {{path: landing/{name}/actuals/*.parquet, settle: 0s}}
columns: {{prediction_id: id, event_time: at, score: score, prediction: said, actual: truth,
  actual_time: known_at, model_version: version, latency_ms: latency_ms}}
features:
  amount: {{type: numeric}}
  age: {{type: numeric}}
  income: {{type: numeric}}
  tenure: {{type: numeric}}
  visits: {{type: numeric}}
  channel: {{type: categorical}}
  country: {{type: categorical}}
  device: {{type: categorical}}
slices: [channel]
"""
_IDLE_TICKS = 3
_LOOK, _PATIENCE = 60, 7200  # seconds: between two counts, and at most
ROOT = Path(__file__).parents[1]
BROKEN = "model: broken\ntask: guessing\n"


def declare(folder: Path, n_models: int) -> list[str]:
    """Write the declarations, and one that does not load; return the models' names."""
    (folder / "models").mkdir(parents=True)
    names = [f"m{n:04d}" for n in range(n_models)]
    for name in names:
        (folder / "models" / f"{name}.yaml").write_text(DECLARED.format(name=name))
        for stream in ("predictions", "actuals"):
            (folder / "landing" / name / stream).mkdir(parents=True)
    (folder / "models" / "broken.yaml").write_text(BROKEN)
    return names


def land(folder: Path, name: str, seed: int, n_rows: int = 1000) -> None:
    """Write one day of a model's predictions, and half of its ground truth."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    at = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(
        np.sort(rng.integers(0, 86400, n_rows)), unit="s"
    )
    score = rng.uniform(size=n_rows)
    frame = pd.DataFrame(
        {
            "id": [f"{name}-{n}" for n in range(n_rows)],
            "at": at,
            "score": score,
            "said": (score > 0.5).astype(int),
            "version": "1",
            "latency_ms": rng.gamma(2, 10, n_rows),
            **{
                feature: rng.normal(size=n_rows)
                for feature in ("amount", "age", "income", "tenure", "visits")
            },
            "channel": rng.choice(["web", "app", "shop"], n_rows),
            "country": rng.choice(["de", "fr", "us"], n_rows),
            "device": rng.choice(["phone", "desk"], n_rows),
        }
    )
    truth = frame.iloc[::2].assign(
        truth=(rng.uniform(size=(n_rows + 1) // 2) < score[::2]).astype(int),
        known_at=at[::2] + pd.Timedelta(hours=2),
    )
    place = folder / "landing" / name
    frame.to_parquet(place / "predictions" / "day.parquet", index=False)
    truth[["id", "truth", "known_at"]].to_parquet(place / "actuals" / "day.parquet", index=False)


def load(only: str) -> tuple[float, float]:
    """Load the code location as a run of one model does, or all of it; return CPU s and MB."""
    from mlmon_dagster.defs import instance

    wanted = frozenset([only]) if only else None
    instance.models_of_own_run = lambda: wanted  # type: ignore[assignment]
    from mlmon_dagster.definitions import defs

    defs.get_repository_def()
    return time.process_time(), _peak()


def ticks(n: int) -> list[tuple[float, int]]:
    """Let the planner look some times; return the seconds and requests of each."""
    import dagster as dg

    from mlmon_dagster.definitions import defs, project
    from mlmon_dagster.defs.instance import open_instance

    found = []
    with open_instance(project) as instance:
        for _ in range(n):
            context = dg.build_sensor_context(
                instance=instance, definitions=defs, sensor_name="mlmon_planner"
            )
            began = time.perf_counter()
            asked = defs.resolve_sensor_def("mlmon_planner").evaluate_tick(context)
            found.append((time.perf_counter() - began, len(asked.run_requests or [])))
    return found


def cycle(names: list[str]) -> tuple[float, float, int, float]:
    """Compute the day of some models, as the planner asks; return wall s, CPU s, days and MB."""
    from mlmon_dagster.definitions import models, project
    from mlmon_dagster.defs.instance import open_instance
    from mlmon_dagster.defs.launch import Launcher
    from mlmon_dagster.store.state import window_state

    with open_instance(project) as instance:
        launcher = Launcher(project, models, instance)
        began, used = time.perf_counter(), time.process_time()
        idle = 0
        while idle < _IDLE_TICKS:  # one may have had time for files alone
            found = [report.is_success for report in launcher.tick("mlmon_planner")]
            idle = 0 if any(found) else idle + 1
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    computed = [
        any(state.n for state in window_state.load(project.store.state, name).values())
        for name in names
    ]
    return seconds, cpu, sum(computed), _peak()


class Watched(NamedTuple):
    """What was seen while the daemon worked: seconds, days, longest and failed ticks, MB."""

    seconds: float
    n_done: int
    tick: float
    n_failed: int
    early: float
    late: float


def under_daemon(folder: Path, names: list[str]) -> Watched:
    """Let the daemon compute the day of some models, of which the first cannot be read."""
    from benchmarks.collect import free_port  # here, see `_watch`

    settings = (ROOT / "dagster.yaml").read_text()
    runs = settings.replace("max_concurrent_runs: 4", f"max_concurrent_runs: {os.cpu_count()}")
    (folder / "dagster.yaml").write_text(runs)
    variables = {
        "MLMON_PROJECT": str(folder), "DAGSTER_HOME": str(folder), "MLMON_NOW": NOW.isoformat()
    }  # fmt: skip
    command = [sys.executable, "-m", "mlmon_dagster.cli", "dev", "--port", str(free_port())]
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=process_environment() | variables, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            found = list(_watch(folder, process.pid, names))
            ticks = _in_own_process(folder, "ticks_so_far()")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    half = found[-1][0] / 2
    early = max((held for at, held, _ in found if at <= half), default=0.0)
    late = max((held for at, held, _ in found if at > half), default=0.0)
    return Watched(found[-1][0], found[-1][2], *ticks, early, late)


def _watch(folder: Path, pid: int, names: list[str]) -> Iterator[tuple[float, float, int]]:
    """Yield seconds, MB of all processes and days computed, until nothing is left to do."""
    # Here, since a process whose loading is measured has nothing but what a run imports.
    from benchmarks.memory import held_by

    began, n_done, looked = time.perf_counter(), 0, 0.0
    while True:
        held = held_by(pid) / 2**20
        at = time.perf_counter() - began
        if at - looked > _LOOK:
            n_done, n_open = _in_own_process(folder, f"so_far({names})")
            looked = at
            print(f"{at:.0f} s: {n_done} days, {n_open} runs", file=sys.stderr, flush=True)
            if (n_done == len(names) - 1 and not n_open) or at > _PATIENCE:
                yield at, held, n_done
                return
        yield at, held, n_done
        time.sleep(1)


def so_far(names: list[str]) -> tuple[int, int]:
    """Count the models whose day has metrics, and the runs that are not over."""
    import dagster as dg
    import sqlalchemy as sa
    from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

    from mlmon_dagster.defs.instance import open_instance
    from mlmon_dagster.store.state import schema

    project = project_from_environment()
    with open_instance(project) as instance:
        n_open = instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    series = schema.series.c
    with project.store.state.connect() as conn:  # one question: it shares the machine
        computed = conn.scalars(sa.select(series.model).where(series.metric == "roc_auc"))
        return len({*names} & {*computed}), n_open


def ticks_so_far() -> tuple[float, int]:
    """Return the longest tick of all sensors and schedules, in seconds, and how many failed."""
    from mlmon_dagster.defs.instance import open_instance

    longest, n_failed = 0.0, 0
    with open_instance(project_from_environment()) as instance:
        for state in instance.all_instigator_state():
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id):
                n_failed += tick.status.value == "FAILURE"
                longest = max(longest, (tick.end_timestamp or tick.timestamp) - tick.timestamp)
    return longest, n_failed


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_own_process(folder: Path, call: str) -> Any:
    """Evaluate a function of this module in a new process of the project."""
    code = f"from benchmarks.thousand import *; print({call})"
    environment = {"MLMON_PROJECT": str(folder), "MLMON_NOW": NOW.isoformat()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**process_environment(), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def measured(n_models: int, n_cycle: int, *, is_daemon: bool) -> Iterator[Row]:
    """Measure one thing after the other."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "project"
        names = declare(folder, n_models)
        if is_daemon:
            yield from _lived(folder, names[:n_cycle], n_models)
            return
        _in_own_process(folder, "ticks(1)")  # makes the state
        loaded = {}
        for name, only in (("all models loaded", ""), ("loaded in a run of one", names[0])):
            cpu, peak = _in_own_process(folder, f"load({only!r})")
            loaded[only] = cpu
            yield Row(name, (f"{cpu:.1f} s", "CPU"), Goal(cpu, 8.0, unit=" s"))
            yield Row(f"{name}, memory", (f"{peak:.0f} MB", ""), Goal(peak, 500, unit=" MB"))
        for number, (seconds, asked) in enumerate(_in_own_process(folder, "ticks(3)")):
            goal = Goal(seconds, 5.0, unit=" s") if number == 2 else None
            yield Row(
                f"look {number + 1} of the planner", (f"{seconds:.1f} s", f"{asked} runs"), goal
            )
        if n_cycle:
            yield from _cycled(folder, names[:n_cycle], n_models, loaded[names[0]])


def _land_all(folder: Path, names: list[str]) -> None:
    """Give models a day; the file of the first cannot be read."""
    for number, name in enumerate(names):
        land(folder, name, number)
    (folder / "landing" / names[0] / "predictions" / "day.parquet").write_bytes(b"PAR1 and no more")


def _lived(folder: Path, names: list[str], n_models: int) -> Iterator[Row]:
    """Measure the day of some models under the daemon."""
    _land_all(folder, names)
    found = under_daemon(folder, names)
    n, cores = len(names) - 1, f"{os.cpu_count()} cores"
    minutes = found.seconds / 60
    yield Row(
        "days computed beside a bad one",
        (f"{found.n_done} of {n}", ""),
        Goal(found.n_done, n, True),
    )
    whole = Goal(minutes * n_models / len(names), 30, unit=" min")
    yield Row(f"{len(names)} days under the daemon", (f"{minutes:.1f} min", cores))
    yield Row(f"day of {n_models} models", (f"{whole.value:.1f} min", cores), whole)
    yield Row("longest tick", (f"{found.tick:.0f} s", ""), Goal(found.tick, 60, unit=" s"))
    yield Row("ticks that failed", (str(found.n_failed), ""), Goal(found.n_failed, 0))
    yield Row("all processes, first half", (f"{found.early:.0f} MB", ""))
    flat = Goal(found.late / max(found.early, 1), 1.1, unit=" x")
    yield Row("all processes, second half", (f"{found.late:.0f} MB", ""), flat)


def _cycled(folder: Path, names: list[str], n_models: int, start: float) -> Iterator[Row]:
    """Measure the day of some models, of which one has a file that cannot be read."""
    _land_all(folder, names)
    seconds, cpu, n_done, peak = _in_own_process(folder, f"cycle({names})")
    n = len(names) - 1
    yield Row("days computed beside a bad one", (f"{n_done} of {n}", ""), Goal(n_done, n, True))
    yield Row("one model's day", (f"{seconds / n:.1f} s", f"{cpu / n:.1f} s CPU"))
    yield Row("all of them in one process, memory", (f"{peak:.0f} MB", ""))
    # Each run of many models is a process of its own, on two cores.
    all_of_them = n_models * (cpu / n + start / MAX_MODELS_PER_RUN) / 2 / 60
    name = f"day of {n_models} models, from {n}"
    yield Row(name, (f"{all_of_them:.0f} min", "2 cores"), Goal(all_of_them, 30, unit=" min"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--cycle", type=int, default=0, help="models that get a day of rows")
    parser.add_argument("--daemon", action="store_true", help="let Dagster's daemon do that")
    arguments = parser.parse_args()
    title = f"{arguments.models} models in one project, and a declaration that does not load"
    found = measured(arguments.models, arguments.cycle, is_daemon=arguments.daemon)
    sys.exit(show([(title, ("measured", ""), found)], seed=0))
