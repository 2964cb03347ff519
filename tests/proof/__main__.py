"""Every proof in full, and one table of what was claimed and found: `python -m tests.proof`.

Two hours and more on two cores; options such as `--examples` make it shorter.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.table import Goal, Row, render
from mlmon_dagster.store import open_store
from tests import forked
from tests.chaos.database import own_postgres
from tests.conftest import new_database, postgres
from tests.defs.killed import STEPS, kill_at_each
from tests.ingest.landing import events, land, truths
from tests.proof import (
    any_order,
    crowd,
    csv_damage,
    documented,
    failing,
    faults,
    generated,
    histories,
    jumping_clocks,
    killing,
    packed_copies,
    restored,
    spec_space,
    together,
    world,
)

SEED = 20_240_210
JUMPS = 20  # of the clock, in a history of 24 commands


def _land(project: Path) -> None:
    land(project, "landing/predictions/a.parquet", events(8))
    land(project, "landing/predictions/b.csv", events(6, first=4, day="2024-02-02"))
    land(project, "landing/predictions/c.jsonl", events(2, score=[7.0, 0.5]))
    land(project, "landing/actuals/a.csv", truths(9))


def prove_any_order(folder: Path, n: int) -> list[Row]:
    """Run n examples of the property in two processes."""
    template = world.make_template(folder / "template")
    each = repeat(template), repeat(-(-n // 2)), (SEED, SEED + 1)
    with ProcessPoolExecutor(2, mp_context=forked.processes()) as pool:
        hits = sum(pool.map(any_order.examples, *each), Counter())
    examples = hits.pop("examples")
    return [
        Row(
            "any order, split, repeated, killed",
            (f"{examples:,}", f"{hits.total():,} kills", "0 differ"),
            Goal(examples, n, is_least=True, unit=" examples"),
        )
    ]


def prove_kills(folder: Path, n: int) -> list[Row]:
    """Kill n processes with SIGKILL and recover."""
    template = world.make_template(folder / "template")
    killed = killing.kill_everywhere(forked.processes(), template, n)
    return [
        Row(
            "SIGKILL at named steps",
            (f"{killed.total():,}", f"{len(killed)} steps", "0 differ"),
            Goal(killed.total(), n, is_least=True, unit=" kills"),
        )
    ]


def prove_failures(folder: Path, every: int) -> list[Row]:
    """Let every call of an ingest fail once."""
    calls, expected = failing.calls_of(folder / "clean", _land)
    open_store(folder / "template").close()
    context, wrong = forked.processes(), []
    chosen = range(1, len(calls) + 1, every)
    for n in chosen:
        found = failing.fails_once(context, folder / "template", folder / "one", _land, n)
        wrong += [] if found == expected else [f"call {n}: {calls[n - 1]}"]
    if wrong:
        raise AssertionError(f"not as the clean run after {wrong}")
    rows = [
        Row(f"  of them {kind}", (f"{count:,}",))
        for kind, count in sorted(failing.kinds_of([calls[n - 1] for n in chosen]).items())
    ]
    total = Row(
        "each call of an ingest fails once",
        (f"{len(chosen):,}", f"of {len(calls):,}", "0 differ"),
        Goal(len(chosen), len(calls), is_least=True, unit=" calls"),
    )
    return [total, *rows]


def prove_faults(folder: Path, every: int) -> list[Row]:
    """Let every call to files, and every statement, of a day of a model fail once."""
    if why := faults.why_not():
        return [Row("each call of a day fails once", ("not run", why))]
    rows, wrong = [], []
    for number, kind in enumerate(faults.KINDS):
        (home := folder / f"{number}").mkdir()
        found = faults.run_faults(home, kind, None, every)
        bad = [text for how in ("different", "traceback", "silent") for text in found[how]]
        wrong += [f"{kind}: {text}" for text in bad]
        numbers = (
            f"{found['tried']:,} of {found['calls']:,}",
            f"{found['failed']:,} days failed, {found['seconds'] / found['tried']:.1f} s each",
            f"{len(found['different'])} differ, {len(found['traceback'])} raw, "
            f"{len(found['silent'])} died without a sentence",
        )
        rows.append(Row(f"{kind} at the nth call of a day", numbers, Goal(len(bad), 0)))
        sys.stderr.write(f"{kind}: {'; '.join(numbers)}\n")
    if wrong:
        raise AssertionError("\n".join(wrong))
    return rows


def prove_together(folder: Path, seconds: float) -> list[Row]:
    """Run two ingests and three readers at once."""
    template = world.make_template(folder / "template")
    found = together.all_at_once(forked.processes(), template, folder, seconds)
    wrong = len(found["errors"]) + found["torn"] + len(found["unbalanced"])
    missing = found["batches"] * together.ROWS - found["stored"]
    if wrong or missing or found["stored"] != found["records"]:
        raise AssertionError(str(found))
    numbers = (f"{found['batches']:,} files", f"{found['reads']:,} reads", "0 errors")
    return [Row(f"2 ingests, 3 readers, {seconds:g} s", numbers, Goal(wrong, 0))]


def prove_pipeline(folder: Path, _n: int) -> list[Row]:
    """Kill a run of all assets at each step and feed it the same rows in another order."""
    kill_at_each(folder, STEPS)
    return [Row("pipeline killed at each step", (f"{len(STEPS)} kills", "", "0 differ"))]


def prove_specs(folder: Path, n: int) -> list[Row]:
    """Take n generated models through three rounds of files in two processes."""
    template = folder / "template"
    open_store(template).close()
    chosen = list(enumerate(spec_space.choices(n, SEED)))
    parts = [chosen[k::2] for k in range(2)]
    folders = [folder / f"part{k}" for k in range(2)]
    with ProcessPoolExecutor(2, mp_context=forked.processes()) as pool:
        done = pool.map(generated.prove_part, repeat(template), folders, parts)
        found = [one for part in done for one in part]
    covered = set().union(*(spec_space.pairs_of(choice) for _, choice in chosen))
    possible = spec_space.every_pair()
    n_rounds = sum(one.n_rounds for one in found)
    seconds = sum(one.seconds for one in found) / max(n_rounds, 1)
    counted = {
        "rows written": sum(one.n_rows for one in found),
        "metrics": sum(one.n_metrics for one in found),
        "verdicts": sum(one.n_verdicts for one in found),
    }
    refused, back = sum(one.n_refused for one in found), sum(one.n_back for one in found)
    early, retried = sum(one.n_early for one in found), sum(one.n_retried for one in found)
    problems = {
        kind: sum(len(one.problems.get(kind, ())) for one in found) for kind in generated.KINDS
    }
    return [
        Row(
            "generated specs, 3 rounds of files",
            (f"{len(found):,}", f"{n_rounds:,} rounds", f"{seconds:.1f} s each"),
            Goal(n_rounds, 3 * n, is_least=True, unit=" rounds"),
        ),
        Row("  pairs of options", (f"{len(covered & possible):,}", f"of {len(possible):,}")),
        *(Row(f"  {name}", (f"{count:,}",)) for name, count in counted.items()),
        Row("  rows refused, and mended in new files", (f"{refused:,}", f"{back:,}")),
        Row(
            "  refused rows that ingest --retry takes in",
            (f"{early:,}", f"{retried:,}", f"{retried / max(early, 1):.0%}"),
            Goal(early - retried, 0),
        ),
        *(Row(f"  {kind}", (f"{count:,}",), Goal(count, 0)) for kind, count in problems.items()),
    ]


def prove_documented(folder: Path, n: int) -> list[Row]:
    """Ask servers of several worlds about n generated requests of each operation."""
    rows, wrong = [], []
    for name in documented.WORLDS:
        (home := folder / name).mkdir()
        found = documented.ask(home, name, n, SEED)
        wrong += [f"{name}: {check}: {text}" for check, text in found.problems.items()]
        answers = ", ".join(
            f"{count} x {status}" for status, count in sorted(found.statuses.items())
        )
        numbers = (f"{found.statuses.total():,} requests", answers)
        rows.append(Row(f"mlmon collect, {name}", numbers, Goal(len(found.problems), 0)))
    if wrong:
        raise AssertionError("\n".join(wrong))
    return rows


def prove_csv(folder: Path, n: int) -> list[Row]:
    """Read n CSV files of generated dialects and damage in two processes."""
    each = repeat(folder), repeat(-(-n // 2)), (SEED, SEED + 1)
    with ProcessPoolExecutor(2, mp_context=forked.processes()) as pool:
        found = sum(pool.map(csv_damage.read_files, *each), Counter())
    counts = {name: found.pop(name) for name in ("files", "rows", "refused", "sniffed")}
    if found:
        raise AssertionError("\n".join(list(found)[:20]))
    numbers = (f"{counts['rows']:,} rows", f"{counts['refused']:,} refused", "0 unaccounted")
    files = Goal(counts["files"], n, is_least=True, unit=" files")
    return [
        Row("CSV of any dialect and damage", numbers, files),
        Row("  of them in the dialect that DuckDB takes them for", (f"{counts['sniffed']:,}",)),
    ]


def prove_copies(folder: Path, n: int) -> list[Row]:
    """Erase an id of which n refused files of many packings may hold a trace."""
    store = open_store(folder / "store")
    found = packed_copies.erase_among_copies(store, random.Random(SEED), n)
    store.close()
    if found.back or found.lost:
        raise AssertionError(f"still there: {found.back}; gone without cause: {found.lost}")
    kinds = len(packed_copies.TEXTS) * len(packed_copies.PACKINGS)
    numbers = (f"{found.n_files:,} files", f"{found.n_named:,} with the id", f"{kinds} kinds")
    return [Row("traces of an erased id", numbers, Goal(len(found.traces), 0))]


def prove_restores(folder: Path, n: int) -> list[Row]:
    """Put copies of different days together, on SQLite and a fifth as many on PostgreSQL."""
    on_sqlite = restored.try_mixtures(folder / "sqlite", n, SEED)
    with own_postgres() as (url, _):
        copy = partial(new_database, url)
        on_postgres = restored.try_mixtures(folder / "postgres", -(-n // 5), SEED, copy)
    rows = []
    for name, found in (("SQLite", on_sqlite), ("PostgreSQL", on_postgres)):
        if found.different:
            raise AssertionError("\n".join(found.different))
        numbers = (f"{found.n}", f"{found.n_noticed} noticed", f"{found.n_lost} after files came")
        rows.append(
            Row(
                f"old and new together, {name}",
                numbers,
                Goal(found.n_noticed, found.n, is_least=True),
            )
        )
        rows.append(Row("  erased people who came back", ("",), Goal(found.n_back, 0)))
    return rows


def prove_clocks(folder: Path, n: int) -> list[Row]:
    """Play histories with n jumps of the clock, a fifth of them on PostgreSQL, beside calm ones."""
    jumps = [JUMPS] * (n // JUMPS) + ([n % JUMPS] if n % JUMPS else [])
    groups = [jumps[k::2] for k in range(min(2, len(jumps)))]
    folders = [folder / f"{k}" for k in range(len(groups))]
    with own_postgres() as (url, _), ProcessPoolExecutor(2, mp_context=forked.processes()) as pool:
        seeds = range(SEED, SEED + len(groups))
        done = pool.map(jumping_clocks.play_beside_calm, folders, seeds, groups, repeat(url))
        found = sum(done, Counter())
    numbers = (f"{found['jumps']:,} jumps", f"{found['histories']:,} histories", "")
    total = Row("clocks that jump", numbers, Goal(found["jumps"], n, is_least=True, unit=" jumps"))
    compared = {
        "untold": "episodes told", "told twice": "episodes told", "deleted too early": "rows",
        "never computed": "windows", jumping_clocks.KINDS[-1]: "jumps",
    }  # fmt: skip
    return [
        total,
        *(
            Row(f"  {kind}", (f"{found[kind]:,}", f"of {found[of]:,} {of}"), Goal(found[kind], 0))
            for kind, of in compared.items()
        ),
    ]


def prove_sources(folder: Path, n: int) -> list[Row]:
    """Live through n drawn histories of tables, Delta tables and topics in two processes."""
    template = folder / "template"
    open_store(template).close()
    each = [(histories.KINDS[i % len(histories.KINDS)], i) for i in range(n)]
    parts = [each[k::2] for k in range(2)]
    folders = [folder / f"part{k}" for k in range(2)]
    found: dict[str, list[histories.Found]] = {kind: [] for kind in histories.KINDS}
    with ExitStack() as opened:
        # A transaction that is open in any database of a server delays what is read by transaction.
        servers = [opened.enter_context(postgres()) for _ in parts]
        pool = opened.enter_context(ProcessPoolExecutor(2, mp_context=forked.processes()))
        done = pool.map(histories.live_part, folders, repeat(template), servers, parts)
        for kind, one in (pair for part in done for pair in part):
            found[kind].append(one)
    rows, wrong = list[Row](), list[str]()
    for kind, lived in found.items():
        total = sum(lived, histories.Found())
        wrong += [f"{kind}, history {one.seed}: {one}" for one in lived if one.wrong]
        numbers = (
            f"{len(lived)} histories, {total.n_rows:,} rows, {total.n_kills:,} kills",
            f"{len(total.told):,} gone and told",
            f"{len(total.twice)} twice, {len(total.strange)} strange, {len(total.unseen)} unseen",
        )
        rows.append(Row(f"{kind}: rows missed without a word", numbers, Goal(len(total.silent), 0)))
    if wrong:
        raise AssertionError("\n".join(wrong))
    return rows


def prove_strangers(folder: Path, n: int) -> list[Row]:
    """Let n strangers of each kind come, in the clear and over TLS."""
    rows = []
    for kind in crowd.STRANGERS:
        for is_secured in (False, True):
            (home := folder / f"{kind} {is_secured}").mkdir()
            met = crowd.meet(home, kind, n, is_secured=is_secured)
            n_probes = met.n_answers + met.n_failed
            numbers = (
                f"{met.n_came:,} strangers",
                f"{met.n_answers:,} of {n_probes:,} probes answered",
                f"{met.megabytes:.0f} MB",
            )
            name = f"{kind}, {'TLS' if is_secured else 'plain'}: slowest answer"
            rows.append(Row(name, numbers, Goal(round(met.slowest, 2), 1, unit=" s")))
            rows.append(Row("  probes without an answer", ("",), Goal(met.n_failed, 0)))
            rows.append(Row("  memory", ("",), Goal(round(met.megabytes), 400, unit=" MB")))
    return rows


# Option -> how many by default, and what of.
SIZES: dict[str, tuple[float, str]] = {
    "examples": (2_000, "streams in any order"),
    "kills": (204, "killed processes"),
    "every": (1, "of so many calls of a day one fails"),
    "seconds": (60.0, "that readers and writers run together"),
    "specs": (500, "generated specs"),
    "csv": (100_000, "generated CSV files"),
    "copies": (200, "refused files"),
    "mixtures": (50, "mixtures of old and new copies"),
    "jumps": (500, "jumps of the clock"),
    "histories": (300, "histories of sources"),
    "strangers": (2_000, "strangers of each kind"),
    "requests": (300, "requests of each operation"),
}
Proof = Callable[[Path, Any], list[Row]]
PROOFS: dict[str, tuple[Proof, str]] = {  # and the option that says how much
    "kills": (prove_kills, "kills"),
    "failures": (prove_failures, "every"),
    "faults": (prove_faults, "every"),
    "together": (prove_together, "seconds"),
    "pipeline": (prove_pipeline, "kills"),
    "http": (prove_documented, "requests"),
    "strangers": (prove_strangers, "strangers"),
    "csv": (prove_csv, "csv"),
    "restores": (prove_restores, "mixtures"),
    "copies": (prove_copies, "copies"),
    "clocks": (prove_clocks, "jumps"),
    "sources": (prove_sources, "histories"),
    "specs": (prove_specs, "specs"),
    "order": (prove_any_order, "examples"),
}


def main() -> int:
    """Run the proofs, print the table, return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (size, text) in SIZES.items():
        parser.add_argument(f"--{name}", type=type(size), default=size, help=text)
    parser.add_argument("--only", choices=PROOFS)
    options = parser.parse_args()
    rows, failed = [], 0
    for name, (prove, size) in PROOFS.items():
        if options.only not in (None, name):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                rows += prove(Path(folder), getattr(options, size))
            except AssertionError:
                failed += 1
                rows.append(Row(f"{name}: FAILED", ("see below",), Goal(1, 0)))
                traceback.print_exc()
        sys.stderr.write(f"{name}: {time.monotonic() - start:.0f} s\n")
    title = "Proofs of the inference store"
    sys.stdout.write(render(title, ("found", "", ""), rows, seed=SEED) + "\n")
    return failed + sum(row.goal is not None and not row.goal.is_met for row in rows)


if __name__ == "__main__":
    sys.exit(main())
