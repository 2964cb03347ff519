"""Windows whose ground truth comes as a law says, as the arrival curve is given them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlmon_dagster.metrics.late_truth.arrivals import Arrivals, TruthRecord, learn_arrivals
from mlmon_dagster.spec.windows import age_step

Lag = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def between(low: float, high: float) -> Lag:
    return lambda truth, rng: np.asarray(rng.uniform(low, high, len(truth)))


def lognormal(median: float, sigma: float) -> Lag:
    return lambda truth, rng: np.asarray(rng.lognormal(np.log(median), sigma, len(truth)))


def by_class(of_0: Lag, of_1: Lag) -> Lag:
    return lambda truth, rng: np.where(truth == 1, of_1(truth, rng), of_0(truth, rng))


class Past:
    """Daily windows and the exact moments, in days, at which each of their labels came.

    Args:
        lag: Days from a prediction to its label, by its truth.
        n_windows: Day i ends at i + 1.
        n: Predictions a day.
        weekly: Labels are delivered every seventh day only.
        pause: In these days none are delivered; they follow at its end.
        stopped: From this day on none are delivered.
        share: Share of predictions that ever get a label.
        rate: Share of positives.
    """

    def __init__(
        self,
        lag: Lag,
        n_windows: int,
        n: int = 400,
        *,
        weekly: bool = False,
        pause: tuple[float, float] | None = None,
        stopped: float = np.inf,
        share: float = 1.0,
        rate: float = 0.3,
        seed: int = 0,
    ) -> None:
        rng, self.n = np.random.default_rng(seed), n
        self.truth, self.known, self.came = [], [], []
        for day in range(n_windows):
            truth = (rng.random(n) < rate).astype(int)
            known = day + rng.random(n) + lag(truth, rng)
            came = np.ceil(known / 7) * 7 if weekly else np.ceil(known)
            if pause:
                came = np.where((came > pause[0]) & (came < pause[1]), pause[1], came)
            came = np.where((rng.random(n) < share) & (came <= stopped), came, np.inf)
            self.truth.append(truth)
            self.known.append(known)
            self.came.append(came + 0.1)  # a file lands early on the next day

    def records(self, now: float, *, imported_at: float | None = None) -> list[TruthRecord]:
        """Return the windows that have ended, as they are counted at a moment."""
        found = []
        for day, (truth, known, came) in enumerate(
            zip(self.truth, self.known, self.came, strict=True)
        ):
            end = day + 1.0
            if end > now:
                break
            seen = end if imported_at is None else max(imported_at, end)
            arrived = np.where(np.isfinite(came), np.maximum(came, seen), np.inf)
            there = arrived <= now
            found.append(
                TruthRecord(
                    end,
                    seen,
                    self.n,
                    counts(truth[there], arrived[there] - end),
                    counts(truth[there], known[there] - end),
                )
            )
        return found

    def labels(self, day: int, now: float) -> int:
        return int((self.came[day] <= now).sum())

    def learn(self, now: float, **options: Any) -> Arrivals:
        """Learn the curves at a moment; options are those of `learn_arrivals`."""
        return learn_arrivals(
            self.records(now), options.pop("baseline", []), now, 24.0,
            **{"patience": 2.0, "n_classes": 2} | options,
        )  # fmt: skip


def counts(truth: np.ndarray, ages: np.ndarray) -> dict[str, dict[int, int]]:
    """Count actuals by class and step of age."""
    found: dict[str, dict[int, int]] = {}
    for actual, age in zip(truth.tolist(), ages.tolist(), strict=True):
        by_age = found.setdefault(str(actual), {})
        by_age[age_step(age)] = by_age.get(age_step(age), 0) + 1
    return found
