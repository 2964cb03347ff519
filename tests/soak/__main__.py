"""Small files for many minutes under the daemon, and what became of them: `make soak`.

`python -m tests.soak --minutes 10 --rate 5 --models 5` writes 5 files a second into the landing
folders of 5 models while `mlmon dev` runs on them, and ends with an error where a promise breaks:
fewer than 60 s of files are left at the end, no tick was cut off, every row is there once, and the
memory of each process is flat: its mean over the last quarter is at most 10 % and 20 MiB above its
mean over a quarter of that length from minute 2 on (from a third of the time, if that is earlier).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from benchmarks.table import Goal, Row, render
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.store.state.schema import ingest_file, ingest_path
from tests.soak.world import HELPER, ROWS, RUN, SETTLE, Sample, Stream, memory_of, running_dev

BACKLOG_SECONDS = 60.0
GROWTH, SLACK = 0.10, 20.0  # a share, and MiB
TICK_LIMIT = 60.0  # after which Dagster cuts a tick off


@dataclass(frozen=True)
class Ticks:
    """How the ticks of a sensor went."""

    seconds: tuple[float, ...]
    failed: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and print the table; return 1 where a promise breaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=5, help="files a second, over all models")
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it there")
    asked = parser.parse_args(arguments)
    if asked.keep:
        return soak(asked.keep, asked.minutes, asked.rate, asked.models)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return soak(Path(folder), asked.minutes, asked.rate, asked.models)


def soak(folder: Path, minutes: float, rate: float, n_models: int) -> int:
    """Write files for some minutes under `mlmon dev`; print what became of them."""
    for name in [name for name in os.environ if name.startswith(("MLMON_", "DAGSTER_"))]:
        del os.environ[name]
    stream = Stream(folder, [f"soak_{n}" for n in range(n_models)])
    stream.write_history()
    with running_dev(folder, {}) as dev:
        _wait_for_ticks(folder)
        began = time.time()
        samples = _write(stream, minutes * 60, rate, dev)
        ended = time.time()
        project = project_from_environment(folder)
        left = left_at(project, stream, ended)
        if dev.status() == "zombie" or not dev.is_running():
            print((folder / "dev.log").read_text()[-3000:])
            return 1
    time.sleep(SETTLE + 1)
    rest = subprocess.run(
        [str(Path(sys.executable).parent / "mlmon"), "--project", str(folder), "ingest"],
        capture_output=True,
        text=True,
    )
    rows = [
        Row("files written", (f"{len(stream.written):,}",)),
        Row("files taken in by the end", (f"{len(stream.written) - len(left):,}",)),
        *_about_left(left, rate),
        *_about_ticks(ticks_of(folder, "mlmon_planner", began, ended)),
        *_about_rows(project, stream, rest.returncode),
        *_about_memory(samples, began, ended),
        *_about_cpu(samples, began, ended),
    ]
    title = f"Soak: {minutes:g} min, {rate:g} files/s of {ROWS} rows, {n_models} models"
    print(render(title, ["found"], rows, seed=7, width=26))
    broken = [row.name for row in rows if row.goal is not None and not row.goal.is_met]
    print(f"\nbroken: {', '.join(broken)}" if broken else "\nevery promise kept")
    return 1 if broken else 0


def _write(stream: Stream, seconds: float, rate: float, dev: psutil.Process) -> list[Sample]:
    """Write files at an even rate, and look at the processes' memory every five seconds."""
    samples: list[Sample] = []
    began = time.monotonic()
    n, next_look = 0, 0.0
    while (passed := time.monotonic() - began) < seconds:
        while n < passed * rate:
            stream.write_one()
            n += 1
        if passed >= next_look:
            samples += memory_of(dev, time.time())
            next_look = passed + 5
        time.sleep(0.02)
    return samples


