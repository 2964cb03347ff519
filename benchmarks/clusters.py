"""Are periods without a change called changed? `python -m benchmarks clusters`.

Days of the demo's flights are drawn at random from May to August, so that nothing differs between
two periods but chance, and compared as monitors (one day with the days of a baseline) and traces
(two periods) do. Then days with simulated effects of their own, for the coverage of the intervals,
and flights whose scores are partly another flight's, for the power beside a bootstrap of days.
Scores are counted once; every draw is a sum of the days' profiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.scored_worlds import SCORE_BINS, SPAN, bin_of, logistic
from benchmarks.table import Goal, Row, show
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.frames import concat_frames, stack_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.means import mean_rows
from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.performance.roc import roc_auc
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge_columns, select
from mlmon_dagster.metrics.windows.clusters import (
    SERIES,
    beyond_usual,
    change,
    standard_errors,
    usual_windows,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Profiles = dict[str, ColumnStatistics]
SEED = 2013
METRICS = ("roc_auc", "accuracy", "f1", "mae", "brier", "log_loss")
LOSSES = ("mae", "brier", "log_loss")
LEVEL, ALLOWED = 0.01, 0.02
BASELINE = 30  # days
LENGTHS = (7, 14, 30)  # of a period beside it
AT_ONCE = 100  # draws
THRESHOLD = 0.3
BINS = SCORE_BINS // 4
_Z99 = 2.5758293035489004
_SLICE = ("slice_key", "slice_value")


def profiles(rows: pd.DataFrame) -> Profiles:
    """Count rows by day and slice.

    Args:
        rows: ``window_start``, ``slice_key``, ``slice_value``, ``score`` and ``actual``.
    """
    keys = pd.MultiIndex.from_frame(rows[["window_start", *_SLICE]])
    cell, found = pd.factorize(keys, sort=True)
    size = len(found)
    cells = found.to_frame(index=False, name=list(keys.names)).assign(
        dataset="production", model_version="all"
    )
    score, actual = rows["score"].to_numpy(), rows["actual"].to_numpy()
    state = np.where(actual > 0, 2, 1)
    right = np.where(actual > 0, score, 1 - score)
    zero, n = np.zeros(size, np.int64), np.bincount(cell, minlength=size)

    def table(codes: Ints, width: int) -> Ints:
        flat = np.bincount(cell * width + codes, minlength=size * width)
        return flat.reshape(size, width).astype(np.int64)

    def column(binning: Binning, counts: Ints, values: Floats) -> ColumnStatistics:
        sums = [np.bincount(cell, v, minlength=size) for v in (values, values**2)]
        ends = np.zeros(size), np.zeros(size)
        return ColumnStatistics(binning, cells, counts, n, zero, zero, zero, zero, *ends, *sums)

    decided = (score >= THRESHOLD).astype(np.int64)
    losses = {":log_loss": -np.log(right), ":brier": (1 - right) ** 2, ":absolute": 1 - right}
    return {
        "score": column(
            Binning("score", "score", 3 * BINS, "score", low=-SPAN, high=SPAN),
            table(bin_of(score) // 4 * 3 + state, 3 * BINS), losses[":log_loss"],
        ),
        "prediction": column(
            Binning("prediction", "confusion", 6, "decided"), table(decided * 3 + state, 6), score
        ),
        **{
            name: column(Binning(name, "loss", 1, name), n[:, None], values)
            for name, values in losses.items()
        },
    }  # fmt: skip


def measure(found: Profiles) -> pd.DataFrame:
    """Return the metrics of cells."""
    binary = performance_metrics(found["score"], found["prediction"], found)
    frame = concat_frames([binary, stack_rows([mean_rows("mae", found[":absolute"])])])
    return frame[frame["metric"].isin(METRICS)]


def exactly(found: Profiles) -> pd.DataFrame:
    """Return the metrics of cells, areas without what their bins could hide.

    Areas of whole windows come from the order of the scores, which hides nothing.
    """
    frame = measure(found)
    counts = label_counts(found["score"].counts)
    bound = roc_auc(counts[:, :, 1], counts[:, :, 2]).bound
    is_area = (frame["metric"] == "roc_auc").to_numpy()  # a row for each cell, in their order
    frame.loc[is_area, "lower"] += bound
    frame.loc[is_area, "upper"] -= bound
    return frame


def drawn(found: Profiles, places: Ints) -> Profiles:
    """Return the days at `places`, (draws, days), each draw a slice of its own."""
    flat = places.ravel()
    cells = found["score"].cells.iloc[flat].reset_index(drop=True)
    number = np.repeat([f"{i:05d}" for i in range(len(places))], places.shape[1])
    cells = cells.assign(slice_key="draw", slice_value=number)
    return {name: replace(select(stats, flat), cells=cells) for name, stats in found.items()}


def periods(found: Profiles, places: Ints) -> pd.DataFrame:
    """Return value, interval, error between days and number of days of each metric and draw."""
    parts = []
    for first in range(0, len(places), AT_ONCE):
        days = drawn(found, places[first : first + AT_ONCE])
        whole = exactly(merge_columns(days, _SLICE)).set_index(list(SERIES))
        whole = whole[["value", "lower", "upper"]].join(standard_errors(days, measure))
        parts.append(whole.reset_index())
    return pd.concat(parts)


def by_metric(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the draws of a metric in their order."""
    return frame[frame["metric"] == metric].reset_index(drop=True)


