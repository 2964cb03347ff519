"""Which test files a change touches: `make check` runs what ``python -m tests.touched`` prints.

A change is what differs from where the branch left origin/main (without one, or on it: from the
last commit), committed or not. It touches

- a changed test file, and those that import a changed module of the tests, also through another;
- the tests of a changed module's room, and those anywhere that import the module;
- the tests beside a changed ``conftest.py``;
- those that name a changed file which is no Python, and for a page those that read the pages;
- always the rules that hold for all of the package.

What reaches further is seen by `make test`: a room that uses a changed one, what all tests share.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.test_architecture import FILES, ROOT, module_of, modules_imported, room_of

TESTS = ROOT / "tests"
SHARED = TESTS / "conftest.py"
ALWAYS = ("test_architecture.py", "test_reading.py", "test_size.py")
READ_PAGES = ("test_plain_english.py", "test_readme.py")
# Rooms whose tests stand in a folder of another name.
FOLDERS = {
    "collect": "push", "commands": "cli", "definitions": "defs", "families": "monitors"
}  # fmt: skip


def run_git(*words: str) -> list[str]:
    """Return the lines that git prints; none if it fails."""
    ended = subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout.splitlines() if ended.returncode == 0 else []


def find_changes() -> list[Path]:
    """Return the files that differ from where the branch began, or from the last commit."""
    head = run_git("rev-parse", "HEAD")
    begin = run_git("merge-base", "HEAD", "origin/main")
    base = begin if begin and begin != head else run_git("rev-parse", "HEAD~")
    changed = run_git("diff", "--name-only", *base)
    new = run_git("ls-files", "--others", "--exclude-standard")
    return [ROOT / name for name in (*changed, *new)]


def find_importers(changed: Iterable[Path]) -> set[Path]:
    """Return the modules of the tests that import a changed one; of the tests, also indirectly."""
    tests = sorted(TESTS.rglob("*.py"))
    modules = [*FILES, *tests, *(ROOT / "benchmarks").rglob("*.py")]
    known = {module_of(path): path for path in modules}
    imports = {path: set(modules_imported(path, known)) for path in tests}
    todo = [path for path in changed if path != SHARED]
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        name = module_of(path)
        importing = {test for test, names in imports.items() if name in names} - found
        found |= importing
        if path.is_relative_to(TESTS):
            todo += importing
    return found


def find_room(path: Path) -> set[Path]:
    """Return the tests of the room that a module stands in, or beside what they share."""
    if path.name == "conftest.py" and path != SHARED:
        return set(path.parent.glob("test_*.py"))
    if path.is_relative_to(ROOT / "benchmarks"):
        folder = "benchmarks"
    elif path.is_relative_to(ROOT / "mlmon_dagster"):
        folder = FOLDERS.get(room_of(path), room_of(path))
    else:
        return set()
    return set((TESTS / folder).glob("test_*.py"))


def find_readers(path: Path) -> set[Path]:
    """Return the tests that name a file which is no Python."""
    tests = set(TESTS.rglob("test_*.py"))
    found = {test for test in tests if path.name in test.read_text()}
    return found | {TESTS / name for name in READ_PAGES if path.suffix == ".md"}


def find_touched(changed: Iterable[Path]) -> list[Path]:
    """Return the test files that a change touches, in their order."""
    modules = {path for path in changed if path.suffix == ".py"}
    found = {TESTS / name for name in ALWAYS} | modules | find_importers(modules)
    for path in changed:
        found |= find_room(path) if path in modules else find_readers(path)
    tests = {path for path in found if path.is_relative_to(TESTS) and path.exists()}
    return sorted(path for path in tests if path.name.startswith("test_"))


if __name__ == "__main__":
    for touched in find_touched(find_changes()):
        print(touched.relative_to(ROOT))
