"""Does the interval of a mean outcome hold it? `python -m benchmarks outcomes`, five minutes.

Draws of one window, of laws from normal to those without a variance, and of months of days that
share a shock, counted in the bins that profiles have. Beside each how often an interval is given at
all, how far it reaches to the long side, how often Student's alone would hold the truth, and the
share of the largest hundredth. Then the same of laws drawn at random: a tenth to all rows are not
0, some are refunds. The factors of the interval are fitted to laws of the first families, drawn by
another seed; to the other families nothing was. Then windows beside thirty others, as a monitor
judges them: how often one is past chance that is unchanged, and one that fell or rose.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.business import Outcome, business_metrics
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.means import mean_of, t_factor
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge
from mlmon_dagster.metrics.windows.clusters import (
    USUAL,
    beyond_usual,
    interval,
    margin_beside,
    standard_errors,
    usual_windows,
)
from mlmon_dagster.profiles.bin_shapes import loss_binning, size_binning

SEED = 17
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]
Law = tuple[Draw, float]


def _some_buy(share: float) -> Draw:
    return lambda rng, size: rng.lognormal(0, 1, size) * (rng.random(size) < share)


# Law -> how it is drawn, and its mean.
LAWS: Mapping[str, Law] = {
    "normal": (lambda rng, size: rng.normal(1, 1, size), 1.0),
    "exponential": (lambda rng, size: rng.exponential(1, size), 1.0),
    "log-normal, sigma 1": (lambda rng, size: rng.lognormal(0, 1, size), math.exp(0.5)),
    "log-normal, sigma 1.5": (lambda rng, size: rng.lognormal(0, 1.5, size), math.exp(1.125)),
    "a fifth buy, log-normal": (_some_buy(0.2), 0.2 * math.exp(0.5)),
    "one in 20 buys, log-normal": (_some_buy(0.05), 0.05 * math.exp(0.5)),
    "Pareto, tail 3": (lambda rng, size: rng.pareto(3, size) + 1, 1.5),
    "Pareto, tail 2.2": (lambda rng, size: rng.pareto(2.2, size) + 1, 2.2 / 1.2),
    "log-normal, sigma 2": (lambda rng, size: rng.lognormal(0, 2, size), math.exp(2)),
    "Pareto, tail 1.5": (lambda rng, size: rng.pareto(1.5, size) + 1, 3.0),
    "Pareto, tail 1.1": (lambda rng, size: rng.pareto(1.1, size) + 1, 11.0),
}
NO_MEAN = "Pareto, tail 1.1"  # hardly a mean, and no promise
CHANGED = (
    "normal", "log-normal, sigma 1", "log-normal, sigma 1.5", "a fifth buy, log-normal",
    "Pareto, tail 2.2",
)  # fmt: skip
MOST_CALLED = 0.05  # unchanged windows, to a side; a monitor asks for two of three besides
ROWS = (300, 500, 2_000, 5_000)
WORLDS = 60
_SELDOM = 0.1  # windows with an interval, of which too few to say how often it holds


def window_cells(count: int) -> pd.DataFrame:
    """Return the cells of so many windows of slice `all`."""
    return pd.DataFrame(
        {
            "window_start": pd.date_range("2026-01-01", periods=count, tz="UTC", unit="us"),
            "dataset": "production", "model_version": "1", "slice_key": "all", "slice_value": "all",
        }
    )  # fmt: skip


def counted(values: Floats) -> Outcome:
    """Return what profiles hold of the rows of C cells, (C, n)."""
    cells = window_cells(len(values))
    typical = float(np.exp(np.log(np.abs(values[values != 0])).mean()))
    gain = np.where(values >= 0, values, np.nan)
    return Outcome(
        column(loss_binning(":outcome/x", typical), cells, values),
        column(size_binning(":gain/x", typical), cells, gain),
        column(size_binning(":debit/x", typical), cells, np.where(values < 0, -values, np.nan)),
    )


def column(
    binning: Binning, cells: pd.DataFrame, values: Floats, rows: NDArray[np.int64] | None = None
) -> ColumnStatistics:
    """Return what profiles hold of one column.

    Args:
        binning: Of amounts or latencies, of a status (0 or 1), or a loss.
        cells: Of C windows.
        values: Their values, (C, n); NaN of a null.
        rows: Of each window, if it has fewer than n.
    """
    known = ~np.isnan(values)
    codes = np.zeros(values.shape, int)
    if binning.kind == "latency":
        step = math.log(binning.high / binning.low) / binning.size
        with np.errstate(divide="ignore", invalid="ignore"):
            place = np.floor(np.log(values / binning.low) / step)
        codes = np.clip(np.nan_to_num(place, neginf=0), 0, binning.size - 1).astype(int)
    if binning.kind == "status":
        codes = np.where(known, values, 0).astype(int)
    counts = np.zeros((len(values), binning.size), np.int64)
    place = np.broadcast_to(np.arange(len(values))[:, None], values.shape)
    np.add.at(counts, (place[known], codes[known]), 1)
    n = np.full(len(values), values.shape[1]) if rows is None else rows
    none, zero = np.zeros(len(values), np.int64), np.where(known, values, 0.0)
    return ColumnStatistics(
        binning, cells, counts, n, n - known.sum(axis=1), none, none, none,
        np.where(known, values, np.inf).min(axis=1), np.where(known, values, -np.inf).max(axis=1),
        zero.sum(axis=1), (zero**2).sum(axis=1),
    )  # fmt: skip


def windows(law: Law, n: int, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Return how often intervals of one window's mean are given, and those given hold it."""
    draw, truth = law
    outcome = counted(draw(rng, (draws, n)))
    frame = business_metrics({"x": outcome}, None, {})
    means = frame[frame["metric"] == "mean_outcome"]
    given = means[means["lower"].notna()]
    mean = mean_of(outcome.value)
    half = t_factor(mean.n) * mean.error
    ends = means[["lower", "upper"]].sub(means["value"], axis=0).abs().max(axis=1)
    return {
        "held": float(given["lower"].le(truth).mul(given["upper"].ge(truth)).mean()),
        "given": len(given) / len(means),
        "reach": float((ends / mean.error).median()),
        "student": float((np.abs(mean.value - truth) <= half).mean()),
        "top": float(frame.loc[frame["metric"] == "outcome_top_share", "value"].mean()),
    }