def two_periods(now: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    """Compare draws of two periods as traces do; ``rows``: the p-value if rows were counted."""
    difference = now["value"] - then["value"]
    found = change(difference, now["error"], now["n_windows"], then["error"], then["n_windows"])
    half = np.hypot(now["upper"] - now["lower"], then["upper"] - then["lower"]) / 2
    rows = 2 * _normal_tail(np.abs(difference) / half * Z95)
    return pd.DataFrame(
        {"change": difference, "margin": found.margin, "p": found.p_value, "rows": rows}
    )


def one_day(days: pd.DataFrame, places: Ints) -> pd.DataFrame:
    """Compare the first day of each draw with the others as monitors do, one-sided for worse.

    Args:
        days: MetricFrame of one metric, a row per day.
        places: (draws, 1 + days of the baseline).
    """
    draws, size = places.shape
    baseline = days.iloc[places[:, 1:].ravel()].assign(
        slice_value=np.repeat([f"{i:05d}" for i in range(draws)], size - 1)
    )
    usual = usual_windows(baseline).reset_index()
    place = usual["slice_value"].to_numpy().astype(np.int64)
    now = days.iloc[places[place, 0]].reset_index(drop=True)
    is_loss = now["metric"].isin(LOSSES).to_numpy()
    towards = np.where(is_loss, now["value"] - now["lower"], now["upper"] - now["value"])
    found = beyond_usual(now["value"], towards / Z95, usual)
    difference = now["value"] - usual["usual"]
    worse = np.where(is_loss, difference, -difference)
    p = np.where(worse > 0, found.p_value / 2, 1 - found.p_value / 2)
    return pd.DataFrame({"change": difference, "margin": found.margin, "p": p})


def _normal_tail(z: Floats) -> Floats:
    from scipy import special

    return np.asarray(special.ndtr(-z))


def flights() -> pd.DataFrame:
    """Score the demo's flights of May to August; return a row per flight with an outcome."""
    from mlmon_dagster.demo.flights import FEATURES, train

    model = train()
    rows = model.flights
    rows = rows[rows["late"].notna() & pd.to_datetime(rows["day"]).dt.month.between(5, 8)]
    return pd.DataFrame(
        {
            "window_start": pd.to_datetime(rows["day"], utc=True),
            "slice_key": "all", "slice_value": "all",
            "score": model.classifier.predict_proba(rows[list(FEATURES)])[:, 1],
            "actual": rows["late"].astype("float64"),
            "origin": rows["origin"].astype(str), "carrier": rows["carrier"].astype(str),
        }
    ).reset_index(drop=True)  # fmt: skip


def draw_days(rng: np.random.Generator, draws: int, days: int, size: int) -> Ints:
    """Draw days without putting them back, (draws, size)."""
    return rng.permuted(np.tile(np.arange(days), (draws, 1)), axis=1)[:, :size]


def unchanged(rows: pd.DataFrame, draws: int) -> Iterator[Row]:
    """Redraw periods of the flights' days, of which none differs from another."""
    rng = np.random.default_rng(SEED)
    found = profiles(rows)
    days = exactly(found)
    size = len(found["score"])
    places = draw_days(rng, draws, size, 1 + BASELINE)
    for metric in METRICS:
        one = one_day(by_metric(days, metric), places)
        yield _called(f"1 day, {metric}", one)
    for length in LENGTHS:
        now, then = _two(rng, found, draws, length)
        for metric in METRICS:
            both = two_periods(by_metric(now, metric), by_metric(then, metric))
            yield _called(f"{length} days, {metric}", both)


def _two(
    rng: np.random.Generator, found: Profiles, draws: int, length: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw a period of some days, and beside it as many others as a baseline has."""
    places = draw_days(rng, draws, len(found["score"]), length + BASELINE)
    return periods(found, places[:, :length]), periods(found, places[:, length:])


def unchanged_slices(rows: pd.DataFrame, draws: int) -> Iterator[Row]:
    """The same for every origin and carrier, each alone."""
    parts = [rows.assign(slice_key=k, slice_value=rows[k]) for k in ("origin", "carrier")]
    cases: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for part in parts:
        for value, mine in part.groupby("slice_value"):
            rng = np.random.default_rng([SEED, sum(map(ord, str(value)))])
            found = profiles(mine)
            days, size = exactly(found), len(found["score"])
            if size < max(LENGTHS) + BASELINE:
                continue
            single = draw_days(rng, draws, size, 1 + BASELINE)
            for metric in METRICS:
                one = one_day(by_metric(days, metric), single)
                cases.setdefault((1, metric), []).append(one)
            for length in LENGTHS:
                now, then = _two(rng, found, draws, length)
                for metric in METRICS:
                    two = two_periods(by_metric(now, metric), by_metric(then, metric))
                    cases.setdefault((length, metric), []).append(two)
    for (length, metric), each in sorted(cases.items()):
        days_of = "1 day" if length == 1 else f"{length} days"
        yield _called(f"{days_of}, {metric}, {len(each)} slices", pd.concat(each))


def _called(name: str, found: pd.DataFrame) -> Row:
    known = found[found["p"].notna()]
    if known.empty:  # fewer windows than say how far windows stray: shown, never called
        return Row(name, ("never", "", "", f"0 of {len(found):,}"), Goal(0.0, ALLOWED))
    share = float((known["p"] <= LEVEL).mean())
    held = float((known["change"].abs() <= known["margin"]).mean())
    rows = f"{(known['rows'] <= LEVEL).mean():.3f}" if "rows" in known else ""
    return Row(name, (f"{share:.3f}", rows, f"{held:.3f}", f"{len(known):,}"), Goal(share, ALLOWED))


def simulated(draws: int) -> Iterator[Row]:
    """Days with effects of their own: how often the interval of the change holds 0."""
    for correlation in (0.02, 0.05, 0.1):
        for n in (100, 400):
            rng = np.random.default_rng([SEED, n, int(100 * correlation)])
            days = profiles(shared(rng, 3 * draws, n, correlation))
            size = len(days["score"])
            frame = exactly(days)
            places = draw_days(rng, draws, size, 1 + BASELINE)
            chosen = draw_days(rng, draws, size, 14 + BASELINE)
            now, then = (periods(days, p) for p in (chosen[:, :14], chosen[:, 14:]))
            for metric in METRICS[:4]:
                one = one_day(by_metric(frame, metric), places)
                two = two_periods(by_metric(now, metric), by_metric(then, metric))
                for length, found in (("1 day", one), ("14 days", two)):
                    known = found[found["p"].notna()]
                    held = float((known["change"].abs() <= known["margin"]).mean())
                    called = float((known["p"] <= LEVEL).mean())
                    name = f"{correlation:g}, {n} a day, {length}, {metric}"
                    goal = Goal(round(abs(held - 0.95), 3), 0.02, unit=" off .95")
                    yield Row(name, (f"{held:.3f}", f"{called:.3f}", f"{len(known):,}"), goal)


def shared(
    rng: np.random.Generator, days: int, n: int, correlation: float, worse: float = 0.0
) -> pd.DataFrame:
    """Draw rows of days whose scores share an effect of the day, one for either class.

    Args:
        rng: Draws.
        days: Days.
        n: Rows of a day on average; Saturdays and Sundays have a third of them.
        correlation: Between the scores of two rows of a day and class, in logit space.
        worse: How much less the classes are apart, 0 to 1.
    """
    sizes = rng.poisson(n * np.where(np.arange(days) % 7 < 5, 1.0, 1 / 3))
    day = np.repeat(np.arange(days), sizes)
    actual = rng.random(len(day)) < 0.3
    effects = rng.normal(0, 1, (days, 2))[day, actual.astype(int)]
    noise = rng.normal(0, 1, len(day))
    latent = 1.2 * (1 - worse) * actual + np.sqrt(correlation) * effects
    latent += np.sqrt(1 - correlation) * noise
    start = pd.Timestamp("2024-01-01", tz="UTC")
    return pd.DataFrame(
        {
            "window_start": start + pd.to_timedelta(day, unit="D"),
            "slice_key": "all", "slice_value": "all",
            "score": logistic(-1.6 + 1.2 * latent), "actual": actual.astype(np.float64),
        }
    )  # fmt: skip


def power(rows: pd.DataFrame, draws: int, resamples: int) -> Iterator[Row]:
    """Flights of which some have the score of another flight of their day: what is seen.

    Beside it a bootstrap of days: both periods drawn again by day, the difference divided by the
    standard deviation of these. First both call as many unchanged periods: the threshold of either
    is what a hundredth of those exceed. Then as they are, by Student's t and by the normal law,
    with which the bootstrap calls more than that.
    """
    rng = np.random.default_rng(SEED)
    found = profiles(rows)
    size = len(found["score"])
    places = draw_days(rng, draws, size, 14 + BASELINE)
    then = periods(found, places[:, 14:])
    again = resampled(rng, found, places[:, 14:], resamples)
    null: dict[str, tuple[float, float]] = {}
    for share in (0.0, 0.2, 0.4):
        worse = profiles(swapped(rng, rows, share)) if share else found
        now = periods(worse, places[:, :14])
        other = resampled(rng, worse, places[:, :14], resamples)
        for metric in METRICS[:4]:
            both = two_periods(by_metric(now, metric), by_metric(then, metric))
            z = np.abs(both["change"]) / np.hypot(other[metric], again[metric])
            nominal = float((both["p"] <= LEVEL).mean()), float((z > _Z99).mean())
            as_they_are = tuple(f"{one:.3f}" for one in nominal)
            if not share:
                null[metric] = float(both["p"].quantile(LEVEL)), float(z.quantile(1 - LEVEL))
                yield Row(f"none swapped, {metric}", ("0.010", "0.010", *as_they_are))
                continue
            limit, most = null[metric]
            ours, theirs = float((both["p"] <= limit).mean()), float((z > most).mean())
            numbers = (f"{ours:.3f}", f"{theirs:.3f}", *as_they_are)
            goal = Goal(round(ours - theirs, 3), -0.02, is_least=True, unit=" more")
            yield Row(f"{share:.0%} swapped, {metric}", numbers, goal)


def swapped(rng: np.random.Generator, rows: pd.DataFrame, share: float) -> pd.DataFrame:
    """Give a share of the rows each other's scores, within their day."""
    chosen = rows[rng.random(len(rows)) < share]
    order = np.lexsort((rng.random(len(chosen)), chosen["window_start"]))
    days = np.argsort(chosen["window_start"].to_numpy(), kind="stable")
    found = rows.copy()
    found.loc[chosen.index[days], "score"] = chosen["score"].to_numpy()[order]
    return found


def resampled(
    rng: np.random.Generator, found: Profiles, places: Ints, resamples: int
) -> dict[str, Floats]:
    """Return metric -> standard deviation over resampled days, (draws,)."""
    scores = label_counts(found["score"].counts).astype(np.float64)
    decisions = label_counts(found["prediction"].counts).astype(np.float64)
    absolute, n = found[":absolute"].total, found[":absolute"].n
    deviations: dict[str, list[float]] = {metric: [] for metric in METRICS[:4]}
    days = places.shape[1]
    for place in places:
        weight = rng.multinomial(days, np.full(days, 1 / days), resamples).astype(np.float64)
        negatives, positives = (weight @ scores[place, :, state] for state in (1, 2))
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = negatives.sum(axis=1) * positives.sum(axis=1)
        table = np.tensordot(weight, decisions[place], 1)
        tp, tn, fp, fn = table[:, 1, 2], table[:, 0, 1], table[:, 1, 1], table[:, 0, 2]
        rows = weight @ n[place]
        each = {
            "roc_auc": (positives * below).sum(axis=1) / pairs,
            "accuracy": (tp + tn) / rows,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "mae": (weight @ absolute[place]) / rows,
        }
        for metric, values in each.items():
            deviations[metric].append(float(values.std(ddof=1)))
    return {metric: np.array(each) for metric, each in deviations.items()}


def main() -> int:
    """Print the tables; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--slice-draws", type=int, default=100, help="of every slice")
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap")
    asked = parser.parse_args()
    rows = flights()
    called = ("called at .01", "by rows", "held", "draws")
    tables: list[tuple[str, Sequence[str], Iterator[Row]]] = [
        ("Unchanged periods of the flights", called, unchanged(rows, asked.draws)),
        ("The same by slice", called, unchanged_slices(rows, asked.slice_draws)),
        ("Days with effects: correlation", ("held", "called at .01", "draws"),
         simulated(asked.draws)),
        ("Seen at equal false alarms", ("ours", "bootstrap", "ours, t", "bootstrap, z"),
         power(rows, asked.draws, asked.resamples)),
    ]  # fmt: skip
    return int(show(tables, seed=SEED) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
