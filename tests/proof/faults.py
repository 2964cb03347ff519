"""Calls to files below a day of a model, native libraries included, made to fail one by one.

A small library is compiled and preloaded into one process, which has everything imported that a
day imports; each failing day, and each clean day after it, runs in a fork of that process. A
failing day begins with the stage of that call, in a copy of what the stages before it left.
The clean day after it ends with a second look for messages, as if the waiting times were over.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("faults.c")
ROOT = Path(__file__).parents[2]
# Name -> errno, and what happens instead of an error.
KINDS = {
    "ENOSPC": (28, 0),
    "EIO": (5, 0),
    "permission": (13, 0),
    "short write": (0, 1),
    "torn write and death": (0, 2),
    "lost fsync": (0, 3),
    "connection reset": (-1, 0),
}

TORN = 137  # the exit code of a process that dies in the middle of a write, see faults.c


def why_not() -> str:
    """Return why files cannot be made to fail here; nothing if they can."""
    if shutil.which("gcc") is None:
        return "no gcc to compile the library that stands before files"
    return "" if sys.platform == "linux" else "only Linux preloads libraries"


def compiled(folder: Path) -> Path:
    """Compile the library; return where it is."""
    library = folder / "faults.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def run_faults(
    folder: Path, kind: str, chosen: Sequence[int] | None, every: int = 1, until: str = "deliver"
) -> Any:
    """Let chosen calls of a day fail, one a day; all that there are by default.

    The day ends with the stage ``until``.

    Returns:
        ``calls`` of a clean day that can fail so, ``tried``, ``failed`` (days that ended early),
        ``seconds`` of processor time, and lists of what was wrong: ``different``, ``traceback``,
        and ``silent``, days that died without a sentence.
    """
    library = compiled(folder)
    asked = json.dumps(
        {"kind": kind, "chosen": chosen, "every": every, "folder": str(folder), "until": until}
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.proof.faults", asked],
        env={**os.environ, "LD_PRELOAD": str(library), "MLMON_NOW": "2024-02-10T00:00:00Z"},
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, "see what it wrote to stderr"
    return json.loads(done.stdout.splitlines()[-1])


def _serve(asked: dict[str, Any]) -> dict[str, Any]:
    """Run the days, in the preloaded process."""
    home, kind = Path(asked["folder"]), asked["kind"]
    (error, how), until = KINDS[kind], asked["until"]
    _forked(lambda: _prepare(home / "template"))
    begins = _stages_of(home, error, how, until)
    expected = _forked(lambda: _left(begins[-1].folder))
    calls = begins[-1].first - 1
    found: dict[str, Any] = {"calls": calls, "tried": 0}
    wrong: dict[str, list[str]] = {"different": [], "traceback": [], "silent": []}
    stages: Counter[str] = Counter()
    for n in asked["chosen"] or range(1, calls + 1, asked["every"]):
        day, begin = home / "day", next(b for b in reversed(begins) if b.first <= n)
        shutil.rmtree(day, ignore_errors=True)
        shutil.copytree(begin.folder, day)
        nth = n - begin.first + 1
        told = _forked(lambda: _day(day, nth, error, how, until, begin.stage))  # noqa: B023
        found["tried"] += 1
        if "died" in told:
            stages["died"] += 1
            if told["died"] != TORN:
                wrong["silent"].append(f"{n}: {told['died']}: {told['stderr']}")
        elif told["said"]:
            stages[told["stage"]] += 1
        if "died" not in told and any("Traceback" in text or not text for text in told["said"]):
            wrong["traceback"].append(f"{n}: {told['said'][-1][-300:]}")
        left = _forked(lambda: {**_day(day, 0, 0, 0, until), **_waited(day), **_left(day)})  # noqa: B023
        if left.get("said") != [] or any(left.get(k) != expected[k] for k in expected):
            why = left.get("said") or _first_difference(left, expected)
            wrong["different"].append(f"{n}: {str(why)[:2000]}")
        if found["tried"] % 25 == 0:
            bad = [text for texts in wrong.values() for text in texts]
            sys.stderr.write(f"  {kind}: {n} of {calls}, {_seconds():.0f} s, wrong: {bad}\n")
    found |= {"failed": stages.total(), "by_stage": dict(stages), "seconds": _seconds()}
    return {**found, **wrong}


@dataclass(frozen=True)
class Begin:
    """What there is before a stage of a clean day, and the number of the stage's first call."""

    stage: str
    folder: Path
    first: int


