"""Two ingests and three readers of one store at once; imported by their processes too."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlmon_dagster.store import open_store
from mlmon_dagster.store.state import manifest
from tests.proof import world
from tests.proof.world import Known, Predicted

ROWS = 40  # of each batch
N_WRITERS, N_READERS = 2, 3


def _keep_errors(folder: str) -> None:
    """Let everything that this process says of errors go to a file that is looked at later."""
    said = os.open(f"{folder}/stderr-{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 2)


def write(folder: str, writer: int, seconds: float, told: Any) -> None:
    """Land batches of one file each and ingest them until the time is over."""
    _keep_errors(folder)
    n_batches = 0
    try:
        store, spec = open_store(Path(folder) / "store"), world.make_spec()
        project = Path(folder) / f"project{writer}"
        end = time.monotonic() + seconds
        while n_batches < 2 or time.monotonic() < end:  # however busy the machine
            name = f"{writer}-{n_batches}"
            ids = [f"{name}-{row}" for row in range(ROWS)]
            events = [Predicted(id_, 1 + n_batches % 3, row % 5) for row, id_ in enumerate(ids)]
            world.land(project, name, [*events, *(Known(id_, 1, 1) for id_ in ids)])
            world.step(store, spec, project)
            n_batches += 1
        store.close()
    except BaseException as error:
        told.put(("error", f"writer: {type(error).__name__}: {error}"))
    told.put(("batches", n_batches))


def read(folder: str, seconds: float, told: Any) -> None:
    """Read the log, the records and the manifest; every batch must be whole or absent."""
    _keep_errors(folder)
    n_reads = n_torn = 0
    try:
        store, spec = open_store(Path(folder) / "store"), world.make_spec()
        end = time.monotonic() + seconds
        while not n_reads or time.monotonic() < end:
            for stream in ("predictions", "actuals"):
                shas = store.event_log(spec).rows(stream, ["file_sha"])["file_sha"]  # type: ignore[arg-type]
                n_torn += _torn(Counter(shas.to_pylist()))
            ids = store.inference_records(spec).read(columns=["prediction_id"])["prediction_id"]
            n_torn += _torn(Counter(id_.rpartition("-")[0] for id_ in ids.to_pylist()))
            done = manifest.load_files_frame(store.state, spec.model, status="done")
            n_torn += int((done["rows_in"] != done["n_new"]).sum())
            n_reads += 1
        store.close()
    except BaseException as error:
        told.put(("error", f"reader: {type(error).__name__}: {error}"))
    told.put(("reads", n_reads))
    told.put(("torn", n_torn))


def _is_raw(line: str) -> bool:
    return "Traceback" in line or "panicked at" in line


def _torn(counts: Counter[str]) -> int:
    return sum(n not in (ROWS, 60) for name, n in counts.items() if name != "trained")


def all_at_once(context: Any, template: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Run writers and readers; return batches, reads, torn reads, errors and what is stored."""
    store, _ = world.fresh(template, folder)
    store.close()
    told = context.Queue()
    running = [
        context.Process(target=write, args=(str(folder), n, seconds, told))
        for n in range(N_WRITERS)
    ] + [context.Process(target=read, args=(str(folder), seconds, told)) for _ in range(N_READERS)]
    for process in running:
        process.start()
    n_messages = N_WRITERS + 2 * N_READERS
    found: dict[str, Any] = {"batches": 0, "reads": 0, "torn": 0, "errors": []}
    while n_messages:
        kind, value = told.get(timeout=seconds + 120)
        if kind == "error":
            found["errors"].append(value)
            continue
        found[kind] += value
        n_messages -= 1
    for process in running:
        process.join()
    said = "\n".join(path.read_text() for path in folder.glob("stderr-*"))
    found["errors"] += [line for line in said.splitlines() if _is_raw(line)]
    store, spec = open_store(folder / "store"), world.make_spec()
    predictions = store.event_log(spec).rows("predictions", ["dataset"])["dataset"].to_pylist()
    found["stored"] = predictions.count(world.PRODUCTION)
    found["records"] = store.inference_records(spec).read(datasets=[world.PRODUCTION]).num_rows
    found["unbalanced"] = world.unbalanced(store, spec)
    store.close()
    return found
