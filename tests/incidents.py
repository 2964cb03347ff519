"""Drawn incidents, and what is said of them: `python -m tests.incidents --draws 200`.

Rows of a binary model are drawn, counted, traced and put into words by the code that production
runs. The tables of the trace are what its words, and those of a message, are held against.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmarks.clusters import profiles
from mlmon_dagster.metrics.drift.column_change import ColumnChange
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.monitors.change_wording import in_words
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.trace.explain import Explained, explain
from mlmon_dagster.trace.sentences import cause, describe_trace
from tests.conftest import make_spec

KINDS = ("chance", "few windows", "undeclared slice", "two causes", "personal column",
         "moving baseline")  # fmt: skip
REGIONS, PLANS = ("north", "south", "west"), ("basic", "plus")
SECRET = "jane@example.com"
ROWS = 120  # of a window
METRICS = ("roc_auc", "accuracy")
CAUSES = re.compile(
    r"above all|did most|did a part|explains? |inverted|decisions changed|Rows where"
)
DENIALS = re.compile(r"[Nn]o (value|slice) ")


def draw_side(
    rng: np.random.Generator, windows: int, broken: Mapping[str, float], start: str
) -> dict[str, ColumnStatistics]:
    """Return the profiles of some days: by region alone, whose slices are declared.

    Args:
        rng: Draws everything.
        windows: How many days.
        broken: Region or plan -> share of its scores that are another row's.
        start: The first day.
    """
    n = windows * ROWS
    day = np.repeat(np.arange(windows), ROWS)
    rows = pd.DataFrame({"region": rng.choice(REGIONS, n), "plan": rng.choice(PLANS, n)})
    logit = rng.normal(0, 1.6, n) + rng.normal(0, 0.25, windows)[day]
    actual = rng.random(n) < 1 / (1 + np.exp(-logit))
    share = rows["region"].map(broken).fillna(0) + rows["plan"].map(broken).fillna(0)
    is_broken = rng.random(n) < share.to_numpy(float)
    score = 1 / (1 + np.exp(-np.where(is_broken, rng.normal(0, 1.6, n), logit)))
    at = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(day, unit="D")
    known = pd.DataFrame({"window_start": at, "score": score, "actual": actual.astype(float)})
    whole = known.assign(slice_key="all", slice_value="all")
    parts = known.assign(slice_key="region", slice_value=rows["region"])
    found = profiles(pd.concat([whole, parts], ignore_index=True))
    del found[":absolute"]
    return found


def draw_incident(kind: str, rng: np.random.Generator, metric: str) -> tuple[ModelSpec, Explained]:
    """Return a trace of an incident of a kind."""
    size = float(rng.uniform(0.3, 0.9))
    broken = {
        "undeclared slice": {"plus": size},
        "two causes": {"north": size, "plus": size / 2},
        "few windows": {str(rng.choice(REGIONS)): size},
        "personal column": {"south": size},
        "moving baseline": {"west": size},
    }.get(kind, {})
    windows = int(rng.integers(1, 8)) if kind == "few windows" else int(rng.integers(10, 22))
    earlier = {} if kind != "moving baseline" else {"west": size * float(rng.random())}
    spec = make_spec(
        features={
            "region": {"type": "categorical"},
            "plan": {"type": "categorical"},
            "email": {"type": "categorical", "pii": True},
        },
        slices=["region"],
    )
    now = draw_side(rng, windows, broken, "2024-03-01")
    then = draw_side(rng, 24, earlier, "2024-01-01")
    found = explain(spec, metric, now, then)
    assert found is not None
    return spec, found


def count_faults(spec: ModelSpec, found: Explained) -> Counter[str]:
    """Count what a trace and a message say against their own table."""
    lines = [*describe_trace(spec, found, "now", "before"), cause(spec, found)]
    said = [line for line in lines if line]
    faults = Counter[str]()
    low, high = found.change - found.margin, found.change + found.margin
    may_be_chance = not found.p_value <= 0.01 or low <= 0 <= high
    parts = found.slices[found.slices["slice_key"] != "all"]
    for line in said:
        is_cause = CAUSES.search(line) is not None
        faults["cause named of a drop that may be chance"] += is_cause and may_be_chance
        faults["cause named whose interval holds zero"] += is_cause and names_unsure(found, line)
        is_denial = DENIALS.search(line) is not None and "is shown" not in line
        faults["statement that the table denies"] += is_denial and bool(
            (parts["effect"].abs() > 0.25 * abs(found.change)).any() or parts["is_real"].any()
        )
        faults["personal value shown"] += SECRET in line
    change = ColumnChange("value", 0.4, 0.1, SECRET)
    faults["personal value shown"] += SECRET in in_words(spec, "email", change)
    faults["value not named"] += SECRET not in in_words(spec, "plan", change)
    return faults


def names_unsure(found: Explained, line: str) -> bool:
    """Say whether a sentence names a part whose own interval holds zero."""
    effects, margins = found.effects("region"), found.margins("region")
    real = found.slices.set_index("slice_value")["is_real"]
    if "above all" in line:
        named = [name for name in effects if f" {name} with " in line]
        is_sure = [
            abs(effects[name]) > margins[name] if name in margins else bool(real[name])
            for name in named
        ]
        return not all(is_sure)
    split = found.scores.split if found.scores else None
    if "explain" in line and split is not None:
        named_parts = line.partition("; ")[0]
        words = ("shifted scores", "the new meaning")
        return any(
            word in named_parts and not abs(effect) > margin
            for word, effect, margin in zip(words, split.effects, split.margins, strict=True)
        )
    if "did most" in line or "did a part" in line:
        return found.n_standing == 0
    return False


def run(draws: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Draw incidents of each kind in turn, and count the faults of each."""
    found = {kind: Counter[str]() for kind in KINDS}
    for place in range(draws):
        kind = KINDS[place % len(KINDS)]
        metric = METRICS[place // len(KINDS) % len(METRICS)]
        spec, explained = draw_incident(kind, np.random.default_rng([seed, place]), metric)
        is_explained = CAUSES.search(cause(spec, explained)) is not None
        found[kind] += Counter({"incidents": 1, "explained": is_explained})
        found[kind].update(count_faults(spec, explained))
    return found


def main() -> None:
    """Print a table of counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    found = run(parser.parse_args().draws)
    table = pd.DataFrame({kind: dict(counts) for kind, counts in found.items()}).fillna(0)
    print(table.astype(int).assign(all=lambda frame: frame.sum(axis=1)).to_string())


if __name__ == "__main__":
    main()
