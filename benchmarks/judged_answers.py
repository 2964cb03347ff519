"""Does the good share beside a judge hold the truth of real answers, judged by real judges?

`python -m benchmarks judged_answers --answers FOLDER`: a checkout of AlpacaEval (tatsu-lab,
Apache-2.0). Of each model that two judges looked at, the more careful one stands for people: its
answers are the truth, of which a few are drawn as labels; the other judges all answers. 400 draws
each. `holds` is how often the 95 % interval holds the careful judge's share, `worth` how many
times as many labels give the same width without a judge (Wilson).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.evaluations import rate_of_all
from mlmon_dagster.metrics.intervals import wilson

CAREFUL = "alpaca_eval_cot_gpt4_turbo_fn"
JUDGES = ("alpaca_eval_gpt4_turbo_fn", "weighted_alpaca_eval_gpt4_turbo")
LABELS, DRAWS, LEAST, MOST_BIAS = (40, 100), 400, 0.93, 0.01
Answers = NDArray[np.int64]


def read_pairs(folder: Path) -> Iterator[tuple[str, Answers, Answers]]:
    """Yield a model, and whether its answers are better by the careful judge and by another."""
    for careful in sorted(folder.glob(f"results/*/{CAREFUL}/annotations.json")):
        truth = _read(careful)
        for judge in JUDGES:
            path = careful.parents[1] / judge / "annotations.json"
            judged = _read(path) if path.exists() else {}
            both = sorted(truth.keys() & judged.keys())
            if both:
                a, b = (np.array([side[i] for i in both]) for side in (truth, judged))
                yield f"{careful.parents[1].name}, {judge}", a, b


def _read(path: Path) -> Mapping[str, int]:
    rows = json.loads(path.read_text())
    return {
        row["instruction"]: int(row["preference"] >= 1.5)
        for row in rows
        if row.get("preference") is not None
    }


def judge(truth: Answers, judged: Answers, n_labels: int, rng: np.random.Generator) -> list[float]:
    """Return how often the interval holds the truth, what labels are worth, and the bias."""
    rows = np.tile(np.bincount(judged, minlength=2), (DRAWS, 1)).astype(np.float64)
    labels, good = np.zeros((DRAWS, 2)), np.zeros((DRAWS, 2))
    for i in range(DRAWS):
        drawn = rng.choice(len(truth), n_labels, replace=False)
        labels[i] = np.bincount(judged[drawn], minlength=2)
        good[i] = np.bincount(judged[drawn], weights=truth[drawn], minlength=2)
    found, share = rate_of_all(rows, labels, good), truth.mean()
    holds = (found.lower <= share) & (share <= found.upper)
    low, high = wilson(good.sum(axis=1), labels.sum(axis=1))
    worth = (np.mean(high - low) / np.mean(found.upper - found.lower)) ** 2
    return [float(holds.mean()), float(worth), float(abs(np.mean(found.value) - share))]


def main() -> int:
    """Print the table; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, required=True)
    pairs = list(read_pairs(parser.parse_args().answers))
    if not pairs:
        print(f"no model with answers of {CAREFUL} and of another judge", file=sys.stderr)
        return 2
    rng, rows = np.random.default_rng(0), []
    for n_labels in LABELS:
        found = []
        for name, truth, judged in pairs:
            held = judge(truth, judged, n_labels, rng)
            found.append(held)
            agree = f"{(truth == judged).mean():.2f}"
            numbers = (agree, *(f"{number:.3f}" for number in held))
            rows.append(Row(f"{name[:40]}, {n_labels} labels", numbers))
        least, worth, bias = np.min(found, axis=0)[0], *np.mean(found, axis=0)[1:]
        numbers = ("", f"{least:.3f}", f"{worth:.2f}", f"{bias:.3f}")
        rows.append(Row(f"least, mean, mean of {n_labels} labels", numbers,
                        Goal(float(least), LEAST, is_least=True)))  # fmt: skip
    table = ("Judged answers", ["agree", "holds", "worth", "bias"], rows)
    return int(show([table], seed=0) > 0)


if __name__ == "__main__":
    sys.exit(main())
