"""How large the package is: ``python -m tests.size`` prints files and lines of code by room."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.test_architecture import FILES, lines_of_code, room_of


def table(files: list[Path]) -> str:
    """Return a line a room: how many files, and lines that hold code."""
    n_files = Counter(map(room_of, files))
    n_lines: Counter[str] = Counter()
    for path in files:
        n_lines[room_of(path)] += len(lines_of_code(path))
    rows = [f"{room:14} {n_files[room]:4} {n:7,}" for room, n in n_lines.most_common()]
    return "\n".join([*rows, f"{'all':14} {len(files):4} {n_lines.total():7,}"])


if __name__ == "__main__":
    print(table(FILES))
