"""Every optional part of a spec as a dimension, and specs that cover every pair of their options.

An option that needs another one (fairness needs a binary task) clashes with what it cannot be
combined with. Each dimension but the task has an option that clashes with nothing, so that every
pair without a clash can be part of a spec.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import combinations

BINARY, MULTICLASS, REGRESSION, RANKING = (
    "binary_classification",
    "multiclass_classification",
    "regression",
    "ranking",
)
Choice = dict[str, str]
Pair = tuple[str, str, str, str]

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "task": (BINARY, MULTICLASS, REGRESSION, RANKING),
    "outputs": ("all", "first", "second"),  # e.g. score and decision, score only, decision only
    "format": ("csv", "parquet", "jsonl", "csv_gz", "bare_csv", "kserve", "sagemaker", "sql"),
    "actuals": ("jsonl", "csv", "parquet", "sql", "none"),
    "granularity": ("day", "hour", "week", "month"),
    "zone": (
        "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland",
        "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Chatham",
    ),
    "id": ("one", "parts"),
    "names": ("shared", "own"),  # of the columns of the actuals
    "times": ("text", "epoch", "naive"),
    "actual_time": ("yes", "no"),
    "dataset": ("yes", "no"),
    "model_version": ("yes", "no"),
    "latency_ms": ("yes", "no"),
    "status": ("yes", "no"),
    "trace_id": ("yes", "no"),
    "outcome": ("yes", "no"),
    "shap": ("no", "pattern", "mapping"),
    "features": ("all", "numeric", "categorical", "text", "datetime", "boolean"),
    "nullable": ("yes", "no"),
    "pii": ("unsaid", "true", "false"),
    "range": ("no", "yes"),
    "importance": ("no", "yes"),
    "baseline": (
        "default", "training", "validation", "moving", "gap", "previous", "weekday", "hour",
        "version",
    ),
    "slices": ("none", "one", "crossed", "version"),
    "classes": ("no", "yes"),
    "costs": ("no", "yes"),
    "fairness": ("no", "yes", "reference"),
    "amounts": ("default", "other"),  # top_k, top_share or quantile
    "no_actual_when": ("none", "feature", "status"),
    "patience": ("default", "short", "one_row"),
    "retention": ("none", "some"),
    "schema": ("default", "strict", "off"),
    "freshness": ("default", "off"),
    "quality": ("default", "columns", "strict"),
    "drift": (
        "default", "further", "shifts", "scaled", "distances", "columns", "sliced",
    ),
    "drift_baseline": ("none", "previous", "moving", "version"),
    "attribution": ("default", "off", "ladder"),
    "performance": ("default", "none", "bounds", "changes", "sliced"),
    "estimates": ("default", "none", "all"),
    "service": ("default", "latency", "errors", "volume"),
    "alerts": ("default", "slack", "routes"),
    "bad_rate": ("default", "zero"),
    "null_tokens": ("none", "some"),
}  # fmt: skip

_ORDER = {name: number for number, name in enumerate(DIMENSIONS)}

# (dimension, option) -> the only options of another dimension that go with it.
_NEEDS: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("classes", "yes"): {"task": (MULTICLASS,)},
    ("costs", "yes"): {"task": (BINARY,), "outputs": ("all", "second")},
    ("fairness", "yes"): {
        "task": (BINARY,), "outputs": ("all", "second"), "slices": ("one", "crossed"),
    },
    ("fairness", "reference"): {
        "task": (BINARY,), "outputs": ("all", "second"), "slices": ("one", "crossed"),
    },
    ("slices", "one"): {"features": ("all", "categorical")},
    ("slices", "crossed"): {"features": ("all",)},
    ("slices", "version"): {"model_version": ("yes",)},
    ("shap", "pattern"): {"features": ("all", "numeric", "categorical")},
    ("shap", "mapping"): {"features": ("all", "numeric", "categorical")},
    ("range", "yes"): {"features": ("all", "numeric")},
    ("baseline", "training"): {"dataset": ("yes",)},
    ("baseline", "validation"): {"dataset": ("yes",)},
    ("baseline", "weekday"): {"granularity": ("day", "hour")},
    ("baseline", "hour"): {"granularity": ("hour",)},
    ("baseline", "version"): {"model_version": ("yes",)},
    ("drift_baseline", "version"): {"model_version": ("yes",)},
    ("zone", "Australia/Lord_Howe"): {"granularity": ("day", "week", "month")},
    ("zone", "Asia/Kolkata"): {},
    ("times", "epoch"): {"format": ("csv", "parquet", "jsonl", "csv_gz", "bare_csv", "sql")},
    ("no_actual_when", "status"): {"status": ("yes",)},
    ("attribution", "ladder"): {"shap": ("pattern", "mapping")},
    ("service", "latency"): {"latency_ms": ("yes",)},
    ("service", "errors"): {"status": ("yes",)},
    ("names", "own"): {"actuals": ("jsonl", "csv", "parquet", "sql"), "id": ("one",)},
    ("performance", "bounds"): {"actuals": ("jsonl", "csv", "parquet", "sql")},
    ("performance", "changes"): {"actuals": ("jsonl", "csv", "parquet", "sql")},
    ("performance", "sliced"): {"actuals": ("jsonl", "csv", "parquet", "sql")},
    ("id", "parts"): {"format": ("csv", "parquet", "jsonl", "csv_gz", "bare_csv", "sql")},
}  # fmt: skip


def clash(a: str, option_a: str, b: str, option_b: str) -> bool:
    """Say whether two options cannot be in one spec."""
    for first, option, second, other in ((a, option_a, b, option_b), (b, option_b, a, option_a)):
        fitting = _NEEDS.get((first, option), {}).get(second)
        if fitting is not None and other not in fitting:
            return True
    return False


@cache
def every_pair() -> frozenset[Pair]:
    """Return the pairs of options that can be in one spec."""
    return frozenset(
        (a, x, b, y)
        for a, b in combinations(DIMENSIONS, 2)
        for x in DIMENSIONS[a]
        for y in DIMENSIONS[b]
        if not clash(a, x, b, y) and _can_be_completed({a: x, b: y})
    )


def _can_be_completed(choice: Choice) -> bool:
    """Say whether two options still leave a common one in every other dimension."""
    for name, options in DIMENSIONS.items():
        if name not in choice and not any(_fits(choice, name, option) for option in options):
            return False
    return True


def _fits(choice: Choice, name: str, option: str) -> bool:
    return not any(clash(name, option, other, chosen) for other, chosen in choice.items())


def pairs_of(choice: Choice) -> set[Pair]:
    """Return the pairs that a spec covers."""
    return {(a, choice[a], b, choice[b]) for a, b in combinations(DIMENSIONS, 2)}


def choices(n: int, seed: int) -> Iterator[Choice]:
    """Yield n choices; the first ones cover as many new pairs each as a greedy search finds."""
    rng = random.Random(seed)
    left = set(every_pair())
    made = 0
    while made < n:
        choice = _greedy(left, rng)
        if choice is None:
            continue
        left -= pairs_of(choice)
        made += 1
        yield choice


def _greedy(left: set[Pair], rng: random.Random) -> Choice | None:
    """Start from a pair that is left, then take what adds most; None at a dead end."""
    choice: Choice = {}
    if left:
        a, x, b, y = rng.choice(sorted(left))
        choice = {a: x, b: y}
    rest = [name for name in DIMENSIONS if name not in choice]
    rng.shuffle(rest)
    for name in rest:
        fitting = [option for option in DIMENSIONS[name] if _fits(choice, name, option)]
        if not fitting:
            return None
        rng.shuffle(fitting)
        choice[name] = max(fitting, key=lambda option: _gain(choice, name, option, left))
    return choice


def _gain(choice: Choice, name: str, option: str, left: set[Pair]) -> int:
    return sum(
        (
            (other, chosen, name, option)
            if _ORDER[other] < _ORDER[name]
            else (name, option, other, chosen)
        )
        in left
        for other, chosen in choice.items()
    )
