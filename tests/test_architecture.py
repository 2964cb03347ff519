"""The dependency rules of the rooms, read from the imports themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.tokens import measure_text

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlmon_dagster"
# What a room may import of the others. Rooms that stand side by side do not import each other.
ALLOWED = {
    "errors": set(),
    # What a serving process imports, standard library only; see the test below.
    "landing_file": set(),
    "logger": {"landing_file"},
    "spec": {"errors"},
    "metrics": {"errors", "spec"},
    "scaffold": {"errors", "spec"},
    "store": {"errors", "spec"},
    "ingest": {"errors", "spec", "metrics", "store"},
    "warehouse": {"errors", "spec", "store", "ingest"},
    "profiles": {"errors", "spec", "metrics", "store"},
    "monitors": {"errors", "spec", "metrics", "store", "ingest", "profiles"},
    "alerts": {"errors", "spec", "metrics", "store", "ingest", "profiles", "monitors"},
    "collect": {"errors", "spec", "store", "ingest", "landing_file"},
    "trace": {"errors", "spec", "metrics", "profiles", "monitors"},
}
ALLOWED["project"] = {"errors", "spec", "store", "ingest", "warehouse"}
ALLOWED["work"] = {"errors", "spec", "metrics", "store", "profiles", "project"}
ALLOWED["engines"] = {"errors", "spec", "project"}
ALLOWED["families"] = {
    "errors", "spec", "metrics", "store", "ingest", "profiles", "monitors", "project", "work",
}  # fmt: skip
ALLOWED["tables"] = set(ALLOWED) - {"landing_file", "logger", "scaffold", "collect", "engines"}
ALLOWED["report"] = ALLOWED["tables"] - {"alerts"} | {"tables"}
LOWER = set(ALLOWED)
ALLOWED |= {
    "pipeline": LOWER,
    "defs": LOWER | {"pipeline", "notebook"},
    "serve": LOWER | {"pipeline"},
    "drill": LOWER | {"pipeline", "defs"},
    "notebook": LOWER | {"pipeline"},
    "definitions": LOWER | {"defs"},
    "commands": LOWER | {"pipeline", "defs", "drill", "serve"},
    "demo": LOWER | {"pipeline", "defs", "commands"},
    "cli": LOWER | {"pipeline", "defs", "commands", "demo"},
    "__init__": LOWER | {"defs", "notebook"},
}
PURE = {"numpy", "scipy", "pandas"}
FILES = sorted(PACKAGE.rglob("*.py"))
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


@cache
def import_nodes(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    return tuple(n for n in nodes_of(path) if isinstance(n, ast.Import | ast.ImportFrom))


def imports_of(path: Path) -> Iterator[str]:
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.module and node.level == 0:
            yield node.module


@cache
def names_used(path: Path) -> set[str]:
    return {ast.unparse(node) for node in nodes_of(path) if isinstance(node, ast.Attribute)}


def rooms_imported(path: Path) -> set[str]:
    own = {name for name in imports_of(path) if name.startswith("mlmon_dagster.")}
    return {name.split(".")[1] for name in own} - {room_of(path)}


def test_a_room_imports_only_what_stands_before_it() -> None:
    strays = {
        str(path.relative_to(PACKAGE)): rooms_imported(path) - ALLOWED[room_of(path)]
        for path in FILES
    }

    assert {path: rooms for path, rooms in strays.items() if rooms} == {}


def test_no_imports_go_in_a_circle() -> None:
    """Of whatever kind: in functions and for types alone as well."""
    names = {module_of(path): path for path in FILES}
    graph = {name: set(modules_imported(path, names)) for name, path in names.items()}
    left = dict(graph)
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]

    assert {name: sorted(needed & left.keys()) for name, needed in left.items()} == {}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in import_nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def test_what_does_not_know_dagster_is_not_in_defs() -> None:
    idle = {
        path.name
        for path in FILES
        if room_of(path) == "defs"
        and not any(name.split(".")[0].startswith("dagster") for name in imports_of(path))
    }

    assert idle == {"__init__.py"}


def test_metrics_import_only_numbers() -> None:
    third_party = (
        {
            name.split(".")[0]
            for path in FILES
            if room_of(path) == "metrics"
            for name in imports_of(path)
        }
        - set(sys.stdlib_module_names)
        - {"mlmon_dagster"}
    )

    assert third_party <= PURE


# They hold no formula of their own: shapes, sums, and what the others are put together with.
NO_FORMULA = {"frames.py", "statistics.py"}


def test_every_module_of_formulas_names_its_source() -> None:
    silent = {
        path.name
        for path in FILES
        if room_of(path) == "metrics" and path.name != "__init__.py"
        if not re.search(r"\b1[89]\d\d\b|\b20\d\d\b", path.read_text())
    }

    assert silent == NO_FORMULA


def test_what_a_serving_process_imports_is_the_standard_library() -> None:
    rooms = {"__init__", "errors", "landing_file", "logger"}
    third_party = {
        name.split(".")[0] for path in FILES if room_of(path) in rooms for name in imports_of(path)
    } - {*sys.stdlib_module_names, "mlmon_dagster"}

    assert third_party == set()


def test_metrics_read_no_clock_environment_files_or_global_randomness() -> None:
    banned = ("datetime.now", "time.time", "os.environ", "np.random.seed", "np.random.rand", "open")
    used = {
        f"{path.name}: {name}"
        for path in FILES
        if room_of(path) == "metrics"
        for name in names_used(path)
        if name.endswith(banned)
    }

    assert used == set()


def test_the_environment_is_read_in_two_files() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if names_used(path) & {"os.environ", "os.getenv", "os.environ.get"}
    }

    assert readers <= {"project.py", "cli.py"}


# Who alone may import a package: rooms, or files. A table of users is opened where it is read.
IMPORTED_BY = {
    "dagster": {"defs", "definitions"},
    "duckdb": {"store"},
    "deltalake": {"store", "ingest/sources/delta.py"},
    "pyiceberg": {"ingest/sources/iceberg.py", "warehouse"},
    "slack_sdk": {"alerts/receivers/slack.py"},
}  # fmt: skip


@pytest.mark.parametrize("package", IMPORTED_BY)
def test_a_package_is_imported_where_it_belongs(package: str) -> None:
    importing = {
        path for path in FILES if any(name.startswith(package) for name in imports_of(path))
    }

    assert importing
    assert [
        path
        for path in importing
        if not {room_of(path), str(path.relative_to(PACKAGE))} & IMPORTED_BY[package]
    ] == []


def test_what_an_extra_brings_is_loaded_only_where_it_is_needed() -> None:
    """Else nothing works without it; the one module is imported inside functions alone."""
    extras = {
        "confluent_kafka", "fsspec", "obstore", "sklearn", "threadpoolctl", "flask", "moto", "ray",
        "pyspark", "holidays", "pyiceberg",
    }  # fmt: skip
    loading = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if {name.split(".")[0] for name in imported_at_once(path)} & extras
    }
    needing = "mlmon_dagster.store.places.duckdb_objects"

    assert loading == {"store/places/duckdb_objects.py"}
    assert [path.name for path in FILES if needing in imported_at_once(path)] == []


def imported_at_once(path: Path) -> set[str]:
    """Return what a module imports when it is loaded."""
    found = set[str]()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_folder_holds_more_files_than_one_looks_through() -> None:
    sizes = Counter(path.parent for path in FILES)

    assert max(sizes.values()) <= 25


def test_what_one_neighbour_alone_needs_is_in_that_neighbour_or_a_concept_of_some_size() -> None:
    names = {module_of(path): path for path in FILES}
    users: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for used in set(modules_imported(path, names)) - {name}:
            users[used].add(name)
    crumbs = [
        name
        for name, path in names.items()
        if path.name != "__init__.py"
        and len(users[name]) == 1
        and {names[user].parent for user in users[name]} == {path.parent}
        and measure_text(path.read_text()).tokens < 400
    ]

    assert crumbs == []


def any_in(path: Path) -> int:
    """Count how often the type that says nothing is named."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in nodes_of(path))


