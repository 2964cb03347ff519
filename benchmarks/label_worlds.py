"""Healthy and faulty worlds whose ground truth comes late: `python -m benchmarks label_worlds`.

Each world is drawn from its seed (`label_laws`), lived window by window through the pipeline's own
steps with the spec that `mlmon init` writes (`label_living`), and judged by its own truth
(`label_judging`). Healthy worlds are counted: incidents about truth, its coverage, performance,
calibration and estimates, in years of 365 windows. `--faults` plants one fault in each world and
looks whether it is found soon after enough of its labels have come. `--presence` lives worlds in
which nothing comes on weekends, at night or on holidays. `--ways` lives each world three times: by
`mlmon run` and `mlmon alerts deliver`, by the daemon's sensors, and as one backfill.

    python -m benchmarks label_worlds --worlds 200 --jobs 2 --out healthy.jsonl
    python -m benchmarks label_worlds --worlds 1 --seed 17 --show
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import label_presence as presence
from benchmarks.label_judging import (
    KINDS,
    WITHIN,
    find_detection,
    find_enough,
    find_incidents,
)
from benchmarks.label_laws import FAULTS, LAWS, WINDOWS, Knobs, World, draw_knobs, draw_ways
from benchmarks.label_living import Lived, count_estimates, live
from benchmarks.label_presence import (
    DAYS,
    PresenceWorld,
    draw_presence,
    find_false_silence,
    find_outage,
)
from benchmarks.lived_worlds import Live, Result, live_all
from benchmarks.table import Goal, Row, render

YEAR = 365  # windows
MOST = 0.2  # incidents a year of a healthy world
FOUND = 0.95  # share of the faults


def live_healthy(seed: int, law: str, windows: int, folder: Path) -> Result:
    """Live a healthy world and return what was told."""
    world = World(draw_knobs(seed, law=law, windows=windows))
    lived = live(world, folder)
    incidents = find_incidents(world, lived.episodes)
    return _result(lived) | {"incidents": [asdict(incident) for incident in incidents]}


def live_faulty(seed: int, law: str, windows: int, folder: Path) -> Result:
    """Live a world with a fault until it must have been found; return when it was."""
    fault = FAULTS[(seed + seed // len(LAWS)) % len(FAULTS)]
    knobs = draw_knobs(seed, fault, law, windows)
    world = World(knobs)
    enough = find_enough(world)
    if enough is None:  # too small a fault for so few labels, or they come after the end
        return {"knobs": asdict(knobs), "seconds": 0.0, "enough": None}
    # The same world, cut off once the fault has to be found; one look more shows what came late.
    world.knobs = knobs = Knobs(**{**asdict(knobs), "windows": min(windows, enough + WITHIN + 2)})
    waiting: dict[str, int] = {}

    def on_look(look: int) -> None:
        if look == enough - 1:
            waiting["windows"] = enough - knobs.fault_from
            waiting["estimated"] = count_estimates(world, folder, knobs.fault_from)

    lived = live(world, folder, on_look)
    first = find_detection(world, lived.episodes)
    return _result(lived) | {
        "enough": enough,
        "found": None if first is None else first.opened,
        "by": None if first is None else first.monitor,
        "message": "" if first is None else first.message,
        "waiting": waiting,
    }


def _result(lived: Lived) -> Result:
    return {
        "knobs": dict(lived.knobs),
        "seconds": lived.seconds,
        "spec": lived.spec,
        "episodes": [asdict(episode) for episode in lived.episodes],
    }


def live_presence(seed: int, law: str, windows: int, folder: Path) -> Result:
    """Live a world in which predictions come when people work; return what silence was told."""
    world = PresenceWorld(draw_presence(seed))
    lived = live(world, folder, families=presence.FAMILIES)
    false, outage = find_false_silence(world, lived.episodes), find_outage(world, lived.episodes)
    first = world.outage_looks().start
    return _result(lived) | {
        "false": [asdict(episode) for episode in false],
        "outage": first,
        "found": None if outage is None else outage.opened,
        "ended": None if outage is None else outage.ended,
        "message": "" if outage is None else outage.message,
    }


def live_by_cron(seed: int, law: str, windows: int, folder: Path) -> Result:
    """Live a healthy world by cron, with files, all families and delivered messages."""
    from benchmarks import label_ways as ways

    began = time.perf_counter()
    world = World(draw_knobs(seed, law=law, windows=windows))
    way = ways.live_by_cron(world, folder)
    return {
        "knobs": asdict(world.knobs),
        "seconds": time.perf_counter() - began,
        "incidents": [asdict(incident) for incident in find_incidents(world, way.episodes)],
        "episodes": [asdict(episode) for episode in way.episodes],
        "messages": way.messages,
        "outputs": way.outputs,
    }


def live_all_ways(seed: int, law: str, windows: int, folder: Path) -> Result:
    """Live a world by cron, by the daemon and as one backfill, and say what differs."""
    from benchmarks import label_ways as ways

    began = time.perf_counter()
    fault = FAULTS[1 + seed % 3] if seed % 2 else ""  # of every other world something is told
    world = World(draw_ways(seed, fault, law, windows))
    found = {name: live_it(world, folder / name) for name, live_it in ways.WAYS.items()}
    cron = found["cron"]
    return {
        "knobs": asdict(world.knobs),
        "seconds": time.perf_counter() - began,
        "verdicts": len(cron.verdicts),
        "messages": len(cron.messages),
        "daemon": ways.compare_verdicts(cron.verdicts, found["daemon"].verdicts),
        "backfill": ways.compare_with_backfill(cron, found["backfill"]),
        "left_out": len(ways.find_incomparable(cron, found["backfill"])),
        "told": ways.compare_messages(cron, found["daemon"]),
        "outputs": [text for way in found.values() for text in way.outputs],
    }


WAYS_OF_LIVING: dict[str, Live] = {
    "healthy": live_healthy,
    "faults": live_faulty,
    "presence": live_presence,
    "cron": live_by_cron,
    "ways": live_all_ways,
}


def describe(result: Result) -> str:
    """Say in a line or more what became of a world."""
    if "error" in result:
        return f"seed {result['seed']} broke: {result['error'].strip().splitlines()[-1]}"
    knobs = result["knobs"]
    known = ("law", "granularity", "rows", "baseline", "every", "fault")
    said = ", ".join(f"{name} {knobs[name]}" for name in known if knobs[name])
    lines = [f"seed {result['seed']} ({said}; {result['seconds']:.0f} s)"]
    for incident in result.get("incidents", ()):
        end = "still open" if incident["ended"] is None else f"to {incident['ended']}"
        right = ", rightly" if incident["is_right"] else ""
        lines.append(
            f"    {incident['monitor']} from {incident['opened']} {end}{right}: "
            f"{incident['message'][:160]}"
        )
    lines += [
        f"    {episode['monitor']} from {episode['opened']} to {episode['ended']}: "
        f"{episode['message'][:160]}"
        for episode in result.get("false", ())
    ]
    if "outage" in result:
        lines.append(
            f"    outage at {result['outage']}: found at {result['found']}, ended {result['ended']}"
            f" {result['message'][:120]}"
        )
    for key in ("daemon", "backfill"):
        for family, differing in result.get(key, {}).items():
            lines.append(f"    {key}, {family}: {len(differing)} verdicts: {differing[0][:300]}")
    if result.get("left_out"):
        lines.append(f"    backfill: {result['left_out']} verdicts wait in one way only")
    lines += [f"    told otherwise: {text[:300]}" for text in result.get("told", ())[:3]]
    lines += [f"    printed: {text[:300]}" for text in result.get("outputs", ())[:2]]
    if "enough" in result:
        found = f"found at {result['found']} by {result['by']}" if result.get("by") else "NOT FOUND"
        said = "too small to be found" if result["enough"] is None else found
        lines.append(f"    enough labels at {result['enough']}: {said}")
    return "\n".join(lines)


def count_healthy(results: Sequence[Result]) -> list[Row]:
    """Return rows of incidents a year, by knob and for all."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        knobs = result["knobs"]
        for name in ("law", "granularity", "baseline"):
            groups.setdefault(f"{name} {knobs[name]}", []).append(result)
        size = (
            "under 200" if knobs["rows"] < 200 else "under 700" if knobs["rows"] < 700 else "more"
        )
        groups.setdefault(f"rows {size}", []).append(result)
    rows = [_rates(name, groups[name]) for name in sorted(groups)]
    everything = _rates("all worlds", results)
    wrong = [i for r in results for i in r["incidents"] if not i["is_right"]]
    rate = len(wrong) / max(_years(results), 1e-9)
    rows.append(Row(everything.name, everything.numbers, Goal(rate, MOST)))
    lasting = sum(incident["never_ends"] for incident in wrong)
    rows.append(Row("that never end", ("",) * len(KINDS) + (str(lasting), ""), Goal(lasting, 0)))
    return rows


