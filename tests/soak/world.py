"""What the soak does: models, a stream of small files, and `mlmon dev` as people start it."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROWS = 20
SETTLE = 5  # seconds
LATE = 20  # of each model's files, one in so many is of an hour that is over, to be computed again
HOURS = 3  # of history
DECLARATION = """\
model: {model}
task: binary_classification
owners: [team:soak]
time: {{zone: UTC, start: {start}, granularity: hour}}
source:
  predictions: {{path: landing/{model}/predictions/*.csv, settle: {settle}s}}
  actuals: {{path: landing/{model}/actuals/*.csv, settle: {settle}s}}
columns:
  prediction_id: id
  event_time: at
  score: p
  prediction: decision
  actual: truth
  actual_time: known_at
features:
  plan: {{type: categorical}}
  age: {{type: numeric, min: 0}}
"""


@dataclass
class Stream:
    """Writes small files into the landing folders of some models, in turn.

    Attributes:
        written: Path below the project -> when it was renamed into place.
        n_rows: Rows written so far, by stream.
    """

    folder: Path
    models: Sequence[str]
    written: dict[str, float] = field(default_factory=dict)
    n_rows: dict[str, int] = field(default_factory=lambda: {"predictions": 0, "actuals": 0})

    def __post_init__(self) -> None:
        """Declare the models."""
        self._random = random.Random(7)
        self._known: dict[str, deque[str]] = {model: deque(maxlen=5_000) for model in self.models}
        self._n = 0
        start = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        (self.folder / "models").mkdir(parents=True)
        for model in self.models:
            text = DECLARATION.format(model=model, start=start, settle=SETTLE)
            (self.folder / "models" / f"{model}.yaml").write_text(text)

    def write_history(self) -> None:
        """Write some complete hours of every model."""
        hour = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
        for model in self.models:
            for n in range(1, HOURS + 1):
                self._predictions(model, hour - dt.timedelta(hours=n), 3600, rows=200)

    def write_one(self) -> None:
        """Write the next file: of four, three are predictions and one is ground truth."""
        self._n += 1
        model = self.models[self._n % len(self.models)]
        turn = self._n // len(self.models)
        now = dt.datetime.now(dt.UTC)
        if turn % 4 == 3 and len(self._known[model]) >= ROWS:
            self._actuals(model, now)
        elif turn % LATE == 0:
            hour = now.replace(minute=0, second=0, microsecond=0)
            self._predictions(model, hour - dt.timedelta(hours=1), 3600)
        else:
            self._predictions(model, now - dt.timedelta(seconds=1), 1)

    def _predictions(self, model: str, start: dt.datetime, seconds: int, rows: int = ROWS) -> None:
        lines = ["id,at,p,decision,plan,age"]
        for _ in range(rows):
            name = f"{self._random.getrandbits(64):016x}"
            at = start + dt.timedelta(seconds=self._random.uniform(0, seconds))
            p = self._random.random()
            plan, age = self._random.choice(("basic", "plus")), self._random.gauss(40, 8)
            lines.append(f"{name},{at.isoformat()},{p:.4f},{int(p > 0.5)},{plan},{max(age, 0):.1f}")
            self._known[model].append(name)
        self._put(model, "predictions", lines)

    def _actuals(self, model: str, now: dt.datetime) -> None:
        known = self._known[model]
        lines = ["id,truth,known_at"]
        lines += [
            f"{known.popleft()},{self._random.getrandbits(1)},{now.isoformat()}"
            for _ in range(ROWS)
        ]
        self._put(model, "actuals", lines)

    def _put(self, model: str, stream: str, lines: list[str]) -> None:
        folder = self.folder / "landing" / model / stream
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{time.time_ns()}.csv"
        draft = path.with_suffix(".tmp")
        draft.write_text("\n".join(lines) + "\n")
        draft.rename(path)
        self.written[path.relative_to(self.folder).as_posix()] = time.time()
        self.n_rows[stream] += len(lines) - 1


@contextmanager
def running_dev(folder: Path, variables: dict[str, str]) -> Iterator[psutil.Process]:
    """Run ``mlmon dev`` on a project; all its processes are ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mlmon = Path(sys.executable).parent / "mlmon"
    with (folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [str(mlmon), "--project", str(folder), "dev", "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables, "MLMON_PROJECT": str(folder)},
            start_new_session=True,
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started; those that take too long are killed."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=30)
    for one in alive:
        one.kill()
    process.wait()


RUN, HELPER = "run", "helper"  # processes that come and go


@dataclass(frozen=True)
class Sample:
    """The memory of one process at one moment, and its CPU seconds until then."""

    at: float
    pid: int
    role: str
    mib: float
    cpu: float = 0.0


def memory_of(parent: psutil.Process, at: float) -> list[Sample]:
    """Return memory and CPU of all processes of ``mlmon dev``, with what each is for."""
    found = []
    for process in [parent, *parent.children(recursive=True)]:
        try:
            role = _role(process.cmdline())
            mib = process.memory_info().rss / 2**20
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        found.append(Sample(at, process.pid, role, mib, times.user + times.system))
    return found


def _role(command: Sequence[str]) -> str:
    text = " ".join(command)
    for word, role in (
        ("resource_tracker", HELPER),
        ("watch_orphans", HELPER),
        ("tail -F", HELPER),
        ("spawn_main", RUN),
        ("dagster_webserver", "webserver"),
        ("dagster-webserver", "webserver"),
        ("dagster._daemon", "daemon"),
        ("dagster-daemon", "daemon"),
        ("api grpc", "code server"),
        ("code-server", "code server"),
    ):
        if word in text:
            return role
    return "mlmon dev"