def test_any_stays_at_the_edge_to_untyped_libraries() -> None:
    assert sum(map(any_in, FILES)) <= 175


def offering_any(path: Path) -> Iterator[str]:
    """Name the functions that others may call and whose signature holds it."""
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            signature = [node.args, *([node.returns] if node.returns else [])]
            names = (n for part in signature for n in ast.walk(part) if isinstance(n, ast.Name))
            if any(name.id == "Any" for name in names):
                yield f"{path.relative_to(PACKAGE)}: {node.name}"


def test_signatures_hold_any_only_towards_untyped_libraries_and_json() -> None:
    """Click, Dagster, PyYAML, columns of SQLAlchemy and Arrow."""
    assert len([name for path in FILES for name in offering_any(path)]) <= 30


# Where the words mean something else, such as the key of a JSON schema, a reason or releases.
OTHER_WORDS = {
    "alerts/lifecycle/apply_results.py": 1, "cli.py": 1, "collect/openapi.py": 14,
    "collect/otlp.py": 1, "commands/doctor.py": 1, "commands/rows.py": 1, "engines/engine.py": 2,
    "monitors/evidence.py": 2, "monitors/wording.py": 1, "pipeline/model_registry.py": 1,
    "report/health.py": 1, "spec/changes.py": 1, "spec/declaration.py": 1,
    "store/tables/spans.py": 1,
}  # fmt: skip
DECLARED = {"spec/names.py", "spec/monitors.py"}  # which also say what their assets are called


