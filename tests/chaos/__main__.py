"""The chaos run at full size: `python -m tests.chaos`, about ten minutes.

Four dispatchers, a Slack of which 30 % of the requests fail, more than a hundred kills, workers
frozen past their lease and, on PostgreSQL, three immediate restarts, one with a minute of darkness.
They look at random days only, twice after weeks; monitors are edited and removed in between;
for a sixth of the looks Slack answers nothing, which counts as an outage after ten days. The
rule of old, by which what is over at the next look is not told, is run too: the harness must find
it wanting. So must it a product that passes over what is late (`deaf`), where 300 drawn revisions
of past windows turn good ones bad and bad ones good.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

from mlmon_dagster.store import open_store
from tests.alerts.fake_slack import fake_slack
from tests.chaos.database import own_postgres
from tests.chaos.drain import drain
from tests.chaos.faults import brew_storm, fates
from tests.chaos.judge import Finding, judge
from tests.chaos.revisions import Revised, draw, passing_over_what_is_late, play_revisions
from tests.chaos.running import Toll, looks_of, play, prepare, untold
from tests.chaos.verdicts import expected, looks, verdicts

REVISIONS = ("revisions", "deaf")
SHOWN_TO_FAIL = ("forgetful", "deaf")
PAUSES = (0.0, 5.0, 60.0)


def main() -> int:
    """Run what is asked for and print one table each; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    kinds = ("postgres", "sqlite", "forgetful", *REVISIONS)
    parser.add_argument("--only", choices=kinds)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--days", type=int, default=160)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--revisions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = (options.only,) if options.only else kinds
    is_right = True
    for name in names:
        found = _run_revisions(name, options) if name in REVISIONS else _run(name, options)
        is_right &= found.is_clean != (name in SHOWN_TO_FAIL)
    for n_rows in () if options.only else (300, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{n_rows:,} messages waiting, SQLite: {drain(Path(folder), n_rows)}")
    print("As guaranteed." if is_right else "NOT as guaranteed.")
    return 0 if is_right else 1


def _run(name: str, options: argparse.Namespace) -> Finding:
    arriving = verdicts(options.models, options.days, options.seed)
    looked = looks(options.days, options.seed)
    silent = range(len(looked) // 3, len(looked) // 2)
    episodes = expected(arriving, looked)
    began, load = time.monotonic(), os.getloadavg()[0]
    forgets, on_postgres = name == "forgetful", name == "postgres"
    with (
        fake_slack() as slack,
        tempfile.TemporaryDirectory() as folder,
        own_postgres() if on_postgres else nullcontext(("", None)) as (url, restart),
    ):
        faults = brew_storm(slack, options.seed)
        place = prepare(Path(folder), url, slack, options.models, forgets=forgets)
        toll = play(
            place,
            arriving,
            looked,
            fates(options.seed, freeze_share=0.1),
            n_kills=0 if forgets else options.kills,
            restart=restart,
            pauses=PAUSES if on_postgres else (),
            silence=slack.fall_silent,
            silent=silent,
        )
        n_untold = untold(place)
        found = judge(episodes, slack.accepted, slack.messages, looks_of(place))
        found.n_untold = n_untold
        n_calls = len(slack.calls)
    print(f"\n{name}, seed {options.seed}, load average {load:.1f}")
    _print(found, toll, faults, n_calls, time.monotonic() - began)
    gaps = [after - before for before, after in pairwise([0, *looked])]
    print(f"  {'looks, and the most days taken in by one':<50} {len(looked)}, {max(gaps)}")
    days = looked[silent[-1] + 1] - looked[silent[0]]
    silence = f"{days}, {found.n_summaries}"
    print(f"  {'days without an answer of Slack, and summaries of it':<50} {silence}")
    print(f"  {'unmuted events without a message':<50} {n_untold}")
    return found


def _run_revisions(name: str, options: argparse.Namespace) -> Revised:
    arriving, found = draw(12, options.days, options.revisions, options.seed)
    began = time.monotonic()
    with (
        fake_slack() as slack,
        tempfile.TemporaryDirectory() as folder,
        passing_over_what_is_late() if name == "deaf" else nullcontext(),
    ):
        faults = brew_storm(slack, options.seed, slow=False)
        place = prepare(Path(folder), "", slack, 12)
        store = open_store(place.folder / "store", None)
        play_revisions(store, place, slack, arriving, found, options.seed)
        store.close()
    print(f"\n{name}, seed {options.seed}")
    rows = {
        "revisions of past windows": f"{found.n_revisions.total()} ({_counts(found.n_revisions)})",
        "windows whose verdict they change": str(found.n_windows),
        "looks after which belief and truth are compared": str(found.n_looks),
        "messages about past windows": _counts(found.n_told),
        "faults, and dispatches stopped in between": f"{faults.total():,}, {found.n_killed}",
        "never told": str(len(found.never)),
        "told twice": str(len(found.twice)),
        "withdrawn or standing wrongly": str(len(found.wrongly)),
        "wall time": f"{time.monotonic() - began:.0f} s",
    }
    for label, text in rows.items():
        print(f"  {label:<50} {text}")
    for wrong in (found.never, found.twice, found.wrongly):
        for what in wrong[:5]:
            print(f"    {what}")
    return found


def _print(found: Finding, toll: Toll, faults: Counter[str], n_calls: int, seconds: float) -> None:
    rows = {
        "expected alert events": f"{found.n_expected:,} in {found.n_episodes:,} episodes",
        "requests to Slack": f"{n_calls:,}",
        "faults": f"{faults.total():,} ({_counts(faults)})",
        "kills": f"{toll.kills.total()} ({_counts(toll.kills)})",
        "frozen past the lease": f"{toll.freezes.total()} ({_counts(toll.freezes)})",
        "database restarts": str(toll.n_restarts),
        "processes that ended by an error": str(toll.n_crashed),
        "messages in the channels": f"{found.n_messages:,}",
        "episodes told in one message after they were over": str(found.n_over),
        "second copies taken back": str(found.n_taken_back),
        "never told": str(len(found.lost)),
        "told twice": str(len(found.duplicated)),
        "out of order": str(len(found.out_of_order)),
        "told after it was over as if it were not": str(len(found.as_if_open)),
        "ended threads whose first message does not say so": str(len(found.stale)),
        "wall time": f"{seconds:.0f} s",
    }
    for label, text in rows.items():
        print(f"  {label:<50} {text}")
    for wrong in found.wrong:
        for what in wrong[:5]:
            print(f"    {what}")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
