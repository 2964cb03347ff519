"""``make drill``: break a model whose truth is known, and see what is noticed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import click

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@click.command(epilog="Example: python -m benchmarks.drill --only null_burst --only feed_stops")
@click.option("--list", "is_list", is_flag=True, help="Show the faults, and do nothing.")
@click.option("--only", multiple=True, metavar="FAULT", help="This fault alone; may be repeated.")
@click.option("--quick", is_flag=True, help="A few faults of different kinds.")
@click.option("--clean", is_flag=True, help="Healthy days instead; nothing may be said about them.")
@click.option("--days", default=60, show_default=True, help="Healthy days of each seed.")
@click.option("--seeds", default=20, show_default=True, help="How many seeds of healthy days.")
@click.option("--seed", default=1, show_default=True, help="Seed of the faults' traffic.")
@click.option("--jobs", default=2, show_default=True, help="Processes to use.")
@click.option("--json", "is_json", is_flag=True, help="Print the result as JSON.")
def drill(
    is_list: bool,
    only: tuple[str, ...],
    quick: bool,
    clean: bool,
    days: int,
    seeds: int,
    seed: int,
    jobs: int,
    is_json: bool,
) -> None:
    """Inject known faults into a model whose truth is known, and report what was noticed.

    A small model lives in a temporary folder: files land, windows are computed and judged, alerts
    go to an inbox that only counts. Neither your project nor its channels are touched. Exit code
    1 if precision or recall miss their goals, an incident has several threads, or one stays open.
    """
    if is_list:
        _list()
        return
    if clean:
        sys.exit(0 if _clean(seeds, days, jobs, is_json) else 1)
    sys.exit(0 if _faults(_chosen(only, quick), seed, jobs, is_json) else 1)


def _list() -> None:
    from benchmarks.drill.feed_faults import FAULTS

    for fault in FAULTS:
        click.echo(f"{fault.name:<20} {fault.days} days  {fault.says}")


def _chosen(only: Sequence[str], quick: bool) -> list[str]:
    from benchmarks.drill.feed_faults import FAULTS, QUICK
    from mlmon_dagster.errors import ConfigError

    names = [fault.name for fault in FAULTS]
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(f"No fault {unknown[0]!r}. python -m benchmarks.drill --list shows them.")
    wanted = only or (QUICK if quick else names)
    return [name for name in names if name in wanted]


def _faults(names: Sequence[str], seed: int, jobs: int, is_json: bool) -> bool:
    from benchmarks.drill.feed_faults import FAULTS
    from benchmarks.drill.lane import live_lane
    from benchmarks.drill.score import render, score

    lanes = [(names[i::jobs], seed + i) for i in range(min(jobs, len(names)))]
    found = score(_each(live_lane, lanes, jobs), FAULTS)
    click.echo(json.dumps(found.as_dict(), indent=2) if is_json else render(found))
    return not found.problems


def _clean(seeds: int, days: int, jobs: int, is_json: bool) -> bool:
    from dataclasses import asdict

    from benchmarks.drill.clean import live_seed, render_clean

    runs = list(_each(live_seed, [(seed, days) for seed in range(1, seeds + 1)], jobs))
    listed = json.dumps([asdict(run) for run in runs], indent=2)
    click.echo(listed if is_json else render_clean(runs))
    return not any(run.alerts or run.messages for run in runs)


def _each(work: Callable[[_In], _Out], items: Sequence[_In], jobs: int) -> Iterator[_Out]:
    """Do the same work for some items, in several processes if there is more than one."""
    if jobs == 1 or len(items) == 1:
        yield from map(work, items)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, items)


if __name__ == "__main__":
    from mlmon_dagster.errors import MlmonError

    try:
        drill(standalone_mode=True)
    except MlmonError as error:
        sys.exit(f"benchmarks.drill: {error}")
