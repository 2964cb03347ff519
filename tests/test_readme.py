"""The README and the docs name only what exists: commands, keys, defaults, files, codes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from mlmon_dagster.cli import cli
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec import monitors as families
from mlmon_dagster.spec.files.loader import parse_model
from mlmon_dagster.spec.files.meanings import (
    describe_schema,
    find_classes,
    find_fields,
    find_part,
    read_meanings,
)
from tests.site_pages import read_page

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = (ROOT / "README.md").read_text()
SPEC = (ROOT / "docs/spec.md").read_text()


def code_of(text: str) -> Iterator[str]:
    """Yield the lines of fenced blocks and the inline code of a page."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
        yield from (line.strip().removeprefix("$ ") for line in block.splitlines())
    yield from re.findall(
        r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )


def commands(program: str) -> list[tuple[str, str]]:
    """Return (page, command) for every command of a program that a page shows."""
    return sorted(
        {
            (page.name, code.partition("#")[0].strip())
            for page in PAGES
            for code in code_of(page.read_text())
            if code.startswith(f"{program} ")
        }
    )


@pytest.mark.parametrize(("page", "command"), commands("mlmon"))
def test_every_mlmon_command_exists_with_its_options(page: str, command: str) -> None:
    node: click.Command = cli
    words = shlex.split(re.split(r"\s{3,}| \| ", command)[0])[1:]
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            option = next((p for p in node.params if word in p.opts), None)
            assert option, f"{page}: {command}: no option {word}"
            is_flag = getattr(option, "is_flag", False)
            words = words if is_flag else words[1:]
        elif isinstance(node, click.Group):
            found = node.get_command(click.Context(node), word)
            assert found, f"{page}: {command}: no command {word}"
            node = found
        else:
            assert any(isinstance(p, click.Argument) for p in node.params), f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), commands("make"))
def test_every_make_target_exists(page: str, command: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), commands("python -m"))
def test_every_module_named_to_be_run_exists_and_knows_its_words(page: str, command: str) -> None:
    module, *words = shlex.split(command)[2:]
    if module == "pytest":
        assert all((ROOT / word).exists() for word in words), f"{page}: {command}"
        return
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file() or module in (
        "venv", "pip",
    ), f"{page}: {command}"  # fmt: skip
    if path.is_dir():
        known = "".join(file.read_text() for file in path.glob("*.py"))
        for word in words:
            assert word.strip("[]").lstrip("-").split("=")[0] in known or not word[0].isalpha(), (
                f"{page}: {command}: {module} does not know {word}"
            )


