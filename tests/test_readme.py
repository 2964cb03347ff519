"""The README and the docs name only what exists: commands, keys, defaults, files, codes."""

import datetime as dt
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mlmon_dagster.cli import cli
from mlmon_dagster.ingest.faults import FILE_REASONS, ROW_REASONS
from mlmon_dagster.spec import ModelSpec, alerting, sources
from mlmon_dagster.spec import declaration as declared
from mlmon_dagster.spec import monitors as families
from mlmon_dagster.spec.baseline import BaselineSpec
from mlmon_dagster.spec.loader import parse_model
from mlmon_dagster.spec.scalars import KOfN, format_duration, parse_duration
from mlmon_dagster.spec.spans import Spans

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


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
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


def default_text(value: Any) -> str:
    """Write a default the way the pages do."""
    if isinstance(value, families.Condition):
        side = "above" if value.above is not None else "below"
        return f"{{{side}: {value.bound:g}}}"
    if isinstance(value, KOfN):
        return f"{value.k} of {value.n}"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def rows_of_section(heading: str) -> dict[str, str]:
    """Return key -> default of the table below a heading of spec.md."""
    section = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", SPEC, re.DOTALL | re.MULTILINE)
    assert section, f"docs/spec.md has no section {heading}"
    return {
        key: default.strip().strip("`")
        for key, default in re.findall(r"^\| `(\w+)` \|([^|]*)\|", section[1], re.MULTILINE)
    }


SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("Top level", ModelSpec),
    ("`time`", declared.TimeSpec),
    (r"`source.predictions`, `source.actuals`", sources.FileSource),
    (r"`source.<stream>` from a table", sources.SqlSource),
    (r"`source.<stream>` from a Delta table", sources.DeltaSource),
    (r"`source.<stream>` from Kafka", sources.KafkaSource),
    (r"`source.<stream>.cursor`", sources.Cursor),
    ("`columns`", declared.Columns),
    ("`costs`", declared.Costs),
    ("`expectations`", declared.Expectation),
    ("`outcomes`", declared.Outcome),
    ("`spans`", Spans),
    ("`effects`", declared.DeclaredEffect),
    ("`effects.experiment`", declared.Experiment),
    ("`fairness`", declared.Fairness),
    ("`actuals`", declared.ActualsPolicy),
    ("`features.<name>`", declared.Feature),
    ("`baseline`", BaselineSpec),
    ("`monitors.schema`", families.SchemaMonitor),
    ("`monitors.freshness`", families.FreshnessMonitor),
    ("`monitors.quality`", families.QualityMonitor),
    ("`monitors.drift`", families.DriftMonitor),
    ("`monitors.performance`", families.PerformanceMonitor),
    ("`monitors.estimated_performance`", families.EstimateMonitor),
    ("`monitors.service`", families.ServiceMonitor),
    ("`monitors.service.classes`", families.RequestClass),
    ("`monitors.service.stages`", families.StageLimits),
    ("`monitors.service.prometheus`", families.Prometheus),
    ("`monitors.service.prometheus.metrics`", families.PrometheusMetric),
    ("`monitors.service.objectives`", families.Objective),
    ("`monitors.service.objectives.counters`", families.ObjectiveCounters),
    ("`monitors.versions`", families.VersionsMonitor),
    ("`monitors.versions.compare`", families.VersionComparison),
    ("`monitors.versions.skew`", families.Skew),
    ("`monitors.versions.staleness`", families.Staleness),
    ("`alerts`", alerting.AlertPolicy),
    ("`retention`", declared.RetentionPolicy),
    (r"`alerts.slack`", alerting.SlackRoute),
    (r"`alerts.webhook`", alerting.WebhookRoute),
    (r"`alerts.email`", alerting.EmailRoute),
    (r"`alerts.pagerduty`", alerting.PagerDutyRoute),
    (r"`alerts.alertmanager`", alerting.AlertmanagerRoute),
    (r"`alerts.teams`", alerting.TeamsRoute),
    (r"`alerts.apprise`", alerting.AppriseRoute),
    (r"`alerts.routes`", alerting.Route),
    (r"`alerts.fallback`", alerting.Fallback),
    (r"`alerts.digest`", alerting.DigestPolicy),
]
COMMON = {"owner", "runbook"}  # of every monitor, in one table above
PLACES = {"slack", "webhook", "email", "pagerduty", "alertmanager", "teams", "apprise"}
AS_IN_FILES = {"asset", "null_tokens", "epoch", "columns", "max_bad_rate"}
ELSEWHERE: dict[str, tuple[str, set[str]]] = {  # keys whose row is in another section, and which
    r"`source.<stream>` from a table": (r"`source.predictions`, `source.actuals`", AS_IN_FILES),
    r"`source.<stream>` from a Delta table": (
        r"`source.predictions`, `source.actuals`", AS_IN_FILES
    ),
    r"`source.<stream>` from Kafka": (r"`source.predictions`, `source.actuals`", AS_IN_FILES),
    r"`alerts.routes`": (r"`alerts`", PLACES),
    r"`alerts.fallback`": (r"`alerts`", PLACES),
}  # fmt: skip
NOT_A_VALUE = {"see below", "empty", "none", "dataset: validation", "on"}


