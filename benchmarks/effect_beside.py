"""The slope beside doubleml's: `python -m benchmarks effect_beside`, a minute once installed.

The worlds of `effect`, a row's outcome explained by its cause and a dummy for every cell of every
window: ours takes the cells' means off, doubleml fits its partially linear model, partialling out,
with linear learners that were fitted on all rows (none held out, as its cross-fitting would).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.effect import CELLS, SEED, WORLDS, drawn
from benchmarks.peer_environment import CACHE, DOUBLEML, peer_python, variables
from benchmarks.table import Goal, Row, show
from mlmon_dagster.trace.effect import Estimate, effect_of, scale_of, window_sums

THEIRS = Path(__file__).with_name("effect_theirs.py")
EXACT = 1e-9


def ours(folder: Path, windows: int, size: int) -> dict[str, Estimate]:
    """Write the rows of each world for them, and return our slopes."""
    found = {}
    for world in WORLDS:
        rng = np.random.default_rng(SEED)
        rows = [drawn(rng, world, size) for _ in range(windows)]
        cause, outcome, cell = (np.concatenate(part) for part in zip(*rows, strict=True))
        window = np.repeat(np.arange(windows), [len(one[0]) for one in rows])
        np.savez(folder / f"{world}.npz", d=cause, y=outcome, cell=cell, window=window)
        scale = scale_of(cause)
        assert scale is not None
        effect = effect_of([window_sums(*one, CELLS, scale) for one in rows], scale)
        assert effect is not None
        found[world] = effect.slope
    return found


def compared(mine: dict[str, Estimate], theirs: dict[str, float]) -> Iterator[Row]:
    """Yield a line a world."""
    for world, slope in mine.items():
        coefficient = theirs[world]
        off = abs(slope.value / coefficient - 1)
        numbers = (f"{slope.value:.12g}", f"{coefficient:.12g}", f"{off:.1g}")
        yield Row(world, numbers, Goal(off, EXACT))


def main() -> int:
    """Print both slopes of every world; return how many differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE, help="for doubleml's environment")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--rows", type=int, default=200, help="of a window, on average")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        mine = ours(folder, given.windows, given.rows)
        command = [str(peer_python(given.cache, DOUBLEML)), str(THEIRS), str(folder)]
        done = subprocess.run(
            command, check=True, env=variables(), capture_output=True, text=True, cwd=folder
        )
    theirs = json.loads(done.stdout.splitlines()[-1])
    title = f"Slopes beside {DOUBLEML[0]}, {given.windows} windows of {given.rows} rows"
    return show([(title, ("ours", "theirs", "off"), compared(mine, theirs))], seed=SEED, width=18)


if __name__ == "__main__":
    raise SystemExit(main())
