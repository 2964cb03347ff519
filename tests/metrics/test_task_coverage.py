"""Intervals of every task hold the truth; a small share of `python -m benchmarks calibrate`."""

from __future__ import annotations

import pytest

from benchmarks import calibrate

RUNS = 1000
# Three binomial standard errors of .93 and .97 at so many windows.
LOW, HIGH = 0.93 - 0.024, 0.97 + 0.017
CASES = {
    "areas": lambda: calibrate.areas(0.2, 400, RUNS),
    "decisions": lambda: calibrate.decisions((0.5, 0.2, 0.1, 0.2), 400, RUNS),
    "classes": lambda: calibrate.classes(400, RUNS),
    "labels": lambda: calibrate.labels(400, RUNS),
    "probabilities": lambda: calibrate.probabilities(400, RUNS),
    "errors": lambda: calibrate.errors(400, RUNS),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_about_95_times_in_100(case):
    for found in CASES[case]():
        assert LOW <= found.share <= HIGH, found
