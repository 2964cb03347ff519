"""How often drift cries wolf with the defaults: `python -m benchmarks calibrate drift`.

Windows are drawn from known laws, baseline and current alike, for every cell several baselines: a
bad draw of the baseline is part of the rate. A window fails as in the monitor: its change is larger
than 0.1 and significant at q = 0.01, of a column alone, or after Benjamini-Hochberg of any of 20.
An alert stands by the rule of `windows: 2 of 3`, from the window that opens it to the one that ends
it. The goals are for that, and for the upper end of the 95 % interval (Wilson, as if windows of one
baseline were independent), so that few windows cannot meet them.

`python -m benchmarks power` is the other side: what is seen, beside exact tests and other tools.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_laws import (
    Generator,
    Ints,
    Law,
    Sharing,
    batches,
    column_of,
    draw,
    drift_metrics,
    hours,
    laws,
    users,
)
from benchmarks.table import Goal, Row, render
from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, step
from mlmon_dagster.metrics.intervals import benjamini_hochberg, wilson
from mlmon_dagster.spec.monitors import DriftMonitor

Flags = NDArray[np.bool_]
MONITOR = DriftMonitor()
SIZES = (30, 50, 100, 200, 500, 5_000, 100_000)
COLUMNS = 20
SEED = 7
PER_COLUMN, PER_FAMILY = 0.01, 0.05
_FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Setting:
    """A kind of traffic: how large baseline windows are, and which rows share a value."""

    name: str
    baseline: Callable[[Generator], Ints]
    sharing: Sharing | None = None


def _same(windows: int, rows: int) -> Callable[[Generator], Ints]:
    return lambda rng: np.full(windows, rows)


def _uneven(rng: Generator) -> Ints:
    return np.exp(rng.uniform(np.log(100), np.log(10_000), 60)).astype(np.int64)


SETTINGS = (
    Setting("60 windows of 1,000", _same(60, 1_000)),
    Setting("one of 60,000", _same(1, 60_000)),
    Setting("28 windows of 50", _same(28, 50)),
    Setting("traffic x100", _uneven),
    Setting("24 hours share values", _same(60, 1_000), hours),
    Setting("users share values", _same(60, 1_000), users),
    Setting("batches of 40 share a value", _same(60, 1_000), batches(40)),
    Setting("batches of 5 share a value", _same(60, 1_000), batches(5)),
    Setting("users, traffic x100", _uneven, users),
)


@dataclass(frozen=True)
class Verdicts:
    """What unchanged windows were called; arrays (repeats, windows, columns).

    Attributes:
        alone: Whether the window failed as a model's only column. family: as one of all.
        judged: Whether there was a verdict.
    """

    alone: Flags
    family: Flags
    judged: Flags

    def stands(self, failed: Flags) -> Flags:
        """Say after which windows an alert stands."""
        found = np.zeros_like(failed)
        for repeat, i in zip(*np.nonzero(failed.any(axis=1)), strict=True):
            found[repeat, :, i] = standing(failed[repeat, :, i], self.judged[repeat, :, i])
        return found


def verdicts(
    setting: Setting, rows: int, windows: int, repeats: int, columns: Mapping[str, Law]
) -> Verdicts:
    """Judge unchanged windows of `COLUMNS` columns, with a baseline of their own every time."""
    chosen = [list(columns.values())[i % len(columns)] for i in range(COLUMNS)]
    alone, family, judged = np.zeros((3, repeats, windows, COLUMNS), dtype=bool)
    for repeat in range(repeats):
        rng = np.random.default_rng([SEED, rows, repeat])
        p, effect = np.zeros((2, windows, COLUMNS))
        for i, law in enumerate(chosen):
            baseline = column_of(law, draw(rng, law, setting.baseline(rng), setting.sharing))
            current = column_of(law, draw(rng, law, np.full(windows, rows), setting.sharing))
            frame = drift_metrics(current, baseline, seed=1, min_rows=MONITOR.min_rows)
            mine = frame[frame["metric"] == MONITOR.method]
            p[:, i], effect[:, i] = mine["p_value"], mine["value"] - mine["by_chance"]
        adjusted = np.array([benjamini_hochberg(row.tolist()) for row in p])
        large = effect > MONITOR.above
        alone[repeat] = (p <= MONITOR.q) & large
        family[repeat] = (adjusted <= MONITOR.q) & large
        judged[repeat] = np.isfinite(p)
    return Verdicts(alone, family, judged)


def standing(failed: Flags, judged: Flags) -> list[bool]:
    """Say after which of consecutive windows an alert stands."""
    k, n = MONITOR.windows
    state, found = AlertState(), []
    for i, (bad, known) in enumerate(zip(failed, judged, strict=True)):
        status = MONITOR.severity if bad else "OK" if known else "NO_DATA"
        verdict = Verdict(_FIRST + dt.timedelta(days=i), status, i)
        state = step(state, verdict, k=k, n=n).after
        found.append(state.active)
    return found


def share(flags: Flags) -> tuple[float, str, float]:
    """Return how many are true, that with its 95 % interval as text, and the upper end."""
    found = float(flags.mean())
    low, high = (float(end) for end in wilson(flags.sum(), flags.size))
    return found, f"{found:.4f} ({low:.4f}-{high:.4f})", high


def rows_of(name: str, found: Verdicts, columns: Sequence[str]) -> tuple[Row, Row]:
    """Return the cell's line in the table of columns, and in that of families."""
    by_law = [slice(i, None, len(columns)) for i in range(len(columns))]
    single = [share(found.alone[..., part]) for part in by_law]
    worst = max(range(len(columns)), key=lambda i: single[i][0])
    stands = found.stands(found.alone)
    alert = max((share(stands[..., part]) for part in by_law), key=lambda item: item[0])
    law = columns[worst] if single[worst][0] else "-"
    unjudged = f"{1 - found.judged.mean():.2f}"
    one = (single[worst][1], law, alert[1], unjudged)
    any_single, any_alert = (
        share(part.any(axis=-1)) for part in (found.family, found.stands(found.family))
    )
    return (
        Row(name, one, Goal(alert[2], PER_COLUMN)),
        Row(name, (any_single[1], "", any_alert[1], unjudged), Goal(any_alert[2], PER_FAMILY)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables; 1 if a rate is not shown to be small enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=100, help="unchanged windows a baseline")
    parser.add_argument("--repeats", type=int, default=4, help="baselines a cell and column")
    parser.add_argument("--only", default="", help="settings with this text in their name")
    options = parser.parse_args(arguments)
    columns = laws()
    table: list[tuple[Row, Row]] = []
    for setting in (setting for setting in SETTINGS if options.only in setting.name):
        for rows in SIZES:
            found = verdicts(setting, rows, options.windows, options.repeats, columns)
            table.append(rows_of(f"{setting.name}, {rows:,}", found, list(columns)))
    heads = ("a window", "of the law", "an alert stands", "no verdict")
    titles = (
        f"False alarms of a column, the worst law, at most {PER_COLUMN:g}",
        f"False alarms of any of {COLUMNS} columns, at most {PER_FAMILY:g}",
    )
    for title, lines in zip(titles, zip(*table, strict=True), strict=True):
        print(render(title, heads, lines, seed=SEED, width=24), flush=True)
    return int(any(row.goal and not row.goal.is_met for pair in table for row in pair))


if __name__ == "__main__":
    raise SystemExit(main())