Family = Callable[[float], Law]


def _beta(a: float, b: float) -> float:
    return math.gamma(a) * math.gamma(b) / math.gamma(a + b)


# Power laws by the index of their tail, others by how heavy they are; the mean beside each.
_POWERS: Mapping[str, Family] = {
    "Pareto": lambda a: (lambda r, s: r.pareto(a, s) + 1, a / (a - 1)),
    "Lomax": lambda a: (lambda r, s: r.pareto(a, s), 1 / (a - 1)),
    "log-logistic": lambda a: (
        lambda r, s: (1 / r.random(s) - 1) ** (-1 / a), math.pi / a / math.sin(math.pi / a)
    ),
    "Fréchet": lambda a: (lambda r, s: r.exponential(1, s) ** (-1 / a), math.gamma(1 - 1 / a)),
}  # fmt: skip
_THINNER: Mapping[str, Family] = {
    "log-normal": lambda c: (lambda r, s: r.lognormal(0, c, s), math.exp(c * c / 2)),
    "Weibull": lambda c: (lambda r, s: r.weibull(1 / c, s), math.gamma(1 + c)),
    "gamma": lambda c: (lambda r, s: r.gamma(1 / c**2, 1, s), 1 / c**2),
    "inverse Gaussian": lambda c: (lambda r, s: r.wald(1, 1 / c**2, s), 1.0),
    "two kinds": lambda c: (
        lambda r, s: r.exponential(np.where(r.random(s) < 0.05, 10 * c, 1.0)), 0.95 + 0.5 * c
    ),
    "capped": lambda c: (
        lambda r, s: np.minimum(r.pareto(1.2, s) + 1, 100**c), 6 - 5 * 100 ** (-c / 5)
    ),
    "whole numbers": lambda c: (
        lambda r, s: r.negative_binomial(1 / c**2, 0.2, s) * 1.0, 4 / c**2
    ),
}  # fmt: skip
_OTHER_POWERS: Mapping[str, Family] = {
    "Burr": lambda a: (
        lambda r, s: np.sqrt(r.random(s) ** (-2 / a) - 1), a / 2 * _beta(a / 2 - 0.5, 1.5)
    ),
    "Dagum": lambda a: (
        lambda r, s: (r.random(s) ** -2.0 - 1) ** (-1 / a), _beta(0.5 + 1 / a, 1 - 1 / a) / 2
    ),
    "inverse gamma": lambda a: (lambda r, s: 1 / r.gamma(a, 1, s), 1 / (a - 1)),
    "Student": lambda a: (
        lambda r, s: np.abs(r.standard_t(a, s)),
        2 * math.sqrt(a / math.pi) * math.gamma((a + 1) / 2) / math.gamma(a / 2) / (a - 1),
    ),
}  # fmt: skip
_OTHERS: Mapping[str, Family] = {
    "power of a normal": lambda c: (
        lambda r, s: np.abs(r.normal(0, 1, s)) ** (2 * c),
        2**c * math.gamma(c + 0.5) / math.sqrt(math.pi),
    ),
    "two log-normals": lambda c: (
        lambda r, s: r.lognormal(0, np.where(r.random(s) < 0.2, c, c / 2)),
        0.2 * math.exp(c * c / 2) + 0.8 * math.exp(c * c / 8),
    ),
    "exponential of a gamma": lambda c: (
        lambda r, s: np.exp(r.gamma(3, c / 4.2, s)), (1 - c / 4.2) ** -3
    ),
    "prices": lambda c: (
        lambda r, s: np.ceil(r.lognormal(0, c / 2, s) / 0.5) / 2, _mean_price(c / 2)
    ),
}  # fmt: skip


