"""Do traces say what is not there, and find what is? `python -m benchmarks trace_claims`.

Periods in which nothing changed (days of the demo's flights, drawn at random from May to August)
are traced and searched; days that share effects are drawn from a known law for the coverage of the
effects' intervals; then scores of which only the law or only the meaning changed; and slices are
planted where nothing else is wrong. Beside a share stands the error of so many draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.clusters import Profiles, draw_days, profiles
from benchmarks.scored_worlds import logistic
from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.statistics import select
from mlmon_dagster.profiles.bin_shapes import categorical_binning, numeric_binning
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.trace.explain import Explained, explain
from mlmon_dagster.trace.rows import code_column, excess
from mlmon_dagster.trace.search import Found, Rows, Terms, members, search
from mlmon_dagster.trace.sentences import describe_trace
from mlmon_dagster.trace.splits import (
    DECISIONS,
    PLAYERS,
    Effects,
    area_effects,
    decision_effects,
    decompose,
    measured,
    score_effects,
    score_groups,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SEED = 1953
LEVEL, ALLOWED = 0.01, 0.02
BASELINE = 30  # days
POOL = 4_000  # days of a simulated side; their sums are the truth
BINS, SPAN = 128, 6.0  # of simulated scores, in logits
SLICES = 4
TABLES = ("unchanged", "covered", "shifted", "found", "quiet", "flights")
FOUND, FALSE, QUIET, HELD = 0.95, 0.05, 0.07, 0.93


def _share(name: str, count: int, of: int, limit: float, *, is_least: bool = False) -> Row:
    """Return a line: a share, the error of so many draws, and the goal."""
    share = count / of if of else math.nan
    error = math.sqrt(share * (1 - share) / of) if of else math.nan
    goal = Goal(round(share, 4), limit, is_least=is_least)
    return Row(name, (f"{share:.3f}", f"{error:.3f}", f"{of:,}"), goal)


# --- flights of which no period differs from another


def flights() -> pd.DataFrame:
    """Score the demo's flights of May to August; return those with an outcome."""
    from mlmon_dagster.demo.flights import FEATURES, train

    model = train()
    rows = model.flights
    rows = rows[rows["late"].notna() & pd.to_datetime(rows["day"]).dt.month.between(5, 8)]
    scores = model.classifier.predict_proba(rows[list(FEATURES)])[:, 1]
    return rows.assign(
        window_start=pd.to_datetime(rows["day"], utc=True),
        score=scores, prediction=(scores >= 0.3).astype(np.int64),
        actual=rows["late"].astype("float64"), slice_key="all", slice_value="all",
    ).reset_index(drop=True)  # fmt: skip


def demo_model() -> ModelSpec:
    with resources.as_file(resources.files("mlmon_dagster.demo")) as folder:
        return load_model(Path(folder) / "flight_delay.yaml")


def unchanged(rows: pd.DataFrame, draws: int) -> Iterator[Row]:
    """Trace periods of redrawn days and count what is called real."""
    spec, rng = demo_model(), np.random.default_rng(SEED)
    parts = [rows, *(rows.assign(slice_key=k, slice_value=rows[k].astype(str)) for k in _keys())]
    whole = profiles(pd.concat(parts))
    del whole[":absolute"]
    starts = np.unique(whole["score"].cells["window_start"].to_numpy())
    place = np.searchsorted(starts, whole["score"].cells["window_start"].to_numpy())

    def side(days: Ints) -> Profiles:
        kept = np.isin(place, days)
        return {name: select(stats, kept) for name, stats in whole.items()}

    for length in (14, 30):
        counts: dict[str, int] = {}
        for days in draw_days(rng, draws, len(starts), length + BASELINE):
            now, then = side(days[:length]), side(days[length:])
            for metric in ("roc_auc", "f1", "accuracy"):
                found = explain(spec, metric, now, then)
                assert found is not None
                for name, is_so in _called(spec, found).items():
                    key = f"{length} days, {metric}: {name}"
                    counts[key] = counts.get(key, 0) + is_so
        for name, count in counts.items():
            yield _share(name, count, draws, ALLOWED)