def test_the_name_of_a_family_is_written_where_it_is_declared() -> None:
    """Others ask what a family is; where one alone is meant, they go by the constant."""
    from mlmon_dagster.spec.monitors import FAMILIES

    named = Counter(
        str(path.relative_to(PACKAGE))
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and node.value in FAMILIES
        if room_of(path) != "families"
    )
    mistaken = {name: n for name, n in named.items() if n != OTHER_WORDS.get(name, 0)}

    # a type takes no constants
    assert mistaken.keys() - DECLARED == {"spec/metric_registry.py"}
    assert named["spec/metric_registry.py"] == 2


@pytest.mark.parametrize("path", sorted({*re.findall(r"`([\w/]+(?:\.py|/))`", ARCHITECTURE)}))
def test_every_file_that_the_page_of_the_architecture_names_exists(path: str) -> None:
    assert (PACKAGE / path).exists() or (ROOT / path).exists()


# One process imports one after the other; what each must not have loaded.
LIGHT = {
    "mlmon_dagster": {"dagster", "pandas", "numpy"},
    "mlmon_dagster.spec": {"dagster", "pandas", "numpy"},
    "mlmon_dagster.defs.assets": {"pandas", "scipy", "matplotlib", "jinja2", "PIL"},
    "mlmon_dagster.cli": {"pandas", "scipy", "matplotlib", "jinja2", "PIL"},
    "mlmon_dagster.definitions": {
        "great_expectations", "pandas", "scipy", "matplotlib", "sklearn"
    },
    "mlmon_dagster.profiles": {"great_expectations", "scipy.stats", "matplotlib", "sklearn"},
    "mlmon_dagster.families.registry": {"great_expectations", "scipy.stats", "sklearn"},
}  # fmt: skip


def test_importing_does_not_load_what_is_not_needed_yet() -> None:
    code = f"""
import importlib, sys
for name, heavy in {LIGHT!r}.items():
    importlib.import_module(name)
    print(*[name, *sorted(heavy & set(sys.modules))])
"""
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert loaded.stdout.splitlines() == list(LIGHT)
