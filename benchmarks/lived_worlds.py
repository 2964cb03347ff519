"""Lives many drawn worlds in processes of their own, and keeps what became of each."""

from __future__ import annotations

import gc
import json
import multiprocessing
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

MEMORY = Path("/dev/shm")
Result = dict[str, Any]
Live = Callable[[int, str, int, Path], Result]  # seed, law or kind, windows, an empty folder


def live_one(what: str, live: Live, seed: int, law: str, windows: int) -> Result:
    """Live one world in a folder of its own, which is gone afterwards; an error is a result."""
    gc.set_threshold(200_000)  # a world leaves few cycles, and looking for them takes a tenth
    base = MEMORY if MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="mlmon-world-", dir=base))
    try:
        found = live(seed, law, windows, folder)
    except Exception:
        found = {"knobs": {"seed": seed}, "seconds": 0.0, "error": traceback.format_exc()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"what": what, "seed": seed} | found


def live_all(
    what: str,
    live: Live,
    seeds: Sequence[int],
    law: str,
    windows: int,
    jobs: int,
    out: Path | None,
    describe: Callable[[Result], str],
) -> list[Result]:
    """Live worlds in processes of their own and keep each result; those in the file are not again.

    Args:
        what: Names these worlds in the file.
        live: A function of a module: processes of their own import it.
        seeds: One world each.
        law: Of labels, or the kind of world; empty for all in turn.
        windows: How many of each are lived.
        jobs: Worlds at once.
        out: A file of JSON lines, read and gone on with.
        describe: Says in a line or more what became of a world.
    """
    known = [r for r in _read(out) if r["what"] == what and r["seed"] in seeds]
    left = [seed for seed in seeds if seed not in {r["seed"] for r in known}]
    began = time.monotonic()
    # A forked process would share the threads of DuckDB and Arrow.
    context = multiprocessing.get_context("spawn")
    # Nor should a process keep what many worlds left: it looked for garbage rarely. An executor of
    # `concurrent.futures` hangs once its workers have had their number of tasks.
    with context.Pool(jobs, maxtasksperchild=4) as pool:
        lived = pool.imap_unordered(partial(_live_seed, what, live, law, windows), left)
        for n, result in enumerate(lived, 1):
            known.append(result)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(result, default=str) + "\n")
            minutes = (time.monotonic() - began) / n * (len(left) - n) / 60
            print(f"{n} of {len(left)}, {minutes:.0f} min left: {describe(result)}", flush=True)
    return sorted(known, key=lambda result: int(result["seed"]))


def _live_seed(what: str, live: Live, law: str, windows: int, seed: int) -> Result:
    return live_one(what, live, seed, law, windows)


def _read(out: Path | None) -> Iterator[Result]:
    if out is not None and out.exists():
        for line in out.read_text().splitlines():
            yield json.loads(line)