def _keys() -> tuple[str, ...]:
    return ("origin", "carrier")


def _called(spec: ModelSpec, found: Explained) -> dict[str, bool]:
    """Say what a trace calls real: the change, a slice's own, a named slice, a split's part."""
    slices = found.slices[found.slices["slice_key"] != "all"]
    splits = {f"parts, {key}": split for key, split in found.values.items()}
    splits |= {f"parts, {name} decisions": of.split for name, of in found.decisions.items()}
    if found.scores is not None and found.scores.split is not None and found.metric == "roc_auc":
        splits["parts, law and meaning"] = found.scores.split
    lines = describe_trace(spec, found, "now", "then")
    said = {
        "the change": found.p_value <= LEVEL,
        "any slice's own": bool(slices["is_real"].any()),
        "a slice is named": any("it is above all" in line for line in lines),
    }
    return {
        **said,
        "any of these": any(said.values()),
        **{name: bool((split.p_adjusted <= LEVEL).any()) for name, split in splits.items()},
    }


def quiet_flights(rows: pd.DataFrame, draws: int) -> Iterator[Row]:
    """Search 30 redrawn days, against all others as the baseline."""
    spec, rng = demo_model(), np.random.default_rng(SEED + 1)
    coded = np.stack([_coded(spec, name, rows) for name in spec.features], axis=1)
    starts, place = np.unique(rows["window_start"].to_numpy(), return_inverse=True)
    counts = profiles(rows)
    named = 0
    for days in draw_days(rng, draws, len(starts), 30):
        mine = np.isin(place, days)
        rest = {n: select(s, ~np.isin(np.arange(len(starts)), days)) for n, s in counts.items()}
        target = excess(spec, rows, rest)
        assert target is not None
        every = Rows(coded, target[0].to_numpy(), place)
        named += bool(search(every.of(mine), every.of(~mine)))
    yield _share("30 days of the flights, redrawn", named, draws, QUIET)


def _coded(spec: ModelSpec, name: str, rows: pd.DataFrame) -> NDArray[np.uint8]:
    values = rows[name]
    if spec.features[name].type != "numeric":
        values = values.astype(str)
        return code_column(
            name, values, categorical_binning(name, list(values.value_counts().index))
        ).codes
    known = values.dropna().astype(float)
    edges = np.unique(np.quantile(known, np.arange(1, 20) / 20))
    binning = numeric_binning(name, list(edges), low=known.min(), high=known.max(), fine=1)
    return code_column(name, values, binning).codes


# --- days that share effects, of a known law


class Law(NamedTuple):
    """What scores and their truth are drawn from.

    Attributes:
        centre, spread: Of the scores' logits.
        slope, lift: What a score means: its chance has the logit lift + slope * logit.
        mix: Share of each slice. worse: How much less a score means in each slice, 0 to 1.
    """

    centre: float = -1.0
    spread: float = 1.3
    slope: float = 1.0
    lift: float = 0.0
    mix: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    worse: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)


USUAL = Law()
MOVED = Law(-0.8, 1.15, 0.8, 0.15, (0.3, 0.3, 0.2, 0.2), (0.0, 0.4, 0.2, 0.3))