def _mean_price(sigma: float) -> float:
    """Return the mean of a log-normal amount that is rounded up to a half."""
    steps = np.arange(200_000) / 2
    with np.errstate(divide="ignore"):
        beyond = special.ndtr(-np.log(steps) / sigma)
    return float(0.5 * beyond.sum())


def random_law(
    rng: np.random.Generator, *, has_variance: bool = True, others: bool = False
) -> tuple[str, Law]:
    """Return a law that nobody chose, with a variance or without, and its mean.

    Args:
        rng: Draws it.
        has_variance: If not, a power law of tail 1.05 to 2.
        others: Of the families that nothing was fitted to.
    """
    powers = _OTHER_POWERS if others else _POWERS
    if has_variance:
        laws = {
            **(_OTHERS if others else _THINNER),
            **{name: lambda c, law=law: law(1 + 2 / c) for name, law in powers.items()},
        }
        name, heavy = str(rng.choice(list(laws))), float(rng.uniform(0.4, 1.9))
    else:
        laws = powers
        name, heavy = str(rng.choice(list(laws))), float(rng.uniform(1.05, 2))
    (body, mean), buys = laws[name](heavy), float(rng.choice([1, 0.5, 0.2, 0.1]))
    refunds = float(rng.choice([0, 0, 0.1]))

    def draw(r: np.random.Generator, size: tuple[int, ...]) -> Floats:
        sign = np.where(r.random(size) < refunds, -1, 1)
        drawn: Floats = body(r, size) * sign * (r.random(size) < buys)
        return drawn

    said = f"{name} {heavy:.2f}, {buys:g} buy, {refunds:g} back"
    return said, (draw, mean * buys * (1 - 2 * refunds))


