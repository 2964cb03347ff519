"""Drawn years of twelve kinds, and faults of 25 kinds in them: `python -m benchmarks years`.

Healthy years are lived whole through the pipeline's own steps, with the spec that `mlmon init`
writes and what a user would add; what somebody is told is counted in incidents: times during which
alerts of one family are open. `--faults` plants a fault into each and looks when somebody is told,
and whether the first message names the column. Beside it stand the rules that most people use.

    python -m benchmarks years --worlds 60 --jobs 2 --out years.jsonl
    python -m benchmarks years --faults --worlds 200 --jobs 2 --out faults.jsonl
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.label_judging import join_overlapping
from benchmarks.label_living import Episode, live
from benchmarks.lived_worlds import Live, Result, live_all
from benchmarks.table import Goal, Row, render
from benchmarks.year_faults import (
    FAULTS,
    LABELLED,
    SIZES,
    FaultyWorld,
    draw_faulty,
    find_within,
)
from benchmarks.year_rivals import Alarms, alarm_by_psi, alarm_by_spreads
from benchmarks.year_worlds import DAYS, YearWorld, draw_year

STRIDE = 7  # days from look to look of a healthy year
MOST, FOUND, NAMED = 1.0, 0.9, 0.95


def live_year(seed: int, kind: str, windows: int, folder: Path) -> Result:
    """Live a healthy year and return what was told, and what other rules would have."""
    world = YearWorld(draw_year(seed, kind, windows))
    lived = live(world, folder, families=None, looks=range(0, windows, STRIDE))
    told = [one for one in lived.episodes if not one.muted or _outlives(one)]
    return {
        "knobs": dict(lived.knobs),
        "seconds": lived.seconds,
        "spec": lived.spec,
        "incidents": [
            {"family": family, "opened": some[0].opened, "ended": some[0].ended,
             "said": list(dict.fromkeys(one.message for one in some))}
            for family in dict.fromkeys(one.family for one in told)
            for some in join_overlapping([one for one in told if one.family == family])
        ],
        "psi": _count_spells(alarm_by_psi(world)),
        "spreads": _count_spells(alarm_by_spreads(world)),
    }  # fmt: skip


def _outlives(episode: Episode) -> bool:
    """Say whether an episode of history is told at the first look as firing already."""
    return episode.muted == "backfill" and (episode.ended is None or episode.ended > 0)


def _count_spells(alarms: Alarms) -> int:
    """Count the times, a week apart, at which any column is alarmed."""
    spells, last = 0, -math.inf
    for window in sorted(set().union(*alarms.values())):
        spells += window > last + STRIDE
        last = window
    return spells


def live_faulty_year(seed: int, kind: str, windows: int, folder: Path) -> Result:
    """Live a world with a fault, and return when it was told, how, and by other rules."""
    knobs = draw_faulty(seed)
    world, fault = FaultyWorld(knobs), FAULTS[knobs.fault]
    looks = [*range(0, knobs.fault_from, STRIDE), *range(knobs.fault_from - 1, knobs.windows)]
    lived = live(world, folder, families=None, looks=looks)
    first = knobs.fault_from + (LABELLED if fault.is_of_truth else 0)
    last = first + find_within(knobs.fault, knobs.size)
    told = [
        one for one in lived.episodes if not one.muted and knobs.fault_from <= one.opened < last
    ]
    about = [one for one in told if any(name in one.message for name in fault.names)]
    at = told[0].opened if told else None
    return {
        "knobs": dict(lived.knobs),
        "seconds": lived.seconds,
        "spec": lived.spec,
        "told": [asdict(one) for one in told],
        "found": about[0].opened - first if about else None,
        "named": bool(about) and any(one.opened == at for one in about),
        "psi": _find(alarm_by_psi(world), knobs.fault_from, last, fault.names),
        "spreads": _find(alarm_by_spreads(world), knobs.fault_from, last, fault.names),
    }


def _find(alarms: Alarms, first: int, last: int, names: Sequence[str]) -> bool:
    """Say whether a rule alarms the fault's column in time."""
    return any(
        first <= window < last
        for column, windows in alarms.items()
        if any(name in column for name in names)
        for window in windows
    )