def days_of(rng: np.random.Generator, law: Law, days: int, n: int, shared: float) -> Floats:
    """Count rows of days by actual, slice and score bin, (days, 2, SLICES, BINS).

    Args:
        rng: Draws.
        law: Of all days.
        days: Days.
        n: Rows of a day on average; Saturdays and Sundays have a third of them.
        shared: Correlation of two rows of a day, in the scores' logits and in those of their truth.
    """
    found = np.zeros((days, 2, SLICES, BINS))
    for first in range(0, days, 500):
        some = min(500, days - first)
        sizes = rng.poisson(n * np.where(np.arange(some) % 7 < 5, 1.0, 1 / 3))
        day = np.repeat(np.arange(some), sizes)
        own = rng.normal(0, 1, (some, 2))[day] * math.sqrt(shared)
        slice_ = rng.choice(SLICES, len(day), p=law.mix)
        noise = rng.normal(0, 1, len(day)) * math.sqrt(1 - shared)
        logit = law.centre + law.spread * (own[:, 0] + noise)
        slope = law.slope * (1 - np.array(law.worse)[slice_])
        # The row's own part is logistic; the day's is added to it, as a share of its variance.
        scale = math.pi / math.sqrt(3)
        actual = rng.random(len(day)) < logistic(law.lift + slope * logit + scale * own[:, 1])
        place = np.clip((logit + SPAN) / (2 * SPAN) * BINS, 0, BINS - 1).astype(np.int64)
        flat = ((day * 2 + actual) * SLICES + slice_) * BINS + place
        size = some * 2 * SLICES * BINS
        found[first : first + some] = np.bincount(flat, minlength=size).reshape(
            -1, *found.shape[1:]
        )
    return found


Prepared = Callable[[Floats], Floats]  # counts of days -> what a split takes


def _tables(counts: Floats) -> Floats:
    """Return predicted x actual of scores decided at the threshold .3, (..., 2, 2)."""
    cut = int((math.log(0.3 / 0.7) + SPAN) / (2 * SPAN) * BINS)
    whole = counts.sum(axis=-2)
    sides = [whole[..., :cut].sum(axis=-1), whole[..., cut:].sum(axis=-1)]
    return np.stack(sides, axis=-2)


def _right(counts: Floats) -> Floats:
    """Return right decisions and rows by slice, (..., 2, SLICES)."""
    cut = int((math.log(0.3 / 0.7) + SPAN) / (2 * SPAN) * BINS)
    right = counts[..., 0, :, :cut].sum(axis=-1) + counts[..., 1, :, cut:].sum(axis=-1)
    return np.stack([right, counts.sum(axis=(-3, -1))], axis=-2)


def _scores(counts: Floats) -> Floats:
    return counts.sum(axis=-2)


def _same(counts: Floats) -> Floats:
    return counts


def _ratio_of_slices(now: Floats, then: Floats) -> Floats:
    """Return what each slice adds to the change of a ratio: its mix and its within together."""
    found = decompose(now[..., 0, :], now[..., 1, :], then[..., 0, :], then[..., 1, :])
    return found.mix + found.within


def covered(draws: int) -> Iterator[Row]:
    """How often the intervals of effects that a trace tells hold the effects of the law."""
    parts = [f"slice {i}" for i in range(SLICES)]
    for shared in (0.02, 0.05, 0.1):
        rng = np.random.default_rng([SEED, int(100 * shared)])
        pools = [days_of(rng, law, POOL, 200, shared) for law in (MOVED, USUAL)]
        whole = [pool.sum(axis=0) for pool in pools]
        for length in (14, 30):
            held: dict[str, list[Floats]] = {}
            for _ in range(draws):
                one, other = (
                    pool[rng.choice(POOL, days, replace=False)]
                    for pool, days in zip(pools, (length, BASELINE), strict=True)
                )
                starts = score_groups(one.sum(axis=(0, 1, 2)), other.sum(axis=(0, 1, 2)))
                f1 = decision_effects(DECISIONS["f1"])
                cases: tuple[tuple[str, Effects, Prepared, Sequence[str]], ...] = (
                    ("law and meaning", score_effects(starts), _scores, ("law", "meaning")),
                    ("decisions, F1", f1, _tables, PLAYERS),
                    ("slices, accuracy", _ratio_of_slices, _right, parts),
                    ("pairs of slices, ROC AUC", area_effects, _same, parts),
                )
                for name, effects, prepared, names in cases:
                    truth = effects(*(prepared(side) for side in whole))
                    found = measured(effects, prepared(one), prepared(other), names)
                    held.setdefault(name, []).append(np.abs(found.effects - truth) <= found.margins)
            for name, each in held.items():
                table = np.mean(each, axis=0)
                error = math.sqrt(0.95 * 0.05 / draws)
                numbers = (f"{table.mean():.3f}", f"{table.min():.3f}", f"{table.max():.3f}")
                off = Goal(round(abs(float(table.mean()) - 0.95), 3), 0.02, unit=" off .95")
                row = f"{shared:g}, {length} days: {name}"
                yield Row(row, (*numbers, f"{error:.3f}", f"{draws:,}"), off)


