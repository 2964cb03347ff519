"""A benchmark's table: what was measured, on what, and whether each goal was met."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("dagster", "duckdb", "deltalake", "pyarrow", "pandas", "numpy", "scipy")


@dataclass(frozen=True)
class Goal:
    """A number that a row must not exceed, or reach.

    Attributes:
        value: What was measured. limit: The goal. is_least: The goal is a least value.
        unit: Written after the limit.
        best: The value's other end, where it is the worse end of an interval of chance; a goal
            between the two is neither reached nor missed.
    """

    value: float
    limit: float
    is_least: bool = False
    unit: str = ""
    best: float | None = None

    @property
    def is_met(self) -> bool:
        """Say whether the value is on the right side of the limit."""
        return self._is_right(self.value)

    def _is_right(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit

    @property
    def verdict(self) -> str:
        """Return ``met``, ``NOT MET``, or ``not shown`` where chance may do either."""
        if self.is_met:
            return "met"
        is_open = self.best is not None and self._is_right(self.best)
        return "not shown" if is_open else "NOT MET"

    def __str__(self) -> str:
        bound = "at least" if self.is_least else "at most"
        text = f"{bound} {self.limit:g}{self.unit}"
        return f"{text:<17} {self.verdict}"


@dataclass(frozen=True)
class Row:
    """One line of a table: its name, its numbers as text, and its goal if it has one."""

    name: str
    numbers: tuple[str, ...]
    goal: Goal | None = None


def render(
    title: str, columns: Sequence[str], rows: Sequence[Row], *, seed: object, width: int = 14
) -> str:
    """Return the table as text, headed by the machine, the versions and the seed."""
    lines = ["", title, _machine(), _versions(), f"seed {seed}"]
    lines.append(f"{'':36}" + "".join(f"{name:>{width}}" for name in columns) + "  goal")
    for row in rows:
        numbers = "".join(f" {number:>{width - 1}}" for number in row.numbers)
        goal = "-" if row.goal is None else str(row.goal)
        lines.append(f"{row.name:36}{numbers:<{width * len(columns)}}  {goal}")
    return "\n".join(lines)


def show(
    tables: Iterable[tuple[str, Sequence[str], Iterable[Row]]], *, seed: object, width: int = 14
) -> int:
    """Print tables as soon as each is measured.

    Args:
        tables: Title, columns and rows of each.
        seed: As of `render`.
        width: As of `render`.

    Returns:
        How many goals are missed.
    """
    missed = 0
    for title, columns, each in tables:
        rows = list(each)
        print(render(title, columns, rows, seed=seed, width=width), flush=True)
        missed += sum(row.goal is not None and not row.goal.is_met for row in rows)
    return missed


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, load now {load:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> str:
    known = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, {known}"


KEPT_HELP = "results so far: read, gone on with, written; of one version of the code"


class Kept:
    """Results by name, as JSON.

    Args:
        path: The file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        is_there = path is not None and path.exists()
        self._known: dict[str, Any] = json.loads(path.read_text()) if path and is_there else {}

    def of(self, name: object, compute: Callable[[], Any]) -> Any:
        """Return a result, computed if it is not known yet."""
        key = str(name)
        if key not in self._known:
            self._known[key] = compute()
            if self._path is not None:
                new = self._path.with_name(f"{self._path.name}.new")
                new.write_text(json.dumps(self._known))
                new.replace(self._path)
        return self._known[key]
