"""How large the package is, and how much of that came with what.

``python -m tests.size`` prints files and lines that hold code by room; ``--born-after REV`` leaves
out the files that are not in a revision of git, and counts them apart.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.test_architecture import FILES, PACKAGE, ROOT, lines_of_code, room_of


def files_at(revision: str) -> set[str]:
    """Return the package's files of a revision by the names that they have now."""
    listed = _git("ls-tree", "-r", "--name-only", revision, "--", PACKAGE.name)
    moved = _git("diff", "--name-status", "-M40%", "--diff-filter=R", revision, "--", PACKAGE.name)
    names = dict(line.split("\t")[1:] for line in moved)
    return {names.get(name, name) for name in listed}


def _git(*words: str) -> list[str]:
    ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def table(files: list[Path]) -> str:
    """Return a line a room: how many files, and lines that hold code."""
    n_files = Counter(map(room_of, files))
    n_lines: Counter[str] = Counter()
    for path in files:
        n_lines[room_of(path)] += lines_of_code(path)
    rows = [f"{room:14} {n_files[room]:4} {n:7,}" for room, n in n_lines.most_common()]
    return "\n".join([*rows, f"{'all':14} {len(files):4} {n_lines.total():7,}"])


if __name__ == "__main__":
    print(table(FILES))
    if "--born-after" in sys.argv:
        revision = sys.argv[sys.argv.index("--born-after") + 1]
        old = files_at(revision)
        born = [path for path in FILES if str(path.relative_to(ROOT)) not in old]
        print(f"\nnot in {revision}:\n{table(born)}")