SHIFTS = {
    "law: scores nearer together": (USUAL._replace(spread=0.8), 1),
    "law: scores half higher": (USUAL._replace(centre=-0.4), 1),
    "meaning: half of it": (USUAL._replace(slope=0.5), 0),
    "meaning: truth half more frequent": (USUAL._replace(lift=0.5), 0),
}


def shifted(draws: int) -> Iterator[Row]:
    """Change the law alone or the meaning alone: does the other part's interval hold 0?"""
    flat = {"worse": (0.0,) * SLICES}
    for shared in (0.0, 0.05):
        rng = np.random.default_rng([SEED + 2, int(100 * shared)])
        then = _scores(days_of(rng, USUAL._replace(**flat), POOL, 300, shared))
        for name, (law, quiet) in SHIFTS.items():
            now = _scores(days_of(rng, law._replace(**flat), POOL, 300, shared))
            for length in (14, 30):
                held, seen = 0, 0
                for _ in range(draws):
                    one, other = (
                        pool[rng.choice(POOL, days, replace=False)]
                        for pool, days in ((now, length), (then, BASELINE))
                    )
                    starts = score_groups(one.sum(axis=(0, 1)), other.sum(axis=(0, 1)))
                    found = measured(score_effects(starts), one, other, ("law", "meaning"))
                    held += bool(abs(found.effects[quiet]) <= found.margins[quiet])
                    seen += bool(abs(found.effects[1 - quiet]) > found.margins[1 - quiet])
                row = _share(f"{shared:g}, {length} days, {name}", held, draws, HELD, is_least=True)
                yield Row(row.name, (*row.numbers, f"{seen / draws:.3f}"), row.goal)


# --- planted slices


class Plan(NamedTuple):
    """Rows of which some slices are wrong more often than the others.

    Attributes:
        rows, columns, values: Of the table; values are equally frequent and independent.
        windows: Days. own: Standard deviation of the days' own rates.
    """

    rows: int = 20_000
    columns: int = 12
    values: int = 5
    windows: int = 40
    own: float = 0.0


BASE = 0.15  # share of wrong rows
LEAST_Z, MOST_Z = 6.0, 10.0  # of a planted slice in half of the rows


def table_of(rng: np.random.Generator, plan: Plan) -> tuple[NDArray[np.uint8], Ints, Floats]:
    """Return codes, the window and the chance to be wrong of each row."""
    codes = rng.integers(0, plan.values, (plan.rows, plan.columns)).astype(np.uint8)
    windows = np.arange(plan.rows) * plan.windows // plan.rows
    rate = BASE + plan.own * rng.normal(size=plan.windows)[windows]
    return codes, windows, np.clip(rate, 0.01, 0.99)


def plant(
    rng: np.random.Generator, codes: NDArray[np.uint8], depths: Sequence[int]
) -> list[tuple[Terms, float]]:
    """Choose slices of columns of their own, and by how much more often each is wrong.

    That is from the z that half of the rows expect of it beside all others.
    """
    order, found = rng.permutation(codes.shape[1]), []
    for depth in depths:
        columns, order = np.sort(order[:depth]), order[depth:]
        terms = tuple((int(c), int(codes[rng.integers(len(codes)), c])) for c in columns)
        n = int(members(codes, terms).sum()) / 2
        z = rng.uniform(LEAST_Z, MOST_Z)
        found.append((terms, z * math.sqrt(BASE * (1 - BASE) * (1 / n - 2 / len(codes)))))
    return found