@pytest.mark.parametrize(("heading", "model"), SECTIONS, ids=[s for s, _ in SECTIONS])
def test_every_key_of_the_spec_is_documented_with_its_default(
    heading: str, model: type[BaseModel]
) -> None:
    told = rows_of_section(heading)
    if heading in ELSEWHERE:
        section, shared = ELSEWHERE[heading]
        assert not shared & set(told), "one row a key"
        told |= {key: default for key, default in rows_of_section(section).items() if key in shared}
    keys = {field.alias or name for name, field in model.model_fields.items()}
    common = COMMON if "monitors" in heading else set()
    assert set(told) == keys - common
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in common:
            continue
        if field.default is PydanticUndefined:
            assert told[key] == "-", key
        elif field.default is None:
            assert told[key] in ("none", "learnt"), key
        elif isinstance(field.default, dt.timedelta):
            assert parse_duration(told[key]) == field.default, key
        elif told[key] not in NOT_A_VALUE:
            assert told[key] == default_text(field.default), key


def test_every_part_of_the_spec_has_a_section() -> None:
    parts = [
        thing
        for module in (declared, families)
        for thing in vars(module).values()
        if isinstance(thing, type)
        and issubclass(thing, BaseModel)
        and thing.__module__ in (declared.__name__, families.__name__)
    ]
    covered = {model for _, model in SECTIONS} | {
        sources.Sources, families.Condition, families.Monitors, families.Monitor,
            families._Limited,
        families.Attribution, families.Multivariate,
        declared.Declaration,  # the top level, before its defaults
        # Their sections show every key in an example.
        declared.Labels, declared.Datasets, declared.Explain, declared.Registry, declared.Compute,
        families.BusinessMonitor,  # of the keys of monitors.performance, which the section says
    }  # fmt: skip
    assert set(parts) <= covered


def test_the_table_of_defaults_equals_the_spec() -> None:
    page = (ROOT / "docs/monitors.md").read_text()
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| `monitors\.([\w.]+)` \|$", page, re.MULTILINE)
    monitors = families.Monitors()
    shown = {place: text.strip() for text, place in rows}
    for place, text in shown.items():
        family, _, key = place.partition(".")
        monitor: Any = getattr(monitors, "schema_" if family == "schema" else family)
        if key == "no_data_for":
            assert text == f"for {format_duration(monitor.no_data_for)}"
        elif key:
            assert text == f"more than {getattr(monitor, key).above:g}"
    drift, performance = monitors.drift, monitors.performance[0]
    assert (
        shown["drift"]
        == f"above {drift.above:g}, in {drift.windows.k} of {drift.windows.n} windows"
    )
    assert shown["performance"] == (
        f"by {performance.drop:g}, in {performance.windows.k} of {performance.windows.n} windows"
    )
    assert performance.metric == "roc_auc"
    conditions = {
        f"{family}.{name}"
        for family, model in (
            ("schema", families.SchemaMonitor),
            ("quality", families.QualityMonitor),
            ("service", families.ServiceMonitor),
        )
        for name, field in model.model_fields.items()
        if isinstance(field.default, families.Condition)
    }
    assert conditions <= set(shown)


def test_every_reason_code_is_explained() -> None:
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/ingest.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted([*ROW_REASONS, *FILE_REASONS])


def test_every_environment_variable_is_documented() -> None:
    places = [ROOT / "mlmon_dagster/project.py", *ROOT.glob("mlmon_dagster/alerts/receivers/*.py")]
    source = "".join(path.read_text() for path in places)
    read = set(re.findall(r"MLMON_[A-Z0-9_]+", source))
    assert read == set(re.findall(r"MLMON_[A-Z0-9_]+", (ROOT / ".env.example").read_text()))
    operations = (ROOT / "docs/operations.md").read_text()
    assert read == set(re.findall(r"^\| `(MLMON_[A-Z0-9_]+)`", operations, re.MULTILINE))


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


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) < 150


def test_no_page_has_a_placeholder_left() -> None:
    for page in PAGES:
        assert "@@" not in page.read_text(), page.name


def test_the_shown_declaration_needs_no_key_it_does_not_show() -> None:
    block = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert block
    shown = set(yaml.safe_load(block[1]))
    required = {k for k, field in ModelSpec.model_fields.items() if field.is_required()}
    assert required <= shown
