"""What drift sees, beside exact tests, Evidently and NannyML: `python -m benchmarks power`.

The same rows for all: a baseline of 20,000 rows, windows without a change, and windows with one.
All at alpha = .01 a column: ours, the exact tests and the peers' tests by their p-value; the peers'
distances, which have none, by the threshold that 1 % of the unchanged windows exceed, and so their
tests that call more than that drift: nobody has such thresholds in production, and they are to
their advantage. Few unchanged windows make a threshold that is none of 1 %: that of 200 may be one
of 2 %. The baseline is one set of rows, which is all that the others can take; ours is
also shown with what it learns from the baseline being 20 windows. What the others call drift with
their own thresholds when nothing has changed is the second table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as tests

from benchmarks.drift_laws import (
    Floats,
    Generator,
    Law,
    categorical_law,
    column_of,
    drift_metrics,
    numeric_law,
)
from benchmarks.peer_environment import CACHE, PEERS, peer_python, variables
from benchmarks.table import Goal, Row, render
from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.intervals import wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.monitors import DriftMonitor

THEIRS = Path(__file__).with_name("power_theirs.py")
MONITOR = DriftMonitor()
ALPHA, SEED = 0.01, 11
BASELINE = (20, 1_000)
SIZES = (50, 200, 1_000, 5_000)
Draw = Callable[[Generator, tuple[int, int], float], Floats]
Scores = dict[str, NDArray[np.float64]]


def _mean(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    return rng.normal(by, 1, shape)


def _scale(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    return rng.normal(0, 1 + by, shape)


def _mode(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    return np.where(rng.random(shape) < by, rng.normal(1.5, 0.1, shape), rng.normal(size=shape))


def _zeros(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    return np.where(rng.random(shape) < 0.8 - by, 0.0, rng.exponential(size=shape))


def _share(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    shares = 1 / np.arange(1, 21)
    shares /= shares.sum()
    shares[[0, 9]] += (-by, by)
    return rng.choice(20, shape, p=shares).astype(np.float64)


def _nulls(rng: Generator, shape: tuple[int, int], by: float) -> Floats:
    return np.where(rng.random(shape) < 0.03 + by, np.nan, rng.normal(size=shape))


class Case(NamedTuple):
    """A change, and how large it is for each of `SIZES`, so that it is neither plain nor hidden."""

    name: str
    draw: Draw
    by: tuple[float, ...]
    kind: str = "numeric"


CASES = (
    Case("mean, in sd", _mean, (0.6, 0.3, 0.14, 0.06)),
    Case("sd", _scale, (0.6, 0.3, 0.12, 0.05)),
    Case("a new mode's share", _mode, (0.2, 0.1, 0.05, 0.02)),
    Case("share of zeros", _zeros, (0.25, 0.12, 0.05, 0.02)),
    Case("share of 1 of 20 levels", _share, (0.15, 0.07, 0.03, 0.012), "categorical"),
    Case("share of nulls", _nulls, (0.15, 0.08, 0.03, 0.012)),
)


def law_of(case: Case, baseline: Floats) -> Law:
    """Return the column's bins as the baseline has them."""
    if case.kind == "categorical":
        return categorical_law(case.name, np.bincount(baseline.astype(int).ravel(), minlength=20))
    return numeric_law(case.name, baseline[np.isfinite(baseline)])


def profile(law: Law, values: Floats) -> ColumnStatistics:
    """Return statistics of windows of values (C, rows); NaN is null."""
    missing = np.isnan(values)
    filled = np.where(missing, 0.0, values)
    if law.binning.kind == "numeric":
        codes = np.searchsorted(upper_edges(law.binning), filled, side="left")
    else:
        codes = filled.astype(np.int64)
    size = law.binning.size
    flat = (codes + size * np.arange(len(values))[:, None])[~missing]
    counts = np.bincount(flat, minlength=len(values) * size).reshape(len(values), size)
    return column_of(law, counts.astype(np.int64), missing.sum(axis=1))


def ours(law: Law, baseline: Floats, windows: Floats) -> Scores:
    """Return our p-values by metric; and psi's with the baseline's windows, alone and as alarm."""
    current = profile(law, windows)
    one_set = profile(law, baseline.reshape(1, -1))
    frame = drift_metrics(current, one_set, seed=1, further=("wasserstein",))
    found = {str(name): part["p_value"].to_numpy() for name, part in frame.groupby("metric")}
    frame = drift_metrics(current, profile(law, baseline), seed=1)
    default = frame[frame["metric"] == MONITOR.method]
    beyond_chance = (default["value"] - default["by_chance"]).to_numpy()
    large, p = beyond_chance > MONITOR.above, default["p_value"].to_numpy()
    return found | {"windows": p, "alarm": np.where(large, p, 1.0)}


def exact(kind: str, baseline: Floats, windows: Floats) -> NDArray[np.float64]:
    """Return p-values of scipy's tests of two samples; of values that are not missing."""
    pooled = baseline[np.isfinite(baseline)]
    if kind == "categorical":
        known = np.bincount(pooled.astype(int), minlength=20)
        found = []
        for window in windows:
            table = np.stack([known, np.bincount(window.astype(int), minlength=20)])
            found.append(tests.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue)
        return np.array(found)
    ordered = np.sort(pooled)
    return np.array([tests.ks_2samp(w[np.isfinite(w)], ordered).pvalue for w in windows])