def _years(results: Sequence[Result]) -> float:
    return sum(int(result["knobs"]["windows"]) for result in results) / YEAR


def _rates(name: str, results: Sequence[Result]) -> Row:
    wrong = Counter(i["kind"] for r in results for i in r["incidents"] if not i["is_right"])
    years = _years(results)
    numbers = [f"{wrong[kind] / years:.2f}" for kind in KINDS]
    right = sum(i["is_right"] for r in results for i in r["incidents"])
    return Row(
        f"{name} ({len(results)})"[:36], (*numbers, f"{wrong.total() / years:.2f}", str(right))
    )


def count_found(results: Sequence[Result]) -> list[Row]:
    """Return rows of faults found in time, by fault and law and for all."""
    planted = [result for result in results if result["enough"] is not None]
    groups: dict[str, list[Result]] = {}
    for result in planted:
        for name in ("fault", "law"):
            groups.setdefault(f"{name} {result['knobs'][name]}", []).append(result)
    rows = [_shares(name, groups[name]) for name in sorted(groups)]
    whole = _shares("all faults", planted)
    share = sum(map(is_in_time, planted)) / max(len(planted), 1)
    rows.append(Row(whole.name, whole.numbers, Goal(share, FOUND, is_least=True)))
    return rows


def is_in_time(result: Result) -> bool:
    """Say whether a fault was found within `WITHIN` windows of the look with enough labels."""
    return result["found"] is not None and result["found"] <= result["enough"] + WITHIN


