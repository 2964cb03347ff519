"""The chaos run at full size: `python -m tests.chaos`, about ten minutes.

Four dispatchers, a Slack of which 30 % of the requests fail, more than a hundred kills, workers
frozen past their lease and, on PostgreSQL, three immediate restarts, one with a minute of darkness.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.alerts.fake_slack import fake_slack
from tests.chaos.database import own_postgres
from tests.chaos.drain import drain
from tests.chaos.faults import brew_storm, fates
from tests.chaos.inline import post_inline
from tests.chaos.judge import Finding, judge
from tests.chaos.running import Toll, play, prepare
from tests.chaos.verdicts import expected, verdicts

PAUSES = (0.0, 5.0, 60.0)


def main() -> int:
    """Run what is asked for and print one table each; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", choices=("postgres", "sqlite", "inline"))
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--days", type=int, default=35)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = (options.only,) if options.only else ("postgres", "sqlite", "inline")
    findings = {name: _run(name, options) for name in names}
    is_right = all(found.is_clean != (name == "inline") for name, found in findings.items())
    for n_rows in () if options.only else (300, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{n_rows:,} messages waiting, SQLite: {drain(Path(folder), n_rows)}")
    print("As guaranteed." if is_right else "NOT as guaranteed.")
    return 0 if is_right else 1


def _run(name: str, options: argparse.Namespace) -> Finding:
    arriving = verdicts(options.models, options.days, options.seed)
    events = expected(arriving)
    began, load, toll = time.monotonic(), os.getloadavg()[0], Toll()
    with fake_slack() as slack, tempfile.TemporaryDirectory() as folder:
        faults = brew_storm(slack, options.seed)
        deal = fates(options.seed, freeze_share=0.1)
        if name == "inline":
            post_inline(events, slack.url)
        elif name == "sqlite":
            place = prepare(Path(folder), "", slack, options.models)
            toll = play(place, arriving, deal, n_kills=options.kills)
        else:
            with own_postgres() as (url, restart):
                place = prepare(Path(folder), url, slack, options.models)
                toll = play(
                    place, arriving, deal, n_kills=options.kills, restart=restart, pauses=PAUSES
                )
        found = judge(events, slack.accepted, slack.messages)
        n_calls = len(slack.calls)
    print(f"\n{name}, seed {options.seed}, load average {load:.1f}")
    _print(found, toll, faults, n_calls, time.monotonic() - began)
    return found


def _print(found: Finding, toll: Toll, faults: Counter[str], n_calls: int, seconds: float) -> None:
    kinds = Counter(event.kind for event in found.lost)
    rows = {
        "expected alert events": f"{found.n_expected:,}",
        "requests to Slack": f"{n_calls:,}",
        "faults": f"{faults.total():,} ({_counts(faults)})",
        "kills": f"{toll.kills.total()} ({_counts(toll.kills)})",
        "frozen past the lease": f"{toll.freezes.total()} ({_counts(toll.freezes)})",
        "database restarts": str(toll.n_restarts),
        "processes that ended by an error": str(toll.n_crashed),
        "messages in the channels": f"{found.n_messages:,}",
        "events told in one message after they were over": str(found.n_missed),
        "second copies taken back": str(found.n_taken_back),
        "lost": f"{len(found.lost)} {_counts(kinds)}".rstrip(),
        "duplicated": str(len(found.duplicated)),
        "out of order": str(len(found.out_of_order)),
        "ended threads whose first message does not say so": str(len(found.stale)),
        "wall time": f"{seconds:.0f} s",
    }
    for label, text in rows.items():
        print(f"  {label:<50} {text}")
    for what in (*found.lost[:5], *found.duplicated[:5], *found.out_of_order[:5], *found.stale[:5]):
        print(f"    {what}")


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