WAYS: dict[str, Live] = {"years": live_year, "year faults": live_faulty_year}


def count_years(results: Sequence[Result]) -> list[Row]:
    """Return rows of incidents a year, by kind and for all."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["knobs"]["kind"], []).append(result)
    rows = [_rates(kind, some) for kind, some in groups.items()]
    whole = _rates("all kinds", results)
    return [*rows, Row(whole.name, whole.numbers)]


def _rates(name: str, results: Sequence[Result]) -> Row:
    years = sum(result["knobs"]["windows"] for result in results) / DAYS
    families = Counter(i["family"] for result in results for i in result["incidents"])
    rate = families.total() / years
    said = ", ".join(f"{family} {n}" for family, n in families.most_common(3))
    rivals = (
        f"{sum(result[rule] for result in results) / years:.1f}" for rule in ("psi", "spreads")
    )
    return Row(f"{name} ({len(results)})", (f"{rate:.2f}", *rivals, said), Goal(rate, MOST))


def count_faults(results: Sequence[Result]) -> list[Row]:
    """Return rows of faults found in time and named first, by kind of fault, and by size."""
    rows = [_shares(name, [r for r in results if r["knobs"]["fault"] == name]) for name in FAULTS]
    rows += [_shares(size, [r for r in results if r["knobs"]["size"] == size]) for size in SIZES]
    found = [result for result in results if result["found"] is not None]
    named = sum(result["named"] for result in found) / max(len(found), 1)
    return [*rows, Row("named first", (f"{named:.2f}", "", "", ""), Goal(named, NAMED, True))]


def _shares(name: str, results: Sequence[Result]) -> Row:
    by_size = []
    for size in SIZES:
        mine = [r for r in results if r["knobs"]["size"] == size]
        n = sum(result["found"] is not None for result in mine)
        by_size.append(f"{n} of {len(mine)}" if mine else "-")
    rivals = (f"{sum(map(bool, (r[rule] for r in results)))}" for rule in ("psi", "spreads"))
    return Row(name, (*by_size, *rivals))


def describe(result: Result) -> str:
    """Say in a line or more what became of a world."""
    if "error" in result:
        return f"seed {result['seed']} broke: {result['error'].strip().splitlines()[-1]}"
    knobs = result["knobs"]
    lines = [
        f"seed {result['seed']} ({knobs['kind']}, {knobs['rows']} rows, {knobs['baseline']}"
        f" {knobs['fault']} {knobs['size']}; {result['seconds']:.0f} s)"
    ]
    for one in result.get("incidents", ()):
        lines += [f"    {one['family']} {one['opened']} to {one['ended']}: {text.splitlines()[0]}"
                  for text in one["said"][:4]]  # fmt: skip
    if "found" in result:
        by = "; ".join(one["message"].splitlines()[0] for one in result["told"][:2])
        lines.append(f"    found {result['found']}, psi {result['psi']}, spreads "
                     f"{result['spreads']}: {by}")  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Live worlds, print the table, and return how many goals are missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--kind", default="", help="only of this kind")
    parser.add_argument("--windows", type=int, default=DAYS, help="days of a healthy year")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep results here, and go on with them")
    parser.add_argument("--faults", action="store_true", help="plant a fault into each")
    args = parser.parse_args()
    what = "year faults" if args.faults else "years"
    seeds = range(args.seed, args.seed + args.worlds)
    results = live_all(
        what, WAYS[what], seeds, args.kind, args.windows, args.jobs, args.out, describe
    )
    broken = [result for result in results if "error" in result]
    lived = [result for result in results if "error" not in result]
    if args.faults:
        columns, rows = ("small", "middle", "gross", "PSI > .2", "3 spreads"), count_faults(lived)
    else:
        columns, rows = ("incidents", "PSI > .2", "3 spreads", "of"), count_years(lived)
    print(render(f"{len(lived)} drawn {what}", columns, rows, seed=args.seed))
    missed = sum(row.goal is not None and not row.goal.is_met for row in rows)
    return missed + len(broken)


if __name__ == "__main__":
    raise SystemExit(main())