def _stages_of(home: Path, error: int, how: int, until: str) -> list[Begin]:
    """Run a clean day, then each of its stages in a fork of its own; the last begins nothing.

    What the day has imported is imported here, so that no other day needs to.
    """
    shutil.copytree(home / "template", home / "clean")
    day = _forked(
        lambda: {**_day(home / "clean", 0, error, how, until), "modules": sorted(sys.modules)}
    )
    assert day["said"] == [], day
    for module in day["modules"]:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    gc.freeze()  # forks share what is not looked through
    begins, folder, first = list[Begin](), home / "template", 1
    for number, stage in enumerate(day["stages"]):
        begins.append(Begin(stage, folder, first))
        folder = home / f"after-{number}"
        shutil.copytree(begins[-1].folder, folder)
        ran = _forked(lambda: _day(folder, 0, error, how, stage, stage))  # noqa: B023
        assert ran["said"] == [], ran
        first += ran["calls"]
    assert _forked(lambda: _left(folder)) == _forked(lambda: _left(home / "clean"))
    return [*begins, Begin("", folder, first)]


def _seconds() -> float:
    """Return the processor time of this process and of those that have ended."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _first_difference(found: Any, expected: dict[str, Any]) -> str:
    if "died" in found:
        return f"the next process died: {found['died']}: {found['stderr']}"
    names = [name for name in expected if found.get(name) != expected[name]]
    return "; ".join(f"{n}: {str(found.get(n))[:150]} != {str(expected[n])[:150]}" for n in names)


def _forked(call: Callable[[], Any]) -> Any:
    """Call in a fork of this process; return what it returns.

    Of one that died: ``died``, its exit code (the signal, negative), and the end of its ``stderr``.
    """
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                os.dup2(errors.fileno(), 2)
                with os.fdopen(writing, "w") as pipe:
                    pipe.write(json.dumps(call(), default=str))
                code = 0
            except BaseException:
                import traceback

                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    return json.loads(text) if text else {"died": code, "stderr": said[-1500:]}


def _prepare(folder: Path) -> None:
    """Make a project with a baseline, and landing files of a day that are not taken in yet."""
    import yaml

    from tests.proof import world
    from tests.proof.world import Known, Predicted

    store = folder / ".mlmon" / "store"
    store.parent.mkdir(parents=True)
    made = world.make_template(folder / "made")
    made.rename(store)
    shutil.rmtree(folder / "made")
    declared = world.make_spec().model_dump(mode="json", by_alias=True, exclude_unset=True)
    (folder / "models").mkdir()
    (folder / "models" / "tiny.yaml").write_text(yaml.safe_dump(declared))
    ids = [f"{n}" for n in range(60)]
    events = [Predicted(id_, 2, 3 + n % 2) for n, id_ in enumerate(ids)]
    world.land(folder, "day", [*events, *(Known(id_, 1, n % 2) for n, id_ in enumerate(ids))])


def _day(folder: Path, n: int, error: int, how: int, until: str, since: str = "") -> dict[str, Any]:
    """Take in, compute, judge and deliver a day, with call n failing; say how each stage ended.

    It begins with the stage ``since``, by default with the first, and ends with ``until``.
    """
    from mlmon_dagster.commands.outside import sentence
    from mlmon_dagster.errors import MlmonError
    from mlmon_dagster.project import project_from_environment

    project = project_from_environment(folder)
    if since:  # opened by the stages before
        project.store.state.connect().close()
    said, stages = list[str](), list[str]()
    ended_in = ""
    with _failing(project, folder, n, error, how) as calls:
        for stage, call in _stages(project, folder):
            if since not in ("", stage, *stages):
                continue
            stages.append(stage)
            try:
                problem = call()
            except BaseException as failure:
                text = sentence(failure)
                own = isinstance(failure, MlmonError)
                problem = text or (str(failure) if own else f"Traceback {failure!r}")
            if problem:
                said.append(problem)
                ended_in = stage
            if problem or stage == until:
                break
        n_calls = calls()
    return {"calls": n_calls, "said": said, "stage": ended_in, "stages": stages}


@contextlib.contextmanager
def _failing(
    project: Any, folder: Path, n: int, error: int, how: int
) -> Iterator[Callable[[], int]]:
    if error == -1:
        with _resetting(project, n) as calls:
            yield calls
        return
    library = ctypes.CDLL(None)
    library.faults_arm(str(folder).encode(), ctypes.c_long(n), error, how)
    try:
        yield lambda: int(library.faults_count())
    finally:
        library.faults_disarm()


@contextlib.contextmanager
def _resetting(project: Any, n: int) -> Iterator[Callable[[], int]]:
    """Take the connection away at the nth statement or commit, and let the next one be new."""
    import sqlalchemy as sa

    calls = 0

    def listen(conn: sa.Connection, *_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            conn.invalidate()
            cause = Exception("server closed the connection unexpectedly")
            raise sa.exc.OperationalError("statement", {}, cause)

    engine = project.store.state
    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(engine, event, listen)
    try:
        yield lambda: calls
    finally:
        for event in ("before_cursor_execute", "commit"):
            sa.event.remove(engine, event, listen)


def _stages(project: Any, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    from mlmon_dagster.pipeline.measure import measure_windows
    from mlmon_dagster.pipeline.rebuild import build_window_profiles, rebuild_records
    from mlmon_dagster.spec.steps import MEASURED
    from mlmon_dagster.work import Work
    from tests.proof import world

    spec = world.make_spec()
    yield "ingest", lambda: _ingest(project, spec, folder)
    windows = tuple(world.windows(spec)[1:2])
    work = Work(project, spec, windows, world.NOW, "proof", False)
    yield "rebuild", lambda: rebuild_records(work) and ""
    yield "profiles", lambda: build_window_profiles(work) and ""
    for step in MEASURED:
        yield f"measure {step}", lambda step=step: measure_windows(work, step) and ""  # type: ignore[misc]
    from mlmon_dagster.families.registry import JUDGED_BY
    from mlmon_dagster.pipeline.judge import (
        judge,  # takes seconds, which a day cut short need not pay
    )

    for family in JUDGED_BY:
        yield f"judge {family}", lambda family=family: judge(work, family) and ""  # type: ignore[misc]
    yield "deliver", lambda: _delivered(project, spec)
    project.store.close()


def _delivered(project: Any, spec: Any) -> str:
    from mlmon_dagster.defs.delivery import dispatch_alerts
    from tests.proof import world

    dispatch_alerts(project, [spec], None, world.NOW)
    return ""


def _ingest(project: Any, spec: Any, folder: Path) -> str:
    from mlmon_dagster.ingest import ingest_new, readers
    from tests.proof import world

    report = ingest_new(project.store, spec, folder, readers(), now=world.NOW)
    # A file that cannot be read waits and says why; the day goes on when it is read.
    failed = [f.message for f in report.files if f.status in ("failed", "quarantined", "waiting")]
    return "; ".join(failed)


def _waited(folder: Path) -> dict[str, Any]:
    """Look for messages as one does minutes later; return what it said, if anything waits.

    Leases and waits are real time, so they are ended by hand here.
    """
    import sqlalchemy as sa

    from mlmon_dagster.project import project_from_environment
    from mlmon_dagster.store.outbox import AT_ONCE, UNSETTLED
    from mlmon_dagster.store.state.schema import outbox
    from tests.proof import world

    project = project_from_environment(folder)
    is_waiting = outbox.c.status.in_(UNSETTLED)
    over = sa.update(outbox).where(is_waiting).values(next_at=AT_ONCE)
    leases = sa.update(outbox).where(outbox.c.status == "sending").values(lease_until=AT_ONCE)
    said = list[str]()
    for _ in range(3):  # its lease is over; it is looked up; it is sent
        with project.store.state.begin() as conn:
            conn.execute(leases)
            n_waiting = conn.execute(over).rowcount
        if not n_waiting:
            break
        said += [text for text in [_delivered(project, world.make_spec())] if text]
    project.store.close()
    return {"said": said} if said else {}


def _left(folder: Path) -> dict[str, Any]:
    """Return what the day left behind."""
    import sqlalchemy as sa

    from mlmon_dagster.project import project_from_environment
    from mlmon_dagster.store.upkeep.integrity import examine_store
    from tests.proof import world

    store, spec = project_from_environment(folder).store, world.make_spec()
    asked = {
        "metrics": "SELECT metric, dataset, slice_key, value, n FROM mlmon_metric "
        "WHERE dataset = 'production' ORDER BY 1, 2, 3",
        "verdicts": "SELECT DISTINCT window_start, monitor, status FROM monitor_result",
        "alerts": "SELECT monitor, state FROM alert ORDER BY 1, 2",
        "messages": "SELECT kind, status FROM outbox ORDER BY 1, 2",
        "files": "SELECT stream, sha256, status, rows_in, n_new, n_duplicate, n_bad "
        "FROM ingest_file ORDER BY 1, 2",
    }
    found: dict[str, Any] = {}
    with store.state.connect() as conn:
        for name, sql in asked.items():
            found[name] = sorted(str(tuple(row)) for row in conn.execute(sa.text(sql)))
    log = store.event_log(spec)
    found["log"] = {
        stream: sorted(log.rows(stream, ["row_hash"])["row_hash"].to_pylist())
        for stream in ("predictions", "actuals")  # type: ignore[arg-type]
    }
    found["damage"] = [f"{d.place}: {d.found}" for d in examine_store(store)]
    records = store.inference_records(spec).read(columns=["prediction_id", "actual"])
    found["records"] = sorted(map(str, records.to_pylist()))
    store.close()
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def main() -> None:
    """Run what the argument asks for, and print what was found as JSON."""
    asked = json.loads(sys.argv[1])
    for module in ("scipy.stats", "tests.proof.world"):
        importlib.import_module(module)  # once for all days, as it takes seconds
    print(json.dumps(_serve(asked)))


def run(kind: str, every: int = 1, chosen: Sequence[int] | None = None) -> Any:
    """Run the days in a folder of their own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return run_faults(Path(folder), kind, chosen, every)


if __name__ == "__main__":
    main()