def months(law: str, days: int, n: int, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Return how often intervals of a period's mean hold it, whose days share a shock."""
    draw, truth = LAWS[law]
    held, by_rows = 0, 0
    for _ in range(draws):
        shock = np.exp(rng.normal(0, 0.3, (days, 1)) - 0.045)
        outcome = counted(draw(rng, (days, n)) * shock)
        parts = {"value": outcome.value, "gain": outcome.gain, "debit": outcome.debit}

        def measured(part: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
            of = Outcome(part["value"], part["gain"], part["debit"])
            frame = business_metrics({"x": of}, None, {})
            return frame[frame["metric"] == "mean_outcome"]

        known = {name: stats for name, stats in parts.items() if stats is not None}
        whole = {n: merge(s, ("slice_key", "slice_value")) for n, s in known.items()}
        [row] = measured(whole).to_dict("records")
        error = standard_errors(known, measured).iloc[0]
        low, high = interval([row["value"]], [error["error"]], [error["n_windows"]])
        by_rows += row["lower"] <= truth <= row["upper"]
        held += min(low[0], row["lower"]) <= truth <= max(high[0], row["upper"])
    return {"held": held / draws, "by_rows": by_rows / draws}


def _means(values: Floats) -> pd.DataFrame:
    frame = business_metrics({"x": counted(values)}, None, {})
    return frame[frame["metric"] == "mean_outcome"]


def past_chance(
    law: Law, shock: float, n: int, factor: float, baselines: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return how often windows are called lower, and higher, as a monitor calls them.

    Args:
        law: Of one row.
        shock: Standard deviation of the logarithm of what a window's rows share.
        n: Rows of a window that is judged; those of the baseline have 300.
        factor: How many times as much a row of it is worth.
        baselines: How many, of 30 windows each; 30 windows are judged by each.
        rng: Draws.
    """

    def drawn(rows: int) -> Floats:
        shared = np.exp(rng.normal(0, shock, (30, 1)) - shock**2 / 2)
        values: Floats = law[0](rng, (30, rows)) * shared
        return values

    called = {"lower": 0, "higher": 0}
    for _ in range(baselines):
        usual = usual_windows(_means(drawn(300))).iloc[0]
        now = _means(factor * drawn(n))
        value = now["value"].to_numpy()
        sides = {end: np.abs(now[end].to_numpy() - value) for end in ("lower", "upper")}
        for side, end, other, sign in (
            ("lower", "upper", "lower", -1),
            ("higher", "lower", "upper", 1),
        ):
            error = margin_beside(sides[end], sides[other]) / Z95
            found = beyond_usual(value, error, {n: np.full(len(value), usual[n]) for n in USUAL})
            is_past = (sign * (value - usual["usual"]) > 0) & (found.p_value <= 0.05)
            called[side] += int(is_past.sum())
    return {side: count / baselines / 30 for side, count in called.items()}


def of_changes(baselines: int) -> Iterator[Row]:
    """Yield a line a law, shock of the day and size of the window that is judged."""
    rng = np.random.default_rng(SEED)
    for name in CHANGED:
        for shock in (0.0, 0.15):
            for n in (100, 300, 1_200):
                same, fell, rose = (
                    past_chance(LAWS[name], shock, n, factor, baselines, rng)
                    for factor in (1.0, 0.7, 1.4)
                )
                numbers = same["lower"], same["higher"], fell["lower"], rose["higher"]
                goal = Goal(max(numbers[:2]), MOST_CALLED)
                said = f"{name}, {n:,} rows" + (f", days {shock:g}" if shock else "")
                yield Row(said, tuple(f"{number:.3f}" for number in numbers), goal)


def _held(found: Mapping[str, float], name: str, *others: str, promised: bool) -> Row:
    goal = Goal(abs(round(found["held"], 3) - 0.95), 0.0201, unit=" off .95") if promised else None
    return Row(name, tuple(f"{found[key]:.3f}" for key in ("held", *others)), goal)


def of_windows(draws: int) -> Iterator[Row]:
    """Yield a line a law and number of rows."""
    rng = np.random.default_rng(SEED)
    for name, law in LAWS.items():
        for n in ROWS:
            found = windows(law, n, draws, rng)
            said = f"{name}, {n:,} rows"
            yield _held(found, said, "given", "reach", "student", "top", promised=name != NO_MEAN)


def of_random_laws(
    draws: int, worlds: int, *, has_variance: bool = True, others: bool = False
) -> Iterator[Row]:
    """Yield a line a number of rows, and one for each law whose intervals hold too seldom."""
    for n in ROWS:
        rng = np.random.default_rng(SEED + n + others)
        laws = [random_law(rng, has_variance=has_variance, others=others) for _ in range(worlds)]
        found = {said: windows(law, n, draws, rng) for said, law in laws}
        given = np.array([one["given"] for one in found.values()])
        held = np.array([one["held"] for one in found.values()])[given >= _SELDOM]
        inside = ((held >= 0.93) & (held <= 0.97)).mean()
        numbers = (held.mean(), np.median(held), held.min(), held.max(), inside, given.mean())
        yield Row(f"{n:,} rows", tuple(f"{number:.3f}" for number in numbers))
        for said, one in found.items():
            if one["held"] < 0.92 and one["given"] >= _SELDOM:
                least = (f"{one['held']:.3f}", "", f"{one['given']:.3f}")
                yield Row(f"  {said}", ("", "", *least[:1], "", "", least[2]))


def of_months(draws: int) -> Iterator[Row]:
    """Yield a line a law."""
    rng = np.random.default_rng(SEED)
    for law in ("log-normal, sigma 1", "a fifth buy, log-normal", "Pareto, tail 3"):
        yield _held(months(law, 28, 100, draws, rng), law, "by_rows", promised=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    parser.add_argument("--worlds", type=int, default=WORLDS)
    asked = parser.parse_args()
    n_draws = asked.draws
    numbers_of_laws = ("mean", "median", "least", "most", "in .93-.97", "given")
    tables = [
        (
            "Mean of a window's outcomes",
            ("held", "given", "reach", "by Student", "top 1 %"),
            of_windows(n_draws),
        ),
        (
            f"{asked.worlds} laws drawn at random: how often intervals hold",
            numbers_of_laws,
            of_random_laws(n_draws // 2, asked.worlds),
        ),
        (
            f"{asked.worlds} of other families",
            numbers_of_laws,
            of_random_laws(n_draws // 2, asked.worlds, others=True),
        ),
        (
            f"{asked.worlds // 3} without a variance",
            numbers_of_laws,
            of_random_laws(n_draws // 2, asked.worlds // 3, has_variance=False),
        ),
        (
            f"{asked.worlds // 3} without a variance, of other families",
            numbers_of_laws,
            of_random_laws(n_draws // 2, asked.worlds // 3, has_variance=False, others=True),
        ),
        (
            "A window beside 30 of 300 rows: called past chance",
            ("same: lower", "same: higher", "x .7: lower", "x 1.4: higher"),
            of_changes(max(n_draws // 50, 2)),
        ),
        ("28 days of 100 rows that share shocks", ("held", "by rows"), of_months(n_draws // 4)),
    ]
    raise SystemExit(show(tables, seed=SEED))