def test_every_promise_names_a_command_that_checks_it() -> None:
    text = (ROOT / "docs/guarantees.md").read_text().partition("## What is not promised")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if row[0] != "| promise"]

    assert len(promises) >= 15
    for promise, command, found in promises:
        assert command == "the same" or "`" in command, promise
        assert found.strip(" |"), promise


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md", "docs/spec.md"])
def test_the_minimal_declaration_is_valid(page: str) -> None:
    block = re.search(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert block
    assert parse_model(block[1], page).model == "churn"


def test_both_pages_show_the_same_declaration() -> None:
    pages = (README, (ROOT / "docs/getting-started.md").read_text())
    blocks = [re.search(r"```yaml\n(.*?)```", page, re.DOTALL) for page in pages]
    assert blocks[0]
    assert blocks[1]
    assert blocks[0][1] == blocks[1][1]


MEANINGS = read_meanings()
OF_EVERY_MONITOR = {"severity", "windows", "owner", "runbook"}
AS_FOR_FILES = {"asset", "null_tokens", "epoch", "columns", "max_bad_rate"}
RECEIVERS = {"slack", "webhook", "email", "pagerduty", "apprise"}


def find_keys_told_elsewhere(part: str) -> set[str]:
    """Return the keys of a part of the spec that the page points elsewhere for."""
    if part == "monitors.business":
        return {*find_fields(families.PerformanceMonitor)} - {"metric"}
    if part.startswith("monitors.") and part.count(".") == 1:
        return OF_EVERY_MONITOR
    if part.startswith("source.predictions ") and part != "source.predictions path":
        return AS_FOR_FILES
    return RECEIVERS if part == "alerts.routes" else set()


@pytest.mark.parametrize("part", MEANINGS)
def test_every_key_of_the_spec_has_a_meaning(part: str) -> None:
    keys = set(find_fields(find_part(part)))
    elsewhere = find_keys_told_elsewhere(part)

    assert MEANINGS[part].keys() <= keys
    assert keys - MEANINGS[part].keys() <= elsewhere
    assert not MEANINGS[part].keys() & elsewhere, "one line a key"


def test_every_part_of_the_spec_has_meanings_which_the_page_shows() -> None:
    parts, todo = {ModelSpec}, [ModelSpec]
    while todo:
        for field in todo.pop().model_fields.values():
            found = set(find_classes(field.annotation)) - parts
            parts |= found
            todo += found
    assert {part.__name__ for part in parts - {find_part(part) for part in MEANINGS}} == {
        # Lists of lists, or what one sentence says.
        "Sources", "Monitors", "Condition", "Attribution", "Sustained",
        "Labels", "Datasets", "Fallback", "Bounds",
    }  # fmt: skip
    assert re.findall(r"^::: keys (.+)$", SPEC, re.MULTILINE) == [*MEANINGS]


def test_editors_are_told_what_every_key_means() -> None:
    schema = describe_schema()
    assert schema["properties"]["top_share"]["description"].startswith("Binary: share of")
    zone = schema["$defs"]["TimeSpec"]["properties"]["zone"]
    assert zone["description"] == "IANA time zone of the windows."
    assert "](" not in str(schema)


@pytest.mark.parametrize(
    ("row", "section"),
    [
        ("| `granularity` | `day` |", "time"),
        ("| `start` | - |", "a required key"),
        ("| `no_data_for` | `26h` |", "a duration"),
        ("| `unseen_rate` | `{above: 0.01}` |", "a condition"),
        ("| `windows` | `2 of 3` |", "of every monitor"),
        ("| `aliases` | `[champion]` |", "a list"),
        ("| `slices` | `false` |", "a flag"),
    ],
)
def test_the_site_shows_the_defaults_that_the_classes_have(row: str, section: str) -> None:
    assert row in read_page("spec.md"), section


def test_the_page_of_monitors_lists_every_limit_that_families_have_by_default() -> None:
    rows = re.findall(
        r"^\|[^|]*\| `([^|]*)` \| `(monitors\.[^|]*)` \|$", read_page("monitors.md"), re.M
    )
    shown = {place: limit for limit, place in rows}
    conditions = {
        f"monitors.{family}.{name}": f"{{above: {field.default.above:g}}}"
        for family, model in (
            ("schema", families.SchemaMonitor),
            ("quality", families.QualityMonitor),
            ("service", families.ServiceMonitor),
        )
        for name, field in model.model_fields.items()
        if isinstance(field.default, families.Condition)
    }
    assert conditions.items() <= shown.items()
    assert shown["monitors.drift.above"] == "0.1"
    assert shown["monitors.performance.drop"] == "0.05"
    assert shown["monitors.freshness.no_data_for"] == "26h"


def test_every_environment_variable_is_in_the_example_which_the_site_shows() -> None:
    sources = (ROOT / "mlmon_dagster").rglob("*.py")
    read = {name for path in sources for name in re.findall(r"MLMON_[A-Z0-9_]+", path.read_text())}
    assert read == set(re.findall(r"^#(MLMON_\w+)=", (ROOT / ".env.example").read_text(), re.M))
    page = read_page("operations.md")
    assert read == set(re.findall(r"^\| `(MLMON_\w+)`", page, re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[p.name for p in PAGES])
def test_links_to_files_and_headings_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def test_every_image_is_used_and_small() -> None:
    used = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text())
    }
    images = set((ROOT / "docs/images").iterdir())
    assert used == images
    assert all(image.stat().st_size < 300_000 for image in images)


def test_no_page_has_a_placeholder_left() -> None:
    for page in PAGES:
        assert "@@" not in page.read_text(), page.name


def test_the_shown_declaration_needs_no_key_it_does_not_show() -> None:
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert block
    shown = set(yaml.safe_load(block[1]))
    required = {k for k, field in ModelSpec.model_fields.items() if field.is_required()}
    assert required <= shown