def found_again(draws: int) -> Iterator[Row]:
    """Plant one slice of one, two or three predicates, then one of each, and search."""
    for own in (0.0, 0.03):
        plan = Plan(own=own)
        for depths in ((1,), (2,), (3,), (1, 2, 3)):
            rng = np.random.default_rng([SEED + 3, *depths, int(100 * own)])
            exact, wanted, false, named = 0, 0, list[float](), 0
            for _ in range(draws):
                codes, windows, rate = table_of(rng, plan)
                slices = plant(rng, codes, depths)
                for terms, more in slices:
                    rate = rate + more * members(codes, terms)
                wrong = rng.random(plan.rows) < np.minimum(rate, 1.0)
                found = search(Rows(codes, wrong.astype(float), windows))
                names = {one.terms for one in found}
                exact += sum(terms in names for terms, _ in slices)
                wanted += len(slices)
                named += len(found)
                others = sum(not _is_one_of(codes, one, [t for t, _ in slices]) for one in found)
                false.append(others / max(len(found), 1))
            what = f"own rates {own:g}, {' and '.join(map(str, depths))} predicates"
            yield _share(f"{what}: found exactly", exact, wanted, FOUND, is_least=True)
            # Of each search, which is what the procedure holds.
            share, error = float(np.mean(false)), float(np.std(false)) / math.sqrt(draws)
            numbers = (f"{share:.3f}", f"{error:.3f}", f"{named:,}")
            yield Row(f"{what}: false", numbers, Goal(round(share, 4), FALSE))


def _is_one_of(codes: NDArray[np.uint8], one: Found, planted: Sequence[Terms]) -> bool:
    """Say whether half of the rows of both are the same."""
    mine = members(codes, one.terms)
    for terms in planted:
        theirs = members(codes, terms)
        if (mine & theirs).sum() >= 0.5 * (mine | theirs).sum():
            return True
    return False


def quiet(draws: int) -> Iterator[Row]:
    """Search where no slice is wrong more often than others."""
    for name, plan in (("independent rows", Plan()), ("days with own rates", Plan(own=0.06))):
        rng = np.random.default_rng([SEED + 4, int(100 * plan.own)])
        named = 0
        for _ in range(draws):
            codes, windows, rate = table_of(rng, plan)
            # And with a mix of their own.
            moved = rng.integers(0, 3, plan.windows)[windows] * (plan.own > 0)
            codes[:, 0] = (codes[:, 0] + moved) % plan.values
            wrong = rng.random(plan.rows) < rate
            named += bool(search(Rows(codes, wrong.astype(float), windows)))
        yield _share(name, named, draws, QUIET)


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000, help="of simulated days")
    parser.add_argument("--traces", type=int, default=300, help="of the flights' days")
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--only", choices=TABLES, action="append")
    asked = parser.parse_args()
    rows = flights()
    share = ("share", "error", "of")
    tables: dict[str, tuple[str, Sequence[str], Iterator[Row]]] = {
        "unchanged": ("Called real where nothing changed", share, unchanged(rows, asked.traces)),
        "covered": (
            "Effects held by their 95 % intervals; correlation of a day's rows",
            ("mean", "least", "most", "error", "draws"), covered(asked.draws),
        ),
        "shifted": (
            "Intervals of the part that did not change hold 0; correlation of a day's rows",
            (*share, "other seen"), shifted(asked.draws),
        ),
        "found": ("Planted slices, expected z 6 to 10 in a half", share,
                  found_again(asked.searches)),
        "quiet": ("Any slice named where none is", share, quiet(asked.searches)),
        "flights": ("Any slice named in redrawn days", share, quiet_flights(rows, asked.searches)),
    }  # fmt: skip
    wanted = (table for name, table in tables.items() if not asked.only or name in asked.only)
    return int(show(wanted, seed=SEED, width=12) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