def _wait_for_ticks(folder: Path) -> None:
    """Wait until the planner has ticked once, so that starting up is no part of the soak."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        done = ticks_of(folder, "mlmon_planner", 0, time.time())
        if done.seconds:
            return
        time.sleep(2)
    print((folder / "dev.log").read_text()[-3000:])
    raise SystemExit("mlmon dev did not tick within ten minutes")


def left_at(project: Project, stream: Stream, moment: float) -> dict[str, float]:
    """Return the files that are not taken in, and their age."""
    joined = sa.select(ingest_path.c.path).join(
        ingest_file,
        (ingest_path.c.model == ingest_file.c.model)
        & (ingest_path.c.stream == ingest_file.c.stream)
        & (ingest_path.c.sha256 == ingest_file.c.sha256),
    )
    with project.store.state.connect() as conn:
        done = set(conn.scalars(joined.where(ingest_file.c.status == "done")))
    return {path: moment - at for path, at in stream.written.items() if path not in done}


def ticks_of(folder: Path, sensor: str, start: float, end: float) -> Ticks:
    """Return how long the ticks of a sensor took that began in a period, and what failed."""
    project = project_from_environment(folder)
    seconds, failed = [], []
    with open_instance(project) as instance:
        for state in instance.all_instigator_state():
            if state.instigator_name != sensor:
                continue
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id):
                if not start <= tick.timestamp <= end or tick.end_timestamp is None:
                    continue
                seconds.append(tick.end_timestamp - tick.timestamp)
                if tick.is_failure:
                    failed.append(tick.error.message.strip() if tick.error else "unknown")
    return Ticks(tuple(seconds), tuple(failed))


def _about_left(left: dict[str, float], rate: float) -> list[Row]:
    oldest = max(left.values(), default=0.0) - SETTLE
    seconds = len(left) / rate
    return [
        Row(
            "files left at the end",
            (f"{len(left):,} = {seconds:.0f} s of files",),
            Goal(seconds, BACKLOG_SECONDS, unit=" s"),
        ),
        Row(
            "age of the oldest, once complete",
            (f"{max(oldest, 0):.0f} s",),
            Goal(oldest, BACKLOG_SECONDS, unit=" s"),
        ),
    ]


def _about_ticks(ticks: Ticks) -> list[Row]:
    spent = sorted(ticks.seconds) or [0.0]
    middle = statistics.median(spent)
    for message in ticks.failed[:3]:
        print(f"a tick failed: {message[:300]}")
    return [
        Row(
            "ticks of the planner",
            (f"{len(ticks.seconds)}",),
            Goal(len(ticks.seconds), 1, is_least=True),
        ),
        Row("their seconds, median and longest", (f"{middle:.1f}, {spent[-1]:.1f}",)),
        Row("cut off or failed", (f"{len(ticks.failed)}",), Goal(len(ticks.failed), 0)),
        Row("longest tick", (f"{spent[-1]:.1f} s",), Goal(spent[-1], TICK_LIMIT, unit=" s")),
    ]


def _about_rows(project: Project, stream: Stream, code: int) -> list[Row]:
    table = ingest_file
    counted = sa.select(
        table.c.stream, sa.func.sum(table.c.rows_in), sa.func.sum(table.c.n_new)
    ).group_by(table.c.stream)
    with project.store.state.connect() as conn:
        found = {name: (int(n_in), int(n_new)) for name, n_in, n_new in conn.execute(counted)}
    rows = []
    for name, n in stream.n_rows.items():
        n_in, n_new = found.get(name, (0, 0))
        wrong = abs(n - n_in) + abs(n - n_new)
        rows.append(
            Row(
                f"rows of {name}, then in and new", (f"{n:,}, {n_in:,}, {n_new:,}",), Goal(wrong, 0)
            )
        )
    return [*rows, Row("mlmon ingest afterwards", (f"exit code {code}",), Goal(code, 0))]


def _about_memory(samples: Sequence[Sample], began: float, ended: float) -> list[Row]:
    """Compare each lasting process's memory at minute 2 with that at the end."""
    rows = []
    length = ended - began
    first = began + min(120.0, length / 3)
    quarter = length / 4
    by_process: dict[tuple[int, str], list[Sample]] = {}
    for sample in samples:
        by_process.setdefault((sample.pid, sample.role), []).append(sample)
    for (pid, role), mine in sorted(by_process.items(), key=lambda item: item[0]):
        early = [s.mib for s in mine if first <= s.at <= first + quarter]
        late = [s.mib for s in mine if s.at >= ended - quarter]
        if role in (RUN, HELPER) or not early or not late:
            continue
        before, after = statistics.fmean(early), statistics.fmean(late)
        limit = before * (1 + GROWTH) + SLACK
        goal = Goal(round(after), round(limit), unit=" MiB")
        rows.append(Row(f"memory of {role} {pid}", (f"{before:.0f}, {after:.0f} MiB",), goal))
    runs = {sample.pid for sample in samples if sample.role == RUN}
    peak = max((sample.mib for sample in samples if sample.role == RUN), default=0.0)
    rows.append(Row("processes of runs seen, largest", (f"{len(runs)}, {peak:.0f} MiB",)))
    return rows


def _about_cpu(samples: Sequence[Sample], began: float, ended: float) -> list[Row]:
    """Say what the processes of each kind took; of one that ends, what was seen last."""
    spent: dict[str, dict[int, list[float]]] = {}
    for sample in samples:
        spent.setdefault(sample.role, {}).setdefault(sample.pid, []).append(sample.cpu)
    rows = []
    for role, by_process in sorted(spent.items()):
        # A run begins within the soak, what lasts began before.
        seconds = sum(max(s) - (0.0 if role == RUN else min(s)) for s in by_process.values())
        share = seconds / (ended - began)
        if role != HELPER:
            rows.append(Row(f"CPU of {role}", (f"{seconds:.0f} s, {share:.0%} of a core",)))
    load = os.getloadavg()
    rows.append(Row("load of the machine, 1 and 15 min", (f"{load[0]:.0f}, {load[2]:.0f}",)))
    return rows


if __name__ == "__main__":
    sys.exit(main())
