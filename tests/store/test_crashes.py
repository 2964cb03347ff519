"""A process may be killed anywhere, and several may write at once."""

import os
import signal
from pathlib import Path

import pytest

from mlmon_dagster.store import Store, open_store
from tests import crash_steps, forked
from tests.conftest import make_events, make_spec, window

SPEC = make_spec()
WINDOWS = [window(SPEC, f"2024-01-0{day}") for day in (1, 2, 3)]
STEPS = [step for step in crash_steps.STEPS if step.startswith(("append.", "rebuild."))]


def work(store: Store, numbers: range) -> None:
    """Append files of overlapping ids, rebuilding after each."""
    log, records = store.event_log(SPEC), store.inference_records(SPEC)
    for number in numbers:
        day = f"2024-01-0{1 + number % 3}"
        predictions, actuals = make_events(SPEC, day, 4, seed=number, sha=f"{number}")
        # The same few ids on several days: rows that conflict and move.
        ids = [f"id-{(number + i) % 7}" for i in range(4)]
        predictions, actuals = (
            t.set_column(0, "prediction_id", [ids]) for t in (predictions, actuals)
        )
        log.append("predictions", predictions, [f"{number}"])
        records.rebuild(WINDOWS)
        log.append("actuals", actuals, [f"{number}"])
        records.rebuild(WINDOWS)


def work_until(folder: Path, step: str, numbers: range, complaints: Path) -> None:
    """Work in a process of its own, which dies at the step and complains into a file."""
    os.dup2(os.open(complaints, os.O_CREAT | os.O_WRONLY), 2)
    forked.die_at(step)
    work(open_store(folder), numbers)


def outcome(store: Store) -> tuple[object, object]:
    records = store.inference_records(SPEC)
    counts = records.rebuild(WINDOWS)
    return counts, records.read().sort_by("prediction_id").to_pylist()


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, object]:
    """The outcome of a run that nothing disturbed."""
    clean = open_store(tmp_path_factory.mktemp("clean"))
    work(clean, range(3))
    clean.close()
    return outcome(clean)


@pytest.mark.proof
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_and_run_again_is_as_if_never_killed(
    step: str, never_killed: tuple[object, object], tmp_path: Path
) -> None:
    said = tmp_path / "complaints"
    ended = forked.ended(work_until, tmp_path / "killed", step, range(3), said)
    assert (ended, said.read_text()) == (-signal.SIGKILL, "")
    killed = open_store(tmp_path / "killed")
    work(killed, range(3))
    assert outcome(killed) == never_killed
    assert killed.event_log(SPEC).rows("predictions").num_rows == 12
    assert killed.event_log(SPEC).rows("actuals").num_rows == 12


@pytest.mark.proof
def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "shared").close()
    said = [tmp_path / f"complaints-{first}" for first in (0, 5)]
    processes = [
        forked.processes().Process(
            target=work_until, args=(tmp_path / "shared", "", range(first, first + 5), file)
        )
        for first, file in zip((0, 5), said, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [file.read_text() for file in said] == ["", ""]
    shared, alone = open_store(tmp_path / "shared"), open_store(tmp_path / "alone")
    work(alone, range(10))
    records = shared.inference_records(SPEC).read().sort_by("prediction_id").to_pylist()
    assert outcome(shared) == outcome(alone)
    assert records == outcome(alone)[1]  # also before rebuilding once more
    assert shared.event_log(SPEC).rows("predictions").num_rows == 10 * 4