def _shares(name: str, results: Sequence[Result]) -> Row:
    in_time = sum(map(is_in_time, results))
    found = [r["found"] - r["enough"] for r in results if r["found"] is not None]
    delay = f"{sum(found) / len(found):+.1f}" if found else "-"
    told = sum(r["waiting"].get("estimated", 0) for r in results if r["waiting"])
    waited = sum(r["waiting"].get("windows", 0) for r in results if r["waiting"])
    return Row(
        f"{name} ({len(results)})"[:36],
        (f"{in_time} of {len(results)}", str(len(found)), delay, f"{told} of {waited}"),
    )


def count_presence(results: Sequence[Result]) -> list[Row]:
    """Return rows of false incidents of silence and of outages found, by kind and for all."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["knobs"]["kind"], []).append(result)
    groups["all worlds"] = list(results)
    rows = []
    for name, mine in groups.items():
        false = sum(len(result["false"]) for result in mine)
        found = sum(is_outage_found(result) for result in mine)
        ended = sum(result["ended"] is not None for result in mine)
        numbers = (str(false), f"{found} of {len(mine)}", f"{ended} of {len(mine)}")
        goal = None
        if name == "all worlds":
            days = sum(DAYS[result["knobs"]["granularity"]] for result in mine)
            goal = Goal(false / max(days / YEAR, 1e-9), MOST)
        rows.append(Row(f"{name} ({len(mine)})", numbers, goal))
    share = sum(map(is_outage_found, results)) / max(len(results), 1)
    rows.append(Row("outages found", ("", f"{share:.2f}", ""), Goal(share, FOUND, is_least=True)))
    return rows


def is_outage_found(result: Result) -> bool:
    """Say whether an outage was told within `WITHIN` windows of its beginning."""
    return result["found"] is not None and result["found"] <= result["outage"] + WITHIN


def count_ways(results: Sequence[Result]) -> list[Row]:
    """Return rows of the worlds in which ways of living differ."""
    rows = []
    for name, key in (
        ("verdicts of cron and daemon", "daemon"),
        ("verdicts of cron and backfill", "backfill"),
        ("messages of cron and daemon", "told"),
    ):
        differing = [result for result in results if result[key]]
        n = sum(result["messages" if key == "told" else "verdicts"] for result in results)
        n -= sum(result.get("left_out", 0) for result in results) if key == "backfill" else 0
        numbers = (f"{len(differing)} of {len(results)}", f"{n:,}")
        rows.append(Row(name, numbers, Goal(len(differing), 0)))
    return rows


TABLES = {
    "healthy": (
        f"Incidents a year of {YEAR} windows in healthy worlds", (*KINDS, "all", "right"),
        count_healthy,
    ),
    "faults": (
        f"Planted faults, found within {WITHIN} windows of enough labels",
        ("in time", "ever", "delay", "estimates"), count_found,
    ),
    "cron": (
        f"Incidents a year of {YEAR} windows in healthy worlds by cron", (*KINDS, "all", "right"),
        count_healthy,
    ),
    "ways": ("Worlds in which ways of living differ", ("differ", "compared"), count_ways),
    "presence": (
        "Silence in worlds where people work, and one outage each",
        ("false", "found", "ended"), count_presence,
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Live the worlds and print their table; 1 if a goal is missed or a world broke."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks label_worlds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="worlds at once")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="that are lived of each")
    parser.add_argument("--law", default="", choices=["", *LAWS], help="of labels; all by default")
    parser.add_argument("--faults", action="store_true", help="plant one in each world")
    parser.add_argument("--presence", action="store_true", help="worlds of presence")
    parser.add_argument("--cron", action="store_true", help="healthy worlds by the commands")
    parser.add_argument("--ways", action="store_true", help="by cron, daemon and backfill")
    parser.add_argument("--out", type=Path, help="JSON lines: read, gone on with, written")
    parser.add_argument("--show", action="store_true", help="print every episode")
    options = parser.parse_args(arguments)
    what = next((name for name in TABLES if getattr(options, name, False)), "healthy")
    seeds = range(options.seed, options.seed + options.worlds)
    way = WAYS_OF_LIVING[what]
    results = live_all(
        what, way, seeds, options.law, options.windows, options.jobs, options.out, describe
    )
    if options.show:
        for result in results:
            print(result.get("spec", ""), result.get("error", ""))
            print(*result.get("episodes", ()), sep="\n")
    lived = [result for result in results if "error" not in result]
    title, columns, count = TABLES[what]
    rows = count(lived)
    print(render(title, columns, rows, seed=seeds, width=13))
    seconds = sum(result["seconds"] for result in lived) / max(len(lived), 1)
    print(f"{len(lived)} worlds lived, {len(results) - len(lived)} broke; {seconds:.0f} s a world")
    return int(len(lived) < len(results) or any(r.goal and not r.goal.is_met for r in rows))


if __name__ == "__main__":
    raise SystemExit(main())
