"""What `mlmon run` costs on the most ordinary day: labels come 1 to 20 days late, and one looks.

Models of 400 rows a day. A has 27 features and three slices, B 24 features and none; C is A without
a dataset to compare with, as `mlmon init` declares it: held against its own earlier windows. Sixty
days are taken in at once, then a day as a warm-up. Measured are the processor's seconds of the next
look, which has a day of predictions and labels of twenty days; and of one more look, which finds
nothing and so costs little more than the start of a process.

    python -m benchmarks late_labels_day [--beside FOLDER]

`--beside` names another checkout: it looks at copies of the same projects, in turns.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import CATEGORICAL, NUMERIC, START, count_busy, draw_events, now_after
from benchmarks.table import Goal, Row, show

ROWS, HISTORY, LATEST = 400, 60, 20
BASELINE = 20_000
WRITTEN = 1_760_000_000  # long ago, so that no file is waited for
_HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Model:
    """A model of the benchmark, and how many seconds of the processor a look may take."""

    name: str
    numeric: Sequence[str]
    categorical: Sequence[str]
    slices: Sequence[str]
    most: float | None
    is_moving: bool = False


MODELS = (
    Model("A: 27 features, 3 slices", NUMERIC, CATEGORICAL[:7], CATEGORICAL[:3], 6.0),
    Model("B: 24 features, no slices", NUMERIC[:16], CATEGORICAL, (), 3.5),
    Model("C: A, moving baseline", NUMERIC, CATEGORICAL[:7], CATEGORICAL[:3], None, is_moving=True),
)


def declare(folder: Path, model: Model) -> None:
    """Write the model's spec; JSON is YAML."""
    roles = ("prediction_id", "event_time", "score", "prediction", "dataset", "model_version",
             "latency_ms", "status", "actual", "actual_time")  # fmt: skip
    features = {name: {"type": "numeric", "nullable": True} for name in model.numeric}
    features |= {name: {"type": "categorical", "nullable": True} for name in model.categorical}
    spec = {
        "model": "bench",
        "task": "binary_classification",
        "owners": ["team:bench"],
        "time": {"start": (START + dt.timedelta(days=1)).isoformat()},
        "source": {
            stream: {"path": f"landing/{stream}/*.parquet", "settle": "0s"}
            for stream in ("predictions", "actuals")
        },
        "columns": {role: role for role in roles},
        "features": features,
        "baseline": {"moving": "28d", "gap": "7d"}
        if model.is_moving
        else {"dataset": "validation"},
        "slices": list(model.slices),
    }
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "bench.yaml").write_text(json.dumps(spec))


class World:
    """Draws days and writes what of them is known by then."""

    def __init__(self, folder: Path, model: Model) -> None:
        self._landing = folder / "landing"
        self._unused = {*NUMERIC, *CATEGORICAL} - {*model.numeric, *model.categorical}
        self._waiting: list[pa.Table] = []  # labels that are to come, with the day they come on

    def write_baseline(self) -> None:
        """Write predictions and labels of a dataset of its own."""
        events = draw_events(0, 0, BASELINE, "validation")
        self._write("predictions", "validation", events.drop_columns(sorted(self._unused)))
        self._write("actuals", "validation", self._label(events, 0).drop_columns(["day"]))

    def write_day(self, day: int) -> None:
        """Write a day's predictions, and the labels that come on it."""
        events = draw_events(day, 0, ROWS, "production")
        self._write("predictions", f"{day:04}", events.drop_columns(sorted(self._unused)))
        waiting = pa.concat_tables(self._waiting) if self._waiting else None
        self._waiting = [self._label(events, day)]
        if waiting is None:
            return
        is_due = pa.compute.less_equal(waiting["day"], day)
        self._waiting.append(waiting.filter(pa.compute.invert(is_due)))
        self._write("actuals", f"{day:04}", waiting.filter(is_due).drop_columns(["day"]))

    def _label(self, events: pa.Table, day: int) -> pa.Table:
        rng = np.random.default_rng([day, 11])
        size = len(events)
        days = day + rng.integers(1, LATEST + 1, size)
        start = np.datetime64(START, "us")
        minutes = rng.integers(0, 240, size)
        times = start + days.astype("timedelta64[D]") + minutes.astype("timedelta64[m]")
        return pa.table(
            {
                "prediction_id": events["prediction_id"],
                "actual": (rng.random(size) < events["score"].to_numpy()).astype(np.int64),
                "actual_time": pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
                "day": days,
            }
        )

    def _write(self, stream: str, name: str, table: pa.Table) -> None:
        path = self._landing / stream / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        os.utime(path, (WRITTEN, WRITTEN))


def look(folder: Path, code: Path, days: int) -> float:
    """Run `mlmon run` of a checkout in a project; return the processor's seconds."""
    command = [sys.executable, "-m", "mlmon_dagster.cli", "--now", now_after(days), "run", "bench"]
    environment = {**os.environ, "MLMON_PROJECT": str(folder), "PYTHONPATH": str(code)}
    busy = count_busy()
    done = subprocess.run(
        command, cwd=code, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        sys.stderr.write(f"    {line}\n")
    if done.returncode != 0:
        raise SystemExit(f"mlmon run ended with status {done.returncode}")
    return count_busy() - busy


def measure_model(folder: Path, model: Model, codes: Sequence[Path], turns: int) -> Iterator[Row]:
    """Live through the history of a model, then look in turns with each checkout."""
    grown = folder / "grown"
    declare(grown, model)
    world = World(grown, model)
    if not model.is_moving:
        world.write_baseline()
    for day in range(1, HISTORY + 1):
        world.write_day(day)
    look(grown, _HERE, HISTORY + 1)
    for day in (HISTORY + 1, HISTORY + 2):
        world.write_day(day)
        if day == HISTORY + 1:
            look(grown, _HERE, day + 1)
    seconds: dict[tuple[Path, str], list[float]] = {}
    for _ in range(turns):
        for code in codes:
            copy = folder / "copy"
            shutil.copytree(grown, copy)
            for name in ("a day", "nothing new"):
                found = look(copy, code, HISTORY + 3)
                seconds.setdefault((code, name), []).append(found)
            shutil.rmtree(copy)
    for code in codes:
        of_day, of_nothing = (median(seconds[code, name]) for name in ("a day", "nothing new"))
        name = model.name if code == _HERE else f"  {code}"
        goal = None
        if code == _HERE and model.most is not None:
            goal = Goal(of_day, model.most, unit=" s")
        numbers = (f"{of_day:.2f}", f"{of_nothing:.2f}", f"{of_day - of_nothing:.2f}")
        yield Row(name, numbers, goal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return how many goals are missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks late_labels_day",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--beside", type=Path, help="another checkout, to look in turns")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    codes = [_HERE] if options.beside is None else [options.beside, _HERE]
    # Without bytecode every process would compile a thousand modules: the first look writes it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: list[Row] = []
    for model in MODELS:
        with tempfile.TemporaryDirectory(prefix="mlmon-late-") as folder:
            rows += measure_model(Path(folder), model, codes, options.turns)
    columns = ("processor s", "nothing new", "the day's own")
    title = f"mlmon run, a day of {ROWS} rows with labels 1 to {LATEST} days late"
    return show([(title, columns, rows)], seed="of the day")


if __name__ == "__main__":
    sys.exit(main())