def detected(name: str, scores: dict[str, Any]) -> float:
    """Return a peer's power: by its p-value, or by the threshold of the unchanged windows."""
    same, moved = np.asarray(scores["same"]), np.asarray(scores["moved"])
    if not is_test(name):
        return float((moved > np.quantile(same, 1 - ALPHA)).mean())
    holds = wilson((same <= ALPHA).sum(), len(same))[0] <= ALPHA
    return float((moved <= (ALPHA if holds else np.quantile(same, ALPHA))).mean())


def false_alarms(name: str, scores: dict[str, Any]) -> float:
    """Return how many unchanged windows a peer calls drift with its own threshold."""
    same, limit = np.asarray(scores["same"]), scores["limit"]
    return float((same <= limit).mean() if is_test(name) else (same > limit).mean())


def is_test(name: str) -> bool:
    """Say whether a peer's method yields a p-value."""
    return name in ("evidently ks", "evidently chisquare", "nannyml chi2")


METHODS = ("psi", "chi_square", "ks", "wasserstein")  # ours, each with a p-value
COLUMNS = {
    "E test": ("evidently ks", "evidently chisquare"),
    "E PSI": ("evidently psi",),
    "E JS": ("evidently jensenshannon",),
    "E W1": ("evidently wasserstein",),
    "N test": ("nannyml kolmogorov_smirnov", "nannyml chi2"),
    "N JS": ("nannyml jensen_shannon",),
    "N W1": ("nannyml wasserstein",),
}


def rows_of(cell: Cell, theirs: dict[str, Any], windows: int) -> tuple[Row, Row]:
    """Return the cell's lines in the tables of power and of false alarms."""
    moved = _rejected(cell.moved)
    powers, alarms = {}, {}
    for column, names in COLUMNS.items():
        for name in names:
            if name in theirs:
                powers[column] = detected(name, theirs[name])
                alarms[column] = false_alarms(name, theirs[name])
    own = max(moved.get(name, 0.0) for name in METHODS)
    best = max([*powers.values(), moved["exact"]])
    error = 1.96 * np.sqrt((own * (1 - own) + best * (1 - best)) / windows)
    same = _rejected(cell.same)
    return (
        Row(cell.name, _texts(moved | powers), Goal(own, round(best - error, 3), is_least=True)),
        Row(cell.name, _texts(same | alarms)),
    )


def _rejected(scores: Scores) -> dict[str, float]:
    """Return the share of windows that each method rejects; methods without p-values left out."""
    return {name: float((p <= ALPHA).mean()) for name, p in scores.items() if not np.isnan(p).all()}


def _texts(numbers: dict[str, float]) -> tuple[str, ...]:
    names = (*METHODS, "windows", "alarm", "exact", *COLUMNS)
    return tuple(f"{numbers[name]:.2f}" if numbers.get(name, -1) >= 0 else "-" for name in names)


class Cell(NamedTuple):
    """One change at one size: our scores and the exact test's of both kinds of windows."""

    name: str
    case: Case
    same: Scores
    moved: Scores


def measure(folder: Path, cases: Sequence[Case], windows: int, same_windows: int) -> list[Cell]:
    """Draw the rows, keep them for the peers, and score them."""
    found = []
    for case in cases:
        for rows, by in zip(SIZES, case.by, strict=True):
            rng = np.random.default_rng([SEED, rows])
            baseline = case.draw(rng, BASELINE, 0.0)
            same = case.draw(rng, (same_windows, rows), 0.0)
            moved = case.draw(rng, (windows, rows), by)
            law, scores = law_of(case, baseline), []
            for side in (same, moved):
                mine = ours(law, baseline, side)
                scores.append(mine | {"exact": exact(case.kind, baseline, side)})
            found.append(Cell(f"{case.name} +{by:g}, {rows:,}", case, *scores))
            path = folder / f"{len(found):02}.npz"
            np.savez(path, kind=case.kind, baseline=baseline.ravel(), same=same, moved=moved)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; 1 if the best of ours sees less than the best of all others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=400, help="changed windows a cell")
    parser.add_argument("--same", type=int, default=2_000, help="unchanged windows a cell")
    parser.add_argument("--only", nargs="*", default=[], help="changes, by a part of their name")
    parser.add_argument("--no-peers", action="store_true", help="exact tests only")
    parser.add_argument("--theirs", type=Path, help="file of the peers' scores, made if missing")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for the peers' environment")
    options = parser.parse_args(arguments)
    cases = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = measure(folder, cases, options.windows, options.same)
        scores = options.theirs or folder / "theirs.json"
        if not options.no_peers and not scores.exists():
            command = [str(peer_python(options.cache)), str(THEIRS), name, str(scores)]
            subprocess.run(command, check=True, env=variables())
        theirs = {} if options.no_peers else json.loads(scores.read_text())
    table = [
        rows_of(cell, theirs.get(f"{i:02}", {}), options.windows) for i, cell in enumerate(cells, 1)
    ]
    peers = ", ".join(f"{name} {version}" for name, version in PEERS.items() if name != "popmon")
    titles = (
        f"Power at alpha {ALPHA:g}: ours, exact tests, and {peers} (E, N)",
        f"Unchanged windows called drift: p <= {ALPHA:g}, the peers by their own thresholds",
    )
    heads = ("psi", "chi2", "ks", "W1", "windows", "alarm", "exact", *COLUMNS)
    for title, lines in zip(titles, zip(*table, strict=True), strict=True):
        sys.stdout.write(render(title, heads, lines, seed=SEED, width=9) + "\n")
    return int(any(row.goal and not row.goal.is_met for pair in table for row in pair))


if __name__ == "__main__":
    raise SystemExit(main())
