"""What `make check` runs after a change."""

from __future__ import annotations

from tests.test_architecture import ROOT
from tests.touched import ALWAYS, TESTS, find_touched


def touched_by(*names: str) -> set[str]:
    found = find_touched([ROOT / name for name in names])
    return {str(path.relative_to(TESTS)) for path in found} - set(ALWAYS)


def test_a_module_touches_the_tests_of_its_room_and_those_that_import_it() -> None:
    found = touched_by("mlmon_dagster/metrics/windows/law.py")

    assert found > {f"metrics/{path.name}" for path in (TESTS / "metrics").glob("test_*.py")}
    assert "monitors/test_sustained.py" in found
    assert "cli/test_cli.py" not in found


def test_a_module_of_the_tests_touches_what_imports_it_directly_or_not() -> None:
    found = touched_by("tests/warehouse/owned_world.py")

    assert "warehouse/test_in_place.py" in found
    assert not any(name.startswith("metrics/") for name in found)


def test_a_page_touches_the_tests_that_read_it() -> None:
    assert {"test_readme.py", "test_plain_english.py"} <= touched_by("docs/architecture.md")


def test_rooms_have_tests_of_their_own_or_are_named() -> None:
    from tests.test_architecture import FILES, room_of
    from tests.touched import FOLDERS

    rooms = {room_of(path) for path in FILES} - {path.stem for path in FILES}
    missing = {room for room in rooms if not (TESTS / FOLDERS.get(room, room)).is_dir()}

    assert missing == set()
